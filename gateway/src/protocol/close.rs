//! Close codes: what each tells the client to do (RFC 6455 §7.4, its IANA registry, and 4000–4299 of our own).

/// A close code as it goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

/// What a client does after a close, §2.5 of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconnectAdvice {
    /// Does not reconnect unchanged: it was asked for, or would end the same way again.
    Stop,
    /// Reconnects after the delay that its `server_shutdown` named.
    OwnDelay,
    /// Backs off with full jitter, 1–30 s.
    BackOff,
    /// Reconnects after a random time within the reconnect window.
    Soon,
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl CloseCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// Every code that has a name here.
            pub const NAMED: &[Self] = &[$(Self::$name),*];
        }
    };
}

close_codes! {
    /// Done, as asked for.
    NORMAL = 1000;
    /// The server goes away: drain.
    GOING_AWAY = 1001;
    /// The peer broke RFC 6455.
    PROTOCOL_ERROR = 1002;
    /// A kind of message that is not served: binary frames on a JSON connection, text frames on a binary one.
    UNSUPPORTED = 1003;
    /// Only ever inside a program: the peer's close frame carried no code (§7.1.5).
    NO_STATUS = 1005;
    /// Only ever inside a program: the connection ended without a close frame (§7.1.5).
    ABNORMAL = 1006;
    /// Text that is not UTF-8, or compressed data that is no DEFLATE stream.
    INVALID_DATA = 1007;
    /// Against a policy that has no code of its own.
    POLICY = 1008;
    /// Message larger than `messageBytes`.
    TOO_BIG = 1009;
    /// A fault of the server.
    INTERNAL = 1011;
    /// The server restarts: drain.
    SERVICE_RESTART = 1012;
    /// The server is overloaded.
    TRY_AGAIN_LATER = 1013;
    /// No valid token.
    UNAUTHORIZED = 4001;
    /// Valid token that does not allow this.
    FORBIDDEN = 4003;
    /// A back end has revoked the token, or all of the user.
    REVOKED = 4005;
    /// The gateway has no room for more connections.
    OVER_CAPACITY = 4100;
    /// Too many messages or bytes for too long.
    RATE_LIMITED = 4101;
    /// More waited for the client than the queue holds.
    SLOW_CONSUMER = 4102;
    /// The user has too many connections.
    CONNECTION_LIMIT = 4103;
    /// The message broker could not be reached.
    BROKER_UNAVAILABLE = 4104;
    /// Moved to even out the fleet.
    REBALANCE = 4200;
    /// No answer to a ping.
    NO_PONG = 4201;
    /// The token's `exp` has passed.
    TOKEN_EXPIRED = 4202;
}

impl CloseCode {
    /// The code `value`, if a close frame may carry it: 1000–1003, 1007–1014, 3000–4999 (RFC 6455 §7.4.2 and the IANA
    /// registry). 1004–1006 and 1015 must never be sent; the rest below 3000 is unassigned.
    pub const fn from_wire(value: u16) -> Option<Self> {
        match value {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(value)),
            _ => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// What a client does after a close with this code.
    pub const fn advice(self) -> ReconnectAdvice {
        match self.0 {
            1001 | 1012 => ReconnectAdvice::OwnDelay,
            1005 | 1006 | 1011 | 1013 | 1014 | 4100..=4199 => ReconnectAdvice::BackOff,
            4200..=4299 => ReconnectAdvice::Soon,
            _ => ReconnectAdvice::Stop,
        }
    }
}

/// Who began a close; label `initiator` of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Initiator {
    /// The client sent the first close frame, or cut the connection.
    Client,
    /// The gateway sent the first close frame.
    Server,
}

