//! Client of a Prometheus server: one instant query that yields one series per pod.
//!
//! An empty answer is an empty map, which the planner takes as "unknown", never as 0. The look-back is the caller's
//! notion of stale, so that a series that is no longer scraped leaves the answer instead of repeating its last value
//! for five minutes (Prometheus' default `query.lookback-delta`).

use std::collections::BTreeMap;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;
use tokio::time::timeout;
use url::{Host, Url};

/// The query in force when the resource names none; `$namespace` and `$name` stand for the resource's own.
pub const DEFAULT_QUERY: &str =
    r#"max by (pod) (ws_active_connections{namespace="$namespace", wsfleet_cluster="$name"})"#;
/// How long one query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest answer that is read: some 10,000 series.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;

/// Why Prometheus gave no numbers. The text goes into a condition of the resource.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The endpoint is no address: correct the resource.
    #[error("the endpoint is not an http or https URL: {0}")]
    Endpoint(String),
    /// An https endpoint, and no certificate authority to verify it with: mount some into the operator, or use http.
    #[error("https needs certificate authorities, and this machine has none")]
    NoAuthorities,
    /// No answer in time.
    #[error("no answer within {QUERY_TIMEOUT:?}")]
    Timeout,
    /// No connection, or it broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Prometheus refused the query: correct the resource.
    #[error("refused with {status}: {message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// What Prometheus said.
        message: String,
    },
    /// The answer is not an instant vector with the label `pod`.
    #[error("the answer is not understood: {0}")]
    Malformed(String),
}

/// Sockets by pod, and when they were evaluated.
pub type Answer = BTreeMap<String, (Timestamp, u64)>;

/// The client; cheap to clone.
#[derive(Clone, Debug)]
pub struct PrometheusClient {
    plain: Client<HttpConnector, Empty<Bytes>>,
    /// `None` on a machine without certificate authorities (an image from scratch).
    tls: Option<Client<HttpsConnector<HttpConnector>, Empty<Bytes>>>,
}

impl PrometheusClient {
    /// A client that trusts the certificate authorities of the machine.
    pub fn new() -> Self {
        let tls = HttpsConnectorBuilder::new()
            .with_native_roots()
            .ok()
            .map(|builder| {
                Client::builder(TokioExecutor::new())
                    .pool_max_idle_per_host(1)
                    .build(builder.https_only().enable_http1().build())
            });
        Self {
            plain: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(1)
                .build_http(),
            tls,
        }
    }

    /// Asks `endpoint` for `query` now; samples older than `stale` do not count. A host without a dot is a Service in
    /// `namespace`. Cancel safe.
    pub async fn query(
        &self,
        endpoint: &str,
        namespace: &str,
        query: &str,
        stale: Duration,
    ) -> Result<Answer, QueryError> {
        let (status, body) = self.ask(endpoint, namespace, query, stale).await?;
        interpret(status, &body)
    }

    /// Asks for a query that yields one number, a scalar or a vector of one series, as [`PrometheusClient::query`] does.
    pub async fn value(
        &self,
        endpoint: &str,
        namespace: &str,
        query: &str,
        stale: Duration,
    ) -> Result<f64, QueryError> {
        let (status, body) = self.ask(endpoint, namespace, query, stale).await?;
        one_number(status, &body)
    }

