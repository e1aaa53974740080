//! The opening handshake (RFC 6455 §4.2): from an HTTP request to an accepted upgrade, or a clear refusal.
//!
//! A client without a valid token is upgraded all the same and closed at once with 4001, because browsers cannot read the status of a failed upgrade.

mod answer;
pub mod head;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use http_body_util::Full;

use crate::admission::{Admission, Permit, Refused};
use crate::auth::{AuthError, Credentials, Identity, is_credential};
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::limits::client_address;
use crate::metrics::Rejection;
use crate::protocol::{Codec, Format};
use crate::session::ConnId;
use crate::websocket::{Agreed, Deflate, VERSION, accept_key};

use answer::come_back;
pub use answer::{jittered, text};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A client that was let in; its connection is upgraded with the response that came with it.
#[derive(Debug)]
pub struct Accepted {
    /// Who it is, or why it is closed at once.
    pub identity: Result<Identity, AuthError>,
    /// Its id.
    pub id: ConnId,
    /// The form of its messages.
    pub format: Format,
    /// Its place.
    pub permit: Permit,
}

/// Why a request is not upgraded; each is answered with the status that its text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 405.
    #[error("a WebSocket upgrade is a GET request")]
    Method,
    /// 505: HTTP/1.0 knows no upgrade (RFC 6455 §4.1, RFC 9110 §7.8).
    #[error("a WebSocket upgrade needs HTTP/1.1")]
    HttpVersion,
    /// 426: not an upgrade request.
    #[error("this is a WebSocket endpoint: send Upgrade: websocket and Connection: Upgrade")]
    NotUpgrade,
    /// 426: another version.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
    /// 400: no valid key.
    #[error("Sec-WebSocket-Key must be the base64 of 16 bytes")]
    Key,
    /// 400: which of two is meant, nobody can say (RFC 6455 §11.3.1, §11.3.5).
    #[error("Sec-WebSocket-Key and Sec-WebSocket-Version must be sent once each")]
    Repeated,
    /// 400: none of the offered subprotocols is served.
    #[error(
        "none of the offered subprotocols is served; offer wsfleet.v1.json, wsfleet.v1.msgpack, wsfleet.v1.proto or none"
    )]
    Subprotocol,
    /// 400: extensions that nobody could read (RFC 6455 §9.1).
    #[error("Sec-WebSocket-Extensions is malformed, see RFC 6455 section 9.1")]
    Extensions,
    /// 403.
    #[error("this origin may not connect")]
    Origin,
}

impl Refusal {
    const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HttpVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::NotUpgrade | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Key | Self::Repeated | Self::Subprotocol | Self::Extensions => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    const fn reason(self) -> Rejection {
        match self {
            Self::Origin => Rejection::Origin,
            _ => Rejection::BadRequest,
        }
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = text(self.status(), self.to_string());
        let headers = response.headers_mut();
        match self {
            Self::Method => drop(headers.insert(header::ALLOW, HeaderValue::from_static("GET"))),
            Self::NotUpgrade | Self::Version => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            }
            _ => {}
        }
        response
    }
}

/// What the headers ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    accept: String,
    /// The first of those offered that is served (RFC 6455 §11.3.4: they are in the client's order); it is echoed.
    subprotocol: Option<Codec>,
    /// What is agreed to, unless compression is off.
    deflate: Option<Agreed>,
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    texts(headers, name)
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Values of a header that are text, in their order.
fn texts<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'h str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
}

/// The value of a header that is sent once, when it is text.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).into_iter();
    let first = values.next().and_then(|value| value.to_str().ok());
    match values.next() {
        Some(_) => Err(Refusal::Repeated),
        None => Ok(first.map(str::trim)),
    }
}

fn read_offer(method: &Method, version: Version, headers: &HeaderMap) -> Result<Offer, Refusal> {
    if method != Method::GET {
        return Err(Refusal::Method);
    }
    if version < Version::HTTP_11 {
        return Err(Refusal::HttpVersion);
    }
    let upgrade = has_token(headers, &header::UPGRADE, "websocket");
    if !upgrade || !has_token(headers, &header::CONNECTION, "upgrade") {
        return Err(Refusal::NotUpgrade);
    }
    if only(headers, &header::SEC_WEBSOCKET_VERSION)? != Some(VERSION) {
        return Err(Refusal::Version);
    }
    let key = only(headers, &header::SEC_WEBSOCKET_KEY)?.ok_or(Refusal::Key)?;
    let accept = accept_key(key).map_err(|_| Refusal::Key)?;
    let mut offered = texts(headers, &header::SEC_WEBSOCKET_PROTOCOL)
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty() && !is_credential(name))
        .peekable();
    let subprotocol = match offered.peek() {
        Some(_) => Some(
            offered
                .find_map(Codec::from_subprotocol)
                .ok_or(Refusal::Subprotocol)?,
        ),
        None => None,
    };
    let extensions = texts(headers, &header::SEC_WEBSOCKET_EXTENSIONS);
    let deflate = Deflate::negotiate(extensions).map_err(|_| Refusal::Extensions)?;
    Ok(Offer {
        accept,
        subprotocol,
        deflate,
    })
}

