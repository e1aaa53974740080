//! One room's ledger. Pure: time is passed in, as the duration since the run began.
//!
//! Offsets of a room are consecutive within an epoch, and a member must get all of them after the offset of its
//! `joined`. So a member needs its last offset only: the next one is right, a higher one leaves a gap, a lower one
//! either fills a gap (out of order) or is a duplicate. Gaps show every loss but that of the last messages; these are
//! found by the acknowledgements that publishers got: what was acknowledged longer than the grace period ago must have
//! arrived. A message delivered carries no epoch, so an offset that falls back is judged a second later, when
//! acknowledgements have told whether a new epoch began.
//!
//! Memory: 32 bytes per member; a member in trouble keeps at most [`MOST_GAPS`] gaps and as many suspects; per room
//! one entry per 100 ms of the grace period.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Counts;

/// Gaps kept per member in case they are filled later, and offsets kept until they are judged.
const MOST_GAPS: usize = 64;
/// Epochs remembered per room.
const MOST_EPOCHS: usize = 16;
/// Acknowledgements this close are judged together.
const ACK_GRAIN: Duration = Duration::from_millis(100);
/// How long an offset that fell back waits for news of a new epoch.
const SUSPECT_AGE: Duration = Duration::from_secs(1);

/// A member of one room's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemberKey(u32);

/// A position that can be compared with others of the same generation (one per epoch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coverage {
    pub(crate) generation: u32,
    pub(crate) offset: u64,
}

#[derive(Debug)]
struct Member {
    generation: u32,
    /// Everything up to here was delivered, or counted.
    last: u64,
    joined_at: Duration,
    trouble: Option<Box<Trouble>>,
}

/// Only members for which something went wrong have one.
#[derive(Debug, Default)]
struct Trouble {
    gaps: Vec<Gap>,
    suspects: Vec<(u64, Duration)>,
}

/// Offsets `from..=to` that did not come; each is counted as lost.
#[derive(Clone, Copy, Debug)]
struct Gap {
    from: u64,
    to: u64,
    /// Found by an acknowledgement, not by a later message: filling it is late, not out of order.
    tail: bool,
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
    /// The latest epochs with their generations; the last one is in force.
    epochs: VecDeque<(Arc<str>, u32)>,
    members: Vec<Option<Member>>,
    free: Vec<u32>,
    acked: VecDeque<Acked>,
    /// Every member that has been joined for the grace period must have got this.
    due: Option<Coverage>,
    counts: Counts,
}

