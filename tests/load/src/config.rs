//! What a load run shall do. Checked as a whole by [`LoadConfig::validate`] before a socket is opened.

use std::net::IpAddr;
use std::time::Duration;

use crate::target::Target;

/// How long servers know a `msgId`.
const MSG_ID_AGE: Duration = Duration::from_mins(5);

/// How rooms are laid over the clients; a client is known by its index, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomLayout {
    /// So many rooms in all; client `i` joins rooms `i`, `i+1`, … modulo their number.
    Count(u32),
    /// Rooms of so many members; clients fill one after the other.
    Size(u32),
}

impl RoomLayout {
    /// Index of the `nth` of `per_client` rooms of client `client`.
    pub(crate) const fn room(self, client: u32, nth: u32, per_client: u32) -> u32 {
        match self {
            Self::Count(rooms) => (client % rooms + nth) % rooms,
            Self::Size(size) => (client / size) * per_client + nth,
        }
    }
}

/// How clients prove who they are. Client `i` is user `<prefix><i>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenMode {
    /// No token.
    Anonymous,
    /// `?token=<prefix><i>`, which a gateway with `--auth insecure-token` takes at its word.
    Insecure,
    /// `?token=` with a JSON Web Token signed with HS256, made anew for each handshake, valid for one hour.
    Jwt {
        /// The shared secret's bytes.
        secret: Vec<u8>,
        /// The `aud` claim, when the gateway checks it.
        audience: Option<String>,
        /// The `iss` claim, when the gateway checks it.
        issuer: Option<String>,
    },
}

/// What a client does with its old socket when the server tells it to reconnect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// Opens the new socket at the told time, joins, and only then closes the old one with 1000.
    #[default]
    MakeBeforeBreak,
    /// Waits for the old socket's close, then for the rest of the told time: a naive client.
    BreakBeforeMake,
}

/// One load run. All rates are per second; 0 switches the matter off.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// Where to connect to; with several, each socket takes one at random, but not its client's latest one.
    pub targets: Vec<Target>,
    /// Where the first socket of client `i` goes: to entry `i` modulo their number, so that a test decides how many
    /// sockets a gateway holds. Later sockets go to `targets`, and the first ones too when this is empty.
    pub first_targets: Vec<Target>,
    /// Clients to open.
    pub connections: u32,
    /// New clients per second while ramping up.
    pub rate: f64,
    /// First handshakes under way at the same time, at most.
    pub connect_concurrency: u32,
    /// How rooms are laid over clients.
    pub rooms: RoomLayout,
    /// Rooms that each client joins.
    pub rooms_per_connection: u32,
    /// Rooms are called `<prefix><index>`.
    pub room_prefix: String,
    /// Messages published per second, by all clients together.
    pub publish_rate: f64,
    /// Bytes of a message's payload (its JSON text); at least what the bookkeeping in it needs.
    pub payload_bytes: usize,
    /// How clients prove who they are.
    pub token: TokenMode,
    /// Users are called `<prefix><index>`; letters, digits, `-`, `_`, `.`.
    pub user_prefix: String,
    /// What a client does when told to reconnect.
    pub reconnect: Reconnect,
    /// Window over which a client spreads a reconnect for which it was told no delay.
    pub reconnect_window: Duration,
    /// How long a message may be under way before it counts as lost.
    pub grace: Duration,
    /// Whether clients that come back say where they were.
    pub resume: bool,
    /// How long a message that was not acknowledged is sent again, with the same `msgId`; zero: it is sent once, without one.
    /// Servers know a `msgId` for 5 minutes.
    pub retry: Duration,
    /// Local addresses to connect from, in turn; more than one gives more than one range of ports.
    pub sources: Vec<IpAddr>,
}

impl LoadConfig {
    /// The defaults of the command line, for one target: 100 clients at 500/s in one room, 10 messages per second.
    pub fn new(target: Target) -> Self {
        Self {
            targets: vec![target],
            first_targets: Vec::new(),
            connections: 100,
            rate: 500.0,
            connect_concurrency: 500,
            rooms: RoomLayout::Count(1),
            rooms_per_connection: 1,
            room_prefix: "load-".into(),
            publish_rate: 10.0,
            payload_bytes: 100,
            token: TokenMode::Insecure,
            user_prefix: "load-".into(),
            reconnect: Reconnect::default(),
            reconnect_window: Duration::from_secs(15),
            grace: Duration::from_secs(5),
            resume: true,
            retry: Duration::from_mins(1),
            sources: Vec::new(),
        }
    }

