//! What gateways are told of their broker.

use serde_json::{Value, json};
use wsfleet_crds::v1alpha1::{BrokerSpec, Durability, Events, SecretKeyRef};

use super::template::{given, variable};

/// Where the authorities are mounted that vouch for the broker.
pub(super) const CA_FOLDER: &str = "/etc/wsfleet/broker";
/// The file with them.
pub(super) const CA_FILE: &str = "ca.crt";

/// Who vouches for Redis or NATS, when that is said.
pub(super) fn authorities(broker: &BrokerSpec) -> Option<&SecretKeyRef> {
    let redis = broker.redis.as_ref().map(|redis| &redis.ca_secret_ref);
    let nats = broker.nats.as_ref().map(|nats| &nats.ca_secret_ref);
    redis.or(nats)?.as_ref()
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
    std::iter::once(address(broker))
        .chain(given(more))
        .chain(events(broker))
        .collect()
}

/// Where clients' events go.
fn events(broker: &BrokerSpec) -> impl Iterator<Item = Value> {
    let redis = broker.redis.as_ref().and_then(|redis| redis.events.clone());
    let nats = broker.nats.as_ref().and_then(|nats| nats.events.clone());
    // in NATS the stream has its name from the fleet's
    let nats = nats.map(|events| Events {
        enabled: events.enabled,
        stream: None,
        length: events.length,
    });
    let events = redis.or(nats).unwrap_or_default();
    let enabled = events.enabled.map(|on| if on { "on" } else { "off" }.to_owned());
    given([
        ("WSFLEET_EVENTS", enabled),
        ("WSFLEET_EVENT_STREAM", events.stream),
        (
            "WSFLEET_EVENT_STREAM_LENGTH",
            events.length.map(|length| length.to_string()),
        ),
    ])
}

fn address(broker: &BrokerSpec) -> Value {
    let redis = broker.redis.as_ref().map(|redis| (&redis.secret_ref, &redis.url));
    let nats = broker.nats.as_ref().map(|nats| (&nats.secret_ref, &nats.url));
    let (secret, url) = redis.or(nats).unzip();
    if let Some(Some(secret)) = secret {
        let source = json!({"secretKeyRef": {"name": secret.name, "key": secret.key}});
        return json!({"name": "WSFLEET_BROKER", "valueFrom": source});
    }
    variable(
        "WSFLEET_BROKER",
        url.and_then(Option::as_deref).unwrap_or("memory"),
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
    fn where_events_go_reaches_the_gateway_when_it_is_said() {
        let url = "redis://redis:6379";
        let told = |redis: &Value| {
            let variables = environment_of(with(redis));
            let events = |(name, _): &(String, String)| name.starts_with("WSFLEET_EVENT");
            variables.into_iter().filter(events).collect::<Vec<_>>()
        };
        assert_eq!(told(&json!({"url": url})), []);
        let events = json!({"enabled": true, "stream": "chat:events", "length": 5000});
        let expected = [
            ("WSFLEET_EVENTS", "on"),
            ("WSFLEET_EVENT_STREAM", "chat:events"),
            ("WSFLEET_EVENT_STREAM_LENGTH", "5000"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(told(&json!({"url": url, "events": events})), expected);
        let off = told(&json!({"url": url, "events": {"enabled": false}}));
        assert_eq!(off, [("WSFLEET_EVENTS".to_owned(), "off".to_owned())]);
        let nats = json!({"nats": {"url": "nats://nats", "events": {"enabled": false, "length": 7}}});
        let told = environment_of(json!({"auth": {"anonymous": {}}, "broker": nats}));
        for (name, value) in [("WSFLEET_EVENTS", "off"), ("WSFLEET_EVENT_STREAM_LENGTH", "7")] {
            assert!(told.contains(&(name.to_owned(), value.to_owned())), "{told:?}");
        }
    }

    #[test]
    fn where_nats_is_reaches_the_gateway() {
        let spec = json!({"auth": {"anonymous": {}}, "broker": {"nats": {"url": "nats://nats:4222"}}});
        let nats = ("WSFLEET_BROKER".to_owned(), "nats://nats:4222".to_owned());
        assert!(environment_of(spec).contains(&nats));
    }

    #[test]
    fn who_vouches_for_the_broker_is_mounted_and_its_file_is_named() {
        let reference = json!({"name": "broker-ca", "key": "authorities"});
        for broker in [
            json!({"redis": {"url": "rediss-sentinel://s:26379/chat", "caSecretRef": reference}}),
            json!({"nats": {"url": "tls://nats:4222", "caSecretRef": reference}}),
        ] {
            let spec = json!({"auth": {"anonymous": {}}, "broker": broker});
            let file = "/etc/wsfleet/broker/ca.crt".to_owned();
            assert!(environment_of(spec.clone()).contains(&("WSFLEET_BROKER_CA_FILE".to_owned(), file)));
            let cluster = WebSocketCluster::new("chat", serde_json::from_value(spec).unwrap());
            let pod = base(&cluster, "image")["spec"].take();
            let items = json!([{"key": "authorities", "path": "ca.crt"}]);
            let volume = json!({"name": "broker-ca", "secret": {"secretName": "broker-ca", "items": items}});
            assert!(pod["volumes"].as_array().unwrap().contains(&volume));
            let mounted = json!({"name": "broker-ca", "mountPath": "/etc/wsfleet/broker", "readOnly": true});
            let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
            assert!(mounts.contains(&mounted));
        }
    }
}
