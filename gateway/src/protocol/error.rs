//! Error codes of the `error` message: stable names that a client program can act on.

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident: $code:literal, $kind:ident, $text:literal;)*) => {
        /// What went wrong, as a stable name. [`ErrorCode::text`] is for people.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The `code` of the message.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The `error` text of the message, when there is nothing more exact to say.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether the same request may work later, unchanged.
            pub const fn temporary(self) -> bool {
                match self { $(Self::$name => error_codes!(@ $kind),)* }
            }
        }
    };
    (@ temporary) => { true };
    (@ permanent) => { false };
}

error_codes! {
    /// The frame's text is not JSON.
    InvalidJson: "invalid_json", permanent, "Invalid JSON";
    /// The binary frame is not MessagePack.
    InvalidMsgPack: "invalid_msgpack", permanent, "Invalid MessagePack";
    /// The binary frame is not a Protocol Buffers message of the schema.
    InvalidProto: "invalid_protobuf", permanent, "Invalid Protocol Buffers message";
    /// MessagePack that JSON cannot say.
    NotJson: "not_json", permanent, "Not a JSON value";
    /// As JSON the message has more than `messageBytes`.
    MessageTooBig: "message_too_big", permanent, "Message is too big";
    /// No `type`, or none that is known.
    UnknownType: "unknown_type", permanent, "Unknown message type";
    /// A field that the type needs is not there.
    MissingField: "missing_field", permanent, "Missing field";
    /// A field has a wrong type or value.
    InvalidField: "invalid_field", permanent, "Invalid field";
    /// The room's name is longer than `roomNameBytes`.
    RoomNameTooLong: "room_name_too_long", permanent, "Room name is too long";
    /// The connection is in `roomsPerConnection` rooms already.
    TooManyRooms: "too_many_rooms", permanent, "Too many rooms on this connection";
    /// Only members can send to a room.
    NotInRoom: "not_in_room", permanent, "Join the room first";
    /// `--presence` says that it is not known who is in this room.
    PresenceOff: "presence_off", permanent, "Presence of this room is off";
    /// There is no stream for events: `--broker` is no Redis, or `--events` is off.
    EventsOff: "events_off", permanent, "Events are off on this gateway: they need --broker redis://… or nats://…, and --events on";
    /// The token does not grant this room, or this event.
    Forbidden: "forbidden", permanent, "The token does not allow this";
    /// The token of a `refresh` is not accepted; the connection stays until its own token ends.
    InvalidToken: "invalid_token", permanent, "The token is not accepted";
    /// The token of a `refresh` is signed with a key that is being looked up.
    KeysUnavailable: "keys_unavailable", temporary, "The token cannot be verified at the moment; try again later";
    /// More than `messagesPerSecond`; the message was dropped.
    MessageRateExceeded: "message_rate_exceeded", temporary, "Too many messages; this one was dropped";
    /// More than `bytesPerSecond`; the message was dropped.
    ByteRateExceeded: "byte_rate_exceeded", temporary, "Too many bytes; this message was dropped";
    /// The message broker cannot be reached; nothing was sent.
    BrokerUnavailable: "broker_unavailable", temporary, "The message broker cannot be reached; try again later";
    /// The message may or may not have been accepted.
    Unconfirmed: "unconfirmed", temporary, "The message was not confirmed in time; it may have been accepted";
    /// Too much waits for the broker; nothing was sent.
    Overloaded: "overloaded", temporary, "Too many messages wait for the message broker; slow down and try again";
    /// The broker refused the message with an error of its own.
    BrokerRefused: "broker_refused", temporary, "The message broker refused the message";
    /// A fault of the gateway.
    Internal: "internal", temporary, "Internal error";
}
