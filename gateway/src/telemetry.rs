//! Logs, to standard error. Tokens in query strings are never logged: no request line is.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{LogFilter, LogFormat};

/// Starts logging; a second call changes nothing.
pub fn init(format: LogFormat, filter: &LogFilter) {
    // the filter was checked when it was read
    let filter = EnvFilter::new(filter.as_str());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // no colours in a pod's log
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // fails when a subscriber is set already, as in tests that start several gateways
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
