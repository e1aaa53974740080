//! Settings of tests that are also run for longer: environment variables, with what `make test` takes.

use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Result, anyhow};

/// The setting, or what it is without one.
pub fn setting<T: FromStr>(name: &str, without: T) -> Result<T>
where
    T::Err: Display,
{
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|error| anyhow!("{name}={text} cannot be used: {error}")),
        Err(_) => Ok(without),
    }
}
