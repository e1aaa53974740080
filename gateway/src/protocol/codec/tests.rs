//! What each codec takes and gives. The schema of Protocol Buffers is held against these in `tests/`.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::ErrorCode;

const MAX: usize = 1 << 16;

fn pack(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

fn unpack(bytes: &[u8]) -> Value {
    rmp_serde::from_slice(bytes).unwrap()
}

fn packed(json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    from_json::to_msgpack(json.as_bytes(), &mut out);
    out
}

fn read(bytes: &[u8]) -> Result<String, ParseError> {
    Codec::MsgPack.to_json(bytes, MAX).map(Cow::into_owned)
}

/// Any value that JSON and MessagePack agree on; fractions that are exact in binary.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 20, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..20)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_value_is_the_same_in_json_and_in_messagepack_both_ways(value in value()) {
        prop_assert_eq!(unpack(&packed(&value.to_string())), value.clone());
        prop_assert_eq!(unpack(&packed(&serde_json::to_string_pretty(&value).unwrap())), value.clone());
        prop_assert_eq!(serde_json::from_str::<Value>(&read(&pack(&value)).unwrap()).unwrap(), value);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_give_json_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), flip in any::<prop::sample::Index>(), value in value(),
    ) {
        let mut broken = pack(&value);
        let at = flip.index(broken.len());
        broken[at] ^= 0x41;
        for codec in Codec::ALL {
            for bytes in [&bytes, &broken, &broken[..at].to_vec()] {
                if let Ok(text) = codec.to_json(bytes, MAX)
                    && codec != Codec::Json
                {
                    prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "{text}");
                }
            }
        }
    }

    #[test]
    fn any_text_becomes_messagepack_without_a_panic(text in prop_oneof![".*", r#"[{}\[\]",:\\ue0-9. ]{0,80}"#]) {
        packed(&text);
    }

    #[test]
    fn server_messages_say_the_same_in_json_and_in_messagepack(
        room_id: String, user_id: String, server_id: String, payload in value(), timestamp: u64, offset: u64,
    ) {
        let payload = serde_json::value::RawValue::from_string(payload.to_string()).unwrap();
        let (room_id, user_id, server_id) = (&*room_id, &*user_id, &*server_id);
        for message in [
            ServerMessage::RoomMessage { room_id, user_id, payload: &payload, timestamp, server_id, offset },
            ServerMessage::ServerShutdown { reason: room_id, reconnect_delay: 1, deadline: None, resume: true },
            ServerMessage::error_because(ErrorCode::Internal, user_id, Some(&payload)),
        ] {
            let (mut json, mut msgpack) = (Vec::new(), Vec::new());
            Codec::Json.encode(&message, &mut json);
            Codec::MsgPack.encode(&message, &mut msgpack);
            prop_assert_eq!(unpack(&msgpack), serde_json::from_slice::<Value>(&json).unwrap());
        }
    }
}

#[test]
fn lengths_are_written_in_the_fewest_bytes() {
    for count in [0, 1, 15, 16, 65_535, 65_536] {
        let list = Value::from(vec![1; count]);
        let map: serde_json::Map<_, _> = (0..count).map(|n| (n.to_string(), json!([]))).collect();
        for value in [list, map.into()] {
            assert_eq!(packed(&value.to_string()), pack(&value), "{count}");
        }
    }
}

