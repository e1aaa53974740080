//! The resource's file, held to what the API server would hold it to: the schema of the definition (unknown fields,
//! types, ranges), and its rules.

use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;
use wsfleet_crds::v1alpha1::{WebSocketCluster, crd};

/// Why there is nothing to simulate.
#[derive(Debug, Error)]
pub enum FileError {
    /// The file cannot be read: correct its name.
    #[error(
        "cannot read {path}: {source}; give the file of a WebSocketCluster with -f, or - for standard input"
    )]
    Read {
        /// Its name.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not YAML or JSON: correct it.
    #[error("{0}; the file must be YAML or JSON, as kubectl apply reads it")]
    Syntax(#[from] serde_yaml_ng::Error),
    /// No document of the file is a WebSocketCluster, or none of the name.
    #[error("there is no WebSocketCluster{0} in the file; give the file that is given to kubectl apply")]
    Missing(String),
    /// Choose one.
    #[error("the file has {0} WebSocketClusters; choose one with --name")]
    Several(usize),
    /// The definition of this program cannot be read: a mistake of the program.
    #[error("the resource's definition: {0}")]
    Definition(#[from] serde_json::Error),
    /// The API server would refuse it: correct what is listed.
    #[error("the API server would refuse this WebSocketCluster:\n  {}", .0.join("\n  "))]
    Invalid(Vec<String>),
}

/// The WebSocketCluster in `text`, which may have other documents beside it.
pub(crate) fn read(text: &str, name: Option<&str>) -> Result<WebSocketCluster, FileError> {
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document)?;
        let is_named = |wanted: &str| value["metadata"]["name"].as_str() == Some(wanted);
        if value["kind"] == "WebSocketCluster" && name.is_none_or(is_named) {
            found.push(value);
        }
    }
    match found.len() {
        0 => Err(FileError::Missing(
            name.map_or_else(String::new, |name| format!(" named {name}")),
        )),
        1 => validated(&found.remove(0)),
        several => Err(FileError::Several(several)),
    }
}

fn validated(value: &Value) -> Result<WebSocketCluster, FileError> {
    let definition = serde_json::to_value(crd()?)?;
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut mistakes = Vec::new();
    let version = &value["apiVersion"];
    if *version != "wsfleet.dev/v1alpha1" {
        mistakes.push(format!("apiVersion: {version} must be \"wsfleet.dev/v1alpha1\""));
    }
    for name in value.as_object().into_iter().flat_map(Map::keys) {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str()) {
            mistakes.push(format!("{name}: there is no such field"));
        }
    }
    if value["spec"].is_object() {
        check(&value["spec"], schema, "spec", &mut mistakes);
    } else {
        mistakes.push("spec: is required".to_owned());
    }
    if !mistakes.is_empty() {
        return Err(FileError::Invalid(mistakes));
    }
    let cluster: WebSocketCluster = serde_path_to_error::deserialize(value)
        .map_err(|error| FileError::Invalid(vec![error.to_string()]))?;
    match cluster.validate_cel() {
        Ok(()) => Ok(cluster),
        Err(error) => Err(FileError::Invalid(vec![error.to_string()])),
    }
}

/// Adds what is wrong with `value` by a structural schema. A null is pruned, as if it had been left out.
fn check(value: &Value, schema: &Value, path: &str, mistakes: &mut Vec<String>) {
    let flag = |name: &str| schema[name] == true;
    if value.is_null() {
        return;
    }
    if flag("x-kubernetes-int-or-string") {
        if !value.is_i64() && !value.is_string() {
            mistakes.push(format!(
                "{path}: {value} must be a count or a percentage such as \"25%\""
            ));
        }
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        mistakes.push(format!("{path}: {value} must be one of {}", allowed.join(", ")));
        return;
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(fields)) => object(fields, schema, path, mistakes),
        (Some("array"), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{index}]"), mistakes);
            }
            bounds(
                items.len() as f64,
                schema,
                ["minItems", "maxItems"],
                path,
                "entries",
                mistakes,
            );
        }
        (Some("string"), Value::String(text)) => {
            let length = text.chars().count() as f64;
            bounds(
                length,
                schema,
                ["minLength", "maxLength"],
                path,
                "characters",
                mistakes,
            );
        }
        (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => {
            let number = number.as_f64().unwrap_or_default();
            bounds(number, schema, ["minimum", "maximum"], path, "", mistakes);
        }
        (Some("number"), Value::Number(_)) | (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some(wanted), _) => mistakes.push(format!("{path}: {value} must be of type {wanted}")),
    }
}

