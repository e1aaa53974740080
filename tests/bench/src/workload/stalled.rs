//! Members that do not read: what the server keeps for them, and what the members that do read notice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::{Run, Values, blame, percentiles};
use crate::crowd::Crowd;
use crate::server::{Flags, Gateway, LOSSY_ROOMS, Running, Server};

/// A megabyte a second, in messages that fill a queue by its bytes before its messages.
const RATE: f64 = 100.0;
const SIZE: usize = 10_000;
/// A stalled member's receive buffer: the kernel shall not take what the server is to keep.
const RECEIVE_BUFFER: usize = 16 << 10;
/// Seconds of messages that fill the kernel's buffers: so long a stalled member is one like any other. With what is measured
/// then it is less than a gateway waits for a pong.
const FILL: f64 = 2.0;
/// What the gateway may keep for one member: `queueBytes`, and a tenth for what holds it.
const MOST: f64 = 1.1 * 256.0 * 1024.0;
/// Growth at which a server without a bound is stopped, in bytes.
const TOO_MUCH: u64 = 2 << 30;

/// The room's name decides what the gateway does about the stalled.
pub(super) fn run(run: &Run<'_>, rooms: &'static str) -> Result<Values> {
    if run.server != Server::Gateway {
        let running = run.start()?;
        let measured = measure(run, &running, rooms);
        return measured
            .map(|(values, _)| values)
            .map_err(|error| blame(&running, error));
    }
    let gateway = run.site.gateway(&Flags::default())?;
    let checked = measure(run, &gateway.running, rooms).and_then(|(values, members)| {
        check(run, &gateway, rooms, &values)?;
        drop(members);
        Ok(values)
    });
    checked.map_err(|error| blame(&gateway.running, error))
}

/// The numbers, and the members, which are connected as long as the server wants them to be.
fn measure(run: &Run<'_>, running: &Running, rooms: &'static str) -> Result<(Values, [Crowd; 2])> {
    let (healthy, stalled) = (run.scale.healthy, run.scale.stalled);
    let seconds = run.scale.stalled_seconds;
    let (mut crowd, _) = run.open(running, healthy, rooms, healthy)?;
    // the first messages do not count
    publish(&mut crowd, running, 0.5, u64::MAX)?;
    let (alone, _) = publish(&mut crowd, running, seconds, u64::MAX)?;
    // nobody turns this crowd from here on
    let (silent, _) = run.open_with(running, stalled, rooms, stalled, Some(RECEIVE_BUFFER))?;
    let before = running.resident()?;
    let most = before + TOO_MUCH;
    let (filling, filled) = publish(&mut crowd, running, FILL, most)?;
    let (beside, measured) = publish(&mut crowd, running, seconds, most)?;
    let after = running.most_resident()?.max(before);
    let mut values = percentiles("alone_", &alone);
    values.append(&mut percentiles("filling_", &filling));
    if !beside.is_empty() {
        let ratio = beside.value_at_quantile(0.99) as f64 / alone.value_at_quantile(0.99) as f64;
        values.append(&mut percentiles("beside_", &beside));
        values.insert("p99_ratio".into(), ratio);
    }
    values.insert("growth_bytes".into(), (after - before) as f64);
    values.insert("stalled_seconds".into(), filled + measured);
    Ok((values, [crowd, silent]))
}

/// Publishes until the time is over or the server has more memory than this; the latencies, and for how long.
fn publish(crowd: &mut Crowd, running: &Running, seconds: f64, most: u64) -> Result<(Histogram<u64>, f64)> {
    crowd.take_latency()?;
    let began = Instant::now();
    let mut last = 0.0;
    for message in 0..(seconds * RATE) as u32 {
        if running.resident()? > most {
            break;
        }
        let due = began + Duration::from_secs_f64(f64::from(message) / RATE);
        crowd.idle(due.saturating_duration_since(Instant::now()))?;
        crowd.publish(0, 1, SIZE)?;
        last = began.elapsed().as_secs_f64();
    }
    crowd.deliver()?;
    Ok((crowd.take_latency()?, last))
}

/// What the gateway must keep to.
fn check(run: &Run<'_>, gateway: &Gateway, rooms: &str, values: &Values) -> Result<()> {
    let (stalled, healthy) = (run.scale.stalled as f64, run.scale.healthy as f64);
    let growth = values.get("growth_bytes").copied().unwrap_or(f64::MAX);
    ensure!(
        growth <= MOST * stalled,
        "its memory grew by {growth} bytes for {stalled} stalled members, at most {MOST} for each are allowed"
    );
    let metrics = gateway.metrics()?;
    let open = metrics.sum("ws_active_connections", "");
    let closed = metrics.sum("ws_slow_consumer_total", "policy=\"disconnect\"");
    let dropped = metrics.sum("ws_slow_consumer_dropped_messages_total", "policy=\"dropOldest\"");
    if rooms == LOSSY_ROOMS {
        ensure!(
            open >= stalled + healthy && dropped >= stalled,
            "{open} members are open and {dropped} messages were dropped, where {stalled} had to lose messages and stay"
        );
    } else {
        ensure!(
            (closed - stalled).abs() < 0.5,
            "{closed} members were closed as too slow, and {stalled} were"
        );
    }
    Ok(())
}
