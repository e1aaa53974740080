//! New revisions: good, bad, reverted, overtaken.

use serde_json::json;

use super::world::{SimPod, World};

pub(super) fn all_on(image: &'static str) -> impl Fn(&World) -> bool {
    move |world| world.is_complete() && world.images().into_iter().eq([image])
}

#[test]
fn a_rollout_moves_each_client_once_within_the_budget_and_cuts_none() {
    let mut world = World::settled(&json!({"replicas": 4}), 2000);
    world.roll_to("good:2");
    world.run(1);
    let seconds = world.run_until(600, all_on("good:2"));
    assert_eq!(world.sockets() + world.homeless, 2000);
    assert!(
        world.deleted.iter().all(|(_, sockets)| *sockets == 0),
        "{:?}",
        world.deleted
    );
    assert_eq!(world.forced, 2000, "each client is closed once");
    assert!(world.busiest <= 21, "{} closes in a second at 1 %", world.busiest);
    assert!(seconds < 200, "{seconds} s");
    assert_eq!(
        (world.told("RolloutStarted"), world.told("RolloutCompleted")),
        (1, 1)
    );
    assert_eq!(
        world
            .cluster
            .status
            .as_ref()
            .unwrap()
            .rollout
            .as_ref()
            .unwrap()
            .waiting_for,
        None
    );
}

#[test]
fn each_client_is_moved_once_however_many_pods_may_drain_at_a_time() {
    for share in ["25%", "50%", "100%"] {
        let mut world = World::settled(&json!({"replicas": 4, "drain": {"maxConcurrent": share}}), 2000);
        world.roll_to("good:2");
        world.run(1);
        world.run_until(600, all_on("good:2"));
        assert_eq!(world.forced, 2000, "with maxConcurrent {share}");
    }
}

#[test]
fn while_clients_come_fast_the_first_drain_waits_for_the_pods_that_start() {
    let new = |world: &World| {
        let new = world.pods.iter().filter(|pod| pod.image() == "good:2");
        new.filter(|pod| pod.view.ready_since.is_some()).count()
    };
    let leaving = |world: &World| world.pods.iter().any(|pod| pod.view.drain.is_some());
    // it is not waited for long for one that does not come
    for (start, comes) in [(3, true), (10_000, false)] {
        let rollout = json!({"maxSurge": 2, "progressDeadlineSeconds": 300});
        let mut world = World::settled(&json!({"replicas": 4, "rollout": rollout}), 2000);
        world.handshakes = 20.0;
        world.roll_to("good:2");
        world.run_until(60, |world| new(world) == 1);
        assert!(!leaving(&world));
        world.start_seconds = start;
        let waited = world.run_until(90, leaving);
        assert_eq!(new(&world) == 2, comes, "after {waited} s");
    }
}

#[test]
fn old_pods_accept_again_when_the_new_ones_are_full_of_new_clients() {
    let mut world = World::settled(&json!({"replicas": 4, "drain": {"settleSeconds": 60}}), 800);
    world.roll_to("good:2");
    world.run(1);
    let steered = |world: &World| world.pods.iter().filter(|pod| !pod.view.accepting).count() == 4;
    world.run_until(60, steered);
    world.homeless += 1200;
    world.run(5);
    assert_eq!(world.homeless, 0, "everybody found a gateway");
    assert!(!steered(&world));
    world.run_until(900, all_on("good:2"));
    assert_eq!(world.sockets() + world.homeless, 2000);
}

#[test]
fn a_drained_pod_gives_its_rate_back_at_once() {
    let mut world = World::settled(&json!({"replicas": 4}), 2000);
    world.roll_to("good:2");
    let mut seen = false;
    for _ in 0..200 {
        world.run(1);
        let is_drained = |pod: &&SimPod| {
            let markers = pod.view.drain.as_ref();
            markers.is_some_and(|markers| markers.drained_at.is_some())
        };
        for pod in world.pods.iter().filter(is_drained) {
            seen = true;
            let name = &pod.view.name;
            assert!(
                !world.observed.leases.contains_key(name),
                "{name} keeps a rate that the next pod could use"
            );
        }
    }
    assert!(seen);
}

#[test]
fn a_crowded_fleet_is_rolled_without_planning_beyond_its_ceiling() {
    let mut world = World::settled(&json!({"replicas": 4, "rollout": {"maxSurge": 2}}), 3400);
    world.roll_to("good:2");
    world.run(1);
    world.run_until(1200, all_on("good:2"));
    assert_eq!(world.sockets() + world.homeless, 3400);
}

#[test]
fn a_fleet_that_is_too_full_says_that_a_drain_waits_for_room() {
    let mut world = World::settled(&json!({"replicas": 2, "rollout": {"maxSurge": 1}}), 2000);
    world.set_sockets(&[1000, 1000]);
    world.edit(|spec| spec.replicas = 1);
    world.run(60);
    let (status, _, message) = world.condition("HeadroomSufficient");
    assert_eq!(status, "False", "{message}");
    assert_eq!((world.forced, world.pods.len()), (0, 2));
    assert_eq!(world.told("HeadroomInsufficient"), 1);
}

