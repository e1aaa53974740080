//! Cordon, drain and resume by the admin API, as operator and clients see them, with each broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;
use wsfleet_crds::admin::{DrainMode, DrainOrder, DrainRequest, GatewayPhase, GatewayState, Problem};
use wsfleet_tests::client::{Connect, Upgrade};
use wsfleet_tests::farewell::{delays, farewells, half_closed};
use wsfleet_tests::gateway::{Fleet, Gateway, Kind};
use wsfleet_tests::http::Ask;
use wsfleet_tests::on_memory_and_redis;
use wsfleet_tests::wait::{SOON, until_async, within};

on_memory_and_redis! {
    a_cordoned_gateway_answers_503_with_a_jittered_retry_after_and_keeps_its_sockets,
    each_client_of_a_drain_gets_a_delay_of_its_own_and_is_closed_at_its_time,
    a_drained_client_is_served_until_its_close,
    a_lower_epoch_is_fenced_with_409,
    closes_pause_when_the_lease_runs_out_and_go_on_when_it_is_renewed,
    a_resume_takes_the_drain_back,
    a_gateway_that_has_too_many_sheds_the_excess_and_accepts_again,
    clients_that_leave_by_themselves_are_counted_as_natural,
    a_malformed_request_is_refused_with_what_to_send,
    the_admin_token_is_wanted_when_set,
}

fn request(mode: DrainMode, epoch: u64) -> DrainRequest {
    DrainRequest {
        drain_id: "d1".to_owned(),
        epoch,
        mode,
        rate_per_second: Some(10.0),
        lease_seconds: Some(60),
        deadline: None,
        order: DrainOrder::Random,
        close_code: 1012,
        reconnect_window_seconds: 1,
        keep_connections: None,
        min_age_seconds: None,
    }
}

async fn take(gateway: &Gateway, request: &DrainRequest) -> Result<GatewayState> {
    let answer = gateway.drain(request).await?;
    if answer.status != 200 {
        bail!("{answer:?}");
    }
    answer.json()
}

async fn a_cordoned_gateway_answers_503_with_a_jittered_retry_after_and_keeps_its_sockets(
    kind: Kind,
) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let mut ann = fleet.client(0, "ann").await?;
    let state = take(gateway, &request(DrainMode::Cordon, 1)).await?;
    assert_eq!(
        (state.phase, state.accepting, state.connections),
        (GatewayPhase::Cordoned, false, 1)
    );
    let mut waits = BTreeSet::new();
    for _ in 0..40 {
        match Connect::to(gateway.ports.clients).token("bob").upgrade().await? {
            Upgrade::Open(_) => bail!("a cordoned gateway let somebody in"),
            Upgrade::Refused(answer) => {
                assert_eq!(answer.status, 503);
                let wait = answer.header("retry-after").and_then(|s| s.parse::<u64>().ok());
                waits.insert(wait.unwrap_or_default());
            }
        }
    }
    assert!(waits.len() > 1 && !waits.contains(&0), "{waits:?}");
    assert_eq!(gateway.admin(Ask::get("/readyz")).await?.status, 200);
    ann.join("still served").await?;
    assert_eq!(
        take(gateway, &request(DrainMode::Resume, 1)).await?.phase,
        GatewayPhase::Serving
    );
    fleet.client(0, "bob").await?;
    Ok(())
}

async fn each_client_of_a_drain_gets_a_delay_of_its_own_and_is_closed_at_its_time(kind: Kind) -> Result<()> {
    const COUNT: usize = 40;
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let mut clients = fleet.clients(COUNT).await?;
    let start = Instant::now();
    let mut asked = request(DrainMode::Drain, 1);
    asked.deadline = Some(wsfleet_tests::client::unix_now() + 60);
    let state = take(gateway, &asked).await?;
    assert_eq!((state.phase, state.accepting), (GatewayPhase::Draining, false));
    let outcomes = farewells(&mut clients, start).await?;
    for client in &outcomes {
        assert_eq!(client.code, 1012);
        let notice = &client.notice;
        assert!(
            notice["reason"].is_string() && notice["deadline"].is_u64(),
            "{notice}"
        );
        // what is kept in memory ends with the gateway
        assert_eq!(notice["resume"], kind != Kind::Memory, "{notice}");
        // served until its time, and for a second more, in which to connect elsewhere
        assert!(client.waited >= client.delay, "closed too early: {client:?}");
    }
    let told = delays(&outcomes);
    assert!(told >= COUNT / 2, "{told} delays for {COUNT} clients");
    // spread over four seconds; how evenly is proven of the drain in virtual time (gateway/src/drain). However this
    // machine pauses, none is closed too early
    let half = half_closed(&outcomes);
    assert!(
        half > Duration::from_millis(1_500),
        "half are closed after {half:?}"
    );
    let last = outcomes.iter().map(|client| client.closed).max();
    assert!(last > Some(Duration::from_secs(3)), "{outcomes:?}");
    // a client sees its close frame before the gateway sees the end of its stream
    until_async("no connection is left", || async {
        Ok(gateway.state().await?.connections == 0)
    })
    .await?;
    assert_eq!(gateway.state().await?.forced_closed, COUNT as u64);
    let counted = gateway
        .metric("ws_closes_total", &["code=\"1012\"", "initiator=\"server\""])
        .await?;
    assert!((counted - COUNT as f64).abs() < f64::EPSILON, "{counted}");
    Ok(())
}

