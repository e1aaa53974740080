use super::*;

pub(in super::super) fn environment_of(spec: Value) -> Vec<(String, String)> {
    let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
    let base = base(&cluster, "image");
    let variables = base["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    variables
        .iter()
        .map(|variable| (text(&variable["name"]), text(&variable["value"])))
        .collect()
}

#[test]
fn what_the_resource_says_about_tokens_and_origins_reaches_the_gateway() {
    let variables = environment_of(json!({
        "gateway": {
            "allowedOrigins": ["https://a.example", "https://b.example:8443"], "trustedHops": 2,
            "handshakeTimeoutSeconds": 5, "compression": false,
        },
        "auth": {"jwt": {
            "jwksUrl": "https://login.example/keys", "audience": "chat", "issuer": "login",
            "roomsClaim": "Required", "tokenGraceSeconds": 0,
        }},
    }));
    for (name, value) in [
        ("WSFLEET_AUTH", "jwt"),
        ("WSFLEET_JWKS_URL", "https://login.example/keys"),
        ("WSFLEET_JWT_AUDIENCE", "chat"),
        ("WSFLEET_JWT_ISSUER", "login"),
        ("WSFLEET_COMPRESSION", "off"),
        ("WSFLEET_ROOMS_CLAIM", "required"),
        ("WSFLEET_TOKEN_GRACE", "0"),
        (
            "WSFLEET_ALLOWED_ORIGIN",
            "https://a.example,https://b.example:8443",
        ),
        ("WSFLEET_TRUSTED_HOPS", "2"),
        ("WSFLEET_HANDSHAKE_TIMEOUT", "5"),
    ] {
        assert!(
            variables.contains(&(name.to_owned(), value.to_owned())),
            "{name}: {variables:?}"
        );
    }
    assert!(
        !variables
            .iter()
            .any(|(name, _)| name == "WSFLEET_JWT_SECRET_FILE")
    );
}

#[test]
fn what_gives_way_in_which_rooms_reaches_the_gateway_in_its_order() {
    let rules = json!([
        {"rooms": "cursor:*", "policy": "KeepLatest"}, {"rooms": "a,b=c", "policy": "DropOldest"},
        {"rooms": "*", "policy": "Disconnect"},
    ]);
    let spec = json!({"auth": {"anonymous": {}}, "gateway": {"slowConsumers": rules}});
    let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
    let arguments = arguments(&cluster);
    assert_eq!(
        arguments[arguments.len() - 3..],
        [
            "--slow-consumer=cursor:*=keepLatest",
            "--slow-consumer=a,b=c=dropOldest",
            "--slow-consumer=*=disconnect",
        ]
    );
}

#[test]
fn what_is_kept_of_which_rooms_reaches_the_gateway_in_its_order() {
    let spec = json!({"auth": {"anonymous": {}}, "gateway": {
        "history": [
            {"rooms": "orders:*", "messages": 1000, "seconds": 3600}, {"rooms": "a,b=c", "seconds": 60},
            {"rooms": "cursor:*", "policy": "Ephemeral"}, {"rooms": "*", "policy": "PositionOnly"},
        ],
        "directHistory": {"messages": 50},
    }});
    let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec.clone()).unwrap());
    let arguments = arguments(&cluster);
    assert_eq!(
        arguments[arguments.len() - 4..],
        [
            "--history=orders:*=1000/3600",
            "--history=a,b=c=300/60",
            "--history=cursor:*=ephemeral",
            "--history=*=off",
        ]
    );
    let direct = ("WSFLEET_DIRECT_HISTORY".to_owned(), "50/300".to_owned());
    assert!(environment_of(spec).contains(&direct));
}

#[test]
fn a_certificate_is_mounted_whole_and_probes_stay_on_the_admin_port() {
    let spec = json!({"auth": {"anonymous": {}}, "tls": {"secretName": "chat-tls"}});
    let variables = environment_of(spec.clone());
    for (name, value) in [
        ("WSFLEET_TLS_CERT_FILE", "/etc/wsfleet/tls/tls.crt"),
        ("WSFLEET_TLS_KEY_FILE", "/etc/wsfleet/tls/tls.key"),
    ] {
        let expected = (name.to_owned(), value.to_owned());
        assert!(variables.contains(&expected), "{name}: {variables:?}");
    }
    let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
    let pod = base(&cluster, "image")["spec"].take();
    let volume = json!({"name": "tls", "secret": {"secretName": "chat-tls"}});
    assert!(pod["volumes"].as_array().unwrap().contains(&volume));
    let container = &pod["containers"][0];
    // no subPath: a file that is mounted alone is not replaced with its Secret
    let mounted = json!({"name": "tls", "mountPath": "/etc/wsfleet/tls", "readOnly": true});
    assert!(container["volumeMounts"].as_array().unwrap().contains(&mounted));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "admin");
    }
}

#[test]
fn the_routing_key_is_mounted_and_only_where_one_is_named() {
    let reference = json!({"name": "chat-routing", "key": "signing"});
    let spec = json!({"auth": {"anonymous": {}}, "gateway": {"routingKeySecretRef": reference}});
    let file = "/etc/wsfleet/routing/key".to_owned();
    assert!(environment_of(spec.clone()).contains(&("WSFLEET_ROUTING_KEY_FILE".to_owned(), file)));
    let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
    let pod = base(&cluster, "image")["spec"].take();
    let volume = secret_volume("routing-key", "chat-routing", "signing", "key");
    assert!(pod["volumes"].as_array().unwrap().contains(&volume));
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert!(mounts.contains(&mount("routing-key", "/etc/wsfleet/routing")));
}

#[test]
fn what_the_resource_does_not_say_is_left_to_the_gateway() {
    let secret = json!({"secretRef": {"name": "chat-jwt", "key": "secret"}});
    let variables = environment_of(json!({"auth": {"jwt": secret}}));
    let named = |part: &str| variables.iter().filter(|(name, _)| name.contains(part)).count();
    assert_eq!(named("JWT"), 1, "the secret's file");
    assert_eq!(
        named("JWKS")
            + named("ORIGIN")
            + named("HOPS")
            + named("ROOMS")
            + named("TIMEOUT")
            + named("TLS")
            + named("ROUTING")
            + named("CA_FILE"),
        0
    );
}

#[test]
fn an_age_reaches_the_gateway_only_when_there_is_one() {
    let arguments = |rebalance: Value| {
        let spec = json!({"auth": {"anonymous": {}}, "rebalance": rebalance});
        super::arguments(&WebSocketCluster::new(
            "chat",
            serde_json::from_value(spec).unwrap(),
        ))
    };
    let with = arguments(json!({"maxConnectionAgeSeconds": 3600}));
    assert!(
        with.contains(&"--limit=connectionAgeSeconds=3600".to_owned()),
        "{with:?}"
    );
    // an argument that is always there would be another revision of every fleet
    assert!(
        !arguments(json!({}))
            .iter()
            .any(|argument| argument.contains("connectionAge"))
    );
}
