//! Birth, repair, size, pause, and the end.

use serde_json::json;
use wsfleet_crds::labels::{DrainReason, PodPhase};

use super::world::World;
use crate::plan::{Action, Defaults, plan};

fn names(world: &World) -> Vec<String> {
    let mut names: Vec<_> = world.pods.iter().map(|pod| pod.view.name.clone()).collect();
    names.sort();
    names
}

#[test]
fn a_new_fleet_comes_up_with_deterministic_names_and_then_nothing_is_written() {
    let mut world = World::new(&json!({"replicas": 3}));
    world.run(20);
    assert!(world.is_complete());
    let hash = world
        .cluster
        .status
        .as_ref()
        .unwrap()
        .update_revision
        .clone()
        .unwrap();
    assert_eq!(names(&world), [0, 1, 2].map(|slot| format!("chat-{hash}-{slot}")));
    assert!(world.pods.iter().all(|pod| pod.view.phase == PodPhase::Active));
    let (writes, status) = (world.writes, world.cluster.status.clone());
    world.run(600);
    assert_eq!(world.writes, writes, "a steady fleet is not written to");
    assert_eq!(world.cluster.status, status);
}

#[test]
fn the_hash_of_a_specification_is_the_same_in_every_version_of_the_operator() {
    let mut world = World::new(&json!({"replicas": 1}));
    world.run(5);
    assert_eq!(world.cluster.status.unwrap().update_revision.unwrap(), "vwxpx4km");
}

#[test]
fn another_default_image_of_the_operator_restarts_nothing() {
    let mut world = World::new(&json!({"replicas": 2, "gateway": {"image": null}}));
    world.run(20);
    let other = Defaults {
        gateway_image: "good:newer".to_owned(),
    };
    let made = plan(&world.cluster, &world.observed, &other, world.now);
    assert!(made.actions.is_empty(), "{:?}", made.actions);
    world.delete_behind_its_back(0);
    world.run(20);
    assert_eq!(
        world.images().into_iter().collect::<Vec<_>>(),
        ["good:default"],
        "the frozen image is used"
    );
}

#[test]
fn scale_in_takes_the_pods_with_the_fewest_sockets_and_drains_them_first() {
    let mut world = World::settled(&json!({"replicas": 4}), 400);
    world.set_sockets(&[100, 20, 250, 30]);
    let kept = [names(&world)[0].clone(), names(&world)[2].clone()];
    world.edit(|spec| spec.replicas = 2);
    world.run(1);
    world.run_until(120, |world| world.pods.len() == 2);
    assert_eq!(names(&world), kept);
    assert!(
        world.deleted.iter().all(|(_, sockets)| *sockets == 0),
        "{:?}",
        world.deleted
    );
    assert_eq!(world.sockets() + world.homeless, 400);
    assert_eq!(
        (
            world.told("ScaledDown"),
            world.told("DrainStarted"),
            world.told("DrainCompleted")
        ),
        (1, 2, 2)
    );
}

#[test]
fn pods_that_wait_to_be_drained_are_taken_back_when_they_are_needed_again() {
    let mut world = World::settled(
        &json!({"replicas": 4, "drain": {"passiveSeconds": {"scaleDown": 600}}}),
        400,
    );
    let before = names(&world);
    world.edit(|spec| spec.replicas = 2);
    world.run(30);
    assert_eq!(world.pods.iter().filter(|pod| !pod.view.accepting).count(), 2);
    world.edit(|spec| spec.replicas = 4);
    world.run(1);
    assert!(
        world
            .pods
            .iter()
            .all(|pod| pod.view.accepting && pod.view.drain.is_none())
    );
    assert_eq!(
        (names(&world), world.forced, world.told("Reclaimed")),
        (before, 0, 2)
    );
}

#[test]
fn pods_that_are_taken_back_count_against_the_surge_again() {
    let rollout = json!({"maxSurge": 0, "maxUnavailable": 1});
    let mut world = World::settled(&json!({"replicas": 3, "rollout": rollout}), 138);
    world.node("a").draining = true;
    world.run(1);
    for replicas in [0, 3] {
        world.edit(|spec| spec.replicas = replicas);
        world.run(1); // the model checks the bound at each create
    }
    world.run_until(120, World::is_complete);
}

