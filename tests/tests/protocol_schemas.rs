//! The published schemas are what the gateway speaks: `docs/wsfleet.v1.proto` and `docs/asyncapi.yaml` are read, and held
//! against the messages themselves.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use wsfleet_gateway::config::{Limit, Limits};
use wsfleet_gateway::protocol::{ClientMessage, Codec, ErrorCode, MessageKind, ServerMessage};
use wsfleet_gateway::protocol::{Entry, Lost, Standing, WelcomeLimits};
use wsfleet_tests::codec::{camel, decode, encode, schema};

fn raw(json: &Value) -> Box<RawValue> {
    RawValue::from_string(json.to_string()).unwrap_or_default()
}

/// A message as history tells it.
fn entry<'a>([a, b, _]: [&'a str; 3], payload: &'a RawValue, [timestamp, offset]: [u64; 2]) -> Entry<'a> {
    Entry {
        user_id: a,
        payload,
        timestamp,
        server_id: b,
        offset,
    }
}

/// One of each message of the gateway, with these values in it.
fn server_messages<'a>(
    text: &'a [&'a str; 3],
    payload: &'a RawValue,
    id: &'a RawValue,
    numbers: [u64; 2],
    messages: &'a [Entry<'a>],
) -> Vec<ServerMessage<'a>> {
    let [a, b, c] = *text;
    let [timestamp, offset] = numbers;
    vec![
        ServerMessage::Welcome {
            connection_id: a,
            user_id: b,
            server_id: c,
            ping_interval: timestamp,
            limits: WelcomeLimits::from(&Limits::default()),
            resume_window: timestamp,
            position: Standing { epoch: a, offset },
            features: &["one", "two"],
        },
        ServerMessage::RoutingToken { token: a },
        ServerMessage::Joined {
            room: a,
            epoch: b,
            offset,
            recovered: Some(false),
            reason: Some(Lost::TooOld),
        },
        ServerMessage::Resumed {
            epoch: b,
            offset,
            recovered: false,
            reason: Some(Lost::Limit),
        },
        ServerMessage::History {
            room: a,
            epoch: b,
            offset,
            messages,
            next: Some(offset),
            id: Some(id),
        },
        ServerMessage::Presence {
            room: a,
            users: text,
            count: timestamp,
            next: Some(c),
            id: Some(id),
        },
        ServerMessage::Left { room: a },
        ServerMessage::RoomMessage {
            room_id: a,
            user_id: b,
            payload,
            timestamp,
            server_id: c,
            offset,
        },
        ServerMessage::DirectMessage {
            from_user_id: a,
            payload,
            timestamp,
            offset,
        },
        ServerMessage::UserJoined {
            room_id: a,
            user_id: b,
            server_id: c,
        },
        ServerMessage::UserLeft {
            room_id: a,
            user_id: b,
            server_id: c,
        },
        ServerMessage::Ack {
            id,
            epoch: b,
            offset,
            duplicate: true,
        },
        ServerMessage::Pong {},
        ServerMessage::Gap {
            room: Some(a),
            from: timestamp,
            to: offset,
            epoch: b,
        },
        ServerMessage::ServerShutdown {
            reason: "rebalance",
            reconnect_delay: timestamp,
            deadline: Some(offset),
            resume: true,
        },
        ServerMessage::error_because(ErrorCode::Overloaded, c, Some(id)),
        ServerMessage::Refreshed {
            expires_at: Some(timestamp),
            id: Some(id),
        },
    ]
}

/// One of each message of a client.
fn client_messages(text: [&str; 2], payload: &Value) -> Vec<Value> {
    let [name, id] = text;
    vec![
        json!({"type": "join", "room": name, "epoch": name, "offset": 7, "id": id}),
        json!({"type": "leave", "room": name, "id": id}),
        json!({"type": "room_message", "room": name, "payload": payload, "id": id, "msgId": "m"}),
        json!({"type": "direct_message", "targetUserId": name, "payload": payload, "id": id, "msgId": "m"}),
        json!({"type": "event", "name": name, "payload": payload, "id": id, "msgId": "m"}),
        json!({"type": "ping"}),
        json!({"type": "refresh", "token": name, "id": id}),
        json!({
            "type": "resume", "rooms": [{"room": name, "epoch": id, "offset": 7}], "user": {"epoch": id, "offset": 8},
            "id": id,
        }),
        json!({"type": "history", "room": name, "limit": 7, "before": 8, "id": id}),
        json!({"type": "presence", "room": name, "limit": 7, "after": id, "id": id}),
    ]
}

