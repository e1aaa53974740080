//! From four layers to one [`Settings`].

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use super::args::{Args, Text};
use super::auth::AuthSettings;
use super::broker::{Authorities, BrokerChoice, Durability};
use super::error::{ConfigError, Layer};
use super::events::EventStream;
use super::history::{Histories, HistoryRule};
use super::limits::{LimitError, Limits};
use super::presence::Presences;
use super::secret::Secret;
use super::slow::SlowPolicies;
use super::values::{
    Allowed, AllowedOrigins, Compression, DrainWindow, HandshakeTimeout, LogFilter, LogFormat,
    MaxConnections, Revision, ServerId, TokenGrace, TrustedHops,
};
use crate::tls::TlsFiles;

/// Bytes of a bearer token or a routing key, at least: what cannot be guessed.
const SECRET_BYTES: usize = 16;

/// All settings of a gateway, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where back ends call.
    pub api_listen: SocketAddr,
    /// Where drain, state, metrics and health are served.
    pub admin_listen: SocketAddr,
    /// What carries messages between gateways.
    pub broker: BrokerChoice,
    /// Who vouches for the broker's server; none: those that the system trusts.
    pub broker_authorities: Option<Authorities>,
    /// What an acknowledged message has to survive.
    pub durability: Durability,
    /// Where clients' events go; `None`: they are not taken.
    pub events: Option<EventStream>,
    /// How clients are identified.
    pub auth: AuthSettings,
    /// How long a connection outlives its token, so that the client can send another.
    pub token_grace: TokenGrace,
    /// Where the certificate for clients is; `None`: no TLS.
    pub tls: Option<TlsFiles>,
    /// Bearer token of the server API; `None`: only loopback callers.
    pub api_key: Option<Secret>,
    /// Bearer token of the admin API; `None`: only loopback callers.
    pub admin_token: Option<Secret>,
    /// What routing tokens are signed with; `None`: there are none.
    pub routing_key: Option<Secret>,
    /// Sockets at a time.
    pub max_connections: MaxConnections,
    /// Time over which a drain after SIGTERM spreads its closes.
    pub drain_window: DrainWindow,
    /// Name of this gateway.
    pub server_id: ServerId,
    /// What the operator started.
    pub revision: Revision,
    /// All limits.
    pub limits: Limits,
    /// What gives way when a member of a room reads too slowly.
    pub slow_consumers: SlowPolicies,
    /// What is kept of messages.
    pub histories: Histories,
    /// Of which rooms it is known who is in them.
    pub presences: Presences,
    /// Whether permessage-deflate is negotiated.
    pub compression: Compression,
    /// Origins that browsers may connect from.
    pub allowed_origins: AllowedOrigins,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_hops: TrustedHops,
    /// From accept to the end of the upgrade request.
    pub handshake_timeout: HandshakeTimeout,
    /// Form of the log.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: LogFilter,
}

impl Settings {
    /// Settings from these flags, the process's environment, the file that either names, and defaults.
    pub fn load(flags: Args) -> Result<Self, ConfigError> {
        Self::load_with(flags, |name| {
            Some(std::env::var_os(name)?.to_string_lossy().into_owned())
        })
    }

    /// As [`Settings::load`], with another environment.
    pub fn load_with(flags: Args, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let environment = Args::from_environment(environment)?;
        let file = match flags.config.as_ref().or(environment.config.as_ref()) {
            Some(Text(path)) => Args::from_file(Path::new(path))?,
            None => Args::default(),
        };
        Layers {
            flags,
            environment,
            file,
        }
        .settings()
    }
}

pub(super) struct Layers {
    flags: Args,
    environment: Args,
    file: Args,
}

