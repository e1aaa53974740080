//! Rows 5 and 6: a revision that never comes up, and one that comes up and serves badly.

use serde_json::json;
use wsfleet_crds::condition::ConditionType;

use super::{assert_kept, at_rest};
use crate::simulate::time::{Millis, SECOND};
use crate::simulate::world::World;

/// Sockets that anything but their clients closed.
fn closed(world: &World) -> u64 {
    world.record.closes.values().sum()
}

fn condition(world: &World, kind: ConditionType) -> (String, String) {
    let conditions = &world.cluster.status.as_ref().unwrap().conditions;
    let found = conditions.iter().find(|it| it.type_ == kind.as_str()).unwrap();
    (found.reason.clone(), found.message.clone())
}

fn failed(world: &World) -> bool {
    let status = world.cluster.status.as_ref();
    status
        .and_then(|status| status.rollout.as_ref())
        .is_some_and(|rollout| rollout.failed_revision.is_some())
}

/// How long it takes from now until the revision has failed.
fn fails_within(world: &mut World, limit: Millis) -> u64 {
    let began = world.now;
    assert!(world.run_until(limit, failed), "{:?}", world.cluster.status);
    (world.now - began) / SECOND
}

#[test]
fn row_05_a_revision_that_never_comes_up_closes_nothing_and_says_so_in_time() {
    let mut world = at_rest(&json!({"replicas": 20}), 100_000);
    let held: Vec<_> = world.api.pods.keys().cloned().collect();
    world.roll_to("broken:2");
    let took = fails_within(&mut world, 3_600 * SECOND);
    let (reason, message) = condition(&world, ConditionType::RolloutHealthy);
    world.run(120 * SECOND);
    let left: Vec<_> = world.api.pods.keys().cloned().collect();
    println!(
        "row 5: {} of 100,000 sockets closed; after {took} s: {reason}: {message}",
        closed(&world)
    );
    assert_eq!((closed(&world), world.connected(), left), (0, 100_000, held));
    assert_eq!(reason, "ProgressDeadlineExceeded");
    assert_eq!(condition(&world, ConditionType::Ready).0, "RolledBack");
    let deadline = u64::from(world.cluster.spec.rollout.progress_deadline_seconds);
    assert!(took <= deadline + 30, "{took} s");
    assert_kept(&world);
}

#[test]
fn row_06_a_revision_that_fails_a_fifth_of_the_handshakes_is_rolled_back_and_closes_no_old_socket() {
    let mut world = at_rest(&json!({"replicas": 20}), 100_000);
    // as many come as go
    world.settings.mean_life = 3_600.0;
    world.settings.arrivals = 100_000.0 / 3_600.0;
    world.run(60 * SECOND);
    let refused = world.record.refused;
    let handshakes = |world: &World| world.gateways.iter().map(|it| it.health.handshakes).sum::<u64>();
    let (began, before) = (world.now, handshakes(&world));
    world.roll_to("faulty:2");
    fails_within(&mut world, 600 * SECOND);
    let judged = (world.now - began) / SECOND;
    let is_back = |world: &World| world.api.pods.len() == 20 && world.clients.homeless == 0;
    assert!(world.run_until(600 * SECOND, is_back));
    let took = (world.now - began) / SECOND;
    let affected = world.record.refused - refused;
    let canary: Vec<_> = world.gateways.iter().filter(|it| it.fails > 0.0).collect();
    let served: u64 = canary.iter().map(|it| it.health.handshakes).sum();
    let new = handshakes(&world) - before;
    let forced: u64 = canary.iter().map(|it| it.forced_closed).sum();
    println!(
        "row 6: {} after {judged} s, back after {took} s; of {new} handshakes {affected} failed ({:.2} %), {served} met \
         the canary ({:.2} %); {} sockets closed, {forced} of them the canary's",
        condition(&world, ConditionType::RolloutHealthy).1,
        affected as f64 / new as f64 * 100.0,
        served as f64 / new as f64 * 100.0,
        closed(&world),
    );
    assert!(served > 0 && affected > 0);
    assert!(took <= 180, "{took} s");
    assert!(served * 20 <= new, "{served} of {new}");
    assert_eq!(closed(&world), forced, "an old socket was closed");
    assert_kept(&world);
}

#[test]
fn a_revision_that_fails_in_the_waves_with_on_failure_pause_leaves_all_where_they_are() {
    let spec = json!({"replicas": 20, "rollout": {"onFailure": "Pause", "canary": {"weight": 0}}});
    let mut world = at_rest(&spec, 100_000);
    world.roll_to("wsfleet-gateway:2");
    assert!(world.run_until(600 * SECOND, |world| closed(world) > 30_000));
    let wanted = world.cluster.status.as_ref().unwrap().update_revision.clone();
    let judge = |world: &mut World, verdict: Option<&str>| {
        let mut revisions = world.api.revisions.iter_mut();
        let revision = revisions.find(|it| Some(&it.hash) == wanted.as_ref()).unwrap();
        revision.rollout.failed = verdict.map(str::to_owned);
        world.notify();
    };
    judge(&mut world, Some("AnalysisFailed: it serves badly"));
    let is_leaving = |world: &World| world.api.pods.values().any(|pod| pod.view.drain.is_some());
    assert!(is_leaving(&world));
    assert!(world.run_until(30 * SECOND, |world| !is_leaving(world)));
    let pods =
        |world: &World| -> Vec<_> { world.api.pods.values().map(|pod| pod.view.uid.clone()).collect() };
    let (held, before, writes) = (pods(&world), closed(&world), world.record.writes);
    world.run(1_800 * SECOND);
    println!(
        "paused in the waves: {} pods, {before} of 100,000 sockets closed until then, {} afterwards",
        held.len(),
        closed(&world) - before
    );
    assert_eq!(
        (pods(&world), closed(&world), world.record.writes),
        (held, before, writes)
    );
    assert_eq!(world.connected(), 100_000);
    judge(&mut world, None);
    assert!(world.run_until(1_200 * SECOND, World::is_complete));
    let is_new = |pod: &crate::simulate::api::Object| Some(&pod.view.revision) == wanted.as_ref();
    assert!(world.api.pods.values().all(is_new));
    assert_kept(&world);
}
