//! What gateways and Prometheus said last: kept with its time, never turned into a zero.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use wsfleet_crds::admin::{GatewayHealth, GatewayState};

use super::model::MetricsView;
use crate::gateway::GatewayError;
use crate::prometheus::{Answer, QueryError};

/// Times of which a gateway's counters are kept: more than the measurements in a row that an analysis can ask for.
pub(super) const HEALTH_KEPT: usize = 14;

/// One gateway's last words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Its last answer, and when it came.
    pub state: Option<(Timestamp, GatewayState)>,
    /// What it had counted the time before, and when that was.
    pub counted_before: Option<(Timestamp, GatewayHealth)>,
    /// Since when it does not answer.
    pub unreachable_since: Option<Timestamp>,
    /// Since when it has not told its state, whether it does not answer or refuses to.
    pub silent_since: Option<Timestamp>,
    /// What it had counted at some times before, the oldest first; empty unless a rollout is under way.
    pub health: Vec<(Timestamp, GatewayHealth)>,
}

/// What Prometheus said of an analysis and when, the oldest first, by the analysis' name.
pub type Analyses = BTreeMap<String, Vec<(Timestamp, Result<f64, String>)>>;

/// What a new answer changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Something that the planner or the status looks at is different.
    pub relevant: bool,
    /// Sockets that the drain under way closed since the answer before.
    pub forced: u64,
    /// Sockets that their clients closed meanwhile.
    pub natural: u64,
}

/// The samples of all pods by their UID, and the answers of Prometheus by the resource's UID.
#[derive(Debug, Default)]
pub struct Samples {
    gateways: Mutex<HashMap<String, Sample>>,
    queried: Mutex<HashMap<String, MetricsView>>,
    analyses: Mutex<HashMap<String, Analyses>>,
}

impl Samples {
    /// The last words of the gateway in the pod `uid`.
    pub fn get(&self, uid: &str) -> Option<Sample> {
        self.gateways.lock().get(uid).cloned()
    }

    /// Keeps an answer, or that there was none. Only a gateway that cannot be reached at all is unreachable: one that
    /// refuses a call is alive.
    pub fn record(&self, uid: &str, now: Timestamp, answer: &Result<GatewayState, GatewayError>) -> Change {
        let mut gateways = self.gateways.lock();
        let sample = gateways.entry(uid.to_owned()).or_default();
        match answer {
            Ok(state) => {
                let change = compare(sample, state);
                sample.counted_before = sample.state.as_ref().map(|(at, state)| (*at, state.health));
                sample.state = Some((now, state.clone()));
                sample.unreachable_since = None;
                sample.silent_since = None;
                change
            }
            Err(error) => {
                let is_news = |since: &mut Option<Timestamp>| since.replace(since.unwrap_or(now)).is_none();
                let fell_silent = is_news(&mut sample.silent_since);
                let relevant =
                    fell_silent | (error.is_unreachable() && is_news(&mut sample.unreachable_since));
                Change {
                    relevant,
                    ..Change::default()
                }
            }
        }
    }

    /// Keeps what a gateway has counted, at times so far apart; without, what was kept is forgotten.
    pub fn record_health(
        &self,
        uid: &str,
        now: Timestamp,
        health: GatewayHealth,
        every: Option<SignedDuration>,
    ) {
        let mut gateways = self.gateways.lock();
        let kept = &mut gateways.entry(uid.to_owned()).or_default().health;
        match every {
            None => *kept = Vec::new(),
            Some(every) => keep_health(kept, now, health, every),
        }
    }

