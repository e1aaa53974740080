//! Messages of back ends through the server API, with each broker: to rooms and users, one or many, and each once.

use anyhow::Result;
use futures::future::try_join_all;
use hyper::Method;
use serde_json::{Value, json};
use wsfleet_crds::admin::Problem;
use wsfleet_tests::gateway::{Fleet, Gateway, Kind};
use wsfleet_tests::http::{Answer, Ask};
use wsfleet_tests::on_each_broker;

on_each_broker! {
    of_a_hundred_requests_with_one_key_at_once_one_is_delivered,
    a_key_belongs_to_its_operation_to_its_stream_and_to_back_ends,
    a_broadcast_reaches_each_room_once,
    a_batch_goes_to_rooms_and_users_in_its_order_and_once,
    what_cannot_be_served_is_refused_with_what_to_send,
}

async fn post(gateway: &Gateway, path: &str, key: &str, body: &Value) -> Result<Answer> {
    let ask = Ask::json(Method::POST, path, body)?.header("idempotency-key", key);
    ask.send(gateway.ports.api).await
}

async fn posted(gateway: &Gateway, path: &str, key: &str, body: &Value) -> Result<Value> {
    let answer = post(gateway, path, key, body).await?;
    assert_eq!(answer.status, 200, "{path} {key} {body}: {answer:?}");
    answer.json()
}

async fn of_a_hundred_requests_with_one_key_at_once_one_is_delivered(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("r").await?;
    let body = json!({"room": "r", "payload": "once"});
    let asked = (0..100).map(|number| posted(fleet.gateway(number), "/api/v1/publish", "\"k\"", &body));
    let answers = try_join_all(asked).await?;
    let first: Vec<_> = answers.iter().filter(|a| a["duplicate"] == false).collect();
    assert_eq!(first.len(), 1, "{answers:?}");
    let place = |a: &Value| (a["epoch"].clone(), a["offset"].clone());
    assert!(answers.iter().all(|a| place(a) == place(first[0])), "{answers:?}");
    posted(fleet.gateway(0), "/api/v1/publish", "\"other\"", &body).await?;
    let messages = ann.expect_many("room_message", 2).await?;
    assert_eq!(
        (&messages[0]["offset"], &messages[1]["offset"]),
        (&json!(1), &json!(2))
    );
    Ok(())
}

async fn a_key_belongs_to_its_operation_to_its_stream_and_to_back_ends(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("r").await?;
    let say = json!({"type": "room_message", "room": "r", "payload": 1, "id": 1, "msgId": "publish k"});
    ann.send(say).await?;
    assert_eq!(ann.expect("ack").await?["duplicate"], false);
    let to = |room: &str| json!({"room": room, "payload": 2, "userId": "user_ann"});
    let gateway = fleet.gateway(1);
    // neither what a client calls its message, nor another room, nor another operation is the same key
    for (path, body) in [
        ("/api/v1/publish", to("r")),
        ("/api/v1/publish", to("other")),
        ("/api/v1/direct", json!({"userId": "r", "payload": 2})),
    ] {
        assert_eq!(
            posted(gateway, path, "k", &body).await?["duplicate"],
            false,
            "{path} {body}"
        );
        assert_eq!(
            posted(gateway, path, "\"k\"", &body).await?["duplicate"],
            true,
            "{path} {body}"
        );
    }
    Ok(())
}

async fn a_broadcast_reaches_each_room_once(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let (mut ann, mut bob) = (fleet.client(0, "ann").await?, fleet.client(1, "bob").await?);
    ann.join("a").await?;
    bob.join("b").await?;
    let few = json!({"rooms": ["a"], "payload": {"n": 1}});
    posted(fleet.gateway(0), "/api/v1/broadcast", "k", &few).await?;
    // as after an answer that got lost: one room has it, the others not yet
    let all = json!({"rooms": ["a", "b", "empty"], "payload": {"n": 1}, "userId": "robot"});
    let answer = posted(fleet.gateway(2), "/api/v1/broadcast", "k", &all).await?;
    let told: Vec<_> = answer["results"].as_array().into_iter().flatten().collect();
    let told: Vec<_> = told
        .iter()
        .map(|r| {
            (
                r["room"].as_str(),
                r["placed"]["offset"].as_u64(),
                r["placed"]["duplicate"].as_bool(),
            )
        })
        .collect();
    let expected = [("a", true), ("b", false), ("empty", false)];
    assert_eq!(
        told,
        expected.map(|(room, known)| (Some(room), Some(1), Some(known)))
    );
    assert_eq!(bob.expect("room_message").await?["userId"], "robot");
    assert_eq!(ann.expect("room_message").await?["userId"], "server");
    assert!(ann.all_so_far("room_message").await?.is_empty());
    Ok(())
}

