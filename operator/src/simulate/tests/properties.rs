//! Row 1: whatever happens to a fleet in whatever order, the promises hold, and left alone it comes to rest.
//!
//! `SIM_SEED` begins elsewhere than at 1, `SIM_SEQUENCES` tries another number than 1,000. A sequence that fails prints
//! the two that bring it back, and what happened in it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use wsfleet_crds::labels::DrainReason;
use wsfleet_crds::v1alpha1::{RolloutPhase, RolloutStrategy, WebSocketCluster};

use super::cluster;
use crate::simulate::settings::{Chaos, Settings};
use crate::simulate::time::SECOND;
use crate::simulate::world::World;

/// Templates.
const BROKEN: u32 = 5;
const FAULTY: u32 = 6;
/// One that nobody has tried before.
const MENDED: u32 = 7;

/// Something that happens to a fleet.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Template(u32),
    Replicas(u32),
    PodCrash(usize),
    PodFails(usize),
    ForeignDelete(usize),
    NodeDrain(usize, bool),
    NodeLoss(usize, bool),
    OperatorCrash(u32, bool),
    TwoLeaders(u64),
    Silence(usize, bool),
}

fn draw(random: &mut StdRng, least: u32) -> Happening {
    match random.random_range(0..16) {
        0..=3 => Happening::Template(random.random_range(1..=FAULTY)),
        4..=6 => Happening::Replicas(least + random.random_range(0..4)),
        7 => Happening::PodCrash(random.random_range(0..8)),
        8 => Happening::PodFails(random.random_range(0..8)),
        9 => Happening::ForeignDelete(random.random_range(0..8)),
        10 => Happening::NodeDrain(random.random_range(0..2), random.random()),
        11 => Happening::NodeLoss(random.random_range(0..2), random.random()),
        12 | 13 => Happening::OperatorCrash(random.random_range(0..12), random.random()),
        14 => Happening::TwoLeaders(random.random_range(1..15)),
        _ => Happening::Silence(random.random_range(0..8), random.random()),
    }
}

/// A resource, its surroundings, and the fewest replicas that its clients fit.
fn fleet(seed: u64, random: &mut StdRng) -> (WebSocketCluster, Settings, u32) {
    let least = random.random_range(1..5_u32);
    let surge = random.random_range(0..3_u32);
    let strategy = ["Steered", "Steered", "Steered", "BlueGreen", "OnDelete"][random.random_range(0..5)];
    let on_failure = ["Rollback", "Rollback", "Pause"][random.random_range(0..3)];
    let unavailable = u32::from(surge == 0) + random.random_range(0..2_u32);
    let spec = json!({
        "replicas": least,
        "gateway": {"capacity": {"maxConnections": 200}},
        "rollout": {
            "maxSurge": surge, "maxUnavailable": unavailable, "minReadySeconds": random.random_range(0..5),
            "strategy": strategy, "onFailure": on_failure,
            "partition": if random.random_bool(0.2) { random.random_range(0..3) } else { 0 },
            "progressDeadlineSeconds": random.random_range(30..120),
            "canary": {"weight": random.random_range(0..3), "bakeSeconds": random.random_range(0..30)},
        },
        "drain": {
            "settleSeconds": random.random_range(0..6),
            "timeoutSeconds": random.random_range(20..200),
            "maxDisconnectPermille": random.random_range(10..100),
            "minDisconnectsPerSecond": random.random_range(1..15),
            "maxConcurrent": random.random_range(1..4),
            "passiveSeconds": {"scaleDown": random.random_range(0..20)},
        },
    });
    let mut spec = spec;
    // drawn apart, so that a seed brings the same sequence as ever
    let rebalance = rebalance(&mut StdRng::seed_from_u64(!seed));
    crate::plan::resources::overlay::merge(spec.as_object_mut().unwrap(), rebalance.as_object().unwrap());
    let clients = random.random_range(0..=u64::from(least) * 120);
    let churns = random.random_bool(0.3);
    let faulty = random.random_bool(0.3);
    let settings = Settings {
        seed,
        clients,
        mean_life: if churns { 300.0 } else { 0.0 },
        arrivals: if churns { clients as f64 / 300.0 } else { 0.0 },
        start: random.random_range(1..12) * SECOND,
        nodes: 3,
        chaos: Chaos {
            refused: if faulty { 0.05 } else { 0.0 },
            unanswered: if faulty { 0.05 } else { 0.0 },
            lag: if faulty {
                random.random_range(0..3) * SECOND
            } else {
                0
            },
        },
    };
    (cluster(&spec), settings, least)
}

