//! The project's own programs, for tests that start them as processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use parking_lot::Mutex;
use serde_json::Value;

/// Names the folder of programs that are built already; `make test` builds all at once.
const FOLDER: &str = "WSFLEET_PROGRAMS";

/// Where the program of a package of the same name is. Built first, once per test program and with the profile of the tests,
/// unless `WSFLEET_PROGRAMS` names a folder that has it.
pub fn program(name: &'static str) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    if let Some(folder) = std::env::var_os(FOLDER) {
        let program = PathBuf::from(folder).join(name);
        ensure!(program.is_file(), "{FOLDER}: {} is not there", program.display());
        return Ok(program);
    }
    let mut built = BUILT.lock();
    if let Some(program) = built.get(name) {
        return Ok(program.clone());
    }
    let program = build(name)?;
    built.insert(name, program.clone());
    Ok(program)
}

fn build(name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--package", name, "--bin", name])
        .arg("--message-format=json-render-diagnostics")
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()?;
    ensure!(
        output.status.success(),
        "{name} does not build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut executables = artifacts.filter_map(|artifact| artifact["executable"].as_str().map(PathBuf::from));
    executables.next_back().context("cargo named no program")
}
