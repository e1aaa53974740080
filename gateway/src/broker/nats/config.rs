//! Where NATS is, and how patient the link is. Pure; no password ever appears in `Debug` or in an error.

use std::fmt;
use std::sync::Arc;

use super::naming::{EVENTS, Names};
use super::tls::Tls;
use crate::broker::PresenceSettings;
use crate::broker::timing::Timing;
use crate::config::EventStream;

/// How a URL of NATS is written.
const FORM: &str = "nats://[user:password@ or token@]host[:port][,host[:port]][?replicas=1 to 5&prefix=name], or tls://… with TLS";
/// The port for clients unless another is named.
const PORT: u16 = 4_222;

/// What is wrong with a URL of NATS: write it in the form that the text shows. It is not repeated, for it may hold a password.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the NATS URL is malformed ({problem}); write {FORM}")]
pub struct ConfigError {
    problem: String,
}

impl ConfigError {
    /// How a URL is written.
    pub const fn form() -> &'static str {
        FORM
    }
}

/// Who we are for the server.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Access {
    Nobody,
    Token(String),
    User { name: String, password: String },
}

/// Which servers of NATS there are, and how they are entered.
#[derive(Clone)]
pub struct NatsConfig {
    pub(super) servers: Arc<[String]>,
    pub(super) access: Access,
    /// How TLS is spoken, if it is.
    pub(super) tls: Option<Tls>,
    /// Servers that have each message.
    pub(super) replicas: u8,
    pub(super) names: Names,
    pub(super) events: Option<EventStream>,
    pub(super) presence: PresenceSettings,
    pub(super) timing: Timing,
}

