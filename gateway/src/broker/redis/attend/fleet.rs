//! What is asked about the whole fleet: leases, the rooms under them, and what is to be done when.

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;

use super::super::naming;
use super::super::script::{Script, Scripts};
use super::millis;

/// Rooms that a gateway takes at a time to look for users that are gone.
const DUE_AT_ONCE: usize = 256;
/// Ended leases that it takes at a time.
const ENDED_AT_ONCE: usize = 4;

/// One thing asked about the whole fleet of a database.
#[derive(Clone, Debug)]
pub(in super::super) struct FleetRequest {
    pub(in super::super) database: i64,
    pub(in super::super) what: Fleet,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(in super::super) enum Fleet {
    /// A new lease.
    Begin { lease: Arc<str>, lasts: Duration },
    /// The lease for longer; answered with nothing when it has run out.
    Renew { lease: Arc<str>, lasts: Duration },
    /// The lease no more; users without another one are gone after that time.
    End { lease: Arc<str>, hold: Duration },
    /// All that was there under an ended lease is removed.
    Forget { dead: Arc<str> },
    /// The gateway has members in the room.
    Register { lease: Arc<str>, room: Arc<str> },
    /// It has none any more.
    Unregister { lease: Arc<str>, room: Arc<str> },
    /// Some rooms in which it has members.
    Rooms { lease: Arc<str>, most: usize },
    /// Users of the room are gone after that time; `sooner`: unless others are before.
    Due {
        room: Arc<str>,
        wait: Duration,
        sooner: bool,
    },
    /// The same, at a time in milliseconds.
    DueAt { room: Arc<str>, until: Arc<str> },
    /// Nobody of the room will be gone.
    NotDue { room: Arc<str> },
    /// What there is to do, for whoever asks; of leases that have `ended` only when that is to be told.
    Sweep {
        gone: Duration,
        turn: Duration,
        ended: bool,
    },
}

impl FleetRequest {
    /// The command.
    pub(super) fn command(&self, scripts: &Scripts) -> Cmd {
        let database = self.database;
        let live = || naming::live(database);
        let dead = || naming::dead(database);
        let due = || naming::due(database);
        match &self.what {
            Fleet::Begin { lease, lasts } => {
                let mut cmd = scripts.run(Script::Lease, &live());
                cmd.arg(&**lease).arg(millis(*lasts)).arg("begin").take()
            }
            Fleet::Renew { lease, lasts } => {
                let mut cmd = scripts.run(Script::Lease, &live());
                cmd.arg(&**lease).arg(millis(*lasts)).arg("renew").take()
            }
            Fleet::End { lease, hold } => {
                let mut cmd = scripts.run_on(Script::End, &[&live(), &dead()]);
                cmd.arg(&**lease).arg(millis(*hold)).take()
            }
            Fleet::Forget { dead: ended } => on("ZREM", &dead()).arg(&**ended).take(),
            Fleet::Register { lease, room } => {
                on("SADD", &naming::rooms(database, lease)).arg(&**room).take()
            }
            Fleet::Unregister { lease, room } => {
                on("SREM", &naming::rooms(database, lease)).arg(&**room).take()
            }
            Fleet::Rooms { lease, most } => {
                let key = naming::rooms(database, lease);
                scripts.run(Script::Rooms, &key).arg(*most).take()
            }
            Fleet::Due { room, wait, sooner } => {
                let mut cmd = scripts.run(Script::Due, &due());
                let how = if *sooner { "NX" } else { "CH" };
                cmd.arg(&**room).arg(millis(*wait)).arg(how).take()
            }
            Fleet::DueAt { room, until } => on("ZADD", &due()).arg("NX").arg(&**until).arg(&**room).take(),
            Fleet::NotDue { room } => on("ZREM", &due()).arg(&**room).take(),
            Fleet::Sweep { gone, turn, ended } => {
                let mut cmd = scripts.run_on(Script::Sweep, &[&live(), &dead(), &due()]);
                let leases = if *ended { ENDED_AT_ONCE } else { 0 };
                cmd.arg(millis(*gone)).arg(millis(*turn)).arg(leases);
                cmd.arg(DUE_AT_ONCE).take()
            }
        }
    }
}

fn on(command: &str, key: &[u8]) -> Cmd {
    redis::cmd(command).arg(key).take()
}
