//! Client of the gateways' admin API: `GET /admin/v1/state` and `PUT /admin/v1/drain` on a pod's own address.
//!
//! Nothing here goes through the API server. Each call has a deadline, and its failure is a value: "unknown".

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thiserror::Error;
use tokio::time::timeout;
use wsfleet_crds::admin::{DrainRequest, GatewayState, Problem};

/// How long one call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer that is read; the contract says 1 KB.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Why a gateway gave no state.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// Nothing came within [`CALL_TIMEOUT`]: the gateway is unreachable, try again.
    #[error("no answer within {CALL_TIMEOUT:?}")]
    Timeout,
    /// No connection, or it broke: the gateway is unreachable, try again.
    #[error("unreachable: {0}")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    /// There is no token to ask with: make the Secret again.
    #[error("there is no admin token to ask with")]
    NoToken,
    /// The token is not the gateway's: read the Secret again.
    #[error("the gateway refuses the admin token")]
    Unauthorized,
    /// The gateway has seen a higher epoch: this process is deposed, or the Lease was deleted and began anew.
    #[error("fenced: the gateway has seen a later leader")]
    Fenced,
    /// Another status than 200: what the gateway said.
    #[error("refused with {status}: {detail}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// The problem's detail, as far as it was one.
        detail: String,
    },
    /// The answer is not the state of a gateway, or the address is none.
    #[error("not understood: {0}")]
    Malformed(String),
}

impl GatewayError {
    /// Whether the gateway could not be reached at all.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Timeout | Self::Unreachable(_))
    }
}

/// Where a gateway's admin API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address of the pod.
    pub ip: String,
    /// Admin port.
    pub port: u16,
}

impl Endpoint {
    fn uri(&self, path: &'static str) -> Result<Uri, GatewayError> {
        let authority = if self.ip.contains(':') {
            format!("[{}]:{}", self.ip, self.port)
        } else {
            format!("{}:{}", self.ip, self.port)
        };
        Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(path)
            .build()
            .map_err(|error| GatewayError::Malformed(error.to_string()))
    }
}

/// The client; cheap to clone, connections are kept for reuse.
#[derive(Clone, Debug)]
pub struct GatewayClient {
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Default for GatewayClient {
    fn default() -> Self {
        Self::new()
    }
}

impl GatewayClient {
    /// A client with one idle connection per gateway at most.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CALL_TIMEOUT));
        let http = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { http }
    }

    /// What the gateway says of itself. Cancel safe.
    pub async fn state(&self, endpoint: &Endpoint, token: &str) -> Result<GatewayState, GatewayError> {
        self.call(Method::GET, endpoint.uri("/admin/v1/state")?, token, Bytes::new())
            .await
    }

    /// Orders a cordon, a drain, a renewal of its lease, or its end; idempotent by drain id and epoch.
    pub async fn drain(
        &self,
        endpoint: &Endpoint,
        token: &str,
        request: &DrainRequest,
    ) -> Result<GatewayState, GatewayError> {
        let body = serde_json::to_vec(request).map_err(|error| GatewayError::Malformed(error.to_string()))?;
        self.call(Method::PUT, endpoint.uri("/admin/v1/drain")?, token, body.into())
            .await
    }

    async fn call(
        &self,
        method: Method,
        uri: Uri,
        token: &str,
        body: Bytes,
    ) -> Result<GatewayState, GatewayError> {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Full::new(body))
            .map_err(|error| GatewayError::Malformed(error.to_string()))?;
        let exchange = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT)
                .collect()
                .await
                .map_err(|error| GatewayError::Malformed(error.to_string()))?
                .to_bytes();
            Ok::<_, GatewayError>((status, body))
        };
        let (status, body) = timeout(CALL_TIMEOUT, exchange)
            .await
            .map_err(|_| GatewayError::Timeout)??;
        interpret(status, &body)
    }
}

fn interpret(status: StatusCode, body: &[u8]) -> Result<GatewayState, GatewayError> {
    match status {
        StatusCode::OK => {
            serde_json::from_slice(body).map_err(|error| GatewayError::Malformed(error.to_string()))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(GatewayError::Unauthorized),
        StatusCode::CONFLICT => Err(GatewayError::Fenced),
        status => {
            let detail = serde_json::from_slice::<Problem>(body)
                .map_or_else(|_| String::new(), |problem| problem.detail);
            Err(GatewayError::Refused { status, detail })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_become_uris() {
        let four = Endpoint {
            ip: "10.0.0.1".into(),
            port: 9090,
        };
        assert_eq!(
            four.uri("/admin/v1/state").unwrap().to_string(),
            "http://10.0.0.1:9090/admin/v1/state"
        );
        let six = Endpoint {
            ip: "fd00::1".into(),
            port: 9090,
        };
        assert_eq!(
            six.uri("/admin/v1/state").unwrap().to_string(),
            "http://[fd00::1]:9090/admin/v1/state"
        );
        let none = Endpoint {
            ip: "not an address".into(),
            port: 1,
        };
        assert!(matches!(none.uri("/"), Err(GatewayError::Malformed(_))));
    }

    #[test]
    fn every_refusal_is_told_from_unreachable() {
        let problem = br#"{"title":"t","status":422,"detail":"rate is negative"}"#;
        let refused = interpret(StatusCode::UNPROCESSABLE_ENTITY, problem).unwrap_err();
        assert!(refused.to_string().contains("rate is negative"), "{refused}");
        for error in [
            refused,
            interpret(StatusCode::CONFLICT, b"").unwrap_err(),
            interpret(StatusCode::UNAUTHORIZED, b"").unwrap_err(),
            interpret(StatusCode::OK, b"<html>").unwrap_err(),
        ] {
            assert!(!error.is_unreachable(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let endpoint = Endpoint {
            ip: "127.0.0.1".into(),
            port,
        };
        let error = GatewayClient::new().state(&endpoint, "t").await.unwrap_err();
        assert!(error.is_unreachable(), "{error}");
    }
}
