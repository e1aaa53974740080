//! The Helm chart as Helm renders it: no cluster needed. Helm itself is built by `tests/cluster/build.sh helm`.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde::Deserialize as _;
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn helm(args: &[&str]) -> Output {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    let program = HELM.get_or_init(|| {
        let built = Command::new(repository().join("tests/cluster/build.sh"))
            .arg("helm")
            .output()
            .unwrap();
        assert!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        PathBuf::from(String::from_utf8(built.stdout).unwrap().trim())
    });
    Command::new(program)
        .args(args)
        .current_dir(repository())
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// All objects that the chart makes with these extra arguments.
fn render(extra: &[&str]) -> Vec<Value> {
    let output = helm(
        &[
            &["template", "wsfleet", "charts/wsfleet", "--namespace", "system"],
            extra,
        ]
        .concat(),
    );
    assert!(output.status.success(), "{}", text(&output));
    let documents = serde_yaml_ng::Deserializer::from_slice(&output.stdout);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|value| !value.is_null())
        .collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item.as_str().unwrap())
        .collect()
}

/// Resource -> verbs, over all rules of a role.
fn granted(role: &Value) -> Vec<(String, Vec<&str>)> {
    let rules = role["rules"].as_array().unwrap();
    let each = rules.iter().flat_map(|rule| {
        strings(&rule["resources"])
            .into_iter()
            .map(|resource| (resource.to_owned(), strings(&rule["verbs"])))
    });
    each.collect()
}

#[test]
fn helm_lints_the_chart_without_a_warning() {
    for extra in [
        vec![],
        vec![
            "--set",
            "watchNamespaces={a,b},metrics.serviceMonitor.enabled=true",
        ],
    ] {
        let output = helm(&[vec!["lint", "--strict", "charts/wsfleet"], extra].concat());
        assert!(output.status.success(), "{}", text(&output));
        assert!(!text(&output).contains("[WARNING]"), "{}", text(&output));
    }
}