fn in_json(message: &ServerMessage<'_>) -> Result<Value> {
    let mut out = Vec::new();
    Codec::Json.encode(message, &mut out);
    Ok(serde_json::from_slice(&out)?)
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
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
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_message_of_the_gateway_says_the_same_in_every_codec(
        a: String, b: String, c: String, id: String, payload in any_json(), timestamp: u64, offset: u64,
    ) {
        let (payload, id) = (raw(&payload), raw(&id.into()));
        let entry = [entry([&a, &b, &c], &payload, [timestamp, offset])];
        for message in server_messages(&[&a, &b, &c], &payload, &id, [timestamp, offset], &entry) {
            let expected = in_json(&message).unwrap();
            for codec in [Codec::MsgPack, Codec::Proto] {
                let mut bytes = Vec::new();
                codec.encode(&message, &mut bytes);
                prop_assert_eq!(&decode(codec, &Message::binary(bytes)).unwrap(), &expected, "{:?}", codec);
            }
        }
    }

    #[test]
    fn every_message_of_a_client_is_read_the_same_in_every_codec(
        name in "\\PC{1,30}", id in "\\PC{0,20}", payload in any_json(),
    ) {
        for message in client_messages([&name, &id], &payload) {
            let text = message.to_string();
            let expected = ClientMessage::parse(&text, Limit::OFF);
            for codec in [Codec::MsgPack, Codec::Proto] {
                let frame = encode(codec, &message).unwrap().into_data();
                let json = codec.to_json(&frame, 1 << 20).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Value>(&json).unwrap(), &message, "{:?}", codec);
                let read = ClientMessage::parse(&json, Limit::OFF);
                prop_assert_eq!(read.map(|read| read.kind()).ok(), expected.as_ref().map(ClientMessage::kind).ok());
            }
        }
    }
}

/// Every type of message, as the model knows them.
fn types() -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (null, one) = (raw(&Value::Null), raw(&json!("1")));
    let of = |message: &Value| message["type"].as_str().unwrap_or_default().to_owned();
    let entry = [entry(["a", "b", "c"], &null, [1, 2])];
    let server = server_messages(&["a", "b", "c"], &null, &one, [1, 2], &entry);
    let server = server.iter().map(|message| Ok(of(&in_json(message)?)));
    let client = MessageKind::ALL
        .iter()
        .filter(|kind| **kind != MessageKind::Invalid);
    Ok((
        client.map(|kind| kind.as_str().to_owned()).collect(),
        server.collect::<Result<_>>()?,
    ))
}

#[test]
fn the_proto_schema_has_every_type_and_no_other() -> Result<()> {
    let (client, server) = types()?;
    for (name, types) in [("ClientMessage", client), ("ServerMessage", server)] {
        let message = schema()?.get_message_by_name(&format!("wsfleet.v1.{name}"));
        let message = message.context(name)?;
        let published: BTreeSet<_> = message.fields().map(|field| field.name().to_owned()).collect();
        assert_eq!(published, types, "{name}");
    }
    Ok(())
}

fn asyncapi() -> Result<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/asyncapi.yaml");
    Ok(serde_yaml_ng::from_str(&std::fs::read_to_string(path)?)?)
}

/// Follows a `$ref` within the document.
fn at<'d>(document: &'d Value, reference: &'d Value) -> Result<&'d Value> {
    let Some(path) = reference["$ref"].as_str() else {
        return Ok(reference);
    };
    let pointer = path
        .strip_prefix('#')
        .context("a reference within the document")?;
    at(
        document,
        document.pointer(pointer).with_context(|| path.to_owned())?,
    )
}

