//! Fetches a key set over HTTP(S): one GET, bounded in time and size, redirects not followed.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use url::Url;

use super::keys::{KeySet, KeySetError};

/// From the connection to the last byte.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes of a key set: hundreds of keys.
const BODY_BYTES: usize = 256 << 10;

/// Why a key set was not fetched. The keys that are known stay; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not reached, or the connection broke.
    #[error("{0}")]
    Connection(String),
    /// Another status than 200.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// Not all of it within five seconds.
    #[error("no answer within {DEADLINE:?}")]
    Timeout,
    /// Larger than 256 KiB, or cut off.
    #[error("unreadable or larger than {BODY_BYTES} bytes: {0}")]
    Body(String),
    /// Not a set of keys that can be used.
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

/// Fetches one URL.
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: Url,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher that trusts the system's certificate authorities (`SSL_CERT_FILE`, `SSL_CERT_DIR`) or, where there are
    /// none, Mozilla's.
    pub fn new(url: Url) -> Self {
        let builder = HttpsConnectorBuilder::new();
        let connector = match builder.with_native_roots() {
            Ok(builder) => builder,
            Err(_) => HttpsConnectorBuilder::new().with_webpki_roots(),
        };
        let connector = connector.https_or_http().enable_http1().build();
        // one request in ten minutes: nothing is worth being kept open
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Self { client, url }
    }

    /// Fetches the set. Cancel-safe: nothing is kept.
    pub async fn fetch(&self) -> Result<KeySet, FetchError> {
        tokio::time::timeout(DEADLINE, self.get())
            .await
            .unwrap_or(Err(FetchError::Timeout))
    }

    async fn get(&self) -> Result<KeySet, FetchError> {
        let request = Request::get(self.url.as_str())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::new())
            .map_err(|error| FetchError::Connection(error.to_string()))?;
        let answer = self.client.request(request).await.map_err(|error| {
            use std::error::Error as _;
            // the outer error says that connecting failed, the inner one why
            FetchError::Connection(
                error
                    .source()
                    .map_or_else(|| error.to_string(), ToString::to_string),
            )
        })?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), BODY_BYTES).collect().await;
        let body = body.map_err(|error| FetchError::Body(error.to_string()))?;
        Ok(KeySet::from_json(&body.to_bytes())?)
    }
}
