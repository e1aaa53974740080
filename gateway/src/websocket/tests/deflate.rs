//! permessage-deflate (RFC 7692): what is sent, what is read, and what is refused.

use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::super::inflate::inflate;
use super::{MAX, RULES, Seen, client_frame, decode_in_pieces};
use crate::protocol::CloseReason;
use crate::websocket::{
    DEFLATE_FROM, Decoder, Deflate, Incoming, Opcode, Rules, Violation, deflate_frame, frame,
    write_deflated_frame,
};

const DEFLATE: Rules = Rules {
    max_message: MAX,
    deflate: true,
};

/// Every window that a client can ask for.
fn windows() -> impl Iterator<Item = Deflate> {
    (9..=15).map(|bits| {
        let offer = format!("permessage-deflate; server_max_window_bits={bits}");
        Deflate::negotiate([offer.as_str()]).unwrap().unwrap().deflate
    })
}

/// The payload of a compressed message, as zlib makes it.
fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 1_024);
    Compress::new(Compression::best(), false)
        .compress_vec(data, &mut out, FlushCompress::Sync)
        .unwrap();
    assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xFF, 0xFF]);
    out
}

fn decode(bytes: &[u8]) -> Vec<Seen> {
    decode_in_pieces(bytes, std::iter::empty(), DEFLATE)
}

/// First byte and payload of a frame to a client.
fn opened(frame: &[u8]) -> (u8, &[u8]) {
    let start = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (frame[0], &frame[start..])
}

#[test]
fn the_examples_of_rfc_7692_section_7_2_3_are_read() {
    let hello = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    assert_eq!(decode(&client_frame(0xC1, &hello)), [Seen::Text("Hello".into())]);
    let fragmented = [
        client_frame(0x41, &hello[..3]),
        client_frame(0x89, b"between"),
        client_frame(0x80, &hello[3..]),
    ];
    assert_eq!(
        decode(&fragmented.concat()),
        [Seen::Ping(b"between".to_vec()), Seen::Text("Hello".into())]
    );
    let not_compressed = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
    assert_eq!(
        decode(&client_frame(0xC1, &not_compressed)),
        [Seen::Text("Hello".into())]
    );
    let last_block = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    assert_eq!(
        decode(&client_frame(0xC1, &last_block)),
        [Seen::Text("Hello".into())]
    );
    let two_blocks = [
        0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00,
    ];
    assert_eq!(
        decode(&client_frame(0xC1, &two_blocks)),
        [Seen::Text("Hello".into())]
    );
    assert_eq!(
        decode(&client_frame(0xC1, &[0x00])),
        [Seen::Text(String::new())],
        "§7.2.3.6: an empty message"
    );
}

#[test]
fn one_message_knows_nothing_of_the_message_before_it() {
    // RFC 7692 §7.2.3.2: "Hello" again, as a distance into the message before
    let again = [0xF2, 0x00, 0x11, 0x00, 0x00];
    let hello = client_frame(0xC1, &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]);
    let bytes = [hello, client_frame(0xC1, &again)].concat();
    assert_eq!(
        decode(&bytes),
        [Seen::Text("Hello".into()), Seen::Violation(Violation::Deflate)]
    );
}

#[test]
fn messages_that_are_not_compressed_are_read_beside_those_that_are() {
    let bytes = [
        client_frame(0x81, b"plain"),
        client_frame(0xC2, &deflated(b"binary")),
    ]
    .concat();
    assert_eq!(
        decode(&bytes),
        [Seen::Text("plain".into()), Seen::Binary(b"binary".to_vec())]
    );
}

#[test]
fn the_mark_is_refused_where_rfc_7692_section_6_does_not_allow_it() {
    for (name, bytes, rules) in [
        ("not negotiated", client_frame(0xC1, b"\x00"), RULES),
        ("on a ping", client_frame(0xC9, b""), DEFLATE),
        ("on a close frame", client_frame(0xC8, b""), DEFLATE),
        (
            "on a later fragment",
            [client_frame(0x41, b""), client_frame(0xC0, b"\x00")].concat(),
            DEFLATE,
        ),
        ("RSV2 with it", client_frame(0xE1, b"\x00"), DEFLATE),
    ] {
        assert_eq!(
            decode_in_pieces(&bytes, std::iter::empty(), rules).pop(),
            Some(Seen::Violation(Violation::ReservedBits)),
            "{name}"
        );
    }
}

#[test]
fn what_is_no_deflate_stream_or_no_text_when_inflated_is_refused() {
    for (name, payload, violation) in [
        ("reserved block type", &[0x07][..], Violation::Deflate),
        (
            "stored length that contradicts itself",
            &[0x00, 1, 0, 0, 0, 0],
            Violation::Deflate,
        ),
        ("no UTF-8", &deflated(b"\xFF\xFE"), Violation::InvalidUtf8),
        (
            "a character cut by the end",
            &deflated(b"\xE2\x82"),
            Violation::InvalidUtf8,
        ),
    ] {
        assert_eq!(
            decode(&client_frame(0xC1, payload)).pop(),
            Some(Seen::Violation(violation)),
            "{name}"
        );
    }
    assert_eq!(Violation::Deflate.close_reason(), CloseReason::InvalidDeflate);
}

#[test]
fn the_limit_of_a_message_holds_for_what_it_is_when_inflated() {
    let largest = deflated(&vec![b'a'; MAX]);
    assert_eq!(
        decode(&client_frame(0xC1, &largest)),
        [Seen::Text("a".repeat(MAX))]
    );
    let too_large = deflated(&vec![b'a'; MAX + 1]);
    assert!(too_large.len() < 200, "a bomb is small");
    assert_eq!(
        decode(&client_frame(0xC1, &too_large)),
        [Seen::Violation(Violation::TooBig)]
    );
}