/// A response, and the client that was let in with it.
pub type Answered = (Response<Full<Bytes>>, Option<Accepted>);

/// An answer that is there, or what to await.
pub enum Answer {
    /// There.
    Now(Box<Answered>),
    /// Waits for the issuer's keys; can be dropped at any time.
    Later(BoxFuture<'static, Answered>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

/// Answers an upgrade request. A client that is let in gets 101 and comes with what its session needs.
pub fn accept(gateway: &Arc<Gateway>, peer: IpAddr, request: &http::request::Parts) -> Answer {
    let (offer, permit) = match admit(gateway, peer, request) {
        Ok(admitted) => admitted,
        Err(no) => {
            gateway.env.metrics.rejected(no.reason());
            return Answer::Now(Box::new((no.response(), None)));
        }
    };
    let routing = gateway.env.routing.as_ref();
    if let Some(hint) = routing.and_then(|routing| routing.hint(request.uri.query())) {
        gateway.env.metrics.hints.count(hint);
    }
    let id = gateway.connections.next_id();
    let credentials = Credentials::find(
        texts(&request.headers, &header::AUTHORIZATION).next(),
        texts(&request.headers, &header::SEC_WEBSOCKET_PROTOCOL),
        request.uri.query(),
    );
    let name = id.text(&gateway.env.instance);
    let identity = gateway
        .authenticator
        .authenticate(&credentials, &name, Clock::unix_seconds());
    let response = switching(&offer);
    let format = Format {
        codec: offer.subprotocol.unwrap_or_default(),
        deflate: offer.deflate.map(|agreed| agreed.deflate),
    };
    let accepted = move |identity| Accepted {
        identity,
        id,
        format,
        permit,
    };
    match (identity, credentials.token(), gateway.authenticator.key_set()) {
        (Err(AuthError::UnknownKey), Some(token), Some(_)) => {
            let (gateway, token) = (Arc::clone(gateway), token.to_owned());
            Answer::Later(Box::pin(async move {
                let again = gateway
                    .authenticator
                    .authenticate_again(&token, Clock::unix_seconds());
                let identity = again.await;
                (response, Some(accepted(identity)))
            }))
        }
        (identity, ..) => Answer::Now(Box::new((response, Some(accepted(identity))))),
    }
}

/// Why a client is not let in.
enum No {
    Wrong(Refusal),
    NotNow(Refused),
}

impl No {
    const fn reason(&self) -> Rejection {
        match self {
            Self::Wrong(refusal) => refusal.reason(),
            Self::NotNow(refused) => refused.reason,
        }
    }

    fn response(&self) -> Response<Full<Bytes>> {
        match self {
            Self::Wrong(refusal) => refusal.response(),
            Self::NotNow(refused) => come_back(refused.reason, refused.retry_after),
        }
    }
}

fn admit(
    gateway: &Arc<Gateway>,
    peer: IpAddr,
    request: &http::request::Parts,
) -> Result<(Offer, Permit), No> {
    let headers = &request.headers;
    let mut offer = read_offer(&request.method, request.version, headers).map_err(No::Wrong)?;
    offer.deflate = offer.deflate.filter(|_| gateway.settings.compression.is_on());
    // one that is no text is not on any list, rather than none
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    let listed = origins.all(|origin| {
        let origin = origin.to_str().unwrap_or("\u{fffd}");
        gateway.settings.allowed_origins.allow(Some(origin))
    });
    if !listed {
        return Err(No::Wrong(Refusal::Origin));
    }
    let hops = gateway.settings.trusted_hops.get();
    let forwarded: Vec<_> = if hops == 0 {
        Vec::new()
    } else {
        texts(headers, &X_FORWARDED_FOR).collect()
    };
    let address = client_address(peer, forwarded, hops);
    let permit = Admission::admit(gateway, address).map_err(No::NotNow)?;
    Ok((offer, permit))
}

fn switching(offer: &Offer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&offer.accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(codec) = offer.subprotocol {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(codec.subprotocol()),
        );
    }
    let agreed = offer
        .deflate
        .map(|agreed| HeaderValue::try_from(agreed.to_string()));
    if let Some(Ok(agreed)) = agreed {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, agreed);
    }
    response
}

#[cfg(test)]
mod tests;
