//! What any gateway does for the fleet: the members of gateways that have ended are removed, and users that have been away
//! for too long are announced as gone. Redis gives each piece to one gateway at a time.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep};

use super::super::answer::Answer;
use super::super::attend::{Fleet, PresenceRequest, Under};
use super::Presence;
use crate::broker::BrokerError;

/// Longest time between two looks for what is to be done.
const TICK: Duration = Duration::from_secs(1);
/// Rooms of an ended gateway that are cleared at a time.
const ROOMS: usize = 64;

impl Presence {
    /// Does what is to be done for the fleet. Not at first: after Redis was away other gateways must have the time to come
    /// back before they are taken for ended.
    pub(super) async fn sweep(&self) -> Result<(), BrokerError> {
        let since = Instant::now();
        let fresh = self.leases.lock().begun == 1;
        let tick = TICK.min(self.lasts / 5);
        loop {
            sleep(tick.mul_f64(rand::random::<f64>() + 0.5)).await;
            let ended = since.elapsed() >= self.lasts;
            if !ended && !fresh {
                continue;
            }
            match self.sweep_once(ended).await {
                Err(BrokerError::Refused(error)) => tracing::warn!(%error, "presence cannot be cleared up"),
                other => other?,
            }
        }
    }

    async fn sweep_once(&self, ended: bool) -> Result<(), BrokerError> {
        let sweep = Fleet::Sweep {
            // its members had the time since its last renewal at the latest
            gone: (self.settings.hold + self.lasts / 3).saturating_sub(self.lasts),
            turn: self.lasts / 3,
            ended,
        };
        let Answer::List(leases, _, all) = self.ask(self.fleet(sweep)).await? else {
            return Ok(());
        };
        let leases = usize::try_from(leases).unwrap_or(usize::MAX).min(all.len());
        let (leases, rooms) = all.split_at(leases);
        for dead in leases {
            self.clear_gateway(dead).await?;
        }
        for answer in join_all(rooms.iter().map(|room| self.expire(room))).await {
            answer?;
        }
        Ok(())
    }

    /// Removes what is there under a lease that has ended.
    async fn clear_gateway(&self, dead: &Arc<str>) -> Result<(), BrokerError> {
        let (until, name) = dead.split_once(' ').unwrap_or_default();
        let under = Under::from(name);
        loop {
            let rooms = Fleet::Rooms {
                lease: under.name(),
                most: ROOMS,
            };
            let Answer::List(_, _, rooms) = self.ask(self.fleet(rooms)).await? else {
                return Ok(());
            };
            if rooms.is_empty() {
                break;
            }
            try_join_all(rooms.into_iter().map(|room| self.clear_room(&under, until, room))).await?;
        }
        let dead = Arc::clone(dead);
        self.ask(self.fleet(Fleet::Forget { dead })).await?;
        self.stats.presence_cleared.inc();
        tracing::info!(
            lease = name,
            "the members of a gateway that has ended are cleared away"
        );
        Ok(())
    }

    async fn clear_room(&self, under: &Under, until: &str, room: Arc<str>) -> Result<(), BrokerError> {
        let clear = || PresenceRequest::Clear {
            stream: self.stream(&room),
            under: under.clone(),
            until: until.into(),
        };
        while self.ask(clear()).await? != Answer::Nothing {}
        let due = Fleet::DueAt {
            room: Arc::clone(&room),
            until: until.into(),
        };
        self.ask(self.fleet(due)).await?;
        let lease = under.name();
        self.ask(self.fleet(Fleet::Unregister { lease, room })).await?;
        Ok(())
    }

    /// Announces users that have been away for too long, and sees to it that the next one will be.
    async fn expire(&self, room: &Arc<str>) -> Result<(), BrokerError> {
        if let Some(wait) = self.expire_all(room).await? {
            return self.due(room, wait, false).await;
        }
        let room_now = Arc::clone(room);
        self.ask(self.fleet(Fleet::NotDue { room: room_now })).await?;
        // who has left in between was not noted
        if let Some(wait) = self.expire_all(room).await? {
            self.due(room, wait, true).await?;
        }
        Ok(())
    }

    /// Time until the next user is gone, if there is one.
    async fn expire_all(&self, room: &Arc<str>) -> Result<Option<Duration>, BrokerError> {
        loop {
            let expire = PresenceRequest::Expire {
                stream: self.stream(room),
                most: self.settings.announced,
            };
            match self.ask(expire).await? {
                Answer::Text(wait) if &*wait == "0" => {}
                Answer::Text(wait) => {
                    return Ok(Some(Duration::from_millis(wait.parse().unwrap_or_default())));
                }
                _ => return Ok(None),
            }
        }
    }

    pub(super) async fn due(&self, room: &Arc<str>, wait: Duration, sooner: bool) -> Result<(), BrokerError> {
        let room = Arc::clone(room);
        self.ask(self.fleet(Fleet::Due { room, wait, sooner })).await?;
        Ok(())
    }
}