#[test]
fn the_chart_carries_the_generated_resource_definition_and_keeps_it_on_uninstall() {
    let check = Command::new(repository().join("charts/sync.sh"))
        .arg("--check")
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", text(&check));
    let objects = render(&[]);
    let definitions = of_kind(&objects, "CustomResourceDefinition");
    assert_eq!(definitions.len(), 1);
    assert_eq!(
        definitions[0]["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
    let generated = std::fs::read(repository().join("crds/wsfleet.dev_websocketclusters.yaml")).unwrap();
    let generated: Value = serde_yaml_ng::from_slice(&generated).unwrap();
    assert_eq!(
        definitions[0]["spec"], generated["spec"],
        "rendering must not change a number or a rule"
    );
    assert!(
        of_kind(
            &render(&["--set", "crds.install=false"]),
            "CustomResourceDefinition"
        )
        .is_empty()
    );
}

#[test]
fn operator_pods_run_without_privileges_and_are_told_what_they_need() {
    let objects = render(&["--set", "gatewayImage.repository=r/gateway,gatewayImage.tag=v7"]);
    let deployment = of_kind(&objects, "Deployment")[0];
    assert_eq!(deployment["spec"]["replicas"], 2);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
    assert_eq!(
        container["resources"]["requests"],
        json!({"cpu": "50m", "memory": "64Mi"})
    );
    let args = strings(&container["args"]);
    assert!(args.contains(&"--gateway-image=r/gateway:v7"), "{args:?}");
    assert!(
        !args.iter().any(|arg| arg.starts_with("--watch-namespaces")),
        "{args:?}"
    );
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    for constraint in spread {
        assert_eq!(
            constraint["labelSelector"]["matchLabels"], deployment["spec"]["selector"]["matchLabels"],
            "a constraint without a selector counts nothing"
        );
    }
    let budget = of_kind(&objects, "PodDisruptionBudget")[0];
    assert_eq!(budget["spec"]["selector"], deployment["spec"]["selector"]);
    assert!(of_kind(&render(&["--set", "replicas=1"]), "PodDisruptionBudget").is_empty());
}

#[test]
fn nothing_of_the_test_is_selected_as_if_it_were_the_operator() {
    let objects = render(&[]);
    let selector = of_kind(&objects, "Deployment")[0]["spec"]["selector"]["matchLabels"]
        .as_object()
        .unwrap()
        .clone();
    let pods = of_kind(&objects, "Pod");
    assert_eq!(pods.len(), 1, "one test pod");
    let labels = &pods[0]["metadata"]["labels"];
    assert!(
        selector.iter().any(|(key, value)| labels[key] != *value),
        "{labels} matches {selector:?}"
    );
}

#[test]
fn the_operator_is_granted_what_it_does_and_nothing_by_wildcard() {
    let objects = render(&[]);
    let roles: Vec<&Value> = of_kind(&objects, "ClusterRole")
        .into_iter()
        .chain(of_kind(&objects, "Role"))
        .collect();
    for (resource, verbs) in roles.iter().flat_map(|role| granted(role)) {
        assert!(resource != "*" && !verbs.contains(&"*"), "{resource} {verbs:?}");
    }
    let operator = roles.iter().find(|role| name(role) == "wsfleet-system").unwrap();
    let granted = granted(operator);
    let verbs = |resource: &str| {
        granted
            .iter()
            .find(|(name, _)| name == resource)
            .map(|(_, verbs)| verbs.clone())
    };
    assert_eq!(verbs("nodes").unwrap(), ["get", "list", "watch"]);
    let secrets = verbs("secrets").unwrap();
    for verb in ["list", "watch", "update", "patch", "delete"] {
        assert!(!secrets.contains(&verb), "Secrets of everybody: {secrets:?}");
    }
    assert!(!verbs("websocketclusters").unwrap().contains(&"delete"));
    assert!(
        verbs("leases").is_none(),
        "leases belong to the operator's own namespace"
    );
}

#[test]
fn with_watch_namespaces_the_rights_are_a_role_in_each_of_them() {
    let objects = render(&["--set", "watchNamespaces={red,blue}"]);
    let roles = of_kind(&objects, "Role");
    let namespaces: BTreeSet<&str> = roles
        .iter()
        .filter(|role| name(role) == "wsfleet-system")
        .map(|role| role["metadata"]["namespace"].as_str().unwrap())
        .collect();
    assert_eq!(namespaces, BTreeSet::from(["red", "blue"]));
    let cluster = of_kind(&objects, "ClusterRole")
        .into_iter()
        .find(|role| name(role) == "wsfleet-system")
        .unwrap();
    let resources: Vec<String> = granted(cluster)
        .into_iter()
        .map(|(resource, _)| resource)
        .collect();
    assert_eq!(
        resources,
        ["nodes"],
        "only what has no namespace is granted in the whole cluster"
    );
    let args =
        of_kind(&objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    assert!(strings(&args).contains(&"--watch-namespaces=red,blue"), "{args}");
    for binding in of_kind(&objects, "RoleBinding")
        .into_iter()
        .chain(of_kind(&objects, "ClusterRoleBinding"))
    {
        assert_eq!(binding["subjects"][0]["namespace"], "system", "{}", name(binding));
    }
}

#[test]
fn with_watch_namespaces_and_without_nodes_nothing_is_granted_in_the_whole_cluster() {
    let objects = render(&[
        "--set",
        "watchNamespaces={red},watchNodes=false,rbac.aggregateToDefaultRoles=false",
    ]);
    assert!(of_kind(&objects, "ClusterRole").is_empty());
    assert!(of_kind(&objects, "ClusterRoleBinding").is_empty());
    let all = render(&["--set", "watchNodes=false"]);
    let role = of_kind(&all, "ClusterRole")
        .into_iter()
        .find(|role| name(role) == "wsfleet-system")
        .unwrap();
    assert!(!granted(role).iter().any(|(resource, _)| resource == "nodes"));
}

#[test]
fn monitors_are_made_only_when_asked_for() {
    assert!(of_kind(&render(&[]), "ServiceMonitor").is_empty());
    let objects = render(&[
        "--set",
        "metrics.serviceMonitor.enabled=true,metrics.gatewayPodMonitor.enabled=true",
    ]);
    assert_eq!(of_kind(&objects, "ServiceMonitor").len(), 1);
    let monitor = of_kind(&objects, "PodMonitor")[0];
    let targets: Vec<&str> = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|relabeling| relabeling["targetLabel"].as_str().unwrap())
        .collect();
    assert!(
        targets.contains(&"wsfleet_cluster"),
        "the autoscaler's query selects on it: {targets:?}"
    );
}

#[test]
fn wrong_values_are_refused_with_the_path_of_what_is_wrong() {
    for (setting, path) in [
        ("replica=3", "replica"),
        ("replicas=two", "replicas"),
        ("replicas=-1", "replicas"),
        ("image.name=x", "name"),
        ("image.digest=md5:abc", "digest"),
        ("gatewayImage=wsfleet/gateway:1", "gatewayImage"),
        ("watchNamespaces={Not_A_Name}", "watchNamespaces"),
        ("log.format=xml", "format"),
        ("crds.keep=true", "keep"),
        ("metrics.port=80", "port"),
        ("podDisruptionBudget.maxUnavailable=half", "maxUnavailable"),
        ("test.timeoutSeconds=0", "timeoutSeconds"),
    ] {
        let output = helm(&["template", "wsfleet", "charts/wsfleet", "--set", setting]);
        assert!(!output.status.success(), "{setting} must be refused");
        assert!(text(&output).contains(path), "{setting}: {}", text(&output));
    }
}

/// Paths of all values; maps that are empty by default and well-known structures are leaves.
fn leaves(prefix: &str, value: &Value, out: &mut Vec<String>) {
    let opaque = ["resources", "podSecurityContext", "securityContext"].contains(&prefix);
    match value.as_object().filter(|map| !map.is_empty() && !opaque) {
        Some(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                leaves(&path, value, out);
            }
        }
        None => out.push(prefix.to_owned()),
    }
}

#[test]
fn every_value_is_in_the_schema_and_in_the_readme() {
    let chart = repository().join("charts/wsfleet");
    let values: Value =
        serde_yaml_ng::from_slice(&std::fs::read(chart.join("values.yaml")).unwrap()).unwrap();
    let schema: Value =
        serde_json::from_slice(&std::fs::read(chart.join("values.schema.json")).unwrap()).unwrap();
    let readme = std::fs::read_to_string(chart.join("README.md")).unwrap();
    let mut paths = Vec::new();
    leaves("", &values, &mut paths);
    for path in paths {
        assert!(
            readme.contains(&format!("`{path}`")),
            "README.md does not name {path}"
        );
        let found = path
            .split('.')
            .try_fold(&schema, |node, key| node["properties"].get(key));
        assert!(found.is_some(), "values.schema.json does not have {path}");
    }
}
