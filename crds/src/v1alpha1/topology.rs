//! `spec.topology`: where the pods go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the pods go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpec {
    /// Zone (default): pods are spread over zones, then over nodes. Node: over nodes. None: as the scheduler likes.
    /// Applies to pods made after a change; constraints in spec.template replace these.
    #[serde(default)]
    pub spread: Spread,
}

/// Over what pods are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Spread {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    #[default]
    Zone,
    #[allow(missing_docs, reason = "as above")]
    Node,
    #[allow(missing_docs, reason = "as above")]
    None,
}
