//! The fields of a client's message: found in one pass, and checked where the message's type uses them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::client::{
    ClientMessage, EVENT_NAME_BYTES, ParseError, Place, RequestId, RoomPlace, USER_ID_BYTES,
};
use crate::config::Limit;

/// The fields that any type knows, as written. Their types are checked only where the message's type uses them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields<'a> {
    kind: Option<&'a RawValue>,
    room: Option<&'a RawValue>,
    payload: Option<&'a RawValue>,
    target_user_id: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    token: Option<&'a RawValue>,
    pub(super) id: Option<&'a RawValue>,
    msg_id: Option<&'a RawValue>,
    epoch: Option<&'a RawValue>,
    offset: Option<&'a RawValue>,
    rooms: Option<&'a RawValue>,
    user: Option<&'a RawValue>,
    limit: Option<&'a RawValue>,
    before: Option<&'a RawValue>,
    after: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    pub(super) fn scan(text: &'a str) -> Result<Self, ParseError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let fields = (&mut json).deserialize_map(FieldsVisitor);
        match fields.and_then(|fields| json.end().map(|()| fields)) {
            Ok(fields) => Ok(fields),
            // JSON, but not an object: it has no type
            Err(_) if !begins_object(text) && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
                Err(ParseError::UnknownType)
            }
            Err(_) => Err(ParseError::InvalidJson),
        }
    }

    pub(super) fn message(
        &self,
        id: Option<RequestId<'a>>,
        room_name_bytes: Limit,
    ) -> Result<ClientMessage<'a>, ParseError> {
        let kind = self.kind.and_then(text_of).ok_or(ParseError::UnknownType)?;
        Ok(match &*kind {
            "join" => ClientMessage::Join {
                room: self.room(room_name_bytes)?,
                place: self.place()?,
                id,
            },
            "leave" => ClientMessage::Leave {
                room: self.room(room_name_bytes)?,
                id,
            },
            "room_message" => ClientMessage::RoomMessage {
                room: self.room(room_name_bytes)?,
                payload: self.payload.ok_or(ParseError::MissingField("payload"))?,
                id: request_id("id", self.id)?,
                msg_id: request_id("msgId", self.msg_id)?,
            },
            "direct_message" => ClientMessage::DirectMessage {
                target_user_id: self.target_user_id()?,
                payload: self.payload.ok_or(ParseError::MissingField("payload"))?,
                id: request_id("id", self.id)?,
                msg_id: request_id("msgId", self.msg_id)?,
            },
            "event" => ClientMessage::Event {
                name: self.name()?,
                payload: self.payload.ok_or(ParseError::MissingField("payload"))?,
                id: request_id("id", self.id)?,
                msg_id: request_id("msgId", self.msg_id)?,
            },
            "resume" => ClientMessage::Resume {
                rooms: self.rooms(room_name_bytes)?,
                user: self.user()?,
                id: request_id("id", self.id)?,
            },
            "history" => ClientMessage::History {
                room: self.room(room_name_bytes)?,
                limit: number("limit", self.limit)?.ok_or(ParseError::MissingField("limit"))?,
                before: number("before", self.before)?,
                id: request_id("id", self.id)?,
            },
            "presence" => ClientMessage::Presence {
                room: self.room(room_name_bytes)?,
                limit: number("limit", self.limit)?,
                after: self.after()?,
                id: request_id("id", self.id)?,
            },
            "refresh" => ClientMessage::Refresh {
                token: self.token()?,
                id,
            },
            "ping" => ClientMessage::Ping,
            _ => return Err(ParseError::UnknownType),
        })
    }

    fn room(&self, limit: Limit) -> Result<Cow<'a, str>, ParseError> {
        let raw = self.room.ok_or(ParseError::MissingField("room"))?;
        room_name(text_of(raw), limit)
    }

    /// Where the client was: both fields, or none.
    fn place(&self) -> Result<Option<Place<'a>>, ParseError> {
        let (epoch, offset) = match (given(self.epoch), given(self.offset)) {
            (None, None) => return Ok(None),
            (Some(epoch), Some(offset)) => (epoch, offset),
            (None, Some(_)) => return Err(ParseError::MissingField("epoch")),
            (Some(_), None) => return Err(ParseError::MissingField("offset")),
        };
        let epoch = text_of(epoch).ok_or(ParseError::InvalidField("epoch", "a text"))?;
        let offset = number("offset", Some(offset))?.unwrap_or_default();
        Ok(Some(Place { epoch, offset }))
    }

    fn rooms(&self, limit: Limit) -> Result<Vec<RoomPlace<'a>>, ParseError> {
        #[derive(Deserialize)]
        struct Wanted<'w> {
            #[serde(borrow)]
            room: Cow<'w, str>,
            #[serde(borrow)]
            epoch: Cow<'w, str>,
            offset: u64,
        }
        let Some(raw) = given(self.rooms) else {
            let alone = given(self.user).is_some();
            return if alone {
                Ok(Vec::new())
            } else {
                Err(ParseError::MissingField("rooms"))
            };
        };
        let wanted: Vec<Wanted<'a>> = serde_json::from_str(raw.get())
            .map_err(|_| ParseError::InvalidField("rooms", "a list of {room, epoch, offset}"))?;
        let wanted = wanted.into_iter().map(|Wanted { room, epoch, offset }| {
            Ok(RoomPlace {
                room: room_name(Some(room), limit)?,
                place: Place { epoch, offset },
            })
        });
        wanted.collect()
    }

    fn user(&self) -> Result<Option<Place<'a>>, ParseError> {
        let Some(raw) = given(self.user) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map_err(|_| ParseError::InvalidField("user", "{epoch, offset}"))
    }

    fn token(&self) -> Result<Cow<'a, str>, ParseError> {
        let raw = self.token.ok_or(ParseError::MissingField("token"))?;
        text_of(raw).ok_or(ParseError::InvalidField("token", "a text"))
    }

    fn after(&self) -> Result<Option<Cow<'a, str>>, ParseError> {
        let Some(raw) = given(self.after) else {
            return Ok(None);
        };
        text_of(raw)
            .filter(|id| id.len() <= USER_ID_BYTES)
            .map(Some)
            .ok_or(ParseError::InvalidField("after", "a text of at most 128 bytes"))
    }

    fn name(&self) -> Result<Cow<'a, str>, ParseError> {
        let raw = self.name.ok_or(ParseError::MissingField("name"))?;
        text_of(raw)
            .filter(|name| (1..=EVENT_NAME_BYTES).contains(&name.len()))
            .ok_or(ParseError::InvalidField("name", "a text of 1 to 128 bytes"))
    }

    fn target_user_id(&self) -> Result<Cow<'a, str>, ParseError> {
        let raw = self
            .target_user_id
            .ok_or(ParseError::MissingField("targetUserId"))?;
        text_of(raw)
            .filter(|id| (1..=USER_ID_BYTES).contains(&id.len()))
            .ok_or(ParseError::InvalidField(
                "targetUserId",
                "a text of 1 to 128 bytes",
            ))
    }
}

