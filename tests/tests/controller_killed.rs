//! The operator killed right before and right after each marker that it writes in a rollout and in a rollback, with the real
//! API server, real gateways and sockets: the next one goes on from what is written, no pod is made twice or deleted early,
//! and no more sockets are closed at a time than one operator would close.

use std::convert::Infallible;
use std::time::Duration;

use hyper::Method;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::sync::oneshot::Receiver;
use tokio::time::interval;
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::{RolloutPhase, WebSocketClusterStatus};
use wsfleet_load::{Load, Reconnect};
use wsfleet_tests::api_proxy::ApiProxy;
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::operator::{Operator, Settings};
use wsfleet_tests::roll_call::RollCall;
use wsfleet_tests::scenario::{Failure, Fleet, NAME};
use wsfleet_tests::standstill::{Side, Write};
use wsfleet_tests::verdict::{budget_was_kept, nothing_was_cut};
use wsfleet_tests::wait::{SOON, soon};
use wsfleet_tests::witness::Witness;

const CHANGE: Duration = Duration::from_mins(2);
const SOCKETS: u32 = 150;
/// Clients that come while the bad revision is on trial.
const NEWCOMERS: u32 = 90;
/// Time for which they stay, and stay away.
const TURN: Duration = Duration::from_secs(3);
/// `drain.minDisconnectsPerSecond` of the fleet.
const PER_SECOND: u32 = 50;
const REVISIONS: &str = "/controllerrevisions";
const PODS: &str = "/pods";

/// What a rollout writes, in its order. What follows the last marker of one pod begins with the next pod.
fn of_a_rollout() -> Vec<Write> {
    vec![
        Write::any(Method::POST, REVISIONS),
        Write::mark(REVISIONS, labels::ROLLOUT_STARTED_AT),
        Write::any(Method::POST, PODS),
        Write::mark(REVISIONS, labels::BAKING_SINCE),
        Write::mark(REVISIONS, labels::CANARY_PASSED_AT),
        Write::mark(PODS, labels::CORDONED_AT),
        Write::mark(PODS, labels::DRAIN_DEADLINE),
        Write::mark(PODS, labels::DRAINED_AT),
        Write::any(Method::DELETE, PODS),
        Write::any(Method::POST, PODS),
    ]
}

/// What a rollback writes besides.
fn of_a_rollback() -> Vec<Write> {
    vec![
        Write::mark(REVISIONS, labels::ROLLOUT_FAILED),
        Write::mark(PODS, labels::CORDONED_AT),
        Write::any(Method::DELETE, PODS),
    ]
}

/// Operators one after the other, as processes of this machine, behind a proxy that holds them at their writes.
struct Reign<'a> {
    fleet: &'a Fleet,
    proxy: ApiProxy,
    leader: Option<Operator>,
    killed: u32,
}

impl<'a> Reign<'a> {
    /// The first takes the place of the chart's.
    async fn begin(fleet: &'a Fleet) -> Result<Self, Failure> {
        fleet.scale_deployment(fleet.namespace.name(), 0).await?;
        let mut reign = Self {
            fleet,
            proxy: ApiProxy::start(fleet.namespace.cluster()).await?,
            leader: None,
            killed: 0,
        };
        reign.succeed().await?;
        Ok(reign)
    }

    /// The next one leads.
    async fn succeed(&mut self) -> Result<(), Failure> {
        let identity = format!("number-{}", self.killed);
        let settings = Settings::of(&self.fleet.namespace, &identity).lease(self.fleet.namespace.name());
        let operator = Operator::start_as(settings.kubeconfig(self.proxy.kubeconfig())).await?;
        operator.until_leading(SOON).await?;
        self.leader = Some(operator);
        Ok(())
    }

    /// Kills the leader on both sides of each of these writes, when it comes to them after `first`.
    async fn kill_at_each<T>(
        &mut self,
        writes: &[Write],
        first: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let sides = |write| [Side::Before, Side::After].map(|side| (write, side));
        let mut moments = writes.iter().flat_map(sides);
        let (mut write, mut side) = moments.next().ok_or("no moment")?;
        let mut reached = self.proxy.stand_still_at(write.clone(), side);
        let given = first.await?;
        loop {
            self.kill(&format!("{side:?} {write}"), reached).await?;
            let Some(next) = moments.next() else { break };
            (write, side) = next;
            // before there is somebody who writes
            reached = self.proxy.stand_still_at(write.clone(), side);
            self.succeed().await?;
        }
        self.proxy.go_on();
        self.succeed().await?;
        Ok(given)
    }