/// Checks the part of JSON Schema that the document uses; what it does not know is an error.
fn check(document: &Value, schema: &Value, value: &Value) -> Result<()> {
    let schema = at(document, schema)?;
    for (keyword, rule) in schema.as_object().context("a schema is an object")? {
        let fits = match keyword.as_str() {
            "description" | "title" => true,
            "const" => value == rule,
            "enum" => rule.as_array().is_some_and(|allowed| allowed.contains(value)),
            "type" => match rule {
                Value::String(name) => is(value, name),
                Value::Array(names) => names
                    .iter()
                    .any(|name| name.as_str().is_some_and(|name| is(value, name))),
                _ => false,
            },
            "minimum" => value.as_f64() >= rule.as_f64(),
            "minLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap_or(0)),
            "maxLength" => value
                .as_str()
                .is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap_or(0)),
            "required" => rule
                .as_array()
                .context("a list")?
                .iter()
                .all(|name| name.as_str().is_some_and(|name| value.get(name).is_some())),
            "items" => {
                let elements = value.as_array().context("an array")?;
                elements
                    .iter()
                    .try_for_each(|element| check(document, rule, element))?;
                true
            }
            "properties" => {
                // stricter than JSON Schema: a field that is not published is found
                for (name, field) in value.as_object().context("an object")? {
                    let property = rule
                        .get(name)
                        .with_context(|| format!("`{name}` is not published"))?;
                    check(document, property, field).with_context(|| name.clone())?;
                }
                true
            }
            other => anyhow::bail!("the check does not know `{other}`"),
        };
        ensure!(fits, "{keyword}: {rule} does not allow {value}");
    }
    Ok(())
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        _ => false,
    }
}

#[test]
fn the_asyncapi_document_describes_every_message_field_by_field() -> Result<()> {
    let document = asyncapi()?;
    let (payload, id) = (raw(&json!({"any": ["json"]})), raw(&json!(7)));
    let entry = [entry(["a", "b", "c"], &payload, [1, 2])];
    let server = server_messages(&["a", "b", "c"], &payload, &id, [1, 2], &entry);
    let server = server.iter().map(in_json).collect::<Result<Vec<_>>>()?;
    let client = client_messages(["name", "id"], &json!([1]));
    for (operation, messages) in [("receive", client), ("send", server)] {
        let channel = at(&document, &document["operations"][operation]["channel"])?;
        let published = document["operations"][operation]["messages"]
            .as_array()
            .context(operation)?;
        assert_eq!(published.len(), messages.len(), "{operation}");
        for message in &messages {
            let name = camel(message["type"].as_str().context("a type")?);
            let reference = published
                .iter()
                .find(|reference| {
                    reference["$ref"]
                        .as_str()
                        .is_some_and(|path| path.ends_with(&format!("/{operation}.{name}")))
                })
                .with_context(|| format!("{operation} {name} is not published"))?;
            let published = at(&document, reference)?;
            check(&document, &published["payload"], message)
                .with_context(|| format!("{operation} {name}"))?;
            let fields = at(&document, &published["payload"])?["properties"]
                .as_object()
                .context("properties")?;
            let (told, said): (BTreeSet<_>, BTreeSet<_>) = (
                fields.keys().collect(),
                message.as_object().context("an object")?.keys().collect(),
            );
            assert_eq!(told, said, "{operation} {name}");
        }
        ensure!(channel["address"] == "/ws", "{channel}");
    }
    Ok(())
}

#[test]
fn the_asyncapi_document_knows_every_error_code_and_every_subprotocol() -> Result<()> {
    let document = asyncapi()?;
    let text = |values: &Value| -> Result<BTreeSet<String>> {
        let values = values.as_array().context("a list")?.iter();
        values
            .map(|value| Ok(value.as_str().context("a text")?.to_owned()))
            .collect()
    };
    let codes: BTreeSet<_> = ErrorCode::ALL
        .iter()
        .map(|code| code.as_str().to_owned())
        .collect();
    assert_eq!(
        text(&document["components"]["schemas"]["errorCode"]["enum"])?,
        codes
    );
    let names: BTreeSet<_> = Codec::ALL
        .iter()
        .map(|codec| codec.subprotocol().to_owned())
        .collect();
    let headers = &document["channels"]["client"]["bindings"]["ws"]["headers"];
    assert_eq!(
        text(&headers["properties"]["Sec-WebSocket-Protocol"]["enum"])?,
        names
    );
    assert_eq!(document["asyncapi"].as_str(), Some("3.0.0"));
    Ok(())
}