    /// Checks what types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.targets.is_empty() {
            return Err(ConfigError::NoTarget);
        }
        positive("--rate", self.rate)?;
        if !self.publish_rate.is_finite() || self.publish_rate < 0.0 {
            return Err(ConfigError::NotARate {
                flag: "--publish-rate",
                value: self.publish_rate,
            });
        }
        let rooms = match self.rooms {
            RoomLayout::Count(count) => count,
            RoomLayout::Size(size) => size,
        };
        for (flag, value) in [
            ("--rooms or --room-size", rooms),
            ("--connect-concurrency", self.connect_concurrency),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { flag });
            }
        }
        if let RoomLayout::Count(count) = self.rooms
            && self.rooms_per_connection > count
        {
            return Err(ConfigError::TooFewRooms {
                rooms: count,
                wanted: self.rooms_per_connection,
            });
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.user_prefix.len() > 100 || !self.user_prefix.chars().all(plain) {
            return Err(ConfigError::UserPrefix);
        }
        if self.retry > MSG_ID_AGE {
            return Err(ConfigError::Retry);
        }
        if self.payload_bytes > 1 << 20 {
            return Err(ConfigError::PayloadTooLarge);
        }
        Ok(())
    }

    /// The user id's own part of a client: what the token says.
    pub(crate) fn user(&self, client: u32) -> String {
        format!("{}{client}", self.user_prefix)
    }
}

fn positive(flag: &'static str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(ConfigError::NotARate { flag, value })
    }
}

/// A setting that cannot work; the text names the flag of the command line and says what would.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ConfigError {
    /// Nothing to connect to.
    #[error("--url: at least one address is needed, such as ws://127.0.0.1:8080/ws")]
    NoTarget,
    /// Not a usable rate.
    #[error("{flag}: {value} is not a rate; give a number per second above 0")]
    NotARate {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: f64,
    },
    /// Zero where at least one is needed.
    #[error("{flag}: must be at least 1")]
    Zero {
        /// The flag.
        flag: &'static str,
    },
    /// A client cannot join the same room twice.
    #[error("--rooms-per-connection: {wanted} is more than the {rooms} rooms of --rooms")]
    TooFewRooms {
        /// Rooms there are.
        rooms: u32,
        /// Rooms per client wanted.
        wanted: u32,
    },
    /// The prefix ends up in a query string and in a claim.
    #[error("--user-prefix: at most 100 letters, digits, '-', '_' and '.' are allowed")]
    UserPrefix,
    /// The server would take it for another message.
    #[error("--retry: at most 5m, which is how long servers know a msgId")]
    Retry,
    /// No gateway takes it.
    #[error("--payload-bytes: at most 1048576 (1 MiB)")]
    PayloadTooLarge,
    /// More sockets than the process may open.
    #[error(
        "--connections: {wanted} sockets need about {needed} descriptors, and this process may open {limit} \
         (ulimit -Hn); run several processes, each with its own --user-prefix"
    )]
    Descriptors {
        /// Clients wanted.
        wanted: u32,
        /// Descriptors that takes.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut LoadConfig);

    fn config() -> LoadConfig {
        LoadConfig::new("ws://127.0.0.1:1/ws".parse().unwrap())
    }

    #[test]
    fn the_defaults_are_valid_and_wrong_settings_name_their_flag() {
        assert_eq!(config().validate(), Ok(()));
        let cases: [(Change, &str); 7] = [
            (|c| c.rate = 0.0, "--rate"),
            (|c| c.publish_rate = f64::NAN, "--publish-rate"),
            (|c| c.rooms = RoomLayout::Size(0), "--room-size"),
            (|c| c.rooms_per_connection = 2, "--rooms-per-connection"),
            (|c| c.user_prefix = "a b".into(), "--user-prefix"),
            (|c| c.retry = Duration::from_secs(301), "--retry"),
            (|c| c.payload_bytes = 2 << 20, "--payload-bytes"),
        ];
        for (change, flag) in cases {
            let mut config = config();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn rooms_by_count_wrap_around_and_rooms_by_size_fill_one_after_the_other() {
        let count = RoomLayout::Count(3);
        assert_eq!([0, 1, 2, 3].map(|client| count.room(client, 1, 2)), [1, 2, 0, 1]);
        let size = RoomLayout::Size(2);
        assert_eq!([0, 1, 2, 3].map(|client| size.room(client, 0, 2)), [0, 0, 2, 2]);
        assert_eq!(size.room(3, 1, 2), 3);
    }
}
