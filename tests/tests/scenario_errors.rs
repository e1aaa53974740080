//! Mistakes and outages on the real cluster: each is said clearly, ends by itself when its cause does, and harms
//! nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use wsfleet_tests::cluster::{Cluster, ClusterError};
use wsfleet_tests::http::Ask;
use wsfleet_tests::scenario::{Failure, Fleet};
use wsfleet_tests::steps::condition;
use wsfleet_tests::verdict::every_close_had_a_code;

const CHANGE: Duration = Duration::from_mins(2);
const OUTAGE: Duration = Duration::from_secs(30);
const CRD: &str = include_str!("../../crds/wsfleet.dev_websocketclusters.yaml");

/// Waits until a condition has this status and its message all these parts.
async fn until_condition(fleet: &Fleet, kind: &str, is: &str, parts: &[&str]) -> Result<String, Failure> {
    let what = format!("{kind}={is} with {parts:?}");
    let status = fleet
        .until_status(&what, CHANGE, |status| {
            condition(status, kind)
                .is_some_and(|(now, message)| now == is && parts.iter().all(|part| message.contains(part)))
        })
        .await?;
    let (_, message) = condition(&status, kind).ok_or("gone")?;
    Ok(message.to_owned())
}

#[tokio::test]
async fn a_missing_secret_is_named_with_its_field_and_key_and_creating_it_is_enough() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::prepare(&cluster, "nosecret").await?;
    fleet
        .apply_spec(json!({"auth": {"jwt": {"secretRef": {"name": "not-yet", "key": "signing"}}}}))
        .await?;
    let parts = ["spec.auth.jwt.secretRef", "not-yet", "signing"];
    let without = until_condition(&fleet, "ReferencesResolved", "False", &parts).await?;
    until_condition(&fleet, "Ready", "False", &[]).await?;
    assert_eq!(fleet.pods().await?.len(), 0, "pods could not start without it");

    let secret = |key: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "not-yet"},
            "stringData": {key: "0123456789abcdef0123456789abcdef"},
        })
    };
    fleet.namespace.apply(&secret("other").to_string()).await?;
    let without_key = until_condition(&fleet, "ReferencesResolved", "False", &parts).await?;
    fleet.namespace.apply(&secret("signing").to_string()).await?;
    until_condition(&fleet, "ReferencesResolved", "True", &[]).await?;
    fleet.until_ready(CHANGE).await?;
    println!("without Secret: {without}\nwithout key: {without_key}");
    Ok(())
}

/// The CRD as an older version might have been: one field takes anything.
fn lax_crd() -> Result<Value, Failure> {
    let mut crd: Value = serde_yaml_ng::from_str(CRD)?;
    let anything = json!({
        "description": crd.pointer(SETTLE).ok_or("the CRD has no drain.settleSeconds")?["description"],
        "x-kubernetes-preserve-unknown-fields": true,
    });
    *crd.pointer_mut(SETTLE).ok_or("no settleSeconds")? = anything;
    // a default must fit the type
    if let Some(default) = crd.pointer_mut(DRAIN_DEFAULT).and_then(Value::as_object_mut) {
        default.remove("settleSeconds");
    }
    Ok(crd)
}
const SETTLE: &str =
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/drain/properties/settleSeconds";
const DRAIN_DEFAULT: &str =
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/drain/default";

/// Stores what the CRD of today would refuse, and brings the CRD of today back.
async fn store_malformed(fleet: &Fleet, malformed: &Value) -> Result<(), Failure> {
    let cluster = fleet.namespace.cluster();
    let stored = async {
        cluster.apply_object("default", &lax_crd()?).await?;
        let store = || async { fleet.namespace.apply(&malformed.to_string()).await.map(|_| ()) };
        // the API server takes a moment to serve the changed schema
        fleet
            .namespace
            .until("a malformed resource is stored", CHANGE, store)
            .await?;
        Ok::<_, Failure>(())
    }
    .await;
    cluster.apply_in("default", CRD).await?;
    stored
}