impl RoomLedger {
    pub(crate) const fn new(grace: Duration) -> Self {
        Self {
            grace,
            epochs: VecDeque::new(),
            members: Vec::new(),
            free: Vec::new(),
            acked: VecDeque::new(),
            due: None,
            counts: Counts {
                lost: 0,
                late: 0,
                duplicated: 0,
                out_of_order: 0,
                epoch_changes: 0,
            },
        }
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// A socket joined: it will get every message after `offset`.
    pub(crate) fn join(&mut self, epoch: &str, offset: u64, now: Duration) -> (MemberKey, Coverage) {
        let generation = self.generation(epoch);
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

    /// A socket left or ended; what has not come by now is not held against anybody. Tells how far it got.
    pub(crate) fn leave(&mut self, key: MemberKey, now: Duration) -> Option<Coverage> {
        let mut member = self.members.get_mut(key.0 as usize)?.take()?;
        self.free.push(key.0);
        judge_suspects(&mut member, self.current(), now, Duration::ZERO, &mut self.counts);
        Some(Coverage {
            generation: member.generation,
            offset: member.last,
        })
    }

    /// A message was delivered to a member.
    pub(crate) fn deliver(&mut self, key: MemberKey, offset: u64, now: Duration) {
        let current = self.current();
        let Some(Some(member)) = self.members.get_mut(key.0 as usize) else {
            return;
        };
        if offset == member.last + 1 && (member.generation == current || member.last != 0) {
            member.last = offset;
            return;
        }
        deliver_odd(member, current, offset, now, &mut self.counts);
    }

    /// A publisher was told that its message has this position.
    pub(crate) fn acked(&mut self, epoch: &str, offset: u64, now: Duration) {
        let generation = self.generation(epoch);
        if let Some(back) = self.acked.back_mut()
            && back.generation == generation
            && now.saturating_sub(back.opened_at) < ACK_GRAIN
        {
            back.offset = back.offset.max(offset);
            back.latest_at = now;
            return;
        }
        self.acked.push_back(Acked {
            generation,
            offset,
            opened_at: now,
            latest_at: now,
        });
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
        let (current, due, grace) = (self.current(), self.due, self.grace);
        for member in self.members.iter_mut().flatten() {
            if member.trouble.is_some() {
                judge_suspects(member, current, now, SUSPECT_AGE, &mut self.counts);
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

    /// The generation of the epoch in force.
    fn current(&self) -> u32 {
        self.epochs.back().map_or(0, |(_, generation)| *generation)
    }

    fn generation(&mut self, epoch: &str) -> u32 {
        if let Some((_, generation)) = self.epochs.iter().rev().find(|(known, _)| &**known == epoch) {
            return *generation;
        }
        let generation = if self.epochs.is_empty() {
            0
        } else {
            self.current() + 1
        };
        if self.epochs.len() == MOST_EPOCHS {
            self.epochs.pop_front();
        }
        self.epochs.push_back((epoch.into(), generation));
        generation
    }
}

/// An offset that is not the next one, or may belong to a new epoch.
fn deliver_odd(member: &mut Member, current: u32, offset: u64, now: Duration, counts: &mut Counts) {
    if member.generation != current && (offset <= member.last || member.last == 0) {
        enter_epoch(member, current, now, counts);
    }
    if offset == member.last + 1 {
        member.last = offset;
    } else if offset > member.last {
        counts.lost += offset - member.last - 1;
        open_gap(member, offset - 1, false);
        member.last = offset;
    } else if let Some(gap) = fill_gap(member, offset) {
        counts.lost -= 1;
        if gap.tail {
            counts.late += 1;
        } else {
            counts.out_of_order += 1;
        }
    } else {
        counts.duplicated += suspect(member, offset, now);
    }
}

/// The room began a new epoch: offsets count from 1 again.
fn enter_epoch(member: &mut Member, current: u32, now: Duration, counts: &mut Counts) {
    counts.epoch_changes += 1;
    let suspects = member
        .trouble
        .take()
        .map(|trouble| trouble.suspects)
        .unwrap_or_default();
    member.generation = current;
    member.last = 0;
    for (offset, _) in suspects {
        deliver_odd(member, current, offset, now, counts);
    }
}

/// Notes that `member.last + 1 ..= to` did not come, and goes on after it.
fn open_gap(member: &mut Member, to: u64, tail: bool) {
    let gap = Gap {
        from: member.last + 1,
        to,
        tail,
    };
    member.last = to;
    let gaps = &mut member.trouble.get_or_insert_default().gaps;
    if gaps.len() == MOST_GAPS {
        gaps.remove(0);
    }
    gaps.push(gap);
}

/// Takes `offset` out of the gap it lies in, if any; returns the gap as it was.
fn fill_gap(member: &mut Member, offset: u64) -> Option<Gap> {
    let gaps = &mut member.trouble.as_mut()?.gaps;
    let index = gaps
        .iter()
        .position(|gap| (gap.from..=gap.to).contains(&offset))?;
    let gap = gaps.remove(index);
    let parts = [
        Gap {
            to: offset - 1,
            ..gap
        },
        Gap {
            from: offset + 1,
            ..gap
        },
    ];
    gaps.extend(parts.into_iter().filter(|part| part.from <= part.to));
    gaps.truncate(MOST_GAPS);
    Some(gap)
}

/// Keeps an offset that fell back until it can be judged; tells how many duplicates that makes at once.
fn suspect(member: &mut Member, offset: u64, now: Duration) -> u64 {
    let suspects = &mut member.trouble.get_or_insert_default().suspects;
    if suspects.len() == MOST_GAPS {
        return 1;
    }
    suspects.push((offset, now));
    0
}

/// Offsets that fell back at least `age` ago: the beginning of a new epoch, or duplicates.
fn judge_suspects(member: &mut Member, current: u32, now: Duration, age: Duration, counts: &mut Counts) {
    let Some(trouble) = &mut member.trouble else {
        return;
    };
    if trouble.suspects.is_empty() {
        return;
    }
    if member.generation != current {
        return enter_epoch(member, current, now, counts);
    }
    let before = trouble.suspects.len();
    trouble.suspects.retain(|(_, at)| *at + age > now);
    counts.duplicated += (before - trouble.suspects.len()) as u64;
}

#[cfg(test)]
mod tests;
