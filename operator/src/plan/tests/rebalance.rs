//! Gateways that hold many more sockets than others: steered around first, relieved second, given back at once.

use serde_json::{Value, json};
use wsfleet_crds::admin::GatewayPhase;
use wsfleet_crds::labels::DrainReason;

use super::world::World;

/// Seconds in which a fleet with short waits must have evened out.
const SOON: u32 = 900;

/// Gateways with these sockets, and `spec` laid over short waits.
fn uneven(spec: &Value, sockets: &[u64]) -> World {
    let mut base = json!({
        "replicas": sockets.len(),
        "drain": {"passiveSeconds": {"rebalance": 20}},
        "rebalance": {"maxDisconnectPermille": 10},
    });
    crate::plan::resources::overlay::merge(base.as_object_mut().unwrap(), spec.as_object().unwrap());
    let mut world = World::settled(&base, 0);
    world.set_sockets(sockets);
    world
}

fn donors(world: &World) -> usize {
    let reason = |pod: &super::world::SimPod| pod.view.drain.as_ref().map(|drain| drain.reason);
    let pods = world.pods.iter();
    pods.filter(|pod| reason(pod) == Some(DrainReason::Rebalance))
        .count()
}

fn sheds(world: &World) -> bool {
    let markers = world.pods.iter().filter_map(|pod| pod.view.drain.as_ref());
    markers.into_iter().any(|drain| drain.shedding.is_some())
}

fn fullest(world: &World) -> u64 {
    world.pods.iter().map(|pod| pod.sockets).max().unwrap()
}

fn all_serve(world: &World) -> bool {
    world.pods.iter().all(|pod| {
        let told = pod.view.gateway.as_ref().map(|(_, state)| state.phase);
        pod.view.accepting && pod.view.drain.is_none() && told == Some(GatewayPhase::Serving)
    })
}

#[test]
fn the_fullest_is_steered_around_first_then_relieved_and_stays() {
    let mut world = uneven(&json!({}), &[600, 200, 200, 200]);
    world.run(58);
    assert_eq!((donors(&world), world.told("RebalanceStarted")), (0, 0));
    world.run_until(5, |world| donors(world) == 1);
    assert!(world.is_complete(), "a donor is available");
    let (status, reason, _) = world.condition("Progressing");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Rebalancing"));
    world.run(20);
    assert_eq!(world.forced, 0, "within the passive time nobody is closed");
    world.run_until(SOON, all_serve);
    assert!(
        world.forced >= 600 - 324 && world.forced <= 300,
        "{}",
        world.forced
    );
    assert!(fullest(&world) <= 324, "{}", fullest(&world));
    assert_eq!(world.sockets(), 1200);
    assert!(world.deleted.is_empty());
    assert_eq!(
        (
            world.told("RebalanceStarted"),
            world.told("RebalanceCompleted"),
            world.told("RebalanceStopped")
        ),
        (1, 1, 0)
    );
    let writes = world.writes;
    world.run(600);
    assert_eq!(world.writes, writes, "one is enough");
}

#[test]
fn half_of_the_fleet_accepts_while_sockets_are_steered_and_those_with_room_do_in_the_end() {
    let mut world = uneven(&json!({}), &[600, 600, 600, 600, 0, 0]);
    world.run_until(70, |world| donors(world) > 0);
    for _ in 0..20 {
        assert_eq!(donors(&world), 3);
        world.run(1);
    }
    world.run_until(10, |world| donors(world) == 4);
    world.run_until(SOON, all_serve);
    assert!(fullest(&world) <= 432, "{}", fullest(&world));
    assert!(
        world.forced <= 800,
        "only the excess moves, once: {}",
        world.forced
    );
}

#[test]
fn where_clients_come_and_go_nobody_is_closed() {
    let mut world = uneven(&json!({}), &[600, 200, 200, 200]);
    world.run_until(70, |world| donors(world) == 1);
    world.lose_clients(50);
    world.homeless += 600;
    world.run_until(5, all_serve);
    assert_eq!(world.forced, 0);
    assert_eq!(world.told("RebalanceCompleted"), 1);
}

#[test]
fn a_few_sockets_or_a_few_per_cent_are_no_reason() {
    for sockets in [&[200, 100, 100][..], &[1000, 900, 900]] {
        let mut world = uneven(&json!({}), sockets);
        let writes = world.writes;
        world.run(300);
        assert_eq!((donors(&world), world.writes), (0, writes), "{sockets:?}");
    }
    let mut off = uneven(&json!({"rebalance": {"enabled": false}}), &[600, 200, 200, 200]);
    off.run(300);
    assert_eq!(donors(&off), 0);
}

