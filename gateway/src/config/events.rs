//! Where clients' events go: `--events`, `--event-stream`, `--event-stream-length`.

use std::str::FromStr;
use std::sync::Arc;

use super::broker::BrokerChoice;
use super::error::ConfigError;
use super::settings::Layers;
use super::values::Allowed;
use crate::broker::nats::NatsConfig;

/// Longest name of the stream in bytes.
const NAME_BYTES: usize = 128;

/// The stream of Redis or of JetStream that events are appended to, for workers to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStream {
    /// Its key in Redis, its name in JetStream.
    pub name: Arc<str>,
    /// About so many entries are kept; the oldest go.
    pub length: u32,
}

/// Whether events are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Events {
    On,
    Off,
}

impl FromStr for Events {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        match text {
            "on" | "true" => Ok(Self::On),
            "off" | "false" => Ok(Self::Off),
            _ => Err(Allowed("on or off")),
        }
    }
}

/// A key without braces: they would move what belongs to the stream to another slot of a cluster.
struct StreamName(Arc<str>);

impl Default for StreamName {
    fn default() -> Self {
        Self("wsfleet:events".into())
    }
}

impl FromStr for StreamName {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let fits = |c: char| c.is_ascii_alphanumeric() || ":._-/".contains(c);
        if (1..=NAME_BYTES).contains(&text.len()) && text.chars().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(Allowed(
                "a key of 1 to 128 letters, digits, ':', '.', '_', '-' and '/', such as wsfleet:events",
            ))
        }
    }
}

/// Entries that are kept.
struct StreamLength(u32);

impl Default for StreamLength {
    fn default() -> Self {
        Self(1_000_000)
    }
}

impl FromStr for StreamLength {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let length = text.parse().ok().filter(|length| *length >= 1);
        length
            .map(Self)
            .ok_or(Allowed("a number of entries, from 1 to 4294967295"))
    }
}

impl Layers {
    /// The stream, where there can be one and it is wanted.
    pub(super) fn events(&self, broker: &BrokerChoice) -> Result<Option<EventStream>, ConfigError> {
        let wanted = self.value::<Events>("events", |args| &args.events)?;
        let named = self.value::<StreamName>("event-stream", |args| &args.event_stream)?;
        let StreamLength(length) = self
            .value("event-stream-length", |args| &args.event_stream_length)?
            .unwrap_or_default();
        let conflict = |flag, problem| Err(ConfigError::Conflict { flag, problem });
        let name = match broker {
            BrokerChoice::Memory if wanted == Some(Events::On) => {
                return conflict(
                    "events",
                    "memory has no stream that workers could read; give --broker redis://… or nats://…, or --events off",
                );
            }
            BrokerChoice::Memory => return Ok(None),
            BrokerChoice::Redis(_) => named.unwrap_or_default().0,
            BrokerChoice::Nats(_) if named.is_some() => {
                return conflict(
                    "event-stream",
                    "in NATS it is called <prefix>-events; give --broker nats://…?prefix=NAME, and leave this out",
                );
            }
            BrokerChoice::Nats(url) => match NatsConfig::from_url(url.expose()) {
                Ok(config) => config.event_stream().into(),
                // a URL that was taken is not malformed
                Err(_) => return Ok(None),
            },
        };
        Ok((wanted != Some(Events::Off)).then_some(EventStream { name, length }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Args, Settings};
    use super::*;

    fn load(words: &[&str]) -> Result<Option<EventStream>, ConfigError> {
        let line = ["wsfleet-gateway", "--auth=insecure-token"].iter().chain(words);
        let settings = Settings::load_with(Args::from_command_line(line)?, |_| None)?;
        Ok(settings.events)
    }

    const REDIS: &str = "--broker=redis://127.0.0.1";

    #[test]
    fn events_are_on_where_there_is_a_redis_or_nats_and_off_where_there_is_none_or_somebody_says_so() {
        let default = load(&[REDIS]).unwrap().unwrap();
        assert_eq!((&*default.name, default.length), ("wsfleet:events", 1_000_000));
        let named = load(&[REDIS, "--event-stream=a/b", "--event-stream-length=5"]);
        let named = named.unwrap().unwrap();
        assert_eq!((&*named.name, named.length), ("a/b", 5));
        let nats = load(&["--broker=nats://h?prefix=chat", "--event-stream-length=7"]);
        let nats = nats.unwrap().unwrap();
        assert_eq!((&*nats.name, nats.length), ("chat-events", 7));
        for off in [
            &[][..],
            &["--events=off"],
            &[REDIS, "--events=off"],
            &["--broker=nats://h", "--events=off"],
        ] {
            assert_eq!(load(off).unwrap(), None, "{off:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_told_what_can() {
        for (words, allowed) in [
            (["--events=on", "--compression=on"], "give --broker redis://"),
            (["--broker=nats://h", "--event-stream=a"], "?prefix=NAME"),
            ([REDIS, "--events=yes"], "on or off"),
            ([REDIS, "--event-stream="], "such as wsfleet:events"),
            ([REDIS, "--event-stream={a}"], "such as wsfleet:events"),
            ([REDIS, "--event-stream-length=0"], "from 1 to"),
            ([REDIS, "--event-stream-length=4294967296"], "from 1 to"),
        ] {
            let error = load(&words).map_err(|error| error.to_string());
            assert!(
                error.as_ref().is_err_and(|error| error.contains(allowed)),
                "{words:?} {error:?}"
            );
        }
    }
}
