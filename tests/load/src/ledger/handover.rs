//! Where one client is in one room, over all of its sockets: what it tells the server when it comes back, and what it missed
//! between two sockets or got on both. Pure.
//!
//! What was missed between two sockets is no verdict: a client that was told `recovered: false`, or that does not resume,
//! knows of it.

use super::room::{Coverage, MemberKey, RoomLedger};

/// One client's sockets in one room.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Where the coverage of the latest socket that ended stops.
    ended: Option<Coverage>,
    /// Where the coverage of the socket after it starts, when that joined first.
    next: Option<Coverage>,
    /// Sockets that are joined; at most an old and a new one.
    open: Vec<MemberKey>,
    /// The furthest that a socket that ended got.
    reached: Option<Coverage>,
}

/// Where one socket's coverage stops, and where that of the one after it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seam {
    pub(crate) ended: Coverage,
    pub(crate) next: Coverage,
}

/// What a handover came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Messages that came on neither socket.
    pub(crate) missed: u64,
    /// Messages that came on both.
    pub(crate) overlapped: u64,
    /// Messages that had been acknowledged in an epoch that is over, and came on neither socket.
    pub(crate) taken_back: u64,
}

impl Handover {
    /// A socket joined; it gets everything after this position.
    pub(crate) fn joined(&mut self, key: MemberKey, at: Coverage) -> Option<Seam> {
        self.open.push(key);
        if self.open.len() > 1 {
            self.next = Some(at);
            return None;
        }
        let ended = self.ended.take()?;
        Some(Seam { ended, next: at })
    }

    /// A socket ended, having seen everything up to this position.
    pub(crate) fn ended(&mut self, key: MemberKey, at: Coverage) -> Option<Seam> {
        // one that the client does not know of is from before it began anew
        let index = self.open.iter().position(|open| *open == key)?;
        self.open.remove(index);
        self.reached = self.reached.max(Some(at));
        if let Some(next) = self.next.take() {
            return Some(Seam { ended: at, next });
        }
        self.ended = Some(at);
        None
    }

    /// The client has everything up to here.
    pub(crate) fn position(&self, ledger: &RoomLedger) -> Option<Coverage> {
        let open = self.open.iter().filter_map(|key| ledger.coverage(*key));
        open.chain(self.reached).max()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Identity;
    use super::*;

    const NOW: Duration = Duration::ZERO;

    /// A ledger, and one client's view of it.
    fn ledger() -> (RoomLedger, Handover) {
        (RoomLedger::new(Duration::from_secs(5)), Handover::default())
    }

    fn join(
        ledger: &mut RoomLedger,
        handover: &mut Handover,
        epoch: &str,
        offset: u64,
    ) -> (MemberKey, Option<Cost>) {
        let (key, at) = ledger.join(epoch, offset, NOW);
        (key, handover.joined(key, at).map(|seam| ledger.cost(seam)))
    }

    fn end(ledger: &mut RoomLedger, handover: &mut Handover, key: MemberKey) -> Option<Cost> {
        let at = ledger.leave(key, NOW).unwrap();
        handover.ended(key, at).map(|seam| ledger.cost(seam))
    }

    #[test]
    fn a_client_that_was_offline_missed_what_lies_between_its_sockets() {
        let (mut ledger, mut handover) = ledger();
        let (key, _) = join(&mut ledger, &mut handover, "a", 10);
        assert_eq!(end(&mut ledger, &mut handover, key), None);
        let (_, cost) = join(&mut ledger, &mut handover, "a", 14);
        assert_eq!(cost.map(|cost| (cost.missed, cost.overlapped)), Some((4, 0)));
    }

    #[test]
    fn a_client_with_two_sockets_got_on_both_what_came_after_the_second_join() {
        let (mut ledger, mut handover) = ledger();
        let (old, _) = join(&mut ledger, &mut handover, "a", 9);
        let (new, cost) = join(&mut ledger, &mut handover, "a", 10);
        assert_eq!(cost, None);
        for offset in 10..=13 {
            ledger.deliver(old, offset, Identity::default(), NOW);
        }
        let cost = end(&mut ledger, &mut handover, old).unwrap();
        assert_eq!((cost.missed, cost.overlapped), (0, 3));
        assert_eq!(end(&mut ledger, &mut handover, new), None);
    }

    #[test]
    fn a_client_is_where_the_furthest_of_its_sockets_got() {
        let (mut ledger, mut handover) = ledger();
        assert_eq!(handover.position(&ledger), None);
        let (old, _) = join(&mut ledger, &mut handover, "a", 4);
        let (new, _) = join(&mut ledger, &mut handover, "a", 4);
        ledger.deliver(old, 5, Identity::default(), NOW);
        let reached = |offset| {
            Some(Coverage {
                generation: 0,
                offset,
            })
        };
        assert_eq!(handover.position(&ledger), reached(5));
        end(&mut ledger, &mut handover, old);
        assert_eq!(handover.position(&ledger), reached(5));
        ledger.deliver(new, 5, Identity::default(), NOW);
        ledger.deliver(new, 6, Identity::default(), NOW);
        end(&mut ledger, &mut handover, new);
        assert_eq!(handover.position(&ledger), reached(6));
    }

    #[test]
    fn positions_of_different_epochs_are_not_compared_but_what_was_acknowledged_is_taken_back() {
        let (mut ledger, mut handover) = ledger();
        let (key, _) = join(&mut ledger, &mut handover, "a", 10);
        ledger.acked("a", 13, Identity::default(), NOW);
        end(&mut ledger, &mut handover, key);
        let (_, cost) = join(&mut ledger, &mut handover, "b", 99);
        let expected = Cost {
            taken_back: 3,
            ..Cost::default()
        };
        assert_eq!(cost, Some(expected));
        assert_eq!(handover.position(&ledger).map(|at| at.generation), Some(1));
    }

    #[test]
    fn an_epoch_that_goes_on_takes_back_only_what_it_has_not() {
        for (up_to, taken_back) in [(12, 1), (13, 0), (20, 0)] {
            let (mut ledger, mut handover) = ledger();
            let (key, _) = join(&mut ledger, &mut handover, "a", 10);
            ledger.acked("a", 13, Identity::default(), NOW);
            end(&mut ledger, &mut handover, key);
            ledger.goes_on("a", "b", up_to);
            let (_, cost) = join(&mut ledger, &mut handover, "b", 10);
            assert_eq!(cost.map(|cost| cost.taken_back), Some(taken_back), "{up_to}");
        }
    }
}
