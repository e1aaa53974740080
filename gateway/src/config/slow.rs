//! What becomes of messages that wait for a member that reads too slowly: `--slow-consumer PATTERN=POLICY`.

use std::str::FromStr;

use super::values::Allowed;
use crate::pattern::matches;

/// What gives way when more waits for a connection than may; decided by the room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlowPolicy {
    /// The connection: it is closed with 4102.
    #[default]
    Disconnect,
    /// The room's oldest messages.
    DropOldest,
    /// Of each sender all messages but the last; then the oldest.
    KeepLatest,
}

impl SlowPolicy {
    /// Every policy, in the order of [`SlowPolicy::index`].
    pub const ALL: [Self; 3] = [Self::Disconnect, Self::DropOldest, Self::KeepLatest];

    /// Its name in settings; label `policy` of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropOldest => "dropOldest",
            Self::KeepLatest => "keepLatest",
        }
    }

    /// Place in [`SlowPolicy::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// One `PATTERN=POLICY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRule {
    pattern: String,
    policy: SlowPolicy,
}

impl FromStr for SlowRule {
    type Err = Allowed;

    fn from_str(text: &str) -> Result<Self, Allowed> {
        // a room's name may hold a =, a policy's does not
        let (pattern, name) = text.rsplit_once('=').unwrap_or_default();
        let policy = SlowPolicy::ALL.into_iter().find(|policy| policy.as_str() == name);
        match policy {
            Some(policy) if !pattern.is_empty() => Ok(Self {
                pattern: pattern.to_owned(),
                policy,
            }),
            _ => Err(Allowed(
                "PATTERN=POLICY, such as cursor:*=keepLatest; policies are disconnect, dropOldest and keepLatest",
            )),
        }
    }
}

/// The policies of rooms: the first rule whose pattern matches counts, without one it is [`SlowPolicy::Disconnect`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlowPolicies(Vec<SlowRule>);

impl SlowPolicies {
    /// These rules, in this order.
    pub const fn new(rules: Vec<SlowRule>) -> Self {
        Self(rules)
    }

    /// The policy of the room of this name.
    pub fn of(&self, room: &str) -> SlowPolicy {
        let rule = self.0.iter().find(|rule| matches(&rule.pattern, room));
        rule.map_or_else(SlowPolicy::default, |rule| rule.policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_counts_and_without_one_the_connection_is_closed() {
        let rules = ["a=b=dropOldest", "cursor:*=keepLatest", "*=disconnect"];
        let rules: Vec<SlowRule> = rules.iter().map(|text| text.parse().unwrap()).collect();
        let policies = SlowPolicies::new(rules);
        assert_eq!(policies.of("a=b"), SlowPolicy::DropOldest);
        assert_eq!(policies.of("cursor:1"), SlowPolicy::KeepLatest);
        assert_eq!(policies.of("chat"), SlowPolicy::Disconnect);
        assert_eq!(SlowPolicies::default().of("chat"), SlowPolicy::Disconnect);
        for wrong in [
            "",
            "a",
            "=dropOldest",
            "a=",
            "a=drop",
            "a=DropOldest",
            "a=dropOldest ",
        ] {
            assert!(wrong.parse::<SlowRule>().is_err(), "{wrong}");
        }
    }
}
