//! What an idle socket costs: resident memory without sockets, when all have joined, and when a large room was busy.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Run, SMALL, USUAL_ROOM, Values};
use crate::crowd::Crowd;
use crate::server::{Running, Server};

/// A change that is none, in bytes.
const CALM: u64 = 64 * 1024;
/// Most seconds that are waited for it to settle.
const LOOKS: u32 = 20;
/// What the gateway must keep after load, in bytes per socket.
const MOST_AFTER_LOAD: f64 = 2_048.0;
/// Of fewer sockets the memory is not theirs.
const ENOUGH: usize = 5_000;

pub(super) fn run(run: &Run<'_>, running: &Running) -> Result<Values> {
    let empty = settled(run, running, None)?;
    let members = run.scale.idle;
    let (mut crowd, _) = run.open(running, members, "idle-", USUAL_ROOM)?;
    let full = settled(run, running, Some(&mut crowd))?;
    drop(crowd);
    let loaded = after_load(run)?;
    ensure!(
        run.server != Server::Gateway || run.scale.crowd < ENOUGH || loaded <= MOST_AFTER_LOAD,
        "{loaded} bytes per socket after load, at most {MOST_AFTER_LOAD} are allowed"
    );
    Ok(Values::from([
        ("empty_bytes".into(), empty as f64),
        ("full_bytes".into(), full as f64),
        (
            "bytes_per_socket".into(),
            full.saturating_sub(empty) as f64 / members as f64,
        ),
        ("bytes_per_socket_after_load".into(), loaded),
    ]))
}

/// Bytes per socket of one room whose members have got one message after the other for a while.
fn after_load(run: &Run<'_>) -> Result<f64> {
    let running = run.start()?;
    let empty = settled(run, &running, None)?;
    let members = run.scale.crowd;
    let (mut crowd, _) = run.open(&running, members, "busy-", members)?;
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < run.scale.seconds {
        crowd.publish(0, 1, SMALL)?;
        crowd.deliver()?;
    }
    let loaded = settled(run, &running, Some(&mut crowd))?;
    Ok(loaded.saturating_sub(empty) as f64 / members as f64)
}

/// Resident memory once it has not changed for a while; the clients answer pings meanwhile.
fn settled(run: &Run<'_>, running: &Running, mut crowd: Option<&mut Crowd>) -> Result<u64> {
    const SECOND: Duration = Duration::from_secs(1);
    let (mut before, mut calm) = (running.resident()?, 0);
    for _ in 0..LOOKS {
        match &mut crowd {
            Some(crowd) => crowd.idle(SECOND)?,
            None => std::thread::sleep(SECOND),
        }
        let now = running.resident()?;
        calm = if now.abs_diff(before) > CALM { 0 } else { calm + 1 };
        before = now;
        if calm >= run.scale.settle_seconds {
            break;
        }
    }
    Ok(before)
}
