//! Logging: set up once by `main`. Nothing here logs a Secret's content; nothing may.

use std::io::{self, IsTerminal as _};

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter does not parse: correct `--log-filter`.
    #[error("--log-filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A subscriber is there already: a mistake of the program.
    #[error("logging is set up already: {0}")]
    AlreadySet(Box<dyn std::error::Error + Send + Sync>),
}

/// Installs the process-wide subscriber, which writes to standard error.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // no colours in a pod's log
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::AlreadySet)
}
