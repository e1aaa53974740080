//! One room's ledger. Pure: time is passed in, as the duration since the run began.
//!
//! Offsets of a room are consecutive within an epoch, and a member must get all of them after the offset of its
//! `joined`. So a member needs its last offset only: the next one is right, a higher one leaves a gap, a lower one
//! either fills a gap (out of order) or is a duplicate. Gaps show every loss but that of the last messages; these are
//! found by the acknowledgements that publishers got: what was acknowledged longer than the grace period ago must have
//! arrived. A message delivered carries no epoch, so an offset that falls back is judged a second later, when
//! acknowledgements have told whether a new epoch began.
//!
//! A client that comes back and is told `recovered: true` is a member from where it was on, so what it is given of the past
//! is judged like everything else.
//!
//! Memory: 40 bytes per member, some more for one in trouble; per room one entry per 100 ms of the
//! grace period, and what [`Contents`] takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Counts;
use super::contents::{Contents, Identity, Sight};
use super::epochs::Epochs;
use super::handover::{Cost, Seam};
use super::member::{Member, SUSPECT_AGE, deliver_odd, enter_epoch, fill_gap, judge_suspects, open_gap};

/// Acknowledgements this close are judged together.
const ACK_GRAIN: Duration = Duration::from_millis(100);

/// A member of one room's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberKey(u32);

/// A position that can be compared with others of the same generation (one per epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Coverage {
    pub(crate) generation: u32,
    pub(crate) offset: u64,
}

/// The highest offset acknowledged within one grain of time.
#[derive(Debug)]
struct Acked {
    generation: u32,
    offset: u64,
    opened_at: Duration,
    latest_at: Duration,
}

#[derive(Debug)]
pub(crate) struct RoomLedger {
    grace: Duration,
    epochs: Epochs,
    contents: Contents,
    members: Vec<Option<Member>>,
    free: Vec<u32>,
    acked: VecDeque<Acked>,
    /// Every member that has been joined for the grace period must have got this.
    due: Option<Coverage>,
    counts: Counts,
}

