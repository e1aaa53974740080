//! Where a rollout goes when something comes in between: another template, another leader, a node, a partition.

use serde_json::json;
use wsfleet_crds::v1alpha1::{IntOrPercent, RolloutPhase, RolloutStatus};

use super::world::World;
use crate::observe::model::NodeView;

fn of(world: &World, image: &str) -> usize {
    let pods = world.pods.iter();
    pods.filter(|pod| pod.image() == image && pod.view.deleting_since.is_none())
        .count()
}

fn rollout(world: &World) -> RolloutStatus {
    world.cluster.status.clone().unwrap().rollout.unwrap()
}

fn phase(world: &World) -> RolloutPhase {
    rollout(world).phase
}

#[test]
fn a_status_that_is_older_than_the_fleet_does_not_bring_back_a_revision_of_which_no_pod_is_left() {
    let mut world = World::settled(&json!({"replicas": 4}), 800);
    let before = world.cluster.status.clone().unwrap().current_revision;
    world.roll_to("good:2");
    world.run(1);
    world.run_until(600, |world| world.is_complete() && of(world, "good:2") == 4);
    let forced = world.forced;
    // the last status was never written
    world.cluster.status.as_mut().unwrap().current_revision = before;
    world.roll_to("good:3");
    world.run_until(60, |world| phase(world) == RolloutPhase::Baking);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (0, 4));
    assert_eq!(world.forced, forced);
}

#[test]
fn a_newer_template_in_the_waves_lets_the_pods_between_stay_until_its_own_waves() {
    let mut world = World::settled(&json!({"replicas": 4}), 2000);
    world.roll_to("good:2");
    world.run_until(200, |world| of(world, "good:2") == 3);
    let (forced, made) = (world.forced, of(&world, "good:2"));
    world.roll_to("good:3");
    world.run(1);
    world.run_until(60, |world| phase(world) == RolloutPhase::Baking);
    assert!(of(&world, "good:2") + of(&world, "good:1") >= 4 && made >= 2);
    world.run_until(600, |world| world.is_complete() && of(world, "good:3") == 4);
    let moved = world.forced - forced;
    assert!(
        moved <= 2700,
        "{moved} closes for 2000 clients: those between were moved back first"
    );
}

#[test]
fn a_leader_that_has_not_measured_yet_does_not_let_the_canary_pass() {
    let mut world = World::settled(
        &json!({"replicas": 4, "rollout": {"canary": {"bakeSeconds": 30}}}),
        400,
    );
    world.roll_to("good:2");
    world.run_until(20, |world| phase(world) == RolloutPhase::Baking);
    world.run(28);
    world.change_leader();
    world.answers = false;
    world.run(20);
    assert_eq!((of(&world, "good:2"), world.told("CanaryPassed")), (1, 0));
    world.answers = true;
    world.run_until(60, |world| phase(world) == RolloutPhase::Progressing);
}

#[test]
fn a_partition_that_holds_everything_passes_no_canary() {
    let mut world = World::settled(&json!({"replicas": 4, "rollout": {"partition": "100%"}}), 400);
    world.roll_to("good:2");
    world.run(60);
    assert!(world.is_complete());
    assert_eq!((of(&world, "good:2"), phase(&world)), (0, RolloutPhase::Paused));
    assert!(rollout(&world).paused_reason.unwrap().contains("partition"));
    world.edit(|spec| spec.rollout.partition = IntOrPercent::Count(0));
    world.run_until(20, |world| phase(world) == RolloutPhase::Baking);
    assert_eq!((of(&world, "good:1"), of(&world, "good:2")), (4, 1));
}

#[test]
fn a_node_is_drained_while_the_template_is_refused() {
    let mut world = World::settled(&json!({"replicas": 4}), 400);
    world.edit(|spec| {
        spec.template
            .metadata
            .insert("annotations".to_owned(), json!({"refuse": "yes"}));
    });
    world.run(10);
    world.node("a").draining = true;
    let on_it = |world: &World| {
        let pods = world.pods.iter();
        pods.filter(|pod| pod.view.node.as_ref().is_some_and(|node| node.name == "a"))
            .count()
    };
    assert!(on_it(&world) > 0);
    world.run_until(300, |world| on_it(world) == 0 && of(world, "good:1") == 4);
    assert_eq!(world.sockets() + world.homeless, 400);
}

#[test]
fn a_pod_without_a_node_does_not_fail_a_revision_that_came_up_elsewhere() {
    let mut world = World::settled(&json!({"replicas": 4, "rollout": {"maxSurge": 1}}), 400);
    world.roll_to("good:2");
    world.run_until(100, |world| phase(world) == RolloutPhase::Progressing);
    world.start_seconds = 10_000;
    world.run_until(200, |world| of(world, "good:2") == 2);
    let node = world.pods[0].view.node.clone();
    let wait = |world: &mut World, node: Option<&NodeView>| {
        for _ in 0..90 {
            for pod in world.pods.iter_mut().filter(|pod| pod.view.ready_since.is_none()) {
                pod.view.node = node.cloned();
            }
            world.run(1);
        }
    };
    wait(&mut world, None);
    assert_eq!(
        (rollout(&world).failed_revision, phase(&world)),
        (None, RolloutPhase::Blocked)
    );
    wait(&mut world, node.as_ref());
    assert!(rollout(&world).failed_revision.is_some());
}

#[test]
fn a_failed_revision_that_is_alone_is_paused_and_a_mended_one_takes_its_place() {
    let rollout = json!({"maxSurge": 0, "maxUnavailable": 1, "onFailure": "Pause"});
    let mut world = World::settled(&json!({"replicas": 1, "rollout": rollout}), 0);
    world.roll_to("bad:2");
    world.run_until(120, |world| {
        rollout_failed(world) && phase(world) == RolloutPhase::Paused
    });
    world.run(120);
    assert_eq!((phase(&world), of(&world, "bad:2")), (RolloutPhase::Paused, 1));
    world.roll_to("good:3");
    world.run(1);
    world.run_until(120, |world| world.is_complete() && of(world, "good:3") == 1);
}

fn rollout_failed(world: &World) -> bool {
    rollout(world).failed_revision.is_some()
}