    async fn ask(
        &self,
        endpoint: &str,
        namespace: &str,
        query: &str,
        stale: Duration,
    ) -> Result<(StatusCode, Bytes), QueryError> {
        let uri = query_uri(endpoint, namespace, query, stale)?;
        let exchange = async {
            let response = match (uri.scheme_str(), &self.tls) {
                (Some("https"), Some(tls)) => tls.get(uri).await,
                (Some("https"), None) => return Err(QueryError::NoAuthorities),
                _ => self.plain.get(uri).await,
            };
            let response = response.map_err(|error| QueryError::Unreachable(causes(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|error| QueryError::Malformed(error.to_string()))?
                .to_bytes();
            Ok::<_, QueryError>((status, body))
        };
        timeout(QUERY_TIMEOUT, exchange)
            .await
            .map_err(|_| QueryError::Timeout)?
    }
}

impl Default for PrometheusClient {
    fn default() -> Self {
        Self::new()
    }
}

/// The query for one resource: `given` or the default, with the resource's names filled in.
pub fn query_for(given: Option<&str>, namespace: &str, name: &str) -> String {
    given
        .unwrap_or(DEFAULT_QUERY)
        .replace("$namespace", namespace)
        .replace("$name", name)
}

fn query_uri(endpoint: &str, namespace: &str, query: &str, stale: Duration) -> Result<Uri, QueryError> {
    let wrong = || QueryError::Endpoint(endpoint.to_owned());
    let mut url = Url::parse(endpoint).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong());
    }
    // the resource's neighbour, as the gateways' broker is: the operator lives in another namespace
    if let Some(Host::Domain(host)) = url.host()
        && !host.contains('.')
        && host != "localhost"
    {
        let service = format!("{host}.{namespace}.svc");
        url.set_host(Some(&service)).map_err(|_| wrong())?;
    }
    // the endpoint may have a path of its own (--web.route-prefix)
    url.path_segments_mut()
        .map_err(|()| wrong())?
        .pop_if_empty()
        .extend(["api", "v1", "query"]);
    url.query_pairs_mut()
        .append_pair("query", query)
        .append_pair("timeout", "3s")
        .append_pair("lookback_delta", &format!("{}s", stale.as_secs().max(1)));
    url.as_str().parse().map_err(|_| wrong())
}

/// The error with its causes: hyper's own text alone says only that something failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

fn one_number(status: StatusCode, body: &[u8]) -> Result<f64, QueryError> {
    let data = data_of(status, body)?;
    let malformed = |error: serde_json::Error| QueryError::Malformed(error.to_string());
    let text = if data.result_type == "scalar" {
        serde_json::from_value::<(f64, String)>(data.result)
            .map_err(malformed)?
            .1
    } else {
        let mut series: Vec<Series> = serde_json::from_value(data.result).map_err(malformed)?;
        match (series.pop(), series.len()) {
            (Some(one), 0) => one.value.1,
            (None, _) => return Err(QueryError::Malformed("the query yields no series".to_owned())),
            (_, more) => {
                let text = format!("the query yields {} series, not one", more + 1);
                return Err(QueryError::Malformed(text));
            }
        }
    };
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| QueryError::Malformed(format!("the query yields {text}")))
}

fn data_of(status: StatusCode, body: &[u8]) -> Result<Data, QueryError> {
    let envelope: Option<Envelope> = serde_json::from_slice(body).ok();
    if status != StatusCode::OK {
        let message = envelope.and_then(|envelope| envelope.error).unwrap_or_default();
        return Err(QueryError::Refused { status, message });
    }
    envelope
        .and_then(|envelope| envelope.data)
        .ok_or_else(|| QueryError::Malformed("not an answer of Prometheus' HTTP API".into()))
}

