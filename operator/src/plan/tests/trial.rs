//! The trial of a new revision: canary, baking, failure, rollback; and what is held on the revision before.

use serde_json::{Value, json};
use wsfleet_crds::v1alpha1::RolloutPhase;

use super::world::World;

fn with_bake(seconds: u32) -> Value {
    json!({"replicas": 4, "rollout": {"canary": {"bakeSeconds": seconds}}})
}

pub(super) fn of(world: &World, image: &str) -> usize {
    let revision = world.observed.revisions.iter().find(|it| it.data.image == image);
    let hash = revision.map(|it| it.hash.clone());
    world
        .pods
        .iter()
        .filter(|pod| Some(&pod.view.revision) == hash.as_ref() && pod.view.deleting_since.is_none())
        .count()
}

pub(super) fn phase(world: &World) -> RolloutPhase {
    rollout(world).phase
}

fn rollout(world: &World) -> wsfleet_crds::v1alpha1::RolloutStatus {
    world.cluster.status.clone().unwrap().rollout.unwrap()
}

#[test]
fn a_canary_takes_new_sockets_beside_the_old_pods_and_the_waves_wait_until_it_has_baked() {
    let mut world = World::settled(&with_bake(60), 800);
    world.roll_to("good:2");
    world.run(1);
    assert_eq!(phase(&world), RolloutPhase::Canary);
    world.run_until(20, |world| phase(world) == RolloutPhase::Baking);
    world.homeless += 100;
    for _ in 0..50 {
        world.run(1);
        assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (4, 1));
        assert!(
            world
                .pods
                .iter()
                .all(|pod| pod.view.accepting && pod.view.drain.is_none())
        );
    }
    let canary = world.pods.last().unwrap();
    assert_eq!(
        (canary.sockets, world.forced),
        (20, 0),
        "a fifth of the new sockets, none of the old"
    );
    world.run_until(20, |world| phase(world) == RolloutPhase::Progressing);
    assert_eq!(world.told("CanaryPassed"), 1);
    world.run_until(600, |world| {
        phase(world) == RolloutPhase::Idle && world.is_complete()
    });
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (0, 4));
    assert_eq!(rollout(&world).started_at, None);
}

#[test]
fn the_canary_is_as_large_as_its_weight_says_and_never_larger_than_the_surge() {
    for (weight, surge, pods) in [(json!("5%"), 2, 1), (json!("50%"), 2, 2), (json!(3), 5, 3)] {
        let spec = json!({"replicas": 4, "rollout": {"maxSurge": surge, "canary": {"weight": weight, "bakeSeconds": 60}}});
        let mut world = World::settled(&spec, 400);
        world.roll_to("good:2");
        world.run(30);
        assert_eq!(
            (of(&world, "good:1"), of(&world, "good:2")),
            (4, pods),
            "{weight}"
        );
    }
}

#[test]
fn a_canary_of_no_pods_is_none() {
    let mut world = World::settled(
        &json!({"replicas": 4, "rollout": {"canary": {"weight": 0, "bakeSeconds": 600}}}),
        400,
    );
    world.roll_to("good:2");
    world.run(1);
    world.run_until(120, |world| world.is_complete() && of(world, "good:2") == 4);
}

#[test]
fn an_old_pod_that_dies_during_the_trial_is_replaced_by_one_of_the_revision_that_is_known_to_work() {
    let mut world = World::settled(
        &json!({"replicas": 4, "rollout": {"maxSurge": 2, "canary": {"bakeSeconds": 60}}}),
        400,
    );
    world.roll_to("good:2");
    world.run_until(20, |world| phase(world) == RolloutPhase::Baking);
    world.delete_behind_its_back(0);
    world.run(20);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (4, 1));
}

#[test]
fn a_revision_that_never_becomes_ready_is_rolled_back_with_no_socket_closed_and_not_tried_again() {
    let mut world = World::settled(&with_bake(5), 2000);
    let before: Vec<_> = world.pods.iter().map(|pod| pod.view.uid.clone()).collect();
    world.roll_to("bad:2");
    world.run(90);
    let now: Vec<_> = world.pods.iter().map(|pod| pod.view.uid.clone()).collect();
    assert_eq!((now, world.forced), (before, 0));
    let (status, reason, message) = world.condition("RolloutHealthy");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "ProgressDeadlineExceeded")
    );
    assert!(message.contains("ImagePullBackOff"), "{message}");
    assert_eq!(world.condition("Ready").1, "RolledBack");
    assert_eq!(world.condition("Progressing").1, "RolledBack");
    let status = world.cluster.status.clone().unwrap();
    assert_eq!(rollout(&world).failed_revision, status.update_revision);
    assert_eq!(phase(&world), RolloutPhase::Idle);
    assert_eq!(
        (world.told("RolloutRolledBack"), world.told("RolloutCompleted")),
        (1, 0)
    );

    let writes = world.writes;
    world.change_leader();
    world.cluster.status.as_mut().unwrap().rollout = None;
    world.run(300);
    assert_eq!(
        world.writes, writes,
        "neither time nor another leader tries it again"
    );
    assert_eq!(rollout(&world).failed_revision, status.update_revision);

    world.roll_to("good:3");
    world.run(1);
    assert_eq!(rollout(&world).failed_revision, None);
    world.run_until(300, |world| world.is_complete() && of(world, "good:3") == 4);
    world.roll_to("bad:2");
    world.run_until(20, |world| of(world, "bad:2") == 1);
}

