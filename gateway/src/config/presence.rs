//! Whose rooms tell who is in them: `--presence PATTERN=on|off`, and how long a leave is held back: `--presence-hold`.

use std::str::FromStr;
use std::time::Duration;

use super::history::{Histories, Retention};
use super::values::Allowed;
use crate::broker::StreamKey;
use crate::pattern::matches;

/// One `PATTERN=on|off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRule {
    pattern: String,
    on: bool,
}

impl FromStr for PresenceRule {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        // a room's name may hold a =, what follows the last one does not
        let (pattern, on) = text.rsplit_once('=').unwrap_or_default();
        let on = match on {
            "on" | "true" => Some(true),
            "off" | "false" => Some(false),
            _ => None,
        };
        match on {
            Some(on) if !pattern.is_empty() => Ok(Self {
                pattern: pattern.to_owned(),
                on,
            }),
            _ => Err(Allowed(
                "PATTERN=on or PATTERN=off (* is any text), such as cursor:*=off",
            )),
        }
    }
}

/// Of which rooms it is known who is in them: the first rule whose pattern matches counts; without one it is known of
/// all but ephemeral rooms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presences {
    rules: Vec<PresenceRule>,
    hold: PresenceHold,
    histories: Histories,
}

impl Presences {
    /// These rules, in this order; `histories` says which rooms are ephemeral.
    pub const fn new(rules: Vec<PresenceRule>, hold: PresenceHold, histories: Histories) -> Self {
        Self {
            rules,
            hold,
            histories,
        }
    }

    /// Whether it is known who is in the room; of a personal stream it is not.
    pub fn of(&self, stream: &StreamKey) -> bool {
        let StreamKey::Room(name) = stream else {
            return false;
        };
        let rule = self.rules.iter().find(|rule| matches(&rule.pattern, name));
        rule.map_or_else(
            || self.histories.of(stream) != Retention::Ephemeral,
            |rule| rule.on,
        )
    }

    /// How long a user who has left may be away before it is told.
    pub const fn hold(&self) -> Duration {
        self.hold.duration()
    }
}

/// Seconds for which a leave is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceHold(u16);

impl PresenceHold {
    /// The time.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl Default for PresenceHold {
    fn default() -> Self {
        Self(15)
    }
}

impl FromStr for PresenceHold {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        let seconds = text.parse().ok().filter(|seconds| (0..=600).contains(seconds));
        seconds
            .map(Self)
            .ok_or(Allowed("seconds, a number from 0 to 600"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::DirectHistory;
    use super::*;

    fn on(rules: &[&str], room: &str) -> bool {
        let histories = Histories::new(
            vec!["cursor:*=ephemeral".parse().unwrap()],
            DirectHistory::default(),
        );
        let rules = rules.iter().map(|text| text.parse().unwrap()).collect();
        Presences::new(rules, PresenceHold::default(), histories).of(&StreamKey::Room(room.into()))
    }

    #[test]
    fn the_first_rule_that_matches_counts_and_without_one_ephemeral_rooms_are_off() {
        assert!(on(&[], "chat"));
        assert!(!on(&[], "cursor:1"));
        let rules = ["cursor:1=on", "cursor:*=off", "a=b=off"];
        assert!(on(&rules, "cursor:1"));
        assert!(!on(&rules, "cursor:2"));
        assert!(!on(&rules, "a=b"));
        assert!(!Presences::default().of(&StreamKey::User("u".into())));
    }

    #[test]
    fn what_is_not_a_rule_or_a_time_is_told_what_one_looks_like() {
        for wrong in ["", "a", "=on", "a=", "a=ON", "a=1"] {
            let Err(Allowed(allowed)) = wrong.parse::<PresenceRule>() else {
                panic!("{wrong} is taken")
            };
            assert!(allowed.contains("cursor:*=off"), "{allowed}");
        }
        for wrong in ["", "-1", "601", "1.5", "on"] {
            assert!(wrong.parse::<PresenceHold>().is_err(), "{wrong}");
        }
        assert_eq!(PresenceHold::default().duration(), Duration::from_secs(15));
    }
}
