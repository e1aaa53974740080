//! Messages that are kept in Redis: the scripts that append and read them, and what these answer. The layout of the keys is
//! in `docs/decisions/0005-streams.md`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};

use super::super::{Accepted, BrokerError, Kept, MSG_ID_TTL, Page, Position, Span};
use super::answer::place_of;
use super::naming;
use super::script::{Script, Scripts};
use crate::config::Retention;

/// The publish script of streams that keep something. A `msgId` that is known ends it before anything is changed but the time
/// for which the stream is kept: a write, so that the `WAIT` that follows covers the first one's, whoever sent that.
/// `KEYS[1]` stream, `KEYS[2]` its log, `KEYS[3]` the `msgId` if there is one; `ARGV` epoch to use if there is none, TTL of
/// the stream in seconds, event, most messages, milliseconds that they are kept, milliseconds that a `msgId` is.
pub(super) const APPEND: &str = r"
if KEYS[3] then
  local known = redis.call('GET', KEYS[3])
  if known then
    redis.call('EXPIRE', KEYS[1], ARGV[2])
    local at = string.find(known, ' ', 1, true)
    return {string.sub(known, 1, at - 1), tonumber(string.sub(known, at + 1)), 1}
  end
end
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0)
  redis.call('DEL', KEYS[2])
end
local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
local place = string.format('%.0f', offset)
if ARGV[4] ~= '0' then
  local time = redis.call('TIME')
  local ms = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], place .. string.format('-%.0f', ms), 'm', ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  if offset % 16 == 0 then
    local first
    for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 33)) do
      first = entry[1]
      if tonumber(string.match(first, '%-(%d+)$')) >= ms - ARGV[5] then break end
    end
    redis.call('XTRIM', KEYS[2], 'MINID', first)
  end
end
if KEYS[3] then
  redis.call('SET', KEYS[3], epoch .. ' ' .. place, 'PX', ARGV[6])
end
redis.call('PUBLISH', KEYS[1], epoch .. ' ' .. place .. ' ' .. ARGV[3])
return {epoch, offset, 0}
";

/// Position and messages of one moment.
/// `KEYS[1]` stream, `KEYS[2]` its log; `ARGV` epoch to use if there is none, TTL of the stream in seconds, `after` or
/// `before`, the offset, most messages of the answer, most bytes, most messages that are kept, milliseconds that they are.
pub(super) const READ: &str = r"
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0)
  redis.call('DEL', KEYS[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
local last = tonumber(redis.call('HGET', KEYS[1], 'o'))
local forward = ARGV[3] == 'after'
local at = tonumber(ARGV[4])
if not forward and at > last then at = last + 1 end
local most, bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local first = last - ARGV[7] + 1
local since = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[8]
local out, size, more, done = {}, 0, 0, false
while not done do
  local some
  if forward then
    some = redis.call('XRANGE', KEYS[2], string.format('%.0f', at + 1), '+', 'COUNT', 64)
  else
    some = redis.call('XREVRANGE', KEYS[2], string.format('%.0f', at - 1), '-', 'COUNT', 64)
  end
  for _, entry in ipairs(some) do
    local offset, ms = string.match(entry[1], '^(%d+)%-(%d+)$')
    at = tonumber(offset)
    local event = entry[2][2]
    if at < first or tonumber(ms) <= since then
      if not forward then done = true; break end
    elseif #out / 2 >= most or (#out > 0 and size + #event > bytes) then
      more = 1
      done = true
      break
    else
      out[#out + 1] = at
      out[#out + 1] = event
      size = size + #event
    end
  end
  if #some < 64 or (not forward and at <= 1) then done = true end
end
return {epoch, last, more, out}
";

/// A publish that keeps the message, its `msgId`, or both.
#[derive(Clone, Debug)]
pub(super) struct Append {
    pub(super) stream: Arc<[u8]>,
    pub(super) event: Bytes,
    /// Sender and `msgId`.
    pub(super) id: Option<(Arc<str>, Box<str>)>,
    pub(super) retention: Retention,
}

/// A question for what is kept.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) stream: Arc<[u8]>,
    pub(super) span: Span,
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) retention: Retention,
}

/// Messages and milliseconds, as the scripts take them.
fn limits(retention: Retention) -> (u32, u64) {
    let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    match retention {
        Retention::Keep { messages, age } => (messages, millis(age)),
        Retention::Off | Retention::Ephemeral => (0, 0),
    }
}

impl Append {
    pub(super) fn size(&self) -> usize {
        let id = self.id.as_ref().map_or(0, |(sender, id)| sender.len() + id.len());
        self.stream.len() + self.event.len() + id
    }

    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        let log = naming::log(&self.stream);
        let id = self.id.as_ref();
        let id = id.map(|(sender, id)| naming::message_id(&self.stream, sender, id));
        let mut cmd = match &id {
            Some(id) => scripts.on_stream(Script::Append, &[&self.stream, &log, id]),
            None => scripts.on_stream(Script::Append, &[&self.stream, &log]),
        };
        let (messages, millis) = limits(self.retention);
        let id_millis = MSG_ID_TTL.as_secs() * 1_000;
        cmd.arg(&self.event[..]).arg(messages).arg(millis).arg(id_millis);
        cmd
    }
}

impl Read {
    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        let log = naming::log(&self.stream);
        let mut cmd = scripts.on_stream(Script::Read, &[&self.stream, &log]);
        match self.span {
            Span::After(offset) => cmd.arg("after").arg(offset),
            // beyond any offset: the script begins at the last one
            Span::Before(before) => cmd.arg("before").arg(before.unwrap_or(1 << 53)),
        };
        let (messages, millis) = limits(self.retention);
        cmd.arg(self.messages).arg(self.bytes).arg(messages).arg(millis);
        cmd
    }
}

/// What was read, not taken apart: whoever asked does that, not the link.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pages {
    position: Position,
    more: bool,
    /// Offset, event, and so on.
    parts: Vec<Value>,
}

impl Pages {
    /// The messages in order; `Refused` when one is not ours.
    pub(super) fn page(self, span: Span) -> Result<Page, BrokerError> {
        let mut messages = Vec::with_capacity(self.parts.len() / 2);
        for pair in self.parts.chunks(2) {
            let kept = match pair {
                [Value::Int(offset), Value::BulkString(event)] => u64::try_from(*offset)
                    .ok()
                    .zip(serde_json::from_slice(event).ok())
                    .map(|(offset, event)| Kept {
                        offset,
                        event: Arc::new(event),
                    }),
                _ => None,
            };
            messages.push(kept.ok_or_else(|| BrokerError::Refused("a log that makes no sense".into()))?);
        }
        if matches!(span, Span::Before(_)) {
            messages.reverse();
        }
        Ok(Page {
            position: self.position,
            messages,
            more: self.more,
        })
    }
}

/// The answer of [`APPEND`].
pub(super) fn accepted(epoch: &Value, offset: i64, duplicate: i64) -> Option<Accepted> {
    Some(Accepted {
        position: place_of(epoch, offset)?,
        duplicate: duplicate != 0,
    })
}

/// The answer of [`READ`].
pub(super) fn pages(epoch: &Value, offset: i64, more: i64, parts: &[Value]) -> Option<Pages> {
    Some(Pages {
        position: place_of(epoch, offset)?,
        more: more != 0,
        parts: parts.to_vec(),
    })
}
