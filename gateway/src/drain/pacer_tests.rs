use super::*;
use std::collections::{HashMap, HashSet};

const TICK: Duration = Duration::from_millis(50);

/// Sockets in virtual time.
struct Fleet {
    pacer: Pacer<u32>,
    now: Duration,
    gone: HashSet<u32>,
    told: HashMap<u32, (Duration, Duration)>,
    closed: Vec<(Duration, u32)>,
}

fn lead() -> impl FnMut() -> f64 {
    let mut state = 12_345_u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Fleet {
    fn new(size: u32, rate: f64, until: u64, window: u64) -> Self {
        let grant = Grant {
            rate,
            until: Duration::from_secs(until),
        };
        let pacer = Pacer::new(
            0..size,
            grant,
            Duration::from_secs(window),
            Duration::ZERO,
            lead(),
        );
        Self {
            pacer,
            now: Duration::ZERO,
            gone: HashSet::new(),
            told: HashMap::new(),
            closed: Vec::new(),
        }
    }

    fn tick(&mut self, by: Duration) {
        self.now += by;
        let gone = &self.gone;
        for step in self.pacer.tick(self.now, usize::MAX, |key| !gone.contains(&key)) {
            match step {
                Step::Tell { key, delay } => {
                    assert!(
                        self.told.insert(key, (self.now, delay)).is_none(),
                        "{key} was told twice"
                    );
                }
                Step::Close { key } => {
                    assert!(
                        self.told.contains_key(&key),
                        "{key} was closed without being told"
                    );
                    self.closed.push((self.now, key));
                }
            }
        }
        self.gone.extend(self.closed.iter().map(|(_, key)| *key));
    }

    fn run_until(&mut self, seconds: u64) {
        while self.now < Duration::from_secs(seconds) {
            self.tick(TICK);
        }
    }

    fn busiest_second(&self) -> usize {
        busiest_second(self.closed.iter().map(|(at, _)| *at))
    }
}

/// Most events in any window of one second, not only those that begin on the second.
fn busiest_second(times: impl Iterator<Item = Duration>) -> usize {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    let one = Duration::from_secs(1);
    let within = |(index, start): (usize, &Duration)| {
        times[index..]
            .iter()
            .take_while(|time| **time < *start + one)
            .count()
    };
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

#[test]
fn closes_are_uniform_at_the_granted_rate() {
    let mut fleet = Fleet::new(10_000, 166.7, 1_000, 15);
    fleet.run_until(62);
    assert_eq!(fleet.closed.len(), 10_000);
    assert!(
        fleet.busiest_second() <= 176,
        "busiest second {}",
        fleet.busiest_second()
    );
}

#[test]
fn each_socket_is_told_its_own_delay_and_not_closed_before_it_is_over() {
    let mut fleet = Fleet::new(3_000, 100.0, 1_000, 15);
    fleet.run_until(31);
    assert_eq!(fleet.closed.len(), 3_000);
    let mut delays = HashSet::new();
    for (at, key) in &fleet.closed {
        let (told_at, delay) = fleet.told[key];
        let slot = told_at + delay + HANDOVER;
        assert!(*at >= slot, "{key} had no time to connect elsewhere");
        assert!(
            *at <= slot + TICK * 3,
            "{key} was closed {:?} late",
            at.abs_diff(slot)
        );
        assert!(delay <= Duration::from_secs(15));
        delays.insert(delay.as_millis());
    }
    assert!(delays.len() > 2_000, "{} distinct delays of 3,000", delays.len());
}

#[test]
fn sockets_that_go_at_the_time_they_were_told_do_not_speed_the_drain_up() {
    let mut fleet = Fleet::new(2_000, 50.0, 1_000, 10);
    let mut left = Vec::new();
    while fleet.now < Duration::from_secs(45) {
        fleet.tick(TICK);
        // half of the clients obey, a moment before the gateway would close them
        for (key, (at, delay)) in &fleet.told {
            if key % 2 == 0 && *at + *delay <= fleet.now + TICK && fleet.gone.insert(*key) {
                left.push(fleet.now);
            }
        }
    }
    assert_eq!(left.len() + fleet.closed.len(), 2_000);
    let departures = left.into_iter().chain(fleet.closed.iter().map(|(at, _)| *at));
    let busiest = busiest_second(departures);
    assert!(busiest <= 75, "busiest second {busiest} of a mean of 50");
}

#[test]
fn those_behind_move_up_when_sockets_that_were_not_told_go() {
    let mut fleet = Fleet::new(1_000, 10.0, 10_000, 0);
    fleet.run_until(10);
    fleet.gone.extend(500..900);
    fleet.run_until(61);
    assert_eq!(
        fleet.closed.len(),
        600,
        "600 closes at 10 a second take a minute, not 100 seconds"
    );
}

#[test]
fn closes_pause_when_the_lease_is_over_and_go_on_after_a_renewal_without_a_burst() {
    let mut fleet = Fleet::new(1_000, 20.0, 10, 5);
    fleet.run_until(60);
    let paused = fleet.closed.len();
    // the first second is the handover of the first
    assert!(
        (175..=180).contains(&paused),
        "{paused} closes in a lease of 10 s at 20/s"
    );
    let told = fleet.told.len();
    assert!(told < 1_000, "nobody is told while nothing is granted");
    fleet.pacer.renew(
        Grant {
            rate: 20.0,
            until: Duration::from_secs(70),
        },
        fleet.now,
    );
    fleet.run_until(69);
    assert!(
        fleet.closed.len() <= paused + 9 * 20 + 11,
        "no burst for the time of the pause"
    );
    assert!(fleet.closed.len() >= paused + 9 * 20 - 2);
    assert!(
        fleet.busiest_second() <= 30,
        "busiest second {}",
        fleet.busiest_second()
    );
}

#[test]
fn a_cut_rate_holds_back_those_that_were_told_already() {
    let mut fleet = Fleet::new(1_000, 100.0, 1_000, 10);
    fleet.run_until(2);
    let before = fleet.closed.len();
    fleet.pacer.renew(
        Grant {
            rate: 1.0,
            until: Duration::from_secs(1_000),
        },
        fleet.now,
    );
    fleet.run_until(12);
    assert!(
        fleet.closed.len() <= before + 11,
        "{} closes in 10 s at 1/s",
        fleet.closed.len() - before
    );
}

#[test]
fn a_stalled_process_makes_up_at_most_half_a_second_of_closes() {
    let mut fleet = Fleet::new(1_000, 100.0, 1_000, 0);
    fleet.run_until(2);
    let before = fleet.closed.len();
    fleet.tick(Duration::from_secs(4));
    assert!(fleet.closed.len() - before <= 50);
}

#[test]
fn slow_rates_below_one_a_second_still_close_and_fractions_add_up() {
    let mut fleet = Fleet::new(10, 0.25, 1_000, 15);
    fleet.run_until(42);
    assert_eq!(fleet.closed.len(), 10);
}

#[test]
fn sockets_are_closed_in_the_order_of_the_line() {
    let mut fleet = Fleet::new(500, 50.0, 1_000, 0);
    fleet.run_until(11);
    let order: Vec<_> = fleet.closed.iter().map(|(_, key)| *key).collect();
    assert!(order.iter().copied().eq(0..500));
}
