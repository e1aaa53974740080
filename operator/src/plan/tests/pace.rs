//! `drain.adaptive`: a drain is slower while clients have trouble to connect to the gateways that stay.

use serde_json::{Value, json};
use wsfleet_crds::admin::GatewayHealth;

use super::world::World;

/// A fleet of four that closes 30 sockets a second and has just begun to.
fn draining(spec: &Value) -> World {
    let mut base = json!({
        "replicas": 4, "rollout": {"maxSurge": "100%", "canary": {"weight": 0}, "analysis": []},
        "drain": {"maxDisconnectPermille": 10, "maxConcurrent": "100%", "timeoutSeconds": 3600},
    });
    crate::plan::resources::overlay::merge(base.as_object_mut().unwrap(), spec.as_object().unwrap());
    let mut world = World::settled(&base, 3_000);
    world.roll_to("good:2");
    world.run_until(60, |world| world.forced > 0);
    world.run(2);
    assert!(full(&world), "{}", world.granted());
    world
}

/// Whether all of the budget is granted, or all but what is divided in whole thousandths.
fn full(world: &World) -> bool {
    (29_900..=30_000).contains(&world.granted())
}

/// Lets `seconds` pass, in each of which the new gateways count `each`.
fn serve(world: &mut World, each: &GatewayHealth, seconds: u32) {
    for _ in 0..seconds {
        for pod in world.pods.iter_mut().filter(|pod| pod.view.drain.is_none()) {
            pod.health = pod.health.plus(each);
        }
        world.run(1);
    }
}

fn counted(handshakes: u64, failed: u64, paced: u64, slow: u64) -> GatewayHealth {
    GatewayHealth {
        handshakes,
        handshakes_failed: failed,
        handshakes_paced: paced,
        handshakes_slow: slow,
        ..GatewayHealth::default()
    }
}

fn reason(world: &World) -> String {
    world.condition("Draining").1
}

#[test]
fn the_rate_is_halved_while_handshakes_suffer_and_grows_by_a_tenth_every_five_seconds_when_they_do_not() {
    let trouble = [
        ("fail", counted(20, 10, 0, 0)),
        ("are turned away", counted(20, 0, 10, 0)),
        ("are slow", counted(40, 0, 0, 12)),
    ];
    for (what, bad) in trouble {
        let mut world = draining(&json!({}));
        serve(&mut world, &bad, 9);
        let granted = world.granted();
        println!("handshakes {what}: {granted} of 30000 after 9 s");
        assert!((7_000..=15_000).contains(&granted), "{what}: {granted}");
        assert_eq!(
            (reason(&world).as_str(), world.told("DrainSlowedDown")),
            ("SlowedDown", 1)
        );
        serve(&mut world, &bad, 30);
        let granted = world.granted();
        assert!(
            (1_700..=1_900).contains(&granted),
            "a sixteenth, not nothing: {granted}"
        );

        let well = counted(40, 0, 0, 0);
        serve(&mut world, &well, 22);
        let granted = world.granted();
        assert!((10_000..=20_000).contains(&granted), "{what}: {granted}");
        let is_full = (0..40).any(|_| {
            serve(&mut world, &well, 1);
            full(&world)
        });
        assert!(is_full, "{what}: {}", world.granted());
        assert_eq!(
            (reason(&world).as_str(), world.told("DrainSlowedDown")),
            ("ClosingSockets", 1)
        );
    }
}

/// A rollout of a fleet whose gateways have counted `past` each, and that counts `each` per second from then on.
fn slowed_down_after(past: &GatewayHealth, each: &GatewayHealth) -> usize {
    let mut world = World::settled(&json!({"replicas": 4}), 0);
    for pod in &mut world.pods {
        pod.health = *past;
    }
    world.homeless = 3_000;
    world.edit(|spec| {
        spec.rollout.max_surge = wsfleet_crds::v1alpha1::IntOrPercent::Percent(100);
        spec.drain.max_concurrent = wsfleet_crds::v1alpha1::IntOrPercent::Percent(100);
    });
    world.run(60);
    world.roll_to("good:2");
    world.run_until(60, |world| world.forced > 0);
    serve(&mut world, each, 20);
    world.told("DrainSlowedDown")
}

