//! The pod that the operator makes of a specification, before the overlay and without name, slot and drain times.
//!
//! A change here reaches only revisions made after it: existing ones have their own copy, frozen.

use serde_json::{Value, json};
use wsfleet_crds::labels;
use wsfleet_crds::v1alpha1::{
    API_PORT, AuthSpec, GatewaySpec, HistoryRule, RoomsClaim, SlowConsumerPolicy, SlowConsumerRule,
    WebSocketCluster,
};

use super::broker;
use super::secret::admin_token_ref;

/// Name of the gateway's container; overlays address it by this.
pub const CONTAINER: &str = "gateway";
/// User and group that the gateway runs as: nobody's.
const USER: u32 = 65_532;

/// Where the certificate for clients is mounted: as a folder, for a single file would stay as it is when the Secret
/// changes.
const TLS: &str = "/etc/wsfleet/tls";

/// The pod template as JSON, for the overlay to be laid over.
pub(crate) fn base(cluster: &WebSocketCluster, image: &str) -> Value {
    let admin = admin_token_ref(cluster);
    let mut volumes = vec![secret_volume("admin-token", &admin.name, &admin.key, "token")];
    let mut mounts = vec![mount("admin-token", "/etc/wsfleet/admin")];
    let jwt = cluster.spec.auth.jwt.as_ref();
    if let Some(secret) = jwt.and_then(|jwt| jwt.secret_ref.as_ref()) {
        volumes.push(secret_volume("jwt-secret", &secret.name, &secret.key, "secret"));
        mounts.push(mount("jwt-secret", "/etc/wsfleet/jwt"));
    }
    if let Some(secret) = &cluster.spec.gateway.routing_key_secret_ref {
        volumes.push(secret_volume("routing-key", &secret.name, &secret.key, "key"));
        mounts.push(mount("routing-key", "/etc/wsfleet/routing"));
    }
    if let Some(secret) = broker::authorities(&cluster.spec.broker) {
        volumes.push(secret_volume(
            "broker-ca",
            &secret.name,
            &secret.key,
            broker::CA_FILE,
        ));
        mounts.push(mount("broker-ca", broker::CA_FOLDER));
    }
    if let Some(tls) = &cluster.spec.tls {
        volumes.push(json!({"name": "tls", "secret": {"secretName": tls.secret_name}}));
        mounts.push(mount("tls", TLS));
    }
    json!({
        "metadata": {
            "annotations": {
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
                "prometheus.io/scrape": "true",
                "prometheus.io/port": cluster.spec.gateway.admin_port.to_string(),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": {
            "automountServiceAccountToken": false,
            "restartPolicy": "Always",
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container(cluster, image, &mounts)],
            "volumes": volumes,
        },
    })
}

fn container(cluster: &WebSocketCluster, image: &str, mounts: &[Value]) -> Value {
    let gateway = &cluster.spec.gateway;
    json!({
        "name": CONTAINER,
        "image": image,
        "args": arguments(cluster),
        "env": environment(cluster),
        "ports": [
            {"name": "ws", "containerPort": gateway.port, "protocol": "TCP"},
            {"name": "api", "containerPort": API_PORT, "protocol": "TCP"},
            {"name": "admin", "containerPort": gateway.admin_port, "protocol": "TCP"},
        ],
        "startupProbe": probe("/livez", 1, 60),
        "livenessProbe": probe("/livez", 10, 3),
        "readinessProbe": probe("/readyz", 2, 3),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    })
}

/// Settings that may be given once are environment variables: an overlay can replace one by its name.
fn environment(cluster: &WebSocketCluster) -> Vec<Value> {
    let gateway = &cluster.spec.gateway;
    let mut environment = vec![
        from_field("WSFLEET_SERVER_ID", "metadata.name"),
        from_field(
            "WSFLEET_REVISION",
            &format!("metadata.labels['{}']", labels::REVISION),
        ),
        variable("WSFLEET_LISTEN", &format!("0.0.0.0:{}", gateway.port)),
        variable("WSFLEET_API_LISTEN", &format!("0.0.0.0:{API_PORT}")),
        variable("WSFLEET_ADMIN_LISTEN", &format!("0.0.0.0:{}", gateway.admin_port)),
        variable("WSFLEET_ADMIN_TOKEN_FILE", "/etc/wsfleet/admin/token"),
        variable(
            "WSFLEET_MAX_CONNECTIONS",
            &gateway.capacity.max_connections.to_string(),
        ),
    ];
    environment.extend(broker::environment(&cluster.spec.broker));
    environment.extend(auth(&cluster.spec.auth));
    environment.extend(admission(gateway));
    if gateway.routing_key_secret_ref.is_some() {
        environment.push(variable("WSFLEET_ROUTING_KEY_FILE", "/etc/wsfleet/routing/key"));
    }
    if cluster.spec.tls.is_some() {
        environment.push(variable("WSFLEET_TLS_CERT_FILE", &format!("{TLS}/tls.crt")));
        environment.push(variable("WSFLEET_TLS_KEY_FILE", &format!("{TLS}/tls.key")));
    }
    environment
}

