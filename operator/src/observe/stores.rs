//! The watches: one per kind, each feeding a cache and saying which resources to look at again.
//!
//! Only objects with the operator's label are watched, and only what is read of them is kept: of pods the metadata, the
//! status, the node's name and the gateway's ports; of Services and budgets all but the status; of nodes what tells whether
//! they are well.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Pod, PodSpec, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::WebSocketCluster;

/// The resource as it is watched: one that does not parse is a value, not the end of the watch.
pub type Root = DeserializeGuard<WebSocketCluster>;
/// A resource that shall be looked at.
pub type RootRef = ObjectRef<Root>;

/// Requests to look at resources: at one, or at all.
#[derive(Clone, Debug)]
pub struct Triggers {
    one: mpsc::Sender<RootRef>,
    all: Arc<watch::Sender<u64>>,
}

impl Triggers {
    /// The sending side, and the receiver of single requests. The queue is bounded: a full one holds the watches back.
    pub fn new(all: Arc<watch::Sender<u64>>) -> (Self, mpsc::Receiver<RootRef>) {
        let (one, receiver) = mpsc::channel(1024);
        (Self { one, all }, receiver)
    }

    /// Look at this resource.
    pub async fn one(&self, root: RootRef) {
        // the receiver is gone only when the controller has ended
        let _ = self.one.send(root).await;
    }

    /// Look at every resource.
    pub fn all(&self) {
        self.all.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The caches of one scope (a namespace, or all).
#[derive(Clone, Debug)]
pub struct Stores {
    /// Gateway pods.
    pub pods: Store<Pod>,
    /// Managed Services.
    pub services: Store<Service>,
    /// Managed budgets.
    pub budgets: Store<PodDisruptionBudget>,
    /// Revisions.
    pub revisions: Store<ControllerRevision>,
    filled: Vec<Filled>,
}

/// Whether a cache has been filled once. Not `Store::wait_until_ready`, which wakes only the last of several waiters.
type Filled = watch::Receiver<bool>;

async fn all_filled(caches: &[Filled]) -> bool {
    for cache in caches {
        if cache.clone().wait_for(|filled| *filled).await.is_err() {
            return false;
        }
    }
    true
}

impl Stores {
    /// Starts the watches of one scope on `tasks`.
    pub fn start(client: &Client, namespace: Option<&str>, triggers: &Triggers, tasks: &TaskTracker) -> Self {
        let ours = format!("{}={}", labels::MANAGED_BY, labels::MANAGED_BY_VALUE);
        let config = watcher::Config::default().labels(&ours);
        let (pods, pods_filled) = feed(
            scoped(client, namespace),
            config.clone(),
            prune_pod,
            triggers,
            tasks,
        );
        let (services, services_filled) = feed(
            scoped(client, namespace),
            config.clone(),
            prune_service,
            triggers,
            tasks,
        );
        let (budgets, budgets_filled) = feed(
            scoped(client, namespace),
            config.clone(),
            prune_budget,
            triggers,
            tasks,
        );
        let (revisions, revisions_filled) =
            feed(scoped(client, namespace), config, prune_meta, triggers, tasks);
        let filled = vec![pods_filled, services_filled, budgets_filled, revisions_filled];
        Self {
            pods,
            services,
            budgets,
            revisions,
            filled,
        }
    }

    /// Waits until every cache has been filled once. False when a watch has ended instead.
    pub async fn ready(&self) -> bool {
        all_filled(&self.filled).await
    }
}

/// The Api of a namespaced kind in one namespace or in all.
pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    namespace.map_or_else(
        || Api::all(client.clone()),
        |name| Api::namespaced(client.clone(), name),
    )
}

fn feed<K>(
    api: Api<K>,
    config: watcher::Config,
    prune: fn(&mut K),
    triggers: &Triggers,
    tasks: &TaskTracker,
) -> (Store<K>, Filled)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let (store, writer) = reflector::store();
    let (fill, filled) = watch::channel(false);
    let triggers = triggers.clone();
    tasks.spawn(async move {
        let mut events = std::pin::pin!(reflector(
            writer,
            watcher(api, config).default_backoff().modify(prune)
        ));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Apply(object) | Event::Delete(object)) => {
                    if let Some(root) = root_of(&object) {
                        triggers.one(root).await;
                    }
                }
                // a list replaces the cache: what is no longer in it was deleted while nobody watched
                Ok(Event::InitDone) => {
                    fill.send_replace(true);
                    triggers.all();
                }
                Ok(Event::Init | Event::InitApply(_)) => {}
                Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted"),
            }
        }
    });
    (store, filled)
}

/// The resource that an owned object belongs to.
fn root_of<K: Resource>(object: &K) -> Option<RootRef> {
    let owner = object.owner_references().iter().find(|owner| {
        owner.controller == Some(true)
            && owner.kind == WebSocketCluster::kind(&())
            && owner.api_version == WebSocketCluster::api_version(&())
    })?;
    Some(ObjectRef::new(&owner.name).within(object.meta().namespace.as_deref()?))
}

fn prune_meta<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

fn prune_service(service: &mut Service) {
    prune_meta(service);
    service.status = None;
}

fn prune_budget(budget: &mut PodDisruptionBudget) {
    prune_meta(budget);
    budget.status = None;
}

