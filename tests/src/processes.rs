//! A fleet of real gateway processes on one broker, that can be replaced, killed and started again while clients are there.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use wsfleet_load::{Load, Target};

use crate::gateway::{OPEN, UNLIMITED};
use crate::process::Process;
use crate::wait::SOON;

/// Gateways by number; a number stays when another process takes the place.
#[derive(Debug)]
pub struct Processes {
    gateways: Vec<Process>,
    flags: Vec<String>,
    started: usize,
}

impl Processes {
    /// Starts gateways with `insecure-token` and no limits for a user or an address, and waits until they are ready.
    pub async fn start(broker: &str, count: usize, flags: &[&str]) -> Result<Self> {
        let all = [&OPEN[..], &UNLIMITED[..], &["--broker", broker], flags].concat();
        let mut fleet = Self {
            gateways: Vec::new(),
            flags: all.into_iter().map(str::to_owned).collect(),
            started: 0,
        };
        for _ in 0..count {
            let gateway = fleet.another().await?;
            fleet.gateways.push(gateway);
        }
        Ok(fleet)
    }

    /// Gateways that are started from now on have these flags, too; the last word counts.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
    }

    /// The processes.
    pub fn gateways(&self) -> &[Process] {
        &self.gateways
    }

    /// Where clients connect to.
    pub fn targets(&self) -> Result<Vec<Target>> {
        let target = |gateway: &Process| Ok(format!("ws://{}/ws", gateway.ports.clients).parse()?);
        self.gateways.iter().map(target).collect()
    }

    /// Another one takes the place of a gateway, which is then asked to end (SIGTERM), and does so without an error.
    pub async fn replace(&mut self, number: usize, load: &Load) -> Result<()> {
        let new = self.another().await?;
        let mut old = std::mem::replace(&mut self.gateways[number], new);
        load.set_targets(self.targets()?)?;
        old.signal(Signal::TERM)?;
        let status = old.ended_within(SOON).await?;
        ensure!(
            status.success(),
            "the gateway ended with {status}: {}",
            old.log()?
        );
        Ok(())
    }

    /// A gateway is killed (SIGKILL); another one takes its place as soon as it is ready.
    pub async fn kill(&mut self, number: usize, load: &Load) -> Result<()> {
        self.gateways[number].kill()?;
        self.restore(number, load).await
    }

    /// A gateway is killed (SIGKILL), and nothing takes its place yet.
    pub fn strike(&mut self, number: usize) -> Result<()> {
        self.gateways[number].kill()
    }

    /// Another one takes the place of a gateway that was killed, as soon as it is ready.
    pub async fn restore(&mut self, number: usize, load: &Load) -> Result<()> {
        self.gateways[number] = self.another().await?;
        Ok(load.set_targets(self.targets()?)?)
    }

    /// Awaits that all rely on their broker.
    pub async fn ready(&self) -> Result<()> {
        for gateway in &self.gateways {
            gateway.ready().await?;
        }
        Ok(())
    }

    async fn another(&mut self) -> Result<Process> {
        let id = format!("g{}", self.started);
        self.started += 1;
        let mut flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        flags.extend(["--server-id", &id]);
        let gateway = Process::start(&flags).await?;
        gateway.ready().await?;
        Ok(gateway)
    }
}
