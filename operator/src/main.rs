//! The operator's program: parse, log, listen, run.

use std::io::Write;
use std::process::ExitCode;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use wsfleet_operator::args::{Args, Invocation};
use wsfleet_operator::{run, simulate, telemetry};

/// Exit status for a wrong command line (EX_USAGE of sysexits.h), as the gateway's.
const USAGE: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Invocation::try_parse_from(std::env::args_os()) {
        Ok(Invocation::Operate(args)) => args,
        Ok(Invocation::Simulate(args)) => return simulated(&args),
        Err(error) => {
            let status = if error.use_stderr() { USAGE } else { 0 };
            return error
                .print()
                .map_or(ExitCode::FAILURE, |()| ExitCode::from(status));
        }
    };
    if let Err(error) = telemetry::init(args.log_format, &args.log_filter) {
        let error =
            <Args as clap::CommandFactory>::command().error(clap::error::ErrorKind::ValueValidation, error);
        return error
            .print()
            .map_or(ExitCode::FAILURE, |()| ExitCode::from(USAGE));
    }
    match start(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `simulate`; a mistake in what was given is one of use.
fn simulated(args: &simulate::SimulateArgs) -> ExitCode {
    match simulate::simulate(args, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("error: {error}\n");
            std::io::stderr()
                .write_all(text.as_bytes())
                .map_or(ExitCode::FAILURE, |()| ExitCode::from(USAGE))
        }
    }
}

async fn start(args: Args) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let on_signal = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
        }
        on_signal.cancel();
    });
    let listener = TcpListener::bind(args.metrics_listen).await;
    let listener =
        listener.map_err(|error| anyhow::anyhow!("--metrics-listen {}: {error}", args.metrics_listen))?;
    info!(address = %listener.local_addr()?, "metrics and health");
    Ok(run::run(args, listener, stop).await?)
}
