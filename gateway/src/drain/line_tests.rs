//! Whole drains of ten thousand sockets in virtual time: the real control, line and pacer, with a loop that is late now and
//! then, and clients of which some never answer.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::drain::Control;
use crate::drain::pacer::handover;
use wsfleet_crds::admin::{DrainMode, DrainOrder, DrainRequest, GatewayPhase};

const SOCKETS: u32 = 10_000;
const SECOND: Duration = Duration::from_secs(1);
/// What the loop waits between two looks.
const TICK: Duration = Duration::from_millis(50);
/// What a gateway may need beyond its window.
const SPARE: Duration = Duration::from_secs(2);

struct Model {
    control: Control,
    line: Line<u32>,
    now: Duration,
    turns: u32,
    open: HashSet<u32>,
    /// Closes that were sent, and when they are answered, if ever.
    closing: HashMap<u32, Option<Duration>>,
    /// Closes, in their order.
    closes: Vec<Duration>,
    told: HashSet<u32>,
    /// When the last socket ended.
    ended: Duration,
}

impl Model {
    fn new() -> Self {
        Self {
            control: Control::default(),
            line: Line::default(),
            now: Duration::from_secs(1_000),
            turns: 0,
            open: (0..SOCKETS).collect(),
            closing: HashMap::new(),
            closes: Vec::new(),
            told: HashSet::new(),
            ended: Duration::ZERO,
        }
    }

    fn left(&self) -> usize {
        self.open.len() + self.closing.len()
    }

    /// One turn of the loop, which is up to 30 ms late, and a quarter of a second about every fifteen seconds.
    fn turn(&mut self) {
        self.turns += 1;
        let late = if self.turns.is_multiple_of(200) {
            250
        } else {
            rand::random_range(0..30)
        };
        self.now += TICK + Duration::from_millis(late);
        let (now, left) = (self.now, self.left());
        self.closing
            .retain(|_, answered| answered.is_none_or(|at| at > now));
        if self.left() < left {
            self.ended = now;
        }
        let Some(order) = self.control.order().copied() else {
            return self.line.dissolve();
        };
        let open = &self.open;
        let sockets = || open.iter().copied().collect();
        let steps = self
            .line
            .advance(&order, now, self.left(), sockets, |key| open.contains(&key));
        for step in steps {
            match step {
                Step::Tell { key, .. } => drop(self.told.insert(key)),
                Step::Close { key } => {
                    assert!(self.told.contains(&key), "{key} was closed without being told");
                    assert!(self.open.remove(&key), "{key} was closed twice");
                    let answers = !key.is_multiple_of(50);
                    let wait = || Duration::from_millis(rand::random_range(0..100));
                    self.closing.insert(key, answers.then(|| now + wait()));
                    self.closes.push(now);
                }
            }
        }
        if is_over(&order, now) && self.left() > 0 {
            self.open.clear();
            self.closing.clear();
            self.ended = now;
        }
    }

    /// Goes on until this time.
    fn until(&mut self, end: Duration) {
        while self.now < end {
            self.turn();
        }
    }

    fn ask(&mut self, mode: DrainMode, rate: f64, lease: u32) {
        let request = DrainRequest {
            drain_id: "d".to_owned(),
            epoch: 1,
            mode,
            rate_per_second: Some(rate),
            lease_seconds: Some(lease),
            deadline: None,
            order: DrainOrder::Random,
            close_code: 1012,
            reconnect_window_seconds: 15,
            keep_connections: None,
            min_age_seconds: None,
        };
        self.control.apply(&request, self.now).unwrap();
    }

    /// Closes since `from`, and the most of them within a second, wherever that begins.
    fn since(&self, from: Duration) -> (usize, usize) {
        let closes = &self.closes[self.closes.partition_point(|at| *at < from)..];
        let within =
            |(index, begin): (usize, &Duration)| closes[index..].partition_point(|at| *at < *begin + SECOND);
        let busiest = closes.iter().enumerate().map(within).max();
        (closes.len(), busiest.unwrap_or_default())
    }
}