fn rebalance(random: &mut StdRng) -> Value {
    json!({
        "drain": {"passiveSeconds": {"rebalance": random.random_range(0..20)}},
        "rebalance": {
            "maxSkew": random.random_range(10..50),
            "stopSkew": random.random_range(0..10),
            "minExcess": random.random_range(5..30),
            "maxDisconnectPermille": random.random_range(1..=10),
        },
    })
}

/// The last two are not as they should be: one never comes up, one fails a fifth of the handshakes.
fn image(version: u32) -> String {
    let kind = match version {
        BROKEN => "broken",
        FAULTY => "faulty",
        _ => "wsfleet-gateway",
    };
    format!("{kind}:{version}")
}

fn happen(world: &mut World, what: Happening) {
    match what {
        Happening::Template(version) => world.roll_to(&image(version)),
        Happening::Replicas(replicas) => world.edit(|spec| spec.replicas = replicas),
        Happening::PodCrash(index) => world.crash_gateway(index),
        Happening::PodFails(index) => world.fail_pod(index),
        Happening::ForeignDelete(index) => world.delete_foreign(index),
        Happening::NodeDrain(index, on) => world.drain_node(&world.node_at(index), on),
        Happening::NodeLoss(index, on) => world.lose_node(&world.node_at(index), on),
        Happening::OperatorCrash(actions, effect) => world.crash_in(actions, effect),
        Happening::TwoLeaders(seconds) => world.depose(seconds * SECOND),
        Happening::Silence(index, on) => world.silence(index, on),
    }
}

/// What a sequence adds to the sums.
#[derive(Default)]
struct Sums {
    sequences: AtomicU64,
    happenings: AtomicU64,
    virtual_seconds: AtomicU64,
    crashes: AtomicU64,
    rollouts: AtomicU64,
    failed: AtomicU64,
    moved: AtomicU64,
    /// Sockets closed to even gateways out.
    evened: AtomicU64,
    /// Clients, once for each rollout.
    clients: AtomicU64,
}

impl Sums {
    /// A rollout begins.
    fn rolls(&self, world: &World) {
        self.rollouts.fetch_add(1, Ordering::Relaxed);
        let clients = world.connected() + world.clients.homeless;
        self.clients.fetch_add(clients, Ordering::Relaxed);
    }
}

/// Runs the sequence of `seed`; the text of what is wrong, if anything is.
fn sequence(seed: u64, sums: &Sums) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let (cluster, settings, least) = fleet(seed, &mut random);
    let quiet = Settings {
        chaos: Chaos::default(),
        ..settings
    };
    let mut world = World::at_rest(cluster, quiet).map_err(|error| error.to_string())?;
    world.settings.chaos = settings.chaos;
    for leader in &mut world.leaders {
        leader.lag = settings.chaos.lag;
    }
    let mut story = String::new();
    for _ in 0..random.random_range(2..9) {
        let (what, wait) = (draw(&mut random, least), random.random_range(1..40));
        let _ = writeln!(story, "  {} s: {what:?}", world.now / SECOND);
        let image = match what {
            Happening::Template(version) => Some(image(version)),
            _ => None,
        };
        if image.is_some() && image != world.cluster.spec.gateway.image {
            sums.rolls(&world);
        }
        happen(&mut world, what);
        world.run(wait * SECOND);
        sums.happenings.fetch_add(1, Ordering::Relaxed);
    }
    leave_alone(&mut world);
    // nobody takes a broken pod of this strategy back
    let stuck = waits_for_people(&world);
    let mut settled = stuck || world.run_until(3_000 * SECOND, |world| world.is_settled() || failed(world));
    if settled && (stuck || failed(&world)) {
        sums.failed.fetch_add(1, Ordering::Relaxed);
        sums.rolls(&world);
        happen(&mut world, Happening::Template(MENDED));
        world.run(SECOND);
        settled = world.run_until(3_000 * SECOND, World::is_settled);
    }
    // what is left uneven is evened out
    let even = !settled || world.run_until(3_000 * SECOND, |world| world.is_settled() && world.is_even());
    sums.evened
        .fetch_add(world.record.drained(DrainReason::Rebalance), Ordering::Relaxed);
    sums.sequences.fetch_add(1, Ordering::Relaxed);
    sums.virtual_seconds
        .fetch_add(world.now / SECOND, Ordering::Relaxed);
    sums.crashes.fetch_add(world.record.crashes, Ordering::Relaxed);
    sums.moved
        .fetch_add(world.record.drained(DrainReason::Rollout), Ordering::Relaxed);
    let mut wrong = world.checks.breaches.clone();
    if !even {
        wrong.push(format!("stays uneven: {:#?}", world.cluster.status));
    }
    if !settled {
        wrong.push(format!("does not come to rest: {:#?}", world.cluster.status));
    }
    if settings.mean_life == 0.0 && world.connected() + world.clients.homeless != settings.clients {
        wrong.push("a client got lost".to_owned());
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        let setting = json!(world.cluster.spec);
        Err(format!("{}\n{settings:?}\n{setting}\n{story}", wrong.join("\n")))
    }
}

