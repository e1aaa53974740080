//! One gateway: what listener, sessions, drain and the HTTP interfaces share.

use std::sync::Arc;

use crate::admission::Admission;
use crate::auth::{AuthError, Authenticator, Identity, Jwks};
use crate::broker::nats::{self, NatsBroker, NatsConfig};
use crate::broker::redis::{self, RedisBroker, RedisConfig};
use crate::broker::{Broker, PresenceSettings, Sink, memory::MemoryBroker};
use crate::clock::Clock;
use crate::config::{AuthSettings, BrokerChoice, JwtSettings, Limits, Settings};
use crate::drain::Drain;
use crate::fleet::{Revocations, Tokens};
use crate::limits::InboundRates;
use crate::metrics::Metrics;
use crate::protocol::WelcomeLimits;
use crate::room::{Absent, Rooms};
use crate::routing::Routing;
use crate::session::{self, Census, Connections, Env, Place};
use crate::tls::{self, Tls};

/// A gateway, ready to accept.
#[derive(Debug)]
pub struct Gateway {
    /// What it was started with.
    pub settings: Settings,
    /// Clock, metrics and names.
    pub env: Arc<Env>,
    /// Open connections.
    pub connections: Connections,
    /// What the last sweep counted.
    pub census: Census,
    /// Which of them came with which token.
    pub tokens: Tokens,
    /// Which tokens are not accepted any more.
    pub revocations: Revocations,
    /// Rooms with members here.
    pub rooms: Arc<Rooms>,
    /// Who carries the messages.
    pub broker: Arc<dyn Broker>,
    /// The certificate for clients; `None`: no TLS.
    pub tls: Option<Tls>,
    /// Who clients are.
    pub authenticator: Authenticator,
    /// Who gets in.
    pub admission: Admission,
    /// What each connection may send.
    pub inbound_rates: InboundRates,
    /// Whether it accepts, and whom it closes when.
    pub drain: Drain,
    /// Whether the broker has ever answered.
    pub contact: BrokerContact,
}