fn interpret(status: StatusCode, body: &[u8]) -> Result<Answer, QueryError> {
    let data = data_of(status, body)?;
    if data.result_type != "vector" {
        return Err(QueryError::Malformed(format!(
            "the query yields a {}, not one series per pod",
            data.result_type
        )));
    }
    let series: Vec<Series> =
        serde_json::from_value(data.result).map_err(|error| QueryError::Malformed(error.to_string()))?;
    let mut answer = Answer::new();
    for Series {
        metric,
        value: (at, text),
    } in series
    {
        let pod = metric
            .get("pod")
            .ok_or_else(|| QueryError::Malformed("a series has no label `pod`".into()))?;
        let at = Timestamp::from_millisecond((at * 1000.0) as i64)
            .map_err(|error| QueryError::Malformed(error.to_string()))?;
        // NaN and infinities are no number of sockets: unknown
        if let Some(count) = text
            .parse::<f64>()
            .ok()
            .filter(|count| count.is_finite() && *count >= 0.0)
            && answer.insert(pod.clone(), (at, count.round() as u64)).is_some()
        {
            return Err(QueryError::Malformed(format!(
                "more than one series for pod {pod}"
            )));
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_query_is_filled_in() {
        assert_eq!(
            query_for(None, "prod", "chat"),
            r#"max by (pod) (ws_active_connections{namespace="prod", wsfleet_cluster="chat"})"#
        );
        assert_eq!(query_for(Some("x{a=\"$name\"}"), "prod", "chat"), "x{a=\"chat\"}");
    }

    #[test]
    fn the_endpoint_keeps_its_path_and_the_query_is_escaped() {
        let uri = query_uri(
            "http://prometheus:9090/prom/",
            "prod",
            "a{b=\"c d\"}",
            Duration::from_secs(15),
        )
        .unwrap();
        assert_eq!(uri.path(), "/prom/api/v1/query");
        let query = uri.query().unwrap();
        assert!(
            query.contains("lookback_delta=15s") && !query.contains(' ') && !query.contains('"'),
            "{query}"
        );
        for wrong in ["prometheus:9090", "ftp://x/", "mailto:a@b", ""] {
            assert!(
                matches!(
                    query_uri(wrong, "prod", "up", Duration::ZERO),
                    Err(QueryError::Endpoint(_))
                ),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_host_without_a_dot_is_a_service_in_the_namespace_of_the_resource() {
        let host = |endpoint: &str| {
            let uri = query_uri(endpoint, "prod", "up", Duration::ZERO).unwrap();
            uri.host().unwrap().to_owned()
        };
        assert_eq!(host("http://prometheus:9090"), "prometheus.prod.svc");
        for other in ["prometheus.monitoring", "localhost", "10.0.0.1", "[::1]"] {
            assert_eq!(host(&format!("http://{other}:9090")), other);
        }
    }

    #[test]
    fn one_series_per_pod_becomes_numbers_and_nan_stays_unknown() {
        let body = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"pod":"a"},"value":[1700000000.5,"12"]},
            {"metric":{"pod":"b"},"value":[1700000000.5,"NaN"]}]}}"#;
        let answer = interpret(StatusCode::OK, body).unwrap();
        assert_eq!(answer.len(), 1);
        assert_eq!(
            answer["a"],
            (Timestamp::from_millisecond(1_700_000_000_500).unwrap(), 12)
        );
        let empty = br#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert!(
            interpret(StatusCode::OK, empty).unwrap().is_empty(),
            "empty is unknown, not an error and not 0"
        );
    }

    #[test]
    fn an_analysis_takes_one_number_and_nothing_else() {
        let of = |kind: &str, result: &str| {
            let body =
                format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#);
            one_number(StatusCode::OK, body.as_bytes()).map_err(|error| error.to_string())
        };
        assert_eq!(of("scalar", r#"[1,"0.25"]"#), Ok(0.25));
        assert_eq!(of("vector", r#"[{"metric":{},"value":[1,"3"]}]"#), Ok(3.0));
        for (result, words) in [
            ("[]", "no series"),
            (r#"[{"metric":{},"value":[1,"NaN"]}]"#, "yields NaN"),
            (
                r#"[{"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"2"]}]"#,
                "2 series",
            ),
        ] {
            let error = of("vector", result).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn answers_that_are_not_one_series_per_pod_are_refused_in_words() {
        let twice = br#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"pod":"a","x":"1"},"value":[1,"1"]},{"metric":{"pod":"a","x":"2"},"value":[1,"2"]}]}}"#;
        let unlabelled =
            br#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}"#;
        let scalar = br#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#;
        for (body, words) in [
            (&twice[..], "more than one series for pod a"),
            (&unlabelled[..], "no label `pod`"),
            (&scalar[..], "yields a scalar"),
            (&b"<html>"[..], "not an answer of Prometheus"),
        ] {
            let error = interpret(StatusCode::OK, body).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let refused = br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#;
        let error = interpret(StatusCode::BAD_REQUEST, refused)
            .unwrap_err()
            .to_string();
        assert!(error.contains("parse error"), "{error}");
    }
}
