//! The drain window that a gateway has by default, with clients that do nothing until they are closed: once to its end by
//! SIGTERM, once as an operator asks for it and takes it back half way. What comes out is promised, so it is checked.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Run, USUAL_ROOM, Values, blame, deploy};
use crate::server::{Flags, Gateway};

/// What clients of a gateway that restarts are closed with.
const RESTART: u16 = 1012;
/// Closes in the busiest second, as a multiple of the mean.
const MOST: f64 = 1.5;
/// Seconds that the last close may come after the window.
const LATE: f64 = 2.0;
/// Of fewer sockets, in a shorter window, a pause of the machine is the pace: only that all are closed is checked.
const ENOUGH: usize = 5_000;
/// What was decided before the drain was taken back may still be under way.
const UNDER_WAY: Duration = Duration::from_millis(500);

pub(super) fn run(run: &Run<'_>) -> Result<Values> {
    let window = run.scale.usual_window;
    let flags = Flags {
        drain_window: window,
        ..Flags::default()
    };
    let mut gateway = run.site.gateway(&flags)?;
    let drained = deploy::terminate(run, &mut gateway.running, window).and_then(|values| {
        check(run, &values, window.into())?;
        Ok(values)
    });
    let mut values = drained.map_err(|error| blame(&gateway.running, error))?;
    drop(gateway);
    let gateway = run.site.gateway(&flags)?;
    let mut taken_back = take_back(run, &gateway, window).map_err(|error| blame(&gateway.running, error))?;
    values.append(&mut taken_back);
    Ok(values)
}

fn check(run: &Run<'_>, values: &Values, window: f64) -> Result<()> {
    let value = |key: &str| values.get(key).copied().unwrap_or_default();
    let sockets = value("sockets");
    let properly = value(&format!("closes_{RESTART}"));
    ensure!(
        properly >= sockets,
        "{} of {sockets} sockets were closed with another code than {RESTART}, or without one",
        sockets - properly
    );
    let status = value("exit_status");
    ensure!(status.abs() < 0.5, "the gateway ended with status {status}");
    if run.scale.crowd < ENOUGH {
        return Ok(());
    }
    let (busiest, mean) = (value("busiest_second"), sockets / window);
    ensure!(
        busiest <= MOST * mean,
        "{busiest} closes in the busiest second, at most {MOST} times the mean of {mean} are allowed"
    );
    let last = value("last_close_seconds");
    ensure!(
        last <= window + LATE,
        "the last close came after {last} s, at most {LATE} s after the {window} s of the window are allowed"
    );
    Ok(())
}

/// An operator's drain that is taken back half way: the rest stays.
fn take_back(run: &Run<'_>, gateway: &Gateway, window: u32) -> Result<Values> {
    let members = run.scale.crowd;
    let (mut crowd, _) = run.open(&gateway.running, members, "room-", USUAL_ROOM)?;
    crowd.count_ends();
    let half = Duration::from_secs(window.into()) / 2;
    let request = |mode: &str| {
        json!({
            "drainId": "bench", "epoch": 1, "mode": mode, "leaseSeconds": 2 * window,
            "ratePerSecond": members as f64 / f64::from(window), "reconnectWindowSeconds": 1
        })
    };
    gateway.drain(&request("drain"))?;
    crowd.idle(half)?;
    gateway.drain(&request("resume"))?;
    crowd.idle(UNDER_WAY)?;
    let closed = crowd.ends().len();
    crowd.idle(half / 2)?;
    let later = crowd.ends().len() - closed;
    ensure!(
        closed > 0 && later == 0 && (closed < members * 3 / 5 || members < ENOUGH && closed < members),
        "{closed} of {members} sockets were closed before half of the drain was taken back, and {later} after that"
    );
    let open = gateway.metrics()?.sum("ws_active_connections", "");
    ensure!(
        (open - (members - closed) as f64).abs() < 0.5,
        "{open} sockets are open, where {closed} of {members} were closed"
    );
    Ok(Values::from([
        ("stayed".into(), (members - closed) as f64),
        ("closed_after_resume".into(), later as f64),
    ]))
}