#[test]
fn a_fleet_that_was_rolled_back_goes_on_repairing_and_scaling_itself() {
    let mut world = World::settled(&with_bake(5), 400);
    world.roll_to("bad:2");
    world.run_until(90, |world| rollout(world).failed_revision.is_some());
    world.delete_behind_its_back(0);
    world.edit(|spec| spec.replicas = 6);
    world.run(20);
    assert_eq!((of(&world, "good:1"), of(&world, "bad:2")), (6, 0));
    world.edit(|spec| spec.replicas = 2);
    world.run_until(200, |world| world.pods.len() == 2);
    assert_eq!(world.sockets() + world.homeless, 400);
}

#[test]
fn a_revision_that_fails_in_the_waves_is_drained_and_the_old_pods_accept_again() {
    let mut world = World::settled(&with_bake(0), 2000);
    world.roll_to("good:2");
    world.run_until(200, |world| of(world, "good:2") == 3);
    // from here on no new pod comes up
    world.start_seconds = 10_000;
    world.delete_behind_its_back(world.pods.len() - 1);
    world.run_until(200, |world| rollout(world).failed_revision.is_some());
    assert_eq!(phase(&world), RolloutPhase::RollingBack);
    world.start_seconds = 3;
    world.run_until(600, |world| phase(world) == RolloutPhase::Idle);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (4, 0));
    assert_eq!(world.sockets() + world.homeless, 2000);
}

#[test]
fn on_failure_pause_leaves_everything_as_it_is_until_the_template_changes() {
    let spec = json!({"replicas": 4, "rollout": {"onFailure": "Pause"}});
    let mut world = World::settled(&spec, 400);
    world.roll_to("bad:2");
    world.run(120);
    assert_eq!(
        (of(&world, "good:1"), of(&world, "bad:2"), world.forced),
        (4, 1, 0)
    );
    assert_eq!(phase(&world), RolloutPhase::Paused);
    assert!(
        rollout(&world)
            .paused_reason
            .unwrap()
            .contains("ImagePullBackOff")
    );
    assert_eq!(world.condition("Progressing").1, "ProgressDeadlineExceeded");
    assert_eq!(
        (world.told("RolloutPaused"), world.told("RolloutRolledBack")),
        (1, 0)
    );
    let writes = world.writes;
    world.run(300);
    assert_eq!(world.writes, writes);
    world.roll_to("good:3");
    world.run(1);
    world.run_until(300, |world| world.is_complete() && of(world, "good:3") == 4);
}

#[test]
fn taking_the_marker_of_the_failure_away_tries_the_revision_again() {
    let mut world = World::settled(&with_bake(5), 400);
    world.roll_to("bad:2");
    world.run_until(90, |world| rollout(world).failed_revision.is_some());
    let again = world
        .observed
        .revisions
        .iter_mut()
        .find(|it| it.data.image == "bad:2");
    again.unwrap().rollout.failed = None;
    world.run(10);
    assert_eq!(of(&world, "bad:2"), 1);
}

#[test]
fn another_leader_goes_on_baking_where_the_one_before_it_was() {
    let mut world = World::settled(&with_bake(60), 400);
    world.roll_to("good:2");
    world.run_until(20, |world| phase(world) == RolloutPhase::Baking);
    world.run(40);
    world.change_leader();
    let rest = world.run_until(60, |world| phase(world) == RolloutPhase::Progressing);
    assert!(rest <= 21, "{rest} s of the 20 that were left");
}

#[test]
fn a_newer_template_during_the_trial_begins_anew_and_drains_what_lies_between_first() {
    let mut world = World::settled(
        &json!({"replicas": 4, "rollout": {"maxSurge": 2, "canary": {"bakeSeconds": 60}}}),
        800,
    );
    world.roll_to("good:2");
    world.run_until(20, |world| phase(world) == RolloutPhase::Baking);
    world.homeless += 50;
    world.run(1);
    world.roll_to("good:3");
    world.run_until(60, |world| of(world, "good:2") == 0);
    assert_eq!((of(&world, "good:1"), of(&world, "good:3")), (4, 1));
    assert!(matches!(
        phase(&world),
        RolloutPhase::Canary | RolloutPhase::Baking
    ));
    assert!(
        world.forced <= 10,
        "{} closed: only what the middle revision held",
        world.forced
    );
    world.run_until(600, |world| world.is_complete() && of(world, "good:3") == 4);
}

