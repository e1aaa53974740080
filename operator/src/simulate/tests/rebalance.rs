//! Rebalancing at full scale: after a scale-out, after the loss of a node, where clients come and go, and while the
//! operator's processes end or lead beside each other.

use serde_json::{Value, json};
use wsfleet_crds::labels::DrainReason;

use super::{assert_kept, at_rest, cluster};
use crate::simulate::scenario::{Run, Scenario, run};
use crate::simulate::settings::Settings;
use crate::simulate::time::SECOND;
use crate::simulate::world::World;

/// A run with the defaults, but for the room that a fleet needs to lose a node.
fn runs(scenario: Scenario, [from, to]: [u32; 2], clients: u64, mean_life: f64) -> Run {
    let settings = Settings {
        clients,
        mean_life,
        arrivals: if mean_life > 0.0 {
            clients as f64 / mean_life
        } else {
            0.0
        },
        nodes: 6,
        ..Settings::default()
    };
    let spec = json!({"replicas": from, "gateway": {"capacity": {"maxConnections": 15_000}}});
    let run = run(cluster(&spec), scenario, Some(to), settings).unwrap();
    assert_kept(&run.world);
    run
}

fn shed(world: &World) -> u64 {
    world.record.drained(DrainReason::Rebalance)
}

fn told(world: &World, reason: &str) -> usize {
    let events = world.record.events.iter();
    events.filter(|(_, event)| event.reason == reason).count()
}

/// Most closes in a second, on one film.
fn busiest(run: &Run) -> u64 {
    let frames = run.world.record.frames.iter();
    frames.map(|frame| frame.closed[0]).max().unwrap_or(0)
}

#[test]
fn row_08_a_scale_out_is_evened_out_within_ten_minutes() {
    for mean_life in [0.0, 14_400.0] {
        let mut run = runs(Scenario::ScaleOut, [10, 12], 100_000, mean_life);
        let (took, skew) = (run.took.unwrap() / SECOND, run.world.skew());
        let least = 2 * 100_000 / 12;
        let (closed, second) = (shed(&run.world), busiest(&run));
        println!(
            "row 8: 100,000 sockets, mean life {mean_life} s, 10 to 12 gateways: fullest {skew:.3} of the average after \
             {took} s, {closed} closed, {:.2} of the least that evens them out, {second} in the busiest second",
            closed as f64 / f64::from(least)
        );
        assert!(skew <= 1.10 && took <= 600, "{skew} after {took} s");
        assert!(closed > 0 && closed as f64 <= 1.2 * f64::from(least), "{closed}");
        // two thousandths of all a second, and a fraction of a socket at each donor
        assert!(second <= 200 + 10, "{second}");
        assert_eq!(run.world.api.pods.len(), 12);
        run.world.run(3_600 * SECOND);
        assert_eq!(
            (told(&run.world, "RebalanceStarted"), shed(&run.world)),
            (1, closed),
            "one is enough"
        );
        assert_kept(&run.world);
    }
}

#[test]
fn a_lost_node_is_evened_out_when_its_pods_have_been_replaced() {
    let run = runs(Scenario::NodeLoss, [12, 12], 100_000, 0.0);
    let (took, skew, closed) = (run.took.unwrap() / SECOND, run.world.skew(), shed(&run.world));
    println!("loss of 2 of 12 gateways: fullest {skew:.3} of the average after {took} s, {closed} closed");
    assert!(skew <= 1.10, "{skew}");
    assert!(closed > 0 && closed <= 20_000, "{closed}");
}

#[test]
fn where_clients_stay_for_minutes_none_is_closed() {
    for mean_life in [120.0, 300.0] {
        let run = runs(Scenario::ScaleOut, [4, 6], 30_000, mean_life);
        let (started, skew) = (told(&run.world, "RebalanceStarted"), run.world.skew());
        println!(
            "mean life {mean_life} s, 4 to 6 gateways: steered {started} times, fullest {skew:.3}, none closed"
        );
        assert_eq!(shed(&run.world), 0, "mean life {mean_life} s");
        assert!(skew <= 1.20, "{skew}");
    }
}

/// Four gateways become five, with waits so short that the minute of unevenness is most of it.
fn small() -> World {
    let spec: Value = json!({
        "replicas": 4,
        "gateway": {"capacity": {"maxConnections": 1_000}},
        "rollout": {"minReadySeconds": 2},
        "drain": {"settleSeconds": 2, "passiveSeconds": {"rebalance": 5}},
        "rebalance": {"minExcess": 20, "maxDisconnectPermille": 5},
    });
    let mut world = at_rest(&spec, 2_000);
    world.edit(|spec| spec.replicas = 5);
    assert!(world.run_until(120 * SECOND, |world| world.is_settled() && !world.is_even()));
    world
}

fn is_done(world: &World) -> bool {
    world.is_settled() && world.is_even() && world.skew() < 1.2
}

#[test]
fn a_donor_that_somebody_deletes_leaves_as_any_other() {
    let mut world = small();
    let shedding = |world: &World| {
        let views = world.api.pods.values().map(|object| &object.view);
        views
            .map(|view| view.drain.as_ref())
            .position(|it| it.is_some_and(|it| it.shedding.is_some()))
    };
    assert!(world.run_until(300 * SECOND, |world| shedding(world).is_some()));
    world.delete_foreign(shedding(&world).unwrap());
    world.run(2 * SECOND);
    let reasons: Vec<_> = world
        .api
        .pods
        .values()
        .filter_map(|object| object.view.drain.as_ref())
        .map(|drain| (drain.reason, drain.shedding))
        .collect();
    assert_eq!(reasons, [(DrainReason::Replace, None)], "the others accept again");
    assert_eq!(told(&world, "ForeignTermination"), 1);
    assert!(world.run_until(1_200 * SECOND, is_done));
    assert_eq!((world.connected(), world.api.pods.len()), (2_000, 5));
    assert_kept(&world);
}

#[test]
fn a_leader_killed_at_any_action_of_a_rebalance_costs_no_pod_and_no_budget() {
    let (mut kills, mut most): (u32, f64) = (0, 0.0);
    for action in 0.. {
        let mut reached = false;
        for with_effect in [false, true] {
            let mut world = small();
            world.crash_in(action, with_effect);
            assert!(world.run_until(900 * SECOND, is_done), "after action {action}");
            reached |= world.record.crashes > 0;
            kills += u32::from(world.record.crashes > 0);
            assert_eq!((world.connected(), world.api.pods.len()), (2_000, 5));
            assert!(
                world
                    .record
                    .closes
                    .keys()
                    .all(|cause| cause.as_str() == "rebalance" || cause.as_str() == "replace")
            );
            assert_kept(&world);
            most = most.max(world.checks.most_of_budget);
        }
        if !reached {
            break;
        }
    }
    println!(
        "{kills} kills, before and after each action of a rebalance: at most {most:.2} of the budget in any second"
    );
    assert!(kills >= 10, "{kills}");
}

#[test]
fn two_live_leaders_even_out_within_the_budget() {
    let mut most: f64 = 0.0;
    for second in (56..116).step_by(3) {
        let mut world = small();
        world.run(second * SECOND);
        world.depose(15 * SECOND);
        assert!(
            world.run_until(900 * SECOND, is_done),
            "second leader after {second} s"
        );
        assert_eq!(world.api.pods.len(), 5);
        assert_kept(&world);
        most = most.max(world.checks.most_of_budget);
    }
    println!(
        "two leaders for 15 s, from 20 moments of a rebalance on: at most {most:.2} of the budget in any second"
    );
}
