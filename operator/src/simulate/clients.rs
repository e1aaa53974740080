//! The model's clients: one record each, so that what happened to every single one of them can be told exactly.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::gateway::ClientId;
use super::time::{Millis, SECOND};

/// Times that one client was closed by drains of a rollout, for the table; more are counted as the last.
pub(crate) const MOST_MOVES: usize = 8;

/// What happened to one client.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Client {
    /// Closed by drains of a rollout since the count began.
    pub(crate) moved: u16,
    /// It was connected when the count began.
    pub(crate) counted: bool,
    /// When it connected last.
    pub(crate) since: Millis,
}

/// Everybody who is connected or wants to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    records: Vec<Client>,
    free: Vec<ClientId>,
    /// Who looks for a gateway, by the time of the next attempt.
    waiting: BTreeMap<Millis, Vec<ClientId>>,
    pub(crate) homeless: u64,
}

impl Clients {
    /// A new client, which connects at `at`.
    pub(crate) fn arrive(&mut self, at: Millis) {
        let id = if let Some(id) = self.free.pop() {
            self.records[id as usize] = Client::default();
            id
        } else {
            self.records.push(Client::default());
            (self.records.len() - 1) as ClientId
        };
        self.come_back(id, at);
    }

    /// `id` tries to connect at `at`.
    pub(crate) fn come_back(&mut self, id: ClientId, at: Millis) {
        self.homeless += 1;
        self.waiting.entry(at).or_default().push(id);
    }

    /// Those whose attempt is due.
    pub(crate) fn due(&mut self, now: Millis) -> Vec<ClientId> {
        let later = self.waiting.split_off(&(now + 1));
        let due: Vec<_> = std::mem::replace(&mut self.waiting, later)
            .into_values()
            .flatten()
            .collect();
        self.homeless -= due.len() as u64;
        due
    }

    /// `id` is connected from now on.
    pub(crate) fn connected(&mut self, id: ClientId, now: Millis) {
        self.records[id as usize].since = now;
    }

    /// When `id` connected.
    pub(crate) fn since(&self, id: ClientId) -> Millis {
        self.records[id as usize].since
    }

    /// `id` leaves for good. One of those that a rollout is counted for is kept in mind.
    pub(crate) fn leave(&mut self, id: ClientId) {
        if !self.records[id as usize].counted {
            self.free.push(id);
        }
    }

    /// `id` was closed by the drain of a rollout.
    pub(crate) fn moved(&mut self, id: ClientId) {
        let client = &mut self.records[id as usize];
        client.moved = client.moved.saturating_add(1);
    }

    /// Begins to count for those who are connected now.
    pub(crate) fn count_from_now(&mut self, connected: impl Iterator<Item = ClientId>) {
        for client in &mut self.records {
            *client = Client {
                since: client.since,
                ..Client::default()
            };
        }
        for id in connected {
            self.records[id as usize].counted = true;
        }
    }

    /// How many of those that are counted were moved so many times.
    pub(crate) fn histogram(&self) -> [u64; MOST_MOVES + 1] {
        let mut histogram = [0; MOST_MOVES + 1];
        for client in self.records.iter().filter(|client| client.counted) {
            histogram[usize::from(client.moved).min(MOST_MOVES)] += 1;
        }
        histogram
    }

    /// Times that those who are counted were moved, and how many they are.
    pub(crate) fn moves(&self) -> (u64, u64) {
        let counted = self.records.iter().filter(|client| client.counted);
        counted.fold((0, 0), |(moves, clients), client| {
            (moves + u64::from(client.moved), clients + 1)
        })
    }
}

/// When a client whose connection broke without notice tries again: anywhere within the window.
pub(crate) fn jittered(now: Millis, window: Millis, random: &mut StdRng) -> Millis {
    now + random.random_range(0..=window.max(SECOND))
}

/// How many of something with mean `mean` happen (Poisson; normal where that is the same to the eye).
pub(crate) fn poisson(mean: f64, random: &mut StdRng) -> u64 {
    if mean <= 0.0 {
        return 0;
    }
    if mean > 50.0 {
        // Box-Muller
        let (first, second) = (random.random::<f64>(), random.random::<f64>());
        let normal = (-2.0 * (1.0 - first).ln()).sqrt() * (2.0 * std::f64::consts::PI * second).cos();
        return mean.sqrt().mul_add(normal, mean).round().max(0.0) as u64;
    }
    let limit = (-mean).exp();
    let (mut count, mut product) = (0, random.random::<f64>());
    while product > limit {
        count += 1;
        product *= random.random::<f64>();
    }
    count
}
