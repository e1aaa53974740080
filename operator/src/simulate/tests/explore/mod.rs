//! Every interleaving of a small fleet: leaders plan on what is or on what was, carry out one action at a time, crash
//! before and after each, meet a second leader; pods become Ready, are lost, are left and drained. What must hold is
//! checked in every state, and from every state met at the edge of the search a fair future leads to rest.
//!
//! `EXPLORE_DEPTH` looks further than the tests do by themselves.

mod state;
mod steps;

use std::collections::HashMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use wsfleet_crds::admin::{DrainMode, DrainOrder, DrainRequest};
use wsfleet_crds::labels::DrainReason;

use super::at_rest;
use crate::observe::model::{DrainMarkers, Observed, RevisionView, Shedding};
use crate::plan::{RolloutMarkers, revision};
use crate::simulate::time::{SECOND, stamp};
use crate::simulate::world::World;
use state::{Base, NOW, Pod, State, accepted};
use steps::Step;

/// Steps of a fair future before it is called stuck.
const PATIENCE: usize = 4_000;
/// Of the states at the edge of the search, every so many-th is followed to its end.
const EVERY: u64 = 200;

/// Where a search begins: a fleet at rest with one socket on each pod, just after a change of its specification.
fn beginning(spec: &Value, change: impl FnOnce(&mut World), faults: [u8; 3]) -> (State, String) {
    let mut base = json!({
        "rollout": {"minReadySeconds": 0, "canary": {"weight": 0}, "analysis": []},
        "drain": {
            "settleSeconds": 0, "minDisconnectsPerSecond": 2, "timeoutSeconds": 20,
            "passiveSeconds": {"scaleDown": 0},
        },
    });
    crate::plan::resources::overlay::merge(base.as_object_mut().unwrap(), spec.as_object().unwrap());
    let mut world = at_rest(&base, 0);
    let started = world.api.pods.len() as u32;
    change(&mut world);
    let cluster = world.cluster.clone();
    let mut revisions = world.api.revisions.clone();
    let wanted = revision::target(&cluster, &revisions, &world.defaults);
    if revisions.iter().all(|revision| revision.hash != wanted.hash) {
        let rollout = RolloutMarkers {
            started_at: Some(stamp(0)),
            ..RolloutMarkers::default()
        };
        revisions.push(RevisionView {
            name: format!("chat-{}", wanted.hash),
            hash: wanted.hash.clone(),
            number: 2,
            data: wanted.data.unwrap(),
            rollout,
        });
    }
    let found = revisions.iter().find(|revision| revision.hash == wanted.hash);
    let rollout = found.unwrap().rollout.clone();
    let stable = cluster.status.as_ref().unwrap().current_revision.clone();
    let target = rollout
        .failed
        .as_ref()
        .map_or(wanted.hash.clone(), |_| stable.unwrap());
    let observed = Observed {
        dry_run: Some(accepted(&wanted.hash)),
        revisions,
        owned: world.api.owned.clone(),
        admin_token: true,
        ..Observed::default()
    };
    let defaults = world.defaults.clone();
    let mut state = State {
        base: Arc::new(Base {
            cluster,
            observed,
            defaults,
            started,
            wanted: wanted.hash,
        }),
        pods: std::collections::BTreeMap::new(),
        leaders: Vec::new(),
        epoch: 0,
        born: 0,
        rollout,
        faults,
    };
    for (name, object) in &world.api.pods {
        let mut gateway = world.gateways[object.gateway].clone();
        gateway.sockets = vec![0];
        gateway.handshakes = 0.0;
        let mut view = object.view.clone();
        view.version = None;
        state.pods.insert(name.clone(), Pod { view, gateway });
    }
    state.lead();
    // long after whatever was before
    state.pass_time(crate::simulate::time::seconds(100));
    state.refresh(0);
    (state, target)
}

/// A search, depth first; a state is looked at again only when there is more depth left than before.
struct Search {
    seen: HashMap<u64, u8>,
    transitions: u64,
    ends: u64,
    target: String,
    path: Vec<Step>,
}

impl Search {
    fn explore(&mut self, state: &State, depth: u8) {
        let digest = state.digest();
        if self.seen.get(&digest).is_some_and(|left| *left >= depth) {
            return;
        }
        let known = self.seen.insert(digest, depth).is_some();
        if depth == 0 {
            if !known && digest.is_multiple_of(EVERY) {
                self.ends += 1;
                self.follow(state.clone());
            }
            return;
        }
        for step in state.steps() {
            self.transitions += 1;
            self.path.push(step);
            match state.after(step) {
                Ok(next) => self.explore(&next, depth - 1),
                Err(broken) => panic!("{broken}, after {:#?}", self.path),
            }
            self.path.pop();
        }
    }

    /// A fair future: nothing fails any more, and whatever can happen happens in the end.
    fn follow(&self, mut state: State) {
        state.faults = [0; 3];
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..PATIENCE {
            if state.is_at_rest(&self.target) {
                return;
            }
            let steps = state.steps();
            let fresh = |step: &Step| !matches!(step, Step::Plan { stale: true, .. } | Step::Depart(_));
            // what was begun is ended before time goes on
            let act = steps.iter().find(|step| matches!(step, Step::Act(_)));
            let fair: Vec<_> = steps.iter().filter(|step| fresh(step)).collect();
            let step = *act.unwrap_or_else(|| fair[random.random_range(0..fair.len())]);
            state = state
                .after(step)
                .unwrap_or_else(|broken| panic!("{broken}, after {:#?} and then {step:?}", self.path));
        }
        panic!("never at rest after {:#?}: {:#?}", self.path, state.pods);
    }
}

