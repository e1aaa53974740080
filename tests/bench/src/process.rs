//! The processes of a benchmark: started with a log, ended with the benchmark, and what the kernel says about them.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::Rng as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// How long a server may take until it listens.
const START: Duration = Duration::from_secs(20);
/// Where servers listen: below the ports that outgoing connections use.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
/// Descriptors for what is not one of the clients' sockets.
const SPARE: u64 = 200;

/// A process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    /// Where it serves.
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts a program that serves at `address`; what it says goes to a file in `folder`.
    pub(crate) fn start(mut command: Command, address: SocketAddr, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", address.port()));
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} can't be started", command.get_program().display()))?;
        Ok(Self { child, log, address })
    }

    /// Waits until something holds of the process, which must not end meanwhile.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !holds() {
            ensure!(
                began.elapsed() < START,
                "in vain was waited until {what}: {}",
                self.said()
            );
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until it listens.
    pub(crate) fn listens(mut self) -> Result<Self> {
        let address = self.address;
        self.until("it listens", || TcpStream::connect(address).is_ok())?;
        Ok(self)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written last.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        self.memory("VmRSS")
    }

    /// The most resident memory that it ever had, in bytes.
    pub(crate) fn most_resident(&self) -> Result<u64> {
        self.memory("VmHWM")
    }

    /// A line of `/proc/PID/status` (proc_pid_status(5)), in bytes.
    fn memory(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .with_context(|| format!("/proc/PID/status has no {name}"))?;
        let kib: u64 = kib.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// CPU time of all its threads so far, in the kernel and outside (proc_pid_stat(5)).
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))?;
        cpu_ticks(&stat)
            .map(|ticks| {
                Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
            })
            .context("/proc/PID/stat can't be read")
    }

    pub(crate) fn terminate(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("the server has ended already")
    }

    /// Its status, once it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // fails when it has ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `utime` and `stime`: the 12th and 13th field after the name, which may itself have blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

/// Lets this process, and the servers that it starts, open as many descriptors as the system allows.
pub(crate) fn raise_descriptors(sockets: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )?;
    let needed = sockets as u64 + SPARE;
    ensure!(
        limit.is_none_or(|limit| limit >= needed),
        "{sockets} sockets need {needed} descriptors, and this machine allows {limit:?} (ulimit -Hn): see --sockets"
    );
    Ok(())
}

/// Whether `path` is there, or what to do about it.
pub(crate) fn require(path: &Path, hint: &str) -> Result<()> {
    ensure!(path.exists(), "{} is not there: {hint}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_whatever_the_program_is_called() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
    }
}