/// Whether pods that cannot come up may have been made because others were deleted.
fn waits_for_people(world: &World) -> bool {
    let spec = &world.cluster.spec;
    let image = spec.gateway.image.as_deref().unwrap_or_default();
    spec.rollout.strategy == RolloutStrategy::OnDelete && image.starts_with("broken")
}

/// Whether the wanted revision failed, and the fleet is as it was before, or waits for another template.
fn failed(world: &World) -> bool {
    let Some(status) = &world.cluster.status else {
        return false;
    };
    let rollout = status.rollout.as_ref();
    let is_over = rollout.is_some_and(|rollout| {
        let phase = rollout.phase;
        let at_rest = world.api.pods.len() as u32 == status.desired_replicas && phase == RolloutPhase::Idle;
        rollout.failed_revision.is_some() && (at_rest || phase == RolloutPhase::Paused)
    });
    is_over && status.observed_generation == world.cluster.metadata.generation
}

/// Everything works again.
fn leave_alone(world: &mut World) {
    world.settings.chaos = Chaos::default();
    for leader in &mut world.leaders {
        leader.crash_in = None;
        leader.lag = 0;
    }
    for index in 0..world.nodes.len() {
        let name = world.node_at(index);
        world.lose_node(&name, false);
        world.drain_node(&name, false);
    }
    world.schedule_rest();
    for gateway in &mut world.gateways {
        gateway.silent = false;
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => otherwise,
    }
}

#[test]
fn row_01_a_thousand_random_sequences_break_no_promise() {
    let (first, count) = (number("SIM_SEED", 1), number("SIM_SEQUENCES", 1_000));
    let (sums, next) = (Sums::default(), AtomicU64::new(0));
    let failed = parking_lot::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    if let Err(error) = sequence(first + index, &sums) {
                        failed.lock().push((first + index, error));
                    }
                }
            });
        }
    });
    let sum = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
    let mean = sum(&sums.moved) as f64 / sum(&sums.clients).max(1) as f64;
    println!(
        "row 1: SIM_SEED={first} SIM_SEQUENCES={count}: {} sequences, {} happenings, {} rollouts, {} that waited for a mended template at the \
         end, {} crashes of the operator, {} s of virtual time, {mean:.4} closes per client per rollout, {} to even gateways out",
        sum(&sums.sequences),
        sum(&sums.happenings),
        sum(&sums.rollouts),
        sum(&sums.failed),
        sum(&sums.crashes),
        sum(&sums.virtual_seconds),
        sum(&sums.evened)
    );
    let mut failed = failed.into_inner();
    failed.sort();
    if let Some((seed, error)) = failed.first() {
        panic!(
            "{} sequences fail; SIM_SEED={seed} SIM_SEQUENCES=1 repeats this one:\n{error}",
            failed.len()
        );
    }
    assert!(mean <= 1.05, "{mean}");
}
