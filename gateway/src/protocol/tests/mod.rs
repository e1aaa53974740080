//! What is read from clients and what they can read from us.

mod properties;
mod resume;

use serde_json::Value;
use serde_json::value::RawValue;

use super::*;
use crate::config::{Limit, Limits};

const NAME: Limit = Limit::new(255);

fn parse(text: &str) -> Result<ClientMessage<'_>, Rejected<'_>> {
    ClientMessage::parse(text, NAME)
}

fn error(text: &str) -> ParseError {
    parse(text).unwrap_err().error
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn encoded(message: &ServerMessage<'_>) -> Value {
    let mut out = Vec::new();
    message.encode(&mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_messages_of_the_protocol_are_read() {
    assert!(
        matches!(parse(r#"{"type":"join","room":"r"}"#), Ok(ClientMessage::Join { room, .. }) if room == "r")
    );
    assert!(
        matches!(parse(r#"{"room":"a:b","type":"leave"}"#), Ok(ClientMessage::Leave { room, .. }) if room == "a:b")
    );
    assert!(matches!(
        parse(r#" { "type" : "ping" } "#),
        Ok(ClientMessage::Ping)
    ));
    let text = r#"{"type":"room_message","room":"r","payload":{"a":[1, 2.50]},"id":7,"msgId":"m"}"#;
    let Ok(ClientMessage::RoomMessage {
        room,
        payload,
        id,
        msg_id,
    }) = parse(text)
    else {
        panic!("{text}")
    };
    assert_eq!(
        (&*room, payload.get()),
        ("r", r#"{"a":[1, 2.50]}"#),
        "the payload is as it was written"
    );
    assert_eq!(id.map(|id| id.raw().get()), Some("7"));
    assert_eq!(msg_id.map(|id| id.raw().get()), Some("\"m\""));
    let text = r#"{"type":"direct_message","targetUserId":"u","payload":null,"id":"\u0041"}"#;
    let Ok(ClientMessage::DirectMessage {
        target_user_id,
        payload,
        id,
        ..
    }) = parse(text)
    else {
        panic!("{text}")
    };
    assert_eq!((&*target_user_id, payload.get()), ("u", "null"));
    assert_eq!(
        id.map(|id| id.raw().get()),
        Some(r#""\u0041""#),
        "echoed verbatim, escape and all"
    );
}

#[test]
fn an_event_is_read_with_its_payload_as_it_was_written_and_both_ids() {
    let text = r#"{"type":"event","name":"order.new","payload":{"n": 1.0},"id":1,"msgId":"m"}"#;
    let Ok(ClientMessage::Event {
        name,
        payload,
        id,
        msg_id,
    }) = parse(text)
    else {
        panic!("{text}")
    };
    assert_eq!((&*name, payload.get()), ("order.new", r#"{"n": 1.0}"#));
    let ids = [id, msg_id].map(|id| id.map(RequestId::said));
    assert_eq!(ids, [Some("1".into()), Some("m".into())]);
    let named = |name: &str| format!(r#"{{"type":"event","name":"{name}","payload":1}}"#);
    assert!(parse(&named(&"n".repeat(128))).is_ok());
    let number = named("n").replace("\"n\"", "7");
    for wrong in [named(&"n".repeat(129)), named(""), number] {
        assert!(
            matches!(error(&wrong), ParseError::InvalidField("name", _)),
            "{wrong}"
        );
    }
}

#[test]
fn names_without_escapes_are_borrowed_from_the_frame() {
    use std::borrow::Cow;
    assert!(matches!(
        parse(r#"{"type":"join","room":"r"}"#),
        Ok(ClientMessage::Join {
            room: Cow::Borrowed("r"),
            ..
        })
    ));
    assert!(matches!(
        parse(r#"{"type":"join","room":"\u00e9\n"}"#),
        Ok(ClientMessage::Join { room: Cow::Owned(room), .. }) if room == "é\n"
    ));
}

#[test]
fn a_key_that_says_no_valid_text_is_an_unknown_field_and_the_message_is_read() {
    let text = r#"{"\ud800":1,"ty\u0070e":"join","room\udc00":2,"room":"r"}"#;
    assert!(matches!(parse(text), Ok(ClientMessage::Join { room, .. }) if room == "r"));
    assert_eq!(error(r#"{"\ud800":1}"#), ParseError::UnknownType);
    for no_json in [r#"{"\ud80":1}"#, "{\"\0\":1}", "{\"a\nb\":1}", "{1:1}"] {
        assert_eq!(error(no_json), ParseError::InvalidJson, "{no_json}");
    }
}

#[test]
fn what_is_not_understood_is_answered_with_the_articles_texts_and_a_code() {
    let deep = format!(r#"{{"type":"x","y":{}"#, "[".repeat(60_000));
    let table: &[(&str, ParseError)] = &[
        ("", ParseError::InvalidJson),
        ("nonsense", ParseError::InvalidJson),
        ("{", ParseError::InvalidJson),
        (r#"{"type":"ping""#, ParseError::InvalidJson),
        (r#"{"type":"ping"} {}"#, ParseError::InvalidJson),
        (r#"{"type":"ping",}"#, ParseError::InvalidJson),
        (r#"{"type":"ping","x":01}"#, ParseError::InvalidJson),
        ("{'type':'ping'}", ParseError::InvalidJson),
        ("\u{feff}{\"type\":\"ping\"}", ParseError::InvalidJson),
        ("[1,", ParseError::InvalidJson),
        (&deep, ParseError::InvalidJson),
        ("[]", ParseError::UnknownType),
        ("42", ParseError::UnknownType),
        (" 1e400", ParseError::UnknownType),
        ("null", ParseError::UnknownType),
        ("\"ping\"", ParseError::UnknownType),
        ("{}", ParseError::UnknownType),
        (r#"{"type":5}"#, ParseError::UnknownType),
        (r#"{"type":null}"#, ParseError::UnknownType),
        (r#"{"type":"Ping"}"#, ParseError::UnknownType),
        (r#"{"type":"dance","room":[]}"#, ParseError::UnknownType),
        (r#"{"type":"join"}"#, ParseError::MissingField("room")),
        (r#"{"type":"join","Room":"r"}"#, ParseError::MissingField("room")),
        (
            r#"{"type":"room_message","room":"r"}"#,
            ParseError::MissingField("payload"),
        ),
        (
            r#"{"type":"direct_message","payload":1}"#,
            ParseError::MissingField("targetUserId"),
        ),
        (
            r#"{"type":"event","payload":1}"#,
            ParseError::MissingField("name"),
        ),
        (
            r#"{"type":"event","name":"n"}"#,
            ParseError::MissingField("payload"),
        ),
        (
            r#"{"type":"join","room":""}"#,
            ParseError::InvalidField("room", "a text that is not empty"),
        ),
        (
            r#"{"type":"join","room":5}"#,
            ParseError::InvalidField("room", "a text that is not empty"),
        ),
        (
            r#"{"type":"join","room":null}"#,
            ParseError::InvalidField("room", "a text that is not empty"),
        ),
        (
            r#"{"type":"join","room":"\ud800"}"#,
            ParseError::InvalidField("room", "a text that is not empty"),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(text), *expected, "{text:.60}");
    }
    assert_eq!(ParseError::InvalidJson.to_string(), "Invalid JSON");
    assert_eq!(ParseError::UnknownType.to_string(), "Unknown message type");
    assert_eq!(ParseError::MissingField("room").code().as_str(), "missing_field");
}

#[test]
fn names_and_ids_that_are_too_long_are_refused_at_their_limit() {
    let join = |bytes| format!(r#"{{"type":"join","room":"{}"}}"#, "r".repeat(bytes));
    assert!(parse(&join(255)).is_ok());
    assert_eq!(error(&join(256)), ParseError::RoomNameTooLong(255));
    assert!(ClientMessage::parse(&join(5_000), Limit::OFF).is_ok());
    let escaped = format!(r#"{{"type":"join","room":"{}"}}"#, r"\u00e9".repeat(128));
    assert_eq!(
        error(&escaped),
        ParseError::RoomNameTooLong(255),
        "counted in bytes of what it says"
    );
    let direct = |user: usize, id: usize| {
        let (user, id) = ("u".repeat(user), "i".repeat(id));
        format!(r#"{{"type":"direct_message","targetUserId":"{user}","payload":1,"id":"{id}"}}"#)
    };
    assert!(parse(&direct(128, 126)).is_ok());
    assert!(matches!(
        error(&direct(129, 1)),
        ParseError::InvalidField("targetUserId", _)
    ));
    assert!(matches!(
        error(&direct(1, 127)),
        ParseError::InvalidField("id", _)
    ));
    for id in ["{}", "[]", "null", "true"] {
        let text = format!(r#"{{"type":"room_message","room":"r","payload":1,"id":{id}}}"#);
        assert!(matches!(error(&text), ParseError::InvalidField("id", _)), "{id}");
    }
}

#[test]
fn a_rejected_message_keeps_the_id_to_answer_it_with() {
    let rejected = parse(r#"{"id":"q1","type":"join"}"#).unwrap_err();
    assert_eq!(rejected.id.map(|id| id.raw().get()), Some("\"q1\""));
    assert_eq!(rejected.error.code(), ErrorCode::MissingField);
    assert!(parse(r#"{"id":{},"type":"join"}"#).unwrap_err().id.is_none());
}

#[test]
fn unknown_fields_are_skipped_and_the_last_of_two_equal_ones_counts() {
    let text =
        r#"{"x":{"y":[1,{"z":"\ud800"}]},"type":"dance","type":"join","room":1,"room":"r","epoch":null}"#;
    assert!(matches!(parse(text), Ok(ClientMessage::Join { room, .. }) if room == "r"));
}

#[test]
fn every_kind_has_its_own_place_and_label() {
    for (index, kind) in MessageKind::ALL.into_iter().enumerate() {
        assert_eq!(kind.index(), index);
    }
    let mut labels: Vec<_> = MessageKind::ALL.iter().map(|kind| kind.as_str()).collect();
    labels.dedup();
    assert_eq!(labels.len(), MessageKind::ALL.len());
}

#[test]
fn every_error_code_has_its_own_name() {
    let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ErrorCode::ALL.len());
}

#[test]
fn messages_are_written_with_the_fields_of_the_protocol() {
    let payload = raw(r#"{"text":"hi"}"#);
    let id = raw("7");
    let (room_id, user_id, server_id, epoch) = ("r", "u", "s", "e");
    let table: &[(ServerMessage<'_>, &str)] = &[
        (
            ServerMessage::Joined {
                room: "r",
                epoch,
                offset: 3,
                recovered: None,
                reason: None,
            },
            r#"{"type":"joined","room":"r","epoch":"e","offset":3}"#,
        ),
        (ServerMessage::Left { room: "r" }, r#"{"type":"left","room":"r"}"#),
        (
            ServerMessage::RoomMessage {
                room_id,
                user_id,
                payload: &payload,
                timestamp: 1,
                server_id,
                offset: 2,
            },
            r#"{"type":"room_message","roomId":"r","userId":"u","payload":{"text":"hi"},"timestamp":1,"serverId":"s","offset":2}"#,
        ),
        (
            ServerMessage::DirectMessage {
                from_user_id: "u",
                payload: &payload,
                timestamp: 1,
                offset: 2,
            },
            r#"{"type":"direct_message","fromUserId":"u","payload":{"text":"hi"},"timestamp":1,"offset":2}"#,
        ),
        (
            ServerMessage::UserJoined {
                room_id,
                user_id,
                server_id,
            },
            r#"{"type":"user_joined","roomId":"r","userId":"u","serverId":"s"}"#,
        ),
        (
            ServerMessage::UserLeft {
                room_id,
                user_id,
                server_id,
            },
            r#"{"type":"user_left","roomId":"r","userId":"u","serverId":"s"}"#,
        ),
        (
            ServerMessage::Ack {
                id: &id,
                epoch,
                offset: 9,
                duplicate: false,
            },
            r#"{"type":"ack","id":7,"epoch":"e","offset":9,"duplicate":false}"#,
        ),
        (ServerMessage::Pong {}, r#"{"type":"pong"}"#),
        (
            ServerMessage::ServerShutdown {
                reason: "drain",
                reconnect_delay: 1,
                deadline: None,
                resume: false,
            },
            r#"{"type":"server_shutdown","reason":"drain","reconnectDelay":1,"deadline":null,"resume":false}"#,
        ),
        (
            ServerMessage::error(ErrorCode::InvalidJson, None),
            r#"{"type":"error","error":"Invalid JSON","code":"invalid_json","temporary":false}"#,
        ),
        (
            ServerMessage::error_because(ErrorCode::BrokerUnavailable, "later", Some(&id)),
            r#"{"type":"error","error":"later","code":"broker_unavailable","temporary":true,"id":7}"#,
        ),
    ];
    for (message, expected) in table {
        assert_eq!(
            encoded(message),
            serde_json::from_str::<Value>(expected).unwrap(),
            "{message:?}"
        );
    }
}

#[test]
fn frames_follow_each_other_in_one_buffer() {
    let mut out = Vec::new();
    let json = Format::default();
    json.encode_frame(&ServerMessage::Pong {}, &mut out);
    let room = &"r".repeat(200);
    json.encode_frame(&ServerMessage::Left { room }, &mut out);
    let pong = json.frame(&ServerMessage::Pong {});
    assert_eq!(out[..pong.len()], pong[..]);
    assert_eq!(out[pong.len()..pong.len() + 2], [0x81, 126]);
    assert_eq!(&pong[..], b"\x81\x0F{\"type\":\"pong\"}");
}
