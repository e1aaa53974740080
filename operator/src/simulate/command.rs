//! `wsfleet-operator simulate`: the command line, and what it prints.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Parser;
use thiserror::Error;

use super::file::{self, FileError};
use super::picture::picture;
use super::report::table;
use super::scenario::{self, Scenario, ScenarioError};
use super::settings::Settings;
use super::time::seconds;

/// Shows what a specification means for clients, in virtual time, before it meets any.
///
/// Reads a WebSocketCluster, lets something happen to a fleet that is run by this operator's planner on a model of a
/// cluster, prints what it was like in figures, and draws it: pods by state, sockets per pod, closes per second. Needs no
/// cluster. The same command line gives the same result.
#[derive(Clone, Debug, Parser)]
#[command(name = "simulate", version)]
pub struct SimulateArgs {
    /// File with the WebSocketCluster, as kubectl apply reads it; `-` for standard input.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: PathBuf,
    /// Name of the WebSocketCluster, when the file has several.
    #[arg(long)]
    pub name: Option<String>,
    /// What happens to the fleet.
    #[arg(long, value_enum, default_value_t = Scenario::Rollout)]
    pub scenario: Scenario,
    /// Replicas after scale-in and scale-out; default: half, or twice, of spec.replicas.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub to: Option<u32>,
    /// Connected clients at the beginning; default: 60 % of the fleet's capacity.
    #[arg(long)]
    pub clients: Option<u64>,
    /// New clients per second; default: as many as leave by themselves.
    #[arg(long, value_parser = not_negative)]
    pub arrivals: Option<f64>,
    /// Seconds for which a client stays connected on average; 0: until it is closed.
    #[arg(long, default_value = "1800", value_parser = not_negative)]
    pub mean_life: f64,
    /// Seconds from the creation of a pod until it is Ready.
    #[arg(long, default_value_t = 20)]
    pub start: u32,
    /// Nodes of the cluster; default: one for four pods, at least three.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub nodes: Option<u16>,
    /// Decides about everything that is left to chance.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where the picture (SVG) is written.
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("write a number that is not negative, such as 600 or 12.5".to_owned()),
    }
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// The file is not one that can be simulated.
    #[error(transparent)]
    File(#[from] FileError),
    /// The scenario cannot be run with it.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The picture or the table could not be written.
    #[error("cannot write {path}: {source}; choose another place with -o")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs the command; the table goes to `out`.
pub fn simulate(args: &SimulateArgs, out: &mut dyn Write) -> Result<(), SimulateError> {
    let text = read(&args.filename)?;
    let cluster = file::read(&text, args.name.as_deref())?;
    let clients = args.clients.unwrap_or_else(|| scenario::usual_clients(&cluster));
    let leaving = if args.mean_life > 0.0 {
        clients as f64 / args.mean_life
    } else {
        0.0
    };
    let replicas = cluster.spec.replicas.max(cluster.spec.autoscaling.max_replicas);
    let settings = Settings {
        seed: args.seed,
        clients,
        arrivals: args.arrivals.unwrap_or(leaving),
        mean_life: args.mean_life,
        start: seconds(args.start),
        nodes: args
            .nodes
            .map_or_else(|| replicas.div_ceil(4).max(3) as usize, usize::from),
        ..Settings::default()
    };
    let run = scenario::run(cluster, args.scenario, args.to, settings)?;
    if let Some(path) = &args.output {
        std::fs::write(path, picture(&run)).map_err(|source| SimulateError::Write {
            path: path.clone(),
            source,
        })?;
    }
    out.write_all(table(&run).as_bytes())
        .map_err(|source| SimulateError::Write {
            path: PathBuf::from("standard output"),
            source,
        })
}

fn read(path: &Path) -> Result<String, FileError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    read.map(|()| text).map_err(|source| FileError::Read {
        path: path.to_owned(),
        source,
    })
}