#[test]
fn after_sigterm_all_are_closed_evenly_and_within_the_window() {
    for window in [3, 5, 10, 30, 60].map(Duration::from_secs) {
        let mut model = Model::new();
        let begin = model.now;
        model.control.terminate(window, begin);
        model.until(begin + window + SPARE);
        assert_eq!(
            (model.closes.len(), model.left()),
            (10_000, 0),
            "window {window:?}"
        );
        let (last, ended) = (model.closes[9_999].abs_diff(begin), model.ended.abs_diff(begin));
        assert!(
            last <= window + TICK * 12,
            "the last close came after {last:?} of {window:?}"
        );
        assert!(
            ended <= window + SPARE,
            "the last socket ended after {ended:?} of {window:?}"
        );
        let mean = f64::from(SOCKETS) / window.abs_diff(handover(window)).as_secs_f64();
        let (_, busiest) = model.since(begin);
        assert!(
            busiest as f64 <= 1.5 * mean,
            "window {window:?}: {busiest} closes in the busiest second, {mean:.0} on average"
        );
    }
}

#[test]
fn in_the_usual_window_the_busiest_second_has_at_most_half_as_many_again_as_the_mean() {
    let mut model = Model::new();
    let begin = model.now;
    model.control.terminate(SECOND * 60, begin);
    model.until(begin + SECOND * 62);
    let (closed, busiest) = model.since(begin);
    assert!(
        closed == 10_000 && busiest <= 10_000 * 3 / 2 / 60,
        "{busiest} in the busiest second"
    );
}

#[test]
fn a_drain_that_is_taken_back_late_closes_nobody_after_that() {
    let mut model = Model::new();
    let begin = model.now;
    model.ask(DrainMode::Drain, 10_000.0 / 60.0, 120);
    model.until(begin + SECOND * 30);
    let (closed, _) = model.since(begin);
    // the first second is the handover of the first
    assert!(
        (4_700..=4_900).contains(&closed),
        "{closed} closes in half a minute"
    );
    model.ask(DrainMode::Resume, 1.0, 120);
    model.until(begin + SECOND * 120);
    assert_eq!(
        model.since(begin).0,
        closed,
        "no close after the drain was taken back"
    );
    assert_eq!(model.open.len(), SOCKETS as usize - closed);
    assert_eq!(model.control.phase(), GatewayPhase::Serving);
}

#[test]
fn a_second_sigterm_closes_the_rest_evenly_within_five_seconds() {
    let mut model = Model::new();
    let begin = model.now;
    model.control.terminate(SECOND * 60, begin);
    model.until(begin + SECOND * 20);
    let (rest, again) = (model.left(), model.now);
    assert!(rest > 6_000, "{rest} are left after a third of the window");
    model.control.terminate(SECOND * 5, again);
    model.until(again + SECOND * 5 + SPARE);
    let (closed, busiest) = model.since(again);
    assert_eq!((model.closes.len(), model.left()), (10_000, 0));
    let last = model.closes[9_999].abs_diff(again);
    assert!(
        last <= SECOND * 5 + TICK * 12,
        "the last close came after {last:?}"
    );
    assert!(model.ended <= again + SECOND * 5 + SPARE);
    assert!(
        busiest * 4 <= closed * 3 / 2,
        "{busiest} of {closed} in the busiest second of four"
    );
}

#[test]
fn closes_pause_between_the_end_of_a_lease_and_its_renewal_and_go_on_without_a_burst() {
    const RATE: f64 = 200.0;
    let mut model = Model::new();
    let begin = model.now;
    model.ask(DrainMode::Drain, RATE, 10);
    model.until(begin + SECOND * 10);
    let (granted, _) = model.since(begin);
    assert!(
        (1_700..=1_800).contains(&granted),
        "{granted} closes in a lease of 10 s"
    );
    model.until(begin + SECOND * 40);
    assert_eq!(model.since(begin).0, granted, "nobody is closed without a lease");
    model.ask(DrainMode::Drain, RATE, 60);
    let renewed = model.now;
    model.until(renewed + SECOND * 30);
    let (closed, busiest) = model.since(renewed);
    // what a stall before the lease's end had left may be made up at once: half a second's worth
    assert!(
        (5_850..=6_100).contains(&closed),
        "{closed} closes in 30 s at {RATE} a second"
    );
    assert!(
        busiest as f64 <= 1.5 * RATE + 10.0,
        "{busiest} in the busiest second"
    );
}
