//! How long a message takes at a fixed rate, alone and beside a room that gets large ones.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use super::{Run, SMALL, Values, percentiles};
use crate::crowd::Crowd;
use crate::server::Running;

/// Messages a second in one room of a thousand.
const RATE: f64 = 20.0;
/// Messages a second in all small rooms together.
const SMALL_RATE: f64 = 100.0;
/// Small rooms, and members of each.
pub(super) const SMALL_ROOMS: usize = 100;
pub(super) const SMALL_ROOM: usize = 10;
/// Bytes of a large message: with what is around it the gateway's default limit of 64 KiB must hold.
const LARGE: usize = 64 * 1024 - 256;

pub(super) fn run(run: &Run<'_>, running: &Running) -> Result<Values> {
    let members = run.scale.room;
    let (mut crowd, _) = run.open(running, members, "room-", members)?;
    let latency = steady(&mut crowd, RATE, run.scale.latency_seconds)?;
    Ok(percentiles("", &latency))
}

/// Publishes at a rate, in one room after the other, and waits for the last delivery; latency from the write to the socket
/// to the read from each member's.
fn steady(crowd: &mut Crowd, rate: f64, seconds: f64) -> Result<Histogram<u64>> {
    for room in 0..crowd.rooms() {
        crowd.publish(room, 1, SMALL)?;
    }
    crowd.deliver()?;
    // what it took to get in, and the first messages, do not count
    crowd.take_latency()?;
    let began = Instant::now();
    let count = (rate * seconds).ceil() as usize;
    for message in 0..count {
        let due = began + Duration::from_secs_f64(message as f64 / rate);
        crowd.idle(due.saturating_duration_since(Instant::now()))?;
        crowd.publish(message % crowd.rooms(), 1, SMALL)?;
    }
    crowd.deliver()?;
    crowd.take_latency()
}

/// What the thread of the large room is to do.
const QUIET: u8 = 0;
const PUBLISH: u8 = 1;
const STOP: u8 = 2;

/// Small rooms alone, then beside a large room that gets a large message a second. Each kind has a thread of its own, so
/// that no small message waits in the client for large ones to be read.
pub(super) fn neighbours(run: &Run<'_>, running: &Running) -> Result<Values> {
    let (mut large, _) = run.open(running, run.scale.crowd, "large-", run.scale.crowd)?;
    let seconds = run.scale.neighbour_seconds;
    let order = AtomicU8::new(QUIET);
    thread::scope(|scope| {
        let beside = scope.spawn(|| large_room(&mut large, &order));
        let measured = small_rooms(run, running, seconds, &order);
        order.store(STOP, Relaxed);
        let large = beside
            .join()
            .ok()
            .context("the thread of the large room has died")?;
        // the large room's error is the cause when both have failed
        let large = large?;
        let mut values = measured?;
        values.append(&mut percentiles("large_", &large));
        Ok(values)
    })
}

fn small_rooms(run: &Run<'_>, running: &Running, seconds: f64, order: &AtomicU8) -> Result<Values> {
    let (mut small, _) = run.open(running, SMALL_ROOMS * SMALL_ROOM, "small-", SMALL_ROOM)?;
    let mut values = percentiles("alone_", &steady(&mut small, SMALL_RATE, seconds)?);
    order.store(PUBLISH, Relaxed);
    values.append(&mut percentiles(
        "beside_",
        &steady(&mut small, SMALL_RATE, seconds)?,
    ));
    Ok(values)
}

fn large_room(crowd: &mut Crowd, order: &AtomicU8) -> Result<Histogram<u64>> {
    crowd.take_latency()?;
    let mut due = Instant::now();
    loop {
        match order.load(Relaxed) {
            STOP => break,
            PUBLISH if Instant::now() >= due => {
                crowd.publish(0, 1, LARGE)?;
                due = Instant::now() + Duration::from_secs(1);
            }
            _ => {}
        }
        crowd.turn(Duration::from_millis(10))?;
    }
    crowd.deliver()?;
    crowd.take_latency()
}