impl Initiator {
    /// Label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

macro_rules! close_reasons {
    ($($(#[$doc:meta])* $name:ident: $label:literal, $code:ident, $text:literal;)*) => {
        /// Why a connection ended: a bounded label of metrics, and the text of the close frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseReason {
            $($(#[$doc])* $name,)*
        }

        impl CloseReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Label of metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The code of the close frame. For a drain this is the default; the drain request may name another.
            pub const fn code(self) -> CloseCode {
                match self { $(Self::$name => CloseCode::$code,)* }
            }

            /// The reason text of the close frame; at most 123 bytes (RFC 6455 §5.5).
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

close_reasons! {
    /// The client closed.
    Client: "client", NORMAL, "";
    /// The connection was cut without a close frame.
    Cut: "cut", ABNORMAL, "";
    /// Drained, by request of the operator or after SIGTERM.
    Drain: "drain", SERVICE_RESTART, "server is draining";
    /// The client broke RFC 6455.
    ProtocolError: "protocol_error", PROTOCOL_ERROR, "protocol error";
    /// Binary frames on a JSON connection.
    Unsupported: "unsupported", UNSUPPORTED, "only text frames are served";
    /// Text that is not UTF-8.
    InvalidData: "invalid_data", INVALID_DATA, "text is not UTF-8";
    /// Marked as compressed, but no DEFLATE stream.
    InvalidDeflate: "invalid_deflate", INVALID_DATA, "compressed message is not DEFLATE";
    /// More than 1,024 fragments of one message were empty.
    EmptyFragments: "empty_fragments", POLICY, "too many empty fragments";
    /// Message larger than `messageBytes`.
    TooBig: "too_big", TOO_BIG, "message too big";
    /// No valid token.
    Unauthorized: "unauthorized", UNAUTHORIZED, "Unauthorized";
    /// The token's key is not known, and the issuer's keys cannot be had at the moment.
    KeysUnavailable: "keys_unavailable", TRY_AGAIN_LATER, "cannot verify tokens at the moment";
    /// Not allowed.
    Forbidden: "forbidden", FORBIDDEN, "Forbidden";
    /// The gateway has no room for more connections.
    OverCapacity: "over_capacity", OVER_CAPACITY, "over capacity";
    /// Too many messages or bytes for too long.
    RateLimited: "rate_limited", RATE_LIMITED, "rate limit exceeded for too long";
    /// More waited for the client than the queue holds.
    SlowConsumer: "slow_consumer", SLOW_CONSUMER, "reads too slowly";
    /// The user has too many connections.
    ConnectionLimit: "connection_limit", CONNECTION_LIMIT, "too many connections of this user";
    /// The message broker could not be reached.
    BrokerUnavailable: "broker_unavailable", BROKER_UNAVAILABLE, "message broker unavailable";
    /// No answer to a ping.
    NoPong: "no_pong", NO_PONG, "no pong";
    /// The token's `exp` has passed.
    TokenExpired: "token_expired", TOKEN_EXPIRED, "token expired";
    /// Open for longer than `connectionAgeSeconds`.
    Aged: "aged", REBALANCE, "connect again: connections move from time to time";
    /// A back end asked for it.
    Disconnected: "disconnected", NORMAL, "disconnected by the server";
    /// A back end has revoked the token, or all of the user.
    Revoked: "revoked", REVOKED, "token was revoked";
    /// A fault of the gateway.
    Internal: "internal", INTERNAL, "internal error";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_fits_a_close_frame_and_has_its_own_label() {
        let mut labels: Vec<_> = CloseReason::ALL.iter().map(|reason| reason.as_str()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CloseReason::ALL.len());
        for reason in CloseReason::ALL {
            assert!(reason.text().len() <= 123, "{reason:?}");
            let on_the_wire = CloseCode::from_wire(reason.code().get());
            assert_eq!(on_the_wire.is_none(), *reason == CloseReason::Cut, "{reason:?}");
        }
    }

    #[test]
    fn codes_that_must_not_be_sent_are_not_valid_on_the_wire() {
        for code in [
            0,
            1,
            999,
            1004,
            1005,
            1006,
            1015,
            1016,
            1100,
            2000,
            2999,
            5000,
            u16::MAX,
        ] {
            assert_eq!(CloseCode::from_wire(code), None, "{code}");
        }
        for code in [1000, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::from_wire(code).map(CloseCode::get), Some(code));
        }
    }

    #[test]
    fn each_code_tells_the_client_what_to_do() {
        for (code, advice) in [
            (CloseCode::NORMAL, ReconnectAdvice::Stop),
            (CloseCode::GOING_AWAY, ReconnectAdvice::OwnDelay),
            (CloseCode::SERVICE_RESTART, ReconnectAdvice::OwnDelay),
            (CloseCode::TRY_AGAIN_LATER, ReconnectAdvice::BackOff),
            (CloseCode::POLICY, ReconnectAdvice::Stop),
            (CloseCode::TOO_BIG, ReconnectAdvice::Stop),
            (CloseCode::UNAUTHORIZED, ReconnectAdvice::Stop),
            (CloseCode::RATE_LIMITED, ReconnectAdvice::BackOff),
            (CloseCode::SLOW_CONSUMER, ReconnectAdvice::BackOff),
            (CloseCode::TOKEN_EXPIRED, ReconnectAdvice::Soon),
            (CloseCode::ABNORMAL, ReconnectAdvice::BackOff),
        ] {
            assert_eq!(code.advice(), advice, "{code:?}");
        }
    }
}
