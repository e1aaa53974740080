//! A new revision that comes up and serves badly.

use serde_json::{Value, json};
use wsfleet_crds::v1alpha1::{RolloutPhase, RolloutStatus};

use super::world::{SimPod, World};

fn rollout(world: &World) -> RolloutStatus {
    world.cluster.status.clone().unwrap().rollout.unwrap()
}

fn baking(rollout: &Value) -> World {
    let mut spec = json!({"replicas": 4, "rollout": {"canary": {"bakeSeconds": 120}}});
    lay_over(&mut spec, rollout);
    let mut world = World::settled(&spec, 400);
    world.roll_to("good:2");
    world.run_until(20, |world| rollout_phase(world) == RolloutPhase::Baking);
    world
}

fn lay_over(spec: &mut Value, rollout: &Value) {
    for (key, value) in rollout.as_object().unwrap() {
        spec["rollout"][key] = value.clone();
    }
}

fn rollout_phase(world: &World) -> RolloutPhase {
    rollout(world).phase
}

/// Lets seconds pass in which each gateway counts something.
fn serve(world: &mut World, seconds: u32, count: impl Fn(&mut SimPod, bool)) {
    for _ in 0..seconds {
        for pod in &mut world.pods {
            let new = pod.image() == "good:2";
            count(pod, new);
        }
        world.run(1);
    }
}

#[test]
fn a_fifth_of_the_handshakes_failing_fails_the_revision_within_three_minutes_and_closes_no_old_socket() {
    let mut world = baking(&json!({}));
    let before: Vec<_> = world
        .pods
        .iter()
        .take(4)
        .map(|pod| pod.view.uid.clone())
        .collect();
    let mut seconds = 0;
    while rollout(&world).failed_revision.is_none() {
        serve(&mut world, 1, |pod, new| {
            pod.health.handshakes += 10;
            pod.health.handshakes_failed += if new { 2 } else { 0 };
        });
        seconds += 1;
        assert!(seconds < 180, "{:?}", rollout(&world));
    }
    let (status, reason, message) = world.condition("RolloutHealthy");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "AnalysisFailed"));
    assert!(message.contains("handshake-errors: 20.0 %"), "{message}");
    world.run_until(60, |world| rollout_phase(world) == RolloutPhase::Idle);
    world.run(1);
    let after: Vec<_> = world.pods.iter().map(|pod| pod.view.uid.clone()).collect();
    assert_eq!((after, world.forced), (before, 0));
    println!("20 % of the handshakes fail: rolled back after {seconds} s of baking");
}

#[test]
fn trouble_that_both_revisions_have_is_nobodys_fault() {
    let mut world = baking(&json!({}));
    world.edit(|spec| spec.drain.adaptive = false);
    serve(&mut world, 300, |pod, _| {
        pod.health.handshakes += 10;
        pod.health.handshakes_failed += 3;
        pod.health.handshakes_refused += 2;
        pod.health.closes += 2;
        pod.health.abnormal_closes += 1;
    });
    assert_eq!(rollout(&world).failed_revision, None);
    assert!(world.is_complete());
}

#[test]
fn a_long_history_of_the_old_pods_does_not_hide_the_trouble_of_now() {
    let mut world = World::settled(
        &json!({"replicas": 4, "rollout": {"canary": {"bakeSeconds": 120}}}),
        400,
    );
    for pod in &mut world.pods {
        pod.health.handshakes = 1_000_000;
        // the model keeps all counters, the operator only those of the rollout
        pod.view.health.clear();
    }
    world.roll_to("good:2");
    world.run_until(20, |world| rollout_phase(world) == RolloutPhase::Baking);
    serve(&mut world, 120, |pod, _| {
        pod.health.handshakes += 10;
        pod.health.handshakes_failed += 3;
    });
    assert_eq!(rollout(&world).failed_revision, None, "both fail as much now");
}

