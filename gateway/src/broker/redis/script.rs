//! What is asked of Redis, as commands. What it answers is in [`answer`](super::answer).
//!
//! A stream's metadata is a hash at the stream's name: `e` the epoch, `o` the offset of the last message. Every script
//! touches that key, the channel of the same name, and keys with the same hash tag ([`history`]), so it runs on one slot
//! of a cluster, in one atomic step.

use std::sync::Arc;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::super::Position;
use super::answer::{Failure, failure, text};
use super::attend::{PresenceRequest, scripts};
use super::entry::{self, Entry};
use super::history::{self, Append, Read};
use super::naming;
use super::seat::{self, SeatRequest};

/// Metadata outlives messages by far: 30 days after the stream was last used its epoch may end.
const META_TTL_SECONDS: u32 = 30 * 24 * 3600;

/// Creates the epoch if there is none, takes the next offset and publishes, all in one step.
/// `KEYS[1]` stream; `ARGV` epoch to use if there is none, TTL in seconds, event.
/// `%.0f`: Lua's own conversion loses digits from 10^14 on.
const PUBLISH: &str = r"
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0)
end
local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', KEYS[1], epoch .. ' ' .. string.format('%.0f', offset) .. ' ' .. ARGV[3])
return {epoch, offset}
";

/// Reads the position; creates the epoch if there is none, so that an empty room has one to tell. What is left of an epoch
/// whose metadata was evicted goes with it: its offsets would stand in the new one's way.
/// `KEYS[1]` stream, `KEYS[2]` its log; `ARGV` epoch to use if there is none, TTL in seconds.
const POSITION: &str = r"
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0)
  redis.call('DEL', KEYS[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {epoch, tonumber(redis.call('HGET', KEYS[1], 'o'))}
";

/// Begins a new epoch if Redis lost offsets that had been delivered (a restart from an old file, a failover):
/// otherwise they would be given out twice and dropped as duplicates. Only the first gateway that sees it changes it.
/// Where nothing was lost that was acknowledged, the new epoch goes on with what is left, and says so.
/// `KEYS[1]` stream, `KEYS[2]` its log; `ARGV` new epoch, TTL in seconds, epoch that went back, offset delivered in it, `keep`
/// or nothing.
const RENEW: &str = r"
local epoch = redis.call('HGET', KEYS[1], 'e')
local offset = tonumber(redis.call('HGET', KEYS[1], 'o') or 0)
if not epoch or (epoch == ARGV[3] and offset < tonumber(ARGV[4])) then
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  local whole = not last or tonumber(string.match(last[1], '^%d+')) <= offset
  if epoch and ARGV[5] == 'keep' and whole then
    epoch = ARGV[1] .. '.' .. string.format('%.0f', offset) .. '.' .. string.match(epoch, '^[^.]*')
    redis.call('HSET', KEYS[1], 'e', epoch)
  else
    epoch = ARGV[1]
    redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0)
    redis.call('DEL', KEYS[2])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {epoch, tonumber(redis.call('HGET', KEYS[1], 'o'))}
";

const SOURCES: [&str; 20] = [
    PUBLISH,
    POSITION,
    RENEW,
    history::APPEND,
    history::READ,
    seat::TAKE,
    seat::CLEAR,
    scripts::ENTER,
    scripts::EXIT,
    scripts::CLEAR,
    scripts::EXPIRE,
    scripts::PAGE,
    scripts::TOUCH,
    scripts::DUE,
    scripts::LEASE,
    scripts::END,
    scripts::SWEEP,
    scripts::ROOMS,
    seat::LIST,
    entry::APPEND,
];

/// The scripts, in the order of [`SOURCES`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    Publish,
    Position,
    Renew,
    Append,
    Read,
    TakeSeat,
    ClearSeats,
    Enter,
    Exit,
    ClearRoom,
    Expire,
    Page,
    Touch,
    Due,
    Lease,
    End,
    Sweep,
    Rooms,
    ListSeats,
    AppendEvent,
}

/// How messages reach subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channels {
    /// Every channel of a Redis is in one place.
    Plain,
    /// Each is where its slot is (sharded pub/sub).
    Sharded,
}

impl Channels {
    const fn verb(self) -> &'static str {
        match self {
            Self::Plain => "PUBLISH",
            Self::Sharded => "SPUBLISH",
        }
    }
}

/// The loaded scripts.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    /// SHA-1, as Redis tells it, in the order of [`SOURCES`].
    names: [Arc<str>; SOURCES.len()],
    channels: Channels,
}