fn object(fields: &Map<String, Value>, schema: &Value, path: &str, mistakes: &mut Vec<String>) {
    let known = schema["properties"].as_object();
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true || known.is_none();
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match known.and_then(|known| known.get(name)) {
            Some(schema) => check(value, schema, &path, mistakes),
            None if schema["additionalProperties"].is_object() => {
                check(value, &schema["additionalProperties"], &path, mistakes);
            }
            None if open => {}
            None => mistakes.push(format!("{path}: there is no such field")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap_or_default();
        if fields.get(name).is_none_or(Value::is_null) {
            mistakes.push(format!("{path}.{name}: is required"));
        }
    }
}

fn bounds(
    number: f64,
    schema: &Value,
    [least, most]: [&str; 2],
    path: &str,
    unit: &str,
    mistakes: &mut Vec<String>,
) {
    let unit = if unit.is_empty() {
        String::new()
    } else {
        format!(" {unit}")
    };
    if let Some(least) = schema[least].as_f64().filter(|least| number < *least) {
        mistakes.push(format!("{path}: {number}{unit} must be at least {least}"));
    }
    if let Some(most) = schema[most].as_f64().filter(|most| number > *most) {
        mistakes.push(format!("{path}: {number}{unit} must be at most {most}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: wsfleet.dev/v1alpha1\nkind: WebSocketCluster\nmetadata: {name: chat}\nspec:\n  \
                        broker: {redis: {url: 'redis://redis:6379'}}\n  auth: {anonymous: {}}\n";

    fn error(text: &str) -> String {
        read(text, None).unwrap_err().to_string()
    }

    #[test]
    fn the_resource_is_found_among_other_documents() {
        let text = format!("kind: Secret\nmetadata: {{name: chat}}\n---\n{GOOD}");
        assert_eq!(read(&text, None).unwrap().spec.replicas, 3);
        assert!(error("kind: Secret\n").contains("no WebSocketCluster in the file"));
        let two = format!("{GOOD}---\n{}", GOOD.replace("name: chat", "name: other"));
        assert!(error(&two).contains("choose one with --name"), "{}", error(&two));
        assert!(read(&two, Some("other")).is_ok());
    }

    #[test]
    fn what_the_schema_or_a_rule_refuses_is_told_with_its_place() {
        let with = |line: &str| error(&format!("{GOOD}  {line}\n"));
        assert!(
            with("drain: {timeoutSeconds: 5}").contains("spec.drain.timeoutSeconds: 5 must be at least 10")
        );
        assert!(with("drian: {}").contains("spec.drian: there is no such field"));
        assert!(with("replicas: many").contains("spec.replicas: \"many\" must be of type integer"));
        assert!(with("rollout: {maxSurge: 0}").contains("cannot both be 0"));
        assert!(error(&GOOD.replace("auth: {anonymous: {}}", "")).contains("spec.auth: is required"));
    }

    #[test]
    fn the_tables_of_the_api_server_are_judged_alike() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/specs");
        let mut counts = [0, 0];
        for (index, kind) in ["valid", "invalid"].into_iter().enumerate() {
            for entry in std::fs::read_dir(format!("{folder}/{kind}")).unwrap() {
                let path = entry.unwrap().path();
                let text = std::fs::read_to_string(&path).unwrap();
                let verdict = read(&text, None);
                assert_eq!(
                    verdict.is_ok(),
                    kind == "valid",
                    "{}: {verdict:?}",
                    path.display()
                );
                counts[index] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count >= 30), "{counts:?}");
    }
}
