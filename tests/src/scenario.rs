//! A whole fleet for a scenario: a namespace with an operator of its own (installed with the real chart), a Redis, a
//! `WebSocketCluster`, and clients that keep the account.
//!
//! Every scenario has its own operator, which watches its own namespace only: scenarios neither disturb nor help each
//! other, and what the audit log says of one operator is what one scenario did.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use rand::distr::{Alphanumeric, SampleString as _};
use serde_json::{Value, json};
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::{WebSocketCluster, WebSocketClusterStatus};
use wsfleet_load::{Load, LoadConfig, RoomLayout, TokenMode};

use crate::cluster::{Cluster, Deadline, Namespace, Release, has_condition};

/// Why a fleet could not be made or asked; the text is for the person who reads the failed test.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Name of the `WebSocketCluster` in every scenario.
pub const NAME: &str = "chat";

/// A running fleet. Dropping it removes everything.
#[derive(Debug)]
pub struct Fleet {
    /// The operator; first, so that it is uninstalled before its namespace goes.
    operator: Option<Release>,
    /// Where everything is.
    pub namespace: Namespace,
    secret: String,
}

impl Fleet {
    /// Installs an operator into a new namespace, with Redis beside it, and waits for both.
    pub async fn prepare(cluster: &Cluster, prefix: &str) -> Result<Self, Failure> {
        let fleet = Self::without_redis(cluster, prefix).await?;
        fleet.apply_example("redis.yaml").await?;
        fleet
            .namespace
            .until_deployed(&["redis"], Duration::from_secs(90))
            .await?;
        Ok(fleet)
    }

    /// Installs an operator into a new namespace and waits for it; nothing else is there.
    pub async fn without_redis(cluster: &Cluster, prefix: &str) -> Result<Self, Failure> {
        let namespace = cluster.namespace(prefix).await?;
        let secret = Alphanumeric.sample_string(&mut rand::rng(), 48);
        let mut fleet = Self {
            operator: None,
            namespace,
            secret,
        };
        cluster
            .apply_in(
                "default",
                include_str!("../../crds/wsfleet.dev_websocketclusters.yaml"),
            )
            .await?;
        fleet.apply_secret().await?;
        fleet.install_operator("gateway:dev").await?;
        Ok(fleet)
    }

    /// [`Fleet::prepare`], then a `WebSocketCluster` with these fields laid over the scenarios' defaults, Ready.
    pub async fn start(cluster: &Cluster, prefix: &str, spec: Value) -> Result<Self, Failure> {
        let fleet = Self::prepare(cluster, prefix).await?;
        fleet.apply_spec(spec).await?;
        fleet.until_ready(Duration::from_mins(2)).await?;
        Ok(fleet)
    }

    /// Installs the operator, or upgrades it to another default gateway image.
    pub async fn install_operator(&mut self, gateway_image: &str) -> Result<(), Failure> {
        let cluster = self.namespace.cluster().clone();
        let namespace = self.namespace.name().to_owned();
        let (gateway, tag) = gateway_image.split_once(':').unwrap_or((gateway_image, "dev"));
        let values = [
            ("crds.install", "false".to_owned()),
            ("image.repository", cluster.image("operator")),
            ("image.tag", "dev".to_owned()),
            ("gatewayImage.repository", cluster.image(gateway)),
            ("gatewayImage.tag", tag.to_owned()),
            ("watchNamespaces", format!("{{{namespace}}}")),
            ("fullnameOverride", namespace.clone()),
            ("log.format", "text".to_owned()),
            ("log.filter", "info\\,wsfleet_operator=debug".to_owned()),
        ];
        let values: Vec<_> = values.iter().map(|(key, value)| (*key, value.as_str())).collect();
        match &self.operator {
            Some(release) => {
                release.upgrade(&chart(), &values).await?;
            }
            // the release is named after the namespace: cluster-wide objects of two scenarios don't collide
            None => self.operator = Some(cluster.install(&namespace, &namespace, &chart(), &values).await?),
        }
        Ok(())
    }

