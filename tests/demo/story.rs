//! The demo's parts, one after the other, each ended by a condition with a deadline.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use wsfleet_crds::v1alpha1::{IntOrPercent, WebSocketCluster};
use wsfleet_load::TokenMode;

use crate::args::Args;
use crate::console::{Console, thousands};
use crate::crowd::{Crowd, Numbers, Plan, jwt_secret};
use crate::fleet::Fleet;
use crate::report::{Outcome, Stage};
use crate::resource::Resource;
use crate::view::View;

/// How long the fleet may take to be there, to grow, to roll out, to shrink: each.
const PATIENCE: Duration = Duration::from_mins(3);
/// How long the clients chat after a change.
const CHAT: Duration = Duration::from_secs(8);

/// Everything that a part of the demo works with.
pub(crate) struct Story {
    args: Args,
    console: Console,
    resource: Resource,
    fleet: Fleet,
    view: View,
    crowd: Option<Crowd>,
    outcome: Outcome,
}

impl Story {
    /// Connects to the cluster and starts to watch the fleet.
    pub(crate) async fn begin(args: Args, console: Console) -> Result<Self> {
        let client = Client::try_default()
            .await
            .context("no cluster: is KUBECONFIG right?")?;
        let resource = Resource::new(client.clone(), &args);
        resource.get().await?;
        let fleet = Fleet::watch(client, &args.namespace, &args.name);
        let view = View::open(console, resource.clone(), fleet.clone()).await?;
        Ok(Self {
            args,
            console,
            resource,
            fleet,
            view,
            crowd: None,
            outcome: Outcome::default(),
        })
    }

    /// Runs all parts. What went wrong in one of them is in the outcome, beside what was measured until then.
    pub(crate) async fn run(mut self) -> Outcome {
        if let Err(error) = self.parts().await {
            self.outcome.failures.push(format!("{error:#}"));
        }
        // whatever happened, the clients' own account is taken
        if let Some(crowd) = self.crowd.take() {
            self.console
                .line("the clients wait for what is under way, and close");
            self.outcome.clients = Some(crowd.stop().await);
        }
        self.outcome.pods = self.fleet.records();
        self.outcome.moments = self.view.into_moments();
        self.outcome
    }

    async fn parts(&mut self) -> Result<()> {
        self.console.heading("the resource becomes a fleet");
        let cluster = self.ready().await?;
        let all = self.args.sockets;
        let leaving = all.saturating_sub(self.args.stay);
        let plan = self.plan(&cluster).await?;

        self.console.heading(&format!(
            "{} clients connect and chat; the fleet grows",
            thousands(all.into())
        ));
        self.crowd = Some(Crowd::start(plan)?);
        self.grow(&cluster).await?;

        self.console.heading("a new revision is rolled out under load");
        self.roll_out().await?;

        self.console.heading(&format!(
            "{} clients leave; the fleet shrinks",
            thousands(leaving.into())
        ));
        if let Some(crowd) = &self.crowd {
            crowd.shrink_to(self.args.stay)?;
        }
        self.shrink(&cluster).await
    }

    /// The smallest fleet is there, and so is its Service.
    async fn ready(&mut self) -> Result<WebSocketCluster> {
        let started = Instant::now();
        loop {
            let cluster = self.resource.get().await?;
            let wanted = needed(&cluster, 0);
            let ready = self.fleet.counts().accepting;
            if ready >= wanted && self.resource.node_port().await.is_ok() {
                self.stage("the first gateways are ready", started);
                return Ok(cluster);
            }
            self.look(started, || format!("{wanted} gateways to be ready, {ready} are"))
                .await?;
        }
    }

    async fn plan(&self, cluster: &WebSocketCluster) -> Result<Plan> {
        let url = if let Some(url) = &self.args.url {
            url.clone()
        } else {
            let port = self
                .resource
                .node_port()
                .await?
                .context("the Service has no NodePort: give --url")?;
            format!("ws://{}:{port}/ws", self.args.node_address)
        };
        let token = match jwt_secret(cluster) {
            Some((name, key)) => {
                let jwt = cluster.spec.auth.jwt.clone();
                let (audience, issuer) = jwt.map_or((None, None), |jwt| (jwt.audience, jwt.issuer));
                TokenMode::Jwt {
                    secret: self.resource.jwt_key(&name, &key).await?,
                    audience,
                    issuer,
                }
            }
            None if cluster.spec.auth.insecure_token.is_some() => TokenMode::Insecure,
            None => TokenMode::Anonymous,
        };
        Ok(Plan {
            clients: self.args.sockets,
            target: url.parse().with_context(|| format!("{url} is no address"))?,
            token,
            rate: f64::from(self.args.connect_rate),
            window: Duration::from_secs(cluster.spec.drain.reconnect.window_seconds.into()),
        })
    }

