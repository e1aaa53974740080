//! Strategic merge of `spec.template` over the operator's pod, for the lists and maps of a pod that matter.
//!
//! Maps are merged, lists with a merge key are merged by it (Kubernetes' `patchMergeKey`), tolerations and image pull
//! secrets are added, everything else replaces. A null removes.

use serde_json::{Map, Value};

/// How a list of a pod is merged.
enum ListRule {
    /// Elements with equal values of the first of these keys that they have are merged.
    ByKey(&'static [&'static str]),
    /// Elements are added.
    Append,
    /// The overlay's list stands.
    Replace,
}

fn rule(field: &str) -> ListRule {
    match field {
        "containers" | "initContainers" | "env" | "volumes" => ListRule::ByKey(&["name"]),
        "volumeMounts" => ListRule::ByKey(&["mountPath"]),
        "ports" => ListRule::ByKey(&["containerPort"]),
        "hostAliases" => ListRule::ByKey(&["ip"]),
        "tolerations" | "imagePullSecrets" | "envFrom" => ListRule::Append,
        _ => ListRule::Replace,
    }
}

/// Lays `overlay` over `base`.
pub(crate) fn merge(base: &mut Map<String, Value>, overlay: &Map<String, Value>) {
    for (field, value) in overlay {
        match (base.get_mut(field), value) {
            (_, Value::Null) => {
                base.remove(field);
            }
            (Some(Value::Object(below)), Value::Object(above)) => merge_object(below, above),
            (Some(Value::Array(below)), Value::Array(above)) => merge_list(field, below, above),
            _ => {
                base.insert(field.clone(), value.clone());
            }
        }
    }
}

/// Members of which only one may be set replace each other instead of being merged.
fn merge_object(below: &mut Map<String, Value>, above: &Map<String, Value>) {
    const HANDLERS: [&str; 4] = ["httpGet", "exec", "tcpSocket", "grpc"];
    if HANDLERS.iter().any(|handler| above.contains_key(*handler)) {
        for handler in HANDLERS {
            below.remove(handler);
        }
    }
    merge(below, above);
}

fn merge_list(field: &str, below: &mut Vec<Value>, above: &[Value]) {
    match rule(field) {
        ListRule::Replace => above.clone_into(below),
        ListRule::Append => below.extend(
            above
                .iter()
                .filter(|item| !below.contains(item))
                .cloned()
                .collect::<Vec<_>>(),
        ),
        ListRule::ByKey(keys) => {
            for item in above {
                let same = below.iter_mut().find(|candidate| {
                    keys.iter()
                        .any(|key| item.get(key).is_some() && candidate.get(key) == item.get(key))
                });
                match (same, item) {
                    (Some(Value::Object(old)), Value::Object(new)) => merge_element(field, old, new),
                    _ => below.push(item.clone()),
                }
            }
        }
    }
}

/// A variable or volume has one source: the overlay's replaces the operator's, else both would be set.
fn merge_element(field: &str, old: &mut Map<String, Value>, new: &Map<String, Value>) {
    if matches!(field, "env" | "volumes") {
        new.clone_into(old);
    } else {
        merge(old, new);
    }
}

/// Paths in `written` that are missing in `read_back`: fields that a pod does not have, mostly misspelt ones.
pub(crate) fn unknown_fields(written: &Value, read_back: &Value, path: &str, found: &mut Vec<String>) {
    match (written, read_back) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let path = format!("{path}.{key}");
                match after.get(key) {
                    Some(kept) => unknown_fields(value, kept, &path, found),
                    None if value.is_null() => {}
                    None => found.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, (value, kept)) in before.iter().zip(after).enumerate() {
                unknown_fields(value, kept, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(mut base: Value, overlay: &Value) -> Value {
        merge(base.as_object_mut().unwrap(), overlay.as_object().unwrap());
        base
    }

    #[test]
    fn containers_and_variables_are_merged_by_name() {
        let base =
            json!({"containers": [{"name": "gateway", "image": "a", "env": [{"name": "X", "value": "1"}]}]});
        let overlay = json!({"containers": [
            {"name": "gateway", "resources": {"limits": {"memory": "1Gi"}}, "env": [{"name": "Y", "value": "2"}]},
            {"name": "sidecar", "image": "b"},
        ]});
        let result = merged(base, &overlay);
        assert_eq!(result["containers"][0]["image"], "a");
        assert_eq!(result["containers"][0]["resources"]["limits"]["memory"], "1Gi");
        assert_eq!(result["containers"][0]["env"].as_array().unwrap().len(), 2);
        assert_eq!(result["containers"][1]["name"], "sidecar");
    }

    #[test]
    fn a_variable_from_a_secret_replaces_one_with_a_value() {
        let base = json!({"env": [{"name": "X", "value": "1"}]});
        let overlay =
            json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]});
        assert_eq!(merged(base, &overlay)["env"], overlay["env"]);
    }

    #[test]
    fn tolerations_are_added_once_other_lists_replaced_and_null_removes() {
        let base = json!({"tolerations": [{"key": "a"}], "args": ["1"], "priority": 3});
        let overlay = json!({"tolerations": [{"key": "a"}, {"key": "b"}], "args": ["2"], "priority": null});
        assert_eq!(
            merged(base, &overlay),
            json!({"tolerations": [{"key": "a"}, {"key": "b"}], "args": ["2"]})
        );
    }

    #[test]
    fn another_kind_of_probe_takes_the_place_of_the_operators() {
        let base = json!({"readinessProbe": {"httpGet": {"path": "/"}, "periodSeconds": 2}});
        let overlay = json!({"readinessProbe": {"tcpSocket": {"port": 1}}});
        let probe = &merged(base, &overlay)["readinessProbe"];
        assert_eq!(*probe, json!({"tcpSocket": {"port": 1}, "periodSeconds": 2}));
    }

    #[test]
    fn misspelt_fields_are_found_by_their_path() {
        let mut found = Vec::new();
        let written = json!({"containers": [{"name": "gateway", "resorces": {}}], "nodeName": null});
        unknown_fields(
            &written,
            &json!({"containers": [{"name": "gateway"}]}),
            "spec",
            &mut found,
        );
        assert_eq!(found, ["spec.containers[0].resorces"]);
    }
}