#[test]
fn a_few_failures_are_chance_and_all_of_a_few_are_not() {
    for (failed, fails) in [(2, false), (10, true)] {
        let mut world = baking(&json!({}));
        let canary = world.pods.iter_mut().find(|pod| pod.image() == "good:2").unwrap();
        canary.health.handshakes = 10;
        canary.health.handshakes_failed = failed;
        world.run(100);
        assert_eq!(rollout(&world).failed_revision.is_some(), fails, "{failed} of 10");
    }
}

#[test]
fn refused_clients_count_only_when_the_other_revision_lets_them_in() {
    for (old, fails) in [(0, true), (9, false)] {
        let mut world = baking(&json!({}));
        serve(&mut world, 100, |pod, new| {
            pod.health.handshakes += 10;
            pod.health.handshakes_refused += if new { 10 } else { old };
        });
        assert_eq!(
            rollout(&world).failed_revision.is_some(),
            fails,
            "{old} of 10 refused before"
        );
    }
}

#[test]
fn a_gateway_that_is_killed_in_its_trial_fails_the_revision() {
    let mut world = baking(&json!({}));
    let now = world.now;
    let canary = world.pods.iter_mut().find(|pod| pod.image() == "good:2").unwrap();
    canary.view.restarts = 1;
    canary.view.restarted_at = Some(now);
    world.run(60);
    assert!(
        world
            .condition("RolloutHealthy")
            .2
            .contains("restarts: 1 restarts"),
        "{:?}",
        rollout(&world)
    );
}

#[test]
fn cut_sockets_and_slow_pongs_fail_a_revision_too() {
    for (name, what) in [("abnormal-closes", 0), ("ping-p99", 1)] {
        let mut world = baking(&json!({}));
        serve(&mut world, 100, |pod, new| {
            if what == 0 {
                pod.health.closes += 10;
                pod.health.abnormal_closes += if new { 8 } else { 1 };
            } else {
                pod.health.ping_buckets[if new { 10 } else { 2 }] += 10;
            }
        });
        let message = world.condition("RolloutHealthy").2;
        assert!(message.starts_with(name), "{name}: {message}");
    }
}

#[test]
fn analyses_that_are_switched_off_judge_nothing() {
    let mut world = baking(&json!({"analysis": []}));
    world.edit(|spec| spec.drain.adaptive = false);
    serve(&mut world, 900, |pod, new| {
        pod.health.handshakes += 10;
        pod.health.handshakes_failed += if new { 10 } else { 0 };
    });
    assert_eq!(rollout(&world).failed_revision, None);
    assert!(world.is_complete());
}

#[test]
fn a_query_fails_a_revision_passes_it_or_makes_it_wait() {
    let query = json!({"analysis": [{
        "name": "latency", "query": "q", "endpoint": "http://prometheus:9090", "max": "0.5", "intervalSeconds": 5,
    }]});
    let cases = [
        (Ok(0.9), RolloutPhase::Idle, true),
        (Ok(0.1), RolloutPhase::Progressing, false),
        (Err("no answer".to_owned()), RolloutPhase::Paused, false),
    ];
    for (answer, phase, fails) in cases {
        let mut world = baking(&query);
        for _ in 0..140 {
            world.run(1);
            if rollout_phase(&world) == phase && phase != RolloutPhase::Paused {
                break;
            }
            let now = world.now;
            let answers = world.observed.analyses.entry("latency".to_owned()).or_default();
            answers.push((now, answer.clone()));
        }
        assert_eq!(rollout_phase(&world), phase, "{answer:?}: {:?}", rollout(&world));
        assert_eq!(rollout(&world).failed_revision.is_some(), fails, "{answer:?}");
        if answer.is_err() {
            assert_eq!(world.condition("RolloutHealthy").1, "AnalysisInconclusive");
            assert_eq!(world.told("RolloutPaused"), 1);
            assert_eq!(world.forced, 0);
        }
    }
}
