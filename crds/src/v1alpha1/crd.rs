//! The CustomResourceDefinition as it is committed and installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use super::WebSocketCluster;

/// The CustomResourceDefinition of [`WebSocketCluster`].
///
/// # Errors
/// The derived definition does not survive a round trip through JSON: a bug of this crate, which its tests show.
pub fn crd() -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut value = serde_json::to_value(WebSocketCluster::crd())?;
    tidy(&mut value);
    serde_json::from_value(value)
}

/// [`crd`] as the text of the committed file.
///
/// # Errors
/// As [`crd`], or the YAML writer's.
pub fn crd_yaml() -> Result<String, serde_yaml_ng::Error> {
    let crd = crd().map_err(<serde_yaml_ng::Error as serde::ser::Error>::custom)?;
    let yaml = serde_yaml_ng::to_string(&crd)?;
    Ok(format!(
        "# Generated: cargo run -p wsfleet-crds --features resource --bin crdgen\n{yaml}"
    ))
}

/// Takes away `format: uint32` and the like, which the API server does not know and would warn of on every apply (their
/// ranges are in `minimum` and `maximum`), and `nullable`, so that a null is pruned and the same as leaving a field out.
/// Descriptions lose the line breaks of the source: `kubectl explain` breaks lines itself.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(|format| format.starts_with("uint"))
            {
                map.remove("format");
            }
            if map.get("nullable") == Some(&Value::Bool(true)) {
                map.remove("nullable");
            }
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = unwrapped(text);
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn unwrapped(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect::<Vec<_>>()
        .join("\n\n")
}
