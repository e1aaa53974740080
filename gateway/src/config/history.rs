//! What is kept of a room's messages: `--history PATTERN=MESSAGES/SECONDS`, and of direct messages: `--direct-history`.

use std::str::FromStr;
use std::time::Duration;

use super::values::Allowed;
use crate::broker::StreamKey;
use crate::fleet;
use crate::pattern::matches;

/// Most messages that a stream may be told to keep.
const MOST_MESSAGES: u32 = 10_000;
/// Longest that it may be told to keep them.
const MOST_SECONDS: u32 = 86_400;

/// What is kept of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// The last messages, so that who was away can get them.
    Keep {
        /// So many at most.
        messages: u32,
        /// For so long at most.
        age: Duration,
    },
    /// Its position only: a hole is seen, but not filled.
    Off,
    /// Nothing at all, not even a position: messages that the next one makes worthless.
    Ephemeral,
}

impl Default for Retention {
    fn default() -> Self {
        Self::Keep {
            messages: 300,
            age: Duration::from_mins(5),
        }
    }
}

impl Retention {
    /// For how long messages are kept.
    pub const fn age(self) -> Duration {
        match self {
            Self::Keep { age, .. } => age,
            Self::Off | Self::Ephemeral => Duration::ZERO,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" | "false" => return Some(Self::Off),
            "ephemeral" => return Some(Self::Ephemeral),
            _ => {}
        }
        let (messages, seconds) = text.split_once('/')?;
        let (messages, seconds) = (messages.parse().ok()?, seconds.parse().ok()?);
        let fits = (1..=MOST_MESSAGES).contains(&messages) && (1..=MOST_SECONDS).contains(&seconds);
        fits.then_some(Self::Keep {
            messages,
            age: Duration::from_secs(u64::from(seconds)),
        })
    }
}

/// One `PATTERN=MESSAGES/SECONDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRule {
    pattern: String,
    retention: Retention,
}

impl FromStr for HistoryRule {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        // a room's name may hold a =, what follows the last one does not
        let (pattern, retention) = text.rsplit_once('=').unwrap_or_default();
        match Retention::parse(retention) {
            Some(retention) if !pattern.is_empty() => Ok(Self {
                pattern: pattern.to_owned(),
                retention,
            }),
            _ => Err(Allowed(
                "PATTERN=MESSAGES/SECONDS with 1 to 10000 messages and 1 to 86400 seconds, such as chat:*=300/300, or \
                 PATTERN=off, or PATTERN=ephemeral",
            )),
        }
    }
}

/// What is kept of users' personal streams; never [`Retention::Ephemeral`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectHistory(Retention);

impl FromStr for DirectHistory {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        match Retention::parse(text) {
            Some(retention) if retention != Retention::Ephemeral => Ok(Self(retention)),
            _ => Err(Allowed(
                "MESSAGES/SECONDS with 1 to 10000 messages and 1 to 86400 seconds, such as 300/300, or off",
            )),
        }
    }
}

/// What is kept of each stream: for rooms the first rule whose pattern matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histories {
    rooms: Vec<HistoryRule>,
    direct: DirectHistory,
}

impl Histories {
    /// These rules, in this order.
    pub const fn new(rooms: Vec<HistoryRule>, direct: DirectHistory) -> Self {
        Self { rooms, direct }
    }

    /// What is kept of a stream.
    pub fn of(&self, stream: &StreamKey) -> Retention {
        match stream {
            StreamKey::Room(name) => {
                let rule = self.rooms.iter().find(|rule| matches(&rule.pattern, name));
                rule.map_or_else(Retention::default, |rule| rule.retention)
            }
            StreamKey::User(_) => self.direct.0,
            StreamKey::Fleet(name) => fleet::retention(name),
        }
    }

    /// The most messages that are kept of any room or personal stream; one at least.
    pub fn most_messages(&self) -> u32 {
        let messages = |retention| match retention {
            Retention::Keep { messages, .. } => messages,
            Retention::Off | Retention::Ephemeral => 1,
        };
        let rooms = self.rooms.iter().map(|rule| rule.retention);
        let all = rooms.chain([Retention::default(), self.direct.0]);
        all.map(messages).max().unwrap_or(1)
    }

    /// The longest time after which something may still be resumed.
    pub fn resume_window(&self) -> Duration {
        let all = self.rooms.iter().any(|rule| rule.pattern == "*");
        let default = (!all).then(Retention::default);
        let rooms = self.rooms.iter().map(|rule| rule.retention);
        let kept = rooms.chain(default).chain([self.direct.0]);
        kept.map(Retention::age).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histories(rules: &[&str], direct: &str) -> Histories {
        let rules = rules.iter().map(|text| text.parse().unwrap()).collect();
        Histories::new(rules, direct.parse().unwrap())
    }

    fn keep(messages: u32, seconds: u64) -> Retention {
        Retention::Keep {
            messages,
            age: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts_and_without_one_three_hundred_messages_are_kept() {
        let histories = histories(&["a=b=off", "cursor:*=ephemeral", "chat:*=5/60"], "7/1");
        let of = |room: &str| histories.of(&StreamKey::Room(room.into()));
        assert_eq!(of("a=b"), Retention::Off);
        assert_eq!(of("cursor:1"), Retention::Ephemeral);
        assert_eq!(of("chat:1"), keep(5, 60));
        assert_eq!(of("other"), keep(300, 300));
        assert_eq!(histories.of(&StreamKey::User("chat:1".into())), keep(7, 1));
    }

    #[test]
    fn the_resume_window_is_the_longest_that_anything_is_kept() {
        let seconds = |rules: &[&str], direct: &str| histories(rules, direct).resume_window().as_secs();
        assert_eq!(seconds(&[], "off"), 300);
        assert_eq!(seconds(&["*=off"], "off"), 0);
        assert_eq!(seconds(&["*=1/60"], "1/90"), 90);
        assert_eq!(seconds(&["a=1/600", "*=off"], "1/90"), 600);
    }

    #[test]
    fn the_most_messages_are_those_of_the_longest_history() {
        assert_eq!(histories(&["a=off", "b=ephemeral"], "off").most_messages(), 300);
        assert_eq!(histories(&["a=900/60"], "7/1").most_messages(), 900);
        assert_eq!(histories(&[], "1000/1").most_messages(), 1_000);
    }

    #[test]
    fn what_is_not_a_rule_is_told_what_one_looks_like() {
        for wrong in [
            "",
            "a",
            "=off",
            "a=",
            "a=0/1",
            "a=1/0",
            "a=10001/1",
            "a=1/86401",
            "a=1",
            "a=1/1/1",
            "a=OFF",
            "a=-1/1",
        ] {
            let Err(Allowed(allowed)) = wrong.parse::<HistoryRule>() else {
                panic!("{wrong} is taken")
            };
            assert!(allowed.contains("chat:*=300/300"), "{allowed}");
        }
        for wrong in ["", "ephemeral", "1", "a=1/1"] {
            assert!(wrong.parse::<DirectHistory>().is_err(), "{wrong}");
        }
    }
}
