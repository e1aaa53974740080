//! A real nginx or HAProxy in front of two gateways, with a configuration of `examples/` as it stands there, but for addresses
//! and folders.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::http::Ask;
use crate::wait::until_async;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
}

/// What tells apart the gateways in the examples.
const GATEWAYS: [&str; 2] = ["10.0.0.11:8080", "10.0.0.12:8080"];

/// A running proxy; ended when dropped.
#[derive(Debug)]
pub struct Front {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    directory: TempDir,
}

impl Front {
    /// Starts the program with the example of that name (such as `by-routing`) in front of these gateways, and waits until it
    /// answers.
    pub async fn start(program: Program, example: &str, gateways: [SocketAddr; 2]) -> Result<Self> {
        let reserved = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = reserved.local_addr()?;
        drop(reserved);
        let directory = TempDir::new()?;
        let config = program.config(example, address, gateways, &directory)?;
        let path = directory.path().join("config");
        std::fs::write(&path, config)?;
        let child = program
            .command(&directory)
            .stdin(Stdio::null())
            .stdout(File::create(directory.path().join("stdout"))?)
            .stderr(File::create(directory.path().join("stderr"))?)
            .spawn()
            .with_context(|| format!("{program:?} cannot be started: run tests/cluster/deps.sh tests"))?;
        let child = Mutex::new(child);
        until_async("the proxy answers", || async {
            ensure!(
                child.lock().try_wait()?.is_none(),
                "it ended: {}",
                logged(&directory)?
            );
            Ok(Ask::get("/").send(address).await.is_ok())
        })
        .await?;
        Ok(Self {
            child: child.into_inner(),
            address,
            directory,
        })
    }

    /// Everything that it wrote about what passed.
    pub fn log(&self) -> Result<String> {
        logged(&self.directory)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // the master of nginx ends its workers
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

impl Program {
    /// The example, with what differs here.
    fn config(
        self,
        example: &str,
        address: SocketAddr,
        gateways: [SocketAddr; 2],
        directory: &TempDir,
    ) -> Result<String> {
        let (folder, extension) = match self {
            Self::Nginx => ("nginx", "conf"),
            Self::Haproxy => ("haproxy", "cfg"),
        };
        let root = env!("CARGO_MANIFEST_DIR");
        let path = format!("{root}/../examples/{folder}/{example}.{extension}");
        let mut text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let mut replace = |from: &str, to: &str| {
            ensure!(text.contains(from), "{path} has no `{from}`");
            text = text.replace(from, to);
            Ok(())
        };
        for (from, to) in GATEWAYS.into_iter().zip(gateways) {
            replace(from, &to.to_string())?;
        }
        let directory = directory.path().display();
        match self {
            Self::Nginx => {
                replace("listen 80;", &format!("listen {address};"))?;
                replace("/var/log/nginx", &directory.to_string())?;
                // what needs root otherwise
                let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let folders = folders.map(|name| format!("{name}_temp_path {directory}/{name};"));
                replace("http {", &format!("http {{ {}", folders.concat()))?;
            }
            Self::Haproxy => replace("bind :80", &format!("bind {address}"))?,
        }
        Ok(text)
    }

    fn command(self, directory: &TempDir) -> Command {
        let at = |name: &str| directory.path().join(name);
        let mut command;
        match self {
            Self::Nginx => {
                command = Command::new("/usr/sbin/nginx");
                command.arg("-e").arg(at("startup.log"));
                command.arg("-c").arg(at("config"));
                let globals = format!("daemon off; pid {};", at("pid").display());
                command.args(["-g", &globals]);
            }
            Self::Haproxy => {
                command = Command::new("/usr/sbin/haproxy");
                command.arg("-db").arg("-f").arg(at("config"));
            }
        }
        command
    }
}

fn logged(directory: &TempDir) -> Result<String> {
    let mut all = String::new();
    for name in ["stdout", "stderr", "startup.log", "access.log", "error.log"] {
        let path = directory.path().join(name);
        if path.exists() {
            all.push_str(&std::fs::read_to_string(path)?);
        }
    }
    Ok(all)
}
