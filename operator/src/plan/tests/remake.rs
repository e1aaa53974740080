//! A pod that does not come up.

use serde_json::json;

use super::world::World;

#[test]
fn a_pod_that_does_not_come_up_is_made_again_once_in_its_time_and_not_one_without_a_node() {
    let mut world = World::settled(&json!({"replicas": 2}), 100);
    world.start_seconds = 100_000;
    world.edit(|spec| spec.replicas = 3);
    world.run(10);
    let starting = |world: &World| {
        let pod = world.pods.iter().find(|pod| pod.view.ready_since.is_none());
        pod.map(|pod| pod.view.uid.clone())
    };
    let first = starting(&world);
    assert!(first.is_some());
    world.run(45);
    assert_eq!((starting(&world), world.told("PodRemade")), (first.clone(), 0));
    world.run(20);
    let second = starting(&world);
    assert!(second.is_some() && second != first);
    assert_eq!(world.told("PodRemade"), 1);
    for _ in 0..58 {
        world.run(1);
        let (status, reason, _) = world.condition("Progressing");
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "ProgressDeadlineExceeded"),
            "the next one has not come up either"
        );
    }
    world.run(2);
    assert_eq!(world.told("PodRemade"), 2, "each has its time");
    for _ in 0..120 {
        for pod in world.pods.iter_mut().filter(|pod| pod.view.ready_since.is_none()) {
            pod.view.node = None;
        }
        world.run(1);
    }
    assert_eq!(
        world.told("PodRemade"),
        2,
        "there is no room for another one either"
    );
    world.start_seconds = 1;
    world.run_until(10, World::is_complete);
    assert_eq!(world.condition("Progressing").1, "Complete");
    assert_eq!(world.sockets(), 100);
}

#[test]
fn a_fleet_that_never_came_up_is_told_to_be_stuck_and_stays_so() {
    let mut world = World::new(&json!({"replicas": 2}));
    world.start_seconds = 100_000;
    for _ in 0..3 {
        world.run(70);
        let (status, reason, _) = world.condition("Progressing");
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "ProgressDeadlineExceeded")
        );
    }
    assert_eq!((world.told("PodRemade"), world.pods.len()), (0, 2));
}
