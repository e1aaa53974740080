//! How many times a server calls the kernel to write a burst to a member, counted by `strace -c`. Times mean nothing meanwhile.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Run, SMALL, Values};
use crate::server::{Running, Server};

/// All calls that can write to a socket.
const CALLS: [&str; 5] = ["write", "writev", "sendto", "sendmsg", "sendmmsg"];
/// How long strace may take to attach to all threads.
const ATTACH: Duration = Duration::from_secs(20);
/// What the gateway must keep: calls per member and burst.
const MOST: f64 = 10.0;

pub(super) fn run(run: &Run<'_>, running: &Running) -> Result<Values> {
    let (members, bursts) = (run.scale.room, run.scale.counted_bursts);
    let (mut crowd, _) = run.open(running, members, "room-", members)?;
    let table = run.site.work.join("strace");
    let mut strace = Strace::attach(running.id(), &table)?;
    for _ in 0..bursts {
        crowd.publish(0, run.scale.burst, SMALL)?;
        crowd.deliver()?;
    }
    strace.detach()?;
    let calls = count(&fs::read_to_string(&table)?)? as f64 / (crowd.members() as f64 * f64::from(bursts));
    ensure!(
        run.server != Server::Gateway || calls <= MOST,
        "{calls} write calls for each member and burst, at most {MOST} are allowed"
    );
    Ok(Values::from([("writes_per_member_and_burst".into(), calls)]))
}

struct Strace(Child);

impl Strace {
    fn attach(process: u32, table: &Path) -> Result<Self> {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-c", "-e", &format!("trace={}", CALLS.join(","))])
            .args(["-p", &process.to_string(), "-o"])
            .arg(table)
            .stdin(Stdio::null())
            .spawn()
            .context("strace can't be started")?;
        let mut strace = Self(child);
        let began = Instant::now();
        while !is_traced(process)? {
            ensure!(
                began.elapsed() < ATTACH && strace.0.try_wait()?.is_none(),
                "strace can't attach to the server"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(strace)
    }

    /// The table is written when this returns.
    fn detach(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::INT)?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // fails when it has ended
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether every thread of the process has a tracer.
fn is_traced(process: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_none_or(|tracer| tracer.trim() == "0") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds up the calls of strace's table: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn count(table: &str) -> Result<u64> {
    let mut calls = 0;
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [_, _, _, count, .., name] = fields[..]
            && CALLS.contains(&name)
        {
            calls += count.parse::<u64>()?;
        }
    }
    ensure!(calls > 0, "strace has counted nothing: {table}");
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_that_write_are_added_up() {
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     97.60    0.012300          12      1000         5 sendto\n  \
                     2.40    0.000300           3       100           write\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    0.012600          11      1100         5 total\n";
        assert_eq!(count(table).unwrap(), 1_100);
        assert!(count("").is_err());
    }
}