impl Scripts {
    /// The commands that load them.
    pub(super) fn load(channels: Channels) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(SOURCES.len());
        let call = format!("'{}'", channels.verb());
        for source in SOURCES {
            pipeline
                .cmd("SCRIPT")
                .arg("LOAD")
                .arg(source.replace("'PUBLISH'", &call));
        }
        pipeline
    }

    /// The commands that load the same ones again.
    pub(super) fn reload(&self) -> Pipeline {
        Self::load(self.channels)
    }

    /// Their names from the answers to [`Scripts::load`].
    pub(super) fn from_answers(values: &[Value], channels: Channels) -> Result<Self, Failure> {
        let mut names = std::array::from_fn(|_| Arc::from(""));
        for (name, value) in names.iter_mut().zip(values) {
            *name = text(value).ok_or_else(|| failure(value))?.into();
        }
        Ok(Self { names, channels })
    }

    /// The command that runs a script on its one key; its arguments are still to be added.
    pub(super) fn run(&self, script: Script, key: &[u8]) -> Cmd {
        self.run_on(script, &[key])
    }

    /// The same for a script on several keys.
    pub(super) fn run_on(&self, script: Script, keys: &[&[u8]]) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&*self.names[script as usize]).arg(keys.len()).arg(keys);
        cmd
    }

    /// The same for scripts on a stream's keys, with the arguments that all of them take first.
    pub(super) fn on_stream(&self, script: Script, keys: &[&[u8]]) -> Cmd {
        let mut cmd = self.run_on(script, keys);
        cmd.arg(new_epoch()).arg(META_TTL_SECONDS);
        cmd
    }
}

/// One thing asked of Redis about one stream (or channel).
#[derive(Clone, Debug)]
pub(super) enum Request {
    /// Publish with the next offset.
    Publish { stream: Arc<[u8]>, event: Bytes },
    /// Publish with the next offset, and keep something.
    Append(Box<Append>),
    /// A client's event, for workers.
    Entry(Box<Entry>),
    /// Read what is kept.
    Read(Box<Read>),
    /// Publish without an offset: announcements, probes.
    Announce { channel: Arc<[u8]>, payload: Bytes },
    /// The same with a client's message, which is to reach all gateways.
    Pass { channel: Arc<[u8]>, payload: Bytes },
    /// Where the stream stands.
    Position { stream: Arc<[u8]> },
    /// A new epoch, unless the stream stands at or after this place; it may `keep` what is left.
    Renew {
        stream: Arc<[u8]>,
        delivered: Position,
        keep: bool,
    },
    /// About users' connections.
    Seat(SeatRequest),
    /// About who is in rooms.
    Presence(PresenceRequest),
    /// Whether the link answers.
    Ping,
    /// What the nodes of a cluster are.
    Nodes,
}

impl Request {
    /// A client's message, of which every gateway is to hear. An event is none: workers read it from the stream.
    pub(super) const fn is_message(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Append(_) | Self::Pass { .. })
    }

    /// A message that is kept, or has a place: what a replica may be waited for.
    pub(super) const fn is_placed(&self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Append(_) | Self::Entry(_))
    }

    /// Bytes that it keeps while it waits.
    pub(super) fn size(&self) -> usize {
        const OVERHEAD: usize = 128;
        OVERHEAD
            + match self {
                Self::Publish { stream, event } => stream.len() + event.len(),
                Self::Append(append) => append.size(),
                Self::Entry(entry) => entry.size(),
                Self::Read(read) => read.stream.len(),
                Self::Announce { channel, payload } | Self::Pass { channel, payload } => {
                    channel.len() + payload.len()
                }
                Self::Position { stream } | Self::Renew { stream, .. } => stream.len(),
                Self::Seat(request) => request.size(),
                Self::Presence(request) => request.size(),
                Self::Ping | Self::Nodes => 0,
            }
    }

    /// The name whose slot says which node it is for; none when any can answer.
    pub(super) fn name(&self) -> Option<&[u8]> {
        match self {
            Self::Publish { stream, .. } | Self::Position { stream } | Self::Renew { stream, .. } => {
                Some(stream)
            }
            Self::Append(append) => Some(&append.stream),
            Self::Entry(entry) => Some(entry.name()),
            Self::Read(read) => Some(&read.stream),
            Self::Announce { channel, .. } | Self::Pass { channel, .. } => Some(channel),
            Self::Seat(request) => Some(request.name()),
            Self::Presence(request) => Some(request.name()),
            Self::Ping | Self::Nodes => None,
        }
    }

    /// The command.
    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        match self {
            Self::Publish { stream, event } => {
                let mut cmd = scripts.on_stream(Script::Publish, &[stream]);
                cmd.arg(&event[..]);
                cmd
            }
            Self::Append(append) => append.command(scripts),
            Self::Entry(entry) => entry.command(scripts),
            Self::Read(read) => read.command(scripts),
            Self::Position { stream } => scripts.on_stream(Script::Position, &[stream, &naming::log(stream)]),
            Self::Renew {
                stream,
                delivered,
                keep,
            } => {
                let mut cmd = scripts.on_stream(Script::Renew, &[stream, &naming::log(stream)]);
                cmd.arg(&*delivered.epoch).arg(delivered.offset);
                cmd.arg(if *keep { "keep" } else { "" });
                cmd
            }
            Self::Announce { channel, payload } | Self::Pass { channel, payload } => {
                let mut cmd = redis::cmd(scripts.channels.verb());
                cmd.arg(&channel[..]).arg(&payload[..]);
                cmd
            }
            Self::Seat(request) => request.command(scripts),
            Self::Presence(request) => request.command(scripts),
            Self::Ping => redis::cmd("PING"),
            Self::Nodes => redis::cmd("CLUSTER").arg("NODES").take(),
        }
    }
}

/// 64 random bits: two lives of one stream must not share it.
fn new_epoch() -> String {
    format!("{:016x}", rand::random::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_sixteen_hex_digits_and_differ() {
        let (a, b) = (new_epoch(), new_epoch());
        assert_eq!(a.len(), 16);
        assert!(a.bytes().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(a, b);
    }
}
