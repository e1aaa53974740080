//! `GET /api/v1/openapi.json`: `docs/openapi.yaml`, as it is in the repository.

use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// The document.
const YAML: &str = include_str!("../../../docs/openapi.yaml");

/// The same as JSON; empty if it were no YAML, which a test rules out.
static JSON: LazyLock<String> = LazyLock::new(|| {
    let document = serde_yaml_ng::from_str::<serde_json::Value>(YAML).unwrap_or_default();
    document.to_string()
});

/// The document as JSON.
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], JSON.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    #[test]
    fn the_document_has_the_paths_that_are_served_and_no_others() {
        let document: Value = serde_json::from_str(&super::JSON).unwrap();
        let paths: BTreeSet<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        let served: BTreeSet<_> = super::super::routes(1)
            .into_iter()
            .map(|(path, _)| path.to_owned())
            .collect();
        assert_eq!(paths, served);
    }
}
