//! Two operators on the real cluster that both believe they lead: the gateways obey the later one, and no more sockets are
//! closed than one of them would close.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use wsfleet_load::Reconnect;
use wsfleet_tests::api_proxy::ApiProxy;
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::operator::{Operator, Settings};
use wsfleet_tests::scenario::{Failure, Fleet};
use wsfleet_tests::verdict::{budget_was_kept, nothing_was_cut};
use wsfleet_tests::wait::SOON;
use wsfleet_tests::witness::Witness;

const CHANGE: Duration = Duration::from_mins(2);
const SOCKETS: u32 = 300;
/// `drain.minDisconnectsPerSecond` by default, which is more than 2.5 % of the sockets.
const PER_SECOND: u64 = 10;

/// When the Lease was renewed.
async fn renewed_at(fleet: &Fleet) -> Result<Option<String>, Failure> {
    let lease = fleet.namespace.api::<Lease>().get(fleet.namespace.name()).await?;
    Ok(lease
        .spec
        .and_then(|spec| spec.renew_time)
        .map(|at| at.0.to_string()))
}

/// Waits for the next renewal: its leader trusts in it for as long as ever.
async fn until_renewed(fleet: &Fleet) -> Result<(), Failure> {
    let before = renewed_at(fleet).await?;
    let renewed = || async {
        let now = renewed_at(fleet).await.map_err(|error| error.to_string())?;
        (now != before).then_some(()).ok_or_else(|| format!("{now:?}"))
    };
    fleet
        .namespace
        .until("the Lease is renewed", SOON, renewed)
        .await?;
    Ok(())
}

/// The two operators, as processes of this machine, that take the place of the chart's. Between the first and the API server is
/// a proxy.
struct Leaders {
    first: Operator,
    second: Operator,
    proxy: ApiProxy,
}

impl Leaders {
    /// The first leads, the second waits.
    async fn start(fleet: &Fleet) -> Result<Self, Failure> {
        let lease = fleet.namespace.name();
        fleet.scale_deployment(lease, 0).await?;
        let proxy = ApiProxy::start(fleet.namespace.cluster()).await?;
        let settings = Settings::of(&fleet.namespace, "first").lease(lease);
        let first = Operator::start_as(settings.kubeconfig(proxy.kubeconfig())).await?;
        first.until_leading(SOON).await?;
        let second = Operator::start_as(Settings::of(&fleet.namespace, "second").lease(lease)).await?;
        Ok(Self { first, second, proxy })
    }

    /// The Lease is taken away from the first, which cannot know: it reads and writes everything else as before.
    async fn split(&self, fleet: &Fleet) -> Result<(), Failure> {
        until_renewed(fleet).await?;
        self.proxy.withhold("/leases/");
        let free = Patch::Merge(json!({"spec": {"holderIdentity": null}}));
        let leases = fleet.namespace.api::<Lease>();
        leases
            .patch(fleet.namespace.name(), &PatchParams::default(), &free)
            .await?;
        self.second.until_leading(SOON).await?;
        assert!(self.first.leads().await?, "both believe that they lead");
        Ok(())
    }

    /// How many orders of the first the gateways have refused.
    fn refused(&self) -> usize {
        let words = "fenced: the gateway has seen a later leader";
        self.first.log().matches(words).count()
    }

    /// Waits until the first was refused, and then has noticed that it does not lead.
    async fn until_deposed(&self, fleet: &Fleet) -> Result<(), Failure> {
        let refused = || async { (self.refused() > 0).then_some(()).ok_or("none yet") };
        let deposed = || async {
            match self.first.leads().await {
                Ok(false) => Ok(()),
                leads => Err(format!("{leads:?}")),
            }
        };
        let namespace = &fleet.namespace;
        namespace
            .until("a gateway refuses the first", SOON, refused)
            .await?;
        namespace
            .until("the first could not renew", SOON, deposed)
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn of_two_operators_that_both_believe_they_lead_the_later_is_obeyed_and_the_budget_is_kept()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::prepare(&cluster, "leaders").await?;
    let leaders = Leaders::start(&fleet).await?;
    fleet
        .apply_spec(json!({
            "replicas": 3, "gateway": {"image": cluster.image("gateway:dev")},
            "rollout": {"maxSurge": "100%"}, "drain": {"maxDisconnectPermille": 25, "maxConcurrent": "100%"},
        }))
        .await?;
    fleet.until_ready(CHANGE).await?;
    let mut config = fleet.load(SOCKETS).await?;
    config.reconnect = Reconnect::BreakBeforeMake;
    let load = fleet.start_load(config).await?;
    let witness = Witness::start(&fleet);

    let old = fleet.revise(2).await?;
    fleet
        .until_status("pods are being drained", CHANGE, |status| {
            status.draining_replicas > 0
        })
        .await?;
    leaders.split(&fleet).await?;
    leaders.until_deposed(&fleet).await?;
    fleet.until_revised(old.as_deref(), 3, CHANGE).await?;
    fleet.until_joined(&load, CHANGE).await?;
    let report = load.stop().await;

    nothing_was_cut(&report, &witness.stories())?;
    budget_was_kept(&report, PER_SECOND)?;
    println!(
        "two leaders: {} orders of the first refused, {} closes, {} a second at most",
        leaders.refused(),
        report.closed_with(1012),
        report.closes.busiest_second,
    );
    Ok(())
}
