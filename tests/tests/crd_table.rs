//! The resource definition on the real API server: what it takes, what it refuses and in which words, and how it reads
//! in `kubectl explain`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::Api;
use serde_json::Value;
use wsfleet_tests::cluster::{Cluster, Namespace, until};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const CRD: &str = include_str!("../../crds/wsfleet.dev_websocketclusters.yaml");
/// Longest wait for the API server to serve a definition that it has taken.
const SERVED: Duration = Duration::from_secs(30);
const NAME: &str = "websocketclusters.wsfleet.dev";

fn crd_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/wsfleet.dev_websocketclusters.yaml")
}

/// The specifications of a folder: file name and text.
fn table(folder: &str) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("specs").join(folder))? {
        let path = entry?.path();
        files.push((
            format!("{folder}/{}", path.file_name().unwrap().display()),
            std::fs::read_to_string(&path)?,
        ));
    }
    files.sort();
    assert!(files.len() >= 30, "{} in {folder}", files.len());
    Ok(files)
}

/// The definition, served in the present version, and an empty namespace.
async fn prepare() -> Result<Namespace> {
    let cluster = Cluster::connect().await?;
    cluster.apply_in("default", CRD).await?;
    let namespace = cluster.namespace("table").await?;
    // a definition is known a moment before it is served
    let path = format!(
        "/apis/wsfleet.dev/v1alpha1/namespaces/{}/websocketclusters",
        namespace.name()
    );
    let client = cluster.client();
    until("the resource is served", SERVED, || async {
        let list = http::Request::get(&path)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        client.request::<Value>(list).await
    })
    .await?;
    Ok(namespace)
}

#[tokio::test]
async fn every_valid_specification_is_taken_by_the_api_server_and_filled_with_defaults() -> Result {
    let namespace = prepare().await?;
    let mut wrong = Vec::new();
    let specs = table("valid")?;
    for (file, text) in &specs {
        match namespace.dry_run(&serde_yaml_ng::from_str(text)?).await? {
            Ok(stored) if stored["spec"]["drain"]["timeoutSeconds"].is_u64() => {}
            Ok(stored) => wrong.push(format!("{file}: no defaults: {stored}")),
            Err(message) => wrong.push(format!("{file}: {message}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} valid specifications are taken", specs.len());
    Ok(())
}

#[tokio::test]
async fn every_invalid_specification_is_refused_with_a_message_that_says_what_to_write_instead() -> Result {
    let namespace = prepare().await?;
    let mut wrong = Vec::new();
    let specs = table("invalid")?;
    for (file, text) in &specs {
        let expected = text.lines().find_map(|line| line.strip_prefix("# expect:"));
        let expected = expected.ok_or_else(|| format!("{file} has no line '# expect:'"))?;
        match namespace.dry_run(&serde_yaml_ng::from_str(text)?).await? {
            Ok(_) => wrong.push(format!("{file}: taken")),
            Err(message) if message.contains(expected.trim()) => {}
            Err(message) => wrong.push(format!("{file}: expected '{}', got '{message}'", expected.trim())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} invalid specifications are refused", specs.len());
    Ok(())
}

#[tokio::test]
async fn the_definition_fits_into_the_annotation_of_a_plain_kubectl_apply() -> Result {
    let cluster = Cluster::connect().await?;
    let file = crd_file();
    let printed = cluster
        .kubectl(&["apply", "--dry-run=server", "-f", file.to_str().unwrap()])
        .await?;
    assert!(printed.contains(NAME), "{printed}");
    let size = CRD.len();
    assert!(
        size <= 100 * 1024,
        "{size} bytes: 256 KiB is the server's limit, 100 KiB is ours"
    );
    println!("{} bytes: {}", size, printed.trim());
    Ok(())
}

#[tokio::test]
async fn kubectl_explains_every_field_in_a_sentence() -> Result {
    let namespace = prepare().await?;
    let cluster = namespace.cluster();
    let served = Api::<CustomResourceDefinition>::all(cluster.client())
        .get(NAME)
        .await?;
    let schema = serde_json::to_value(&served)?;
    let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut fields = Vec::new();
    for part in ["spec", "status"] {
        walk(part, &schema[part], &mut fields);
    }
    let unclear: Vec<_> = fields
        .iter()
        .filter(|(path, text)| !is_sentence(text) && !of_kubernetes(path))
        .collect();
    assert!(unclear.is_empty(), "{unclear:#?}");

    let overview = cluster.kubectl(&["explain", "wsc.spec", "--recursive"]).await?;
    let page = cluster.kubectl(&["explain", "wsc.spec.drain"]).await?;
    for (path, _) in fields.iter().filter(|(path, _)| path.starts_with("spec.")) {
        let name = path.rsplit('.').next().unwrap_or(path).trim_end_matches("[]");
        assert!(
            overview.contains(&format!("{name}\t<")),
            "{path} is not in:\n{overview}"
        );
    }
    assert!(
        page.contains("how a pod is emptied") || page.contains("How a pod is emptied"),
        "{page}"
    );
    println!("{} fields, each explained in a sentence", fields.len());
    Ok(())
}

/// Path and description of every field at and below a schema.
fn walk(path: &str, schema: &Value, fields: &mut Vec<(String, String)>) {
    let text = schema["description"].as_str().unwrap_or_default();
    // an entry of a list is described by the list
    if !path.ends_with("[]") {
        fields.push((path.to_owned(), text.to_owned()));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, fields);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], fields);
    }
}

/// Begins with a capital, a digit or a code word, has several words, and ends like a sentence.
fn is_sentence(text: &str) -> bool {
    let begins = text
        .chars()
        .next()
        .is_some_and(|c| c.is_uppercase() || c.is_ascii_digit() || c == '`');
    let ends = text.ends_with(['.', ')', '`']) && !text.ends_with("..");
    begins && ends && text.split_whitespace().count() >= 2 && text.contains('.')
}

/// Written by Kubernetes, which does not end all of its sentences.
fn of_kubernetes(path: &str) -> bool {
    path.contains("conditions[]")
}
