//! Secrets: read from files, compared in constant time, never shown.

use std::fmt;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::ConfigError;

/// A secret. Cloning shares it.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Reads a file, without the white space at its end (editors add a line end), of at least `least` bytes.
    pub(super) fn read(flag: &'static str, path: &str, least: usize) -> Result<Self, ConfigError> {
        let problem = |problem: String| ConfigError::Secret {
            flag,
            path: PathBuf::from(path),
            problem,
        };
        let bytes = std::fs::read(Path::new(path)).map_err(|error| problem(error.to_string()))?;
        let secret = bytes.trim_ascii_end();
        if secret.len() < least {
            return Err(problem(format!(
                "holds {} bytes; give at least {least}",
                secret.len()
            )));
        }
        Ok(Self::new(secret))
    }

    /// The bytes. Only for what verifies with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether `presented` is the secret. The time that this takes tells the length of the secret at most.
    pub fn matches(&self, presented: &[u8]) -> bool {
        if self.0.len() != presented.len() {
            return false;
        }
        let difference = self
            .0
            .iter()
            .zip(presented)
            .fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        black_box(difference) == 0
    }
}
