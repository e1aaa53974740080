//! What one client missed in one room between two of its sockets, and what it got on both. Pure.
//!
//! This is no verdict: a client that is offline misses messages until the protocol can resume. It says how much a
//! client without resume would have missed, and that a make-before-break client has to drop duplicates by offset.

use super::room::Coverage;

/// One client's two latest sockets in one room.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Where the coverage of the latest socket that ended stops.
    ended: Option<Coverage>,
    /// Where the coverage of the socket after it starts, when that joined first.
    next: Option<Coverage>,
    /// Sockets that are joined.
    open: u32,
}

/// What a handover came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seam {
    /// Messages that came on neither socket.
    pub(crate) missed: u64,
    /// Messages that came on both.
    pub(crate) overlapped: u64,
}

impl Handover {
    /// A socket joined, at this position.
    pub(crate) fn joined(&mut self, at: Coverage) -> Seam {
        self.open += 1;
        if self.open > 1 {
            self.next = Some(at);
            return Seam::default();
        }
        self.ended
            .take()
            .map_or_else(Seam::default, |ended| seam(ended, at))
    }

    /// A socket ended, having seen everything up to this position.
    pub(crate) fn ended(&mut self, at: Coverage) -> Seam {
        self.open = self.open.saturating_sub(1);
        if let Some(next) = self.next.take() {
            return seam(at, next);
        }
        self.ended = Some(at);
        Seam::default()
    }
}

const fn seam(ended: Coverage, next: Coverage) -> Seam {
    if ended.generation != next.generation {
        return Seam {
            missed: 0,
            overlapped: 0,
        };
    }
    Seam {
        missed: next.offset.saturating_sub(ended.offset),
        overlapped: ended.offset.saturating_sub(next.offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(offset: u64) -> Coverage {
        Coverage {
            generation: 0,
            offset,
        }
    }

    #[test]
    fn a_client_that_was_offline_missed_what_lies_between_its_sockets() {
        let mut handover = Handover::default();
        assert_eq!(handover.joined(at(0)), Seam::default());
        assert_eq!(handover.ended(at(10)), Seam::default());
        assert_eq!(
            handover.joined(at(14)),
            Seam {
                missed: 4,
                overlapped: 0
            }
        );
    }

    #[test]
    fn a_client_with_two_sockets_got_on_both_what_came_after_the_second_join() {
        let mut handover = Handover::default();
        handover.joined(at(0));
        assert_eq!(handover.joined(at(10)), Seam::default());
        assert_eq!(
            handover.ended(at(13)),
            Seam {
                missed: 0,
                overlapped: 3
            }
        );
        assert_eq!(handover.ended(at(20)), Seam::default());
        assert_eq!(handover.joined(at(20)), Seam::default());
    }

    #[test]
    fn positions_of_different_epochs_are_not_compared() {
        let mut handover = Handover::default();
        handover.joined(at(1));
        handover.ended(at(10));
        assert_eq!(
            handover.joined(Coverage {
                generation: 1,
                offset: 99
            }),
            Seam::default()
        );
    }
}
