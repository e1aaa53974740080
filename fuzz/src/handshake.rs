//! The opening handshake: from the bytes of a request's head, by hyper as the listener uses it, to the answer.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use wsfleet_gateway::config::{Args, Settings};
use wsfleet_gateway::gateway::Gateway;
use wsfleet_gateway::handshake::head::{HEAD_BYTES, end_of_head};
use wsfleet_gateway::handshake::{self, Accepted, Answer};
use wsfleet_gateway::protocol::Codec;
use wsfleet_gateway::websocket::{Deflate, accept_key};

use crate::memory;

const OPEN: [&str; 6] = [
    "--auth",
    "insecure-token",
    "--limit",
    "connectionsPerIp=0",
    "--limit",
    "handshakesPerSecondPerIp=0",
];
const ORIGIN: &str = "https://chat.example.com";
const STRICT: [&str; 6] = [
    "--allowed-origin",
    ORIGIN,
    "--compression",
    "off",
    "--trusted-hops",
    "2",
];
/// What hyper and the answer may hold beside the head.
const MEMORY: usize = 96 << 10;

/// An open gateway, and one that allows less.
struct Gateways {
    runtime: Runtime,
    open: Arc<Gateway>,
    strict: Arc<Gateway>,
}

impl Gateways {
    fn start() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let gateway = |more: &[&str]| {
            let flags = ["wsfleet-gateway"].iter().chain(&OPEN).chain(more);
            let settings = Settings::load_with(Args::from_command_line(flags).unwrap(), |_| None);
            runtime
                .block_on(async { Gateway::new(settings.unwrap(), 10) })
                .unwrap()
        };
        let (open, strict) = (gateway(&[]), gateway(&STRICT));
        Self {
            runtime,
            open,
            strict,
        }
    }
}

thread_local!(static GATEWAYS: RefCell<Option<Gateways>> = const { RefCell::new(None) });

/// The first byte chooses the gateway and the pieces, the others are what the client sends.
pub fn handshake(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    let end = end_of_head(bytes, 0);
    ends_alike_in_pieces(bytes, usize::from(choice >> 1) % 40 + 1, end);
    // no head, or one that the listener does not give to hyper
    if end.is_none_or(|end| end > HEAD_BYTES) {
        return;
    }
    GATEWAYS.with_borrow_mut(|gateways| {
        if gateways.is_none() {
            *gateways = Some(Gateways::start());
            // what hyper makes once is not what this request costs
            let started = gateways.as_ref().unwrap();
            answer(started, &started.open, b"GET /ws HTTP/1.1\r\n\r\n");
        }
        let gateways = gateways.as_ref().unwrap();
        let strict = choice & 1 == 1;
        let gateway = if strict { &gateways.strict } else { &gateways.open };
        let (written, accepted) =
            memory::within(MEMORY + 8 * bytes.len(), || answer(gateways, gateway, bytes));
        is_an_answer(&written, accepted.as_ref(), bytes, strict);
    });
}

fn ends_alike_in_pieces(bytes: &[u8], piece: usize, end: Option<usize>) {
    let (mut seen, mut found) = (0, None);
    while found.is_none() && seen < bytes.len() {
        let more = (seen + piece).min(bytes.len());
        found = end_of_head(&bytes[..more], seen);
        seen = more;
    }
    assert_eq!(found, end, "the pieces make a difference");
}

/// What is written to the client, and who was let in.
fn answer(gateways: &Gateways, gateway: &Arc<Gateway>, bytes: &[u8]) -> (Vec<u8>, Option<Accepted>) {
    let place = RefCell::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let (parts, _) = request.into_parts();
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let Answer::Now(answered) = handshake::accept(gateway, peer, &parts) else {
            panic!("there are no keys to wait for");
        };
        let (mut response, accepted) = *answered;
        if accepted.is_none() {
            let close = http::HeaderValue::from_static("close");
            response.headers_mut().insert(http::header::CONNECTION, close);
        }
        assert!(place.borrow().is_none(), "one request a connection");
        *place.borrow_mut() = accepted;
        async { Ok::<Response<Full<Bytes>>, Infallible>(response) }
    });
    let written = gateways.runtime.block_on(async {
        let (mut client, socket) = tokio::io::duplex(64 << 10);
        client.write_all(bytes).await.unwrap();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(socket), service);
        tokio::select! {
            biased;
            // what is no request is answered by hyper, or not at all
            _ = connection.without_shutdown() => {}
            // everything has come: whoever waits now waits for what the client does not send
            () = tokio::task::yield_now() => {}
        }
        let mut written = Vec::new();
        client.read_to_end(&mut written).await.unwrap();
        written
    });
    (written, place.into_inner())
}

/// A response that any client can read, and that says what was agreed to and no more.
fn is_an_answer(written: &[u8], accepted: Option<&Accepted>, sent: &[u8], strict: bool) {
    if written.is_empty() {
        return assert!(accepted.is_none());
    }
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    assert!(response.parse(written).is_ok_and(|parsed| parsed.is_complete()));
    let status = response.code.unwrap();
    assert!(
        [101, 400, 403, 405, 414, 426, 431, 505].contains(&status),
        "{status}"
    );
    assert_eq!(status == 101, accepted.is_some());
    let Some(accepted) = accepted else { return };
    let told = Headers(response.headers);
    assert_eq!(told.get("upgrade"), ["websocket"]);
    let codec = told.get("sec-websocket-protocol");
    let codec = codec.first().map(|name| Codec::from_subprotocol(name).unwrap());
    assert_eq!(accepted.format.codec, codec.unwrap_or_default());
    let extensions = told.get("sec-websocket-extensions");
    let agreed = Deflate::negotiate(extensions.iter().copied()).unwrap();
    assert_eq!(agreed.map(|agreed| agreed.deflate), accepted.format.deflate);
    assert_eq!(
        agreed.map(|agreed| agreed.to_string()).as_deref(),
        extensions.first().copied()
    );
    assert!(!strict || agreed.is_none(), "compression is off");
    was_asked_for(&told, sent, strict);
}

/// An upgrade only for who asked for it as RFC 6455 §4.1 says.
fn was_asked_for(told: &Headers<'_>, sent: &[u8], strict: bool) {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut request = httparse::Request::new(&mut headers);
    assert!(request.parse(sent).is_ok_and(|parsed| parsed.is_complete()));
    assert_eq!(request.method, Some("GET"));
    let asked = Headers(request.headers);
    let told_key = told.get("sec-websocket-accept");
    let keys = asked.get("sec-websocket-key");
    let [key] = keys[..] else {
        panic!("not one key: {keys:?}");
    };
    assert!(accept_key(key.trim()).is_ok_and(|accept| told_key == [accept]));
    let versions = asked.get("sec-websocket-version");
    assert!(
        matches!(versions[..], [version] if version.trim() == "13"),
        "{versions:?}"
    );
    let origins = asked.get("origin");
    let listed = |origin: &&str| origin.trim().eq_ignore_ascii_case(ORIGIN);
    assert!(!strict || origins.iter().all(listed), "{origins:?}");
}

struct Headers<'h>(&'h [httparse::Header<'h>]);

impl<'h> Headers<'h> {
    /// The values of a name; one that is no text reads as none that anybody expects.
    fn get(&self, name: &str) -> Vec<&'h str> {
        let named = self
            .0
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        named
            .map(|header| std::str::from_utf8(header.value).unwrap_or("\u{fffd}"))
            .collect()
    }
}
