//! Orders by which some sockets stay, in virtual time: sockets of all ages, clients that go by themselves, told or not.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::drain::Control;
use wsfleet_crds::admin::{DrainMode, DrainOrder, DrainRequest};

const TICK: Duration = Duration::from_millis(50);
const MIN_AGE: Duration = Duration::from_mins(1);

struct Model {
    control: Control,
    line: Line<u32>,
    now: Duration,
    /// When each open socket was opened.
    open: BTreeMap<u32, Duration>,
    told: HashSet<u32>,
    closes: usize,
}

impl Model {
    /// Sockets of these ages, in seconds.
    fn new(ages: impl IntoIterator<Item = u64>) -> Self {
        let now = Duration::from_secs(1_000);
        let opened = |age| now.saturating_sub(Duration::from_secs(age));
        Self {
            control: Control::default(),
            line: Line::default(),
            now,
            open: (0..).zip(ages.into_iter().map(opened)).collect(),
            told: HashSet::new(),
            closes: 0,
        }
    }

    fn ask(&mut self, keep: u64, rate: f64) {
        let request = DrainRequest {
            drain_id: "shed".to_owned(),
            epoch: 1,
            mode: DrainMode::Drain,
            rate_per_second: Some(rate),
            lease_seconds: Some(30),
            deadline: None,
            order: DrainOrder::IdleFirst,
            close_code: 4200,
            reconnect_window_seconds: 15,
            keep_connections: Some(keep),
            min_age_seconds: Some(MIN_AGE.as_secs() as u32),
        };
        self.control.apply(&request, self.now).unwrap();
    }

    /// One turn of the loop. No close is one too many, and nobody is told who need not go.
    fn turn(&mut self) {
        self.now += TICK;
        let (now, open) = (self.now, &self.open);
        let Some(order) = self.control.order().copied() else {
            return self.line.dissolve();
        };
        let keep = order.keep.unwrap();
        let old = |opened: &Duration| now.saturating_sub(*opened) >= order.min_age;
        let sockets = || open.iter().filter(|it| old(it.1)).map(|it| *it.0).collect();
        let steps = self
            .line
            .advance(&order, now, open.len(), sockets, |key| open.contains_key(&key));
        let mut told = 0;
        for step in steps {
            match step {
                Step::Tell { key, .. } => {
                    assert!(self.told.insert(key), "{key} was told twice");
                    told += 1;
                }
                Step::Close { key } => {
                    assert!(self.told.contains(&key), "{key} was closed without being told");
                    assert!(self.open.len() > keep, "a close below what is to stay");
                    let opened = self.open.remove(&key).expect("an open socket is closed");
                    assert!(now.saturating_sub(opened) >= MIN_AGE, "{key} has just come");
                    self.closes += 1;
                }
            }
        }
        let waiting = self.open.keys().filter(|key| self.told.contains(key)).count();
        assert!(
            told == 0 || self.open.len() >= keep + waiting,
            "{waiting} of {} are told to go, {keep} are to stay",
            self.open.len()
        );
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.turn();
        }
    }
}

#[test]
fn a_gateway_sheds_what_it_has_too_many_and_no_more() {
    let mut model = Model::new([600; 1_000]);
    model.ask(700, 50.0);
    model.run(29);
    assert_eq!((model.closes, model.open.len()), (300, 700));
    assert_eq!(model.told.len(), 300, "nobody else was asked to go");
}

#[test]
fn those_who_go_by_themselves_need_not_be_closed() {
    let mut model = Model::new([600; 1_000]);
    model.ask(700, 10.0);
    model.run(10);
    model.open.retain(|key, _| key % 10 != 0);
    model.run(19);
    // the last who was told may have a slot behind those of some who went: up to a window later
    model.ask(700, 10.0);
    model.run(20);
    assert_eq!(model.open.len(), 700);
    assert!(model.closes <= 210, "{}", model.closes);
}

#[test]
fn young_sockets_stay_until_they_are_old_enough() {
    let mut model = Model::new([30; 1_000]);
    model.ask(900, 100.0);
    model.run(29);
    assert_eq!((model.closes, model.told.len()), (0, 0));
    model.ask(900, 100.0);
    model.run(29);
    assert_eq!((model.closes, model.open.len()), (100, 900));
}

#[test]
fn another_number_in_a_renewal_is_what_counts() {
    let mut model = Model::new([600; 1_000]);
    model.ask(500, 20.0);
    model.run(10);
    let closed = model.closes;
    model.ask(1_000, 20.0);
    model.run(20);
    assert_eq!(model.closes, closed, "all that are left may stay");
    model.ask(1_000 - closed as u64 - 10, 20.0);
    model.run(20);
    assert_eq!(model.closes, closed + 10);
}

#[test]
fn sigterm_amid_it_closes_all_young_or_not() {
    let mut model = Model::new((0..100).map(|number| number % 100));
    model.ask(90, 1.0);
    model.run(5);
    model.control.terminate(Duration::from_secs(5), model.now);
    assert_eq!(
        model.control.order().map(|order| (order.keep, order.min_age)),
        Some((None, Duration::ZERO))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// What [`Model::turn`] asserts, whatever is asked, and whoever goes.
    #[test]
    fn no_close_is_one_too_many(
        ages in prop::collection::vec(0_u64..200, 1..300),
        steps in prop::collection::vec((0_u64..300, 1_u32..200, 0_u64..8, prop::collection::vec(0_u32..300, 0..20)), 1..12),
    ) {
        let mut model = Model::new(ages);
        for (keep, rate, seconds, gone) in steps {
            model.ask(keep, f64::from(rate));
            model.run(seconds);
            model.open.retain(|key, _| !gone.contains(key));
        }
        // with time, it comes to what was asked for
        for _ in 0..4 {
            model.ask(50, 100.0);
            model.run(30);
        }
        prop_assert!(model.open.len() <= 50);
    }
}