impl Layers {
    fn settings(&self) -> Result<Settings, ConfigError> {
        let histories = self.histories()?;
        let broker = self
            .value("broker", |args| &args.broker)?
            .unwrap_or(BrokerChoice::Memory);
        let settings = Settings {
            listen: self.address("listen", |args| &args.listen, ([0, 0, 0, 0], 8080))?,
            api_listen: self.address("api-listen", |args| &args.api_listen, ([127, 0, 0, 1], 8081))?,
            admin_listen: self.address("admin-listen", |args| &args.admin_listen, ([127, 0, 0, 1], 9090))?,
            events: self.events(&broker)?,
            broker,
            broker_authorities: self
                .text(|args| &args.broker_ca_file)
                .map(|(_, path)| Authorities::read(path))
                .transpose()?,
            durability: self
                .value("durability", |args| &args.durability)?
                .unwrap_or_default(),
            auth: self.auth()?,
            token_grace: self
                .value("token-grace", |args| &args.token_grace)?
                .unwrap_or_default(),
            tls: self.tls()?,
            api_key: self.secret("api-key-file", |args| &args.api_key_file)?,
            admin_token: self.secret("admin-token-file", |args| &args.admin_token_file)?,
            routing_key: self.secret("routing-key-file", |args| &args.routing_key_file)?,
            max_connections: self
                .value("max-connections", |args| &args.max_connections)?
                .unwrap_or_default(),
            drain_window: self
                .value("drain-window", |args| &args.drain_window)?
                .unwrap_or_default(),
            server_id: self.server_id()?,
            revision: self.value("revision", |args| &args.revision)?.unwrap_or_default(),
            limits: self.limits()?,
            slow_consumers: SlowPolicies::new(self.rules("slow-consumer", |args| &args.slow_consumer)?),
            presences: self.presences(histories.clone())?,
            histories,
            compression: self
                .value("compression", |args| &args.compression)?
                .unwrap_or_default(),
            allowed_origins: AllowedOrigins::new(self.rules("allowed-origin", |args| &args.allowed_origin)?),
            trusted_hops: self
                .value("trusted-hops", |args| &args.trusted_hops)?
                .unwrap_or_default(),
            handshake_timeout: self
                .value("handshake-timeout", |args| &args.handshake_timeout)?
                .unwrap_or_default(),
            log_format: self
                .value("log-format", |args| &args.log_format)?
                .unwrap_or_default(),
            log_filter: self
                .value("log-filter", |args| &args.log_filter)?
                .unwrap_or_default(),
        };
        distinct_ports(&settings)?;
        let authorities = settings.broker_authorities.as_ref();
        settings.broker.allows(settings.durability, authorities)?;
        Ok(settings)
    }

    /// From the layer that goes last to the one that goes first.
    fn rising(&self) -> [(Layer, &Args); 3] {
        [
            (Layer::File, &self.file),
            (Layer::Environment, &self.environment),
            (Layer::Flag, &self.flags),
        ]
    }

    pub(super) fn text(&self, field: fn(&Args) -> &Option<Text>) -> Option<(Layer, &str)> {
        let mut layers = self.rising().into_iter().rev();
        layers.find_map(|(layer, args)| Some((layer, field(args).as_ref()?.0.as_str())))
    }