#[test]
fn what_happens_every_day_and_what_is_chance_slows_nothing_down() {
    let past = counted(10_000, 1_000, 0, 500);
    assert_eq!(
        slowed_down_after(&past, &counted(20, 2, 0, 1)),
        0,
        "as many failed before"
    );
    let past = counted(100_000, 10_000, 0, 40_000);
    assert_eq!(slowed_down_after(&past, &counted(200, 20, 0, 80)), 0);
    assert_eq!(slowed_down_after(&past, &counted(200, 60, 0, 80)), 1, "more fail");
    assert_eq!(
        slowed_down_after(&past, &counted(200, 20, 0, 120)),
        1,
        "more are slow"
    );
    let short = counted(1_000, 100, 0, 400);
    assert_eq!(
        slowed_down_after(&short, &counted(200, 20, 0, 80)),
        1,
        "a short past may be the trouble itself"
    );

    let mut world = draining(&json!({}));
    serve(&mut world, &counted(3, 0, 0, 0), 10);
    let one = world
        .pods
        .iter_mut()
        .find(|pod| pod.view.drain.is_none())
        .unwrap();
    one.health = one.health.plus(&counted(2, 1, 0, 1));
    serve(&mut world, &counted(3, 0, 0, 0), 3);
    assert!(full(&world) && world.told("DrainSlowedDown") == 0);
}

#[test]
fn without_adaptive_the_rate_stays_and_a_new_leader_begins_with_all_of_it() {
    let bad = counted(20, 10, 0, 0);
    let mut world = draining(&json!({"drain": {"adaptive": false}}));
    serve(&mut world, &bad, 30);
    assert!(full(&world) && world.told("DrainSlowedDown") == 0);

    let mut world = draining(&json!({}));
    serve(&mut world, &bad, 20);
    world.change_leader();
    world.run_until(60, full);
}

#[test]
fn the_trouble_itself_does_not_become_what_is_usual_and_the_next_drain_begins_with_all() {
    let bad = counted(40, 0, 0, 16);
    let mut world = draining(&json!({}));
    serve(&mut world, &bad, 120);
    let granted = world.granted();
    assert!((1_700..=1_900).contains(&granted), "{granted}");
    for _ in 0..4_000 {
        serve(&mut world, &bad, 1);
        if world.is_complete() && world.is_even() {
            break;
        }
    }
    assert!(world.is_complete());
    world.run(10);
    assert!(!world.observed.pace.is_slowed());
}

#[test]
fn one_answer_raises_the_rate_once() {
    let mut world = draining(&json!({}));
    serve(&mut world, &counted(20, 10, 0, 0), 30);
    world.sampled_every = 20;
    serve(&mut world, &counted(40, 0, 0, 0), 1);
    let rates: std::collections::BTreeSet<_> = (0..38)
        .map(|_| {
            serve(&mut world, &counted(40, 0, 0, 0), 1);
            world.granted() / 1_000
        })
        .collect();
    // a sixteenth, and a tenth more for each of two answers
    assert!(
        rates.len() <= 3 && rates.iter().all(|rate| *rate <= 8),
        "{rates:?}"
    );
}

#[test]
fn with_gateways_that_may_be_full_only_other_failures_slow_a_drain_down() {
    let full = GatewayHealth {
        handshakes_full: 10,
        ..counted(20, 10, 0, 0)
    };
    let spec = json!({"rollout": {"maxSurge": 0, "maxUnavailable": 1}});
    for (bad, told) in [(full, 0), (counted(20, 10, 0, 0), 1)] {
        let mut world = draining(&spec);
        serve(&mut world, &bad, 9);
        assert_eq!(world.told("DrainSlowedDown"), told, "{bad:?}");
    }
}

#[test]
fn what_was_granted_ends_when_nothing_may_be_closed_any_more() {
    let mut world = draining(&json!({}));
    world.edit(|spec| spec.drain.max_disconnects_per_second = Some(0));
    world.run(1);
    assert_eq!(world.granted(), 0);
    let forced = world.forced;
    world.run(40);
    assert_eq!(world.forced, forced);
    world.edit(|spec| spec.drain.max_disconnects_per_second = None);
    world.run_until(60, full);
}
