//! The flags, as text. The environment and the configuration file are read into the same shape, so that a value is
//! checked in one way wherever it came from.

use std::fmt;
use std::path::Path;

use clap::{CommandFactory, Parser};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::error::ConfigError;
use super::limits::Limits;

/// A WebSocket gateway: holds sockets, rooms and direct messages, alone or as one of many.
///
/// Every flag can be given as the environment variable WSFLEET_FLAG_NAME (lists separated by commas) or in the file that
/// --config names (camelCase, `limits` as a map). A flag goes before the environment, that before the file.
#[derive(Clone, Debug, Default, Parser, Deserialize)]
#[command(
    name = "wsfleet-gateway",
    version,
    after_help = after_help()
)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Args {
    /// Where clients connect: GET /ws, GET /healthz [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<Text>,
    /// Where back ends call the server API [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub api_listen: Option<Text>,
    /// Where drain, state, metrics and health are served [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin_listen: Option<Text>,
    /// What carries messages between gateways: memory (none), redis://host:port, redis-sentinel://host:port,…/master, or
    /// redis-cluster://host:port,…; rediss://, rediss-sentinel://, rediss-cluster:// with TLS; or nats://host:port,…?replicas=3,
    /// tls://… with TLS (JetStream) [default: memory]
    #[arg(long, value_name = "memory|URL")]
    pub broker: Option<Text>,
    /// File (PEM) with the authorities that vouch for a broker with TLS [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    pub broker_ca_file: Option<Text>,
    /// Who has a message when it is acknowledged: Redis's master (primary), or a replica, too (replicated) [default: primary]
    #[arg(long, value_name = "primary|replicated")]
    pub durability: Option<Text>,
    /// Whether clients' events are appended to a stream of Redis or NATS for workers [default: on with Redis and NATS]
    #[arg(long, value_name = "on|off")]
    pub events: Option<Text>,
    /// Key of that stream in Redis; in NATS it is <prefix>-events [default: wsfleet:events]
    #[arg(long, value_name = "NAME")]
    pub event_stream: Option<Text>,
    /// Entries that the stream keeps, about; the oldest go, read or not [default: 1000000]
    #[arg(long, value_name = "NUMBER")]
    pub event_stream_length: Option<Text>,
    /// How clients are identified; insecure-token (?token=abc is user_abc) is for development [default: jwt]
    #[arg(long, value_name = "jwt|insecure-token|anonymous")]
    pub auth: Option<Text>,
    /// File with the secret that tokens are signed with: HS256, from 48 bytes HS384, from 64 bytes HS512
    #[arg(long, value_name = "FILE")]
    pub jwt_secret_file: Option<Text>,
    /// Where the issuer's public keys are (a JWK set): RS256, RS384, RS512, ES256, ES384, EdDSA
    #[arg(long, value_name = "URL")]
    pub jwks_url: Option<Text>,
    /// Audience that tokens must name
    #[arg(long, value_name = "TEXT")]
    pub jwt_audience: Option<Text>,
    /// Issuer that tokens must name
    #[arg(long, value_name = "TEXT")]
    pub jwt_issuer: Option<Text>,
    /// How far the issuer's clock may be from this one's, for exp and nbf [default: 5]
    #[arg(long, value_name = "SECONDS")]
    pub jwt_leeway: Option<Text>,
    /// Whether a token without the claim `rooms` opens every room (optional) or none (required) [default: optional]
    #[arg(long, value_name = "optional|required")]
    pub rooms_claim: Option<Text>,
    /// How long a connection outlives its token, for the client to send another [default: 25]
    #[arg(long, value_name = "SECONDS")]
    pub token_grace: Option<Text>,
    /// PEM file with the certificate for clients, then its issuers': with it, clients connect by TLS (wss://)
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<Text>,
    /// PEM file with the certificate's key; both files are read again when they change
    #[arg(long, value_name = "FILE")]
    pub tls_key_file: Option<Text>,
    /// File with the bearer token of the server API; without it only loopback callers are served
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<Text>,
    /// File with the bearer token of the admin API; without it only loopback callers are served
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<Text>,
    /// File with the key, the same for a whole fleet, that gateways sign routing tokens with: hints for a proxy in front, which
    /// clients send as ?routing= when they come back; without it there are none
    #[arg(long, value_name = "FILE")]
    pub routing_key_file: Option<Text>,
    /// Sockets at a time; lowered to what the descriptor limit allows [default: 20000]
    #[arg(long, value_name = "NUMBER")]
    pub max_connections: Option<Text>,
    /// Seconds over which a drain after SIGTERM spreads its closes [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub drain_window: Option<Text>,
    /// Name of this gateway in messages and metrics [default: host name]
    #[arg(long, value_name = "NAME")]
    pub server_id: Option<Text>,
    /// Revision that the operator started, told in the state
    #[arg(long, value_name = "TEXT")]
    pub revision: Option<Text>,
    /// A limit, see below; 0 is off; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    #[serde(rename = "limits", deserialize_with = "pairs")]
    pub limit: Vec<String>,
    /// What gives way in rooms like PATTERN (* is any text) when a member reads too slowly: disconnect, dropOldest or
    /// keepLatest (of each sender); the first that matches counts; repeatable [default: *=disconnect]
    #[arg(long, value_name = "PATTERN=POLICY")]
    #[serde(rename = "slowConsumers")]
    pub slow_consumer: Vec<String>,
    /// What is kept of the messages of rooms like PATTERN (* is any text), for members that come back: so many for so long,
    /// off, or ephemeral (not even offsets); the first that matches counts; repeatable [default: *=300/300]
    #[arg(long, value_name = "PATTERN=MESSAGES/SECONDS|off|ephemeral")]
    pub history: Vec<String>,
    /// What is kept of direct messages [default: 300/300]
    #[arg(long, value_name = "MESSAGES/SECONDS|off")]
    pub direct_history: Option<Text>,
    /// Whether it is known who is in rooms like PATTERN (* is any text), and told who comes and goes; the first that matches
    /// counts; repeatable [default: *=on, but off where --history is ephemeral]
    #[arg(long, value_name = "PATTERN=on|off")]
    pub presence: Vec<String>,
    /// Seconds that a user who has left a room may be away before it is told [default: 15]
    #[arg(long, value_name = "SECONDS")]
    pub presence_hold: Option<Text>,
    /// Whether permessage-deflate is negotiated with clients that offer it [default: on]
    #[arg(long, value_name = "on|off")]
    pub compression: Option<Text>,
    /// Origin that browsers may connect from, such as `https://chat.example.com`; repeatable [default: any]
    #[arg(long, value_name = "ORIGIN")]
    #[serde(rename = "allowedOrigins")]
    pub allowed_origin: Vec<String>,
    /// Proxies in front whose X-Forwarded-For is believed [default: 0]
    #[arg(long, value_name = "NUMBER")]
    pub trusted_hops: Option<Text>,
    /// How long a client may take for its upgrade request [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub handshake_timeout: Option<Text>,
    /// [default: text]
    #[arg(long, value_name = "text|json")]
    pub log_format: Option<Text>,
    /// What is logged, such as info or warn,wsfleet_gateway=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<Text>,
    /// YAML file with settings
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<Text>,
}

