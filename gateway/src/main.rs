//! The gateway's program: settings, logs, then [`run`].

use std::io::{Write, stderr, stdout};
use std::process::ExitCode;

use wsfleet_gateway::config::{ConfigError, EXIT_CODE};
use wsfleet_gateway::{Listeners, RunError, ShutdownSignal, run, start, telemetry};

/// See docs/decisions/0004-allocator.md.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let start::Start {
        settings,
        development,
    } = match start::from_process() {
        Ok(start) => start,
        Err(error) => return refuse(&error),
    };
    telemetry::init(settings.log_format, &settings.log_filter);
    if development {
        tracing::warn!("{}", start::DEVELOPMENT);
    }
    let ended = tokio::runtime::Runtime::new()
        .map_err(RunError::from)
        .and_then(|runtime| {
            runtime.block_on(async {
                let listeners = Listeners::bind(&settings)?;
                run(settings, listeners, ShutdownSignal::of_process()?).await
            })
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // standard error may be closed; there is nobody else to tell
            let _ = writeln!(stderr(), "wsfleet-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(error: &ConfigError) -> ExitCode {
    let _ = if error.is_help() {
        write!(stdout(), "{error}")
    } else {
        writeln!(stderr(), "wsfleet-gateway: {error}")
    };
    if error.is_help() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_CODE)
    }
}
