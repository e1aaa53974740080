//! What is read from a request's head, and what is answered.

use std::time::Duration;

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

const GOOD: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "keep-alive, Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn get(headers: &HeaderMap) -> Result<Offer, Refusal> {
    read_offer(&Method::GET, Version::HTTP_11, headers)
}

fn with(change: (&'static str, &'static str)) -> Result<Offer, Refusal> {
    let mut map = headers(&GOOD);
    map.remove(change.0);
    if !change.1.is_empty() {
        map.append(change.0, HeaderValue::from_static(change.1));
    }
    get(&map)
}

#[test]
fn the_sample_of_the_rfc_is_accepted_with_the_key_of_the_rfc() {
    let offer = get(&headers(&GOOD)).unwrap();
    assert_eq!(
        offer,
        Offer {
            accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
            subprotocol: None,
            deflate: None,
        }
    );
}

#[test]
fn each_wrong_header_has_its_own_refusal() {
    assert_eq!(
        read_offer(&Method::POST, Version::HTTP_11, &headers(&GOOD)),
        Err(Refusal::Method)
    );
    assert_eq!(
        read_offer(&Method::GET, Version::HTTP_10, &headers(&GOOD)),
        Err(Refusal::HttpVersion),
        "HTTP/1.0 knows no upgrade"
    );
    assert_eq!(with(("upgrade", "")), Err(Refusal::NotUpgrade));
    assert_eq!(with(("upgrade", "h2c")), Err(Refusal::NotUpgrade));
    assert_eq!(with(("connection", "keep-alive")), Err(Refusal::NotUpgrade));
    assert_eq!(with(("sec-websocket-version", "8")), Err(Refusal::Version));
    assert_eq!(with(("sec-websocket-key", "short")), Err(Refusal::Key));
    assert_eq!(
        with(("sec-websocket-protocol", "graphql-ws")),
        Err(Refusal::Subprotocol)
    );
    assert_eq!(
        with(("sec-websocket-extensions", "no list of extensions")),
        Err(Refusal::Extensions)
    );
}

#[test]
fn a_key_or_a_version_that_is_sent_twice_is_refused_whatever_the_second_is() {
    for (name, first) in &GOOD[2..] {
        for second in [first.as_bytes(), b"", b"\xFF"] {
            let mut map = headers(&GOOD);
            map.append(*name, HeaderValue::from_bytes(second).unwrap());
            assert_eq!(get(&map), Err(Refusal::Repeated), "{name}: {second:?}");
        }
    }
    assert_eq!(Refusal::Repeated.response().status(), StatusCode::BAD_REQUEST);
}

#[test]
fn what_is_agreed_to_is_told_in_the_response_and_nothing_is_when_nothing_was_offered() {
    let told = |offer: &Offer| {
        let response = switching(offer);
        let value = response.headers().get(header::SEC_WEBSOCKET_EXTENSIONS);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let offer = with((
        "sec-websocket-extensions",
        "permessage-deflate; client_max_window_bits",
    ));
    assert_eq!(
        told(&offer.unwrap()).as_deref(),
        Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover")
    );
    let offer = get(&headers(&GOOD)).unwrap();
    assert_eq!(told(&offer), None);
}

#[test]
fn the_first_subprotocol_that_is_served_is_chosen_and_a_token_is_none() {
    for (offered, chosen) in [
        ("graphql-ws, wsfleet.v1.json", Some(Codec::Json)),
        ("wsfleet.v1.json, bearer.abc", Some(Codec::Json)),
        ("wsfleet.v1.proto, wsfleet.v1.json", Some(Codec::Proto)),
        (
            "bearer.abc,wsfleet.v2.json,wsfleet.v1.msgpack",
            Some(Codec::MsgPack),
        ),
        ("bearer.abc", None),
    ] {
        let offer = with(("sec-websocket-protocol", offered)).unwrap();
        assert_eq!(offer.subprotocol, chosen, "{offered}");
    }
}

#[test]
fn a_refusal_for_a_wrong_version_names_the_right_one() {
    let response = Refusal::Version.response();
    assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_VERSION], "13");
}

#[test]
fn those_refused_together_are_not_told_to_come_back_together() {
    let wait = || {
        let response = come_back(Rejection::Capacity, Duration::from_secs(5));
        response.headers()[header::RETRY_AFTER]
            .to_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let waits: std::collections::BTreeSet<_> = std::iter::repeat_with(wait).take(200).collect();
    assert_eq!(waits, (5..10).collect());
}
