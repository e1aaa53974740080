//! Asks the gateways, and Prometheus where a resource says so, again and again: a task per scope, on the leader only.
//!
//! Costs the API server nothing. A round asks all gateways of a resource at once, with a bound on all calls under way,
//! and then has the resource looked at if something is different.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use wsfleet_crds::labels::{self, DrainReason};
use wsfleet_crds::v1alpha1::WebSocketCluster;

use super::samples::HEALTH_KEPT;
use super::stores::{Root, Triggers};
use super::{Identity, Observer, asks_prometheus, pods};
use crate::gateway::{Endpoint, GatewayClient, GatewayError};
use crate::leader::Leadership;
use crate::metrics::Metrics;
use crate::plan::resources::secret::admin_token_ref;
use crate::prometheus::{PrometheusClient, query_for};

/// How often the task looks for rounds that are due.
const TICK: Duration = Duration::from_millis(500);
/// How often gateways under drain are asked at least: their end must not wait for a slow metrics interval.
const DRAIN_INTERVAL: Duration = Duration::from_secs(2);
/// Calls under way at the same time, per resource.
const CONCURRENCY: usize = 32;

/// The sampling task of one scope.
#[derive(Debug)]
pub struct Sampler {
    /// What it fills and reads.
    pub observer: Arc<Observer>,
    /// The resources of the scope.
    pub roots: Store<Root>,
    /// Client of the gateways.
    pub gateways: GatewayClient,
    /// Client of Prometheus servers.
    pub prometheus: PrometheusClient,
    /// Only the leader asks.
    pub leadership: Leadership,
    /// Where changes are announced.
    pub triggers: Triggers,
    /// Counts what drains closed.
    pub metrics: Metrics,
}

/// How often what is gone is forgotten.
const FORGET: Duration = Duration::from_secs(30);

/// When the rounds of one resource are due.
#[derive(Debug)]
struct Due {
    id: Identity,
    all: Instant,
    draining: Instant,
}

