//! What ends a pod with sockets, or does not: `drain.onTimeout`, and `deletionPolicy`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use wsfleet_crds::v1alpha1::{DeletionPolicy, OnTimeout};

use super::world::World;
use crate::plan::{Action, Defaults, plan};

fn finalizers(world: &World) -> Vec<String> {
    world.cluster.metadata.finalizers.clone().unwrap_or_default()
}

fn defaults() -> Defaults {
    Defaults {
        gateway_image: "good:default".to_owned(),
    }
}

fn delete(world: &mut World) {
    world.cluster.metadata.deletion_timestamp = Some(Time(world.now));
}

#[test]
fn a_pod_whose_time_is_over_is_kept_until_its_last_socket_is_closed_if_the_user_says_so() {
    let drain = json!({"timeoutSeconds": 10, "minDisconnectsPerSecond": 5, "onTimeout": "Hold"});
    let spec = json!({"replicas": 2, "drain": drain, "rollout": {"canary": {"weight": 0}}});
    let mut world = World::settled(&spec, 400);
    world.roll_to("good:2");
    world.run_until(60, |world| world.condition("Draining").1 == "DeadlinePassed");
    let (status, _, message) = world.condition("Draining");
    assert_eq!(status, "True");
    assert!(message.contains("onTimeout"), "{message}");
    assert_eq!((world.told("DrainTimedOut"), world.deleted.len()), (1, 0));
    let made = plan(&world.cluster, &world.observed, &defaults(), world.now);
    assert!(made.next_wakeup.as_millis() >= 900, "{:?}", made.next_wakeup);
    world.run_until(600, World::is_complete);
    assert!(
        world.deleted.iter().all(|(_, held)| *held == 0),
        "{:?}",
        world.deleted
    );
    assert_eq!(world.sockets() + world.homeless, 400);
}

#[test]
fn a_pod_that_is_kept_goes_at_once_when_nobody_wants_to_keep_it_any_more() {
    let drain = json!({"timeoutSeconds": 10, "minDisconnectsPerSecond": 1, "onTimeout": "Hold"});
    let spec = json!({"replicas": 2, "drain": drain, "rollout": {"canary": {"weight": 0}}});
    let mut world = World::settled(&spec, 400);
    world.roll_to("good:2");
    world.run_until(60, |world| world.condition("Draining").1 == "DeadlinePassed");
    world.edit(|spec| spec.drain.on_timeout = OnTimeout::Delete);
    world.run(1);
    assert_eq!(world.deleted.len(), 1, "{:?}", world.deleted);
}

#[test]
fn a_drained_node_has_its_own_time_whatever_is_kept() {
    let spec = json!({
        "replicas": 3, "drain": {"timeoutSeconds": 30, "minDisconnectsPerSecond": 1, "maxDisconnectPermille": 1, "onTimeout": "Hold"},
        "disruption": {"nodeDrainTimeoutSeconds": 100},
    });
    let mut world = World::settled(&spec, 900);
    world.node("a").draining = true;
    let on_it = |world: &World| {
        let mut pods = world.pods.iter();
        pods.any(|pod| pod.view.node.as_ref().is_some_and(|node| node.name == "a"))
    };
    assert!(on_it(&world));
    let took = world.run_until(130, |world| !on_it(world));
    assert!(took >= 90, "{took} s");
}

#[test]
fn a_resource_with_policy_drain_goes_when_its_gateways_are_empty() {
    let spec =
        json!({"replicas": 3, "deletionPolicy": "Drain", "drain": {"passiveSeconds": {"scaleDown": 600}}});
    let mut world = World::settled(&spec, 600);
    assert_eq!(finalizers(&world), ["wsfleet.dev/drain"]);
    // what is asked for besides does not matter any more
    world.roll_to("good:2");
    world.edit(|spec| spec.paused = true);
    world.miss_secret(true);
    delete(&mut world);
    world.run(5);
    assert_eq!(world.condition("Progressing").1, "Deleting");
    assert!(world.pods.iter().all(|pod| !pod.view.accepting));
    let took = world.run_until(120, |world| world.pods.is_empty());
    println!(
        "600 sockets of three gateways closed in {took} s, {} in a second at most",
        world.busiest
    );
    assert!(took >= 40, "600 sockets at 10 a second: {took} s");
    world.run(2);
    assert_eq!((world.forced, finalizers(&world)), (600, vec![]));
    assert!(
        world.deleted.iter().all(|(_, held)| *held == 0),
        "{:?}",
        world.deleted
    );
}

