//! What is wrong with a setting, in words that say what to write instead.

use std::fmt;
use std::path::PathBuf;

use super::args::Args;
use crate::tls::LoadError;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The command line.
    Flag,
    /// The environment variable `WSFLEET_<FLAG>`.
    Environment,
    /// The file that `--config` names.
    File,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "",
            Self::Environment => " (from the environment)",
            Self::File => " (from the configuration file)",
        })
    }
}

/// Why there are no settings. Print it and exit with [`super::EXIT_CODE`]; nothing but the caller of the program can
/// help. [`ConfigError::is_help`] is the exception: print it to standard output and exit with 0.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line itself: an unknown flag, a flag without its value; or `--help`, `--version`.
    #[error("{}", command_line(.0))]
    CommandLine(#[source] clap::Error),
    /// A value that is not allowed.
    #[error("--{flag}{layer}: \"{value}\" is not allowed; give {allowed}")]
    Value {
        /// Flag, without dashes.
        flag: &'static str,
        /// Where the value came from.
        layer: Layer,
        /// The value, or what may be shown of it.
        value: String,
        /// What to give instead.
        allowed: String,
    },
    /// A setting that another one needs.
    #[error("--{flag} is missing: {because}")]
    Missing {
        /// Flag, without dashes.
        flag: &'static str,
        /// What needs it.
        because: &'static str,
    },
    /// Settings that do not fit together.
    #[error("--{flag}: {problem}")]
    Conflict {
        /// Flag, without dashes.
        flag: &'static str,
        /// What does not fit, and what would.
        problem: &'static str,
    },
    /// The file that `--config` names cannot be read, or is not what it should be.
    #[error("--config: {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong; for an unknown key, the keys that there are.
        problem: String,
    },
    /// A file with a secret cannot be read, or holds no usable secret.
    #[error("--{flag}: {}: {problem}", path.display())]
    Secret {
        /// Flag, without dashes.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong; never the content.
        problem: String,
    },
    /// Certificate and key for clients cannot be served with.
    #[error(transparent)]
    Tls(#[from] LoadError),
}

impl ConfigError {
    /// Whether this is the text of `--help` or `--version`, not an error.
    pub fn is_help(&self) -> bool {
        matches!(self, Self::CommandLine(error) if !error.use_stderr())
    }
}

fn command_line(error: &clap::Error) -> String {
    let mut text = error.to_string();
    if error.kind() == clap::error::ErrorKind::UnknownArgument {
        text.push_str("\nallowed flags: ");
        text.push_str(
            &Args::flags()
                .map(|flag| format!("--{flag}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
    }
    text
}