#[test]
fn a_bomb_is_inflated_up_to_the_limit_and_no_further() {
    let bomb = deflated(&vec![0; 100 << 20]);
    for max in [1, 1_000, MAX] {
        assert_eq!(inflate(&bomb, max), Err(Violation::TooBig));
    }
    let within = inflate(&deflated(&[0; 1_500]), 1_500).unwrap();
    assert_eq!(within.len(), 1_500);
    assert!(within.capacity() <= 1_501, "{}", within.capacity());
}

#[test]
fn a_message_that_cannot_be_compressed_may_be_as_large_as_any_other() {
    let noise: Vec<u8> = (0..MAX).map(|_| rand::random()).collect();
    let stored = deflated(&noise);
    assert!(stored.len() > MAX, "stored blocks have headers");
    assert_eq!(decode(&client_frame(0xC2, &stored)), [Seen::Binary(noise)]);
}

#[test]
fn a_message_costs_what_it_was_on_the_wire_or_is_inflated_whichever_is_more() {
    let cost = |bytes: &mut [u8]| Decoder::default().next(bytes, DEFLATE).unwrap().cost;
    assert_eq!(cost(&mut client_frame(0xC1, &deflated(&[b'a'; 5_000]))), 5_000);
    assert_eq!(cost(&mut client_frame(0x81, b"Hello")), 6 + 5);
    let mut fragments = [client_frame(0x01, b"Hel"), client_frame(0x80, b"lo")].concat();
    assert_eq!(cost(&mut fragments), 6 + 3 + 6 + 2);
}

#[test]
fn what_does_not_get_smaller_and_control_frames_are_sent_as_they_are() {
    let noise: Vec<u8> = (0..2_000).map(|_| rand::random()).collect();
    let mut out = b"before".to_vec();
    let ready = frame(Opcode::Binary, &noise);
    assert!(!deflate_frame(&mut out, &ready, Deflate::WIDEST));
    assert_eq!(out, [b"before", &ready[..]].concat());
    out.clear();
    write_deflated_frame(&mut out, Opcode::Ping, &[0; 100], Deflate::WIDEST);
    assert_eq!(out, frame(Opcode::Ping, &[0; 100]));
}

#[test]
fn an_empty_message_is_one_byte_when_it_is_compressed() {
    let mut out = Vec::new();
    write_deflated_frame(&mut out, Opcode::Text, b"", Deflate::WIDEST);
    assert_eq!(out, b"\xC1\x01\x00", "RFC 7692 §7.2.3.6");
}

#[test]
fn a_ready_frame_is_compressed_from_the_threshold_on_and_copied_below_it() {
    for length in [0, 100, DEFLATE_FROM - 1, DEFLATE_FROM, 5_000, 70_000] {
        let payload = vec![b'a'; length];
        let ready = frame(Opcode::Text, &payload);
        let mut out = Vec::new();
        let smaller = deflate_frame(&mut out, &ready, Deflate::WIDEST);
        assert_eq!(smaller, length >= DEFLATE_FROM, "{length}");
        if smaller {
            let (first, compressed) = opened(&out);
            assert_eq!((first, inflate(compressed, MAX * 2)), (0xC1, Ok(payload)));
        } else {
            assert_eq!(out, ready);
        }
    }
}

#[test]
fn no_distance_is_longer_than_the_window_that_the_client_asked_for() {
    // 600 bytes of noise, twice: with a window of 512 bytes the second cannot be told by the first
    let noise: Vec<u8> = (0..600).map(|_| rand::random()).collect();
    let twice = noise.repeat(2);
    let sizes: Vec<_> = windows()
        .map(|deflate| {
            let mut out = Vec::new();
            write_deflated_frame(&mut out, Opcode::Binary, &twice, deflate);
            out.len()
        })
        .collect();
    assert!(sizes[0] >= twice.len(), "{sizes:?}");
    assert!(sizes[6] < twice.len() * 2 / 3, "{sizes:?}");
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let text = "([a-z]{1,9} ){0,400}".prop_map(String::into_bytes);
    let noise = proptest::collection::vec(any::<u8>(), 0..40_000);
    let repeated = (any::<u8>(), 0..MAX).prop_map(|(byte, count)| vec![byte; count]);
    prop_oneof![text, noise, repeated]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_as_what_it_was_and_is_little_larger_at_most_with_any_window(data in payload()) {
        for deflate in windows() {
            let mut out = Vec::new();
            write_deflated_frame(&mut out, Opcode::Binary, &data, deflate);
            let (first, payload) = opened(&out);
            prop_assert_eq!(first, 0xC2);
            prop_assert!(payload.len() <= data.len() + data.len() / 32 + 64);
            prop_assert_eq!(inflate(payload, MAX).unwrap(), data.clone());
        }
    }

    #[test]
    fn noise_marked_as_compressed_never_panics_and_never_exceeds_the_limit(
        noise in proptest::collection::vec(any::<u8>(), 0..2_000),
        max_message in 1..5_000_usize,
    ) {
        let rules = Rules { max_message, deflate: true };
        let mut frame = client_frame(0xC2, &noise);
        if let Ok(found) = Decoder::default().next(&mut frame, rules) {
            match found.message {
                Some(Incoming::Binary(data)) => prop_assert!(data.len() <= max_message),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
