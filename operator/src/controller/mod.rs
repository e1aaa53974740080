//! The controller of one scope: its watches, its queue, and the passes over its resources.
//!
//! All replicas watch, so that a new leader starts with filled caches; passes do nothing without the leadership, and
//! every resource is looked at when a term begins. One resource is never in two passes at a time.

mod backoff;
mod malformed;
mod reconcile;

use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::controller::{self, Controller};
use kube::runtime::reflector::{self, Store, reflector};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{WatchStreamExt, controller::Error as ControllerError};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use wsfleet_crds::v1alpha1::WebSocketCluster;

pub use reconcile::ReconcileError;

use crate::apply::Applier;
use crate::events::Events;
use crate::gateway::GatewayClient;
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::observe::Observer;
use crate::observe::memory::Memory;
use crate::observe::sampler::Sampler;
use crate::observe::samples::Samples;
use crate::observe::secrets::Secrets;
use crate::observe::stores::{NodeStore, Root, RootRef, Stores, Triggers, scoped};
use crate::observe::written::Written;
use crate::plan::revision::Defaults;
use crate::prometheus::PrometheusClient;

/// Passes at the same time, each over another resource.
const CONCURRENCY: u16 = 8;

/// What all scopes share.
#[derive(Clone)]
pub struct Shared {
    /// Client of the API server.
    pub client: Client,
    /// What the operator brings along.
    pub defaults: Defaults,
    /// Whether this process writes.
    pub leadership: Leadership,
    /// Own metrics.
    pub metrics: Metrics,
    /// The one recorder.
    pub events: Events,
    /// Nodes.
    pub nodes: NodeStore,
    /// Bumped when every resource shall be looked at.
    pub all: Arc<watch::Sender<u64>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("defaults", &self.defaults)
            .finish_non_exhaustive()
    }
}

/// What a pass needs.
struct Context {
    client: Client,
    defaults: Defaults,
    applier: Applier,
    events: Events,
}

impl Context {
    fn observer(&self) -> &Observer {
        &self.applier.observer
    }

    fn leadership(&self) -> &Leadership {
        &self.applier.leadership
    }

    /// The resource with this process's own last write in it, if the watch has not delivered that yet.
    fn newest(&self, cluster: &WebSocketCluster) -> Arc<WebSocketCluster> {
        let uid = cluster.uid();
        let cached = vec![Arc::new(cluster.clone())];
        let mut merged = self
            .observer()
            .written_clusters
            .over(cached, |other| other.uid() == uid);
        merged.pop().unwrap_or_else(|| Arc::new(cluster.clone()))
    }
}

/// One scope: a namespace, or all of them.
pub struct Scope {
    namespace: Option<String>,
    shared: Shared,
    observer: Arc<Observer>,
    roots: Store<Root>,
    root_writer: reflector::store::Writer<Root>,
    triggers: Triggers,
    requests: mpsc::Receiver<RootRef>,
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Scope {
    /// Starts the watches of a scope on `tasks`.
    pub fn start(shared: Shared, namespace: Option<String>, tasks: &TaskTracker) -> Self {
        let (triggers, requests) = Triggers::new(Arc::clone(&shared.all));
        let observer = Arc::new(Observer {
            stores: Stores::start(&shared.client, namespace.as_deref(), &triggers, tasks),
            nodes: shared.nodes.clone(),
            samples: Samples::default(),
            secrets: Secrets::new(shared.client.clone()),
            written_pods: Written::default(),
            written_clusters: Written::default(),
            written_revisions: Written::default(),
            memory: Memory::default(),
        });
        let (roots, root_writer) = reflector::store();
        Self {
            namespace,
            shared,
            observer,
            roots,
            root_writer,
            triggers,
            requests,
        }
    }

    /// The caches, to wait for.
    pub fn observer(&self) -> Arc<Observer> {
        Arc::clone(&self.observer)
    }

    /// Runs passes until `stop`, and until those under way have ended.
    pub async fn run(self, stop: CancellationToken) {
        let gateways = GatewayClient::new();
        let sampler = Sampler {
            observer: Arc::clone(&self.observer),
            roots: self.roots.clone(),
            gateways: gateways.clone(),
            prometheus: PrometheusClient::new(),
            leadership: self.shared.leadership.clone(),
            triggers: self.triggers.clone(),
            metrics: self.shared.metrics.clone(),
        };
        let context = Arc::new(Context {
            client: self.shared.client.clone(),
            defaults: self.shared.defaults.clone(),
            events: self.shared.events.clone(),
            applier: Applier {
                client: self.shared.client.clone(),
                gateways,
                observer: Arc::clone(&self.observer),
                leadership: self.shared.leadership.clone(),
                metrics: self.shared.metrics.clone(),
            },
        });
        let observer = Arc::clone(&self.observer);
        let sampling = sampler.run(stop.clone());
        let passes = async {
            // a pass on half-filled caches would see pods missing
            let filled = async { observer.stores.ready().await && observer.nodes.ready().await };
            tokio::select! {
                filled = filled => if filled {
                    info!(namespace = self.namespace, "caches filled");
                    self.control(context, stop.clone()).await;
                },
                () = stop.cancelled() => {}
            }
        };
        tokio::join!(sampling, passes);
    }

    async fn control(self, context: Arc<Context>, stop: CancellationToken) {
        let api: Api<Root> = scoped(&self.shared.client, self.namespace.as_deref());
        let stream = watcher(api, watcher::Config::default())
            .default_backoff()
            .modify(|root: &mut Root| root.meta_mut().managed_fields = None);
        let touched = reflector(self.root_writer, stream).applied_objects();
        let one = futures::stream::unfold(self.requests, |mut requests| async move {
            requests.recv().await.map(|root| (root, requests))
        });
        let all = changes(self.shared.all.subscribe());
        Controller::for_stream(touched, self.roots)
            .with_config(controller::Config::default().concurrency(CONCURRENCY))
            .reconcile_on(one)
            .reconcile_all_on(all)
            .reconcile_all_on(self.shared.leadership.beginnings())
            .graceful_shutdown_on(stop.cancelled_owned())
            .run(
                reconcile::reconcile,
                |root, error, context| reconcile::error_policy(&root, error, &context),
                context,
            )
            .for_each(|result| async move {
                match result {
                    // told by the error policy, or gone since it was queued
                    Ok(_)
                    | Err(ControllerError::ReconcilerFailed(..) | ControllerError::ObjectNotFound(_)) => {}
                    Err(error) => warn!(%error, "controller"),
                }
            })
            .await;
        debug!("controller ended");
    }
}

/// Yields each change of a counter.
fn changes(counter: watch::Receiver<u64>) -> impl futures::Stream<Item = ()> + Send {
    futures::stream::unfold(counter, |mut counter| async move {
        counter.changed().await.ok()?;
        Some(((), counter))
    })
}
