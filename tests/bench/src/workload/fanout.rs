//! One room: the next message, or the next burst, is published when every member has got the last one.

use std::time::Instant;

use anyhow::Result;

use super::{Run, SMALL, Values};
use crate::server::Running;

/// Rounds before the clock starts: until the kernel has its buffers and Node has compiled what is hot.
const WARM_UP: u32 = 5;

pub(super) fn run(run: &Run<'_>, running: &Running, members: usize, burst: u32) -> Result<Values> {
    let (mut crowd, _) = run.open(running, members, "room-", members)?;
    for _ in 0..WARM_UP {
        crowd.publish(0, burst, SMALL)?;
        crowd.deliver()?;
    }
    let (began, cpu, delivered) = (Instant::now(), running.cpu()?, crowd.delivered());
    while began.elapsed().as_secs_f64() < run.scale.seconds {
        crowd.publish(0, burst, SMALL)?;
        crowd.deliver()?;
    }
    let took = began.elapsed().as_secs_f64();
    let cpu = running.cpu()?.saturating_sub(cpu).as_secs_f64();
    let delivered = (crowd.delivered() - delivered) as f64;
    Ok(Values::from([
        ("deliveries_per_second".into(), delivered / took),
        ("cpu_seconds_per_million".into(), cpu / delivered * 1e6),
    ]))
}