    /// Applies one of the examples, with the images of this cluster.
    pub async fn apply_example(&self, file: &str) -> Result<(), Failure> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../examples")
            .join(file);
        let cluster = self.namespace.cluster();
        let yaml = std::fs::read_to_string(&path)?
            .replace("image: redis:7", &format!("image: {}", cluster.image("redis:7")))
            .replace(
                "image: prom/prometheus:v2.53.5",
                &format!("image: {}", cluster.image("prometheus:2")),
            );
        self.namespace.apply(&yaml).await?;
        Ok(())
    }

    async fn apply_secret(&self) -> Result<(), Failure> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "chat-jwt"},
            "stringData": {"secret": self.secret},
        });
        self.namespace.apply(&secret.to_string()).await?;
        Ok(())
    }

    /// Applies the `WebSocketCluster`: the scenarios' defaults (short times, no limits by address) with `spec` laid
    /// over them.
    pub async fn apply_spec(&self, spec: Value) -> Result<(), Failure> {
        self.apply_named(NAME, spec).await
    }

    /// [`Fleet::apply_spec`] for a `WebSocketCluster` of another name beside it.
    pub async fn apply_named(&self, name: &str, spec: Value) -> Result<(), Failure> {
        let mut whole = json!({
            "replicas": 2,
            "broker": {"redis": {"url": "redis://redis:6379"}},
            "auth": {"jwt": {"secretRef": {"name": "chat-jwt", "key": "secret"}}},
            "limits": {"connectionsPerIp": 0, "handshakesPerSecondPerIp": 0},
            "service": {"type": "NodePort"},
            "rollout": {"minReadySeconds": 1, "canary": {"bakeSeconds": 2}},
            "drain": {
                "timeoutSeconds": 90, "settleSeconds": 2, "reconnect": {"windowSeconds": 4},
                "passiveSeconds": {"rollout": 0, "scaleDown": 2},
            },
        });
        merge(&mut whole, spec);
        let object = json!({
            "apiVersion": "wsfleet.dev/v1alpha1", "kind": "WebSocketCluster", "metadata": {"name": name}, "spec": whole,
        });
        self.namespace.apply(&object.to_string()).await?;
        Ok(())
    }

    /// JSON merge patch of the `WebSocketCluster`.
    pub async fn patch(&self, patch: Value) -> Result<(), Failure> {
        self.resource()
            .patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// The resource's API.
    pub fn resource(&self) -> Api<WebSocketCluster> {
        self.namespace.api()
    }

    /// The status as it is now.
    pub async fn status(&self) -> Result<WebSocketClusterStatus, Failure> {
        Ok(self.resource().get(NAME).await?.status.unwrap_or_default())
    }

    /// The gateway pods, terminating ones included, by name.
    pub async fn pods(&self) -> Result<Vec<Pod>, Failure> {
        let selector = ListParams::default().labels(&format!("{}={NAME}", labels::CLUSTER));
        let mut pods = self.namespace.api::<Pod>().list(&selector).await?.items;
        pods.sort_by_key(kube::ResourceExt::name_any);
        Ok(pods)
    }

    /// The operator's pods.
    pub async fn operator_pods(&self) -> Result<Vec<Pod>, Failure> {
        let selector = ListParams::default().labels("app.kubernetes.io/name=wsfleet-operator");
        Ok(self.namespace.api::<Pod>().list(&selector).await?.items)
    }

    /// Waits until the condition Ready is True for the present generation.
    pub async fn until_ready(&self, within: Duration) -> Result<(), Deadline> {
        self.until_named_ready(NAME, within).await
    }

    /// [`Fleet::until_ready`] for the `WebSocketCluster` of that name.
    pub async fn until_named_ready(&self, name: &str, within: Duration) -> Result<(), Deadline> {
        let resource = &self.resource();
        self.namespace
            .until(&format!("{name} is Ready"), within, || async move {
                let object = resource.get(name).await.map_err(|error| error.to_string())?;
                let observed = object
                    .status
                    .as_ref()
                    .and_then(|status| status.observed_generation);
                if observed != object.metadata.generation {
                    return Err(format!(
                        "generation {:?}, observed {observed:?}",
                        object.metadata.generation
                    ));
                }
                has_condition(&object, "Ready", "True")
            })
            .await
    }

    /// Waits until the status satisfies `good`; `what` completes "the status has …".
    pub async fn until_status(
        &self,
        what: &str,
        within: Duration,
        good: impl Fn(&WebSocketClusterStatus) -> bool,
    ) -> Result<WebSocketClusterStatus, Deadline> {
        let good = &good;
        self.namespace
            .until(what, within, || async move {
                let status = self.status().await.map_err(|error| error.to_string())?;
                if good(&status) {
                    Ok(status)
                } else {
                    Err(serde_json::to_string(&status).unwrap_or_default())
                }
            })
            .await
    }

    /// A load for this fleet's Service: `connections` clients in rooms of 20, 20 messages per second.
    pub async fn load(&self, connections: u32) -> Result<LoadConfig, Failure> {
        self.load_of(NAME, connections).await
    }

    /// [`Fleet::load`] for the `WebSocketCluster` of that name.
    pub async fn load_of(&self, name: &str, connections: u32) -> Result<LoadConfig, Failure> {
        let address = self.namespace.node_port(name).await?;
        let mut config = LoadConfig::new(format!("ws://{address}/ws").parse()?);
        config.connections = connections;
        config.rate = 300.0;
        config.connect_concurrency = 50;
        config.rooms = RoomLayout::Size(20);
        config.publish_rate = 20.0;
        config.token = TokenMode::Jwt {
            secret: self.secret.clone().into_bytes(),
            audience: None,
            issuer: None,
        };
        config.reconnect_window = Duration::from_secs(4);
        Ok(config)
    }

    /// Starts a load and waits until all clients are joined.
    pub async fn start_load(&self, config: LoadConfig) -> Result<Load, Failure> {
        let load = Load::start(config)?;
        self.until_joined(&load, Duration::from_secs(90)).await?;
        Ok(load)
    }
}

/// The chart in the repository.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/wsfleet")
}

/// Lays `over` over `base`: objects are merged, everything else is replaced; null removes.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                } else {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// A pod's label.
pub fn label<'a>(pod: &'a Pod, key: &str) -> &'a str {
    pod.labels().get(key).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_replaces_leaves_keeps_siblings_and_removes_nulls() {
        let mut base = json!({"a": {"b": 1, "c": 2}, "d": [1]});
        merge(
            &mut base,
            json!({"a": {"b": 3, "c": null}, "d": [2, 3], "e": {"f": 4}}),
        );
        assert_eq!(base, json!({"a": {"b": 3}, "d": [2, 3], "e": {"f": 4}}));
    }
}
