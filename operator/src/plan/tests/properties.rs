//! Whatever happens in whatever order: no pod goes with sockets before its deadline, the surge and the budget hold (the
//! model checks both at each action), and the fleet comes to rest as specified once things are left alone.

use proptest::prelude::*;
use serde_json::json;

use super::world::World;

/// Something that happens to a fleet.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Replicas(u32),
    Image(u8),
    BadImage,
    ForeignDelete(usize),
    NodeDrain(usize, bool),
    Silence(bool),
    Leader,
    Paused(bool),
    Arrive(u64),
    Leave(u64),
    MissSecret(bool),
    Wait(u32),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0..7_u32).prop_map(Happening::Replicas),
        3 => (1..4_u8).prop_map(Happening::Image),
        1 => Just(Happening::BadImage),
        1 => (0..8_usize).prop_map(Happening::ForeignDelete),
        2 => (0..2_usize, any::<bool>()).prop_map(|(node, on)| Happening::NodeDrain(node, on)),
        1 => any::<bool>().prop_map(Happening::Silence),
        1 => Just(Happening::Leader),
        1 => any::<bool>().prop_map(Happening::Paused),
        2 => (0..900_u64).prop_map(Happening::Arrive),
        1 => (0..100_u64).prop_map(Happening::Leave),
        1 => any::<bool>().prop_map(Happening::MissSecret),
        6 => (1..60_u32).prop_map(Happening::Wait),
    ]
}

fn happen(world: &mut World, what: Happening) {
    match what {
        Happening::Replicas(replicas) => world.edit(|spec| spec.replicas = replicas),
        Happening::Image(version) => world.roll_to(&format!("good:{version}")),
        Happening::BadImage => world.roll_to("bad:1"),
        Happening::ForeignDelete(index) => world.delete_behind_its_back(index),
        Happening::NodeDrain(index, on) => world.node(["a", "b"][index]).draining = on,
        Happening::Silence(on) => world.answers = !on,
        Happening::Leader => world.change_leader(),
        Happening::Paused(on) => world.edit(|spec| spec.paused = on),
        Happening::Arrive(clients) => world.homeless += clients,
        Happening::Leave(percent) => world.lose_clients(percent),
        Happening::MissSecret(on) => world.miss_secret(on),
        Happening::Wait(seconds) => world.run(seconds),
    }
    world.run(1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_as_specified_without_a_cut_socket(
        replicas in 1..5_u32,
        surge in 0..3_u32,
        unavailable in 0..2_u32,
        sockets in 0..1500_u64,
        history in prop::collection::vec(happening(), 1..25),
    ) {
        let rollout = json!({"maxSurge": surge, "maxUnavailable": unavailable.max(u32::from(surge == 0))});
        let mut world = World::new(&json!({
            "replicas": replicas, "rollout": rollout, "rebalance": {"minExcess": 20, "maxDisconnectPermille": 5},
            "drain": {"passiveSeconds": {"rebalance": 10}},
        }));
        world.run(10);
        world.homeless = sockets;
        for what in history {
            happen(&mut world, what);
        }
        // left alone, with room for everybody and nothing in the way
        world.answers = true;
        world.miss_secret(false);
        for node in ["a", "b"] {
            world.node(node).draining = false;
        }
        world.roll_to("good:9");
        world.edit(|spec| {
            spec.paused = false;
            spec.replicas = 6;
        });
        world.run(1);
        let alive = world.sockets() + world.homeless;
        prop_assume!(alive < 4500);
        world.run_until(3000, |world| world.is_complete() && world.is_even() && world.pods.len() == 6 && world.homeless == 0);
        prop_assert_eq!(world.sockets(), alive);
        prop_assert!(world.images().into_iter().eq(["good:9"]));
        world.run(20);
        world.run_until(2000, World::is_even);
        let writes = world.writes;
        world.run(120);
        prop_assert_eq!(world.writes, writes);
    }

    #[test]
    fn a_fleet_under_the_autoscaler_never_shrinks_in_the_dark(
        sockets in 0..4000_u64,
        silence in 10..600_u32,
        lost in 0..=100_u64,
    ) {
        let autoscaling = json!({
            "mode": "Builtin", "minReplicas": 1, "maxReplicas": 10,
            "metrics": {"intervalSeconds": 1, "staleSeconds": 3},
            "scaleDown": {"stabilizationSeconds": 0, "maxPods": "100%", "periodSeconds": 1},
        });
        let mut world = World::new(&json!({"replicas": 2, "autoscaling": autoscaling}));
        world.run(10);
        world.homeless = sockets;
        world.run(60);
        world.answers = false;
        world.run(4);
        let size = world.cluster.status.as_ref().unwrap().desired_replicas;
        world.lose_clients(lost);
        for _ in 0..silence {
            world.run(1);
            prop_assert!(world.cluster.status.as_ref().unwrap().desired_replicas >= size);
        }
    }
}