    pub(super) fn value<T: FromStr<Err = Allowed>>(
        &self,
        flag: &'static str,
        field: fn(&Args) -> &Option<Text>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((layer, text)) = self.text(field) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|Allowed(allowed)| refused(flag, layer, text, allowed))
    }

    fn address(
        &self,
        flag: &'static str,
        field: fn(&Args) -> &Option<Text>,
        default: ([u8; 4], u16),
    ) -> Result<SocketAddr, ConfigError> {
        let Some((layer, text)) = self.text(field) else {
            return Ok(default.into());
        };
        let allowed = "an IP address and a port, such as 0.0.0.0:8080 or [::]:8080";
        text.parse().map_err(|_| refused(flag, layer, text, allowed))
    }

    fn secret(
        &self,
        flag: &'static str,
        field: fn(&Args) -> &Option<Text>,
    ) -> Result<Option<Secret>, ConfigError> {
        self.text(field)
            .map(|(_, path)| Secret::read(flag, path, SECRET_BYTES))
            .transpose()
    }

    /// The files are looked at here, so that a wrong one is known before any port is bound.
    fn tls(&self) -> Result<Option<TlsFiles>, ConfigError> {
        let path = |field| self.text(field).map(|(_, path)| path.into());
        let files = match (path(|args| &args.tls_cert_file), path(|args| &args.tls_key_file)) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => TlsFiles { cert, key },
            (cert, _) => {
                return Err(ConfigError::Missing {
                    flag: if cert.is_some() {
                        "tls-key-file"
                    } else {
                        "tls-cert-file"
                    },
                    because: "a certificate needs its key, and a key its certificate; give both, or neither for no TLS",
                });
            }
        };
        files.check()?;
        Ok(Some(files))
    }

    fn server_id(&self) -> Result<ServerId, ConfigError> {
        if let Some(id) = self.value("server-id", |args| &args.server_id)? {
            return Ok(id);
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        host.parse().map_err(|_| ConfigError::Missing {
            flag: "server-id",
            because: "the host name cannot be used; give a name of 1 to 253 bytes without white space",
        })
    }

    pub(super) fn not_empty(
        &self,
        flag: &'static str,
        field: fn(&Args) -> &Option<Text>,
    ) -> Result<Option<String>, ConfigError> {
        match self.text(field) {
            Some((layer, "")) => Err(refused(flag, layer, "", "a text that is not empty")),
            found => Ok(found.map(|(_, text)| text.to_owned())),
        }
    }

    fn limits(&self) -> Result<Limits, ConfigError> {
        let mut limits = Limits::default();
        for (layer, args) in self.rising() {
            for pair in &args.limit {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                limits.set(key.trim(), value.trim()).map_err(|error| {
                    let allowed = match error {
                        LimitError::UnknownKey => {
                            format!("KEY=VALUE with one of {}", Limits::KEYS.join(", "))
                        }
                        LimitError::Value { min, max } => {
                            format!("{}=NUMBER from {min} to {max}, or 0 to switch it off", key.trim())
                        }
                    };
                    ConfigError::Value {
                        flag: "limit",
                        layer,
                        value: pair.clone(),
                        allowed,
                    }
                })?;
            }
        }
        match limits.contradiction() {
            Some(problem) => Err(ConfigError::Conflict {
                flag: "limit",
                problem,
            }),
            None => Ok(limits),
        }
    }

    /// The list of the layer that goes first, of those that have one.
    fn rules<T: FromStr<Err = Allowed>>(
        &self,
        flag: &'static str,
        field: fn(&Args) -> &Vec<String>,
    ) -> Result<Vec<T>, ConfigError> {
        let given = |(_, args): &(Layer, &Args)| !field(args).is_empty();
        let Some((layer, args)) = self.rising().into_iter().rev().find(given) else {
            return Ok(Vec::new());
        };
        let rules = field(args).iter().map(|text| {
            let parsed = text.parse::<T>();
            parsed.map_err(|Allowed(allowed)| refused(flag, layer, text, allowed))
        });
        rules.collect()
    }

    fn histories(&self) -> Result<Histories, ConfigError> {
        let rooms = self.rules::<HistoryRule>("history", |args| &args.history)?;
        let direct = self.value("direct-history", |args| &args.direct_history)?;
        Ok(Histories::new(rooms, direct.unwrap_or_default()))
    }

    fn presences(&self, histories: Histories) -> Result<Presences, ConfigError> {
        let rules = self.rules("presence", |args| &args.presence)?;
        let hold = self.value("presence-hold", |args| &args.presence_hold)?;
        Ok(Presences::new(rules, hold.unwrap_or_default(), histories))
    }
}

fn refused(flag: &'static str, layer: Layer, value: &str, allowed: &str) -> ConfigError {
    // a URL may hold a password
    let value = if value.contains('@') { "…" } else { value };
    ConfigError::Value {
        flag,
        layer,
        value: value.to_owned(),
        allowed: allowed.to_owned(),
    }
}

/// Three ports because they have three trust domains: one must not hide another.
fn distinct_ports(settings: &Settings) -> Result<(), ConfigError> {
    let clash = |a: SocketAddr, b: SocketAddr| {
        let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() != 0 && a.port() == b.port() && same_ip
    };
    let problem = "is in the way of another listener; give --listen, --api-listen and --admin-listen ports of their own";
    if clash(settings.listen, settings.api_listen) {
        return Err(ConfigError::Conflict {
            flag: "api-listen",
            problem,
        });
    }
    if clash(settings.listen, settings.admin_listen) || clash(settings.api_listen, settings.admin_listen) {
        return Err(ConfigError::Conflict {
            flag: "admin-listen",
            problem,
        });
    }
    Ok(())
}
