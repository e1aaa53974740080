//! A fleet of gateways is killed, and all of its clients come back at once to three others, which share a Redis and let in a
//! set number per second. Clients that are connected there already go on getting messages.
//!
//! Clients do as the protocol says: after a cut they wait a random part of a second, after a 503 as long as it says. That
//! all come back, that nothing is lost meanwhile, the rate and the memory are promised, and are checked; times are shown.

mod clients;
mod rates;
mod tracked;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Run, Values, redis};
use crate::process::Running;
use crate::server::{Flags, Gateway};
use clients::{Clients, until_joined};
use rates::{Rates, Sample};

/// Gateways before, and after.
const GATEWAYS: usize = 3;
/// Clients that stay connected, in one room over all gateways.
const CONNECTED: usize = 300;
/// Messages per second that they get.
const MESSAGES: f64 = 20.0;
/// Programs that hold the clients; none may open more than 20,000 descriptors.
const PROGRAMS: usize = 3;
/// The most that all of it may take.
const PATIENCE: Duration = Duration::from_mins(3);
/// Time between two looks at a gateway.
const LOOK: Duration = Duration::from_millis(50);
/// Time between the last preparation and the end of the old gateways.
const CALM: Duration = Duration::from_secs(1);
/// What each gateway may have resident, in bytes.
const MOST_RESIDENT: u64 = 128 << 20;
/// How far from the setting a second's upgrades may be.
const TOLERANCE: f64 = 0.05;

/// Where the clients come from, come back to, and what stands between the gateways.
struct Fleet {
    // dropped first
    old: Vec<Gateway>,
    new: Vec<Gateway>,
    _redis: Running,
}

impl Fleet {
    fn start(run: &Run<'_>) -> Result<Self> {
        let redis = redis::start(&run.site.work)?;
        let broker = format!("redis://{}", redis.address);
        let gateway = |name: &str, handshakes| {
            run.site.gateway(&Flags {
                server_id: name,
                broker: &broker,
                handshakes,
                ..Flags::default()
            })
        };
        let gateways = |name: &str, handshakes| {
            let gateways = (0..GATEWAYS).map(|number| gateway(&format!("{name}-{number}"), handshakes));
            gateways.collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            old: gateways("old", 0)?,
            new: gateways("new", run.scale.handshakes)?,
            _redis: redis,
        })
    }
}

pub(super) fn run(run: &Run<'_>) -> Result<Values> {
    measure(run).map_err(|error| match tracked::is_full() {
        Some(note) => error.context(note),
        None => error,
    })
}

fn measure(run: &Run<'_>) -> Result<Values> {
    let mut fleet = Fleet::start(run)?;
    let share = run.scale.comeback.div_ceil(PROGRAMS);
    let crowds = (0..PROGRAMS).map(|number| Clients::crowd(run, number, share, &fleet.old, &fleet.new));
    let crowds = crowds.collect::<Result<Vec<_>>>()?;
    until_joined(&crowds, share)?;
    let connected = Clients::connected(run, CONNECTED, MESSAGES, &fleet.new)?;
    until_joined(std::slice::from_ref(&connected), CONNECTED)?;
    let began = Instant::now() + CALM;
    let watched = watch(&mut fleet, began, (share * PROGRAMS + CONNECTED) as u64)?;
    let mut values = connected.end()?;
    let rates = Rates::of_all(
        watched
            .iter()
            .map(|samples| Rates::of(samples, run.scale.handshakes)),
    );
    let back = watched
        .iter()
        .filter_map(|samples| Some(samples.last()?.at))
        .max();
    let mut resident = 0;
    for gateway in &fleet.new {
        resident = resident.max(gateway.running.most_resident()?);
    }
    values.append(&mut Values::from([
        ("clients".into(), (share * PROGRAMS) as f64),
        ("back_seconds".into(), back.unwrap_or_default().as_secs_f64()),
        ("resident_bytes".into(), resident as f64),
        ("least_percent".into(), 100.0 * rates.least),
        ("most_percent".into(), 100.0 * rates.most),
        ("full_seconds".into(), rates.full as f64),
        ("refused".into(), rates.refused),
    ]));
    ensure!(
        rates.full > 0 && rates.off <= TOLERANCE,
        "of {} full seconds one had {} times the upgrades that were set: {values:?}",
        rates.full,
        1.0 + rates.off
    );
    ensure!(
        resident <= MOST_RESIDENT,
        "a gateway had {resident} bytes of memory, at most {MOST_RESIDENT} are allowed"
    );
    Ok(values)
}

/// Kills the old gateways when it is time, and looks at the new ones until so many sockets are open.
fn watch(fleet: &mut Fleet, began: Instant, all: u64) -> Result<Vec<Vec<Sample>>> {
    let Fleet { old, new, .. } = fleet;
    let open: Vec<AtomicU64> = new.iter().map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let watch = |number| {
            let (gateway, open) = (&new[number], &open);
            scope.spawn(move || look(gateway, began, number, open, all))
        };
        let watches: Vec<_> = (0..new.len()).map(watch).collect();
        thread::sleep(began.saturating_duration_since(Instant::now()));
        // SIGKILL: their clients see no close
        old.clear();
        let joined = |watch: thread::ScopedJoinHandle<'_, Result<Vec<Sample>>>| {
            let samples = watch.join().ok();
            samples.context("a thread that looks at a gateway has died")?
        };
        watches.into_iter().map(joined).collect()
    })
}

/// Looks at one gateway until all of them together hold so many sockets.
fn look(
    gateway: &Gateway,
    began: Instant,
    number: usize,
    open: &[AtomicU64],
    all: u64,
) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    while open.iter().map(|open| open.load(Relaxed)).sum::<u64>() < all {
        let sent = Instant::now();
        let metrics = gateway.metrics()?;
        let half = sent.elapsed() / 2;
        open[number].store(metrics.sum("ws_active_connections", "") as u64, Relaxed);
        // looks before the beginning count as one at the beginning: nothing happened since
        samples.push(Sample {
            at: (sent + half).saturating_duration_since(began),
            unsure: half,
            accepted: metrics.sum("ws_connections_total", ""),
            refused: metrics.sum("ws_admission_rejected_total", "reason=\"handshake_rate\""),
        });
        ensure!(
            sent.saturating_duration_since(began) < PATIENCE,
            "only {open:?} of {all} sockets are open after {PATIENCE:?}"
        );
        thread::sleep(LOOK);
    }
    Ok(samples)
}
