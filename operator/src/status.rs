//! The only writer of `.status`: one server-side apply, skipped when nothing is different, and at most one in five
//! seconds unless a condition, a phase or the generation is.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use wsfleet_crds::labels::FIELD_MANAGER;
use wsfleet_crds::v1alpha1::{WebSocketCluster, WebSocketClusterStatus};

use crate::apply::CALL_TIMEOUT;
use crate::observe::Identity;

/// Numbers alone are written this often at most.
pub const MIN_INTERVAL: Duration = Duration::from_secs(5);

/// Why the status was not written; the next pass tries again.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The API server refused or could not be reached.
    #[error("write status: {0}")]
    Api(#[from] Box<kube::Error>),
    /// It did not answer in time.
    #[error("write status: no answer within {CALL_TIMEOUT:?}")]
    Timeout,
}

/// What to do with a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is there already.
    Skip,
    /// Write it now.
    Write,
    /// Only numbers differ, and some were written just now: look again then.
    Wait(Duration),
}

/// Decides about `new`, given what is there and when it was written last.
pub fn decide(
    old: Option<&WebSocketClusterStatus>,
    new: &WebSocketClusterStatus,
    written_at: Option<Instant>,
    now: Instant,
) -> Decision {
    match old {
        Some(old) if old == new => Decision::Skip,
        Some(old) if same_story(old, new) => match written_at.map(|at| at + MIN_INTERVAL) {
            Some(due) if due > now => Decision::Wait(due - now),
            _ => Decision::Write,
        },
        _ => Decision::Write,
    }
}

/// Whether both tell the same, numbers aside.
fn same_story(old: &WebSocketClusterStatus, new: &WebSocketClusterStatus) -> bool {
    let conditions = |status: &WebSocketClusterStatus| -> Vec<(String, String, String)> {
        let tell = |condition: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            (
                condition.type_.clone(),
                condition.status.clone(),
                condition.reason.clone(),
            )
        };
        status.conditions.iter().map(tell).collect()
    };
    let phase = |status: &WebSocketClusterStatus| status.rollout.as_ref().map(|rollout| rollout.phase);
    old.observed_generation == new.observed_generation
        && old.selector == new.selector
        && old.update_revision == new.update_revision
        && old.current_revision == new.current_revision
        && old.desired_replicas == new.desired_replicas
        && phase(old) == phase(new)
        && conditions(old) == conditions(new)
}

/// Writes the whole status. What is no longer in it goes; a resource that was deleted meanwhile is no error.
pub async fn write(
    client: &Client,
    id: &Identity,
    status: &WebSocketClusterStatus,
) -> Result<Option<WebSocketCluster>, StatusError> {
    let api: Api<WebSocketCluster> = Api::namespaced(client.clone(), &id.namespace);
    let patch = json!({
        "apiVersion": WebSocketCluster::api_version(&()),
        "kind": WebSocketCluster::kind(&()),
        "metadata": {"name": id.name, "uid": id.uid},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match timeout(
        CALL_TIMEOUT,
        api.patch_status(&id.name, &params, &Patch::Apply(&patch)),
    )
    .await
    {
        Err(_) => Err(StatusError::Timeout),
        Ok(Ok(cluster)) => Ok(Some(cluster)),
        // deleted, or deleted and made anew
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() || status.is_conflict() => Ok(None),
        Ok(Err(error)) => Err(Box::new(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use wsfleet_crds::v1alpha1::ConnectionsStatus;

    use super::*;

    fn with_sockets(total: u64) -> WebSocketClusterStatus {
        let connections = ConnectionsStatus {
            total,
            ..ConnectionsStatus::default()
        };
        WebSocketClusterStatus {
            observed_generation: Some(1),
            connections: Some(connections),
            ..WebSocketClusterStatus::default()
        }
    }

    #[test]
    fn an_equal_status_is_never_written() {
        let now = Instant::now();
        assert_eq!(
            decide(Some(&with_sockets(1)), &with_sockets(1), None, now),
            Decision::Skip
        );
        assert_eq!(decide(None, &with_sockets(1), Some(now), now), Decision::Write);
    }

    #[test]
    fn numbers_alone_wait_for_their_turn_and_news_do_not() {
        let now = Instant::now();
        let (old, new) = (with_sockets(1), with_sockets(2));
        let just = now - Duration::from_secs(2);
        assert_eq!(
            decide(Some(&old), &new, Some(just), now),
            Decision::Wait(Duration::from_secs(3))
        );
        assert_eq!(
            decide(Some(&old), &new, Some(now - MIN_INTERVAL), now),
            Decision::Write
        );
        let news = WebSocketClusterStatus {
            observed_generation: Some(2),
            ..new
        };
        assert_eq!(decide(Some(&old), &news, Some(just), now), Decision::Write);
    }
}
