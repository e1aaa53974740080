//! One member of a room: what it got, and what is wrong with that. Pure.

use std::time::Duration;

use super::Counts;
use super::epochs::Epochs;
use super::room::Coverage;

/// Gaps kept per member in case they are filled later, and offsets kept until they are judged.
pub(super) const MOST_GAPS: usize = 64;
/// How long an offset that fell back waits for news of a new epoch.
pub(super) const SUSPECT_AGE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Member {
    pub(super) generation: u32,
    /// Everything up to here was delivered, or counted.
    pub(super) last: u64,
    pub(super) joined_at: Duration,
    pub(super) trouble: Option<Box<Trouble>>,
}

/// Only members for which something went wrong have one.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    pub(super) gaps: Vec<Gap>,
    pub(super) suspects: Vec<(u64, Duration)>,
    /// Up to here messages come again, since the server was asked twice.
    pub(super) again: u64,
}

/// Offsets `from..=to` that did not come; each is counted as lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    from: u64,
    to: u64,
    /// Found by an acknowledgement, not by a later message: filling it is late, not out of order.
    tail: bool,
}

impl Member {
    pub(super) const fn coverage(&self) -> Coverage {
        Coverage {
            generation: self.generation,
            offset: self.last,
        }
    }
}

/// An offset that is not the next one, or may belong to a new epoch; whether it is one that the member had not got.
pub(super) fn deliver_odd(
    member: &mut Member,
    epochs: &Epochs,
    offset: u64,
    now: Duration,
    counts: &mut Counts,
) -> bool {
    if member.generation != epochs.current() && (offset <= member.last || member.last == 0) {
        enter_epoch(member, epochs, now, counts);
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
        return false;
    }
    true
}

/// The room began a new epoch: offsets count from 1 again. What had been acknowledged in the old one and did not come
/// will not come: this is how the member is told.
pub(super) fn enter_epoch(member: &mut Member, epochs: &Epochs, now: Duration, counts: &mut Counts) {
    counts.epoch_changes += 1;
    let Trouble { gaps, suspects, .. } = member.trouble.take().map(|trouble| *trouble).unwrap_or_default();
    let late = gaps.iter().filter(|gap| gap.tail);
    let late: u64 = late.map(|gap| gap.to + 1 - gap.from).sum();
    counts.lost -= late;
    counts.taken_back += late + epochs.acked(member.generation).saturating_sub(member.last);
    member.generation = epochs.current();
    member.last = 0;
    for (offset, _) in suspects {
        deliver_odd(member, epochs, offset, now, counts);
    }
}

/// Notes that `member.last + 1 ..= to` did not come, and goes on after it.
pub(super) fn open_gap(member: &mut Member, to: u64, tail: bool) {
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
pub(super) fn fill_gap(member: &mut Member, offset: u64) -> Option<Gap> {
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
    let trouble = member.trouble.get_or_insert_default();
    if offset <= trouble.again {
        return 0;
    }
    let suspects = &mut trouble.suspects;
    if suspects.len() == MOST_GAPS {
        return 1;
    }
    suspects.push((offset, now));
    0
}

/// Offsets that fell back at least `age` ago: the beginning of a new epoch, or duplicates.
pub(super) fn judge_suspects(
    member: &mut Member,
    epochs: &Epochs,
    now: Duration,
    age: Duration,
    counts: &mut Counts,
) {
    let Some(trouble) = &mut member.trouble else {
        return;
    };
    if trouble.suspects.is_empty() {
        return;
    }
    if member.generation != epochs.current() {
        return enter_epoch(member, epochs, now, counts);
    }
    let before = trouble.suspects.len();
    trouble.suspects.retain(|(_, at)| *at + age > now);
    counts.duplicated += (before - trouble.suspects.len()) as u64;
}
