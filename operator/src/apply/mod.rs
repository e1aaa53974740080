//! Everything that is written, in the order of the plan; nothing is decided here.
//!
//! Before each action the leadership is asked again, and each call has a deadline: what is started in a term is over
//! in it. "Exists already", "not found" and "another UID" are success where the plan wanted just that. The first
//! failure ends the pass, because markers come before side effects; the next pass plans anew.

mod gateways;
mod objects;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{PatchParams, Preconditions};
use thiserror::Error;
use tokio::time::timeout;
use tracing::info;
use wsfleet_crds::labels::FIELD_MANAGER;
use wsfleet_crds::v1alpha1::WebSocketCluster;

use crate::gateway::GatewayClient;
use crate::leader::{Leadership, Term};
use crate::metrics::Metrics;
use crate::observe::model::Observed;
use crate::observe::{Identity, Observer};
use crate::plan::action::Action;

/// How long one call to the API server may take, the client's own retries included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A patch in the operator's name.
pub(crate) fn patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Why an action failed; it ends the pass.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The API server refused, or could not be reached.
    #[error("{action}: {source}")]
    Api {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time; whether it acted is unknown, the next pass sees.
    #[error("{0}: no answer within {CALL_TIMEOUT:?}")]
    Timeout(&'static str),
    /// The object changed since it was read: plan again.
    #[error("{0}: the object has changed meanwhile")]
    Stale(&'static str),
    /// An object of that name exists and belongs to something else: rename it or the resource.
    #[error("{kind} {name} exists and is not controlled by this WebSocketCluster; rename one of them")]
    Foreign {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// The machine gives no random numbers for a token.
    #[error("no random numbers for the admin token: {0}")]
    NoEntropy(String),
    /// This process no longer leads.
    #[error("no longer the leader")]
    Deposed,
}

impl ApplyError {
    /// Whether the API server found the object invalid (422).
    fn is_invalid(&self) -> bool {
        let Self::Api { source, .. } = self else {
            return false;
        };
        matches!(&**source, kube::Error::Api(status) if status.code == 422)
    }

    /// Bounded label for metrics.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Timeout(_) => "timeout",
            Self::Stale(_) => "stale",
            Self::Foreign { .. } => "foreign",
            Self::NoEntropy(_) => "entropy",
            Self::Deposed => "deposed",
        }
    }
}

/// What carries out the actions of one scope.
#[derive(Clone)]
pub struct Applier {
    /// Client of the API server.
    pub client: Client,
    /// Client of the gateways.
    pub gateways: GatewayClient,
    /// What was observed; own writes are put into it.
    pub observer: Arc<Observer>,
    /// Only a leader writes.
    pub leadership: Leadership,
    /// Counts what is done.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Applier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Applier")
            .field("leadership", &self.leadership)
            .finish_non_exhaustive()
    }
}

/// One pass over one resource.
#[derive(Clone, Copy, Debug)]
struct Pass<'a> {
    applier: &'a Applier,
    cluster: &'a WebSocketCluster,
    id: &'a Identity,
    observed: &'a Observed,
}

impl Applier {
    /// Carries out the plan. Returns whether to plan again at once, because an action answered a question.
    pub async fn apply(
        &self,
        cluster: &WebSocketCluster,
        id: &Identity,
        observed: &Observed,
        actions: Vec<Action>,
    ) -> Result<bool, ApplyError> {
        let pass = Pass {
            applier: self,
            cluster,
            id,
            observed,
        };
        let mut again = false;
        for action in actions {
            let term = self.leadership.term().ok_or(ApplyError::Deposed)?;
            again |= matches!(
                action,
                Action::DryRunPod { .. } | Action::CreateAdminToken(_) | Action::MarkRevision { .. }
            );
            pass.carry_out(action, term).await?;
        }
        Ok(again)
    }
}

impl Pass<'_> {
    async fn carry_out(&self, action: Action, term: Term) -> Result<(), ApplyError> {
        let cluster = self.id.name.as_str();
        match action {
            Action::ApplyService(service) => self.apply_service(*service).await,
            Action::ApplyBudget(budget) => self.apply_budget(*budget).await,
            Action::CreateAdminToken(secret) => self.create_admin_token(*secret).await,
            Action::CreateRevision(revision) => {
                info!(cluster, revision = revision.metadata.name, "create revision");
                self.create_revision(*revision).await
            }
            Action::RenumberRevision { name, number } => self.renumber_revision(&name, number).await,
            Action::MarkRevision { name, annotations } => {
                info!(cluster, revision = name, ?annotations, "mark revision");
                self.mark_revision(&name, &annotations).await
            }
            Action::DeleteRevision { name } => self.delete_revision(&name).await,
            Action::DryRunPod { hash, pod } => self.dry_run(hash, &pod).await,
            Action::CreatePod(pod) => {
                info!(cluster, pod = pod.metadata.name, "create pod");
                self.create_pod(&pod).await
            }
            Action::MarkPod {
                name,
                uid,
                labels,
                annotations,
            } => {
                info!(cluster, pod = name, ?labels, ?annotations, "mark pod");
                self.mark_pod(&name, &uid, &labels, &annotations).await
            }
            Action::Drain {
                name,
                ip,
                port,
                request,
            } => {
                self.drain(&name, ip, port, request, term).await;
                Ok(())
            }
            Action::DeletePod {
                name,
                uid,
                version,
                grace_period,
                connections,
            } => {
                info!(cluster, pod = name, grace_period, connections, "delete pod");
                let preconditions = Preconditions {
                    uid: Some(uid),
                    resource_version: version,
                };
                self.delete_pod(&name, preconditions, grace_period, connections)
                    .await
            }
            Action::RecordRecommendations(text) => self.record_recommendations(&text).await,
            Action::SetFinalizers { finalizers, version } => {
                info!(cluster, ?finalizers, "set finalizers");
                self.set_finalizers(&finalizers, version.as_deref()).await
            }
        }
    }

    /// One call with its deadline.
    async fn call<T>(
        &self,
        action: &'static str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        match timeout(CALL_TIMEOUT, call).await {
            Err(_) => Err(CallError::Other(ApplyError::Timeout(action))),
            Ok(Ok(value)) => Ok(value),
            Ok(Err(kube::Error::Api(status))) => Err(CallError::Refused(action, status)),
            Ok(Err(source)) => Err(CallError::Other(ApplyError::Api {
                action,
                source: Box::new(source),
            })),
        }
    }
}

/// What came of a call: a refusal may be what was wanted.
#[derive(Debug)]
enum CallError {
    Refused(&'static str, Box<kube::core::Status>),
    Other(ApplyError),
}

impl CallError {
    fn is(&self, test: impl Fn(&kube::core::Status) -> bool) -> bool {
        matches!(self, Self::Refused(_, status) if test(status))
    }
}

impl From<CallError> for ApplyError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(action, status) => Self::Api {
                action,
                source: Box::new(kube::Error::Api(status)),
            },
            CallError::Other(error) => error,
        }
    }
}