    /// All clients are connected and the autoscaler has made the gateways that they need.
    async fn grow(&mut self, cluster: &WebSocketCluster) -> Result<()> {
        let started = Instant::now();
        let wanted = needed(cluster, self.args.sockets);
        loop {
            let now = self
                .look(started, || {
                    format!("all clients to be connected, and {wanted} gateways")
                })
                .await?;
            let counts = self.fleet.counts();
            if now.clients >= u64::from(self.args.sockets) && counts.accepting >= wanted {
                break;
            }
        }
        self.stage("the fleet grew", started);
        self.chat().await;
        Ok(())
    }

    /// A new revision, every pod drained before it goes.
    async fn roll_out(&mut self) -> Result<()> {
        let before = self.fleet.revisions();
        let already = self.view.tick(self.crowd.as_ref()).await.moved;
        let command = self.resource.roll_out(self.args.next_image.as_deref()).await?;
        self.console.line(&format!("$ {command}"));
        let started = Instant::now();
        let moved = loop {
            let now = self
                .look(started, || "every gateway to be of the new revision".to_owned())
                .await?;
            let renewed = self
                .fleet
                .revisions()
                .iter()
                .all(|revision| !before.contains(revision));
            if renewed && self.fleet.counts().leaving == 0 && now.clients >= u64::from(self.args.sockets) {
                break now.moved.saturating_sub(already);
            }
        };
        self.outcome.moved_per_client = Some(moved as f64 / f64::from(self.args.sockets));
        self.stage("the new revision was rolled out", started);
        self.chat().await;
        Ok(())
    }

    /// The gateways that are no longer needed were drained and are gone.
    async fn shrink(&mut self, cluster: &WebSocketCluster) -> Result<()> {
        let started = Instant::now();
        let wanted = needed(cluster, self.args.stay);
        loop {
            let now = self
                .look(started, || format!("the fleet to shrink to {wanted} gateways"))
                .await?;
            let counts = self.fleet.counts();
            if counts.pods <= wanted && counts.leaving == 0 && now.clients >= u64::from(self.args.stay) {
                break;
            }
        }
        self.stage("the fleet shrank", started);
        self.chat().await;
        Ok(())
    }

    /// Lets the clients chat for a while.
    async fn chat(&mut self) {
        let until = Instant::now() + CHAT;
        while Instant::now() < until {
            self.view.tick(self.crowd.as_ref()).await;
        }
    }

    /// One look at everything, about a second long; an error when the part takes too long.
    async fn look(&mut self, started: Instant, what: impl Fn() -> String) -> Result<Numbers> {
        if started.elapsed() > PATIENCE {
            bail!("waited {} s for {}", PATIENCE.as_secs(), what());
        }
        Ok(self.view.tick(self.crowd.as_ref()).await)
    }

    fn stage(&mut self, name: &'static str, started: Instant) {
        let took = started.elapsed();
        self.console.line(&format!("✓ {name} ({} s)", took.as_secs()));
        self.outcome.stages.push(Stage { name, took });
    }
}

/// Gateways that the built-in autoscaler makes for so many sockets: enough for the target utilisation, and for the
/// maximum with the reserve lost.
fn needed(cluster: &WebSocketCluster, sockets: u32) -> u32 {
    let scaling = &cluster.spec.autoscaling;
    let capacity = cluster.spec.gateway.capacity.max_connections;
    let gateways = |percent: u32| sockets.div_ceil((capacity * percent / 100).max(1));
    let packed = gateways(scaling.max_utilization);
    let reserve = match scaling.reserve {
        IntOrPercent::Count(count) => count,
        IntOrPercent::Percent(percent) => (packed * percent).div_ceil(100),
    };
    gateways(scaling.target_utilization)
        .max(packed + reserve)
        .clamp(scaling.min_replicas, scaling.max_replicas)
}