fn prune_pod(pod: &mut Pod) {
    prune_meta(pod);
    if let Some(spec) = pod.spec.take() {
        let containers = spec
            .containers
            .into_iter()
            .filter(|container| container.name == super::pods::GATEWAY_CONTAINER)
            .map(|container| k8s_openapi::api::core::v1::Container {
                name: container.name,
                ports: container.ports,
                ..Default::default()
            })
            .collect();
        pod.spec = Some(PodSpec {
            node_name: spec.node_name,
            containers,
            ..PodSpec::default()
        });
    }
}

/// The cache of nodes, when they may be read.
#[derive(Clone, Debug, Default)]
pub struct NodeStore(Option<NodeCache>);

#[derive(Clone, Debug)]
struct NodeCache {
    store: Store<Node>,
    filled: Filled,
    /// When each node that pods still name was first missed.
    gone: Arc<Mutex<HashMap<String, jiff::Timestamp>>>,
}

/// What is known of a node.
#[derive(Clone, Debug)]
pub enum NodeFact {
    /// Nodes are not watched.
    Unwatched,
    /// The node.
    Present(Arc<Node>),
    /// There is no such node, since about then.
    Gone(jiff::Timestamp),
}

impl NodeStore {
    /// Starts the watch on `tasks`; a change of a node's health, cordon or taints asks for a look at every resource.
    pub fn start(client: &Client, all: Arc<watch::Sender<u64>>, tasks: &TaskTracker) -> Self {
        let (store, writer) = reflector::store();
        let (fill, filled) = watch::channel(false);
        tasks.spawn(watch_nodes(Api::all(client.clone()), writer, fill, all));
        Self(Some(NodeCache {
            store,
            filled,
            gone: Arc::default(),
        }))
    }

    /// Waits until the cache has been filled once.
    pub async fn ready(&self) -> bool {
        match &self.0 {
            Some(cache) => all_filled(std::slice::from_ref(&cache.filled)).await,
            None => true,
        }
    }

    /// What is known of the node `name` at `now`.
    pub fn get(&self, name: &str, now: jiff::Timestamp) -> NodeFact {
        let Some(cache) = &self.0 else {
            return NodeFact::Unwatched;
        };
        let mut gone = cache.gone.lock();
        if let Some(node) = cache.store.get(&ObjectRef::new(name)) {
            gone.remove(name);
            return NodeFact::Present(node);
        }
        NodeFact::Gone(*gone.entry(name.to_owned()).or_insert(now))
    }

    /// Forgets missing nodes that no pod names any more.
    pub fn retain_gone(&self, named: &BTreeSet<String>) {
        if let Some(cache) = &self.0 {
            cache.gone.lock().retain(|name, _| named.contains(name));
        }
    }
}

/// What of a node matters: cordoned, taint keys, status of its Ready condition.
type NodeDigest = (bool, BTreeSet<String>, Option<String>);

async fn watch_nodes(
    api: Api<Node>,
    writer: Writer<Node>,
    fill: watch::Sender<bool>,
    all: Arc<watch::Sender<u64>>,
) {
    let mut digests: HashMap<String, NodeDigest> = HashMap::new();
    let stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(prune_node);
    let mut events = std::pin::pin!(reflector(writer, stream));
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(Event::Apply(node) | Event::InitApply(node)) => {
                let digest = digest(&node);
                digests.insert(node.name_any(), digest.clone()) != Some(digest)
            }
            Ok(Event::Delete(node)) => digests.remove(&node.name_any()).is_some(),
            Ok(Event::InitDone) => {
                fill.send_replace(true);
                true
            }
            Ok(Event::Init) => false,
            Err(error) => {
                warn!(kind = "Node", %error, "watch interrupted");
                false
            }
        };
        if changed {
            debug!("a node changed");
            all.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

fn digest(node: &Node) -> NodeDigest {
    let spec = node.spec.as_ref();
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let taints = spec
        .and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten()
        .map(|taint| taint.key.clone());
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    (
        cordoned,
        taints.collect(),
        ready.map(|condition| condition.status.clone()),
    )
}

fn prune_node(node: &mut Node) {
    prune_meta(node);
    node.metadata.annotations = None;
    node.metadata.labels = None;
    let spec = node.spec.take().unwrap_or_default();
    node.spec = Some(NodeSpec {
        taints: spec.taints,
        unschedulable: spec.unschedulable,
        ..NodeSpec::default()
    });
    let status = node.status.take().unwrap_or_default();
    node.status = Some(NodeStatus {
        conditions: status.conditions,
        ..NodeStatus::default()
    });
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

    use super::*;

    fn owned_by(kind: &str, controller: Option<bool>) -> Pod {
        Pod {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "wsfleet.dev/v1alpha1".into(),
                    kind: kind.into(),
                    name: "chat".into(),
                    controller,
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    #[test]
    fn only_the_controlling_resource_is_looked_at() {
        assert_eq!(
            root_of(&owned_by("WebSocketCluster", Some(true))),
            Some(ObjectRef::new("chat").within("ns"))
        );
        assert_eq!(root_of(&owned_by("WebSocketCluster", None)), None);
        assert_eq!(root_of(&owned_by("ReplicaSet", Some(true))), None);
    }
}
