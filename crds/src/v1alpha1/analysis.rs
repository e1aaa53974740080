//! `spec.rollout.analysis`: what a new revision is judged by.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::int;

/// One measure of a new revision beside the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("has(self.builtin) != has(self.query)", "an analysis is one of builtin and query: set exactly one of them"),
    validation = ("has(self.query) == has(self.endpoint)", "query and endpoint belong together: set both, for example endpoint: http://prometheus.monitoring:9090"),
    validation = ("!has(self.query) || has(self.max)", "query needs max, the largest value that is good: for example max: \"0.01\"")
)]
pub struct AnalysisSpec {
    /// Name, unique among the analyses; it is in the condition when the revision fails by it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// What the operator counts itself. handshakeErrorRatio: share of the handshakes that the gateways failed;
    /// abnormalCloseRatio: share of the ended sockets that were cut or ended by a fault; restarts: of gateways;
    /// pingP99: milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<BuiltinAnalysis>,
    /// PromQL that yields one number. `$namespace`, `$name`, `$revision` (the new one) and `$stable` (the one before) are
    /// replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub query: Option<String>,
    /// Address of the Prometheus server for query; a host without a dot is a Service in the resource's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    #[x_kube(validation = ("self.matches('^https?://[^/ ]')", "write the address as http://host:port or https://host:port, for example http://prometheus.monitoring:9090"))]
    pub endpoint: Option<String>,
    /// Largest value that is good, a decimal in quotes. For a query, of the query. For a built-in one, of what the new
    /// revision has more than the one before; defaults "0.05", "0.2", "0" and "500".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = ("self.matches('^[0-9]{1,9}([.][0-9]{1,6})?$')", "write max as a decimal in quotes, for example max: \"0.05\""))]
    pub max: Option<String>,
    /// Seconds between two measurements. Default 15.
    #[serde(default = "int::<15>")]
    #[schemars(range(min = 5, max = 3600))]
    pub interval_seconds: u32,
    /// Bad measurements in a row that are tolerated; one more fails the revision. Default 2.
    #[serde(default = "int::<2>")]
    #[schemars(range(max = 10))]
    pub failure_limit: u32,
    /// Measurements in a row that may say nothing, since the source did not answer; one more pauses the rollout until it
    /// does. Default 3.
    #[serde(default = "int::<3>")]
    #[schemars(range(max = 10))]
    pub inconclusive_limit: u32,
    /// Handshakes, closes or pings from which on a ratio is taken as it is; with fewer it counts only when chance cannot
    /// explain it. Default 200.
    #[serde(default = "int::<200>")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_samples: u32,
}

/// What the operator counts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BuiltinAnalysis {
    #[allow(missing_docs, reason = "a doc on a variant would make the schema a oneOf")]
    HandshakeErrorRatio,
    #[allow(missing_docs, reason = "as above")]
    AbnormalCloseRatio,
    #[allow(missing_docs, reason = "as above")]
    Restarts,
    #[allow(missing_docs, reason = "as above")]
    PingP99,
}

impl BuiltinAnalysis {
    /// All of them, which is the default of `rollout.analysis`.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::HandshakeErrorRatio, "handshake-errors"),
        (Self::AbnormalCloseRatio, "abnormal-closes"),
        (Self::Restarts, "restarts"),
        (Self::PingP99, "ping-p99"),
    ];

    /// What the new revision may have more than the one before it, when the resource says nothing.
    pub const fn default_max(self) -> f64 {
        match self {
            Self::HandshakeErrorRatio => 0.05,
            Self::AbnormalCloseRatio => 0.2,
            Self::Restarts => 0.0,
            Self::PingP99 => 500.0,
        }
    }
}

impl AnalysisSpec {
    /// `max` as a number.
    pub fn limit(&self) -> f64 {
        let given = self.max.as_deref().and_then(|text| text.parse().ok());
        given.unwrap_or_else(|| self.builtin.map_or(0.0, BuiltinAnalysis::default_max))
    }
}

/// The built-in analyses, each with its defaults.
pub(super) fn built_ins() -> Vec<AnalysisSpec> {
    let analysis = |(builtin, name): (BuiltinAnalysis, &str)| AnalysisSpec {
        name: name.to_owned(),
        builtin: Some(builtin),
        query: None,
        endpoint: None,
        max: None,
        interval_seconds: 15,
        failure_limit: 2,
        inconclusive_limit: 3,
        min_samples: 200,
    };
    BuiltinAnalysis::ALL.into_iter().map(analysis).collect()
}
