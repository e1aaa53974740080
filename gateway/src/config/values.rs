//! Values of settings: each a type of its own that is valid once it exists.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use url::Url;

/// What would have been allowed; the words follow "give ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed(pub &'static str);

/// How clients are identified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Signed tokens.
    #[default]
    Jwt,
    /// Development: `?token=abc` is user `user_abc`.
    InsecureToken,
    /// Each connection is a user of its own.
    Anonymous,
}

impl FromStr for AuthMode {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        match text {
            "jwt" => Ok(Self::Jwt),
            "insecure-token" => Ok(Self::InsecureToken),
            "anonymous" => Ok(Self::Anonymous),
            _ => Err(Allowed("jwt, insecure-token or anonymous")),
        }
    }
}

/// Whether permessage-deflate is negotiated with clients that offer it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// It is.
    #[default]
    On,
    /// Every offer is declined.
    Off,
}

impl Compression {
    /// Whether it is negotiated.
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

impl FromStr for Compression {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        match text {
            // YAML reads a bare `on` as a text or as true, depending on its version
            "on" | "true" => Ok(Self::On),
            "off" | "false" => Ok(Self::Off),
            _ => Err(Allowed("on or off")),
        }
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(Allowed("text or json")),
        }
    }
}

/// What is logged: directives of `tracing`'s `EnvFilter`, known to be readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The directives.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let allowed =
            Allowed("a level (off, error, warn, info, debug, trace) or directives such as warn,redis=debug");
        EnvFilter::try_new(text).map_err(|_| allowed)?;
        Ok(Self(text.to_owned()))
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($type:ty) = $default:literal, in $min:literal..=$max:literal, $allowed:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name($type);

        impl $name {
            /// The number.
            pub const fn get(self) -> $type {
                self.0
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self($default)
            }
        }

        impl FromStr for $name {
            type Err = Allowed;

            fn from_str(text: &str) -> Result<Self, Allowed> {
                let number = text.parse().ok().filter(|number| ($min..=$max).contains(number));
                number.map(Self).ok_or(Allowed($allowed))
            }
        }
    )*};
}

numbers! {
    /// Sockets at a time.
    MaxConnections(u32) = 20_000, in 1..=10_000_000, "a number from 1 to 10000000";
    /// Seconds over which a drain after SIGTERM spreads its closes; 0 closes all at once.
    DrainWindow(u32) = 60, in 0..=86_400, "seconds, a number from 0 to 86400";
    /// Seconds by which clocks may be apart when `exp` and `nbf` are checked.
    JwtLeeway(u16) = 5, in 0..=600, "seconds, a number from 0 to 600";
    /// Seconds by which a connection outlives its token.
    TokenGrace(u32) = 25, in 0..=86_400, "seconds, a number from 0 to 86400";
    /// Seconds from accept to the end of the upgrade request.
    HandshakeTimeout(u16) = 10, in 1..=600, "seconds, a number from 1 to 600";
    /// Proxies in front whose `X-Forwarded-For` is believed.
    TrustedHops(u8) = 0, in 0..=16, "a number from 0 to 16";
}

macro_rules! seconds {
    ($($name:ident)*) => {$(
        impl $name {
            /// The time.
            pub const fn duration(self) -> Duration {
                Duration::from_secs(self.0 as u64)
            }
        }
    )*};
}

seconds! { DrainWindow JwtLeeway TokenGrace HandshakeTimeout }

/// Name of a gateway in messages and metrics: 1 to 253 bytes, printable, no white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerId(Arc<str>);

impl ServerId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for ServerId {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let fits = (1..=253).contains(&text.len());
        if fits && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            Ok(Self(text.into()))
        } else {
            Err(Allowed("a name of 1 to 253 bytes without white space"))
        }
    }
}

/// Revision that the operator started: the value of a label, or empty when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Revision {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.len() <= 63 && text.chars().all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Allowed("at most 63 letters, digits, '-', '_' and '.'"))
        }
    }
}

/// An origin as a browser sends it (RFC 6454 §6.1): scheme, host and, when it is not the scheme's own, port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let allowed = Allowed("scheme, host and port of a web page, such as https://chat.example.com");
        let url = Url::parse(text).map_err(|_| allowed)?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if bare && anonymous && matches!(url.scheme(), "http" | "https") && !text.ends_with('/') {
            Ok(Self(url.origin().ascii_serialization()))
        } else {
            Err(allowed)
        }
    }
}

/// Origins that browsers may connect from; none set means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<Origin>);

impl AllowedOrigins {
    /// These origins, or any when there are none.
    pub const fn new(origins: Vec<Origin>) -> Self {
        Self(origins)
    }

    /// Whether a request with this `Origin` header may be upgraded (RFC 6455 §10.2). Programs that are not browsers
    /// send none and are not held back: the header protects users of browsers from other sites, nothing else.
    pub fn allow(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|allowed| allowed.0.eq_ignore_ascii_case(origin))
    }
}
