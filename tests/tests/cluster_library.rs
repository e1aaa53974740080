//! The helper library of the scenarios, on the real cluster.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams};
use wsfleet_tests::cluster::{Cluster, has_condition, tally, until};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
const SOON: Duration = Duration::from_mins(1);

fn deployment(name: &str, image: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: main, image: '{image}', imagePullPolicy: IfNotPresent}}]
"
    )
}

#[tokio::test]
async fn a_deployment_is_applied_awaited_and_removed_with_its_namespace() -> Result {
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("library").await?;
    namespace
        .apply(&deployment("redis", "wsfleet.test/redis:7", 2))
        .await?;
    namespace.until_deployed(&["redis"], SOON).await?;
    let applied = namespace.api::<Deployment>().get("redis").await?;
    has_condition(&applied, "Available", "True")?;
    assert!(
        has_condition(&applied, "Available", "False")
            .unwrap_err()
            .contains("Available=True")
    );
    namespace.delete(SOON).await?;
    Ok(())
}

#[tokio::test]
async fn a_dropped_namespace_goes_away_with_its_pods() -> Result {
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("library").await?;
    let name = namespace.name().to_owned();
    drop(namespace);
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(cluster.client());
    until("namespace gone", SOON, async || match api.get_opt(&name).await {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_missed_deadline_says_what_pods_and_events_say() -> Result {
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("library").await?;
    namespace
        .apply(&deployment("broken", "wsfleet.test/no-such-image:1", 1))
        .await?;
    let pods = namespace.api::<Pod>();
    namespace
        .until("pull error", SOON, async || {
            let pods = pods
                .list(&ListParams::default())
                .await
                .map_err(|e| e.to_string())?;
            let shown = format!("{pods:?}");
            if shown.contains("ErrImagePull") || shown.contains("ImagePullBackOff") {
                Ok(())
            } else {
                Err(shown)
            }
        })
        .await?;
    let missed = namespace
        .until_deployed(&["broken"], Duration::from_secs(1))
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "0 of 1 available",
        "broken-",
        "not ready",
        "no-such-image:1",
        "--- last events",
    ] {
        assert!(missed.contains(part), "{part:?} is missing in: {missed}");
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_manifest_says_what_the_server_says() -> Result {
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("library").await?;
    let refused = namespace
        .apply("apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {type: Nonsense}")
        .await;
    assert!(refused.unwrap_err().to_string().contains("Nonsense"));
    let unnamed = namespace.apply("apiVersion: v1\nkind: ConfigMap").await;
    assert!(unnamed.unwrap_err().to_string().contains("metadata.name"));
    Ok(())
}

#[tokio::test]
async fn the_audit_log_counts_the_writes_of_a_namespace() -> Result {
    let cluster = Cluster::connect().await?;
    let since = Timestamp::now();
    let namespace = cluster.namespace("library").await?;
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}";
    namespace.apply(settings).await?;
    namespace.apply(settings).await?;
    let log = cluster.audit_log()?;
    // the API server may answer before it logs
    let writes = until("both writes are logged", SOON, async || {
        let mut writes = log.writes_since(since).map_err(|error| error.to_string())?;
        writes.retain(|w| w.namespace == namespace.name() && w.user == "admin");
        let counts = tally(&writes, |w| format!("{} {} {}", w.verb, w.resource, w.name));
        match counts.get("patch configmaps settings") {
            Some(2) => Ok(writes),
            _ => Err(format!("{counts:?}")),
        }
    })
    .await?;
    assert!(writes.iter().all(|w| w.code < 300), "{writes:?}");
    Ok(())
}

#[tokio::test]
async fn a_drained_node_is_empty_and_takes_pods_again_when_the_cordon_is_dropped() -> Result {
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("library").await?;
    let nodes = cluster.nodes().await?;
    let node = nodes.last().ok_or("no node")?;
    namespace
        .apply(&deployment("spread", "wsfleet.test/pause:1", 6))
        .await?;
    namespace.until_deployed(&["spread"], SOON).await?;
    let cordon = cluster.cordon(node).await?;
    cordon.drain("app=spread", SOON).await?;
    namespace.until_deployed(&["spread"], SOON).await?;
    let pods = namespace
        .api::<Pod>()
        .list(&ListParams::default().fields(&format!("spec.nodeName={node}")))
        .await?;
    assert_eq!(pods.items.len(), 0, "{}", cluster.report(namespace.name()).await);
    drop(cordon);
    let found = Api::<Node>::all(cluster.client()).get(node).await?;
    assert_eq!(found.spec.and_then(|s| s.unschedulable), None);
    Ok(())
}

#[tokio::test]
async fn a_service_answers_on_a_node_port_of_this_machine() -> Result {
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("library").await?;
    namespace
        .apply(&deployment("redis", "wsfleet.test/redis:7", 1))
        .await?;
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: redis}\nspec: {type: NodePort, selector: {app: redis}, ports: [{port: 6379}]}";
    namespace.apply(service).await?;
    namespace.until_deployed(&["redis"], SOON).await?;
    let address = namespace.node_port("redis").await?;
    let client = redis::Client::open(format!("redis://{address}"))?;
    let answer = namespace
        .until("redis answers", SOON, async || {
            let mut connection = client.get_multiplexed_async_connection().await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        })
        .await?;
    assert_eq!(answer, "PONG");
    Ok(())
}

#[tokio::test]
async fn a_chart_is_installed_upgraded_and_uninstalled() -> Result {
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("library").await?;
    let chart = tempfile::tempdir()?;
    std::fs::create_dir(chart.path().join("templates"))?;
    std::fs::write(
        chart.path().join("Chart.yaml"),
        "apiVersion: v2\nname: tiny\nversion: 0.1.0\n",
    )?;
    let template = deployment("{{ .Release.Name }}", cluster.image("pause:1").as_str(), 1)
        .replace("replicas: 1", "replicas: {{ .Values.replicas }}");
    std::fs::write(chart.path().join("templates/deployment.yaml"), template)?;
    let release = cluster
        .install("tiny", namespace.name(), chart.path(), &[("replicas", "1")])
        .await?;
    let installed = namespace.api::<Deployment>().get("tiny").await?;
    assert_eq!(installed.status.and_then(|s| s.ready_replicas), Some(1));
    release.upgrade(chart.path(), &[("replicas", "2")]).await?;
    let upgraded = namespace.api::<Deployment>().get("tiny").await?;
    assert_eq!(upgraded.status.and_then(|s| s.ready_replicas), Some(2));
    release.uninstall().await?;
    assert!(namespace.api::<Deployment>().get_opt("tiny").await?.is_none());
    Ok(())
}