#[test]
fn an_image_that_cannot_be_pulled_is_reported_and_no_old_pod_is_touched() {
    let mut world = World::settled(&json!({"replicas": 4}), 2000);
    world.roll_to("bad:2");
    world.run(120);
    let (status, reason, message) = world.condition("Progressing");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "RolledBack"));
    assert!(message.contains("ImagePullBackOff"), "{message}");
    assert_eq!(world.forced, 0);
    assert_eq!(
        world
            .pods
            .iter()
            .filter(|pod| pod.view.accepting && pod.sockets > 0)
            .count(),
        4
    );
    let writes = world.writes;
    world.run(300);
    assert_eq!(world.writes, writes, "it waits without trying again and again");
    world.roll_to("good:1");
    world.run(10);
    assert!(world.is_complete());
    assert_eq!((world.forced, world.pods.len()), (0, 4));
}

#[test]
fn a_template_that_the_api_server_refuses_is_reported_and_tried_again_later() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    world.edit(|spec| {
        spec.template
            .metadata
            .insert("annotations".to_owned(), json!({"refuse": "yes"}));
    });
    world.run(30);
    let (status, reason, message) = world.condition("TemplateValid");
    assert_eq!(
        (status.as_str(), reason.as_str(), message.as_str()),
        ("False", "TemplateRejected", "admission refuses")
    );
    assert_eq!(
        (world.pods.len(), world.forced, world.told("TemplateRejected")),
        (2, 0, 1)
    );
    let tried = world.observed.dry_run.as_ref().unwrap().at;
    world.run(60);
    assert!(world.observed.dry_run.as_ref().unwrap().at > tried);
}

#[test]
fn an_overlay_with_a_misspelt_field_is_refused_by_name() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    world.edit(|spec| {
        spec.template.spec.insert(
            "containers".to_owned(),
            json!([{"name": "gateway", "resorces": {}}]),
        );
    });
    world.run(10);
    let (status, _, message) = world.condition("TemplateValid");
    assert_eq!(status, "False");
    assert!(
        message.contains("spec.template.spec.containers[0].resorces"),
        "{message}"
    );
    assert_eq!(world.pods.len(), 2);
}

#[test]
fn a_template_that_is_reverted_takes_the_old_pods_back() {
    let mut world = World::settled(&json!({"replicas": 4}), 2000);
    let before: Vec<_> = world.pods.iter().map(|pod| pod.view.uid.clone()).collect();
    world.roll_to("good:2");
    world.run(12);
    let forced = world.forced;
    assert!(world.images().len() == 2);
    world.roll_to("good:1");
    world.run(1);
    world.run_until(300, all_on("good:1"));
    let after: Vec<_> = world.pods.iter().map(|pod| pod.view.uid.clone()).collect();
    assert!(
        after.iter().filter(|uid| before.contains(uid)).count() >= 3,
        "{before:?} {after:?}"
    );
    assert!(
        world.forced <= forced + 600,
        "only what the short-lived revision holds is moved"
    );
    let numbers: Vec<_> = world
        .observed
        .revisions
        .iter()
        .map(|it| (it.data.image.as_str(), it.number))
        .collect();
    assert_eq!(numbers, [("good:1", 3), ("good:2", 2)]);
}

#[test]
fn a_newer_template_in_the_middle_of_a_rollout_wins() {
    let mut world = World::settled(&json!({"replicas": 4}), 2000);
    world.roll_to("good:2");
    world.run(40);
    assert!(world.images().contains("good:2") && world.images().contains("good:1"));
    world.roll_to("good:3");
    world.run(1);
    world.run_until(900, all_on("good:3"));
    assert_eq!(world.sockets() + world.homeless, 2000);
    assert!(world.deleted.iter().all(|(_, sockets)| *sockets == 0));
}

#[test]
fn the_size_can_change_in_the_middle_of_a_rollout() {
    for replicas in [2, 7] {
        let mut world = World::settled(&json!({"replicas": 4}), 800);
        world.roll_to("good:2");
        world.run(15);
        world.edit(|spec| spec.replicas = replicas);
        world.run(1);
        world.run_until(900, |world| {
            all_on("good:2")(world) && world.pods.len() == replicas as usize
        });
    }
}

#[test]
fn old_pods_are_called_at_the_port_that_they_listen_on() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    world.edit(|spec| spec.gateway.admin_port = 9999);
    world.run(1);
    world.run_until(300, World::is_complete);
    let ports: std::collections::BTreeSet<_> = world.called.iter().copied().collect();
    assert_eq!(ports.into_iter().collect::<Vec<_>>(), [9090]);
    world.called.clear();
    world.edit(|spec| spec.replicas = 1);
    world.run(1);
    world.run_until(300, |world| world.pods.len() == 1);
    assert!(
        !world.called.is_empty() && world.called.iter().all(|port| *port == 9999),
        "{:?}",
        world.called
    );
}