fn auth(auth: &AuthSpec) -> Vec<Value> {
    let Some(jwt) = &auth.jwt else {
        let kind = if auth.anonymous.is_some() {
            "anonymous"
        } else {
            "insecure-token"
        };
        return vec![variable("WSFLEET_AUTH", kind)];
    };
    let rooms = jwt.rooms_claim.map(|claim| match claim {
        RoomsClaim::Optional => "optional".to_owned(),
        RoomsClaim::Required => "required".to_owned(),
    });
    let secret = jwt
        .secret_ref
        .as_ref()
        .map(|_| "/etc/wsfleet/jwt/secret".to_owned());
    let settings = [
        ("WSFLEET_JWT_SECRET_FILE", secret),
        ("WSFLEET_JWKS_URL", jwt.jwks_url.clone()),
        ("WSFLEET_JWT_AUDIENCE", jwt.audience.clone()),
        ("WSFLEET_JWT_ISSUER", jwt.issuer.clone()),
        ("WSFLEET_ROOMS_CLAIM", rooms),
        (
            "WSFLEET_TOKEN_GRACE",
            jwt.token_grace_seconds.map(|seconds| seconds.to_string()),
        ),
    ];
    std::iter::once(variable("WSFLEET_AUTH", "jwt"))
        .chain(given(settings))
        .collect()
}

/// Who may connect, and from where.
fn admission(gateway: &GatewaySpec) -> impl Iterator<Item = Value> {
    let origins = (!gateway.allowed_origins.is_empty()).then(|| gateway.allowed_origins.join(","));
    given([
        ("WSFLEET_ALLOWED_ORIGIN", origins),
        (
            "WSFLEET_TRUSTED_HOPS",
            gateway.trusted_hops.map(|hops| hops.to_string()),
        ),
        (
            "WSFLEET_HANDSHAKE_TIMEOUT",
            gateway
                .handshake_timeout_seconds
                .map(|seconds| seconds.to_string()),
        ),
        (
            "WSFLEET_COMPRESSION",
            gateway
                .compression
                .map(|on| if on { "on" } else { "off" }.to_owned()),
        ),
        (
            "WSFLEET_DIRECT_HISTORY",
            gateway.direct_history.map(|history| history.argument()),
        ),
    ])
}

/// Not by a variable: a pattern may hold what separates values there.
fn slow_consumer(rule: &SlowConsumerRule) -> String {
    let policy = match rule.policy {
        SlowConsumerPolicy::Disconnect => "disconnect",
        SlowConsumerPolicy::DropOldest => "dropOldest",
        SlowConsumerPolicy::KeepLatest => "keepLatest",
    };
    format!("--slow-consumer={}={policy}", rule.rooms)
}

/// Not by a variable, for the same reason.
fn history(rule: &HistoryRule) -> String {
    format!("--history={}", rule.argument())
}

/// Variables of the settings that are set; the gateway has a default for the others.
pub(super) fn given<const N: usize>(
    settings: [(&'static str, Option<String>); N],
) -> impl Iterator<Item = Value> {
    settings
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| variable(name, &value)))
}

fn arguments(cluster: &WebSocketCluster) -> Vec<String> {
    let gateway = &cluster.spec.gateway;
    let handshakes = gateway.capacity.max_handshakes_per_second;
    let age = Some(cluster.spec.rebalance.max_connection_age_seconds).filter(|age| *age > 0);
    std::iter::once(("handshakesPerSecond", handshakes))
        .chain(cluster.spec.limits.entries())
        .chain(age.map(|age| ("connectionAgeSeconds", age)))
        .map(|(key, value)| format!("--limit={key}={value}"))
        .chain(gateway.slow_consumers.iter().map(slow_consumer))
        .chain(gateway.history.iter().map(history))
        .collect()
}

pub(super) fn variable(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn from_field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path, "readOnly": true})
}

fn secret_volume(name: &str, secret: &str, key: &str, file: &str) -> Value {
    json!({"name": name, "secret": {"secretName": secret, "items": [{"key": key, "path": file}]}})
}

fn probe(path: &str, period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures,
    })
}

#[cfg(test)]
#[path = "template_tests.rs"]
pub(super) mod tests;