fn search(name: &str, beginning: (State, String), depth: u8) {
    let depth = match std::env::var("EXPLORE_DEPTH") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("EXPLORE_DEPTH={text} is not a number")),
        Err(_) => depth,
    };
    let (state, target) = beginning;
    let mut search = Search {
        seen: HashMap::new(),
        transitions: 0,
        ends: 0,
        target,
        path: Vec::new(),
    };
    search.follow(state.clone());
    search.explore(&state, depth);
    println!(
        "{name}: {} states, {} transitions to depth {depth}, {} followed to rest",
        search.seen.len(),
        search.transitions,
        search.ends
    );
    assert!(search.seen.len() > 1_000, "{}", search.seen.len());
}

#[test]
fn exhaustive_rollout_of_two_pods_with_one_more() {
    let spec = json!({"replicas": 2, "rollout": {"maxSurge": 1}});
    let begin = beginning(&spec, |world| world.roll_to("wsfleet-gateway:2"), [1, 1, 1]);
    search("rollout of 2 pods, surge 1", begin, 7);
}

#[test]
fn exhaustive_rollout_of_two_pods_with_two_more() {
    let spec = json!({"replicas": 2, "rollout": {"maxSurge": 2}, "drain": {"maxConcurrent": 2}});
    let begin = beginning(&spec, |world| world.roll_to("wsfleet-gateway:2"), [0, 1, 1]);
    search("rollout of 2 pods, surge 2", begin, 7);
}

#[test]
fn exhaustive_rollout_of_two_pods_without_one_more() {
    let spec = json!({"replicas": 2, "rollout": {"maxSurge": 0, "maxUnavailable": 1}});
    let begin = beginning(&spec, |world| world.roll_to("wsfleet-gateway:2"), [1, 1, 1]);
    search("rollout of 2 pods, no surge", begin, 7);
}

/// The canary is made, bakes for a while and passes, each step a marker.
#[test]
fn exhaustive_rollout_of_two_pods_by_a_canary() {
    let spec = json!({"replicas": 2, "rollout": {"maxSurge": 1, "canary": {"weight": 1, "bakeSeconds": 5}}});
    let begin = beginning(&spec, |world| world.roll_to("wsfleet-gateway:2"), [1, 1, 1]);
    search("rollout of 2 pods by a canary", begin, 7);
}

/// The canary has sockets when the revision fails, and goes.
#[test]
fn exhaustive_rollback_of_a_canary() {
    let spec =
        json!({"replicas": 2, "rollout": {"maxSurge": 1, "canary": {"weight": 1, "bakeSeconds": 600}}});
    let fail = |world: &mut World| {
        world.roll_to("wsfleet-gateway:2");
        let bakes = |world: &World| {
            world
                .api
                .revisions
                .iter()
                .any(|it| it.rollout.baking_since.is_some())
        };
        assert!(world.run_until(120 * SECOND, bakes));
        let wanted = world.api.revisions.last_mut().unwrap();
        wanted.rollout.failed = Some("AnalysisFailed: it is worse".to_owned());
    };
    search(
        "rollback of a canary beside 2 pods",
        beginning(&spec, fail, [1, 1, 1]),
        7,
    );
}

/// The first of three pods holds most of the sockets and closes what it has too many.
#[test]
fn exhaustive_rebalance_of_three_pods() {
    let spec = json!({
        "replicas": 3,
        "rebalance": {"minExcess": 1},
        "drain": {"passiveSeconds": {"rebalance": 0}},
    });
    let (mut state, target) = beginning(&spec, |_| {}, [1, 1, 1]);
    let first = state.pods.values_mut().next().unwrap();
    first.gateway.sockets = vec![0; 6];
    let order = |mode| DrainRequest {
        drain_id: "d".to_owned(),
        epoch: 1,
        mode,
        rate_per_second: None,
        lease_seconds: None,
        deadline: None,
        order: DrainOrder::IdleFirst,
        close_code: 1012,
        reconnect_window_seconds: 15,
        keep_connections: None,
        min_age_seconds: None,
    };
    first.gateway.told(&order(DrainMode::Cordon), NOW).unwrap();
    first.view.accepting = false;
    let began = stamp(NOW - 20 * SECOND);
    first.view.drain = Some(DrainMarkers {
        cordoned_at: began,
        reason: DrainReason::Rebalance,
        drain_id: "d".to_owned(),
        deadline: None,
        initial: Some(6),
        drained_at: None,
        shedding: Some(Shedding {
            since: began,
            keep: 3,
        }),
    });
    state.refresh(0);
    search("rebalance of 3 pods", (state, target), 7);
}

#[test]
fn exhaustive_scale_in_from_three_pods_to_one() {
    let begin = beginning(
        &json!({"replicas": 3}),
        |world| world.edit(|spec| spec.replicas = 1),
        [1, 1, 1],
    );
    search("scale-in from 3 pods to 1", begin, 7);
}