    async fn kill(&mut self, moment: &str, reached: Receiver<()>) -> Result<(), Failure> {
        let leader = self.leader.take().ok_or("nobody leads")?;
        let told = soon(moment, reached).await.and_then(|told| Ok(told?));
        told.map_err(|error| format!("{moment}: {error}\n--- its log\n{}", leader.log()))?;
        leader.kill()?;
        self.killed += 1;
        // as when the Lease has run out: how long that takes is another test
        let free = Patch::Merge(json!({"spec": {"holderIdentity": null}}));
        let leases = self.fleet.namespace.api::<Lease>();
        leases
            .patch(self.fleet.namespace.name(), &PatchParams::default(), &free)
            .await?;
        Ok(())
    }
}

/// Three gateways that are replaced one by one, and a canary that is judged by its handshakes.
fn spec(gateway: &str) -> serde_json::Value {
    let errors = json!({
        "name": "handshake-errors", "builtin": "handshakeErrorRatio", "intervalSeconds": 5, "failureLimit": 1,
    });
    json!({
        "replicas": 3,
        "gateway": {"image": gateway},
        "rollout": {"maxSurge": 1, "analysis": [errors]},
        "drain": {"minDisconnectsPerSecond": PER_SECOND, "settleSeconds": 0, "reconnect": {"windowSeconds": 2}},
    })
}

/// Clients come and go, without an end: each leader judges by the handshakes that it sees itself.
async fn come_and_go(load: &Load) -> Result<Infallible, Failure> {
    let mut turn = interval(TURN);
    loop {
        turn.tick().await;
        load.set_target(SOCKETS + NEWCOMERS)?;
        turn.tick().await;
        load.set_target(SOCKETS)?;
    }
}

/// A revision that lets one client in, and is given up: the leader is killed at its markers.
async fn roll_back(reign: &mut Reign<'_>, load: &Load) -> Result<(), Failure> {
    let full = json!({"containers": [{"name": "gateway", "env": [{"name": "WSFLEET_MAX_CONNECTIONS", "value": "1"}]}]});
    let change = json!({"spec": {"rollout": {"canary": {"bakeSeconds": 90}}, "template": {"spec": full}}});
    let fleet = reign.fleet;
    fleet.patch(change).await?;
    let baking = |status: &WebSocketClusterStatus| {
        let rollout = status.rollout.as_ref();
        rollout.is_some_and(|rollout| rollout.phase == RolloutPhase::Baking)
    };
    fleet.until_status("the canary bakes", CHANGE, baking).await?;
    let (markers, nothing) = (of_a_rollback(), std::future::ready(Ok(())));
    tokio::select! {
        killed = reign.kill_at_each(&markers, nothing) => killed?,
        failed = come_and_go(load) => match failed? {},
    }
    load.set_target(SOCKETS)?;
    fleet
        .until_status("the fleet was rolled back", CHANGE, |status| {
            let rollout = status.rollout.clone().unwrap_or_default();
            rollout.failed_revision.is_some()
                && rollout.phase == RolloutPhase::Idle
                && (status.replicas, status.accepting_replicas) == (3, 3)
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_operator_killed_before_and_after_each_marker_is_followed_by_one_that_goes_on()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::prepare(&cluster, "killed").await?;
    let mut reign = Reign::begin(&fleet).await?;
    let roll_call = RollCall::start(&fleet.namespace, NAME);
    fleet.apply_spec(spec(&cluster.image("gateway:dev"))).await?;
    fleet.until_ready(CHANGE).await?;
    let mut config = fleet.load(SOCKETS).await?;
    config.reconnect = Reconnect::BreakBeforeMake;
    let load = fleet.start_load(config).await?;
    let witness = Witness::start(&fleet);

    let old = reign.kill_at_each(&of_a_rollout(), fleet.revise(2)).await?;
    fleet.until_revised(old.as_deref(), 3, CHANGE).await?;
    fleet.until_joined(&load, CHANGE).await?;
    roll_back(&mut reign, &load).await?;
    fleet.until_joined(&load, CHANGE).await?;
    let report = load.stop().await;

    let book = roll_call.book();
    println!(
        "{} operators killed: {} pods made, {} at once at most; {} closes of {} clients, {} a second at most, {} cut",
        reign.killed,
        book.ever.len(),
        book.most,
        report.closed_with(1012),
        report.sockets.target,
        report.closes.busiest_second,
        report.verdict.cut
    );
    nothing_was_cut(&report, &witness.stories())?;
    budget_was_kept(&report, PER_SECOND.into())?;
    assert_eq!(book.ever.len(), 3 + 3 + 1, "two revisions and a canary: {book:?}");
    assert!(book.most <= 4, "3 and a surge of 1 are allowed: {book:?}");
    Ok(())
}
