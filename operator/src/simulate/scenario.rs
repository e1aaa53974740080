//! Scenarios: a fleet at rest, something happens to it, and the time until it is at rest again.

use clap::ValueEnum;
use thiserror::Error;
use wsfleet_crds::v1alpha1::{AutoscalingMode, WebSocketCluster};

use super::settings::Settings;
use super::time::{Millis, SECOND};
use super::world::World;

/// What happens to the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Another image: every pod is replaced.
    Rollout,
    /// Another image, and the operator's process is killed again and again meanwhile.
    OperatorCrash,
    /// Half of the replicas, or --to.
    ScaleIn,
    /// Twice the replicas, or --to.
    ScaleOut,
    /// A node is cordoned for maintenance.
    NodeDrain,
    /// A node with its pods is not heard of any more.
    NodeLoss,
    /// The process of a gateway ends without a word.
    PodLoss,
    /// Twice the clients within ten minutes.
    Growth,
    /// Half of the clients leave within ten minutes.
    Decline,
}

/// Why there is nothing to show.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The clients do not fit.
    #[error(
        "{clients} clients do not fit {places} places ({replicas} replicas of gateway.capacity.maxConnections); lower \
         --clients or raise spec.replicas"
    )]
    TooMany {
        /// Asked for.
        clients: u64,
        /// There are.
        places: u64,
        /// Gateways.
        replicas: u32,
    },
    /// The size is not `spec.replicas`' to choose.
    #[error(
        "autoscaling.mode {0:?} chooses the size: use --scenario growth or decline instead, or another file"
    )]
    Autoscaled(AutoscalingMode),
    /// The operator does nothing.
    #[error("spec.paused is true: nothing would happen; remove it")]
    Paused,
    /// No fleet came to be.
    #[error(
        "the fleet does not come to rest before anything happens: {0}; look for what it waits for in the resource"
    )]
    NeverReady(String),
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) world: World,
    pub(crate) scenario: Scenario,
    /// When it happened.
    pub(crate) began: Millis,
    /// From then until the fleet was at rest; `None`: it was not, within [`LIMIT`].
    pub(crate) took: Option<Millis>,
    /// Clients connected when it happened.
    pub(crate) clients: u64,
}

/// No scenario is watched for longer.
pub(crate) const LIMIT: Millis = 4 * 3_600 * SECOND;
/// What is shown before and after.
const MARGIN: Millis = 30 * SECOND;
/// Time for a fleet to come to rest before anything happens.
const WARM_UP: Millis = 3_600 * SECOND;
/// Clients that one run keeps in mind at most.
const MOST_CLIENTS: u64 = 1_000_000;
/// Over which the number of clients changes.
const CHANGE: Millis = 600 * SECOND;

/// Clients for a fleet of which nothing is said: 60 of 100 places.
pub(crate) fn usual_clients(cluster: &WebSocketCluster) -> u64 {
    (places(cluster) * 6 / 10).min(MOST_CLIENTS)
}

fn replicas(cluster: &WebSocketCluster) -> u32 {
    let spec = &cluster.spec;
    if spec.autoscaling.mode == AutoscalingMode::Builtin {
        spec.autoscaling.max_replicas
    } else {
        spec.replicas
    }
}

fn places(cluster: &WebSocketCluster) -> u64 {
    u64::from(replicas(cluster)) * u64::from(cluster.spec.gateway.capacity.max_connections)
}

impl World {
    /// A fleet at rest with its clients on it.
    pub(crate) fn at_rest(cluster: WebSocketCluster, settings: Settings) -> Result<Self, ScenarioError> {
        let (clients, places) = (settings.clients, places(&cluster));
        if clients > places {
            let replicas = replicas(&cluster);
            return Err(ScenarioError::TooMany {
                clients,
                places,
                replicas,
            });
        }
        if cluster.spec.paused {
            return Err(ScenarioError::Paused);
        }
        let quiet = Settings {
            arrivals: 0.0,
            mean_life: 0.0,
            ..settings
        };
        let mut world = Self::new(cluster, quiet);
        let up = world.run_until(WARM_UP, Self::is_settled);
        world.arrive(clients);
        let at_rest = up && world.run_until(WARM_UP, Self::is_settled);
        if !at_rest {
            let status = world.cluster.status.as_ref();
            let waiting = status
                .and_then(|status| status.rollout.as_ref()?.waiting_for.clone())
                .unwrap_or_else(|| format!("{} clients find no gateway", world.clients.homeless));
            return Err(ScenarioError::NeverReady(waiting));
        }
        world.settings.arrivals = settings.arrivals;
        world.settings.mean_life = settings.mean_life;
        world.run(MARGIN);
        world.record.restart();
        Ok(world)
    }