#[test]
fn a_fleet_that_takes_longer_than_one_drain_is_emptied_at_its_rate_all_the_same() {
    let drain = json!({"timeoutSeconds": 10, "minDisconnectsPerSecond": 5});
    let spec = json!({"replicas": 2, "deletionPolicy": "Drain", "drain": drain});
    let mut world = World::settled(&spec, 300);
    delete(&mut world);
    world.run(40);
    assert!(
        world.sockets() > 50 && world.deleted.is_empty(),
        "{:?}",
        world.deleted
    );
    world.run_until(120, |world| world.pods.is_empty());
    assert_eq!((world.forced, world.told("DrainTimedOut")), (300, 0));
    assert!(
        world.deleted.iter().all(|(_, held)| *held == 0),
        "{:?}",
        world.deleted
    );
}

#[test]
fn pods_that_are_to_stay_without_their_resource_are_left_alone() {
    let mut world = World::settled(&json!({"replicas": 2, "deletionPolicy": "Drain"}), 100);
    world
        .cluster
        .metadata
        .finalizers
        .get_or_insert_default()
        .push("orphan".to_owned());
    delete(&mut world);
    world.run(3);
    assert_eq!(finalizers(&world), ["orphan"]);
    assert!(world.pods.iter().all(|pod| pod.view.accepting));
}

#[test]
fn the_finalizer_follows_the_policy_and_leaves_those_of_others() {
    let mut world = World::settled(&json!({"replicas": 1}), 10);
    world.cluster.metadata.finalizers = Some(vec!["example.com/mine".to_owned()]);
    world.run(1);
    assert_eq!(finalizers(&world), ["example.com/mine"]);
    world.edit(|spec| spec.deletion_policy = DeletionPolicy::Drain);
    world.run(1);
    assert_eq!(finalizers(&world), ["example.com/mine", "wsfleet.dev/drain"]);
    delete(&mut world);
    world.run(1);
    world.edit(|spec| spec.deletion_policy = DeletionPolicy::Graceful);
    world.run(1);
    assert_eq!(finalizers(&world), ["example.com/mine"]);
    assert_eq!(world.sockets() + world.homeless, 10, "no gateway was deleted");
}

#[test]
fn without_the_finalizer_nothing_is_done_for_a_deleted_resource() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    delete(&mut world);
    let made = plan(&world.cluster, &world.observed, &defaults(), world.now);
    let actions: &[Action] = &made.actions;
    assert!(actions.is_empty(), "{actions:?}");
}

#[test]
fn a_leaving_gateway_that_refuses_the_token_goes_after_a_while_and_drains_by_itself() {
    let drain = json!({"unreachableSeconds": 30, "onTimeout": "Hold"});
    let spec = json!({"replicas": 2, "deletionPolicy": "Drain", "drain": drain, "rollout": {"canary": {"weight": 0}}});
    let mut rolled = World::settled(&spec, 200);
    let mut deleted = rolled.clone();
    rolled.refusing = Some("good:1");
    rolled.roll_to("good:2");
    rolled.run(25);
    assert!(
        rolled.deleted.is_empty(),
        "its time is not over: {:?}",
        rolled.deleted
    );
    rolled.run_until(60, |world| !world.deleted.is_empty());
    let event = rolled.events.iter().find(|event| event.reason == "DrainTimedOut");
    assert!(
        event.is_some_and(|event| event.note.contains("admin token")),
        "{event:?}"
    );

    deleted.refusing = Some("good:1");
    delete(&mut deleted);
    deleted.run_until(60, |world| world.pods.is_empty());
    deleted.run(2);
    assert_eq!(finalizers(&deleted), Vec::<String>::new());
}

#[test]
fn gateways_that_refuse_the_token_leave_one_after_the_other() {
    let spec = json!({
        "replicas": 4, "drain": {"unreachableSeconds": 30},
        "rollout": {"canary": {"weight": 0}, "maxSurge": 4, "maxUnavailable": 0},
    });
    let mut world = World::settled(&spec, 400);
    world.refusing = Some("good:1");
    world.roll_to("good:2");
    let most = (0..200).map(|_| {
        let before = world.deleted.len();
        world.run(1);
        world.deleted.len() - before
    });
    assert_eq!(most.max(), Some(1), "{:?}", world.deleted);
    assert_eq!(world.deleted.len(), 4, "{:?}", world.deleted);
}
