//! SIGTERM, as clients see it, with each broker.

use std::time::{Duration, Instant};

use anyhow::Result;
use wsfleet_crds::admin::GatewayPhase;
use wsfleet_tests::farewell::{delays, farewells, half_closed};
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_memory_and_redis;
use wsfleet_tests::wait::until_async;

on_memory_and_redis! {
    a_gateway_that_is_asked_to_end_tells_each_client_its_own_time_and_closes_them_one_by_one,
    asked_twice_it_hurries,
}

async fn a_gateway_that_is_asked_to_end_tells_each_client_its_own_time_and_closes_them_one_by_one(
    kind: Kind,
) -> Result<()> {
    const COUNT: usize = 30;
    let mut fleet = Fleet::start_with(kind, &["--drain-window", "3"]).await?;
    let mut clients = fleet.clients(COUNT).await?;
    let start = Instant::now();
    fleet.gateway(0).shut_down();
    let outcomes = farewells(&mut clients, start).await?;
    assert!(outcomes.iter().all(|client| client.code == 1012), "{outcomes:?}");
    assert!(delays(&outcomes) >= COUNT / 2, "{outcomes:?}");
    // how evenly, and that the last is closed in time, is proven of the drain in virtual time (gateway/src/drain)
    let half = half_closed(&outcomes);
    assert!(half > Duration::from_secs(1), "not all at once: {outcomes:?}");
    fleet.gateway_mut(0).ended().await
}

async fn asked_twice_it_hurries(kind: Kind) -> Result<()> {
    let mut fleet = Fleet::start_with(kind, &["--drain-window", "600"]).await?;
    let mut clients = fleet.clients(5).await?;
    fleet.gateway(0).shut_down();
    until_async("it is ending", || async {
        Ok(fleet.gateway(0).state().await?.phase == GatewayPhase::Terminating)
    })
    .await?;
    let start = Instant::now();
    fleet.gateway(0).shut_down();
    for client in &mut clients {
        assert_eq!(client.closed().await?, 1012);
    }
    // not the ten minutes of the window
    assert!(start.elapsed() < Duration::from_mins(5), "{:?}", start.elapsed());
    fleet.gateway_mut(0).ended().await
}
