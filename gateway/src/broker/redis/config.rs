//! Where Redis is, and how patient the links are. Pure; no password ever appears in `Debug` or in an error.

use std::fmt;
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

/// What is wrong with a `redis://` URL. The URL itself is not repeated: it may hold a password.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// It does not parse, or is of another scheme; write it in the form that the text shows.
    #[error("the Redis URL is malformed ({0}); write redis://[user][:password@]host[:port][/database]")]
    Malformed(String),
    /// The host is missing.
    #[error("the Redis URL names no host; write redis://host:6379")]
    NoHost,
    /// The part after the host is no database number.
    #[error("`/{0}` in the Redis URL is no database number; write /0 to /15, or leave it out")]
    Database(String),
    /// A query or a fragment: nothing of what it asks for would happen.
    #[error("the Redis URL takes no `{0}`; leave it out")]
    Extra(char),
}

/// A standalone Redis.
#[derive(Clone)]
pub struct RedisConfig {
    pub(super) info: ConnectionInfo,
    pub(super) timing: Timing,
}

impl RedisConfig {
    /// Parses `redis://[user][:password@]host[:port][/database]`; user and password may be percent-encoded.
    pub fn from_url(text: &str) -> Result<Self, ConfigError> {
        let url = url::Url::parse(text).map_err(|e| ConfigError::Malformed(e.to_string()))?;
        if url.scheme() != "redis" {
            return Err(ConfigError::Malformed(format!("scheme `{}`", url.scheme())));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(ConfigError::NoHost);
        }
        let path = url.path().trim_matches('/');
        if !path.is_empty() && path.parse::<u16>().is_err() {
            return Err(ConfigError::Database(path.to_owned()));
        }
        if url.query().is_some() {
            return Err(ConfigError::Extra('?'));
        }
        if url.fragment().is_some() {
            return Err(ConfigError::Extra('#'));
        }
        let info = url
            .into_connection_info()
            .map_err(|e| ConfigError::Malformed(e.to_string()))?;
        // RESP3: pushes and replies share a link, so the subscription link can be asked things too
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        Ok(Self {
            info,
            timing: Timing::default(),
        })
    }

    /// The same Redis with other patience.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// `host:port`, for logs.
    pub fn address(&self) -> String {
        self.info.addr().to_string()
    }

    /// The database number. Channels have none in Redis, so it is part of every name (see [`super::naming`]).
    pub(super) fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("address", &self.address())
            .field("database", &self.database())
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// How patient the links are. A link that went silent is found dead after `silence + answer` at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A link on which nothing was heard for so long is probed.
    pub silence: Duration,
    /// A command or probe that is not answered within this time condemns its link.
    pub answer: Duration,
    /// A stream of which nothing was heard for so long is compared with Redis: its last message may be lost.
    pub compare: Duration,
    /// Time for connecting, greeting and authentication together.
    pub connect: Duration,
    /// First wait after a failed connect; doubled each time, jittered by half.
    pub backoff_min: Duration,
    /// Longest wait after a failed connect.
    pub backoff_max: Duration,
}

impl Timing {
    /// After Redis came back as another process: the time within which every gateway that can reach it has tried again,
    /// an attempt that hung included.
    pub fn regroup(&self) -> Duration {
        self.connect + self.backoff_max
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(5),
            answer: Duration::from_secs(3),
            compare: Duration::from_secs(30),
            connect: Duration::from_secs(3),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(2),
        }
    }
}

/// Waits between attempts: doubling up to a cap, and jittered so that a fleet that lost its Redis at one moment does
/// not come back at one moment.
#[derive(Debug)]
pub(super) struct Backoff {
    timing: Timing,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(timing: Timing) -> Self {
        Self {
            timing,
            next: timing.backoff_min,
        }
    }

    pub(super) const fn reset(&mut self) {
        self.next = self.timing.backoff_min;
    }

    /// The next wait: between half of the current step and all of it; `random` is uniform in 0..1.
    pub(super) fn step(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(random.clamp(0.0, 1.0).mul_add(0.5, 0.5));
        self.next = (self.next * 2).min(self.timing.backoff_max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_url_is_understood_and_its_password_is_not_shown() {
        let config = RedisConfig::from_url("redis://chat:s%40cret@cache.internal:6380/3").unwrap();
        assert_eq!(config.address(), "cache.internal:6380");
        assert_eq!(config.database(), 3);
        assert_eq!(config.info.redis_settings().username(), Some("chat"));
        assert_eq!(config.info.redis_settings().password(), Some("s@cret"));
        assert!(!format!("{config:?}").contains("cret"));
    }

    #[test]
    fn a_short_url_takes_the_defaults() {
        let config = RedisConfig::from_url("redis://[::1]").unwrap();
        assert_eq!(config.address(), "::1:6379");
        assert_eq!(config.database(), 0);
    }

    #[test]
    fn each_malformed_url_is_told_what_to_write_instead_without_its_password() {
        let cases = [
            ("redis:/", "no host"),
            ("redis://", "no host"),
            ("http://h:1", "scheme `http`"),
            ("redis://:hunter2@h:99999", "invalid port number"),
            ("redis://:hunter2@h/abc", "`/abc`"),
            ("redis://:hunter2@h/1/2", "`/1/2`"),
            ("redis://:hunter2@h/-1", "`/-1`"),
            ("redis://:hunter2@h?protocol=2", "`?`"),
            ("redis://:hunter2@h#insecure", "`#`"),
            ("redis://:hunter2@0.0.0.0", "wildcard"),
            ("localhost:6379", "scheme `localhost`"),
            ("not a url", "malformed"),
        ];
        for (url, part) in cases {
            let error = RedisConfig::from_url(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
            assert!(
                error.contains("redis://") || error.contains("leave it out"),
                "{url}: {error}"
            );
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[test]
    fn waits_double_up_to_the_cap_and_keep_half_of_the_step_as_jitter() {
        let timing = Timing::default();
        let mut backoff = Backoff::new(timing);
        assert_eq!(backoff.step(0.0), timing.backoff_min / 2);
        assert_eq!(backoff.step(1.0), timing.backoff_min * 2);
        for _ in 0..20 {
            let wait = backoff.step(1.0);
            assert!(wait <= timing.backoff_max);
        }
        assert_eq!(backoff.step(1.0), timing.backoff_max);
        backoff.reset();
        assert_eq!(backoff.step(1.0), timing.backoff_min);
    }
}