    /// Keeps an answer of Prometheus; pods that are not in it keep their last number and its time. True when the
    /// numbers or the error are different.
    pub fn record_query(&self, uid: &str, answer: Result<Answer, QueryError>) -> bool {
        let mut queried = self.queried.lock();
        let view = queried.entry(uid.to_owned()).or_default();
        let error = match &answer {
            Ok(answer) if answer.is_empty() => Some("the query yields no series".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let mut changed = view.error != error;
        view.error = error;
        for (pod, (at, count)) in answer.unwrap_or_default() {
            let before = view.connections.insert(pod, (at, count));
            changed |= before.map(|(_, count)| count) != Some(count);
        }
        changed
    }

    /// Keeps what Prometheus said of an analysis of a resource.
    pub fn record_analysis(&self, uid: &str, name: &str, now: Timestamp, answer: Result<f64, String>) {
        let mut analyses = self.analyses.lock();
        let answers = analyses.entry(uid.to_owned()).or_default();
        let answers = answers.entry(name.to_owned()).or_default();
        if answers.len() >= HEALTH_KEPT {
            drop(answers.remove(0));
        }
        answers.push((now, answer));
    }

    /// What Prometheus said of the analyses of a resource.
    pub fn analyses(&self, uid: &str) -> Analyses {
        self.analyses.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Forgets what Prometheus said of the analyses of a resource: the next rollout is another matter.
    pub fn forget_analyses(&self, uid: &str) {
        self.analyses.lock().remove(uid);
    }

    /// The last answers of Prometheus for a resource, of the pods that still exist.
    pub fn queried(&self, uid: &str, pods: &HashSet<&str>) -> MetricsView {
        let mut queried = self.queried.lock();
        let Some(view) = queried.get_mut(uid) else {
            return MetricsView::default();
        };
        view.connections.retain(|pod, _| pods.contains(pod.as_str()));
        view.clone()
    }

    /// Forgets pods and resources that are gone.
    pub fn retain(&self, pods: &HashSet<String>, roots: &HashSet<String>) {
        self.gateways.lock().retain(|uid, _| pods.contains(uid));
        self.queried.lock().retain(|uid, _| roots.contains(uid));
        self.analyses.lock().retain(|uid, _| roots.contains(uid));
    }
}

/// The socket counts that gateways themselves told, by pod name.
pub fn told<'a>(pods: impl Iterator<Item = &'a super::model::PodView>) -> MetricsView {
    let connections: BTreeMap<_, _> = pods
        .filter_map(|pod| {
            let (at, state) = pod.gateway.as_ref()?;
            Some((pod.name.clone(), (*at, state.connections)))
        })
        .collect();
    MetricsView {
        connections,
        error: None,
    }
}

/// The first counters stay, as what the later ones are compared with; of the others the latest ones.
pub(crate) fn keep_health(
    kept: &mut Vec<(Timestamp, GatewayHealth)>,
    now: Timestamp,
    health: GatewayHealth,
    every: SignedDuration,
) {
    let due = kept
        .last()
        .is_none_or(|(last, _)| now.duration_since(*last) >= every);
    if due {
        if kept.len() >= HEALTH_KEPT {
            kept.remove(1);
        }
        kept.push((now, health));
    }
}

fn compare(before: &Sample, now: &GatewayState) -> Change {
    let Some((_, old)) = &before.state else {
        return Change {
            relevant: true,
            ..Change::default()
        };
    };
    // averages and idle counts move all the time and nothing is decided by them
    let still = GatewayState {
        idle: old.idle,
        handshakes_per_second: old.handshakes_per_second,
        health: old.health,
        ..now.clone()
    };
    let same_drain = old.drain_id.is_some() && old.drain_id == now.drain_id;
    let since = |old: u64, now: u64| if same_drain { now.saturating_sub(old) } else { now };
    let counts = now.drain_id.is_some();
    Change {
        relevant: before.silent_since.is_some() || still != *old,
        forced: if counts {
            since(old.forced_closed, now.forced_closed)
        } else {
            0
        },
        natural: if counts {
            since(old.natural_closed, now.natural_closed)
        } else {
            0
        },
    }
}

#[cfg(test)]
mod tests {
    use wsfleet_crds::admin::GatewayPhase;

    use super::*;

    fn state(connections: u64, drain: Option<(&str, u64)>) -> GatewayState {
        GatewayState {
            server_id: "s".into(),
            phase: GatewayPhase::Serving,
            accepting: true,
            connections,
            idle: connections / 2,
            handshakes_per_second: connections as f64,
            forced_closed: drain.map_or(0, |(_, forced)| forced),
            natural_closed: 0,
            capacity: 100,
            revision: "r".into(),
            epoch: 1,
            drain_id: drain.map(|(id, _)| id.to_owned()),
            broker_degraded: false,
            health: GatewayHealth::default(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_last_number_stays_with_its_time_while_a_gateway_is_silent() {
        let samples = Samples::default();
        samples.record("u", at(1), &Ok(state(7, None)));
        assert!(samples.record("u", at(5), &Err(GatewayError::Timeout)).relevant);
        assert!(
            !samples.record("u", at(9), &Err(GatewayError::Timeout)).relevant,
            "still silent is no news"
        );
        let sample = samples.get("u").unwrap();
        assert_eq!(sample.unreachable_since, Some(at(5)));
        assert_eq!(
            sample.state.map(|(at, state)| (at, state.connections)),
            Some((at(1), 7))
        );
        assert!(
            samples.record("u", at(11), &Ok(state(7, None))).relevant,
            "it is back"
        );
        assert_eq!(samples.get("u").unwrap().unreachable_since, None);
    }

    #[test]
    fn a_gateway_that_refuses_to_tell_its_state_is_silent_and_not_unreachable() {
        let samples = Samples::default();
        samples.record("u", at(1), &Ok(state(7, None)));
        assert!(
            samples
                .record("u", at(5), &Err(GatewayError::Unauthorized))
                .relevant
        );
        assert!(!samples.record("u", at(6), &Err(GatewayError::NoToken)).relevant);
        assert!(samples.record("u", at(7), &Err(GatewayError::Timeout)).relevant);
        let sample = samples.get("u").unwrap();
        assert_eq!(
            (sample.silent_since, sample.unreachable_since),
            (Some(at(5)), Some(at(7)))
        );
        assert!(samples.record("u", at(9), &Ok(state(7, None))).relevant);
        let sample = samples.get("u").unwrap();
        assert_eq!((sample.silent_since, sample.unreachable_since), (None, None));
    }

    #[test]
    fn only_what_somebody_decides_by_is_news() {
        let samples = Samples::default();
        assert!(samples.record("u", at(1), &Ok(state(7, None))).relevant);
        let busier = GatewayState {
            idle: 0,
            handshakes_per_second: 99.0,
            ..state(7, None)
        };
        assert!(!samples.record("u", at(2), &Ok(busier)).relevant);
        assert!(samples.record("u", at(3), &Ok(state(8, None))).relevant);
    }

    #[test]
    fn the_first_counters_and_the_latest_ones_are_kept_and_all_forgotten_after_the_rollout() {
        let samples = Samples::default();
        let every = SignedDuration::from_secs(10);
        for second in 0..1000 {
            let health = GatewayHealth {
                handshakes: second as u64,
                ..GatewayHealth::default()
            };
            samples.record_health("u", at(second), health, Some(every));
        }
        let kept: Vec<_> = samples
            .get("u")
            .unwrap()
            .health
            .iter()
            .map(|(_, it)| it.handshakes)
            .collect();
        assert_eq!((kept.len(), kept[0], kept[1], kept[13]), (14, 0, 870, 990));
        samples.record_health("u", at(2000), GatewayHealth::default(), None);
        assert!(samples.get("u").unwrap().health.is_empty());
    }

    #[test]
    fn closes_of_a_drain_are_counted_once() {
        let samples = Samples::default();
        samples.record("u", at(1), &Ok(state(10, None)));
        assert_eq!(
            samples.record("u", at(2), &Ok(state(8, Some(("d", 2))))).forced,
            2
        );
        assert_eq!(
            samples.record("u", at(3), &Ok(state(5, Some(("d", 5))))).forced,
            3
        );
        assert_eq!(
            samples.record("u", at(4), &Ok(state(5, Some(("d", 5))))).forced,
            0
        );
        assert_eq!(
            samples.record("u", at(5), &Ok(state(4, Some(("e", 1))))).forced,
            1,
            "another drain begins at 0"
        );
    }

    #[test]
    fn an_empty_answer_of_prometheus_is_unknown_and_keeps_the_old_numbers() {
        let samples = Samples::default();
        let pods = HashSet::from(["a"]);
        assert!(samples.record_query("c", Ok(Answer::from([("a".to_owned(), (at(1), 3))]))));
        assert!(samples.record_query("c", Ok(Answer::new())));
        let view = samples.queried("c", &pods);
        assert_eq!(view.connections["a"], (at(1), 3));
        assert!(view.error.is_some());
        assert!(samples.queried("other", &pods).connections.is_empty());
    }
}
