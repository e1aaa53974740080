//! What the planner may ask for. `apply` carries actions out in their order and decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pace::Pace;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use wsfleet_crds::admin::DrainRequest;
use wsfleet_crds::v1alpha1::WebSocketClusterStatus;

/// One plan: what to do now, what to say, when to look again.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order in which they are carried out; the first that fails ends the pass, the next pass plans anew.
    pub actions: Vec<Action>,
    /// The whole status; written only when it differs from what is there.
    pub status: WebSocketClusterStatus,
    /// Transitions to announce.
    pub events: Vec<EventDraft>,
    /// When to plan again if nothing happens before; every wait of the operator is one of these.
    pub next_wakeup: Duration,
    /// Pods that hold too many sockets, by UID, and since when: to be remembered until the next plan.
    pub crowded: BTreeMap<String, Timestamp>,
    /// How much of the budget drains may use: to be remembered likewise.
    pub pace: Pace,
}

/// A side effect.
#[derive(Clone, Debug)]
pub enum Action {
    /// Server-side apply of an owned Service (annotation `applied-hash` is set by the planner).
    ApplyService(Box<Service>),
    /// Server-side apply of an owned budget.
    ApplyBudget(Box<PodDisruptionBudget>),
    /// Create the Secret with the admin token; "exists already" is success. `apply` fills in the random token.
    CreateAdminToken(Box<Secret>),
    /// Create a revision; "exists already" is success.
    CreateRevision(Box<ControllerRevision>),
    /// Give an existing revision a new number (a reverted template).
    RenumberRevision {
        /// Object name.
        name: String,
        /// New number.
        number: i64,
    },
    /// Merge-patch annotations of a revision: the markers of the rollout to it. `None` removes a key.
    MarkRevision {
        /// Object name.
        name: String,
        /// Annotations to set or remove.
        annotations: BTreeMap<String, Option<String>>,
    },
    /// Delete a revision that no pod uses and that is past the history limit.
    DeleteRevision {
        /// Object name.
        name: String,
    },
    /// Ask the API server whether it would take this pod, without creating it.
    DryRunPod {
        /// The revision that is validated.
        hash: String,
        /// A pod of it.
        pod: Box<Pod>,
    },
    /// Create a gateway pod; "exists already" is success (names are deterministic).
    CreatePod(Box<Pod>),
    /// Merge-patch labels and annotations of a pod, with its UID as a precondition. `None` removes a key.
    MarkPod {
        /// Pod name.
        name: String,
        /// Pod UID.
        uid: String,
        /// Labels to set.
        labels: BTreeMap<String, Option<String>>,
        /// Annotations to set or remove.
        annotations: BTreeMap<String, Option<String>>,
    },
    /// `PUT /admin/v1/drain` to the gateway in the pod. Failure is recorded, not fatal.
    Drain {
        /// Pod name.
        name: String,
        /// Pod address.
        ip: String,
        /// Admin port.
        port: u16,
        /// The body; `apply` fills in the epoch of the current lease.
        request: DrainRequest,
    },
    /// Delete a pod with its UID as a precondition; "not found" and "another UID" are success.
    DeletePod {
        /// Pod name.
        name: String,
        /// Pod UID.
        uid: String,
        /// Version as a precondition, too: the pod has not served yet, and must not have begun to meanwhile.
        version: Option<String>,
        /// `None` keeps the pod's own grace period; 0 forces (only for pods on lost nodes).
        grace_period: Option<u32>,
        /// Sockets that it held when the planner decided, for `wsc_deleted_with_connections_total`; `None`: unknown.
        connections: Option<u64>,
    },
    /// Replace the recommendations annotation of the resource (coalesced: at most one write a minute while scaling
    /// matters, none while nothing changes).
    RecordRecommendations(String),
    /// Replace the finalizers of the resource, which must not have changed meanwhile.
    SetFinalizers {
        /// All of them.
        finalizers: Vec<String>,
        /// Version of the resource that they were read from.
        version: Option<String>,
    },
}

/// A Kubernetes event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// `Warning` or `Normal`.
    pub warning: bool,
    /// CamelCase reason, one of operator.md §7.
    pub reason: &'static str,
    /// CamelCase verb.
    pub action: &'static str,
    /// One sentence for a person.
    pub note: String,
}
