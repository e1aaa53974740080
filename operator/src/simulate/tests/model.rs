//! The model does what the parts that it stands for do, and sees what must not happen.

use serde_json::json;
use wsfleet_crds::admin::{DrainMode, DrainRequest, GatewayPhase};
use wsfleet_crds::labels::DrainReason;

use super::{assert_kept, at_rest, cluster};
use crate::simulate::gateway::{Fenced, Gateway};
use crate::simulate::picture::picture;
use crate::simulate::report::{grouped, span, table};
use crate::simulate::scenario::{Scenario, run};
use crate::simulate::settings::Settings;
use crate::simulate::time::SECOND;
use crate::simulate::world::{TICK, World};

fn order(mode: DrainMode, epoch: u64, rate: f64) -> DrainRequest {
    DrainRequest {
        drain_id: "d".to_owned(),
        epoch,
        mode,
        rate_per_second: Some(rate),
        lease_seconds: Some(30),
        deadline: None,
        order: wsfleet_crds::admin::DrainOrder::IdleFirst,
        close_code: 1012,
        reconnect_window_seconds: 15,
        keep_connections: None,
        min_age_seconds: None,
    }
}

fn gateway(sockets: u32) -> Gateway {
    let mut gateway = Gateway::new("p".to_owned(), "u".to_owned(), "r".to_owned());
    gateway.start();
    gateway.sockets = (0..sockets).collect();
    gateway
}

/// Sockets closed from second `from` to second `until`.
fn closed(gateway: &mut Gateway, from: u64, until: u64) -> usize {
    let mut sum = 0;
    let mut now = from * SECOND;
    while now < until * SECOND {
        now += TICK;
        let some = gateway.due(TICK, now);
        gateway.sockets.truncate(gateway.sockets.len() - some);
        sum += some;
    }
    sum
}

#[test]
fn a_lease_that_runs_out_pauses_the_drain_and_a_deposed_leader_is_refused() {
    let mut gateway = gateway(1000);
    gateway.told(&order(DrainMode::Drain, 2, 10.0), 0).unwrap();
    assert_eq!(closed(&mut gateway, 0, 1), 0, "a handover comes first");
    let within = closed(&mut gateway, 1, 30);
    assert!((280..=290).contains(&within), "{within}");
    assert_eq!(closed(&mut gateway, 30, 60), 0);
    assert_eq!(
        gateway.told(&order(DrainMode::Drain, 1, 10.0), 60 * SECOND),
        Err(Fenced)
    );
    assert_eq!(closed(&mut gateway, 60, 70), 0);
    gateway
        .told(&order(DrainMode::Resume, 2, 0.0), 70 * SECOND)
        .unwrap();
    assert!(gateway.accepts());
}

#[test]
fn sigterm_closes_everybody_evenly_within_its_window() {
    let mut gateway = gateway(1000);
    gateway.terminate(100 * SECOND, 0);
    let half = closed(&mut gateway, 0, 50);
    assert!((495..=505).contains(&half), "{half}");
    closed(&mut gateway, 50, 100);
    assert!(gateway.sockets.is_empty(), "{}", gateway.sockets.len());
    assert_eq!(gateway.phase, GatewayPhase::Terminating);
}

#[test]
fn the_checks_see_a_pod_that_is_deleted_with_sockets_and_a_budget_that_is_exceeded() {
    let mut world = at_rest(&json!({"replicas": 2}), 4000);
    assert_kept(&world);
    let name = world.api.pods.keys().next().cloned().unwrap();
    world.check_delete(0, &name);
    assert!(world.checks.breaches[0].contains("sockets before its deadline"));
    world.checks.breaches.clear();
    world.check_surge(&name);
    assert_kept(&world);
    for _ in 0..3 {
        world.checks.bounds.clear();
        world.check_surge(&name);
    }
    assert!(world.checks.breaches[0].contains("are allowed"));
    world.checks.breaches.clear();
    world.checks.closed(50);
    world.check_rates();
    assert!(
        world.checks.breaches[0].contains("the budget is 40"),
        "{:?}",
        world.checks.breaches
    );
}

