//! The process: everything is started here, and ended in the right order.
//!
//! On shutdown: no new passes, those under way end, then the Lease is given back, so that a successor never meets a
//! write of ours. When the election task ends by itself the process ends too: it must not act on a leadership that
//! nobody renews.

use std::sync::Arc;

use hyper::header::{HeaderValue, USER_AGENT};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::args::Args;
use crate::controller::{Scope, Shared};
use crate::events::Events;
use crate::leader::{Leadership, Timing, election};
use crate::metrics::Metrics;
use crate::metrics::requests::CountRequests;
use crate::metrics::server::{Readiness, serve};
use crate::observe::stores::NodeStore;
use crate::plan::revision::Defaults;

/// What the audit log of the API server calls this program.
const AGENT: &str = concat!("wsfleet-operator/", env!("CARGO_PKG_VERSION"));

/// Why the operator could not start, or had to end.
#[derive(Debug, Error)]
pub enum RunError {
    /// Neither a service account nor a kubeconfig: set KUBECONFIG.
    #[error("no way to reach a Kubernetes API server (neither a service account nor a kubeconfig): {0}")]
    Config(#[from] Box<kube::config::InferConfigError>),
    /// The client could not be made from the configuration.
    #[error("client of the Kubernetes API server: {0}")]
    Client(#[from] Box<kube::Error>),
    /// A metric is registered twice: a mistake of the program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The port of `--metrics-listen` could not be served.
    #[error("--metrics-listen: {0}")]
    Listen(#[from] std::io::Error),
    /// A task that must run as long as the process has ended: restart.
    #[error("the {0} task has ended")]
    TaskEnded(&'static str),
}

/// Runs until `stop`. `listener` serves metrics and health.
pub async fn run(args: Args, listener: TcpListener, stop: CancellationToken) -> Result<(), RunError> {
    let metrics = Metrics::new()?;
    let mut config = Config::infer().await.map_err(Box::new)?;
    config.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let client = client(config, &metrics)?;
    let identity = args.identity();
    let lease_namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    info!(identity, lease = %format!("{lease_namespace}/{}", args.lease_name), "starting");
    let (elector, leadership) = election(
        client.clone(),
        &lease_namespace,
        &args.lease_name,
        &identity,
        Timing::default(),
    );

    // ends after everything that writes
    let last = CancellationToken::new();
    let readiness = Readiness::default();
    let tasks = TaskTracker::new();
    let election = tokio::spawn(elector.run(last.clone()));
    let server = tokio::spawn(serve(listener, metrics.clone(), readiness.clone(), last.clone()));
    let showing = tokio::spawn(show_leader(leadership.clone(), metrics.clone()));

    let all = Arc::new(watch::Sender::new(0));
    let nodes = if args.watch_nodes {
        NodeStore::start(&client, Arc::clone(&all), &tasks)
    } else {
        NodeStore::default()
    };
    let shared = Shared {
        events: Events::new(client.clone(), &identity),
        defaults: Defaults {
            gateway_image: args.gateway_image.clone(),
        },
        client,
        leadership,
        metrics,
        nodes,
        all,
    };
    let scopes = start_scopes(&args, &shared, &tasks);
    tokio::spawn(fill(scopes.iter().map(Scope::observer).collect(), readiness));
    let controllers = TaskTracker::new();
    for scope in scopes {
        controllers.spawn(scope.run(stop.clone()));
    }
    controllers.close();

    let (mut election, mut server) = (election, server);
    let result = tokio::select! {
        () = controllers.wait() => {
            if stop.is_cancelled() { Ok(()) } else { Err(RunError::TaskEnded("controller")) }
        }
        _ = &mut election => Err(RunError::TaskEnded("leader election")),
        ended = &mut server => match ended {
            Ok(Err(error)) => Err(error.into()),
            _ => Err(RunError::TaskEnded("metrics server")),
        },
    };
    stop.cancel();
    controllers.wait().await;
    last.cancel();
    if !election.is_finished() && election.await.is_err() {
        error!("the leader election task failed");
    }
    showing.abort();
    result
}

fn client(config: Config, metrics: &Metrics) -> Result<Client, RunError> {
    let builder = ClientBuilder::try_from(config).map_err(Box::new)?;
    Ok(builder.with_layer(&CountRequests(metrics.clone())).build())
}

fn start_scopes(args: &Args, shared: &Shared, tasks: &TaskTracker) -> Vec<Scope> {
    let namespaces = args.namespaces();
    if namespaces.is_empty() {
        return vec![Scope::start(shared.clone(), None, tasks)];
    }
    let start = |namespace| Scope::start(shared.clone(), Some(namespace), tasks);
    namespaces.into_iter().map(start).collect()
}

/// Ready is: every cache is filled.
async fn fill(observers: Vec<Arc<crate::observe::Observer>>, readiness: Readiness) {
    for observer in observers {
        if !(observer.stores.ready().await && observer.nodes.ready().await) {
            return;
        }
    }
    readiness.set();
}

async fn show_leader(leadership: Leadership, metrics: Metrics) {
    let mut ticks = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        ticks.tick().await;
        metrics.set_leader(leadership.is_leader());
    }
}