impl RoomLedger {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            epochs: Epochs::default(),
            contents: Contents::default(),
            members: Vec::new(),
            free: Vec::new(),
            acked: VecDeque::new(),
            due: None,
            counts: Counts::default(),
        }
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// A socket joined: it will get every message after `offset`.
    pub(crate) fn join(&mut self, epoch: &str, offset: u64, now: Duration) -> (MemberKey, Coverage) {
        let generation = self.epochs.generation(epoch);
        let member = Member {
            generation,
            last: offset,
            joined_at: now,
            trouble: None,
        };
        let key = if let Some(key) = self.free.pop() {
            self.members[key as usize] = Some(member);
            key
        } else {
            self.members.push(Some(member));
            (self.members.len() - 1) as u32
        };
        (MemberKey(key), Coverage { generation, offset })
    }

    /// How far a member got.
    pub(crate) fn coverage(&self, key: MemberKey) -> Option<Coverage> {
        let member = self.members.get(key.0 as usize)?.as_ref()?;
        Some(member.coverage())
    }

    /// What the server calls the epoch of a position.
    pub(crate) fn epoch(&self, at: Coverage) -> Option<Arc<str>> {
        self.epochs.name(at.generation)
    }

    /// What changing sockets cost.
    pub(crate) fn cost(&self, seam: Seam) -> Cost {
        let Seam { ended, next } = seam;
        if ended.generation == next.generation {
            return Cost {
                missed: next.offset.saturating_sub(ended.offset),
                overlapped: ended.offset.saturating_sub(next.offset),
                taken_back: 0,
            };
        }
        let given = self.epochs.went_on(next.generation, ended.generation);
        let had = ended.offset.max(given.unwrap_or(0));
        Cost {
            taken_back: self.epochs.acked(ended.generation).saturating_sub(had),
            ..Cost::default()
        }
    }

    /// A client that had been in one epoch was given what it had missed in another one, which goes on with it.
    pub(crate) fn goes_on(&mut self, before: &str, epoch: &str, up_to: u64) {
        let (before, generation) = (self.epochs.generation(before), self.epochs.generation(epoch));
        if before != generation {
            self.epochs.go_on(generation, before, up_to);
        }
    }

    /// A socket left or ended; what has not come by now is not held against anybody. Tells how far it got.
    pub(crate) fn leave(&mut self, key: MemberKey, now: Duration) -> Option<Coverage> {
        let mut member = self.members.get_mut(key.0 as usize)?.take()?;
        self.free.push(key.0);
        judge_suspects(&mut member, &self.epochs, now, Duration::ZERO, &mut self.counts);
        Some(member.coverage())
    }

    /// A message was delivered to a member; whether nobody had seen this offset before.
    pub(crate) fn deliver(&mut self, key: MemberKey, offset: u64, message: Identity, now: Duration) -> bool {
        let current = self.epochs.current();
        let Some(Some(member)) = self.members.get_mut(key.0 as usize) else {
            return false;
        };
        if offset == member.last + 1 && (member.generation == current || member.last != 0) {
            member.last = offset;
        } else if !deliver_odd(member, &self.epochs, offset, now, &mut self.counts) {
            return false;
        }
        let generation = member.generation;
        self.see(generation, offset, message)
    }

    fn see(&mut self, generation: u32, offset: u64, message: Identity) -> bool {
        match self.contents.see(generation, offset, message) {
            Sight::First => true,
            Sight::Same => false,
            Sight::Other => {
                self.counts.contradicted += 1;
                false
            }
        }
    }

    /// A message that is in the room at another offset, too.
    pub(crate) const fn repeated(&mut self) {
        self.counts.repeated += 1;
    }

    /// A member was told that these offsets will not come.
    pub(crate) fn gap(&mut self, key: MemberKey, epoch: &str, from: u64, to: u64, now: Duration) {
        /// Offsets that are taken out of gaps one by one.
        const MOST_LATE: usize = 10_000;
        let generation = self.epochs.generation(epoch);
        let Some(Some(member)) = self.members.get_mut(key.0 as usize) else {
            return;
        };
        if member.generation != generation {
            enter_epoch(member, &self.epochs, now, &mut self.counts);
            // below it the new epoch has what the former one had
            member.last = member.last.max(from.saturating_sub(1));
        }
        for offset in (from..=to.min(member.last)).take(MOST_LATE) {
            if fill_gap(member, offset).is_some() {
                self.counts.lost -= 1;
                self.counts.gapped += 1;
            }
        }
        if from > member.last + 1 {
            self.counts.lost += from - member.last - 1;
            open_gap(member, from - 1, false);
        }
        self.counts.gapped += to.saturating_sub(member.last);
        member.last = member.last.max(to);
    }

    /// The server gives a member everything up to `to` again.
    pub(crate) fn again(&mut self, key: MemberKey, to: u64) {
        if let Some(Some(member)) = self.members.get_mut(key.0 as usize) {
            member.trouble.get_or_insert_default().again = to;
        }
    }

    /// A publisher was told that its message has this position; whether nobody had seen this offset before.
    pub(crate) fn acked(&mut self, epoch: &str, offset: u64, message: Identity, now: Duration) -> bool {
        let generation = self.epochs.generation(epoch);
        self.epochs.acknowledge(generation, offset);
        let first = self.see(generation, offset, message);
        if let Some(back) = self.acked.back_mut()
            && back.generation == generation
            && now.saturating_sub(back.opened_at) < ACK_GRAIN
        {
            back.offset = back.offset.max(offset);
            back.latest_at = now;
            return first;
        }
        self.acked.push_back(Acked {
            generation,
            offset,
            opened_at: now,
            latest_at: now,
        });
        first
    }

    /// Judges what has become due.
    pub(crate) fn sweep(&mut self, now: Duration) {
        while let Some(acked) = self
            .acked
            .pop_front_if(|acked| acked.latest_at + self.grace <= now)
        {
            let Acked {
                generation, offset, ..
            } = acked;
            match &mut self.due {
                Some(due) if due.generation == generation => due.offset = due.offset.max(offset),
                due => *due = Some(Coverage { generation, offset }),
            }
        }
        let (due, grace) = (self.due, self.grace);
        for member in self.members.iter_mut().flatten() {
            if member.trouble.is_some() {
                judge_suspects(member, &self.epochs, now, SUSPECT_AGE, &mut self.counts);
            }
            if let Some(due) = due
                && member.generation == due.generation
                && member.last < due.offset
                && member.joined_at + grace <= now
            {
                self.counts.lost += due.offset - member.last;
                open_gap(member, due.offset, true);
            }
        }
    }
}

#[cfg(test)]
mod tests;
