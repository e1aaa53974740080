//! Properties of any text in any field.

use proptest::prelude::*;
use serde_json::Value;

use super::{encoded, parse, raw};
use crate::protocol::{ClientMessage, ErrorCode, ParseError, ServerMessage};

/// Any JSON value, written by a library that is not in a hurry.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn hostile_text_survives_in_every_field(
        a: String, b: String, c: String, payload in json(), timestamp: u64, offset: u64,
    ) {
        let raw_payload = raw(&payload.to_string());
        let message = ServerMessage::RoomMessage {
            room_id: &a, user_id: &b, payload: &raw_payload, timestamp, server_id: &c, offset,
        };
        let value = encoded(&message);
        prop_assert_eq!(&value["roomId"], &a);
        prop_assert_eq!(&value["userId"], &b);
        prop_assert_eq!(&value["serverId"], &c);
        prop_assert_eq!(&value["payload"], &payload);
        prop_assert_eq!(&value["timestamp"], timestamp);
        prop_assert_eq!(&value["offset"], offset);
        prop_assert_eq!(value.as_object().map(serde_json::Map::len), Some(7));

        let error = encoded(&ServerMessage::error_because(ErrorCode::Internal, &a, Some(&raw_payload)));
        prop_assert_eq!(&error["error"], &a);
        prop_assert_eq!(&error["id"], &payload);
        let joined = encoded(&ServerMessage::Joined {
            room: &a, epoch: &b, offset, recovered: None, reason: None,
        });
        prop_assert_eq!(&joined["room"], &a);
        prop_assert_eq!(&joined["epoch"], &b);
        let shutdown = ServerMessage::ServerShutdown {
            reason: &c, reconnect_delay: timestamp, deadline: Some(offset), resume: true,
        };
        prop_assert_eq!(&encoded(&shutdown)["reason"], &c);
    }

    #[test]
    fn what_a_client_writes_is_what_is_read(room in "\\PC{1,60}", payload in json(), id: i64) {
        let text = serde_json::json!({
            "extra": payload, "id": id, "payload": payload, "room": room, "type": "room_message",
        }).to_string();
        let Ok(ClientMessage::RoomMessage { room: read, payload: raw, id: read_id, .. }) = parse(&text) else {
            return Err(TestCaseError::fail(text));
        };
        prop_assert_eq!(&*read, &room);
        prop_assert_eq!(serde_json::from_str::<Value>(raw.get()).unwrap(), payload);
        prop_assert_eq!(read_id.map(|id| id.raw().get().to_owned()), Some(id.to_string()));
    }

    #[test]
    fn what_a_client_tells_workers_is_what_is_read(name in "\\PC{1,30}", payload in json(), id: u32, msg_id in "\\PC{0,30}") {
        let text = serde_json::json!({
            "type": "event", "msgId": msg_id, "id": id, "payload": payload, "name": name, "room": 7,
        }).to_string();
        let Ok(ClientMessage::Event { name: read, payload: raw, id: read_id, msg_id: read_msg_id }) = parse(&text) else {
            return Err(TestCaseError::fail(text));
        };
        prop_assert_eq!(&*read, &name);
        prop_assert_eq!(serde_json::from_str::<Value>(raw.get()).unwrap(), payload);
        prop_assert_eq!(read_id.map(|id| id.said().into_owned()), Some(id.to_string()));
        prop_assert_eq!(read_msg_id.map(|id| id.said().into_owned()), Some(msg_id));
    }

    #[test]
    fn hostile_text_never_panics_and_is_json_exactly_when_serde_json_says_so(
        text in prop_oneof![".*", r#"[{}\[\]",:\\a-z0-9 ]{0,60}"#, r#"\{"type":"(join|ping|room_message)"[,}].{0,30}"#],
    ) {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        let refused = parse(&text).err().map(|rejected| rejected.error);
        prop_assert_eq!(refused == Some(ParseError::InvalidJson), !is_json);
    }
}
