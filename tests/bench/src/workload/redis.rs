//! The Redis between the servers of a fleet.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{Running, free_port};
use crate::server::loopback;

/// Starts one that keeps nothing on the disk.
pub(super) fn start(folder: &Path) -> Result<Running> {
    let port = free_port()?;
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder);
    Running::start(command, loopback(port), folder)?.listens()
}
