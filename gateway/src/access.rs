//! Who may call the HTTP interfaces for machines: holders of the bearer token or, when none is set, loopback callers.
//! And how these interfaces say no: `application/problem+json` (RFC 9457).

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wsfleet_crds::admin::Problem;

use crate::config::Secret;

/// What a caller needs.
#[derive(Clone, Debug)]
pub struct Access {
    /// The bearer token.
    pub token: Option<Secret>,
    /// The flag that sets it, for the answer to those who lack it.
    pub flag: &'static str,
}

/// A problem as an answer.
pub fn problem(status: StatusCode, detail: impl Into<String>) -> Response {
    let title = status.canonical_reason().unwrap_or("problem").to_owned();
    let body = Problem {
        title,
        status: status.as_u16(),
        detail: detail.into(),
    };
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

/// Middleware: lets the request through or refuses it.
pub async fn require(
    State(access): State<Access>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &access.token else {
        if peer.ip().to_canonical().is_loopback() {
            return next.run(request).await;
        }
        let detail = format!("without {} only loopback callers are served", access.flag);
        return problem(StatusCode::FORBIDDEN, detail);
    };
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match given {
        Some((_, given)) if token.matches(given.trim().as_bytes()) => next.run(request).await,
        _ => {
            let detail = format!("send Authorization: Bearer with the token of {}", access.flag);
            let mut response = problem(StatusCode::UNAUTHORIZED, detail);
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}
