//! A client's event as an entry of the stream that workers read. What the entry's fields are is in `docs/workers.md`.

use std::sync::Arc;

use redis::Cmd;

use super::super::{MSG_ID_TTL, WorkerEvent};
use super::naming;
use super::script::{Script, Scripts};
use crate::config::EventStream;

/// Appends, unless the `msgId` is known; a known one is written again with the time that it has left, so that the `WAIT`
/// that follows covers the first one's entry, whoever sent that. Answers as [`history::APPEND`](super::history::APPEND)
/// does, with no place.
/// `KEYS[1]` stream, `KEYS[2]` the `msgId` if there is one; `ARGV` most entries, milliseconds that a `msgId` is kept, then
/// fields and values.
pub(super) const APPEND: &str = r"
if KEYS[2] then
  local left = redis.call('PTTL', KEYS[2])
  if left > 0 then
    redis.call('PEXPIRE', KEYS[2], left)
    return {'', 0, 1}
  end
end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 3))
if KEYS[2] then
  redis.call('SET', KEYS[2], '', 'PX', ARGV[2])
end
return {'', 0, 0}
";

/// An event, and where it goes.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) stream: EventStream,
    pub(super) event: Arc<WorkerEvent>,
}

impl Entry {
    pub(super) fn size(&self) -> usize {
        let event = &self.event;
        let id = event.msg_id.as_ref().map_or(0, |id| id.len());
        event.name.len() + event.payload.get().len() + event.user_id.len() + event.connection_id.len() + id
    }

    /// The stream's key.
    pub(super) fn name(&self) -> &[u8] {
        self.stream.name.as_bytes()
    }

    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        let event = &*self.event;
        let id = event.msg_id.as_ref();
        let id = id.map(|id| naming::event_id(&self.stream.name, &event.user_id, id));
        let mut cmd = match &id {
            Some(id) => scripts.run_on(Script::AppendEvent, &[self.name(), id]),
            None => scripts.run(Script::AppendEvent, self.name()),
        };
        let id_millis = MSG_ID_TTL.as_secs() * 1_000;
        cmd.arg(self.stream.length).arg(id_millis);
        cmd.arg("name").arg(&*event.name);
        cmd.arg("payload").arg(event.payload.get());
        cmd.arg("userId").arg(&*event.user_id);
        cmd.arg("connectionId").arg(&*event.connection_id);
        cmd.arg("serverId").arg(&*event.server_id);
        cmd.arg("timestamp").arg(event.timestamp);
        cmd
    }
}
