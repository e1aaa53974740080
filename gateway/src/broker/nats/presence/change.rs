//! What is stored of one connection in a room, and of one gateway's lease, each on a subject of its own.
//!
//! A connection's text is a sign, and then the gateway's name, the connection, and the user, with spaces between: `+` for one
//! that has come, `=` for one that is told again, `-` for one that has left. A lease's is `+`, and `-` when it was ended.

use std::sync::Arc;

use super::super::naming;
use super::super::wire::Message;
use crate::broker::Attendee;

/// Milliseconds of a day.
const DAY: u32 = 24 * 60 * 60 * 1_000;

/// What has become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It has come.
    Came,
    /// It is there, and was so before.
    Stays,
    /// It has left.
    Left,
}

impl Sign {
    const fn text(self) -> char {
        match self {
            Self::Came => '+',
            Self::Stays => '=',
            Self::Left => '-',
        }
    }
}

/// Whether a payload may be of presence: neither a frame nor JSON begins like this.
pub(in super::super) fn is_sign(payload: &[u8]) -> bool {
    matches!(payload.first(), Some(b'+' | b'=' | b'-'))
}

/// When JetStream stored a message, by its clock: milliseconds of the day, as only differences are of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u32);

impl Stamp {
    /// Of `2026-11-24T01:48:16.736272529Z`.
    fn parse(text: &str) -> Option<Self> {
        let (_, time) = text.strip_suffix('Z')?.split_once('T')?;
        let (clock, fraction) = time.split_once('.').unwrap_or((time, ""));
        let mut seconds = 0;
        for part in clock.split(':') {
            seconds = seconds * 60 + part.parse::<u32>().ok().filter(|&part| part < 61)?;
        }
        let millis = fraction.bytes().chain(*b"000").take(3);
        let millis = millis.fold(0, |sum, digit| sum * 10 + u32::from(digit.saturating_sub(b'0')));
        Some(Self((seconds * 1_000 + millis) % DAY))
    }

    /// Milliseconds from this one to another; 0 when that was not later.
    pub(super) const fn until(self, other: Self) -> u32 {
        let passed = (other.0 + DAY - self.0) % DAY;
        if passed < DAY / 2 { passed } else { 0 }
    }
}

/// One connection's message.
#[derive(Clone, Debug)]
pub(in super::super) struct Change {
    pub(super) sign: Sign,
    pub(in super::super) lease: Arc<str>,
    pub(in super::super) connection: Arc<str>,
    pub(super) user: Arc<str>,
    pub(super) server: Arc<str>,
    /// Number of its message.
    pub(in super::super) sequence: u64,
    pub(super) at: Option<Stamp>,
}

impl Change {
    /// Takes a stored message apart; `None` when it is not one of ours.
    pub(in super::super) fn parse(message: &Message) -> Option<Self> {
        let text = std::str::from_utf8(&message.payload).ok()?;
        let mut characters = text.chars();
        let sign = match characters.next()? {
            '+' => Sign::Came,
            '=' => Sign::Stays,
            '-' => Sign::Left,
            _ => return None,
        };
        let mut words = characters.as_str().splitn(3, ' ');
        let (server, connection, user) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            sign,
            lease: naming::lease_of(message.header("Nats-Subject")?)?.into(),
            connection: connection.into(),
            user: user.into(),
            server: server.into(),
            sequence: message.header("Nats-Sequence")?.parse().ok()?,
            at: stamp(message),
        })
    }
}

/// A lease that was renewed, or ended.
#[derive(Debug)]
pub(super) struct Renewed {
    pub(super) lease: Arc<str>,
    pub(super) lives: bool,
    pub(super) at: Option<Stamp>,
}

impl Renewed {
    pub(super) fn parse(message: &Message) -> Option<Self> {
        Some(Self {
            lease: naming::lease_of(message.header("Nats-Subject")?)?.into(),
            lives: is_alive(&message.payload),
            at: stamp(message),
        })
    }
}

/// What a lease's message holds.
pub(in super::super) const fn lease_text(lives: bool) -> &'static [u8] {
    if lives { b"+" } else { b"-" }
}

/// Whether a lease's message says that it lives.
pub(in super::super) fn is_alive(payload: &[u8]) -> bool {
    payload == lease_text(true)
}

fn stamp(message: &Message) -> Option<Stamp> {
    Stamp::parse(message.header("Nats-Time-Stamp")?)
}

/// What is stored of a connection.
pub(super) fn text(sign: Sign, server: &str, attendee: &Attendee<'_>) -> Vec<u8> {
    let (connection, user) = (attendee.connection, attendee.user);
    format!("{}{server} {connection} {user}", sign.text()).into_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(payload: &[u8]) -> Message {
        Message {
            headers: Bytes::from_static(
                b"NATS/1.0\r\nNats-Subject: w.there.r.a.an=20n.i-1.c=2D1\r\nNats-Sequence: 7\r\n\
                Nats-Time-Stamp: 2026-11-24T00:00:16.73Z\r\n\r\n",
            ),
            payload: Bytes::copy_from_slice(payload),
            ..Message::default()
        }
    }

    #[test]
    fn a_change_is_what_was_said_of_a_connection() {
        let [room, user, connection]: [Arc<str>; 3] = ["a".into(), "an n".into(), "c-1".into()];
        let attendee = Attendee {
            room: &room,
            user: &user,
            connection: &connection,
        };
        for sign in [Sign::Came, Sign::Stays, Sign::Left] {
            let text = text(sign, "g1", &attendee);
            assert!(is_sign(&text));
            let change = Change::parse(&message(&text)).unwrap();
            let said = (change.sign, &*change.server, &*change.connection, &*change.user);
            assert_eq!(said, (sign, "g1", "c-1", "an n"));
            assert_eq!((&*change.lease, change.sequence), ("i-1", 7));
            assert_eq!(change.at, Some(Stamp(16_730)));
        }
        for other in [&b""[..], b"{}", b"+g1", b"+g1 c"] {
            assert!(Change::parse(&message(other)).is_none());
        }
    }

    #[test]
    fn a_lease_lives_or_was_ended() {
        for lives in [true, false] {
            let renewed = Renewed::parse(&message(lease_text(lives))).unwrap();
            assert_eq!((&*renewed.lease, renewed.lives), ("i-1", lives));
        }
        assert!(!is_alive(b""), "what is gone");
    }

    #[test]
    fn the_time_between_two_stamps_goes_over_midnight() {
        let at = |time: &str| Stamp::parse(&format!("2026-11-24T{time}Z")).unwrap();
        assert_eq!(at("23:59:59.5").until(at("00:00:01")), 1_500);
        assert_eq!(at("01:00:00").until(at("01:00:00.000999")), 0);
        assert_eq!(
            at("01:00:01").until(at("01:00:00")),
            0,
            "a clock that was set back"
        );
        assert_eq!(Stamp::parse("yesterday"), None);
    }
}