#[test]
fn a_partition_holds_pods_back_and_lowering_it_goes_on() {
    let mut world = World::settled(&json!({"replicas": 4, "rollout": {"partition": "50%"}}), 800);
    world.roll_to("good:2");
    world.run(1);
    world.run_until(300, |world| {
        phase(world) == RolloutPhase::Paused && world.is_complete()
    });
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (2, 2));
    let status = world.cluster.status.clone().unwrap();
    assert_ne!(status.current_revision, status.update_revision);
    assert_eq!(world.condition("Progressing").1, "HeldBack");
    let writes = world.writes;
    world.run(300);
    assert_eq!(world.writes, writes);

    // repaired and resized by halves
    world.delete_behind_its_back(0);
    world.edit(|spec| spec.replicas = 6);
    world.run(1);
    world.run_until(60, World::is_complete);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (3, 3));
    world.edit(|spec| spec.replicas = 2);
    world.run_until(200, |world| world.is_complete() && world.pods.len() == 2);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (1, 1));

    world.edit(|spec| spec.rollout.partition = wsfleet_crds::v1alpha1::IntOrPercent::Count(0));
    world.run_until(300, |world| {
        world.is_complete() && of(world, "good:2") == 2 && of(world, "good:1") == 0
    });
    assert_eq!(world.sockets() + world.homeless, 800);
}

#[test]
fn on_delete_replaces_what_somebody_deletes_and_nothing_else() {
    let mut world = World::settled(&json!({"replicas": 3, "rollout": {"strategy": "OnDelete"}}), 300);
    world.roll_to("good:2");
    world.run(60);
    assert_eq!(
        (of(&world, "good:1"), of(&world, "good:2"), world.forced),
        (3, 0, 0)
    );
    assert!(rollout(&world).paused_reason.unwrap().contains("OnDelete"));
    world.delete_behind_its_back(0);
    world.run(30);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (2, 1));
    world.edit(|spec| spec.replicas = 2);
    world.run_until(200, |world| world.pods.len() == 2);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (1, 1));
    let last = world.pods.iter().position(|pod| pod.image() == "good:1");
    world.delete_behind_its_back(last.unwrap());
    world.run(30);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (0, 2));
    assert_eq!(phase(&world), RolloutPhase::Idle);
    assert_eq!(world.sockets() + world.homeless, 300);
}

#[test]
fn blue_green_drains_the_first_fleet_only_when_the_second_is_whole() {
    let spec = json!({"replicas": 4, "rollout": {"strategy": "BlueGreen", "canary": {"bakeSeconds": 5}}});
    let mut world = World::settled(&spec, 800);
    world.roll_to("good:2");
    let mut most = 0;
    for _ in 0..300 {
        world.run(1);
        most = most.max(world.pods.len());
        let up = world
            .pods
            .iter()
            .filter(|pod| pod.image() == "good:2" && pod.view.ready_since.is_some());
        let leaving = world.pods.iter().any(|pod| pod.view.drain.is_some());
        assert!(
            !leaving || up.count() == 4,
            "an old pod goes before the second fleet is whole"
        );
    }
    assert_eq!(most, 8);
    assert!(world.is_complete());
    assert_eq!(
        (of(&world, "good:1"), of(&world, "good:2"), world.forced),
        (0, 4, 800)
    );
}

#[test]
fn without_surge_the_canary_takes_one_place_and_then_bakes() {
    let rollout = json!({"maxSurge": 0, "maxUnavailable": 1, "canary": {"bakeSeconds": 60}});
    let mut world = World::settled(&json!({"replicas": 4, "rollout": rollout}), 400);
    world.roll_to("good:2");
    world.run_until(60, |world| phase(world) == RolloutPhase::Baking);
    world.run(30);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (3, 1));
    world.run_until(600, |world| world.is_complete() && of(world, "good:2") == 4);
}

#[test]
fn a_template_that_is_refused_does_not_keep_old_pods_from_being_repaired() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    world.edit(|spec| {
        spec.template
            .metadata
            .insert("annotations".to_owned(), json!({"refuse": "yes"}));
    });
    world.run(10);
    world.delete_behind_its_back(0);
    world.run(10);
    assert_eq!((of(&world, "good:1"), world.sockets()), (2, 100));
}
