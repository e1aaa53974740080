//! RFC 6455 as the gateway keeps it.

mod deflate;
mod extension;
mod nasty;
mod properties;

use super::*;
use crate::protocol::{CloseCode, CloseReason};

const MAX: usize = 65_536;
/// Nothing was negotiated.
const RULES: Rules = Rules {
    max_message: MAX,
    deflate: false,
};
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// One frame as a client sends it.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(0x80 | short as u8),
        long @ 126..=0xFFFF => {
            out.push(0x80 + 126);
            out.extend((long as u16).to_be_bytes());
        }
        longer => {
            out.push(0x80 + 127);
            out.extend((longer as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

/// What the decoder says, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Violation(Violation),
}

/// Reads `bytes` in pieces as a session does: what is not used is kept, nothing else.
fn decode_in_pieces(bytes: &[u8], pieces: impl Iterator<Item = usize>, rules: Rules) -> Vec<Seen> {
    let most = rules.on_the_wire(rules.deflate);
    let mut decoder = Decoder::default();
    let mut kept: Vec<u8> = Vec::new();
    let mut seen = Vec::new();
    let mut rest = bytes;
    let mut pieces = pieces;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
        rest = later;
        kept.extend_from_slice(piece);
        let mut at = 0;
        loop {
            let found = match decoder.next(&mut kept[at..], rules) {
                Ok(found) => found,
                Err(violation) => {
                    seen.push(Seen::Violation(violation));
                    return seen;
                }
            };
            at += found.used;
            let Some(message) = found.message else { break };
            seen.push(match message {
                Incoming::Text(text) => Seen::Text(text.into_owned()),
                Incoming::Binary(bytes) => Seen::Binary(bytes.into_owned()),
                Incoming::Ping(payload) => Seen::Ping(payload.to_vec()),
                Incoming::Pong(payload) => Seen::Pong(payload.to_vec()),
                Incoming::Close(close) => {
                    seen.push(Seen::Close(
                        close.code.map(CloseCode::get),
                        close.reason.to_owned(),
                    ));
                    return seen;
                }
            });
        }
        kept.drain(..at);
        assert!(kept.len() <= most.max(125) + 14, "at most one frame is kept");
    }
    seen
}

fn decode(bytes: &[u8]) -> Vec<Seen> {
    decode_in_pieces(bytes, std::iter::empty(), RULES)
}

#[test]
fn an_idle_decoder_is_one_pointer() {
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
}

#[test]
fn the_examples_of_rfc_6455_section_5_7_are_read_and_written() {
    let masked_hello = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(decode(&masked_hello), [Seen::Text("Hello".into())]);
    assert_eq!(
        &text_frame("Hello")[..],
        [0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]
    );
    assert_eq!(
        &ping_frame(b"Hello")[..],
        [0x89, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]
    );
    assert_eq!(
        &pong_frame(b"Hello")[..],
        [0x8A, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]
    );
    assert_eq!(&frame(Opcode::Binary, &[0; 256])[..4], [0x82, 0x7E, 0x01, 0x00]);
    assert_eq!(
        &frame(Opcode::Binary, &vec![0; 65_536])[..10],
        [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]
    );
    let fragmented = [client_frame(0x01, b"Hel"), client_frame(0x80, b"lo")].concat();
    assert_eq!(decode(&fragmented), [Seen::Text("Hello".into())]);
}

#[test]
fn a_violation_names_its_close_code() {
    let code = |violation: Violation| violation.close_reason().code();
    assert_eq!(code(Violation::TooBig), CloseCode::TOO_BIG);
    assert_eq!(code(Violation::InvalidUtf8), CloseCode::INVALID_DATA);
    assert_eq!(Violation::Unmasked.close_reason(), CloseReason::ProtocolError);
    assert_eq!(code(Violation::CloseCode(1005)), CloseCode::PROTOCOL_ERROR);
}

#[test]
fn what_is_too_big_is_known_from_its_header_alone() {
    let mut header = client_frame(0x82, &vec![0; 65_537])[..10].to_vec();
    assert!(Decoder::default().next(&mut header, RULES).is_err());
    let mut whole = client_frame(0x82, &vec![7; MAX]);
    assert!(
        Decoder::default()
            .next(&mut whole, RULES)
            .unwrap()
            .message
            .is_some(),
        "the largest that is allowed"
    );
}

#[test]
fn control_frames_between_fragments_come_at_once_and_leave_the_message_whole() {
    let bytes = [
        client_frame(0x01, b"a"),
        client_frame(0x89, b"are you there"),
        client_frame(0x00, b"b"),
        client_frame(0x8A, b""),
        client_frame(0x80, b"c"),
    ]
    .concat();
    let expected = [
        Seen::Ping(b"are you there".to_vec()),
        Seen::Pong(Vec::new()),
        Seen::Text("abc".into()),
    ];
    assert_eq!(decode(&bytes), expected);
}

#[test]
fn nothing_is_kept_when_a_fragmented_message_has_ended() {
    let mut decoder = Decoder::default();
    let mut first = client_frame(0x01, b"a");
    assert_eq!(decoder.next(&mut first, RULES).unwrap().used, first.len());
    assert!(decoder.is_assembling());
    let mut last = client_frame(0x80, b"b");
    assert!(decoder.next(&mut last, RULES).unwrap().message.is_some());
    assert!(!decoder.is_assembling());
}

#[test]
fn empty_fragments_are_allowed_and_make_an_empty_message() {
    let bytes = [
        client_frame(0x01, b""),
        client_frame(0x00, b""),
        client_frame(0x80, b""),
    ]
    .concat();
    assert_eq!(decode(&bytes), [Seen::Text(String::new())]);
}

#[test]
fn empty_fragments_are_counted_since_no_size_bounds_them() {
    let mut bytes = client_frame(0x01, b"");
    for _ in 0..1_023 {
        bytes.extend(client_frame(0x00, b""));
    }
    let whole = [bytes.clone(), client_frame(0x80, b"x")].concat();
    assert_eq!(decode(&whole), [Seen::Text("x".into())]);
    bytes.extend(client_frame(0x00, b""));
    assert_eq!(decode(&bytes), [Seen::Violation(Violation::EmptyFragments)]);
    assert_eq!(Violation::EmptyFragments.close_reason().code(), CloseCode::POLICY);
}

#[test]
fn close_frames_are_read_with_code_and_reason_or_without() {
    assert_eq!(
        decode(&client_frame(0x88, b"")),
        [Seen::Close(None, String::new())]
    );
    assert_eq!(
        decode(&client_frame(0x88, b"\x03\xE8bye")),
        [Seen::Close(Some(1000), "bye".into())]
    );
    assert_eq!(
        decode(&client_frame(0x88, b"\x0F\xA0")),
        [Seen::Close(Some(4000), String::new())]
    );
}

#[test]
fn close_frames_are_written_within_125_bytes_and_never_with_a_code_that_must_not_be_sent() {
    assert_eq!(
        &close_frame(Some(CloseCode::SERVICE_RESTART), "bye")[..],
        b"\x88\x05\x03\xF4bye"
    );
    assert_eq!(&close_frame(None, "ignored")[..], b"\x88\x00");
    assert_eq!(
        &close_frame(Some(CloseCode::ABNORMAL), "ignored")[..],
        b"\x88\x00"
    );
    let long = close_frame(Some(CloseCode::NORMAL), &"é".repeat(100));
    assert_eq!(long.len(), 2 + 2 + 122, "cut between characters");
    assert!(std::str::from_utf8(&long[4..]).is_ok());
}

#[test]
fn control_payloads_are_cut_to_what_a_control_frame_may_carry() {
    assert_eq!(ping_frame(&[1; 126]).len(), 127);
    assert_eq!(pong_frame(&[1; 125]).len(), 127);
}

#[test]
fn a_frame_written_in_place_is_the_frame_written_at_once_whatever_its_length() {
    for length in [0, 1, 124, 125, 126, 127, 65_534, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let mut out = b"before".to_vec();
        write_frame(&mut out, Opcode::Text, |out| out.extend_from_slice(&payload));
        let (before, written) = out.split_at(6);
        assert_eq!(before, b"before");
        assert!(written == frame(Opcode::Text, &payload), "{length}");
    }
}

#[test]
fn the_accept_key_is_the_rfcs_and_bad_keys_are_refused() {
    assert_eq!(
        accept_key("dGhlIHNhbXBsZSBub25jZQ==").as_deref(),
        Ok("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for bad in [
        "",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZTE=",
        "!GhlIHNhbXBsZSBub25jZQ==",
        "é",
    ] {
        assert_eq!(accept_key(bad), Err(InvalidKey), "{bad}");
    }
    assert_eq!(accept_key(&"A".repeat(1 << 16)), Err(InvalidKey));
}
