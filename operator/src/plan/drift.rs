//! Whether an owned object still is what was applied, or somebody has edited it.
//!
//! What the operator applies it owns; what else is on the object (defaults of the API server, the address of a load
//! balancer, annotations of others) is none of its business.

use serde_json::{Map, Value};

use super::resources::{canonical, short_hash};

/// Whether everything in `wanted` is on `live`, and where the API server takes a field as a whole, nothing else.
pub(crate) fn covers(wanted: &Value, live: &Value) -> bool {
    within("", wanted, live)
}

fn within(key: &str, wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        // a key too many in a selector selects other pods
        (Value::Object(_), Value::Object(_)) if key == "selector" => wanted == live,
        (Value::Object(wanted), Value::Object(live)) => wanted
            .iter()
            .all(|(key, value)| live.get(key).is_some_and(|live| within(key, value, live))),
        (Value::Array(wanted), Value::Array(live)) => match identity(key) {
            Some(fields) => wanted.iter().all(|wanted| {
                let same = live.iter().find(|live| is_same(fields, wanted, live));
                same.is_some_and(|live| within("", wanted, live))
            }),
            None => wanted == live,
        },
        _ => wanted == live,
    }
}

/// The fields by which elements of a list that others may add to are told apart.
fn identity(key: &str) -> Option<&'static [&'static str]> {
    match key {
        "ports" => Some(&["port", "protocol"]),
        "ownerReferences" => Some(&["uid"]),
        _ => None,
    }
}

fn is_same(fields: &[&str], one: &Value, other: &Value) -> bool {
    fields.iter().all(|field| one.get(field) == other.get(field))
}

/// A digest of everything on an object that [`covers`] may look at: an edit changes it, the passing of time does not.
pub(crate) fn digest(object: &Value) -> String {
    let meta = |key: &str| object["metadata"][key].clone();
    let mut part = Map::new();
    for key in ["labels", "annotations", "ownerReferences"] {
        part.insert(key.to_owned(), meta(key));
    }
    part.insert("spec".to_owned(), object["spec"].clone());
    short_hash(canonical(&Value::Object(part)).as_bytes(), 16)
}

/// The ports of `live` that may stay beside those of `wanted`: no other of theirs has the name, or the number.
pub(crate) fn ports_beside(wanted: &Value, live: &Value) -> Vec<Value> {
    let list = |object: &Value| object["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let ours = list(wanted);
    let is_in_the_way = |port: &Value| {
        let clashes = |our: &Value| our["name"] == port["name"] || is_same(&["port", "protocol"], our, port);
        ours.iter().any(clashes)
    };
    let rest: Vec<_> = list(live)
        .into_iter()
        .filter(|port| !is_in_the_way(port))
        .collect();
    ours.into_iter().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service() -> Value {
        json!({
            "metadata": {"name": "chat", "labels": {"a": "b"}, "ownerReferences": [{"uid": "u", "controller": true}]},
            "spec": {
                "type": "ClusterIP",
                "selector": {"cluster": "chat", "accepting": "true"},
                "ports": [{"name": "ws", "port": 80, "protocol": "TCP", "targetPort": "ws"}],
            },
        })
    }

    /// The Service as the API server has it, with `patch` laid over it.
    fn live(patch: Value) -> Value {
        let mut live = service();
        live["metadata"]["annotations"] = json!({"cloud/load-balancer": "x"});
        live["spec"]["clusterIP"] = json!("10.0.0.1");
        live["spec"]["ports"][0]["nodePort"] = json!(30_000);
        merge(&mut live, patch);
        live
    }

    fn merge(base: &mut Value, over: Value) {
        match (base, over) {
            (Value::Object(base), Value::Object(over)) => {
                for (key, value) in over {
                    merge(base.entry(key).or_insert(Value::Null), value);
                }
            }
            (base, over) => *base = over,
        }
    }

    #[test]
    fn what_others_add_is_no_drift_and_what_they_change_is() {
        assert!(covers(&service(), &live(json!({}))));
        let other_port = json!({"name": "metrics", "port": 9090, "protocol": "TCP"});
        let mut with_another = live(json!({}));
        with_another["spec"]["ports"]
            .as_array_mut()
            .unwrap()
            .insert(0, other_port);
        assert!(covers(&service(), &with_another));
        for edit in [
            json!({"spec": {"selector": {"accepting": "false"}}}),
            json!({"spec": {"selector": {"canary": "yes"}}}),
            json!({"spec": {"type": "NodePort"}}),
            json!({"spec": {"ports": [{"name": "ws", "port": 81, "protocol": "TCP", "targetPort": "ws"}]}}),
            json!({"spec": {"ports": [{"name": "ws", "port": 80, "protocol": "TCP", "targetPort": 8081}]}}),
            json!({"metadata": {"labels": null}}),
            json!({"metadata": {"ownerReferences": []}}),
        ] {
            assert!(!covers(&service(), &live(edit.clone())), "{edit}");
        }
    }

    #[test]
    fn an_edit_changes_the_digest_and_a_new_version_does_not() {
        let same = live(json!({"metadata": {"resourceVersion": "7"}}));
        assert_eq!(digest(&same), digest(&live(json!({}))));
        let edited = live(json!({"spec": {"selector": {"canary": "yes"}}}));
        assert_ne!(digest(&edited), digest(&same));
    }

    #[test]
    fn a_port_that_took_our_name_goes_and_others_stay() {
        let edited = live(json!({"spec": {"ports": [
            {"name": "ws", "port": 81, "protocol": "TCP"}, {"name": "metrics", "port": 9090, "protocol": "TCP"},
        ]}}));
        let numbers: Vec<_> = ports_beside(&service(), &edited)
            .iter()
            .map(|port| port["port"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, [80, 9090]);
    }
}
