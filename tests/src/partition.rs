//! A network partition between pods: the packet filter drops what one of them sends to others. Works where the nodes'
//! processes are this machine's: the local cluster.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use rustix::process::Pid;
use tokio::process::Command;

use crate::scenario::Failure;
use crate::steps::{first_container, process_of};

/// A pod that cannot reach some others, though it can reach everything else. The filter is in the pod's own network, and
/// goes with it.
#[derive(Debug)]
pub struct Partition {
    pod: String,
    process: Pid,
}

impl Partition {
    /// Nothing that `from` sends reaches any of `to` from now on.
    pub async fn between(from: &Pod, to: &[&Pod]) -> Result<Self, Failure> {
        let partition = Self {
            pod: from.name_any(),
            process: process_of(from, first_container(from))?,
        };
        let lost = to.iter().map(|pod| address(pod)).collect::<Result<Vec<_>, _>>()?;
        let rules = format!(
            "table ip wsfleet-tests {{
                set lost {{ type ipv4_addr; }}
                chain out {{ type filter hook output priority 0; ip daddr @lost drop; }}
            }}
            add element ip wsfleet-tests lost {{ {} }}",
            lost.join(", ")
        );
        partition.filter(&rules).await?;
        Ok(partition)
    }

    /// It reaches this one again.
    pub async fn heal(&self, pod: &Pod) -> Result<(), Failure> {
        let element = address(pod)?;
        self.filter(&format!("delete element ip wsfleet-tests lost {{ {element} }}"))
            .await
    }

    async fn filter(&self, rules: &str) -> Result<(), Failure> {
        let network = format!("--net=/proc/{}/ns/net", self.process.as_raw_nonzero());
        let output = Command::new("nsenter")
            .args([&network, "--", "nft", rules])
            .output()
            .await
            .map_err(|error| {
                format!("nsenter cannot be started: {error}: install util-linux and nftables")
            })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("packet filter of {}: {said}", self.pod).into())
    }
}

fn address(pod: &Pod) -> Result<&str, Failure> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(address.ok_or_else(|| format!("{} has no address", pod.name_any()))?)
}
