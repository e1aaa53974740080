//! Steps that scenarios have in common: what is awaited, watched for a while, scaled, killed.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::{Instant, sleep};
use wsfleet_crds::v1alpha1::WebSocketClusterStatus;
use wsfleet_load::{Load, Target};

use crate::cluster::{Deadline, Seen};
use crate::scenario::{Failure, Fleet};

/// Time between two looks of [`Fleet::throughout`].
const PERIOD: Duration = Duration::from_millis(250);
/// `spec.gateway.port` of the scenarios.
const PORT: u16 = 8080;

/// Who leads the operator's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Name of the leading pod.
    pub holder: String,
    /// `leaseTransitions`: grows with each term.
    pub epoch: i32,
}

impl Fleet {
    /// Waits until all clients that the load wants are joined to their rooms.
    pub async fn until_joined(&self, load: &Load, within: Duration) -> Result<(), Deadline> {
        let joined = || async {
            let (joined, wanted) = (load.joined(), u64::from(load.target()));
            if joined == wanted {
                Ok(())
            } else {
                Err(format!("{joined} of {wanted} clients are joined"))
            }
        };
        self.namespace
            .until("all clients are joined", within, joined)
            .await
    }

    /// Gives the gateways another template, and so a new revision. Returns the hash of the one before.
    pub async fn revise(&self, build: u32) -> Result<Option<String>, Failure> {
        let before = self.status().await?.update_revision;
        let annotations = json!({"example.com/build": build.to_string()});
        self.patch(json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}))
            .await?;
        Ok(before)
    }

    /// Waits until another revision than `before` runs on all of `size` gateways, and they are all that is left.
    pub async fn until_revised(
        &self,
        before: Option<&str>,
        size: u32,
        within: Duration,
    ) -> Result<(), Deadline> {
        let revised = |status: &WebSocketClusterStatus| {
            status.update_revision.as_deref() != before
                && status.current_revision == status.update_revision
                && (status.replicas, status.accepting_replicas) == (size, size)
        };
        self.until_status("the new revision runs everywhere", within, revised)
            .await?;
        Ok(())
    }

    /// Looks again and again for so long; an error as soon as a look gives one. For what must *not* happen.
    pub async fn throughout<Fut>(
        &self,
        what: &str,
        lasting: Duration,
        mut look: impl FnMut() -> Fut,
    ) -> Result<(), Failure>
    where
        Fut: Future<Output = Seen<()>>,
    {
        let begin = Instant::now();
        while begin.elapsed() < lasting {
            if let Err(seen) = look().await {
                let report = self.namespace.cluster().report(self.namespace.name()).await;
                return Err(format!("{what}: after {:?}: {seen}\n{report}", begin.elapsed()).into());
            }
            sleep(PERIOD).await;
        }
        Ok(())
    }

    /// Sets the size of a Deployment, and waits until it has it.
    pub async fn scale_deployment(&self, name: &str, replicas: u32) -> Result<(), Failure> {
        let patch = json!({"spec": {"replicas": replicas}});
        self.namespace
            .api::<Deployment>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        self.namespace
            .until_deployed(&[name], Duration::from_mins(1))
            .await?;
        Ok(())
    }

    /// Where a gateway pod takes sockets, past the Service.
    pub fn target(&self, pod: &Pod) -> Result<Target, Failure> {
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        let ip = ip.ok_or_else(|| format!("{} has no address", pod.name_any()))?;
        Ok(format!("ws://{ip}:{PORT}/ws").parse()?)
    }

    /// Who leads the operator now.
    pub async fn term(&self) -> Result<Term, Failure> {
        let name = self.namespace.name();
        let spec = self.namespace.api::<Lease>().get(name).await?.spec;
        let spec = spec.ok_or("an empty Lease")?;
        Ok(Term {
            holder: spec.holder_identity.unwrap_or_default(),
            epoch: spec.lease_transitions.unwrap_or_default(),
        })
    }

    /// Sends SIGKILL to the process in a pod's first container, as the kernel does when memory runs out. Works where the
    /// nodes' processes are this machine's: the local cluster.
    pub fn kill_process_of(&self, pod: &Pod) -> Result<(), Failure> {
        let process = process_of(pod, first_container(pod))?;
        Ok(kill_process(process, Signal::KILL)?)
    }

    /// Stops the process in a pod's container (SIGSTOP) until what is returned is dropped: to others it is as if the network
    /// swallowed everything. Works in the local cluster only.
    pub fn stop_process_of(&self, pod: &Pod, container: &str) -> Result<Stopped, Failure> {
        let pid = process_of(pod, container)?;
        kill_process(pid, Signal::STOP)?;
        Ok(Stopped(pid))
    }
}

/// A process that stands still; it goes on when this is dropped.
#[derive(Debug)]
pub struct Stopped(Pid);

impl Drop for Stopped {
    fn drop(&mut self) {
        // fails when it has been killed meanwhile
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn container_statuses(pod: &Pod) -> &[ContainerStatus] {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses.unwrap_or_default()
}

/// The name of a pod's first container that has ever run; empty when none has.
pub(crate) fn first_container(pod: &Pod) -> &str {
    let first = container_statuses(pod).first();
    first.map_or("", |status| &*status.name)
}

/// The process in a pod's container, among those of this machine.
pub(crate) fn process_of(pod: &Pod, container: &str) -> Result<Pid, Failure> {
    let name = pod.name_any();
    let id = container_statuses(pod)
        .iter()
        .find(|status| status.name == container)
        .and_then(|status| status.container_id.as_deref())
        .and_then(|id| id.rsplit('/').next())
        .filter(|id| !id.is_empty())
        .ok_or_else(|| format!("no container {container} runs in {name}"))?;
    let pid = pid_in_cgroup(id)?;
    Ok(pid.ok_or_else(|| format!("no process of {name} on this machine: use the local cluster"))?)
}

/// A process whose control group has this name, in either version of the hierarchy.
fn pid_in_cgroup(name: &str) -> Result<Option<Pid>, Failure> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|text| text.parse().ok()) else {
            continue;
        };
        // gone by now, or never ours to read
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.lines().any(|line| line.contains(name)) {
            return Ok(Pid::from_raw(pid));
        }
    }
    Ok(None)
}

/// Status and message of a condition, for one look of a wait.
pub fn condition<'a>(status: &'a WebSocketClusterStatus, kind: &str) -> Option<(&'a str, &'a str)> {
    let found = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.message))
}
