//! What gateways are told of their broker.

use serde_json::{Value, json};
use wsfleet_crds::v1alpha1::{BrokerSpec, Durability, SecretKeyRef};

use super::template::{given, variable};

/// Where the authorities are mounted that vouch for Redis.
pub(super) const CA_FOLDER: &str = "/etc/wsfleet/broker";
/// The file with them.
pub(super) const CA_FILE: &str = "ca.crt";

/// Who vouches for Redis, when that is said.
pub(super) fn authorities(broker: &BrokerSpec) -> Option<&SecretKeyRef> {
    broker.redis.as_ref()?.ca_secret_ref.as_ref()
}

/// The variables: where it is, and what is asked of it.
pub(super) fn environment(broker: &BrokerSpec) -> Vec<Value> {
    let chosen = broker.redis.as_ref().and_then(|redis| redis.durability);
    let durability = chosen.map(|durability| match durability {
        Durability::Primary => "primary".to_owned(),
        Durability::Replicated => "replicated".to_owned(),
    });
    let authorities = authorities(broker).map(|_| format!("{CA_FOLDER}/{CA_FILE}"));
    let more = [
        ("WSFLEET_DURABILITY", durability),
        ("WSFLEET_BROKER_CA_FILE", authorities),
    ];
    std::iter::once(address(broker)).chain(given(more)).collect()
}

fn address(broker: &BrokerSpec) -> Value {
    let redis = broker.redis.as_ref();
    if let Some(secret) = redis.and_then(|redis| redis.secret_ref.as_ref()) {
        let source = json!({"secretKeyRef": {"name": secret.name, "key": secret.key}});
        return json!({"name": "WSFLEET_BROKER", "valueFrom": source});
    }
    variable(
        "WSFLEET_BROKER",
        redis.and_then(|redis| redis.url.as_deref()).unwrap_or("memory"),
    )
}

#[cfg(test)]
mod tests {
    use wsfleet_crds::v1alpha1::WebSocketCluster;

    use super::super::template::base;
    use super::super::template::tests::environment_of;
    use super::*;

    fn with(redis: &Value) -> Value {
        json!({"auth": {"anonymous": {}}, "broker": {"redis": redis}})
    }

    #[test]
    fn when_messages_are_acknowledged_reaches_the_gateway() {
        let spec = with(&json!({"url": "redis://redis:6379", "durability": "Replicated"}));
        let replicated = ("WSFLEET_DURABILITY".to_owned(), "replicated".to_owned());
        assert!(environment_of(spec).contains(&replicated));
    }

    #[test]
    fn who_vouches_for_redis_is_mounted_and_its_file_is_named() {
        let reference = json!({"name": "redis-ca", "key": "authorities"});
        let spec = with(&json!({"url": "rediss-sentinel://s:26379/chat", "caSecretRef": reference}));
        let file = "/etc/wsfleet/broker/ca.crt".to_owned();
        assert!(environment_of(spec.clone()).contains(&("WSFLEET_BROKER_CA_FILE".to_owned(), file)));
        let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
        let pod = base(&cluster, "image")["spec"].take();
        let items = json!([{"key": "authorities", "path": "ca.crt"}]);
        let volume = json!({"name": "broker-ca", "secret": {"secretName": "redis-ca", "items": items}});
        assert!(pod["volumes"].as_array().unwrap().contains(&volume));
        let mounted = json!({"name": "broker-ca", "mountPath": "/etc/wsfleet/broker", "readOnly": true});
        let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
        assert!(mounts.contains(&mounted));
    }
}
