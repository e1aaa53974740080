//! The scripts behind what is asked about who is in rooms. Each runs on keys of one slot, in one atomic step.
//!
//! A user of a room is in one of three states, told by a field of the room's `state`: it is there by one connection (no
//! field), by `n` more (`n`), or it has left from a gateway and may be back (`@<server>`). Only in the third is it among
//! `leaving`, too; in each it is one of `users`.

/// Now, in milliseconds.
macro_rules! now {
    () => {
        r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"
    };
}

/// `less(state, leaving, user, server, until)`: a connection of the user is gone.
macro_rules! less {
    () => {
        r"
local function less(state, leaving, user, server, till)
  local known = redis.call('HGET', state, user)
  if not known then
    redis.call('HSET', state, user, '@' .. server)
    redis.call('ZADD', leaving, string.format('%.0f', till), user)
  elseif known == '1' then
    redis.call('HDEL', state, user)
  elseif string.sub(known, 1, 1) ~= '@' then
    redis.call('HINCRBY', state, user, -1)
  end
end
"
    };
}

/// A connection more. What a gateway puts back into a room of which Redis knew nothing is not announced, by whichever
/// gateway it is.
/// `KEYS` at, users, state, leaving, channel, quiet; `ARGV` connection, user, announcement, most users that hear it, TTL in
/// seconds, milliseconds for which a new room is quiet for what is put back, `back` or nothing.
pub(in super::super) const ENTER: &str = r"
local known = redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0
local new = redis.call('ZADD', KEYS[2], 'NX', 0, ARGV[2]) == 1
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[5])
if new then
  local users = redis.call('ZCARD', KEYS[2])
  local quiet = known
  if ARGV[7] == 'back' then
    quiet = quiet or users == 1 or redis.call('EXISTS', KEYS[6]) == 1
  end
  if users == 1 then redis.call('SET', KEYS[6], 1, 'PX', ARGV[6]) end
  if not quiet and users <= tonumber(ARGV[4]) then
    redis.call('PUBLISH', KEYS[5], ARGV[3])
  end
elseif not known then
  local state = redis.call('HGET', KEYS[3], ARGV[2])
  if state and string.sub(state, 1, 1) == '@' then
    redis.call('HDEL', KEYS[3], ARGV[2])
    redis.call('ZREM', KEYS[4], ARGV[2])
  else
    redis.call('HINCRBY', KEYS[3], ARGV[2], 1)
    redis.call('EXPIRE', KEYS[3], ARGV[5])
  end
end
return 1
";

/// A connection less.
/// `KEYS` at, state, leaving; `ARGV` connection, gateway, milliseconds until its user is gone, TTL in seconds.
pub(in super::super) const EXIT: &str = concat!(
    less!(),
    now!(),
    r"
local user = redis.call('HGET', KEYS[1], ARGV[1])
if not user then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
less(KEYS[2], KEYS[3], user, ARGV[2], now + ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 1
"
);

/// Some connections less, of a gateway that has ended; nothing is answered when there are no more.
/// `KEYS` at, state, leaving; `ARGV` gateway, when users are gone, TTL in seconds, about how many.
pub(in super::super) const CLEAR: &str = concat!(
    less!(),
    r"
local cursor, found = '0', {}
repeat
  local page = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', ARGV[4])
  cursor, found = page[1], page[2]
until #found > 0 or cursor == '0'
for at = 1, #found, 2 do
  if redis.call('HDEL', KEYS[1], found[at]) == 1 then
    less(KEYS[2], KEYS[3], found[at + 1], ARGV[1], ARGV[2])
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[3])
return redis.call('EXISTS', KEYS[1]) == 1
"
);

