//! The codecs of the protocol, spoken without any code of the gateway: MessagePack by serde, Protocol Buffers by the
//! published schema, which is read at run time.

use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::{Map, Value};
use tokio_tungstenite::tungstenite::Message;
use wsfleet_gateway::protocol::Codec;

/// Fields that are JSON text in the schema, and any value in JSON.
const JSON_TEXT: &str = "payload";

/// The published schema.
pub fn schema() -> Result<&'static DescriptorPool> {
    static SCHEMA: OnceLock<DescriptorPool> = OnceLock::new();
    if let Some(schema) = SCHEMA.get() {
        return Ok(schema);
    }
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let files = protox::compile(["wsfleet.v1.proto"], [docs])?;
    let schema = DescriptorPool::from_file_descriptor_set(files)?;
    Ok(SCHEMA.get_or_init(|| schema))
}

fn descriptor(name: &str) -> Result<MessageDescriptor> {
    let name = format!("wsfleet.v1.{name}");
    schema()?.get_message_by_name(&name).context(name)
}

/// A client's message as a frame.
pub fn encode(codec: Codec, message: &Value) -> Result<Message> {
    Ok(match codec {
        Codec::Json => Message::text(message.to_string()),
        Codec::MsgPack => Message::binary(rmp_serde::to_vec(message)?),
        Codec::Proto => Message::binary(to_proto(message)?),
    })
}

/// What a frame of the gateway says.
pub fn decode(codec: Codec, frame: &Message) -> Result<Value> {
    Ok(match (codec, frame) {
        (Codec::Json, Message::Text(text)) => serde_json::from_str(text)?,
        (Codec::MsgPack, Message::Binary(bytes)) => rmp_serde::from_slice(bytes)?,
        (Codec::Proto, Message::Binary(bytes)) => from_proto(bytes)?,
        _ => bail!("{codec:?} in {frame:?}"),
    })
}

/// `{type: t, …}` to `{t: {…}}`, which is the JSON form of a `oneof`.
fn to_proto(message: &Value) -> Result<Vec<u8>> {
    let mut fields = message.as_object().context("an object")?.clone();
    let kind = fields.remove("type").context("a type")?;
    if let Some(payload) = fields.get_mut(JSON_TEXT) {
        *payload = payload.to_string().into();
    }
    let envelope = Value::from(Map::from_iter([(
        camel(kind.as_str().context("a text")?),
        fields.into(),
    )]));
    let message = DynamicMessage::deserialize(descriptor("ClientMessage")?, envelope)?;
    Ok(message.encode_to_vec())
}

fn from_proto(bytes: &[u8]) -> Result<Value> {
    let message = DynamicMessage::decode(descriptor("ServerMessage")?, bytes)?;
    ensure!(
        message.unknown_fields().next().is_none(),
        "not in the schema: {message:?}"
    );
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let envelope = message.serialize_with_options(serde_json::value::Serializer, &options)?;
    let Value::Object(envelope) = envelope else {
        bail!("{envelope}")
    };
    let (kind, fields) = envelope.into_iter().next().context("an empty message")?;
    let Value::Object(mut fields) = fields else {
        bail!("{fields}")
    };
    payload_from_text(&mut fields)?;
    for message in fields
        .get_mut("messages")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        payload_from_text(message.as_object_mut().context("an object")?)?;
    }
    fields.insert("type".to_owned(), snake(&kind).into());
    Ok(fields.into())
}

fn payload_from_text(fields: &mut Map<String, Value>) -> Result<()> {
    if let Some(payload) = fields.get_mut(JSON_TEXT) {
        *payload = serde_json::from_str(payload.as_str().context("JSON text")?)?;
    }
    Ok(())
}

/// `room_message` to `roomMessage`.
pub fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

/// `roomMessage` to `room_message`.
fn snake(camel: &str) -> String {
    let mut name = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}