#[test]
fn each_pod_is_in_one_budget_and_a_pod_in_two_is_seen() {
    let mut world = at_rest(&json!({"replicas": 2}), 100);
    let name = world.api.pods.keys().next().cloned().unwrap();
    assert_eq!(world.api.budgets_of("chat", &world.api.pods[&name].view), 1);
    let mut twice = world.api.budgets["chat-active"].clone();
    twice
        .spec
        .as_mut()
        .unwrap()
        .selector
        .as_mut()
        .unwrap()
        .match_expressions = None;
    world.api.budgets.insert("twice".to_owned(), twice);
    world.check_budgets(&name);
    assert!(world.checks.breaches[0].contains("2 disruption budgets"));
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let story = |seed| {
        let settings = Settings {
            seed,
            clients: 2000,
            arrivals: 5.0,
            mean_life: 400.0,
            ..Settings::default()
        };
        let run = run(
            cluster(&json!({"replicas": 3})),
            Scenario::Rollout,
            None,
            settings,
        )
        .unwrap();
        (table(&run), picture(&run))
    };
    let (first, again, other) = (story(1), story(1), story(2));
    assert!(first == again);
    assert_ne!(first.0, other.0);
    assert!(first.0.contains("at rest again after"), "{}", first.0);
    for panel in ["pods by state", "sockets per pod", "sockets closed per second"] {
        assert!(first.1.contains(panel), "{panel}");
    }
}

#[test]
fn every_scenario_comes_to_an_end_without_a_broken_promise() {
    use clap::ValueEnum;
    for scenario in Scenario::value_variants() {
        let settings = Settings {
            clients: 3000,
            arrivals: 3.0,
            mean_life: 1000.0,
            nodes: 4,
            ..Settings::default()
        };
        let spec = json!({"replicas": 4, "gateway": {"capacity": {"maxConnections": 2000}}});
        let run = run(cluster(&spec), *scenario, None, settings).unwrap();
        println!("{}", table(&run));
        assert!(run.took.is_some(), "{}", table(&run));
        assert_kept(&run.world);
    }
}

#[test]
fn what_cannot_be_run_says_why() {
    let tell = |spec: &serde_json::Value, clients| {
        let settings = Settings {
            clients,
            ..Settings::default()
        };
        run(cluster(spec), Scenario::ScaleIn, None, settings)
            .unwrap_err()
            .to_string()
    };
    assert!(tell(&json!({"replicas": 1}), 20_000).contains("do not fit 10000 places"));
    assert!(tell(&json!({"paused": true}), 1).contains("spec.paused"));
    assert!(tell(&json!({"autoscaling": {"mode": "Builtin"}}), 1).contains("--scenario growth"));
    let broken = json!({"gateway": {"image": "broken"}});
    assert!(tell(&broken, 1).contains("does not come to rest"));
}

#[test]
fn a_pod_that_is_lost_cuts_its_clients_and_they_come_back() {
    let mut world = at_rest(&json!({"replicas": 3}), 3000);
    world.crash_gateway(0);
    assert!(world.connected() < 3000);
    assert!(world.run_until(120 * SECOND, World::is_settled));
    assert_eq!(world.connected(), 3000);
    assert_eq!(world.record.drained(DrainReason::Rollout), 0);
    assert_kept(&world);
}

#[test]
fn numbers_and_spans_are_written_for_people() {
    assert_eq!(
        (grouped(0), grouped(999), grouped(1_234_567)),
        ("0".into(), "999".into(), "1,234,567".into())
    );
    assert_eq!(
        (span(59_999), span(61_000), span(3_660_000)),
        ("59 s".into(), "1 min 01 s".into(), "1 h 01 min".into())
    );
}
