//! What back ends can learn from the server API, with each broker: history, rooms, users' connections, and its document.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::{Value, json};
use wsfleet_tests::client::{Client, Connect};
use wsfleet_tests::gateway::{Fleet, Gateway, Kind};
use wsfleet_tests::http::Ask;
use wsfleet_tests::on_each_broker;
use wsfleet_tests::resume::say;
use wsfleet_tests::wait::until_async;

on_each_broker! {
    history_is_given_by_pages_as_clients_get_it,
    who_is_in_a_room_is_told_by_pages_from_any_gateway,
    the_rooms_of_a_gateway_are_listed_by_name_and_by_pages,
    a_users_connections_are_found_from_any_gateway,
    the_document_that_is_served_is_the_one_in_the_repository,
}

async fn get(gateway: &Gateway, path: &str) -> Result<Value> {
    let answer = Ask::get(path).send(gateway.ports.api).await?;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

async fn refused(gateway: &Gateway, path: &str) -> Result<u16> {
    let answer = Ask::get(path).send(gateway.ports.api).await?;
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{path}"
    );
    Ok(answer.status.as_u16())
}

async fn history_is_given_by_pages_as_clients_get_it(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    let joined = ann.join("a/b c").await?;
    say(&mut ann, "a/b c", 1, 5).await?;
    let gateway = fleet.gateway(1);
    let path = "/api/v1/rooms/a%2Fb%20c/history";
    let last = get(gateway, &format!("{path}?limit=2")).await?;
    assert_eq!(
        (&last["room"], &last["epoch"]),
        (&json!("a/b c"), &joined["epoch"])
    );
    assert_eq!((&last["offset"], &last["next"]), (&json!(5), &json!(4)));
    let message = &last["messages"][1];
    assert_eq!(
        (&message["userId"], &message["payload"]),
        (&json!("user_ann"), &json!(5))
    );
    let all = get(gateway, &format!("{path}?before=4")).await?;
    assert_eq!(all["messages"].as_array().map(Vec::len), Some(3));
    assert_eq!(all.get("next"), None);
    let empty = get(gateway, "/api/v1/rooms/nobody/history").await?;
    assert_eq!((&empty["messages"], &empty["offset"]), (&json!([]), &json!(0)));
    for (query, status) in [
        ("limit=0", 422),
        ("limit=301", 422),
        ("before=0", 422),
        ("limit=x", 400),
        ("x=1", 400),
    ] {
        assert_eq!(
            refused(gateway, &format!("{path}?{query}")).await?,
            status,
            "{query}"
        );
    }
    Ok(())
}

async fn who_is_in_a_room_is_told_by_pages_from_any_gateway(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut members = Vec::new();
    for (number, name) in ["ann", "bob", "cleo", "ann"].into_iter().enumerate() {
        let mut member = fleet.client(number, name).await?;
        member.join("a/b c").await?;
        members.push(member);
    }
    let path = "/api/v1/rooms/a%2Fb%20c/presence";
    let gateway = fleet.gateway(1);
    // presence is told to Redis behind the answer to the join
    until_async("all three are known", || async {
        Ok(get(gateway, path).await?["count"] == 3)
    })
    .await?;
    let first = get(gateway, &format!("{path}?limit=2")).await?;
    assert_eq!(
        first,
        json!({"room": "a/b c", "count": 3, "users": ["user_ann", "user_bob"], "next": "user_bob"})
    );
    let rest = get(gateway, &format!("{path}?after=user_bob")).await?;
    assert_eq!(rest, json!({"room": "a/b c", "count": 3, "users": ["user_cleo"]}));
    let nobody = get(gateway, "/api/v1/rooms/nobody/presence").await?;
    assert_eq!(nobody, json!({"room": "nobody", "count": 0, "users": []}));
    assert_eq!(refused(gateway, &format!("{path}?limit=501")).await?, 422);
    Ok(())
}

async fn the_rooms_of_a_gateway_are_listed_by_name_and_by_pages(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(0, "bob").await?);
    for room in ["c:3", "c:1", "c:2", "d"] {
        ann.join(room).await?;
    }
    bob.join("c:2").await?;
    let gateway = fleet.gateway(0);
    let first = get(gateway, "/api/v1/rooms?prefix=c:&limit=2").await?;
    let expected = json!([{"room": "c:1", "members": 1}, {"room": "c:2", "members": 2}]);
    assert_eq!((&first["rooms"], &first["next"]), (&expected, &json!("c:2")));
    assert_eq!(first["serverId"], "g0");
    let second = get(gateway, "/api/v1/rooms?prefix=c:&limit=2&after=c:2").await?;
    assert_eq!(second["rooms"], json!([{"room": "c:3", "members": 1}]));
    assert_eq!(second.get("next"), None);
    let all = get(gateway, "/api/v1/rooms").await?;
    assert_eq!(
        all["rooms"].as_array().map(Vec::len),
        Some(4),
        "no personal streams: {all}"
    );
    assert_eq!(refused(gateway, "/api/v1/rooms?limit=1001").await?, 422);
    Ok(())
}

/// A user's client, and its `welcome`.
async fn connect(fleet: &Fleet, number: usize, name: &str) -> Result<(Client, Value)> {
    let ports = &fleet.gateway(number).ports;
    let mut client = Connect::to(ports.clients).token(name).open().await?;
    let welcome = client.expect("welcome").await?;
    Ok((client, welcome))
}

fn name_of(connection: &Value) -> (String, String) {
    (
        connection["connectionId"].to_string(),
        connection["serverId"].to_string(),
    )
}

async fn a_users_connections_are_found_from_any_gateway(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (first, one) = connect(&fleet, 0, "ann").await?;
    let (second, two) = connect(&fleet, 1, "ann").await?;
    let _other = connect(&fleet, 0, "bob").await?;
    for number in 0..3 {
        let found = get(fleet.gateway(number), "/api/v1/users/user_ann/connections").await?;
        assert_eq!(
            (&found["userId"], &found["scope"]),
            (&json!("user_ann"), &json!("fleet"))
        );
        let found = found["connections"].as_array().into_iter().flatten();
        let found: BTreeSet<_> = found.map(name_of).collect();
        assert_eq!(found, BTreeSet::from([name_of(&one), name_of(&two)]));
    }
    first.close().await?;
    second.close().await?;
    until_async("nobody is there", || async {
        let found = get(fleet.gateway(2), "/api/v1/users/user_ann/connections").await?;
        Ok(found["connections"] == json!([]))
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_connections_are_not_counted_the_answer_says_that_it_is_one_gateways() -> Result<()> {
    let fleet = Fleet::start_with(Kind::Redis(2), &["--limit", "connectionsPerUser=0"]).await?;
    let _ann = fleet.client(0, "ann").await?;
    for (number, count) in [(0, 1), (1, 0)] {
        let found = get(fleet.gateway(number), "/api/v1/users/user_ann/connections").await?;
        assert_eq!(found["scope"], "gateway");
        assert_eq!(found["connections"].as_array().map(Vec::len), Some(count));
    }
    Ok(())
}

async fn the_document_that_is_served_is_the_one_in_the_repository(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let served = get(fleet.gateway(0), "/api/v1/openapi.json").await?;
    let committed = include_str!("../../docs/openapi.yaml");
    assert_eq!(served, serde_yaml_ng::from_str::<Value>(committed)?);
    Ok(())
}