fn after_help() -> String {
    format!(
        "{}\n\nStarted with no flag and no WSFLEET_ variable at all it runs in development mode: \
         --auth insecure-token, on 127.0.0.1:8080.\n\nExit codes: 0 drained, 1 failure, 64 wrong settings.",
        Limits::help()
    )
}

/// The text of a value; YAML may also give a number or a boolean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub(super) String);

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }

            fn visit_str<E>(self, value: &str) -> Result<Text, E> {
                Ok(Text(value.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

/// `limits: {messageBytes: 1024}` as `messageBytes=1024`.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of limits, such as {messageBytes: 65536}")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
            let mut pairs = Vec::new();
            while let Some((key, Text(value))) = map.next_entry::<String, Text>()? {
                pairs.push(format!("{key}={value}"));
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

impl Args {
    /// Reads a command line, the program's name included.
    pub fn from_command_line<I, T>(words: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        Self::try_parse_from(words).map_err(ConfigError::CommandLine)
    }

    /// Reads the environment. An empty variable counts as not set.
    pub(super) fn from_environment(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut words = vec![String::new()];
        for flag in Self::flags() {
            let name = format!("WSFLEET_{}", flag.replace('-', "_").to_ascii_uppercase());
            let Some(value) = lookup(&name).filter(|value| !value.is_empty()) else {
                continue;
            };
            match flag.as_str() {
                "limit" | "allowed-origin" | "slow-consumer" | "history" | "presence" => {
                    words.extend(value.split(',').map(|part| format!("--{flag}={}", part.trim())));
                }
                _ => words.push(format!("--{flag}={value}")),
            }
        }
        Self::from_command_line(words)
    }

    /// Reads a configuration file.
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let problem = |problem: String| ConfigError::File {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml_ng::from_str(&text).map_err(|error| problem(error.to_string()))
    }

    /// Every flag that is a setting, without dashes.
    pub(super) fn flags() -> impl Iterator<Item = String> {
        let command = Self::command();
        let flags: Vec<_> = command
            .get_arguments()
            .filter_map(|arg| arg.get_long().map(str::to_owned))
            .collect();
        flags
            .into_iter()
            .filter(|flag| flag != "help" && flag != "version")
    }
}