async fn a_batch_goes_to_rooms_and_users_in_its_order_and_once(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut ann = fleet.client(0, "ann").await?;
    ann.join("r").await?;
    let to_room = |payload: u32| json!({"publish": {"room": "r", "payload": payload}});
    let body =
        json!({"messages": [to_room(1), {"direct": {"userId": "user_ann", "payload": "psst"}}, to_room(2)]});
    for known in [false, true] {
        let answer = posted(fleet.gateway(usize::from(known)), "/api/v1/batch", "k", &body).await?;
        for (index, offset) in [1, 1, 2].iter().enumerate() {
            let placed = &answer["results"][index]["placed"];
            assert_eq!(
                (&placed["offset"], &placed["duplicate"]),
                (&json!(offset), &json!(known)),
                "{answer}"
            );
        }
        assert_eq!(answer["results"][1]["userId"], "user_ann");
    }
    let messages = ann.expect_many("room_message", 2).await?;
    assert_eq!(
        (&messages[0]["payload"], &messages[1]["payload"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(ann.expect("direct_message").await?["payload"], "psst");
    assert!(ann.all_so_far("room_message").await?.is_empty());
    Ok(())
}

async fn what_cannot_be_served_is_refused_with_what_to_send(kind: Kind) -> Result<()> {
    let fleet = Fleet::start_with(kind, &["--limit", "messageBytes=1000"]).await?;
    let gateway = fleet.gateway(0);
    let good = json!({"room": "r", "payload": 1});
    let long = json!({"room": "r", "payload": "x".repeat(2_000)});
    let huge = json!({"room": "r", "payload": "x".repeat(20_000)});
    let twice = json!({"messages": [{"publish": good}, {"publish": good, "direct": null}, {}]});
    let cases = [
        (
            "publish",
            "idempotency-key",
            "\"",
            good.clone(),
            400,
            "Idempotency-Key",
        ),
        (
            "publish",
            "content-type",
            "text/plain",
            good.clone(),
            415,
            "application/json",
        ),
        ("publish", "x-none", "", long, 413, "less"),
        ("publish", "x-none", "", huge, 413, "less"),
        (
            "publish",
            "x-none",
            "",
            json!({"room": "r", "payload": 1, "userId": "a\nb"}),
            422,
            "userId",
        ),
        (
            "broadcast",
            "x-none",
            "",
            json!({"rooms": [], "payload": 1}),
            422,
            "rooms",
        ),
        (
            "broadcast",
            "x-none",
            "",
            json!({"rooms": ["a", "a"], "payload": 1}),
            422,
            "twice",
        ),
        ("batch", "x-none", "", twice, 422, "messages[2]"),
        ("batch", "x-none", "", json!({"messages": [good]}), 400, "payload"),
    ];
    for (path, name, value, body, status, word) in cases {
        let path = format!("/api/v1/{path}");
        let ask = Ask::json(Method::POST, &path, &body)?.header(name, value);
        let answer = ask.send(gateway.ports.api).await?;
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem: Problem = answer.json()?;
        assert!(
            problem.detail.contains(word) && problem.status == status,
            "{path} {body}: {problem:?}"
        );
    }
    let wrong = Ask::get("/api/v1/publish").send(gateway.ports.api).await?;
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("allow")),
        (405, Some("POST"))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_broker_is_gone_a_broadcast_says_of_each_room_that_it_has_nothing() -> Result<()> {
    let mut fleet = Fleet::start(Kind::Redis(1)).await?;
    if let Some(redis) = &mut fleet.redis {
        redis.kill()?;
    }
    let body = json!({"rooms": ["a", "b"], "payload": 1});
    let answer = post(fleet.gateway(0), "/api/v1/broadcast", "k", &body).await?;
    assert!([503, 504].contains(&answer.status.as_u16()), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Value = answer.json()?;
    let rooms: Vec<_> = problem["results"].as_array().into_iter().flatten().collect();
    assert_eq!(rooms.len(), 2, "{problem}");
    assert!(
        rooms
            .iter()
            .all(|r| r.get("placed").is_none() && r["error"]["status"].is_u64()),
        "{problem}"
    );
    Ok(())
}
