//! What the autoscaler must not forget when the leader changes: an annotation of the resource.
//!
//! It holds the size in force, the steps of the running rate periods, and the history of what was wanted as a ring of at
//! most twenty levels. It is written when one of them changes, at most about once in a twentieth of the window for the
//! history, and not at all while nothing changes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::time::after;

/// Levels that are kept at most.
const RING: u32 = 20;

/// The autoscaler's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Memory {
    /// The size in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<u32>,
    /// When the size last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) changed: Option<Timestamp>,
    /// From when on how many were wanted at most, oldest first; each level holds until the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) wanted: Vec<(Timestamp, u32)>,
    /// Steps up: when, how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ups: Vec<(Timestamp, u32)>,
    /// Steps down: when, how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) downs: Vec<(Timestamp, u32)>,
}

impl Memory {
    /// Reads the annotation; what cannot be read is forgotten, which only delays a scale-in.
    pub(crate) fn parse(annotation: Option<&String>) -> Self {
        annotation
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// The annotation's text.
    pub(crate) fn print(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// How many were added or taken away within the last `period` seconds.
    pub(crate) fn recent(steps: &[(Timestamp, u32)], period: u32, now: Timestamp) -> u32 {
        steps
            .iter()
            .filter(|(at, _)| after(*at, period) > now)
            .map(|(_, step)| step)
            .sum()
    }

    /// The most that was wanted within the last `window` seconds, `wanted` now included; `None` when the history does
    /// not reach back that far.
    pub(crate) fn window_maximum(&self, window: u32, wanted: u32, now: Timestamp) -> Option<u32> {
        if window == 0 {
            return Some(wanted);
        }
        let reaches_back = self
            .wanted
            .first()
            .is_some_and(|(at, _)| after(*at, window) <= now);
        let ends = self.wanted.iter().skip(1).map(|(at, _)| *at).chain([now]);
        let within = self
            .wanted
            .iter()
            .zip(ends)
            .filter(|(_, end)| after(*end, window) > now);
        reaches_back.then(|| {
            within
                .map(|((_, level), _)| *level)
                .chain([wanted])
                .max()
                .unwrap_or(wanted)
        })
    }

    /// Adds what is wanted now to the history. Returns when a lower level that came too early is to be looked at again.
    pub(crate) fn record(&mut self, window: u32, wanted: u32, now: Timestamp) -> Option<Timestamp> {
        if window == 0 {
            self.wanted.clear();
            return None;
        }
        let grain = (window / RING).max(1);
        match self.wanted.last_mut() {
            Some((_, level)) if *level == wanted => return None,
            Some((at, level)) if after(*at, grain) > now => {
                if wanted < *level {
                    return Some(after(*at, grain));
                }
                *level = wanted;
            }
            _ => self.wanted.push((now, wanted)),
        }
        self.prune(window, now);
        None
    }

    /// Drops levels that ended before the window, but keeps one that reaches back to its beginning.
    fn prune(&mut self, window: u32, now: Timestamp) {
        while self
            .wanted
            .get(1)
            .is_some_and(|(end, _)| after(*end, window) <= now)
        {
            self.wanted.remove(0);
        }
    }

    /// Drops steps whose periods are over; called when something else is written anyway.
    pub(crate) fn forget_steps(&mut self, up_period: u32, down_period: u32, now: Timestamp) {
        self.ups.retain(|(at, _)| after(*at, up_period) > now);
        self.downs.retain(|(at, _)| after(*at, down_period) > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u32) -> Timestamp {
        after(Timestamp::UNIX_EPOCH, seconds)
    }

    #[test]
    fn the_window_remembers_the_highest_level_until_it_has_passed() {
        let mut memory = Memory::default();
        memory.record(100, 5, at(0));
        memory.record(100, 2, at(50));
        assert_eq!(
            memory.window_maximum(100, 2, at(60)),
            None,
            "the history is too short"
        );
        assert_eq!(memory.window_maximum(100, 2, at(149)), Some(5));
        assert_eq!(memory.window_maximum(100, 2, at(150)), Some(2));
    }

    #[test]
    fn the_ring_stays_short_and_writes_nothing_while_nothing_changes() {
        let mut memory = Memory::default();
        for second in 0..5_000 {
            memory.record(600, second % 7, at(second));
        }
        assert!(memory.wanted.len() <= 22, "{}", memory.wanted.len());
        let before = memory.clone();
        let level = memory.wanted.last().unwrap().1;
        for second in 5_000..6_000 {
            memory.record(600, level, at(second));
        }
        assert_eq!(memory, before);
    }

    #[test]
    fn it_survives_the_annotation_and_forgets_what_it_cannot_read() {
        let mut memory = Memory {
            target: Some(4),
            ..Memory::default()
        };
        memory.record(600, 4, at(7));
        memory.downs.push((at(7), 1));
        assert_eq!(Memory::parse(Some(&memory.print())), memory);
        assert_eq!(Memory::parse(Some(&"{".to_owned())), Memory::default());
    }
}
