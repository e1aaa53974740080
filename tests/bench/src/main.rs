//! `wsfleet-bench`: WebSocket servers side by side, in one run. `make bench` builds what it needs and starts it.
//!
//! Each round runs every workload against every server, one after the other, so that whatever else the machine does is
//! shared fairly; what is shown are medians over the rounds, and ratios to the floor within a round. Behind the rounds of all
//! servers the floor and the gateway have some by themselves: they are close to each other, and one round proves little.
//!
//! Exit status: 0 all runs gave a result; 2 some did not; 1 it could not be done; 64 wrong flags.

mod adapter;
mod crowd;
mod http;
mod process;
mod record;
mod report;
mod sections;
mod server;
mod svg;
mod table;
mod workload;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Parser, ValueEnum as _};
use rand::Rng as _;

use process::{raise_descriptors, require};
use report::{Report, Row};
use server::{Server, Site};
use workload::{Run, Scale, Values, Workload};

/// WebSocket servers side by side, in one run.
#[derive(Parser, Debug)]
struct Cli {
    /// Folder of the programs wsfleet-gateway, wsfleet-bench-floor and wsfleet-bench-axum.
    #[arg(long)]
    programs: PathBuf,
    /// Folder of the Node servers, with what they need installed.
    #[arg(long, default_value = "tests/bench/peers")]
    peers: PathBuf,
    /// Where the results go, as JSON.
    #[arg(long)]
    json: PathBuf,
    /// Small numbers and one round: whether everything works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Rounds of what is timed.
    #[arg(long)]
    rounds: Option<u32>,
    /// Further rounds, of the floor and the gateway by themselves.
    #[arg(long)]
    pairs: Option<u32>,
    /// At most so many sockets, for a machine that has fewer descriptors than 20,000 for a process.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    sockets: usize,
    /// No round is begun, after the first, that would end after so many minutes.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Servers; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Server>,
    /// Workloads; all by default but those of fleets: `backend-room`, `backend-rooms`, `resubscribe`, `comeback`.
    #[arg(long, value_enum, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// What is measured, and when, for people.
    #[arg(long, default_value = "Measured")]
    about: String,
    /// What it is measured on, for people.
    #[arg(long, default_value = "here")]
    machine: String,
    /// Page to write the result into.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Its part that is written anew: what is between the comments that name this target.
    #[arg(long, default_value = "bench")]
    part: String,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if asked { 0 } else { 64 });
        }
    };
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            say(&format!("wsfleet-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// True when all runs gave a result.
fn run(cli: &Cli) -> Result<bool> {
    let scale = scale(cli);
    raise_descriptors(scale.most_sockets())?;
    let work = tempfile::tempdir()?;
    let site = site(cli, work.path())?;
    let mut report = Report {
        about: cli.about.clone(),
        machine: cli.machine.clone(),
        quick: cli.quick,
        scale,
        rows: Vec::new(),
    };
    rounds(cli, &site, &mut report)?;
    if let Some(folder) = cli.json.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&cli.json, serde_json::to_vec_pretty(&report)?)?;
    writeln!(
        std::io::stdout().lock(),
        "{}",
        table::markdown(&report, "benchmarks")
    )?;
    let failed = report.rows.iter().filter(|row| row.error.is_some()).count();
    if failed > 0 {
        say(&format!("{failed} runs FAILED; nothing is written down"));
    } else if let Some(page) = &cli.record {
        record::record(&report, page, &cli.part)?;
    }
    Ok(failed == 0)
}

fn scale(cli: &Cli) -> Scale {
    let scale = if cli.quick { Scale::quick() } else { Scale::full() };
    Scale {
        rounds: cli.rounds.unwrap_or(scale.rounds),
        pairs: cli.pairs.unwrap_or(scale.pairs),
        idle: scale.idle.min(cli.sockets),
        crowd: scale.crowd.min(cli.sockets),
        room: scale.room.min(cli.sockets),
        ..scale
    }
}

fn site(cli: &Cli, work: &Path) -> Result<Site> {
    for program in ["wsfleet-gateway", "wsfleet-bench-floor", "wsfleet-bench-axum"] {
        require(&cli.programs.join(program), "cargo build it")?;
    }
    require(&cli.peers.join("node_modules"), "run npm ci in that folder")?;
    let site = Site {
        programs: cli.programs.clone(),
        peers: cli.peers.clone(),
        work: work.to_owned(),
    };
    let halves: [u128; 2] = rand::rng().random();
    fs::write(site.secret(), format!("{:032x}{:032x}", halves[0], halves[1]))?;
    Ok(site)
}

fn rounds(cli: &Cli, site: &Site, report: &mut Report) -> Result<()> {
    let secret = fs::read(site.secret())?;
    let (began, scale) = (Instant::now(), report.scale.clone());
    let servers = chosen(&cli.servers, Server::value_variants());
    let usual: Vec<Workload> = Workload::value_variants()
        .iter()
        .copied()
        .filter(|workload| workload.is_usual())
        .collect();
    let workloads = chosen(&cli.workloads, &usual);
    let mut last = Duration::ZERO;
    for round in 1..=scale.rounds + scale.pairs {
        let since = began.elapsed();
        // the next one takes as long as the last one
        if round > 1 && since + last > Duration::from_secs(cli.minutes * 60) {
            say(&format!("round {round} is left out: it would not end in time"));
            break;
        }
        let pair = round > scale.rounds;
        let due = |workload: &&Workload| match round {
            1 => true,
            _ if pair => workload.is_close(),
            _ => workload.is_timed(),
        };
        for &workload in workloads.iter().filter(due) {
            let runs = |server: &&Server| workload.is_for(**server) && (!pair || server.is_of_pair());
            for &server in servers.iter().filter(runs) {
                let run = Run {
                    site,
                    scale: &scale,
                    server,
                    secret: &secret,
                };
                let row = row(round, workload, &run);
                say(&line(&row, began.elapsed()));
                report.rows.push(row);
            }
        }
        last = began.elapsed().saturating_sub(since);
    }
    Ok(())
}

fn row(round: u32, workload: Workload, run: &Run<'_>) -> Row {
    let (values, error) = match run.run(workload) {
        Ok(values) => (values, None),
        Err(error) => (Values::new(), Some(format!("{error:#}"))),
    };
    Row {
        round,
        workload,
        server: run.server,
        values,
        error,
    }
}

fn chosen<T: Copy>(some: &[T], all: &[T]) -> Vec<T> {
    if some.is_empty() { all } else { some }.to_vec()
}

/// What people see of a run.
fn line(row: &Row, since: Duration) -> String {
    let values: Vec<String> = row
        .values
        .iter()
        .map(|(key, value)| format!("{key} {value:.2}"))
        .collect();
    format!(
        "{:>4} s  round {}  {:?}, {}: {}",
        since.as_secs(),
        row.round,
        row.workload,
        row.server.name(),
        row.error
            .as_ref()
            .map_or_else(|| values.join(", "), |error| format!("FAILED: {error}"))
    )
}

/// Writes to standard error; when that is gone, nobody is there to read it.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
