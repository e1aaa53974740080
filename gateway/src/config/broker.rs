//! Which broker, and where it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::error::ConfigError;
use super::values::Allowed;
use crate::broker::nats::{self, NatsConfig};
use crate::broker::redis::{self, RedisConfig};
use crate::tls::LoadError;

/// What carries messages between gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerChoice {
    /// Nothing: this gateway is alone.
    Memory,
    /// Redis, in any of its shapes.
    Redis(BrokerUrl),
    /// NATS with JetStream.
    Nats(BrokerUrl),
}

impl FromStr for BrokerChoice {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        // one judge of what a URL is: what passes here is taken by the broker
        if ["nats:", "tls:"].iter().any(|scheme| text.starts_with(scheme)) {
            let config = NatsConfig::from_url(text).map_err(|_| allowed(text))?;
            return Ok(Self::Nats(BrokerUrl {
                text: text.into(),
                servers: config.address().into(),
            }));
        }
        let config = RedisConfig::from_url(text).map_err(|_| allowed(text))?;
        Ok(Self::Redis(BrokerUrl {
            text: text.into(),
            servers: config.address().into(),
        }))
    }
}

impl BrokerChoice {
    /// Whether this can be asked of it.
    pub(super) fn allows(
        &self,
        durability: Durability,
        authorities: Option<&Authorities>,
    ) -> Result<(), ConfigError> {
        let speaks_tls = match self {
            Self::Memory => false,
            Self::Redis(url) => url.text.starts_with("rediss"),
            Self::Nats(url) => url.text.starts_with("tls:"),
        };
        if authorities.is_some() && !speaks_tls {
            return Err(ConfigError::Conflict {
                flag: "broker-ca-file",
                problem: "this broker speaks no TLS and shows no certificate; give --broker rediss://…, rediss-sentinel://…, rediss-cluster://… or tls://… (NATS), or leave the file out",
            });
        }
        if *self == Self::Memory && durability == Durability::Replicated {
            return Err(ConfigError::Conflict {
                flag: "durability",
                problem: "memory has no replica; give --broker a Redis that has one, or --durability primary",
            });
        }
        let replicas =
            |url: &BrokerUrl| NatsConfig::from_url(url.expose()).map_or(1, |config| config.replicas());
        if matches!(self, Self::Nats(url) if durability == Durability::Replicated && replicas(url) < 2) {
            return Err(ConfigError::Conflict {
                flag: "durability",
                problem: "one server of NATS has each message; give --broker nats://…?replicas=3, or --durability primary",
            });
        }
        Ok(())
    }
}

/// Who vouches for the broker's server, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities(Arc<[u8]>);

impl Authorities {
    /// Reads a file with one certificate at least.
    pub(super) fn read(path: &str) -> Result<Self, ConfigError> {
        let problem = |problem: String| LoadError {
            flag: "broker-ca-file",
            path: path.into(),
            problem,
        };
        let bytes = std::fs::read(path).map_err(|error| problem(error.to_string()))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match certificates {
            Ok(some) if !some.is_empty() => Ok(Self(bytes.into())),
            Ok(_) => Err(problem("holds no certificate; give those of the authorities as PEM".into()).into()),
            Err(error) => Err(problem(format!("{error}; give the authorities' certificates as PEM")).into()),
        }
    }

    /// As PEM.
    pub fn pem(&self) -> Arc<[u8]> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({} bytes)", self.0.len())
    }
}

/// The form that was meant; all of them, when none can be seen.
fn allowed(text: &str) -> Allowed {
    Allowed(if text.starts_with("redis") {
        redis::ConfigError::form_of(text)
    } else if text.starts_with("nats") || text.starts_with("tls") {
        nats::ConfigError::form()
    } else {
        "memory, redis://[user:password@]host[:port][/database], \
         redis-sentinel://[user:password@]host[:port],host[:port]/master[/database], \
         redis-cluster://[user:password@]host[:port],host[:port], any of these with TLS as rediss…://, \
         or nats://[user:password@]host[:port],host[:port], with TLS as tls://"
    })
}

/// What an acknowledged message has to survive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The master of Redis has it.
    #[default]
    Primary,
    /// A replica has it, too.
    Replicated,
}

impl FromStr for Durability {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        match text {
            "primary" => Ok(Self::Primary),
            "replicated" => Ok(Self::Replicated),
            _ => Err(Allowed("primary or replicated")),
        }
    }
}

/// `redis://…`, `nats://…`, `tls://…` or another URL of a broker; shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    text: Box<str>,
    servers: Box<str>,
}

impl BrokerUrl {
    /// The URL with its password, for the client of the server.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.text.split_once("://").map_or("redis", |(scheme, _)| scheme);
        write!(f, "{scheme}://{}", self.servers)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