/// Why a gateway could not be put together: the program ends with 1. What is wrong with a setting is found earlier, and
/// ends it with [`EXIT_CODE`](crate::config::EXIT_CODE); a broker that is not reached is no reason.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The URL of the broker is malformed. [`Settings`] that were loaded have one that is not; give them another.
    #[error("--broker: {0}")]
    Redis(#[from] redis::ConfigError),
    /// The same of NATS.
    #[error("--broker: {0}")]
    Nats(#[from] nats::ConfigError),
    /// The certificate's files fitted when [`Settings`] were loaded, and do not any more: start again.
    #[error(transparent)]
    Tls(#[from] tls::StartError),
    /// No token can be signed: a mistake in the program.
    #[error("routing token: {0}")]
    Routing(#[from] jsonwebtoken::errors::Error),
    /// Two metrics with one name: a mistake in the program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Gateway {
    /// Puts a gateway together, with at most `capacity` connections; to be called inside a tokio runtime.
    pub fn new(settings: Settings, capacity: u32) -> Result<Arc<Self>, GatewayError> {
        let limits: &Limits = &settings.limits;
        let env = Arc::new(Env {
            clock: Clock::start(),
            metrics: Metrics::new(settings.server_id.as_str())?,
            server_id: settings.server_id.shared(),
            instance: format!("{:08x}", rand::random::<u32>()).into(),
            queue_bytes: limits.max_queue_bytes(),
            queue_messages: limits.max_queue_messages(),
            slow_consumers: settings.slow_consumers.clone(),
            announce_members: limits.announce_members,
            presences: settings.presences.clone(),
            absent: Absent::default(),
            connections_per_user: limits.connections_per_user,
            connection_age: limits.connection_age_seconds,
            resume_window: settings.histories.resume_window(),
            routing: routing(&settings)?,
            welcome_limits: WelcomeLimits::from(limits),
            features: session::features(settings.events.is_some()),
        });
        let rooms = Arc::new(Rooms::new(Arc::clone(&env)));
        let broker = broker(&settings, &env, &rooms)?;
        let jwks = match &settings.auth {
            AuthSettings::Jwt(JwtSettings {
                jwks_url: Some(_), ..
            }) => {
                let jwks = Jwks::new()?;
                env.metrics.register(jwks.collectors())?;
                Some(Arc::new(jwks))
            }
            _ => None,
        };
        let tls = settings.tls.clone().map(Tls::start).transpose()?;
        if let Some(tls) = &tls {
            env.metrics.register(tls.collectors())?;
        }
        let revocations = Revocations::default();
        if settings.broker == BrokerChoice::Memory {
            // nothing was kept
            revocations.set_loaded();
        }
        Ok(Arc::new(Self {
            tls,
            connections: Connections::default(),
            tokens: Tokens::default(),
            revocations,
            census: Census::default(),
            rooms,
            authenticator: Authenticator::new(&settings.auth, jwks),
            admission: Admission::new(limits, capacity),
            inbound_rates: InboundRates::from(limits),
            drain: Drain::default(),
            contact: BrokerContact::default(),
            broker,
            env,
            settings,
        }))
    }
}

/// What clients are told for a proxy in front, when there is a key.
fn routing(settings: &Settings) -> Result<Option<Routing>, GatewayError> {
    let of = |key| Routing::new(key, settings.server_id.shared(), Clock::unix_seconds());
    Ok(settings.routing_key.as_ref().map(of).transpose()?)
}

/// What a broker is told about who is in rooms.
fn presence(settings: &Settings) -> PresenceSettings {
    PresenceSettings {
        server_id: settings.server_id.shared(),
        hold: settings.presences.hold(),
        announced: settings.limits.announce_members.get().unwrap_or(u32::MAX),
    }
}

/// The broker that the settings ask for.
fn broker(settings: &Settings, env: &Env, rooms: &Arc<Rooms>) -> Result<Arc<dyn Broker>, GatewayError> {
    let histories = settings.histories.clone();
    let sink: Arc<dyn Sink> = Arc::clone(rooms) as _;
    match &settings.broker {
        BrokerChoice::Memory => Ok(Arc::new(MemoryBroker::new(histories, sink))),
        BrokerChoice::Redis(url) => {
            let mut config = RedisConfig::from_url(url.expose())?.with_durability(settings.durability);
            if let Some(authorities) = &settings.broker_authorities {
                config = config.trusting(authorities.pem());
            }
            let config = config.with_events(settings.events.clone());
            let config = config.with_presence(presence(settings));
            let broker = RedisBroker::start(&config, histories, sink)?;
            env.metrics.register(broker.stats().collectors())?;
            Ok(Arc::new(broker))
        }
        BrokerChoice::Nats(url) => {
            let mut config = NatsConfig::from_url(url.expose())?.with_events(settings.events.clone());
            if let Some(authorities) = &settings.broker_authorities {
                config = config.trusting(authorities.pem());
            }
            let config = config.with_presence(presence(settings));
            let broker = NatsBroker::start(&config, histories, sink)?;
            env.metrics.register(broker.stats().collectors())?;
            Ok(Arc::new(broker))
        }
    }
}

impl Gateway {
    /// Who comes in, unless the token is revoked. The connection is in the table already, so that whichever comes later,
    /// this or a revocation, sees the other.
    pub(crate) fn let_in(&self, who: Identity, place: Place) -> Result<Identity, AuthError> {
        if let Some(token) = who.token_id.as_deref() {
            self.tokens.insert(token, place, &self.connections);
        }
        self.revocations.check(&who, Clock::unix_seconds())?;
        Ok(who)
    }

    /// Who goes on with another token, unless that is revoked.
    pub(crate) fn let_go_on(&self, who: Identity, place: Place) -> Result<Identity, AuthError> {
        self.revocations.check(&who, Clock::unix_seconds())?;
        self.tokens
            .replace(who.token_id.as_deref(), place, &self.connections);
        Ok(who)
    }

    /// What this gateway knows of is all there is, or is one gateway's part.
    pub fn own_scope(&self) -> &'static str {
        match self.settings.broker {
            BrokerChoice::Memory => "fleet",
            BrokerChoice::Redis(_) | BrokerChoice::Nats(_) => "gateway",
        }
    }

    /// Whether a client can resume on another gateway: what is kept in memory ends with this process.
    pub fn resumes_elsewhere(&self) -> bool {
        self.settings.broker != BrokerChoice::Memory && !self.env.resume_window.is_zero()
    }
}

/// Remembers the first contact with the broker: readiness needs it once.
#[derive(Debug, Default)]
pub struct BrokerContact(std::sync::atomic::AtomicBool);

impl BrokerContact {
    /// Whether the broker is, or ever was, reached.
    pub fn made(&self, broker: &dyn Broker) -> bool {
        use std::sync::atomic::Ordering::Relaxed;
        if broker.health().up {
            self.0.store(true, Relaxed);
        }
        self.0.load(Relaxed)
    }
}
