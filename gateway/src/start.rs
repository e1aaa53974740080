//! Settings of the program, as it was started.
//!
//! Started with nothing at all (no flag, no `WSFLEET_` variable) it runs in development mode: `?token=abc` is user
//! `user_abc`, and clients are served on loopback only, so that nobody runs it like that by accident where others can
//! reach it.

use std::ffi::OsString;

use crate::config::{Args, ConfigError, Settings};

/// What development mode means, for the log.
pub const DEVELOPMENT: &str = "DEVELOPMENT MODE, because no flag and no WSFLEET_ variable is set: tokens are not \
    verified (?token=abc is user_abc), and only 127.0.0.1 is listened on. For anything else give --auth, see --help";

/// Settings, and whether they are those of development mode.
#[derive(Debug)]
pub struct Start {
    /// The settings.
    pub settings: Settings,
    /// Started with nothing at all.
    pub development: bool,
}

/// Settings from this process's command line and environment.
pub fn from_process() -> Result<Start, ConfigError> {
    let environment = std::env::vars_os().map(|(name, _)| name);
    from(std::env::args_os().collect(), environment)
}

fn from(
    command: Vec<OsString>,
    mut environment: impl Iterator<Item = OsString>,
) -> Result<Start, ConfigError> {
    let configured = environment.any(|name| name.as_encoded_bytes().starts_with(b"WSFLEET_"));
    let development = command.len() <= 1 && !configured;
    let args = if development {
        let text = |text: &str| Some(text.to_owned().into());
        Args {
            auth: text("insecure-token"),
            listen: text("127.0.0.1:8080"),
            ..Args::default()
        }
    } else {
        Args::from_command_line(command)?
    };
    Ok(Start {
        settings: Settings::load(args)?,
        development,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthSettings;

    fn start(command: &[&str], environment: &[&str]) -> Result<Start, ConfigError> {
        let command = command.iter().map(OsString::from).collect();
        from(command, environment.iter().map(OsString::from))
    }

    #[test]
    fn nothing_at_all_is_development_mode_on_loopback_only() {
        let start = start(&["wsfleet-gateway"], &["PATH", "HOME"]).unwrap();
        assert!(start.development);
        assert!(matches!(start.settings.auth, AuthSettings::InsecureToken));
        assert!(start.settings.listen.ip().is_loopback());
    }

    #[test]
    fn any_flag_or_variable_ends_development_mode_and_then_a_secret_is_needed() {
        for (command, environment) in [
            (&["wsfleet-gateway", "--drain-window", "5"][..], &[][..]),
            (&["wsfleet-gateway"], &["WSFLEET_UNRELATED"]),
        ] {
            let error = start(command, environment).unwrap_err().to_string();
            assert!(error.contains("--jwt-secret-file is missing"), "{error}");
            assert!(error.contains("--auth insecure-token"), "{error}");
        }
    }
}
