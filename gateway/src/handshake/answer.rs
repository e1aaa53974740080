//! Answers to requests that are not upgraded.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::metrics::Rejection;

/// A plain text answer.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// 429 for what one address did, else 503; `Retry-After` is jittered, so that those refused together do not come
/// back together.
pub(super) fn come_back(reason: Rejection, at_least: Duration) -> Response<Full<Bytes>> {
    let (status, words) = match reason {
        Rejection::IpConnections => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many connections from this address",
        ),
        Rejection::IpRate => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many upgrades from this address",
        ),
        Rejection::Capacity => (StatusCode::SERVICE_UNAVAILABLE, "this gateway is full"),
        Rejection::HandshakeRate => (StatusCode::SERVICE_UNAVAILABLE, "too many upgrades at the moment"),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "this gateway is draining; connect again to reach another",
        ),
    };
    let mut response = text(status, words);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(jittered(at_least)));
    response
}

/// Seconds of a `Retry-After`.
pub fn jittered(at_least: Duration) -> u64 {
    at_least.as_secs().max(1) + rand::random_range(0..5)
}
