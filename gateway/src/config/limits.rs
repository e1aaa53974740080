//! The limits of a gateway: keys, defaults and allowed ranges of `--limit KEY=VALUE`.

use std::fmt::{self, Write as _};

/// One limit: a number of whatever it limits, or off. 4 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit(u32);

impl Limit {
    /// No limit.
    pub const OFF: Self = Self(u32::MAX);
    /// Nothing is allowed.
    pub const NOTHING: Self = Self(0);

    /// A limit of `value`; 0 is [`Limit::OFF`], and so is `u32::MAX`.
    pub const fn new(value: u32) -> Self {
        if value == 0 { Self::OFF } else { Self(value) }
    }

    /// The number, `None` when off.
    pub const fn get(self) -> Option<u32> {
        if self.0 == Self::OFF.0 { None } else { Some(self.0) }
    }

    /// The number as it is written in settings: 0 when off.
    pub const fn as_setting(self) -> u32 {
        if self.0 == Self::OFF.0 { 0 } else { self.0 }
    }

    /// Whether having `amount` is within the limit.
    pub const fn allows(self, amount: usize) -> bool {
        self.0 == Self::OFF.0 || amount <= self.0 as usize
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(value) => value.fmt(f),
            None => f.write_str("off"),
        }
    }
}

/// Largest message, in bytes, when `messageBytes` is off: a buffer must have an end.
const MESSAGE_CEILING: usize = 16 << 20;
/// Largest queue of a connection, in bytes, when `queueBytes` is off.
const QUEUE_BYTES_CEILING: usize = 64 << 20;
/// Longest queue of a connection, in messages, when `queueMessages` is off.
const QUEUE_MESSAGES_CEILING: usize = 1 << 20;

macro_rules! limits {
    ($($(#[$doc:meta])* $field:ident: $key:literal = $default:literal, in $min:literal..=$max:literal;)*) => {
        /// All limits of a gateway. Each is off when set to 0 (`announceMembers`: announcements are off).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Limits {
            $($(#[$doc])* pub $field: Limit,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: Limit::new($default),)* }
            }
        }

        impl Limits {
            /// Every key of `--limit`, in the order of the documentation.
            pub const KEYS: &[&str] = &[$($key),*];

            /// Sets the limit that `key` names.
            pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), LimitError> {
                match key {
                    $($key => self.$field = parse(value, $min, $max)?,)*
                    _ => return Err(LimitError::UnknownKey),
                }
                // switched off, announcements are never made; the other limits, when off, allow anything
                if self.announce_members == Limit::OFF {
                    self.announce_members = Limit::NOTHING;
                }
                Ok(())
            }

            /// Key and value (0 when off) of every limit.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, Limit)> {
                [$(($key, self.$field)),*].into_iter()
            }
        }
    };
}

limits! {
    /// Bytes of one client message, assembled. Larger: closed with 1009.
    message_bytes: "messageBytes" = 65_536, in 128..=16_777_216;
    /// Bytes of a room's name.
    room_name_bytes: "roomNameBytes" = 255, in 1..=4_096;
    /// Rooms that one connection is in at a time.
    rooms_per_connection: "roomsPerConnection" = 128, in 1..=100_000;
    /// Messages per second from one connection, burst twice that.
    messages_per_second: "messagesPerSecond" = 50, in 1..=1_000_000;
    /// Bytes per second from one connection, burst twice that.
    bytes_per_second: "bytesPerSecond" = 1_048_576, in 128..=2_147_483_647;
    /// Upgrades per second, all clients together. Off by default: set it to what the machine's CPUs can do beside
    /// serving the sockets that are there.
    handshakes_per_second: "handshakesPerSecond" = 0, in 1..=1_000_000;
    /// Connections between accept and upgrade at a time.
    handshake_concurrency: "handshakeConcurrency" = 1_000, in 1..=100_000;
    /// Connections from one address (IPv6: one /64) to this gateway at a time.
    connections_per_ip: "connectionsPerIp" = 100, in 1..=10_000_000;
    /// Upgrades per second from one address (IPv6: one /64), burst twice that.
    handshakes_per_second_per_ip: "handshakesPerSecondPerIp" = 20, in 1..=1_000_000;
    /// Connections of one user at a time: in the whole fleet with Redis, else to this gateway.
    connections_per_user: "connectionsPerUser" = 16, in 1..=10_000_000;
    /// Bytes that may wait for one slow connection; more: closed with 4102.
    queue_bytes: "queueBytes" = 262_144, in 1_024..=67_108_864;
    /// Messages that may wait for one slow connection; more: closed with 4102.
    queue_messages: "queueMessages" = 1_000, in 1..=1_048_576;
    /// Rooms with more members on this gateway get no `user_joined` and `user_left`: the announcements of n members
    /// to n members grow with n². Setting 0 is never ([`Limit::NOTHING`]).
    announce_members: "announceMembers" = 256, in 1..=10_000_000;
    /// Seconds after which a connection is closed with 4200, each at its own time, 10 % around that: so a fleet of which
    /// clients never leave evens out all the time.
    connection_age_seconds: "connectionAgeSeconds" = 0, in 600..=2_592_000;
}

/// Why a limit is refused; the words follow `--limit KEY=VALUE: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LimitError {
    /// No limit has that name.
    UnknownKey,
    /// Not a number, or not in the range.
    Value {
        /// Smallest value but 0.
        min: u32,
        /// Largest value.
        max: u32,
    },
}

fn parse(value: &str, min: u32, max: u32) -> Result<Limit, LimitError> {
    match value.parse::<u32>() {
        Ok(0) => Ok(Limit::OFF),
        Ok(number) if (min..=max).contains(&number) => Ok(Limit::new(number)),
        _ => Err(LimitError::Value { min, max }),
    }
}

impl Limits {
    /// Largest client message in bytes: the setting, or 16 MiB when off.
    pub fn max_message_bytes(&self) -> usize {
        self.message_bytes
            .get()
            .map_or(MESSAGE_CEILING, |bytes| bytes as usize)
    }

    /// Most bytes that wait for a connection: the setting, or 64 MiB when off.
    pub fn max_queue_bytes(&self) -> usize {
        self.queue_bytes
            .get()
            .map_or(QUEUE_BYTES_CEILING, |bytes| bytes as usize)
    }

    /// Most messages that wait for a connection: the setting, or 1,048,576 when off.
    pub fn max_queue_messages(&self) -> usize {
        self.queue_messages
            .get()
            .map_or(QUEUE_MESSAGES_CEILING, |count| count as usize)
    }

    /// The keys and their defaults, for `--help`.
    pub(super) fn help() -> String {
        let mut text = String::from("Limits (--limit KEY=VALUE, 0 is off) and their defaults:");
        for (key, limit) in Self::default().iter() {
            // writing to a String cannot fail
            let _ = write!(text, "\n  {key}={}", limit.as_setting());
        }
        text
    }

    /// What contradicts what, in words; `None` when the limits fit together.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        if self.max_queue_bytes() < self.max_message_bytes() {
            return Some(
                "queueBytes must not be less than messageBytes: a slow client could never be sent the largest message",
            );
        }
        let burst = self.bytes_per_second.get().map(|rate| rate as usize * 2);
        if burst.is_some_and(|burst| burst < self.max_message_bytes()) {
            return Some(
                "twice bytesPerSecond must not be less than messageBytes: the largest message would never be accepted",
            );
        }
        None
    }
}