#[test]
fn what_is_json_but_beyond_other_codecs_still_becomes_messagepack() {
    assert_eq!(unpack(&packed(r#""a\ud800b""#)), "a\u{fffd}b");
    assert_eq!(unpack(&packed(r#""\ud83d\ude00\n""#)), "😀\n");
    let huge = |text: &str| rmp_serde::from_slice::<f64>(&packed(text)).unwrap();
    assert_eq!(
        (huge("1e400"), huge("-1E400")),
        (f64::INFINITY, f64::NEG_INFINITY)
    );
    assert_eq!(unpack(&packed("18446744073709551615")), u64::MAX);
    assert_eq!(unpack(&packed("-9223372036854775808")), i64::MIN);
    let digits = "9".repeat(40);
    assert!((huge(&digits) - 1e40).abs() < 1e25);
    let deep = 30_000;
    let nested = packed(&format!("{}{}", "[".repeat(deep), "]".repeat(deep)));
    assert_eq!(nested.len(), deep);
    assert!(nested[..deep - 1].iter().all(|byte| *byte == 0x91) && nested[deep - 1] == 0x90);
}

#[test]
fn messagepack_that_is_not_one_whole_shallow_value_is_malformed() {
    let deep = |levels: usize| [vec![0x91; levels], vec![0xC0]].concat();
    assert!(read(&deep(msgpack::DEPTH - 1)).is_ok());
    let table: &[(&[u8], &str)] = &[
        (b"", "nothing"),
        (b"\xC1", "the marker that is never used"),
        (b"\x81\xA4type", "a map that ends early"),
        (b"\xC0\xC0", "two values"),
        (b"\xC0\x92", "a value, and the beginning of another"),
        (b"\xA5abc", "a text that ends early"),
        (
            b"\xDD\xFF\xFF\xFF\xFFx",
            "a list that claims 4,294,967,295 elements",
        ),
        (&deep(msgpack::DEPTH + 1), "too deep"),
        (&[0x91; 16_000], "much too deep"),
        (b"{\"type\":\"ping\"}", "JSON"),
    ];
    for (bytes, what) in table {
        assert_eq!(read(bytes), Err(ParseError::InvalidMsgPack), "{what}");
    }
}

#[test]
fn messagepack_that_json_cannot_say_is_refused_by_that_name() {
    let table: &[(&[u8], &str)] = &[
        (b"\x91\xC4\x01x", "binary"),
        (b"\xA1\xFF", "text that is not UTF-8"),
        (b"\xD4\x01\x00", "an extension"),
        (b"\xCB\x7F\xF8\0\0\0\0\0\0", "NaN"),
        (b"\xCA\x7F\x80\0\0", "infinity"),
        (b"\x81\x01\x02", "a number as a key"),
        (b"\x81\x90\x02", "a list as a key"),
        (b"\x81\xC0\x02", "nil as a key"),
    ];
    for (bytes, what) in table {
        assert_eq!(read(bytes), Err(ParseError::NotJson), "{what}");
    }
}

#[test]
fn a_message_that_is_too_big_as_json_is_refused_however_small_it_was() {
    let zeros = pack(&json!("\0".repeat(100)));
    assert_eq!(zeros.len(), 102);
    assert_eq!(
        Codec::MsgPack.to_json(&zeros, 602).map(|text| text.len()),
        Ok(602)
    );
    assert_eq!(Codec::MsgPack.to_json(&zeros, 601), Err(ParseError::TooBig(601)));
    assert_eq!(ParseError::TooBig(601).code().as_str(), "message_too_big");
}

#[test]
fn protocol_buffers_that_are_no_client_message_are_told_apart() {
    let read = |bytes: &[u8]| Codec::Proto.to_json(bytes, MAX).map(Cow::into_owned);
    assert_eq!(read(b"\x2A\x00"), Ok(r#"{"type":"ping"}"#.to_owned()));
    assert_eq!(
        read(b"\x0A\x03\x0A\x01r"),
        Ok(r#"{"type":"join","room":"r"}"#.to_owned())
    );
    for (bytes, what) in [
        (&b"\x0A\xFF"[..], "a length beyond the end"),
        (b"\x0A\x03\x0A\x01\xFF", "text that is not UTF-8"),
        (b"\x09", "a wrong wire type"),
        (
            b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
            "a tag without an end",
        ),
    ] {
        assert_eq!(read(bytes), Err(ParseError::InvalidProto), "{what}");
    }
    assert_eq!(read(b""), Err(ParseError::UnknownType));
    assert_eq!(
        read(b"\xFA\x01\x00"),
        Err(ParseError::UnknownType),
        "a newer client's"
    );
    let payload = |json: &str| {
        let inner = [b"\x0A\x01r\x12".as_slice(), &[json.len() as u8], json.as_bytes()].concat();
        read(&[[0x1A, inner.len() as u8].as_slice(), &inner].concat())
    };
    assert_eq!(
        payload("[1, 2]").unwrap(),
        r#"{"type":"room_message","room":"r","payload":[1, 2]}"#
    );
    assert_eq!(
        payload("").unwrap(),
        r#"{"type":"room_message","room":"r"}"#,
        "not set"
    );
    for forged in ["", " ", "x", "1,2", r#"1,"room":"other""#, "1}"] {
        let expected = ParseError::InvalidField("payload", "JSON text");
        assert!(forged.is_empty() || payload(forged) == Err(expected), "{forged}");
    }
}

#[test]
fn every_codec_has_a_name_and_a_kind_of_frame() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_subprotocol(codec.subprotocol()), Some(codec));
        let frame = Format::from(codec).frame(&ServerMessage::Pong {});
        assert_eq!(frame[0] & 0x0F, if codec == Codec::Json { 1 } else { 2 });
    }
    assert_eq!(Codec::from_subprotocol("wsfleet.v1"), None);
    assert_eq!(Codec::default(), Codec::Json);
}
