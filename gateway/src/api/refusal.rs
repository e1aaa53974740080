//! How a request is refused: `application/problem+json` (RFC 9457).

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::access::problem;
use crate::broker::BrokerError;

/// Why a request is not served.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 400: not a request of the kind that is served; it says what to send.
    Malformed(String),
    /// 413: send less.
    TooLarge,
    /// 415: send JSON, and say so.
    MediaType,
    /// 409: a setting says that this is not known.
    Off(String),
    /// 422: a request of the right kind, with a value that is not allowed.
    Invalid(String),
    /// The broker did not take it, or not for sure.
    Broker(BrokerError),
    /// The fleet could not be told; so many connections were closed here.
    HereOnly(BrokerError, usize),
    /// Some of many messages were not accepted: what became of each.
    Partly(BrokerError, Vec<Value>),
}

/// An answer, or a problem.
pub(super) type Served<T> = Result<T, Refusal>;

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        Self::Broker(error)
    }
}

/// 503: nothing was accepted. 504: it may have been. 502: the broker refused it.
pub(super) const fn status_of(error: &BrokerError) -> StatusCode {
    match error {
        BrokerError::Unavailable | BrokerError::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        BrokerError::Unconfirmed => StatusCode::GATEWAY_TIMEOUT,
        // no back end sends an event
        BrokerError::Refused(_) | BrokerError::EventsOff => StatusCode::BAD_GATEWAY,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Malformed(detail) => problem(StatusCode::BAD_REQUEST, detail),
            Self::TooLarge => problem(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large; send less at a time",
            ),
            Self::MediaType => problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send JSON, with Content-Type: application/json",
            ),
            Self::Off(detail) => problem(StatusCode::CONFLICT, detail),
            Self::Invalid(detail) => problem(StatusCode::UNPROCESSABLE_ENTITY, detail),
            Self::Broker(error) => problem(status_of(&error), error.to_string()),
            Self::HereOnly(error, closed) => problem(
                status_of(&error),
                format!(
                    "done here, {closed} connections were closed; but the other gateways may not know: {error}"
                ),
            ),
            Self::Partly(error, results) => partly(&error, &results),
        }
    }
}

/// The problem of the worst of them, and each one's own outcome (RFC 9457 §3.2: an extension member).
fn partly(error: &BrokerError, results: &[Value]) -> Response {
    let status = status_of(error);
    let detail =
        format!("not all were accepted: {error}. With the same Idempotency-Key, send the request again");
    let body = json!({
        "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail, "results": results,
    });
    let mut response = problem(status, detail);
    *response.body_mut() = body.to_string().into();
    response.headers_mut().remove(axum::http::header::CONTENT_LENGTH);
    response
}