#[test]
fn without_surge_one_pod_at_a_time_makes_room() {
    let rollout = json!({"maxSurge": 0, "maxUnavailable": 1});
    let mut world = World::settled(&json!({"replicas": 3, "rollout": rollout}), 600);
    world.roll_to("good:2");
    world.run(1);
    world.run_until(600, all_on("good:2"));
    assert!(world.deleted.iter().all(|(_, sockets)| *sockets == 0));
}

#[test]
fn a_single_gateway_with_the_memory_broker_is_replaced_by_a_new_one() {
    let broker = json!({"memory": {}, "redis": null});
    let mut world = World::settled(&json!({"replicas": 1, "broker": broker}), 100);
    world.roll_to("good:2");
    world.run(1);
    world.run_until(120, all_on("good:2"));
    assert_eq!(world.sockets(), 100);
    assert!(world.deleted.iter().all(|(_, sockets)| *sockets == 0));
}

#[test]
fn when_the_new_pods_fail_after_the_flip_the_old_ones_accept_again() {
    let mut world = World::settled(&json!({"replicas": 4, "drain": {"settleSeconds": 60}}), 2000);
    world.roll_to("good:2");
    world.run(1);
    world.run_until(60, |world| {
        world.pods.iter().filter(|pod| !pod.view.accepting).count() == 4
    });
    let new = world.pods.len() - 1;
    world.pods[new].view.finished = true;
    world.pods[new].view.ready_since = None;
    world.start_seconds = 1000;
    world.run(2);
    assert_eq!(
        world
            .pods
            .iter()
            .filter(|pod| pod.view.accepting && pod.view.ready_since.is_some())
            .count(),
        4
    );
}

#[test]
fn a_new_leader_goes_on_within_the_budget_and_soon() {
    let mut world = World::settled(&json!({"replicas": 4}), 2000);
    world.roll_to("good:2");
    world.run(1);
    world.run_until(100, |world| world.forced > 50);
    world.change_leader();
    let forced = world.forced;
    world.run(20);
    assert!(world.forced > forced, "goes on within 20 s");
    world.run_until(600, all_on("good:2"));
    assert!(world.forced <= 2400);
}

#[test]
fn old_revisions_are_kept_up_to_the_limit() {
    let mut world = World::settled(&json!({"replicas": 1, "rollout": {"revisionHistoryLimit": 2}}), 0);
    for image in ["good:2", "good:3", "good:4", "good:5", "good:6"] {
        world.roll_to(image);
        world.run(1);
        world.run_until(120, |world| world.is_complete() && world.pods.len() == 1);
    }
    let images: Vec<_> = world
        .observed
        .revisions
        .iter()
        .map(|it| it.data.image.as_str())
        .collect();
    assert_eq!(images, ["good:4", "good:5", "good:6"]);
}

#[test]
fn old_pods_that_never_came_up_give_their_places_to_the_new_ones() {
    let spec = json!({"replicas": 3, "rollout": {"maxSurge": 0, "maxUnavailable": 1}});
    let mut world = World::settled(&spec, 30);
    let good = world.images().contains("good:1");
    assert!(good);
    world.start_seconds = 100_000;
    world.edit(|spec| spec.replicas = 6);
    world.run(10);
    world.start_seconds = 3;
    for pod in world.pods.iter_mut().filter(|pod| pod.view.ready_since.is_none()) {
        pod.break_image();
    }
    world.roll_to("good:2");
    world.run(3);
    world.roll_to("good:3");
    world.run(1);
    world.run_until(400, |world| all_on("good:3")(world) && world.pods.len() == 6);
    assert_eq!(world.sockets(), 30);
}

#[test]
fn a_revision_that_was_asked_for_while_the_fleet_was_of_none_is_not_what_it_goes_back_to() {
    let mut world = World::settled(&json!({"replicas": 2}), 0);
    let current = |world: &World| world.cluster.status.as_ref().unwrap().current_revision.clone();
    let good = current(&world);
    world.edit(|spec| spec.replicas = 0);
    world.run_until(60, |world| world.pods.is_empty());
    world.roll_to("bad:2");
    world.run(10);
    assert!(world.is_complete(), "{:?}", world.condition("Ready"));
    assert_eq!(world.condition("Progressing").1, "Complete");
    assert_eq!(current(&world), good);
    world.edit(|spec| spec.replicas = 3);
    world.run_until(200, |world| world.condition("Ready").1 == "RolledBack");
    assert!(world.images().into_iter().eq(["good:1"]));
    assert_eq!((world.pods.len(), current(&world)), (3, good));
}
