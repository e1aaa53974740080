//! The built-in autoscaler in the model: growth, patience, and no shrinking in the dark.

use serde_json::{Value, json};

use super::world::World;

fn builtin(scale_down: &Value) -> Value {
    json!({
        "replicas": 2,
        "autoscaling": {
            "mode": "Builtin", "minReplicas": 2, "maxReplicas": 10,
            "metrics": {"intervalSeconds": 1, "staleSeconds": 5}, "scaleDown": scale_down,
        },
    })
}

fn desired(world: &World) -> u32 {
    world.cluster.status.as_ref().unwrap().desired_replicas
}

#[test]
fn it_grows_with_the_sockets_and_leaves_the_specification_alone() {
    let mut world = World::settled(&builtin(&json!({})), 1000);
    assert_eq!(desired(&world), 3, "1000 sockets at 85 % and one in reserve");
    world.homeless = 2500;
    world.run(60);
    assert_eq!((desired(&world), world.pods.len()), (6, 6));
    assert_eq!(world.cluster.spec.replicas, 2);
    world.homeless = 10_000;
    world.run(120);
    assert_eq!(desired(&world), 10);
    assert_eq!(world.condition("ScalingLimited").2, "limited by maxReplicas");
}

#[test]
fn growth_is_limited_by_its_rate() {
    let mut spec = builtin(&json!({}));
    spec["autoscaling"]["scaleUp"] = json!({"maxPercent": 0, "maxPods": 1, "periodSeconds": 10});
    let mut world = World::settled(&spec, 500);
    world.homeless = 4000;
    world.run(5);
    let before = desired(&world);
    world.run(30);
    assert!(
        (3..=4).contains(&(desired(&world) - before)),
        "{before} -> {}",
        desired(&world)
    );
}

#[test]
fn it_shrinks_after_the_window_by_the_allowed_number_and_with_margin() {
    let down = json!({"stabilizationSeconds": 60, "maxPods": 1, "periodSeconds": 30});
    let mut world = World::settled(&builtin(&down), 3500);
    world.run(60);
    let large = desired(&world);
    assert_eq!(large, 6);
    world.lose_clients(80);
    world.run(50);
    assert_eq!(desired(&world), large, "the window is not over");
    world.run(20);
    assert_eq!(desired(&world), large - 1, "one per period");
    world.run(300);
    assert_eq!(desired(&world), 2);
    world.run_until(120, |world| world.pods.len() == 2);
    assert!(world.deleted.iter().all(|(_, sockets)| *sockets == 0));
    assert_eq!(world.sockets(), 700);
}

#[test]
fn it_never_shrinks_while_numbers_are_missing() {
    let down = json!({"stabilizationSeconds": 0, "maxPods": "100%", "periodSeconds": 1});
    let mut world = World::settled(&builtin(&down), 3500);
    world.run(60);
    let large = desired(&world);
    world.answers = false;
    world.lose_clients(100);
    world.run(1800);
    assert_eq!((desired(&world), world.pods.len()), (large, large as usize));
    assert_eq!(world.condition("MetricsAvailable").0, "False");
    world.answers = true;
    world.run(60);
    assert_eq!(desired(&world), 2, "and does when they are back");
    assert_eq!(
        (world.told("MetricsLost"), world.told("MetricsRecovered")),
        (1, 1)
    );
}

#[test]
fn while_the_source_is_silent_it_grows_by_what_the_gateways_say_and_never_shrinks() {
    let down = json!({"stabilizationSeconds": 0, "maxPods": "100%", "periodSeconds": 1});
    let mut world = World::settled(&builtin(&down), 1000);
    world.run(60);
    world.counts = false;
    world.run(200);
    assert_eq!(world.condition("MetricsAvailable").0, "False");
    world.homeless = 2500;
    world.run(120);
    assert_eq!(desired(&world), 6);
    world.lose_clients(90);
    world.run(600);
    assert_eq!(desired(&world), 6);
    world.counts = true;
    world.run(60);
    assert_eq!(desired(&world), 2);
}

#[test]
fn time_without_numbers_does_not_count_as_time_in_which_less_was_enough() {
    let down = json!({"stabilizationSeconds": 120, "maxPods": "100%", "periodSeconds": 1});
    let mut world = World::settled(&builtin(&down), 3500);
    world.run(130);
    let large = desired(&world);
    world.lose_clients(90);
    world.run(60);
    world.answers = false;
    world.run(300);
    world.answers = true;
    world.run(60);
    assert_eq!(desired(&world), large);
    world.run(100);
    assert!(desired(&world) < large);
}

#[test]
fn a_new_leader_keeps_the_size_and_the_window() {
    let down = json!({"stabilizationSeconds": 120, "maxPods": "100%", "periodSeconds": 1});
    let mut world = World::settled(&builtin(&down), 3500);
    world.run(130);
    let large = desired(&world);
    world.lose_clients(90);
    world.run(60);
    world.change_leader();
    world.cluster.status = None;
    world.run(50);
    assert_eq!(desired(&world), large);
    world.run(40);
    assert!(desired(&world) < large);
}

#[test]
fn noise_of_eight_per_cent_moves_nothing() {
    let down = json!({"stabilizationSeconds": 60, "maxPods": "100%", "periodSeconds": 1});
    let mut world = World::settled(&builtin(&down), 2000);
    world.run(120);
    let size = desired(&world);
    for round in 0..60 {
        let share = if round % 2 == 0 { 108 } else { 92 };
        let each = 2000 * share / 100 / u64::from(size);
        world.set_sockets(&vec![each; size as usize]);
        world.run(10);
        assert!(desired(&world) <= size + 1);
    }
    let changes = world.told("ScaledUp") + world.told("ScaledDown");
    assert!(changes <= 2, "{changes} changes in ten minutes");
}

#[test]
fn a_rollout_freezes_shrinking() {
    let down = json!({"stabilizationSeconds": 0, "maxPods": "100%", "periodSeconds": 1});
    let mut world = World::settled(&builtin(&down), 3500);
    world.run(60);
    let large = desired(&world);
    world.roll_to("bad:2");
    world.lose_clients(90);
    world.run(50);
    assert_eq!(desired(&world), large);
}