fn room_name(name: Option<Cow<'_, str>>, limit: Limit) -> Result<Cow<'_, str>, ParseError> {
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or(ParseError::InvalidField("room", "a text that is not empty"))?;
    if limit.allows(name.len()) {
        Ok(name)
    } else {
        Err(ParseError::RoomNameTooLong(limit.as_setting()))
    }
}

/// A field that may be left out may also be null.
fn given(raw: Option<&RawValue>) -> Option<&RawValue> {
    raw.filter(|raw| raw.get() != "null")
}

fn number(field: &'static str, raw: Option<&RawValue>) -> Result<Option<u64>, ParseError> {
    let Some(raw) = given(raw) else {
        return Ok(None);
    };
    let parsed = raw.get().parse::<u64>();
    parsed
        .map(Some)
        .map_err(|_| ParseError::InvalidField(field, "a whole number that is not negative"))
}

fn request_id<'a>(
    field: &'static str,
    raw: Option<&'a RawValue>,
) -> Result<Option<RequestId<'a>>, ParseError> {
    let Some(raw) = raw else { return Ok(None) };
    let allowed = "a text or a number of at most 128 bytes";
    RequestId::new(raw)
        .map(Some)
        .ok_or(ParseError::InvalidField(field, allowed))
}

/// The text that a JSON string says; `None` when the value is not a string or says no valid text (a lone surrogate).
pub(super) fn text_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str::<String>(json).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

fn begins_object(text: &str) -> bool {
    text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{')
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<&RawValue>()? {
            // one that says no valid text is no field that is known, but JSON
            let slot = match text_of(key).as_deref() {
                Some("type") => &mut fields.kind,
                Some("room") => &mut fields.room,
                Some("payload") => &mut fields.payload,
                Some("targetUserId") => &mut fields.target_user_id,
                Some("name") => &mut fields.name,
                Some("token") => &mut fields.token,
                Some("id") => &mut fields.id,
                Some("msgId") => &mut fields.msg_id,
                Some("epoch") => &mut fields.epoch,
                Some("offset") => &mut fields.offset,
                Some("rooms") => &mut fields.rooms,
                Some("user") => &mut fields.user,
                Some("limit") => &mut fields.limit,
                Some("before") => &mut fields.before,
                Some("after") => &mut fields.after,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = Some(map.next_value()?);
        }
        Ok(fields)
    }
}
