//! SIGTERM, as clients see it, with each broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use wsfleet_crds::admin::GatewayPhase;
use wsfleet_tests::gateway::{Fleet, Kind};
use wsfleet_tests::on_each_broker;
use wsfleet_tests::wait::until_async;

on_each_broker! {
    a_gateway_that_is_asked_to_end_drains_itself_within_its_window,
    asked_twice_it_hurries,
}

async fn a_gateway_that_is_asked_to_end_drains_itself_within_its_window(kind: Kind) -> Result<()> {
    let mut fleet = Fleet::start_with(kind, &["--drain-window", "3"]).await?;
    let mut clients = fleet.clients(30).await?;
    let start = Instant::now();
    fleet.gateway(0).shut_down();
    let each = clients.iter_mut().map(|client| async move {
        let notice = client.expect("server_shutdown").await?;
        anyhow::Ok((
            notice["reconnectDelay"].as_u64(),
            client.closed().await?,
            start.elapsed(),
        ))
    });
    let outcomes = futures::future::try_join_all(each).await?;
    let delays: BTreeSet<_> = outcomes.iter().map(|(delay, ..)| *delay).collect();
    assert!(delays.len() >= 15, "{delays:?}");
    assert!(outcomes.iter().all(|(_, code, _)| *code == 1012), "{outcomes:?}");
    assert!(
        outcomes.iter().any(|(.., at)| *at > Duration::from_millis(1_500)),
        "not all at once: {outcomes:?}"
    );
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
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    fleet.gateway_mut(0).ended().await
}