    /// Begins to count what happens to the clients.
    pub(crate) fn count_clients(&mut self) {
        let connected = self
            .gateways
            .iter()
            .flat_map(|gateway| gateway.sockets.iter().copied());
        self.clients.count_from_now(connected);
    }
}

/// Runs `scenario`. `to` is the size after a change of size.
pub(crate) fn run(
    cluster: WebSocketCluster,
    scenario: Scenario,
    to: Option<u32>,
    settings: Settings,
) -> Result<Run, ScenarioError> {
    let mode = cluster.spec.autoscaling.mode;
    let resizes = matches!(scenario, Scenario::ScaleIn | Scenario::ScaleOut);
    if resizes && mode == AutoscalingMode::Builtin {
        return Err(ScenarioError::Autoscaled(mode));
    }
    let mut world = World::at_rest(cluster, settings)?;
    world.record.filming = true;
    world.run(MARGIN);
    world.count_clients();
    let (began, clients) = (world.now, world.connected());
    begin(&mut world, scenario, to);
    // long enough for the operator to have seen it
    world.run(2 * SECOND);
    keep_on(&mut world, scenario, began);
    let left = (began + LIMIT).saturating_sub(world.now);
    let mut ended = world.run_until(left, World::is_settled);
    let mut took = world.now - began;
    world.run(MARGIN);
    let refills = matches!(
        scenario,
        Scenario::ScaleOut | Scenario::NodeLoss | Scenario::PodLoss
    );
    // new gateways are empty, and what is done about that is part of it
    if ended && refills && !world.is_even() {
        let left = (began + LIMIT).saturating_sub(world.now);
        ended = world.run_until(left, |world| world.is_settled() && world.is_even());
        took = world.now - began;
        world.run(MARGIN);
    }
    let took = ended.then_some(took);
    Ok(Run {
        world,
        scenario,
        began,
        took,
        clients,
    })
}

fn begin(world: &mut World, scenario: Scenario, to: Option<u32>) {
    let replicas = world.cluster.spec.replicas;
    match scenario {
        Scenario::Rollout | Scenario::OperatorCrash => world.roll_to("wsfleet-gateway:next"),
        Scenario::ScaleIn => world.edit(|spec| spec.replicas = to.unwrap_or(replicas.div_ceil(2))),
        Scenario::ScaleOut => world.edit(|spec| spec.replicas = to.unwrap_or(replicas * 2).min(1_000)),
        Scenario::NodeDrain => world.drain_node(&world.node_at(0), true),
        Scenario::NodeLoss => world.lose_node(&world.node_at(0), true),
        Scenario::PodLoss => world.crash_gateway(0),
        Scenario::Growth => {
            let more = world.connected() as f64 * SECOND as f64 / CHANGE as f64;
            world.settings.arrivals += more;
        }
        Scenario::Decline => {
            world.settings.arrivals = 0.0;
            world.settings.mean_life = CHANGE as f64 / SECOND as f64 / std::f64::consts::LN_2;
        }
    }
}

/// What goes on for a while.
fn keep_on(world: &mut World, scenario: Scenario, began: Millis) {
    match scenario {
        Scenario::Growth | Scenario::Decline => {
            let before = world.settings;
            world.run((began + CHANGE).saturating_sub(world.now));
            // as many come as go
            let life = before.mean_life;
            world.settings.mean_life = if scenario == Scenario::Decline { 0.0 } else { life };
            world.settings.arrivals = if life > 0.0 && scenario == Scenario::Growth {
                world.connected() as f64 / life
            } else {
                0.0
            };
        }
        Scenario::OperatorCrash => {
            for actions in [0, 1, 3, 5, 8] {
                world.crash_in(actions, actions % 2 == 0);
                world.run(20 * SECOND);
            }
        }
        _ => {}
    }
}