async fn a_drained_client_is_served_until_its_close(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let mut clients = fleet.clients(2).await?;
    for client in &mut clients {
        client.join("lobby").await?;
    }
    let mut asked = request(DrainMode::Drain, 1);
    (asked.rate_per_second, asked.reconnect_window_seconds) = (Some(0.3), 60);
    take(fleet.gateway(0), &asked).await?;
    for client in &mut clients {
        client.expect("server_shutdown").await?;
    }
    // one may have been closed by now, the other one is served to its last second
    let mut served = 0;
    for client in &mut clients {
        let answer = client.say_acked("lobby", json!(1), json!(1)).await;
        served += usize::from(answer.is_ok());
    }
    assert!(served > 0);
    for client in &mut clients {
        assert_eq!(client.closed().await?, 1012);
    }
    Ok(())
}

async fn a_lower_epoch_is_fenced_with_409(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    take(gateway, &request(DrainMode::Cordon, 7)).await?;
    let answer = gateway.drain(&request(DrainMode::Resume, 6)).await?;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Problem = answer.json()?;
    assert!(
        problem.status == 409 && problem.detail.contains('6') && problem.detail.contains('7'),
        "{problem:?}"
    );
    let state = gateway.state().await?;
    assert_eq!(
        (state.phase, state.epoch, state.drain_id.as_deref()),
        (GatewayPhase::Cordoned, 7, Some("d1"))
    );
    // the same epoch again is a renewal, a higher one a new leader
    take(gateway, &request(DrainMode::Cordon, 7)).await?;
    assert_eq!(take(gateway, &request(DrainMode::Resume, 8)).await?.epoch, 8);
    Ok(())
}