impl Sampler {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let sampler = Arc::new(self);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due: HashMap<String, Due> = HashMap::new();
        let mut rounds = tokio::task::JoinSet::new();
        let mut under_way: HashSet<String> = HashSet::new();
        let mut forget_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = rounds.join_next() => {
                    if let Ok(uid) = done {
                        under_way.remove(&uid);
                    }
                }
                _ = ticks.tick() => {
                    let roots = sampler.roots.state();
                    if Instant::now() >= forget_at {
                        sampler.forget(&roots, &mut due);
                        forget_at = Instant::now() + FORGET;
                    }
                    if !sampler.leadership.is_leader() {
                        continue;
                    }
                    for root in roots {
                        let Ok(cluster) = &root.0 else { continue };
                        let Ok(id) = Identity::of(cluster) else { continue };
                        let Some(scope) = next_round(&mut due, &id, cluster) else { continue };
                        if under_way.insert(id.uid.clone()) {
                            let (sampler, root) = (Arc::clone(&sampler), Arc::clone(&root));
                            rounds.spawn(async move {
                                if let Ok(cluster) = &root.0 {
                                    sampler.round(&id, cluster, scope).await;
                                }
                                id.uid
                            });
                        }
                    }
                }
            }
        }
    }

    /// One round: true numbers in, and a look at the resource if anything is different.
    async fn round(&self, id: &Identity, cluster: &WebSocketCluster, scope: Round) {
        let (told, asked, measured) = tokio::join!(
            self.ask_gateways(id, cluster, scope),
            self.ask_prometheus(id, cluster, scope),
            self.measure(id, cluster, scope)
        );
        if told || asked || measured {
            self.triggers
                .one(ObjectRef::new(&id.name).within(&id.namespace))
                .await;
        }
    }

    async fn ask_gateways(&self, id: &Identity, cluster: &WebSocketCluster, scope: Round) -> bool {
        let port = cluster.spec.gateway.admin_port;
        let pods = self
            .observer
            .pods(id)
            .into_iter()
            .filter(|pod| scope.includes(pod));
        let targets: Vec<(Arc<Pod>, Endpoint)> = pods
            .filter_map(|pod| endpoint(&pod, port).map(|endpoint| (pod, endpoint)))
            .collect();
        if targets.is_empty() {
            return false;
        }
        let token = match self.observer.token(id, cluster).await {
            Ok(Some(token)) => token,
            Ok(None) => {
                let silent = |changed: bool, (pod, _): &(Arc<Pod>, Endpoint)| {
                    self.note(id, cluster, pod, &Err(GatewayError::NoToken)) || changed
                };
                return targets.iter().fold(false, silent);
            }
            // whether there is one is not known
            Err(error) => {
                debug!(cluster = id.name, %error, "no token to ask gateways with");
                return false;
            }
        };
        let calls = targets.into_iter().map(|(pod, endpoint)| {
            let (gateways, token) = (self.gateways.clone(), token.clone());
            async move {
                let answer = gateways.state(&endpoint, token.expose()).await;
                (pod, answer)
            }
        });
        let mut answers = futures::stream::iter(calls).buffer_unordered(CONCURRENCY);
        let mut changed = false;
        while let Some((pod, answer)) = answers.next().await {
            changed |= self.note(id, cluster, &pod, &answer);
        }
        changed
    }

    /// Keeps one answer. A pod under drain is always news: its end is decided by two looks in a row.
    fn note(
        &self,
        id: &Identity,
        cluster: &WebSocketCluster,
        pod: &Pod,
        answer: &Result<wsfleet_crds::admin::GatewayState, GatewayError>,
    ) -> bool {
        let Some(uid) = pod.metadata.uid.as_deref() else {
            return false;
        };
        let change = self.observer.samples.record(uid, Timestamp::now(), answer);
        match answer {
            Ok(state) => {
                let every = measured_every(cluster);
                self.observer
                    .samples
                    .record_health(uid, Timestamp::now(), state.health, every);
                self.leadership.outbid(state.epoch);
                if let Some(reason) = pod
                    .annotations()
                    .get(labels::DRAIN_REASON)
                    .and_then(|text| DrainReason::parse(text))
                {
                    self.metrics.disconnected(reason, change.forced, change.natural);
                    self.observer.memory.closed(&id.uid, reason, change.forced);
                }
            }
            Err(GatewayError::Unauthorized) => {
                let secret = admin_token_ref(cluster).name;
                self.observer.secrets.forget(&id.namespace, &secret);
                debug!(pod = pod.name_any(), "the gateway refuses the admin token");
            }
            Err(error) => debug!(pod = pod.name_any(), %error, "gateway not sampled"),
        }
        change.relevant || is_leaving(pod)
    }

    async fn ask_prometheus(&self, id: &Identity, cluster: &WebSocketCluster, scope: Round) -> bool {
        let metrics = &cluster.spec.autoscaling.metrics;
        let Some(server) = metrics
            .prometheus
            .as_ref()
            .filter(|_| asks_prometheus(cluster) && scope == Round::All)
        else {
            return false;
        };
        let query = query_for(server.query.as_deref(), &id.namespace, &id.name);
        let stale = Duration::from_secs(metrics.stale_seconds.into());
        let answer = self
            .prometheus
            .query(&server.endpoint, &id.namespace, &query, stale)
            .await;
        if let Err(error) = &answer {
            debug!(cluster = id.name, %error, "Prometheus not asked");
        }
        self.observer.samples.record_query(&id.uid, answer)
    }

    /// Asks Prometheus for the analyses of a rollout that are due.
    async fn measure(&self, id: &Identity, cluster: &WebSocketCluster, scope: Round) -> bool {
        let samples = &self.observer.samples;
        if !rolls(cluster) {
            samples.forget_analyses(&id.uid);
            return false;
        }
        if scope != Round::All {
            return false;
        }
        let known = samples.analyses(&id.uid);
        let status = cluster.status.as_ref();
        let revision = |hash: Option<&String>| hash.cloned().unwrap_or_default();
        let new = revision(status.and_then(|status| status.update_revision.as_ref()));
        let old = revision(status.and_then(|status| status.current_revision.as_ref()));
        let mut asked = false;
        for analysis in &cluster.spec.rollout.analysis {
            let (Some(query), Some(endpoint)) = (&analysis.query, &analysis.endpoint) else {
                continue;
            };
            let every = Duration::from_secs(analysis.interval_seconds.into());
            let last = known
                .get(&analysis.name)
                .and_then(|all| all.last())
                .map(|(at, _)| *at);
            let now = Timestamp::now();
            if last.is_some_and(|last| now.duration_since(last).unsigned_abs() < every) {
                continue;
            }
            let query = query_for(Some(query), &id.namespace, &id.name)
                .replace("$revision", &new)
                .replace("$stable", &old);
            let answer = self
                .prometheus
                .value(endpoint, &id.namespace, &query, every * 2)
                .await;
            let answer = answer.map_err(|error| error.to_string());
            debug!(
                cluster = id.name,
                analysis = analysis.name,
                ?answer,
                "analysis measured"
            );
            samples.record_analysis(&id.uid, &analysis.name, now, answer);
            asked = true;
        }
        asked
    }

    /// Drops what is kept about pods, nodes and resources that are gone.
    fn forget(&self, roots: &[Arc<Root>], due: &mut HashMap<String, Due>) {
        let known: HashSet<String> = roots.iter().filter_map(|root| root.uid()).collect();
        due.retain(|uid, gone| {
            let keep = known.contains(uid);
            if !keep {
                self.metrics.forget_cluster(&gone.id.namespace, &gone.id.name);
            }
            keep
        });
        let pods = self.observer.stores.pods.state();
        let uids = pods.iter().filter_map(|pod| pod.uid()).collect();
        let nodes: BTreeSet<String> = pods
            .iter()
            .filter_map(|pod| pods::node_name(pod).map(str::to_owned))
            .collect();
        self.observer.samples.retain(&uids, &known);
        self.observer.memory.retain(&known);
        self.observer.written_pods.expire();
        self.observer.written_clusters.expire();
        self.observer.written_revisions.expire();
        self.observer.nodes.retain_gone(&nodes);
    }
}

