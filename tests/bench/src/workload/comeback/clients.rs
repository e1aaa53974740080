//! Clients in programs of their own: `wsfleet-load`, which comes back as the protocol says and judges what was lost.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::super::{Run, USUAL_ROOM, Values};
use super::PATIENCE;
use crate::http;
use crate::process::{Running, free_port};
use crate::server::{Gateway, loopback};

/// New clients per second, of each program.
const RATE: u32 = 1_500;
/// New clients per second where gateways limit them.
const SLOW_RATE: u32 = 100;

/// One program, steered at its address.
pub(super) struct Clients {
    running: Running,
    report: PathBuf,
}

impl Clients {
    /// Clients that connect to the old gateways and come back to the new ones, in rooms of a hundred.
    pub(super) fn crowd(
        run: &Run<'_>,
        number: usize,
        count: usize,
        old: &[Gateway],
        new: &[Gateway],
    ) -> Result<Self> {
        let name = format!("crowd-{number}-");
        Self::start(run, &name, |command| {
            for gateway in old {
                command.args(["--first-url", &url(gateway)]);
            }
            for gateway in new {
                command.args(["--url", &url(gateway)]);
            }
            // ports of an address are taken in turn: those of clients that are refused wait in the kernel for a minute
            let sources = [0, 1].map(|nth| format!("127.0.1.{}", 1 + 2 * number + nth));
            command
                .args(["--connections", &count.to_string(), "--rate", &RATE.to_string()])
                .args(["--room-size", &USUAL_ROOM.to_string(), "--publish-rate", "0"])
                .args(["--source", &sources.join(",")]);
        })
    }

    /// Clients that stay, in one room, and get messages.
    pub(super) fn connected(run: &Run<'_>, count: usize, rate: f64, gateways: &[Gateway]) -> Result<Self> {
        Self::start(run, "connected-", |command| {
            for gateway in gateways {
                command.args(["--url", &url(gateway)]);
            }
            command
                .args([
                    "--connections",
                    &count.to_string(),
                    "--rate",
                    &SLOW_RATE.to_string(),
                ])
                .args(["--rooms", "1", "--publish-rate", &rate.to_string()]);
        })
    }

    fn start(run: &Run<'_>, name: &str, flags: impl FnOnce(&mut Command)) -> Result<Self> {
        let control = loopback(free_port()?);
        let report = run.site.work.join(format!("{name}.json"));
        let mut command = Command::new(run.site.programs.join("wsfleet-load"));
        command.args(["run", "--quiet", "--token-mode", "jwt", "--jwt-secret-file"]);
        command.arg(run.site.secret());
        command.args(["--user-prefix", name, "--room-prefix", name]);
        command
            .args(["--control", &control.to_string(), "--json"])
            .arg(&report);
        flags(&mut command);
        Ok(Self {
            running: Running::start(command, control, &run.site.work)?.listens()?,
            report,
        })
    }

    /// Clients that are joined to their rooms.
    fn joined(&self) -> Result<u64> {
        let snapshot = http::ask(self.running.address, "GET", "/snapshot", "")?;
        let snapshot: Value = serde_json::from_str(&snapshot)?;
        Ok(snapshot["sockets"]["joined"].as_u64().unwrap_or_default())
    }

    /// Ends them; how long messages took, when none was lost.
    pub(super) fn end(mut self) -> Result<Values> {
        self.running.terminate()?;
        let began = Instant::now();
        while self.running.ended()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "the clients do not end");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let report: Value = serde_json::from_slice(&std::fs::read(&self.report)?)?;
        ensure!(
            report["verdict"]["ok"] == true,
            "clients that stayed connected lost something: {}",
            report["verdict"]
        );
        let latency = &report["deliveries"]["latencyMs"];
        let value = |name: &str| latency[name].as_f64().unwrap_or(f64::INFINITY);
        Ok(Values::from([
            ("deliveries".into(), value("count")),
            ("p50_ms".into(), value("p50")),
            ("p99_ms".into(), value("p99")),
            ("longest_ms".into(), value("max")),
        ]))
    }
}

fn url(gateway: &Gateway) -> String {
    format!("ws://{}/ws", gateway.running.address)
}

/// Waits until all programs have so many joined clients each.
pub(super) fn until_joined(programs: &[Clients], each: usize) -> Result<()> {
    let began = Instant::now();
    for program in programs {
        loop {
            let joined = program.joined()?;
            if joined >= each as u64 {
                break;
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "only {joined} of {each} clients have joined: {}",
                program.running.said()
            );
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
    Ok(())
}
