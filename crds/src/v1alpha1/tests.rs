use super::*;
use serde_json::json;

fn cluster(spec: serde_json::Value) -> WebSocketCluster {
    let spec: WebSocketClusterSpec = serde_json::from_value(spec).unwrap();
    WebSocketCluster::new("chat", spec)
}

fn with_redis(mut extra: serde_json::Value) -> WebSocketCluster {
    let object = extra.as_object_mut().unwrap();
    object
        .entry("broker")
        .or_insert(json!({"redis": {"url": "redis://redis:6379"}}));
    object.entry("auth").or_insert(json!({"anonymous": {}}));
    cluster(extra)
}

#[test]
fn a_field_that_is_left_out_has_the_default_of_its_type() {
    macro_rules! same {
        ($($kind:ty),*) => {$(
            assert_eq!(serde_json::from_value::<$kind>(json!({})).unwrap(), <$kind>::default(), stringify!($kind));
        )*};
    }
    same!(
        GatewaySpec,
        CapacitySpec,
        TemplateOverlay,
        LimitsSpec,
        ServiceSpec,
        RolloutSpec,
        CanarySpec,
        DrainSpec
    );
    same!(
        ReconnectSpec,
        PassiveSpec,
        DisruptionSpec,
        AutoscalingSpec,
        MetricsSpec,
        ScaleUpSpec,
        ScaleDownSpec
    );
    same!(RebalanceSpec, TopologySpec);
    assert!(BrokerSpec::default().memory.is_some());
}

#[test]
fn the_smallest_manifest_of_the_documentation_is_valid() {
    let cluster = cluster(json!({
        "replicas": 3,
        "broker": {"redis": {"url": "redis://redis:6379"}},
        "auth": {"jwt": {"secretRef": {"name": "chat-jwt", "key": "secret"}}},
    }));
    cluster.validate_cel().unwrap();
}

#[test]
fn the_memory_broker_allows_one_gateway_only() {
    let alone = cluster(json!({"replicas": 1, "auth": {"anonymous": {}}}));
    alone.validate_cel().unwrap();
    let three = cluster(json!({"auth": {"anonymous": {}}}));
    let error = three.validate_cel().unwrap_err().to_string();
    assert!(error.contains("set spec.broker.redis.url"), "{error}");
}

#[test]
fn a_rollout_that_could_not_move_is_refused_in_both_spellings() {
    for zero in [json!(0), json!("0%")] {
        let cluster = with_redis(json!({"rollout": {"maxSurge": zero, "maxUnavailable": zero}}));
        let error = cluster.validate_cel().unwrap_err().to_string();
        assert!(error.contains("cannot both be 0"), "{error}");
    }
    with_redis(json!({"rollout": {"maxSurge": 0, "maxUnavailable": 1}}))
        .validate_cel()
        .unwrap();
}

#[test]
fn the_committed_definition_is_the_generated_one_and_small() {
    let generated = crd_yaml().unwrap();
    let committed = include_str!("../../wsfleet.dev_websocketclusters.yaml");
    assert!(
        generated == committed,
        "regenerate: cargo run -p wsfleet-crds --features resource --bin crdgen crds/wsfleet.dev_websocketclusters.yaml"
    );
    assert!(generated.len() <= 100 * 1024, "{} bytes", generated.len());
    assert!(!generated.contains("format: uint"));
}

/// Name and text of each specification in a folder of the tables that the API server is tested with too.
fn table(folder: &str) -> Vec<(String, String)> {
    let path = format!("{}/../tests/specs/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let read =
        |path: &std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(path).unwrap());
    files.iter().map(read).collect()
}

#[test]
fn every_valid_specification_of_the_table_passes_the_rules() {
    let valid = table("valid");
    assert!(valid.len() >= 30, "{}", valid.len());
    for (name, text) in valid {
        let cluster: WebSocketCluster =
            serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        cluster
            .validate_cel()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn every_rule_of_the_table_refuses_with_a_message_that_says_what_to_write() {
    let invalid = table("invalid");
    assert!(invalid.len() >= 30, "{}", invalid.len());
    for (name, text) in invalid {
        let header = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_else(|| panic!("{name} has no line {key}"))
                .trim()
                .to_owned()
        };
        let (expected, by) = (header("# expect:"), header("# by:"));
        assert!(
            ["rule", "schema", "strict"].contains(&by.as_str()),
            "{name}: {by}"
        );
        if by == "rule" {
            let cluster: WebSocketCluster = serde_yaml_ng::from_str(&text).unwrap();
            let error = cluster.validate_cel().expect_err(&name).to_string();
            assert!(error.contains(&expected), "{name}: {error}");
        }
    }
}
