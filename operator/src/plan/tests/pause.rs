//! `onFailure: Pause` in the middle of the waves.

use serde_json::json;
use wsfleet_crds::v1alpha1::RolloutPhase;

use super::trial::{of, phase};
use super::world::{SimPod, World};

/// Somebody judges the wanted revision, or takes that back.
fn judge(world: &mut World, image: &str, failed: Option<&str>) {
    let mut revisions = world.observed.revisions.iter_mut();
    let revision = revisions.find(|it| it.data.image == image).unwrap();
    revision.rollout.failed = failed.map(str::to_owned);
}

/// A rollout that fails in its waves, with `onFailure: Pause`: some new pods serve, one old one drains, others wait.
fn paused_in_the_waves() -> World {
    let spec = json!({"replicas": 6, "rollout": {"onFailure": "Pause", "maxSurge": 2, "canary": {"bakeSeconds": 0}}});
    let mut world = World::settled(&spec, 3000);
    world.roll_to("good:2");
    let is_draining = |pod: &SimPod| {
        let markers = pod.view.drain.as_ref();
        markers.is_some_and(|it| it.deadline.is_some() && it.drained_at.is_none()) && pod.sockets > 0
    };
    world.run_until(200, |world| {
        world.forced > 0 && world.pods.iter().any(is_draining)
    });
    judge(&mut world, "good:2", Some("AnalysisFailed: it serves badly"));
    world
}

#[test]
fn on_failure_pause_in_the_waves_moves_nobody_any_more_and_goes_on_when_it_may() {
    let mut world = paused_in_the_waves();
    let before: Vec<_> = world.pods.iter().map(|pod| pod.view.uid.clone()).collect();
    let (old, new) = (of(&world, "good:1"), of(&world, "good:2"));
    world.run(2);
    let forced = world.forced;
    world.run(300);
    let after: Vec<_> = world.pods.iter().map(|pod| pod.view.uid.clone()).collect();
    assert_eq!(
        (after, world.forced),
        (before, forced),
        "no pod comes or goes, no socket is closed"
    );
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (old, new));
    let serves = |pod: &SimPod| pod.view.accepting && pod.view.drain.is_none();
    assert!(
        world.pods.iter().all(serves),
        "all accept, those that were drained, too"
    );
    assert_eq!(
        (phase(&world), world.told("RolloutPaused")),
        (RolloutPhase::Paused, 1)
    );
    let writes = world.writes;
    world.run(300);
    assert_eq!(world.writes, writes);

    judge(&mut world, "good:2", None);
    world.run_until(600, |world| world.is_complete() && of(world, "good:2") == 6);
    assert_eq!(world.sockets() + world.homeless, 3000);
}

#[test]
fn a_fleet_that_is_paused_in_the_waves_is_refilled_with_the_revision_before_and_only_up_to_what_is_wanted() {
    let mut world = paused_in_the_waves();
    world.run(20);
    let new = of(&world, "good:2");
    while world.pods.len() > 6 {
        world.delete_behind_its_back(0);
        world.run(20);
    }
    assert_eq!(world.pods.len(), 6, "what was more than wanted is not made again");
    for _ in 0..3 {
        world.delete_behind_its_back(0);
        world.run(20);
        assert_eq!(world.pods.len(), 6);
    }
    let newest = world.pods.iter().position(|pod| pod.image() == "good:2");
    world.delete_behind_its_back(newest.unwrap());
    world.run(20);
    assert_eq!(
        (of(&world, "good:1"), of(&world, "good:2")),
        (6 + 1 - new, new - 1)
    );
    assert_eq!(world.sockets() + world.homeless, 3000);
}
