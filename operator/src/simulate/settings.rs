//! What is simulated besides the resource: how many clients, how fast pods start, what fails.

use super::time::Millis;

/// The surroundings of a fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Decides about everything that is left to chance: the same seed, the same run.
    pub(crate) seed: u64,
    /// Clients at the beginning.
    pub(crate) clients: u64,
    /// New clients per second.
    pub(crate) arrivals: f64,
    /// Seconds for which a client stays on average; 0: for ever.
    pub(crate) mean_life: f64,
    /// From the creation of a pod until it is Ready.
    pub(crate) start: Millis,
    pub(crate) nodes: usize,
    pub(crate) chaos: Chaos,
}

/// What fails between the operator and the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chaos {
    /// Share of calls that have no effect and fail.
    pub(crate) refused: f64,
    /// Share of calls that have their effect, and no answer.
    pub(crate) unanswered: f64,
    /// How much later than they happened changes are heard of.
    pub(crate) lag: Millis,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            clients: 0,
            arrivals: 0.0,
            mean_life: 0.0,
            start: 20_000,
            nodes: 3,
            chaos: Chaos::default(),
        }
    }
}