#[test]
fn a_hot_gateway_in_a_fleet_with_room_is_relieved_whatever_the_skew() {
    let lenient = json!({"rebalance": {"maxSkew": 100}});
    let mut world = uneven(&lenient, &[950, 500, 500]);
    world.run_until(70, |world| donors(world) == 1);
    world.run_until(SOON, all_serve);
    assert!(fullest(&world) <= 702, "{}", fullest(&world));
    // more gateways are what a full fleet needs
    let mut full = uneven(&lenient, &[950, 700, 700]);
    full.run(300);
    assert_eq!(donors(&full), 0);
}

#[test]
fn a_peak_that_passes_within_a_minute_is_no_reason_and_a_new_leader_waits_anew() {
    let mut world = uneven(&json!({}), &[600, 200, 200, 200]);
    world.run(40);
    world.set_sockets(&[300, 300, 300, 300]);
    world.run(5);
    world.set_sockets(&[600, 200, 200, 200]);
    world.run(50);
    world.change_leader();
    world.run(58);
    assert_eq!(donors(&world), 0);
    world.run_until(5, |world| donors(world) == 1);
}

#[test]
fn nobody_is_relieved_when_the_others_have_no_room() {
    let mut world = uneven(
        &json!({"rebalance": {"maxSkew": 5, "stopSkew": 2, "minExcess": 10}}),
        &[1000, 910, 910],
    );
    let writes = world.writes;
    world.run(300);
    assert_eq!((donors(&world), world.writes), (0, writes));
}

/// Something else that is to be done.
type Happening = (&'static str, fn(&mut World));

#[test]
fn whatever_else_is_to_be_done_ends_it_at_once() {
    let happenings: [Happening; 8] = [
        ("rollout", |world| world.roll_to("good:2")),
        ("scale-out", |world| world.edit(|spec| spec.replicas = 5)),
        ("scale-in", |world| world.edit(|spec| spec.replicas = 3)),
        ("pause", |world| world.edit(|spec| spec.paused = true)),
        ("off", |world| world.edit(|spec| spec.rebalance.enabled = false)),
        ("lost pod", |world| world.pods[3].view.finished = true),
        ("foreign delete", |world| world.delete_behind_its_back(3)),
        ("node drain", |world| {
            let node = world.pods[3].view.node.clone().unwrap().name;
            world.node(&node).draining = true;
        }),
    ];
    for (name, happen) in happenings {
        for late in [false, true] {
            let mut world = uneven(&json!({}), &[600, 200, 200, 200]);
            world.run_until(70, |world| donors(world) == 1);
            if late {
                world.run_until(60, |world| sheds(world) && world.forced > 0);
            }
            let first = world.pods[0].view.name.clone();
            happen(&mut world);
            world.run(1);
            assert_eq!(donors(&world), 0, "{name}");
            assert_eq!(world.told("RebalanceStopped"), 1, "{name}");
            let leaves = |world: &World| {
                let pod = world.pods.iter().find(|pod| pod.view.name == first).unwrap();
                (pod.view.drain.is_some(), pod.view.accepting)
            };
            let (is_leaving, accepts) = leaves(&world);
            assert!(is_leaving != accepts, "{name}");
            assert!(name == "node drain" || name == "rollout" || accepts, "{name}");
        }
    }
}

#[test]
fn silence_of_the_gateways_ends_it_and_deletes_nothing() {
    let mut world = uneven(&json!({}), &[600, 200, 200, 200]);
    world.run_until(60 + 60, sheds);
    world.answers = false;
    world.run(60);
    assert_eq!(donors(&world), 0);
    assert!(world.deleted.is_empty() && world.pods.len() == 4);
    world.answers = true;
    world.run_until(5, all_serve);
}

#[test]
fn a_donor_that_is_gone_is_replaced() {
    let mut world = uneven(&json!({}), &[600, 200, 200, 200]);
    world.run_until(60 + 60, sheds);
    world.delete_behind_its_back(0);
    world.run(1);
    assert_eq!(donors(&world), 0);
    world.run_until(SOON, |world| {
        world.is_complete() && world.pods.len() == 4 && all_serve(world)
    });
    assert_eq!(world.sockets(), 1200);
}

#[test]
fn what_a_drain_needs_is_never_asked_of_a_donor() {
    let mut world = uneven(&json!({}), &[600, 200, 200, 200]);
    world.run_until(60 + 60, |world| sheds(world) && world.forced > 0);
    let forced = world.forced;
    world.change_leader();
    world.run(2);
    assert_eq!(donors(&world), 1, "it goes on under the next leader");
    world.run_until(SOON, all_serve);
    assert!(world.forced > forced);
    assert!(fullest(&world) <= 324);
}