#[test]
fn a_fleet_can_be_scaled_to_nothing_and_back() {
    let mut world = World::settled(&json!({"replicas": 2, "drain": {"maxConcurrent": "100%"}}), 50);
    world.edit(|spec| spec.replicas = 0);
    world.run(1);
    world.run_until(120, |world| world.pods.is_empty());
    assert_eq!(world.homeless, 50);
    world.edit(|spec| spec.replicas = 2);
    world.run(1);
    world.run_until(60, |world| world.is_complete() && world.homeless == 0);
}

#[test]
fn a_pod_that_somebody_deleted_is_replaced_and_announced_once() {
    let mut world = World::settled(&json!({"replicas": 3}), 300);
    world.delete_behind_its_back(1);
    let defaults = Defaults {
        gateway_image: String::new(),
    };
    world.observed.pods = world.pods.iter().map(|pod| pod.view.clone()).collect();
    let made = plan(&world.cluster, &world.observed, &defaults, world.now);
    assert!(
        made.actions
            .iter()
            .any(|action| matches!(action, Action::CreatePod(_))),
        "replaced while it terminates"
    );
    assert!(
        made.events
            .iter()
            .any(|event| event.reason == "ForeignTermination")
    );
    world.run(1);
    world.run_until(60, |world| world.is_complete() && world.pods.len() == 3);
    assert_eq!(world.sockets(), 300);
}

#[test]
fn pods_on_a_node_that_is_not_heard_of_are_replaced_after_a_minute() {
    let mut world = World::settled(&json!({"replicas": 3}), 300);
    let now = world.now;
    world.node("a").not_ready_since = Some(now);
    let there = |world: &World| {
        world
            .pods
            .iter()
            .filter(|pod| pod.view.node.as_ref().is_some_and(|node| node.name == "a"))
            .count()
    };
    assert!(there(&world) > 0);
    world.run(50);
    assert!(there(&world) > 0, "a short silence changes nothing");
    world.run(20);
    assert_eq!(there(&world), 0);
    world.run_until(60, World::is_complete);
}

#[test]
fn a_pod_that_fails_at_once_is_not_made_again_in_a_tight_loop() {
    let mut world = World::settled(&json!({"replicas": 2}), 0);
    let writes = world.writes;
    for _ in 0..60 {
        for pod in &mut world.pods {
            if pod.view.slot == 0 {
                pod.view.finished = true;
                pod.view.ready_since = None;
            }
        }
        world.run(1);
    }
    assert!(
        world.writes - writes <= 40,
        "{} writes in a minute",
        world.writes - writes
    );
}

#[test]
fn pods_on_a_node_that_is_drained_are_replaced_first_and_drained_then() {
    let mut world = World::settled(&json!({"replicas": 3}), 300);
    let on_a = world
        .pods
        .iter()
        .filter(|pod| pod.view.node.as_ref().is_some_and(|node| node.name == "a"))
        .count();
    assert!(on_a > 0);
    world.node("a").draining = true;
    world.run(1);
    world.run_until(200, |world| {
        world.is_complete()
            && world.pods.len() == 3
            && world
                .pods
                .iter()
                .all(|pod| pod.view.node.as_ref().is_some_and(|node| node.name != "a"))
    });
    assert!(world.deleted.iter().all(|(_, sockets)| *sockets == 0));
    assert_eq!(world.told("NodeDrainDetected"), on_a);
}

/// No other pod has room, and none comes up: the drain waits until the node's time is nearly over, and not longer.
#[test]
fn a_node_is_empty_when_its_time_is_over_whatever_room_the_others_have() {
    for mode in ["Strict", "Cooperative"] {
        let spec = json!({
            "replicas": 3, "drain": {"timeoutSeconds": 60, "maxDisconnectPermille": 20},
            "disruption": {"mode": mode, "nodeDrainTimeoutSeconds": 200},
        });
        let mut world = World::settled(&spec, 2_700);
        world.start_seconds = 10_000;
        let on_a = |world: &World| {
            let is_there = |pod: &&super::world::SimPod| {
                pod.view.node.as_ref().is_some_and(|node| node.name == "a") && pod.view.ready_since.is_some()
            };
            world.pods.iter().filter(is_there).count()
        };
        let there = on_a(&world);
        assert!(there > 0);
        world.node("a").draining = true;
        world.run(135);
        assert_eq!(
            (on_a(&world), world.forced),
            (there, 0),
            "{mode}: it waits for room"
        );
        let rest = world.run_until(200 - 135 + 5, |world| on_a(world) == 0);
        assert!(world.forced > 0, "{mode}");
        println!("{mode}: gone after {} s of 200", 135 + rest);
        assert_eq!(world.told("NodeDrainDetected"), there);
    }
}

