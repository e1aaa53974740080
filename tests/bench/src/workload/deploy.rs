//! SIGTERM: what clients see of a deploy when they do nothing about it.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Run, USUAL_ROOM, Values};
use crate::server::Running;

/// The most that a server may take beyond the gateway's window.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn run(run: &Run<'_>, running: &mut Running) -> Result<Values> {
    terminate(run, running, run.scale.drain_window)
}

/// Ends a server, whose drain window this is if it has one.
pub(super) fn terminate(run: &Run<'_>, running: &mut Running, window: u32) -> Result<Values> {
    let members = run.scale.crowd;
    let (mut crowd, _) = run.open(running, members, "room-", USUAL_ROOM)?;
    crowd.count_ends();
    let began = Instant::now();
    running.terminate()?;
    let most = PATIENCE + Duration::from_secs(window.into());
    let (mut exit, mut status) = (Duration::ZERO, None);
    while status.is_none() || crowd.ends().len() < members {
        ensure!(
            began.elapsed() < most,
            "after {most:?} it holds {} of {members} sockets and has {}",
            members - crowd.ends().len(),
            status.map_or("not ended".into(), |status| format!("ended: {status}"))
        );
        crowd.turn(Duration::from_millis(10))?;
        if status.is_none() {
            (exit, status) = (began.elapsed(), running.ended()?);
        }
    }
    let mut values = closes(crowd.ends());
    values.insert("exit_seconds".into(), exit.as_secs_f64());
    // a shell's way to say that a signal ended it
    let code = status.and_then(|status| status.code().or_else(|| Some(128 + status.signal()?)));
    values.insert("exit_status".into(), code.map_or(-1.0, f64::from));
    Ok(values)
}

/// Closes by code, how many came in the busiest second (of those that begin when the signal is sent), and when the last came.
fn closes(ends: &[(Duration, u16)]) -> Values {
    let mut values = Values::new();
    let mut seconds: Vec<f64> = Vec::new();
    for (at, code) in ends {
        *values.entry(format!("closes_{code}")).or_default() += 1.0;
        let second = at.as_secs() as usize;
        seconds.resize(seconds.len().max(second + 1), 0.0);
        seconds[second] += 1.0;
    }
    let last = ends.iter().map(|(at, _)| *at).max().unwrap_or_default();
    values.insert("busiest_second".into(), seconds.into_iter().fold(0.0, f64::max));
    values.insert("sockets".into(), ends.len() as f64);
    values.insert("last_close_seconds".into(), last.as_secs_f64());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closes_are_counted_by_code_and_second() {
        let at = |millis| Duration::from_millis(millis);
        let values = closes(&[
            (at(10), 1012),
            (at(900), 1006),
            (at(1_100), 1012),
            (at(2_500), 1012),
        ]);
        let expected = [
            ("busiest_second", 2.0),
            ("closes_1006", 1.0),
            ("closes_1012", 3.0),
            ("last_close_seconds", 2.5),
            ("sockets", 4.0),
        ];
        assert_eq!(
            values,
            expected.map(|(key, value)| (key.to_owned(), value)).into()
        );
    }
}
