//! What an idle socket costs: resident memory without sockets, and when all have joined.

use std::time::Duration;

use anyhow::Result;

use super::{Run, USUAL_ROOM, Values};
use crate::crowd::Crowd;
use crate::server::Running;

/// A change that is none, in bytes.
const CALM: u64 = 64 * 1024;
/// Most seconds that are waited for it to settle.
const LOOKS: u32 = 20;

pub(super) fn run(run: &Run<'_>, running: &Running) -> Result<Values> {
    let empty = settled(run, running, None)?;
    let members = run.scale.idle;
    let (mut crowd, _) = run.open(running, members, "idle-", USUAL_ROOM)?;
    let full = settled(run, running, Some(&mut crowd))?;
    Ok(Values::from([
        ("empty_bytes".into(), empty as f64),
        ("full_bytes".into(), full as f64),
        (
            "bytes_per_socket".into(),
            full.saturating_sub(empty) as f64 / members as f64,
        ),
    ]))
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