#[tokio::test]
async fn a_resource_that_the_operator_cannot_read_stops_nothing_but_itself() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::prepare(&cluster, "malformed").await?;
    let malformed = json!({
        "apiVersion": "wsfleet.dev/v1alpha1", "kind": "WebSocketCluster",
        "metadata": {"name": "malformed", "finalizers": ["wsfleet.dev/drain"]},
        "spec": {
            "broker": {"redis": {"url": "redis://redis:6379"}}, "auth": {"anonymous": {}},
            "drain": {"settleSeconds": "ten"},
        },
    });
    store_malformed(&fleet, &malformed).await?;
    let mut another = malformed.clone();
    another["metadata"]["name"] = json!("another");
    let refused = || async {
        match fleet.namespace.dry_run(&another).await {
            Ok(Err(refusal)) => Ok(refusal),
            Ok(Ok(_)) => Err("the lax CRD is still served".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    fleet
        .namespace
        .until("the CRD of today refuses it", CHANGE, refused)
        .await?;

    // the other resource comes to life, and follows a change, beside it
    fleet.apply_spec(json!({"replicas": 1})).await?;
    fleet.until_ready(CHANGE).await?;
    fleet.patch(json!({"spec": {"replicas": 2}})).await?;
    fleet
        .until_status("2 gateways", CHANGE, |status| status.accepting_replicas == 2)
        .await?;
    let said = || async {
        let events = cluster
            .kubectl(&[
                "get",
                "events",
                "-n",
                fleet.namespace.name(),
                "--field-selector=reason=Malformed",
            ])
            .await
            .map_err(|error| error.to_string())?;
        if events.contains("spec.drain.settleSeconds") && events.contains("\"ten\"") {
            Ok(events)
        } else {
            Err(events)
        }
    };
    let events = fleet
        .namespace
        .until("an event says what is wrong", CHANGE, said)
        .await?;
    let shown = || async {
        let conditions = conditions_of(&cluster, &fleet, "malformed")
            .await
            .map_err(|error| error.to_string())?;
        if conditions.contains("Ready=False Malformed") && conditions.contains("settleSeconds") {
            Ok(conditions)
        } else {
            Err(conditions)
        }
    };
    let conditions = fleet
        .namespace
        .until("its condition Ready is False", CHANGE, shown)
        .await?;
    let operators = fleet.operator_pods().await?;
    assert_eq!(operators.len(), 2);
    assert_eq!(
        operators.iter().map(restarts).sum::<i32>(),
        0,
        "the operator never crashed"
    );
    println!("{events}{conditions}");

    // how it was to be drained nobody can read; it goes all the same
    let namespace = fleet.namespace.name();
    cluster
        .kubectl(&["delete", "wsc", "malformed", "-n", namespace, "--timeout=60s"])
        .await?;
    Ok(())
}

/// As kubectl prints them: the typed client could not read the resource either.
async fn conditions_of(cluster: &Cluster, fleet: &Fleet, name: &str) -> Result<String, ClusterError> {
    let columns =
        r#"-o=jsonpath={range .status.conditions[*]}{.type}={.status} {.reason} {.message}{"\n"}{end}"#;
    let namespace = fleet.namespace.name();
    Ok(cluster
        .kubectl(&["get", "wsc", name, "-n", namespace, columns])
        .await?)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref());
    statuses
        .unwrap_or_default()
        .iter()
        .map(|container| container.restart_count)
        .sum()
}

/// What a gateway's readiness probe is answered.
async fn readiness(pod: &Pod) -> Result<(u16, String), Failure> {
    let ip = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref())
        .ok_or("no address")?;
    let answer = Ask::get("/readyz")
        .send(SocketAddr::new(ip.parse()?, 9090))
        .await?;
    Ok((answer.status.as_u16(), answer.body.trim().to_owned()))
}

#[tokio::test]
async fn gateways_without_redis_run_and_say_why_they_are_not_ready_until_it_comes() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::without_redis(&cluster, "noredis").await?;
    fleet.apply_spec(json!({"replicas": 2})).await?;
    let unready = || async {
        let pods = fleet.pods().await.map_err(|error| error.to_string())?;
        let mut answers = Vec::new();
        for pod in &pods {
            answers.push(readiness(pod).await.map_err(|error| error.to_string())?);
        }
        let clear = |(status, body): &(u16, String)| *status == 503 && body.contains("broker");
        if answers.len() == 2 && answers.iter().all(clear) {
            Ok((pods, answers))
        } else {
            Err(format!("{answers:?}"))
        }
    };
    let (pods, answers) = fleet
        .namespace
        .until("both gateways run and name their broker", CHANGE, unready)
        .await?;
    let available = until_condition(&fleet, "Available", "False", &[]).await?;
    until_condition(&fleet, "Ready", "False", &[]).await?;

    fleet.apply_example("redis.yaml").await?;
    fleet.until_ready(CHANGE).await?;
    let after = fleet.pods().await?;
    let uids = |pods: &[Pod]| pods.iter().map(kube::ResourceExt::uid).collect::<Vec<_>>();
    assert_eq!(uids(&after), uids(&pods), "the same pods became ready");
    assert_eq!(after.iter().map(restarts).sum::<i32>(), 0, "none was restarted");
    println!("without Redis: {answers:?}, Available: {available}");
    Ok(())
}

#[tokio::test]
async fn redis_lost_for_half_a_minute_costs_no_socket_and_nothing_that_was_acknowledged()
-> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let fleet = Fleet::start(&cluster, "redislost", json!({"replicas": 2})).await?;
    let load = fleet.start_load(fleet.load(200).await?).await?;
    let acked = |at_least: u64| {
        let load = &load;
        let namespace = &fleet.namespace;
        async move {
            let look = || async move {
                let acked = load.snapshot().publishes.acked;
                (acked >= at_least)
                    .then_some(acked)
                    .ok_or(format!("{acked} acknowledged"))
            };
            namespace.until("messages are acknowledged", CHANGE, look).await
        }
    };
    acked(50).await?;

    fleet.scale_deployment("redis", 0).await?;
    let open = || async {
        let (open, joined) = (load.connected(), load.joined());
        ((open, joined) == (200, 200))
            .then_some(())
            .ok_or_else(|| format!("{open} sockets open, {joined} clients joined"))
    };
    fleet.throughout("every socket survives", OUTAGE, open).await?;
    let during = load.snapshot().publishes;
    assert!(
        during.errored.contains_key("broker_unavailable"),
        "publishers are told: {during:?}"
    );
    fleet.scale_deployment("redis", 1).await?;
    acked(load.snapshot().publishes.acked + 100).await?;
    fleet.until_ready(CHANGE).await?;
    let report = load.stop().await;

    every_close_had_a_code(&report)?;
    assert_eq!(report.reconnects.total, 0, "{:?}", report.closes.by_code);
    let temporary = ["broker_unavailable", "unconfirmed", "overloaded"];
    assert!(
        report
            .publishes
            .errored
            .keys()
            .all(|code| temporary.contains(&code.as_str())),
        "{:?}",
        report.publishes
    );
    let pods = fleet.pods().await?;
    assert_eq!(pods.iter().map(restarts).sum::<i32>(), 0);
    println!(
        "Redis away for {OUTAGE:?}: 200 sockets stayed, {} acknowledged, {:?}, {:?}",
        report.publishes.acked, report.publishes.errored, report.verdict.counts
    );
    Ok(())
}
