//! A client's MessagePack to JSON text.
//!
//! What JSON cannot say is refused: binary data, extension types, infinite numbers and those that are none, keys that are
//! no text. A sender is told so; were it guessed at, members with other codecs would get something else than was sent.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::protocol::client::ParseError;

/// Arrays and maps in each other, at most; deeper is malformed.
pub(super) const DEPTH: usize = 128;

/// The one value that `frame` holds, as JSON text; more than `max` bytes are not written.
pub(super) fn to_json(frame: &[u8], max: usize) -> Result<String, ParseError> {
    let mut writer = Writer {
        text: Vec::with_capacity(frame.len() + frame.len() / 4),
        max,
        refused: None,
    };
    let mut rest = frame;
    let mut values = rmp_serde::Deserializer::new(&mut rest);
    values.set_max_depth(DEPTH);
    let read = Value::of(&mut writer).deserialize(&mut values);
    if let Some(refused) = writer.refused {
        return Err(refused);
    }
    if read.is_err() || !rest.is_empty() {
        return Err(ParseError::InvalidMsgPack);
    }
    String::from_utf8(writer.text).map_err(|_| ParseError::InvalidMsgPack)
}

struct Writer {
    text: Vec<u8>,
    max: usize,
    /// Why what is valid MessagePack is refused nevertheless.
    refused: Option<ParseError>,
}

impl Writer {
    fn write<E: de::Error, T: serde::Serialize + ?Sized>(&mut self, value: &T) -> Result<(), E> {
        serde_json::to_writer(&mut self.text, value).map_err(E::custom)?;
        if self.text.len() > self.max {
            return Err(self.refuse(ParseError::TooBig(self.max)));
        }
        Ok(())
    }

    fn refuse<E: de::Error>(&mut self, because: ParseError) -> E {
        self.refused = Some(because);
        E::custom(because)
    }
}

/// Writes one value, behind what goes before it.
struct Value<'w> {
    writer: &'w mut Writer,
    before: Option<u8>,
    /// Keys are texts.
    key: bool,
}

impl<'w> Value<'w> {
    const fn of(writer: &'w mut Writer) -> Self {
        Self {
            writer,
            before: None,
            key: false,
        }
    }

    /// One that is a part of this one.
    const fn part(&mut self, before: Option<u8>, key: bool) -> Value<'_> {
        Value {
            writer: self.writer,
            before,
            key,
        }
    }

    fn refuse_as_key<E: de::Error>(&mut self) -> Result<(), E> {
        if self.key {
            return Err(self.writer.refuse(ParseError::NotJson));
        }
        Ok(())
    }

    fn write<E: de::Error, T: serde::Serialize + ?Sized>(mut self, value: &T) -> Result<(), E> {
        self.refuse_as_key()?;
        self.writer.write(value)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.writer.text.extend(self.before);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what JSON can say")
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        if value.is_finite() {
            self.write(&value)
        } else {
            Err(self.writer.refuse(ParseError::NotJson))
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        self.writer.write(value)
    }

    /// Also what claims to be text but is not UTF-8.
    fn visit_bytes<E: de::Error>(self, _: &[u8]) -> Result<(), E> {
        Err(self.writer.refuse(ParseError::NotJson))
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.write(&())
    }

    /// An extension type.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<(), D::Error> {
        Err(self.writer.refuse(ParseError::NotJson))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.refuse_as_key()?;
        self.writer.text.push(b'[');
        let mut before = None;
        while elements.next_element_seed(self.part(before, false))?.is_some() {
            before = Some(b',');
        }
        self.writer.text.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.refuse_as_key()?;
        self.writer.text.push(b'{');
        let mut before = None;
        while entries.next_key_seed(self.part(before, true))?.is_some() {
            entries.next_value_seed(self.part(Some(b':'), false))?;
            before = Some(b',');
        }
        self.writer.text.push(b'}');
        Ok(())
    }
}