async fn closes_pause_when_the_lease_runs_out_and_go_on_when_it_is_renewed(kind: Kind) -> Result<()> {
    const LEASE: Duration = Duration::from_secs(2);
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let mut clients = fleet.clients(30).await?;
    let mut asked = request(DrainMode::Drain, 1);
    asked.lease_seconds = Some(2);
    let closed = || async { anyhow::Ok(gateway.state().await?.forced_closed) };
    let some = || until_async("some are closed", || async { Ok(closed().await? > 0) });
    // a lease may fall into a pause of this machine as a whole: another one then
    within(SOON, "a lease in which some are closed", async {
        loop {
            take(gateway, &asked).await?;
            if within(LEASE, "some are closed", some()).await.is_ok() {
                return anyhow::Ok(());
            }
        }
    })
    .await??;
    // the lease was for two seconds, the first half of one is the handover: about fifteen closes at 10 a second, and
    // then none for two more seconds
    let mut before = closed().await?;
    let mut still = Instant::now();
    within(SOON, "closes pause", async {
        while still.elapsed() < LEASE {
            let now = closed().await?;
            if now != before {
                (before, still) = (now, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    })
    .await??;
    assert!(
        (1..30).contains(&before),
        "{before} of 30 are closed after a lease of 2 s at 10 a second"
    );
    asked.lease_seconds = Some(60);
    asked.rate_per_second = Some(50.0);
    take(gateway, &asked).await?;
    for client in &mut clients {
        assert_eq!(client.closed().await?, 1012);
    }
    let state = gateway.state().await?;
    assert_eq!(
        state.forced_closed, 30,
        "a renewal goes on counting from {before}"
    );
    Ok(())
}

async fn a_resume_takes_the_drain_back(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let mut clients = fleet.clients(10).await?;
    let mut asked = request(DrainMode::Drain, 1);
    asked.rate_per_second = Some(0.5);
    take(gateway, &asked).await?;
    until_async("one is closed", || async {
        Ok(gateway.state().await?.forced_closed > 0)
    })
    .await?;
    let state = take(gateway, &request(DrainMode::Resume, 1)).await?;
    assert_eq!((state.phase, state.accepting), (GatewayPhase::Serving, true));
    let left = 10 - gateway.state().await?.forced_closed;
    assert!(left >= 7, "{left}");
    let mut open = 0;
    for client in &mut clients {
        open += u64::from(client.join("lobby").await.is_ok());
    }
    assert_eq!(open, left);
    fleet.client(0, "new").await?;
    Ok(())
}

async fn a_gateway_that_has_too_many_sheds_the_excess_and_accepts_again(kind: Kind) -> Result<()> {
    const AGE: Duration = Duration::from_secs(2);
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let mut early = fleet.clients(5).await?;
    tokio::time::sleep(AGE).await;
    let begin = Instant::now();
    let mut late = Vec::new();
    for number in 0..5 {
        late.push(fleet.client(0, &format!("late{number}")).await?);
    }
    let mut asked = request(DrainMode::Drain, 1);
    (asked.order, asked.close_code) = (DrainOrder::OldestFirst, 4200);
    (asked.keep_connections, asked.min_age_seconds) = (Some(2), Some(AGE.as_secs() as u32));
    let state = take(gateway, &asked).await?;
    assert_eq!((state.phase, state.accepting), (GatewayPhase::Draining, false));

    for client in farewells(&mut early, begin).await? {
        assert_eq!(
            (client.code, &client.notice["reason"]),
            (4200, &json!("rebalance"))
        );
    }
    until_async("two are left", || async {
        Ok(gateway.state().await?.connections == 2)
    })
    .await?;
    // ages are counted in tenths of a second
    let took = begin.elapsed() + Duration::from_millis(100);
    assert!(
        took >= AGE,
        "sockets that had just come were closed within {took:?}"
    );
    let state = take(gateway, &request(DrainMode::Resume, 1)).await?;
    assert_eq!(
        (state.accepting, state.connections, state.forced_closed),
        (true, 2, 8)
    );
    let mut open = 0;
    for client in &mut late {
        open += u64::from(client.join("still here").await.is_ok());
    }
    assert_eq!(open, 2);
    fleet.client(0, "new").await?;
    Ok(())
}

async fn clients_that_leave_by_themselves_are_counted_as_natural(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let clients = fleet.clients(10).await?;
    let mut asked = request(DrainMode::Drain, 1);
    (asked.rate_per_second, asked.reconnect_window_seconds) = (Some(0.5), 60);
    take(gateway, &asked).await?;
    let leave = clients.into_iter().map(|mut client| async move {
        client.expect("server_shutdown").await?;
        client.close().await
    });
    futures::future::try_join_all(leave).await?;
    until_async("all are gone", || async {
        Ok(gateway.state().await?.connections == 0)
    })
    .await?;
    let state = gateway.state().await?;
    assert_eq!(state.forced_closed + state.natural_closed, 10);
    assert!(state.natural_closed >= 5, "{state:?}");
    Ok(())
}

async fn a_malformed_request_is_refused_with_what_to_send(kind: Kind) -> Result<()> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(0);
    let cases = [
        (
            json!({"drainId": "d", "epoch": 1, "mode": "drain"}),
            422,
            "ratePerSecond",
        ),
        (
            json!({"drainId": "d", "epoch": 1, "mode": "drain", "ratePerSecond": -1.0}),
            422,
            "ratePerSecond",
        ),
        (json!({"drainId": "d", "epoch": 1, "mode": "stop"}), 400, "stop"),
        (json!({"drainId": "d", "mode": "cordon"}), 400, "epoch"),
        (
            json!({"drainId": "d", "epoch": 1, "mode": "cordon", "rate": 1}),
            400,
            "rate",
        ),
    ];
    for (body, status, word) in cases {
        let answer = gateway
            .admin(Ask::json(hyper::Method::PUT, "/admin/v1/drain", &body)?)
            .await?;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let problem: Problem = answer.json()?;
        assert!(problem.detail.contains(word), "{body}: {problem:?}");
    }
    assert_eq!(gateway.state().await?.phase, GatewayPhase::Serving);
    Ok(())
}

async fn the_admin_token_is_wanted_when_set(kind: Kind) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "a token of enough bytes\n")?;
    let path = file.path().to_string_lossy().into_owned();
    let redis = match kind {
        Kind::Memory => None,
        Kind::Redis(_) | Kind::Nats(_) => Some(wsfleet_tests::redis::RedisServer::start().await?),
    };
    let fleet = Fleet::on(redis, 1, &["--admin-token-file", &path])?;
    let gateway = fleet.gateway(0);
    for path in ["/livez", "/metrics"] {
        assert_eq!(
            gateway.admin(Ask::get(path)).await?.status,
            200,
            "{path} wants no token"
        );
    }
    assert_eq!(gateway.admin(Ask::get("/admin/v1/state")).await?.status, 401);
    assert_eq!(
        gateway
            .admin(Ask::get("/admin/v1/state").bearer("another"))
            .await?
            .status,
        401
    );
    let answer = gateway
        .admin(Ask::get("/admin/v1/state").bearer("a token of enough bytes"))
        .await?;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() < 1_024);
    assert_eq!(gateway.drain(&request(DrainMode::Cordon, 1)).await?.status, 401);
    Ok(())
}
