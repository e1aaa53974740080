//! The Helm chart, installed with the real Helm into the real cluster.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::WebSocketCluster;
use wsfleet_tests::cluster::{Cluster, Namespace, has_condition};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;
const SOON: Duration = Duration::from_mins(2);

const FLEET: &str = "
apiVersion: wsfleet.dev/v1alpha1
kind: WebSocketCluster
metadata: {name: hello}
spec:
  replicas: 1
  auth: {anonymous: {}}
  rollout: {minReadySeconds: 0}
";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/wsfleet")
}

/// Names, UIDs and restarts of the fleet's pods: what an upgrade of the operator must leave alone.
async fn pods(namespace: &Namespace) -> Result<Vec<(Option<String>, Option<String>, i32)>> {
    let selector = format!("{}=hello", labels::CLUSTER);
    let found = namespace
        .api::<Pod>()
        .list(&ListParams::default().labels(&selector))
        .await?;
    let restarts = |pod: &Pod| {
        let statuses = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        statuses.map(|status| status.restart_count).sum()
    };
    let rows = found.items.into_iter().map(|pod| {
        let restarts = restarts(&pod);
        (pod.metadata.name, pod.metadata.uid, restarts)
    });
    Ok(rows.collect())
}

/// The fleet's revisions, with their UIDs and what is frozen in them.
async fn revisions(namespace: &Namespace) -> Result<Vec<ControllerRevision>> {
    let api = namespace.api::<ControllerRevision>();
    Ok(api.list(&ListParams::default()).await?.items)
}

async fn until_ready(namespace: &Namespace) -> Result {
    let api = namespace.api::<WebSocketCluster>();
    namespace
        .until("the fleet is Ready", SOON, async || {
            let fleet = api.get("hello").await.map_err(|error| error.to_string())?;
            has_condition(&fleet, "Ready", "True")
        })
        .await?;
    Ok(())
}

/// Whether the operator's service account may do this in the namespace.
async fn may(
    cluster: &Cluster,
    account: &str,
    namespace: &str,
    verb: &str,
    group: &str,
    resource: &str,
) -> Result<bool> {
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(format!("system:serviceaccount:{account}")),
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(namespace.to_owned()),
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let answer = Api::all(cluster.client())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[tokio::test]
async fn the_chart_installs_serves_upgrades_without_touching_a_pod_and_leaves_fleets_on_uninstall() -> Result
{
    let cluster = Cluster::connect().await?;
    let namespace = cluster.namespace("chart").await?;
    let watch = format!("{{{}}}", namespace.name());
    let images = cluster.image_prefix();
    let (operator, gateway, load) = (
        format!("{images}/operator"),
        format!("{images}/gateway"),
        format!("{images}/load"),
    );
    let mut values = vec![
        ("watchNamespaces", watch.as_str()),
        ("image.repository", &operator),
        ("image.tag", "dev"),
        ("gatewayImage.repository", &gateway),
        ("gatewayImage.tag", "dev"),
        ("test.image.repository", &load),
        ("test.image.tag", "dev"),
    ];
    let release = cluster
        .install("chart", namespace.name(), &chart(), &values)
        .await?;

    let told = release.test().await?;
    assert!(told.contains("Succeeded"), "{told}");

    let account = format!("{}:chart-wsfleet", namespace.name());
    for (place, verb, group, resource, allowed) in [
        (namespace.name(), "create", "", "pods", true),
        (namespace.name(), "get", "", "secrets", true),
        (namespace.name(), "list", "", "secrets", false),
        (namespace.name(), "delete", "", "services", false),
        (
            namespace.name(),
            "update",
            "wsfleet.dev",
            "websocketclusters",
            false,
        ),
        ("default", "create", "", "pods", false),
        ("kube-system", "get", "", "secrets", false),
    ] {
        let answer = may(&cluster, &account, place, verb, group, resource).await?;
        assert_eq!(answer, allowed, "{verb} {resource} in {place}");
    }

    namespace.apply(FLEET).await?;
    until_ready(&namespace).await?;
    let (before, frozen) = (pods(&namespace).await?, revisions(&namespace).await?);
    values.extend([("gatewayImage.tag", "dev2"), ("log.filter", "debug")]);
    release.upgrade(&chart(), &values).await?;
    // the new operator has planned the fleet when the status names the generation it saw, still Ready
    until_ready(&namespace).await?;
    assert_eq!(
        pods(&namespace).await?,
        before,
        "an upgrade of the operator moves no client"
    );
    assert_eq!(
        revisions(&namespace).await?,
        frozen,
        "nor does it make a revision"
    );

    release.uninstall().await?;
    assert_eq!(
        pods(&namespace).await?,
        before,
        "a fleet serves on without its operator"
    );
    assert!(
        namespace
            .api::<WebSocketCluster>()
            .get_opt("hello")
            .await?
            .is_some()
    );
    Ok(())
}
