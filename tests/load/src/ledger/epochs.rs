//! The epochs that a room had in a run, as numbers that can be compared, and how far each was acknowledged. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

/// Epochs remembered per room.
const MOST_EPOCHS: usize = 16;

/// The latest epochs; the last one is in force.
#[derive(Debug, Default)]
pub(super) struct Epochs(VecDeque<Epoch>);

#[derive(Debug)]
struct Epoch {
    name: Arc<str>,
    generation: u32,
    /// Highest offset that was acknowledged.
    acked: u64,
    /// The generation whose messages it goes on with, and how far it had got when that was told.
    goes_on: Option<(u32, u64)>,
}

impl Epochs {
    /// The generation of the epoch in force.
    pub(super) fn current(&self) -> u32 {
        self.0.back().map_or(0, |epoch| epoch.generation)
    }

    /// The generation of this epoch, which is a new one when nobody has heard of it.
    pub(super) fn generation(&mut self, name: &str) -> u32 {
        if let Some(epoch) = self.0.iter().rev().find(|epoch| &*epoch.name == name) {
            return epoch.generation;
        }
        let generation = self.0.back().map_or(0, |epoch| epoch.generation + 1);
        if self.0.len() == MOST_EPOCHS {
            self.0.pop_front();
        }
        self.0.push_back(Epoch {
            name: name.into(),
            generation,
            acked: 0,
            goes_on: None,
        });
        generation
    }

    /// A client was told `recovered` that had been in the generation before.
    pub(super) fn go_on(&mut self, generation: u32, before: u32, up_to: u64) {
        if let Some(epoch) = self.0.iter_mut().find(|epoch| epoch.generation == generation) {
            epoch.goes_on.get_or_insert((before, up_to));
        }
    }

    /// How far a generation had got that goes on with the messages of another one.
    pub(super) fn went_on(&self, generation: u32, before: u32) -> Option<u64> {
        let (from, up_to) = self.find(generation)?.goes_on?;
        (from == before).then_some(up_to)
    }

    /// A publisher was told that its message has this place.
    pub(super) fn acknowledge(&mut self, generation: u32, offset: u64) {
        let known = self.0.iter_mut().rev();
        if let Some(epoch) = known.into_iter().find(|epoch| epoch.generation == generation) {
            epoch.acked = epoch.acked.max(offset);
        }
    }

    /// Highest offset that was acknowledged.
    pub(super) fn acked(&self, generation: u32) -> u64 {
        self.find(generation).map_or(0, |epoch| epoch.acked)
    }

    /// What the server calls it.
    pub(super) fn name(&self, generation: u32) -> Option<Arc<str>> {
        self.find(generation).map(|epoch| Arc::clone(&epoch.name))
    }

    fn find(&self, generation: u32) -> Option<&Epoch> {
        self.0.iter().rev().find(|epoch| epoch.generation == generation)
    }
}
