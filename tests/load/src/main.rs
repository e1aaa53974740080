//! `wsfleet-load`: opens sockets, joins rooms, publishes, comes back as told, and says what was lost.
//!
//! Exit status: 0 nothing lost or cut; 3 something was lost, late, duplicated, out of order or cut; 1 the run could not
//! be done; 64 wrong flags.

mod cli;
mod progress;
mod run;

use std::process::ExitCode;

fn main() -> ExitCode {
    let invocation = match cli::parse() {
        Ok(invocation) => invocation,
        Err(code) => return code,
    };
    match run::run(&invocation) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            progress::complain(&format!("wsfleet-load: {error:#}"));
            let wrong_flag = error.downcast_ref::<wsfleet_load::ConfigError>().is_some()
                || matches!(error.downcast_ref(), Some(wsfleet_load::LoadError::Config(_)));
            ExitCode::from(if wrong_flag { 64 } else { 1 })
        }
    }
}