impl NatsConfig {
    /// Parses `nats://[user:password@ or token@]host[:port][,host[:port]][?replicas=N&prefix=NAME]`, or the same as `tls://…`
    /// with TLS, where `handshake_first=true` may be asked for, too; user, password and token may be percent-encoded.
    pub fn from_url(text: &str) -> Result<Self, ConfigError> {
        let (tls, rest) = match text.split_once("://") {
            Some(("nats", rest)) => (None, rest),
            Some(("tls", rest)) => (Some(Tls::default()), rest),
            _ => return Err(wrong("another scheme")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (access, hosts) = match rest.rsplit_once('@') {
            Some((access, hosts)) => (self::access(access)?, hosts),
            None => (Access::Nobody, rest),
        };
        let servers: Result<Arc<[String]>, _> = hosts.trim_end_matches('/').split(',').map(server).collect();
        let mut config = Self {
            servers: servers?,
            access,
            tls,
            replicas: 1,
            names: Names("wsfleet".into()),
            events: None,
            presence: PresenceSettings::default(),
            timing: Timing::default(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            config.set(pair.split_once('=').unwrap_or((pair, "")))?;
        }
        Ok(config)
    }

    fn set(&mut self, (key, value): (&str, &str)) -> Result<(), ConfigError> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match key {
            "replicas" => {
                let number = value.parse().ok().filter(|number| (1..=5).contains(number));
                self.replicas = number.ok_or_else(|| wrong("replicas are 1 to 5"))?;
            }
            "prefix" if (1..=32).contains(&value.len()) && value.bytes().all(named) => {
                self.names = Names(value.into());
            }
            "prefix" => return Err(wrong("a prefix has 1 to 32 letters, digits, and `-_`")),
            "handshake_first" => match (&mut self.tls, value) {
                (Some(tls), "true") => tls.first = true,
                (Some(tls), "false") => tls.first = false,
                (Some(_), _) => return Err(wrong("handshake_first is true or false")),
                (None, _) => return Err(wrong("handshake_first is for TLS, so for tls://")),
            },
            other => return Err(wrong(&format!("it takes no `{other}`"))),
        }
        Ok(())
    }

    /// The same NATS with other patience.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// The same NATS with this said about who is in rooms.
    #[must_use]
    pub fn with_presence(mut self, presence: PresenceSettings) -> Self {
        self.presence = presence;
        self
    }

    /// The same NATS with a stream for clients' events, or none. Its name is not heeded: see [`NatsConfig::event_stream`].
    #[must_use]
    pub fn with_events(mut self, events: Option<EventStream>) -> Self {
        self.events = events;
        self
    }

    /// What the JetStream stream is called that clients' events are in, if they are taken.
    pub fn event_stream(&self) -> String {
        self.names.stream(EVENTS)
    }

    /// Whether TLS is spoken with it.
    pub const fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The same NATS, trusted when one of these authorities (PEM) vouches for it. Without TLS it is what it was.
    #[must_use]
    pub fn trusting(mut self, authorities: Arc<[u8]>) -> Self {
        self.tls = self.tls.map(|tls| tls.trusting(authorities));
        self
    }

    /// How many servers have each message that is acknowledged.
    pub const fn replicas(&self) -> u8 {
        self.replicas
    }

    /// `host:port` of all servers that are named, for logs and whoever reads settings; no password.
    pub fn address(&self) -> String {
        self.servers.join(",")
    }
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsConfig")
            .field("address", &self.address())
            .field("replicas", &self.replicas)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

fn wrong(problem: &str) -> ConfigError {
    ConfigError {
        problem: problem.to_owned(),
    }
}

fn access(text: &str) -> Result<Access, ConfigError> {
    let plain =
        |text: &str| decoded(text).ok_or_else(|| wrong("the credentials are no percent-encoded UTF-8"));
    Ok(match text.split_once(':') {
        Some((name, password)) => Access::User {
            name: plain(name)?,
            password: plain(password)?,
        },
        None if text.is_empty() => Access::Nobody,
        None => Access::Token(plain(text)?),
    })
}

/// A percent-encoded text.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(out).ok()
}

/// `host:port`, whatever was left out.
fn server(text: &str) -> Result<String, ConfigError> {
    let url = url::Url::parse(&format!("nats://{text}")).map_err(|error| wrong(&error.to_string()))?;
    let bare = url.path().trim_matches('/').is_empty() && url.fragment().is_none();
    match url.host_str().filter(|host| !host.is_empty() && bare) {
        Some(host) => Ok(format!("{host}:{}", url.port().unwrap_or(PORT))),
        None => Err(wrong("a host is missing, or something follows it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_url_is_understood_and_its_password_is_not_shown() {
        let url = "nats://chat:s%40cret@a.internal:4000,b,[::1]:1?replicas=3&prefix=chat";
        let config = NatsConfig::from_url(url).unwrap();
        assert_eq!(config.address(), "a.internal:4000,b:4222,[::1]:1");
        let user = Access::User {
            name: "chat".into(),
            password: "s@cret".into(),
        };
        assert!(config.access == user);
        assert_eq!((config.replicas, &*config.names.0), (3, "chat"));
        assert!(!format!("{config:?}").contains("cret"));
    }

    #[test]
    fn a_short_url_takes_the_defaults_and_a_name_without_a_password_is_a_token() {
        let config = NatsConfig::from_url("nats://h/").unwrap();
        assert_eq!((config.address(), config.replicas), ("h:4222".to_owned(), 1));
        let config = NatsConfig::from_url("nats://t0ken@h").unwrap();
        assert!(config.access == Access::Token("t0ken".into()));
    }

    #[test]
    fn the_scheme_of_nats_asks_for_tls() {
        let plain = NatsConfig::from_url("nats://u:p@h").unwrap();
        let secured = NatsConfig::from_url("tls://u:p@h?replicas=3").unwrap();
        assert_eq!((plain.speaks_tls(), secured.speaks_tls()), (false, true));
        assert_eq!(secured.address(), plain.address());
        assert!(secured.access == plain.access);
        let first = |query: &str| {
            let config = NatsConfig::from_url(&format!("tls://h{query}")).unwrap();
            config.tls.unwrap().first
        };
        assert!(first("?handshake_first=true"));
        assert!(!first("") && !first("?handshake_first=false"));
    }

    #[test]
    fn each_malformed_url_is_told_what_to_write_instead_without_its_password() {
        for (url, part) in [
            ("redis://h", "another scheme"),
            ("nats://", "a host is missing"),
            ("nats://u:hunter2@", "a host is missing"),
            ("nats://u:hunter2@h:99999", "invalid port"),
            ("nats://u:hunter2@a,,b", "a host is missing"),
            ("nats://u:hunter2%zz@h", "percent-encoded"),
            ("nats://u:hunter2@h/1", "something follows"),
            ("nats://u:hunter2@h?replicas=0", "1 to 5"),
            ("nats://u:hunter2@h?prefix=a.b", "1 to 32 letters"),
            ("nats://u:hunter2@h?tls=on", "takes no `tls`"),
            ("nats://u:hunter2@h?handshake_first=true", "so for tls://"),
            ("tls://u:hunter2@h?handshake_first=on", "true or false"),
            ("nats+tls://u:hunter2@h", "another scheme"),
            ("tls://u:hunter2@", "a host is missing"),
        ] {
            let error = NatsConfig::from_url(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
            assert!(
                error.contains("write nats://") && !error.contains("hunter2"),
                "{url}: {error}"
            );
        }
    }
}