#[test]
fn a_node_that_is_taken_back_has_all_its_time_again() {
    let spec = json!({
        "replicas": 3, "drain": {"timeoutSeconds": 60}, "disruption": {"nodeDrainTimeoutSeconds": 200},
    });
    let mut world = World::settled(&spec, 2_700);
    world.start_seconds = 10_000;
    world.node("a").draining = true;
    world.run(100);
    world.node("a").draining = false;
    world.run(1);
    assert!(world.pods.iter().all(|pod| pod.view.node_drain_since.is_none()));
    world.node("a").draining = true;
    world.run(100);
    assert_eq!(world.forced, 0);
}

#[test]
fn a_paused_fleet_is_left_alone_and_its_status_stays_fresh() {
    let mut world = World::settled(&json!({"replicas": 3}), 300);
    let writes = world.writes;
    world.edit(|spec| {
        spec.paused = true;
        spec.replicas = 1;
        spec.gateway.image = Some("good:2".to_owned());
    });
    world.lose_clients(50);
    world.run(60);
    assert_eq!(world.writes, writes);
    assert_eq!(world.condition("Paused").0, "True");
    assert_eq!(
        world.cluster.status.as_ref().unwrap().connections.unwrap().total,
        150
    );
    world.edit(|spec| spec.paused = false);
    world.run(1);
    world.run_until(200, |world| world.is_complete() && world.pods.len() == 1);
}

#[test]
fn a_missing_secret_is_named_and_nothing_new_is_made_while_old_pods_stay() {
    let mut world = World::settled(&json!({"replicas": 3}), 300);
    world.miss_secret(true);
    world.roll_to("good:2");
    world.run(60);
    let (status, reason, message) = world.condition("ReferencesResolved");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "SecretNotFound"));
    assert!(
        message.contains("spec.auth.jwt.secretRef") && message.contains("chat-jwt"),
        "{message}"
    );
    assert_eq!(world.condition("Progressing").1, "SecretNotFound");
    assert_eq!(
        (world.images().into_iter().collect::<Vec<_>>(), world.forced),
        (vec!["good:1"], 0)
    );
    world.miss_secret(false);
    world.run(1);
    world.run_until(200, |world| {
        world.is_complete() && !world.images().contains("good:1")
    });
}

#[test]
fn a_resource_that_is_being_deleted_is_left_to_the_garbage_collector() {
    let mut world = World::settled(&json!({"replicas": 3}), 300);
    let now = world.now;
    world.cluster.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
    world.pods.clear();
    let writes = world.writes;
    world.run(30);
    assert!(world.pods.is_empty());
    assert_eq!(world.writes, writes);
}

#[test]
fn a_gateway_that_does_not_answer_is_given_up_after_its_time() {
    let mut world = World::settled(&json!({"replicas": 3}), 300);
    world.edit(|spec| spec.replicas = 2);
    world.run(1);
    world.answers = false;
    world.run(25);
    assert_eq!(world.pods.len(), 3, "not before drain.unreachableSeconds");
    world.run(20);
    assert_eq!(world.pods.len(), 2);
    assert_eq!(world.told("DrainTimedOut"), 1);
}

#[test]
fn a_drain_that_takes_too_long_ends_at_its_deadline_with_a_warning() {
    let drain = json!({"timeoutSeconds": 10, "minDisconnectsPerSecond": 1, "maxDisconnectPermille": 1});
    let mut world = World::settled(&json!({"replicas": 2, "drain": drain}), 300);
    world.edit(|spec| spec.replicas = 1);
    world.run(60);
    assert_eq!(world.pods.len(), 1);
    assert_eq!(world.told("DrainTimedOut"), 1);
    assert!(world.deleted[0].1 > 100);
}

#[test]
fn labels_that_somebody_changed_are_put_right() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    world.pods[0].view.accepting = false;
    world.pods[1].view.phase = PodPhase::Draining;
    world.run(1);
    assert!(
        world
            .pods
            .iter()
            .all(|pod| pod.view.accepting && pod.view.phase == PodPhase::Active)
    );
    assert!(
        world
            .pods
            .iter()
            .all(|pod| pod.view.drain.as_ref().map(|it| it.reason) != Some(DrainReason::Rollout))
    );
}
