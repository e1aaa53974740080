//! What is asked of Redis about users' connections and gateways' leases, as commands.
//!
//! A user's connections are the fields of one hash: `<lease> <connection>`, without values. Every script touches that one
//! key, so it runs on one slot of a cluster, in one atomic step; leases, which have keys of their own, are asked for apart.

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::script::{Script, Scripts};

/// How long the connections of a gateway that is gone still count.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// A user's connections are forgotten when nobody has touched them for so long; while there are any, their gateways touch
/// them more often.
const SEATS_TTL: Duration = Duration::from_hours(1);

/// Adds a connection to its user's, unless there are too many: then the answer is the leases under which the others are.
/// `KEYS[1]` seats; `ARGV` field, most, TTL in seconds.
pub(super) const TAKE: &str = r"
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[2]) then
  local seen, leases = {}, {}
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    local lease = string.match(field, '^[^ ]*')
    if not seen[lease] then
      seen[lease] = true
      leases[#leases + 1] = lease
    end
  end
  return table.concat(leases, ' ')
end
redis.call('HSET', KEYS[1], ARGV[1], '')
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
";

/// Removes the connections under a lease.
/// `KEYS[1]` seats; `ARGV` lease.
pub(super) const CLEAR: &str = r"
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.match(field, '^[^ ]*') == ARGV[1] then
    redis.call('HDEL', KEYS[1], field)
  end
end
return 1
";

/// The user's connections: their fields, one a line.
/// `KEYS[1]` seats.
pub(super) const LIST: &str = r"return table.concat(redis.call('HKEYS', KEYS[1]), '\n')";

/// One thing asked about a user's connections, or about a lease.
#[derive(Clone, Debug)]
pub(super) enum SeatRequest {
    /// One connection more, unless there are `most`.
    Take {
        seats: Arc<[u8]>,
        field: Arc<str>,
        most: u32,
    },
    /// One less.
    Give { seats: Arc<[u8]>, field: Arc<str> },
    /// None under this lease.
    Clear { seats: Arc<[u8]>, lease: Arc<str> },
    /// All of them.
    List { seats: Arc<[u8]> },
    /// A new lease of this gateway.
    BeginLease { key: Arc<[u8]>, gateway: Arc<str> },
    /// The lease for longer; answered with nothing when it has run out.
    RenewLease { key: Arc<[u8]>, gateway: Arc<str> },
    /// Whose lease it is; answered with nothing when it has run out.
    ReadLease { key: Arc<[u8]> },
    /// The lease no more.
    EndLease { key: Arc<[u8]> },
}

impl SeatRequest {
    /// Bytes that it keeps while it waits.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Take { seats, field, .. } | Self::Give { seats, field } => seats.len() + field.len(),
            Self::Clear { seats, lease } => seats.len() + lease.len(),
            Self::BeginLease { key, gateway } | Self::RenewLease { key, gateway } => {
                key.len() + gateway.len()
            }
            Self::List { seats: key } | Self::ReadLease { key } | Self::EndLease { key } => key.len(),
        }
    }

    /// The key that it is about.
    pub(super) fn name(&self) -> &[u8] {
        match self {
            Self::Take { seats, .. }
            | Self::Give { seats, .. }
            | Self::Clear { seats, .. }
            | Self::List { seats } => seats,
            Self::BeginLease { key, .. }
            | Self::RenewLease { key, .. }
            | Self::ReadLease { key }
            | Self::EndLease { key } => key,
        }
    }

    /// The command.
    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        match self {
            Self::Take { seats, field, most } => scripts
                .run(Script::TakeSeat, seats)
                .arg(&**field)
                .arg(*most)
                .arg(SEATS_TTL.as_secs())
                .take(),
            Self::Give { seats, field } => redis::cmd("HDEL").arg(&seats[..]).arg(&**field).take(),
            Self::Clear { seats, lease } => scripts.run(Script::ClearSeats, seats).arg(&**lease).take(),
            Self::List { seats } => scripts.run(Script::ListSeats, seats),
            Self::BeginLease { key, gateway } => set(key, gateway).take(),
            Self::RenewLease { key, gateway } => set(key, gateway).arg("XX").take(),
            Self::ReadLease { key } => redis::cmd("GET").arg(&key[..]).take(),
            Self::EndLease { key } => redis::cmd("DEL").arg(&key[..]).take(),
        }
    }
}

fn set(key: &[u8], gateway: &str) -> Cmd {
    let mut cmd = redis::cmd("SET");
    cmd.arg(key).arg(gateway).arg("EX").arg(LEASE.as_secs());
    cmd
}