/// Whether a new revision is being judged.
fn rolls(cluster: &WebSocketCluster) -> bool {
    let rollout = cluster.status.as_ref().and_then(|status| status.rollout.as_ref());
    rollout.is_some_and(|rollout| rollout.started_at.is_some() && rollout.failed_revision.is_none())
}

/// How far apart gateways' counters are kept; `None` unless a new revision is judged by them.
pub(crate) fn measured_every(cluster: &WebSocketCluster) -> Option<SignedDuration> {
    rolls(cluster).then(|| spacing(cluster)).flatten()
}

/// How far apart counters are kept: as often as the most frequent analysis looks at them, and as seldom as the one that
/// looks back the longest needs it.
fn spacing(cluster: &WebSocketCluster) -> Option<SignedDuration> {
    let analyses = &cluster.spec.rollout.analysis;
    let shortest = analyses.iter().map(|it| it.interval_seconds).min()?;
    let back = analyses
        .iter()
        .map(|it| it.interval_seconds * (it.failure_limit + 1))
        .max()?;
    let seconds = shortest.max(back / (HEALTH_KEPT as u32 - 2));
    Some(SignedDuration::from_secs(seconds.into()))
}

/// Which gateways a round asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    All,
    Leaving,
}

impl Round {
    fn includes(self, pod: &Pod) -> bool {
        let finished = matches!(
            pod.status.as_ref().and_then(|status| status.phase.as_deref()),
            Some("Failed" | "Succeeded")
        );
        !finished && (self == Self::All || is_leaving(pod))
    }
}

/// Where the gateway's admin API is, once the pod has an address; `port` is for a pod that does not say.
fn endpoint(pod: &Pod, port: u16) -> Option<Endpoint> {
    let ip = pod.status.as_ref()?.pod_ip.clone()?;
    Some(Endpoint {
        ip,
        port: pods::admin_port(pod).unwrap_or(port),
    })
}

/// Whether the pod is cordoned or draining.
fn is_leaving(pod: &Pod) -> bool {
    pod.annotations().contains_key(labels::CORDONED_AT)
}

fn next_round(due: &mut HashMap<String, Due>, id: &Identity, cluster: &WebSocketCluster) -> Option<Round> {
    let now = Instant::now();
    let due = due.entry(id.uid.clone()).or_insert_with(|| Due {
        id: id.clone(),
        all: now,
        draining: now,
    });
    if now >= due.all {
        due.all = now + Duration::from_secs(cluster.spec.autoscaling.metrics.interval_seconds.max(1).into());
        due.draining = now + DRAIN_INTERVAL;
        return Some(Round::All);
    }
    if now >= due.draining {
        due.draining = now + DRAIN_INTERVAL;
        return Some(Round::Leaving);
    }
    None
}