/// Users that have been away for too long are gone. Answered with the milliseconds until the next one is, if one will be.
/// `KEYS` users, state, leaving, channel; `ARGV` most users that hear it, how many at most.
pub(in super::super) const EXPIRE: &str = concat!(
    now!(),
    r#"
for _, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local server = string.sub(redis.call('HGET', KEYS[2], user) or '@', 2)
  if redis.call('ZCARD', KEYS[1]) <= tonumber(ARGV[1]) then
    local event = '{"l":{"u":' .. cjson.encode(user) .. ',"s":' .. cjson.encode(server) .. '}}'
    redis.call('PUBLISH', KEYS[4], event)
  end
  redis.call('ZREM', KEYS[1], user)
  redis.call('HDEL', KEYS[2], user)
  redis.call('ZREM', KEYS[3], user)
end
local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
if not first[2] then return false end
return string.format('%.0f', math.max(0, first[2] - now))
"#
);

/// How many users there are, whether there are more than these, and these.
/// `KEYS` users; `ARGV` behind which, how many at most.
pub(in super::super) const PAGE: &str = r"
local most = tonumber(ARGV[2])
local users = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], '+', 'LIMIT', 0, most + 1)
local more = #users > most and 1 or 0
if more == 1 then users[#users] = nil end
return {redis.call('ZCARD', KEYS[1]), more, users}
";

/// Keeps a room from being forgotten. Answered with the connections of a gateway, and the users that may be back.
/// `KEYS` at, users, state, leaving; `ARGV` TTL in seconds.
pub(in super::super) const TOUCH: &str = r"
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[1]) end
return redis.call('HLEN', KEYS[1]) .. ' ' .. redis.call('ZCARD', KEYS[4])
";

/// When a room is to be looked at for users that are gone.
/// `KEYS` due; `ARGV` room, milliseconds from now, `NX` (at that time at the latest) or `CH` (at that time).
pub(in super::super) const DUE: &str = concat!(
    now!(),
    r"
return redis.call('ZADD', KEYS[1], ARGV[3], string.format('%.0f', now + ARGV[2]), ARGV[1])
"
);

/// Begins a lease, or makes it last for longer; nothing is answered when it has run out.
/// `KEYS` live; `ARGV` lease, milliseconds, `begin` or `renew`.
pub(in super::super) const LEASE: &str = concat!(
    now!(),
    r"
if ARGV[3] == 'renew' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return false end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
return 1
"
);

/// Ends a lease: what is there under it is to be removed.
/// `KEYS` live, dead; `ARGV` lease, milliseconds until its users are gone.
pub(in super::super) const END: &str = concat!(
    now!(),
    r"
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[2], 0, string.format('%.0f ', now + ARGV[2]) .. ARGV[1])
return 1
"
);

/// What there is to do for any gateway: ended leases (`<when users are gone> <lease>`), and rooms of which users are gone.
/// Whoever gets one has it for a while, then others get it, unless it is done. Answered with the number of leases, that of
/// rooms, and both.
/// `KEYS` live, dead, due; `ARGV` milliseconds from a lease's end until its users are gone, milliseconds of the while, how
/// many leases, how many rooms.
pub(in super::super) const SWEEP: &str = concat!(
    now!(),
    r"
local while_ = string.format('%.0f', now + ARGV[2])
local out = {}
if ARGV[3] ~= '0' then
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
    local gone = redis.call('ZSCORE', KEYS[1], lease) + ARGV[1]
    redis.call('ZREM', KEYS[1], lease)
    redis.call('ZADD', KEYS[2], 0, string.format('%.0f ', gone) .. lease)
  end
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[3])) do
    redis.call('ZADD', KEYS[2], while_, dead)
    out[#out + 1] = dead
  end
end
local leases = #out
for _, room in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, ARGV[4])) do
  redis.call('ZADD', KEYS[3], while_, room)
  out[#out + 1] = room
end
return {leases, #out - leases, out}
"
);

/// Some rooms of a gateway.
/// `KEYS` rooms; `ARGV` how many at most.
pub(in super::super) const ROOMS: &str = r"
return {redis.call('SCARD', KEYS[1]), 0, redis.call('SRANDMEMBER', KEYS[1], ARGV[1])}
";
