//! Where Redis is, and how patient the links are. Pure; no password ever appears in `Debug` or in an error.

mod url;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisError, TlsCertificates,
};

pub use self::url::ConfigError;
pub(super) use self::url::{Server, Shape};
use super::script::Channels;
use crate::broker::PresenceSettings;
use crate::broker::timing::Timing;
use crate::config::{Durability, EventStream};

/// Which servers of Redis there are, and how they are entered.
#[derive(Clone)]
pub struct RedisConfig {
    pub(super) shape: Shape,
    /// User, password, database, protocol: the same for every server.
    access: RedisConnectionInfo,
    /// How TLS is spoken, if it is.
    tls: Option<Tls>,
    /// Which Sentinel is asked first; the links of a broker share it.
    turn: Arc<AtomicUsize>,
    pub(super) durability: Durability,
    pub(super) timing: Timing,
    pub(super) presence: PresenceSettings,
    pub(super) events: Option<EventStream>,
}

/// TLS with the servers.
#[derive(Clone, Default)]
struct Tls {
    /// Who vouches for them, as PEM; unless there is one, those that the system trusts.
    authorities: Option<Arc<[u8]>>,
}

impl RedisConfig {
    /// Parses one of
    /// - `redis://[user][:password@]host[:port][/database]`, or `rediss://…` with TLS,
    /// - `redis-sentinel://[user:password@]host[:port],host[:port]/master[/database]`,
    /// - `redis-cluster://[user:password@]host[:port],host[:port]`,
    ///
    /// or the latter two as `rediss-sentinel://…` and `rediss-cluster://…` with TLS, with Sentinels and servers alike.
    ///
    /// User and password may be percent-encoded.
    pub fn from_url(text: &str) -> Result<Self, ConfigError> {
        let (shape, access, tls) = url::parse(text)?;
        Ok(Self {
            shape,
            tls: tls.then(Tls::default),
            // RESP3: pushes and replies share a link, so the subscription link can be asked things too
            access: access.set_protocol(ProtocolVersion::RESP3),
            turn: Arc::default(),
            durability: Durability::default(),
            timing: Timing::default(),
            presence: PresenceSettings::default(),
            events: None,
        })
    }

    /// The same Redis with this said about who is in rooms.
    #[must_use]
    pub fn with_presence(mut self, presence: PresenceSettings) -> Self {
        self.presence = presence;
        self
    }

    /// The same Redis with this stream for clients' events, or none.
    #[must_use]
    pub fn with_events(mut self, events: Option<EventStream>) -> Self {
        self.events = events;
        self
    }

    /// Whether TLS is spoken with it.
    pub const fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The same Redis, trusted when one of these authorities (PEM) vouches for it. Without TLS it is what it was.
    #[must_use]
    pub fn trusting(mut self, authorities: Arc<[u8]>) -> Self {
        if let Some(tls) = &mut self.tls {
            tls.authorities = Some(authorities);
        }
        self
    }

    /// The same Redis with other patience.
    #[must_use]
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// The same Redis with other demands on an acknowledged message.
    #[must_use]
    pub const fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// `host:port` of the server, or of all that are named, for logs and whoever reads settings; no password.
    pub fn address(&self) -> String {
        self.shape.to_string()
    }

    /// The database number. Channels have none in Redis, so it is part of every name (see [`super::naming`]).
    pub(super) fn database(&self) -> i64 {
        self.access.db()
    }

    /// The Sentinels' numbers, in the order in which they are asked.
    pub(super) fn turns(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.turn.load(Ordering::Relaxed);
        (0..count).map(move |step| first.wrapping_add(step) % count)
    }

    /// This Sentinel answered: it is asked first.
    pub(super) fn begin_with(&self, turn: usize) {
        self.turn.store(turn, Ordering::Relaxed);
    }

    /// What the Sentinel named that was asked last cannot serve: another is asked first.
    pub(super) fn pass_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// How long is waited for a replica, if one is to have what is acknowledged. The link serves nothing else meanwhile, so
    /// it must not look lost.
    pub(super) fn replicas_deadline(&self) -> Option<Duration> {
        (self.durability == Durability::Replicated).then(|| self.timing.answer / 3)
    }

    /// How long one Sentinel may take to answer.
    pub(super) fn sentinel_deadline(&self) -> Duration {
        self.timing.connect / 3
    }

    /// How long an attempt to make a link may take: every Sentinel asked in vain but the last, then the server.
    pub(super) fn attempt(&self) -> Duration {
        let sentinels = match &self.shape {
            Shape::Sentinel { sentinels, .. } => u32::try_from(sentinels.len()).unwrap_or(u32::MAX),
            Shape::Standalone(_) | Shape::Cluster { .. } | Shape::Node(_) => 0,
        };
        self.timing.connect + self.sentinel_deadline().saturating_mul(sentinels)
    }

    /// After Redis came back as another process, or another server became the master: the time within which every gateway
    /// that can reach it has tried again, an attempt that hung included.
    pub(super) fn regroup(&self) -> Duration {
        self.attempt() + self.timing.backoff_max
    }

    /// How a Sentinel is connected to: in the protocol that all versions speak.
    pub(super) fn sentinel_client(
        &self,
        sentinel: &Server,
        with_password: bool,
    ) -> Result<Client, RedisError> {
        let info = self.connection_info(sentinel)?;
        let access = if with_password {
            self.access.clone()
        } else {
            RedisConnectionInfo::default()
        };
        self.build(info.set_redis_settings(access.set_db(0).set_protocol(ProtocolVersion::RESP2)))
    }

    /// One node of the cluster.
    pub(super) fn node(&self, server: Server) -> Self {
        Self {
            shape: Shape::Node(server),
            ..self.clone()
        }
    }

    /// How messages reach subscribers.
    pub(super) const fn channels(&self) -> Channels {
        match self.shape {
            Shape::Node(_) | Shape::Cluster { .. } => Channels::Sharded,
            Shape::Standalone(_) | Shape::Sentinel { .. } => Channels::Plain,
        }
    }

    /// How one of the servers is connected to.
    pub(super) fn client(&self, server: &Server) -> Result<Client, RedisError> {
        self.build(self.connection_info(server)?)
    }

    fn build(&self, info: ConnectionInfo) -> Result<Client, RedisError> {
        let authorities = self.tls.as_ref().and_then(|tls| tls.authorities.as_ref());
        let Some(authorities) = authorities else {
            return Client::open(info);
        };
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(authorities.to_vec()),
        };
        Client::build_with_tls(info, certificates)
    }

    fn connection_info(&self, server: &Server) -> Result<ConnectionInfo, RedisError> {
        let (host, port) = (server.host.clone(), server.port);
        let address = match self.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        };
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(address
            .into_connection_info()?
            .set_redis_settings(self.access.clone())
            .set_tcp_settings(tcp))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_url_is_understood_and_its_password_is_not_shown() {
        let config = RedisConfig::from_url("redis://chat:s%40cret@cache.internal:6380/3").unwrap();
        assert_eq!(config.address(), "cache.internal:6380");
        assert_eq!(config.database(), 3);
        assert_eq!(config.access.username(), Some("chat"));
        assert_eq!(config.access.password(), Some("s@cret"));
        assert!(!format!("{config:?}").contains("cret"));
    }

    #[test]
    fn a_short_url_takes_the_defaults() {
        let config = RedisConfig::from_url("redis://[::1]").unwrap();
        assert_eq!(config.address(), "[::1]:6379");
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
}
