//! `spec.gateway.history` and `directHistory`: which messages are kept for who comes back.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Messages, and seconds, when the resource says nothing else: as much as one resume gives.
const DEFAULT: u32 = 300;

/// What is kept of some rooms' messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.policy == 'Keep' || !(has(self.messages) || has(self.seconds))", "messages and seconds belong to policy Keep: leave them out, or set policy: Keep"))]
pub struct HistoryRule {
    /// Names of rooms; * stands for any text. For example chat:*.
    #[schemars(length(min = 1, max = 255))]
    pub rooms: String,
    /// Keep holds messages, so that clients that were away get what they have missed. PositionOnly holds no message: a
    /// client sees that something is missing. Ephemeral holds nothing, for what the next message makes worthless.
    #[serde(default)]
    pub policy: HistoryPolicy,
    /// Messages that are kept of each room, at most. Default 300, which is also what one resume gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub messages: Option<u32>,
    /// Seconds for which they are kept, at most. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub seconds: Option<u32>,
}

/// What is kept of each user's direct messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.policy == 'Keep' || !(has(self.messages) || has(self.seconds))", "messages and seconds belong to policy Keep: leave them out, or set policy: Keep"))]
pub struct DirectHistory {
    /// Keep holds messages, PositionOnly none.
    #[serde(default)]
    pub policy: DirectHistoryPolicy,
    /// Messages that are kept of each user, at most. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub messages: Option<u32>,
    /// Seconds for which they are kept, at most. Default 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86_400))]
    pub seconds: Option<u32>,
}

/// What is kept of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HistoryPolicy {
    /// The last messages.
    #[default]
    Keep,
    /// Its position.
    PositionOnly,
    /// Nothing.
    Ephemeral,
}

/// What is kept of direct messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DirectHistoryPolicy {
    /// The last messages.
    #[default]
    Keep,
    /// The position.
    PositionOnly,
}

impl HistoryRule {
    /// The rule as the gateway's `--history` takes it.
    pub fn argument(&self) -> String {
        let what = match self.policy {
            HistoryPolicy::Keep => kept(self.messages, self.seconds),
            HistoryPolicy::PositionOnly => "off".to_owned(),
            HistoryPolicy::Ephemeral => "ephemeral".to_owned(),
        };
        format!("{}={what}", self.rooms)
    }
}

impl DirectHistory {
    /// What the gateway's `--direct-history` takes.
    pub fn argument(&self) -> String {
        match self.policy {
            DirectHistoryPolicy::Keep => kept(self.messages, self.seconds),
            DirectHistoryPolicy::PositionOnly => "off".to_owned(),
        }
    }
}

/// Messages and seconds, as the gateway's flags take them.
fn kept(messages: Option<u32>, seconds: Option<u32>) -> String {
    format!("{}/{}", messages.unwrap_or(DEFAULT), seconds.unwrap_or(DEFAULT))
}
