//! The JSON messages. What the server sends is parsed in one pass and borrowed; what is published carries its
//! publisher, sequence and send time, so that whoever gets it knows how long it took.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ledger::Identity;

/// Text that is borrowed unless it has escapes (`Option<Cow<str>>` would always be copied).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Any message of the server: the fields that matter here, of all types together. Other fields are ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Incoming<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) room: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) room_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) payload: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) offset: Option<u64>,
    #[serde(borrow, default)]
    pub(crate) epoch: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) code: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) server_id: Option<Text<'a>>,
    /// Milliseconds.
    #[serde(default)]
    pub(crate) reconnect_delay: Option<u64>,
    /// Of `joined`.
    #[serde(default)]
    pub(crate) recovered: Option<bool>,
    #[serde(borrow, default)]
    pub(crate) reason: Option<Text<'a>>,
    /// Of `gap`.
    #[serde(default)]
    pub(crate) from: Option<u64>,
    #[serde(default)]
    pub(crate) to: Option<u64>,
    /// Of `ack`.
    #[serde(default)]
    pub(crate) duplicate: Option<bool>,
    /// Of `error`.
    #[serde(default)]
    pub(crate) temporary: Option<bool>,
}

impl<'a> Incoming<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The sequence that `ack` and `error` echo.
    pub(crate) fn sequence(&self) -> Option<u64> {
        self.id?.get().parse().ok()
    }
}

/// What is published. The field names are short because they are sent a lot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload<'a> {
    /// The run that published it; times of other runs mean nothing here.
    #[serde(rename = "r")]
    pub(crate) run: u32,
    /// Publishing client.
    #[serde(rename = "p")]
    pub(crate) publisher: u32,
    /// Its sequence, the run over.
    #[serde(rename = "s")]
    pub(crate) sequence: u64,
    /// Microseconds since the run began.
    #[serde(rename = "t")]
    pub(crate) sent: u64,
    /// Filler.
    #[serde(rename = "x")]
    pub(crate) filler: &'a str,
}

impl Payload<'_> {
    /// Which message it is.
    pub(crate) const fn identity(&self) -> Identity {
        Identity::new(self.run, self.sequence)
    }
}

/// A room, and where the client was in it, if it was.
#[derive(Debug, Serialize)]
pub(crate) struct Place<'a> {
    pub(crate) room: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
}

/// The frame payload of `join`.
pub(crate) fn join(place: &Place<'_>) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Join<'a> {
        r#type: &'static str,
        #[serde(flatten)]
        place: &'a Place<'a>,
    }
    serde_json::to_vec(&Join {
        r#type: "join",
        place,
    })
}

/// The frame payload of `resume`.
pub(crate) fn resume(rooms: &[Place<'_>]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Resume<'a> {
        r#type: &'static str,
        rooms: &'a [Place<'a>],
    }
    serde_json::to_vec(&Resume {
        r#type: "resume",
        rooms,
    })
}

/// The frame payload of `room_message`; its id is the payload's sequence, and so is its `msgId`, behind the run's number.
pub(crate) fn room_message(
    room: &str,
    payload: &Payload<'_>,
    with_msg_id: bool,
) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct RoomMessage<'a> {
        r#type: &'static str,
        room: &'a str,
        id: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        msg_id: Option<String>,
        payload: &'a Payload<'a>,
    }
    serde_json::to_vec(&RoomMessage {
        r#type: "room_message",
        room,
        id: payload.sequence,
        msg_id: with_msg_id.then(|| format!("{}-{}", payload.run, payload.sequence)),
        payload,
    })
}

/// How much filler makes a payload `bytes` long.
pub(crate) fn filler(payload: &Payload<'_>, bytes: usize) -> Result<usize, serde_json::Error> {
    Ok(bytes.saturating_sub(serde_json::to_vec(payload)?.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_room_message_is_borrowed_from_the_frame_and_its_payload_read_back() {
        let payload = Payload {
            run: 1,
            publisher: 2,
            sequence: 3,
            sent: 4,
            filler: "xx",
        };
        let text = format!(
            r#"{{"type":"room_message","roomId":"load-0","userId":"u","payload":{},"timestamp":1,"serverId":"s","offset":9}}"#,
            serde_json::to_string(&payload).unwrap()
        );
        let incoming = Incoming::parse(text.as_bytes()).unwrap();
        assert!(matches!(incoming.room_id, Some(Text(Cow::Borrowed("load-0")))));
        assert_eq!(incoming.offset, Some(9));
        let read: Payload<'_> = serde_json::from_str(incoming.payload.unwrap().get()).unwrap();
        assert_eq!(read, payload);
    }

    #[test]
    fn escapes_nulls_and_unknown_fields_do_no_harm() {
        let text = r#"{"type":"\u0065rror","error":"no","code":"x","temporary":true,"id":7,"room":null,"new":{"a":[1]}}"#;
        let incoming = Incoming::parse(text.as_bytes()).unwrap();
        assert_eq!(incoming.kind.0, "error");
        assert_eq!(incoming.sequence(), Some(7));
        assert!(incoming.room.is_none());
    }

    #[test]
    fn filler_makes_a_payload_as_long_as_wanted() {
        let mut payload = Payload {
            run: 1,
            publisher: 2,
            sequence: 3,
            sent: 4,
            filler: "",
        };
        let text = "x".repeat(filler(&payload, 100).unwrap());
        payload.filler = &text;
        assert_eq!(serde_json::to_vec(&payload).unwrap().len(), 100);
    }

    #[test]
    fn client_messages_have_the_protocols_fields() {
        let payload = Payload {
            run: 1,
            publisher: 2,
            sequence: 3,
            sent: 4,
            filler: "",
        };
        let value: serde_json::Value =
            serde_json::from_slice(&room_message("a\"b", &payload, true).unwrap()).unwrap();
        assert_eq!(value["type"], "room_message");
        assert_eq!(value["room"], "a\"b");
        assert_eq!((&value["id"], &value["msgId"]), (&json!(3), &json!("1-3")));
        let place = |offset: Option<u64>| Place {
            room: "r",
            epoch: offset.map(|_| "e"),
            offset,
        };
        assert_eq!(join(&place(None)).unwrap(), br#"{"type":"join","room":"r"}"#);
        let value: serde_json::Value = serde_json::from_slice(&resume(&[place(Some(7))]).unwrap()).unwrap();
        assert_eq!(
            value,
            json!({"type": "resume", "rooms": [{"room": "r", "epoch": "e", "offset": 7}]})
        );
    }
}
