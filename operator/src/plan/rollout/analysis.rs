//! Judges a new revision beside the one before it, by what its gateways counted while both served.
//!
//! A measurement covers the time from the canary's first answers until it was made, and each is made again from the
//! same counters, so nothing of it is remembered. What a share of few events is worth, Wilson's lower bound says: three
//! failures of three are no chance, one of three may be.

use jiff::{SignedDuration, Timestamp};
use wsfleet_crds::admin::{GatewayHealth, PING_BOUNDS_MS};
use wsfleet_crds::v1alpha1::{AnalysisSpec, BuiltinAnalysis};

use super::advance::MOST_TOLD;
use crate::plan::draft::{Draft, Pass};
use crate::plan::fleet::Member;
use crate::plan::wilson;

/// Refused handshakes count as far as their share is this much larger than on the revision before: clients with bad
/// tokens come to both, a wrong key refuses everybody on one.
const REFUSED_EXCESS: f64 = 0.2;
/// Handshakes from which on it is known what share the revision before refuses.
const ENOUGH_OLD: u64 = 20;

/// What the measurements say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing speaks against the revision.
    Good,
    /// Too many measurements in a row were bad: name and numbers.
    Bad(String),
    /// The last measurement says nothing, or was bad: not a moment to go on. `true` once it is so for too long.
    Unclear(String, bool),
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
enum Measured {
    Good,
    Bad(String),
    Unknown(String),
}

/// Judges the wanted revision by all analyses of the specification.
pub(crate) fn judge(pass: &Pass<'_>, draft: &mut Draft) -> Verdict {
    let mut verdict = Verdict::Good;
    for analysis in &pass.cluster.spec.rollout.analysis {
        draft.wake_in(std::time::Duration::from_secs(analysis.interval_seconds.into()));
        match judge_one(pass, analysis) {
            bad @ Verdict::Bad(_) => return bad,
            Verdict::Good => {}
            unclear @ Verdict::Unclear(..) => verdict = unclear,
        }
    }
    verdict
}

fn judge_one(pass: &Pass<'_>, analysis: &AnalysisSpec) -> Verdict {
    let interval = SignedDuration::from_secs(analysis.interval_seconds.into());
    let limit = analysis.failure_limit.max(analysis.inconclusive_limit);
    let measured: Vec<_> = (0..=limit)
        .map_while(|back| pass.now.checked_sub(interval * i32::try_from(back).ok()?).ok())
        .map_while(|at| measure(pass, analysis, at))
        .collect();
    let leading = |test: fn(&Measured) -> bool| measured.iter().take_while(|it| test(it)).count() as u32;
    let bad = leading(|it| matches!(it, Measured::Bad(_)));
    let unknown = leading(|it| matches!(it, Measured::Unknown(_)));
    match measured.first() {
        Some(Measured::Bad(text)) if bad > analysis.failure_limit => {
            Verdict::Bad(format!("{}: {text}", analysis.name))
        }
        Some(Measured::Bad(text)) => Verdict::Unclear(format!("{}: {text}", analysis.name), false),
        Some(Measured::Unknown(text)) => Verdict::Unclear(
            format!("{}: {text}", analysis.name),
            unknown > analysis.inconclusive_limit,
        ),
        Some(Measured::Good) | None => Verdict::Good,
    }
}

/// What was to be seen at `at`; `None` when nothing could be seen yet, or by another leader only.
fn measure(pass: &Pass<'_>, analysis: &AnalysisSpec, at: Timestamp) -> Option<Measured> {
    let began = pass.course.markers.started_at?;
    if at < began.max(pass.observed.leader_since) {
        return None;
    }
    let Some(builtin) = analysis.builtin else {
        return queried(pass, analysis, at);
    };
    let is_new = |member: &Member<'_>| member.pod.revision == pass.target.hash;
    if builtin == BuiltinAnalysis::Restarts {
        return Some(restarts(pass, analysis.limit(), at, began, is_new));
    }
    let Some(new) = sum(pass, at, is_new) else {
        // a canary that is whole answers, or there is something to find out before the others follow
        let whole = pass.course.markers.baking_since.is_some_and(|since| at >= since);
        return whole
            .then(|| Measured::Unknown("no gateway of the revision has told what it counted".to_owned()));
    };
    let old = sum(pass, at, |member| !is_new(member)).unwrap_or_default();
    Some(match builtin {
        BuiltinAnalysis::HandshakeErrorRatio => handshakes(&new, &old, analysis),
        BuiltinAnalysis::AbnormalCloseRatio => share(
            "of the sockets that ended were cut or ended by a fault",
            (new.abnormal_closes as f64, new.closes),
            ratio(old.abnormal_closes as f64, old.closes),
            analysis,
        ),
        BuiltinAnalysis::Restarts | BuiltinAnalysis::PingP99 => pings(&new, &old, analysis),
    })
}

/// What the pods for which `predicate` holds counted until `at`, each from its first answer in the rollout on. A pod
/// that was made for the rollout is counted from its beginning.
fn sum(pass: &Pass<'_>, at: Timestamp, predicate: impl Fn(&Member<'_>) -> bool) -> Option<GatewayHealth> {
    let began = pass.course.markers.started_at?;
    let mut total = None;
    for member in pass.fleet.filter(|member| predicate(member)) {
        let seen = member.pod.health.iter().filter(|(seen, _)| *seen <= at);
        let Some((_, last)) = seen.clone().next_back() else {
            continue;
        };
        let first = if member.pod.created_at >= began {
            GatewayHealth::default()
        } else {
            seen.clone().next().map(|(_, health)| *health).unwrap_or_default()
        };
        total = Some(
            total
                .unwrap_or_else(GatewayHealth::default)
                .plus(&last.since(&first)),
        );
    }
    total
}

fn ratio(part: f64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part / whole as f64)
}

/// Own failures, and refusals as far as the revision before does not refuse as many.
fn handshakes(new: &GatewayHealth, old: &GatewayHealth, analysis: &AnalysisSpec) -> Measured {
    let mut failed = new.handshakes_failed as f64;
    if let Some(refused_old) =
        ratio(old.handshakes_refused as f64, old.handshakes).filter(|_| old.handshakes >= ENOUGH_OLD)
    {
        let expected = (refused_old + REFUSED_EXCESS) * new.handshakes as f64;
        let excess = new.handshakes_refused as f64 - expected;
        if excess > 0.0 {
            failed += excess + REFUSED_EXCESS * new.handshakes as f64;
        }
    }
    share(
        "of the handshakes failed",
        (failed, new.handshakes),
        ratio(old.handshakes_failed as f64, old.handshakes),
        analysis,
    )
}

/// Whether a share of the new revision is larger than that of the old one by more than is allowed.
fn share(what: &str, (part, whole): (f64, u64), old: Option<f64>, analysis: &AnalysisSpec) -> Measured {
    let old = old.unwrap_or(0.0);
    let Some(found) = ratio(part.min(whole as f64), whole) else {
        return Measured::Good;
    };
    let credible = if whole >= u64::from(analysis.min_samples) {
        found
    } else {
        wilson::lower_bound(found, whole as f64)
    };
    if credible - old > analysis.limit() {
        Measured::Bad(format!(
            "{:.1} % {what}, {:.1} % on the revision before ({whole} counted)",
            found * 100.0,
            old * 100.0
        ))
    } else {
        Measured::Good
    }
}

fn pings(new: &GatewayHealth, old: &GatewayHealth, analysis: &AnalysisSpec) -> Measured {
    if new.pings() < u64::from(analysis.min_samples) {
        return Measured::Good;
    }
    let (Some(found), before) = (p99(new), p99(old).unwrap_or(0.0)) else {
        return Measured::Good;
    };
    if found - before > analysis.limit() {
        Measured::Bad(format!(
            "99 of 100 pongs come within {found} ms, within {before} ms on the revision before"
        ))
    } else {
        Measured::Good
    }
}

/// The bound below which 99 of 100 pongs came; beyond the last bound, ten times that.
fn p99(health: &GatewayHealth) -> Option<f64> {
    let total = health.pings();
    let mut below = 0;
    for (index, count) in health.ping_buckets.iter().enumerate() {
        below += count;
        if total > 0 && below * 100 >= total * 99 {
            let last = PING_BOUNDS_MS[PING_BOUNDS_MS.len() - 1];
            return Some(PING_BOUNDS_MS.get(index).copied().unwrap_or(last * 10.0));
        }
    }
    None
}

/// Restarts of new gateways beyond those that as many old ones had since the rollout began.
fn restarts(
    pass: &Pass<'_>,
    limit: f64,
    at: Timestamp,
    began: Timestamp,
    is_new: impl Fn(&Member<'_>) -> bool,
) -> Measured {
    let until = |time: Option<Timestamp>| time.is_some_and(|time| time >= began && time <= at);
    let (mut new, mut new_pods, mut old, mut old_pods) = (0.0, 0.0, 0.0, 0.0);
    for member in pass.fleet.filter(Member::is_live) {
        let restarted = until(member.pod.restarted_at);
        if is_new(member) {
            new_pods += 1.0;
            new += if restarted {
                f64::from(member.pod.restarts)
            } else {
                0.0
            };
        } else {
            old_pods += 1.0;
            old += f64::from(u8::from(restarted));
        }
    }
    let expected = if old_pods > 0.0 {
        old * new_pods / old_pods
    } else {
        0.0
    };
    if new - expected > limit {
        Measured::Bad(format!(
            "{new} restarts of {new_pods} gateways, {old} of {old_pods} of the revision before"
        ))
    } else {
        Measured::Good
    }
}

/// What the Prometheus server last said before `at`.
fn queried(pass: &Pass<'_>, analysis: &AnalysisSpec, at: Timestamp) -> Option<Measured> {
    let answers = pass.observed.analyses.get(&analysis.name);
    let oldest_that_counts = at
        .checked_sub(SignedDuration::from_secs(
            2 * i64::from(analysis.interval_seconds),
        ))
        .ok()?;
    let last = answers
        .into_iter()
        .flatten()
        .rfind(|(seen, _)| *seen <= at && *seen >= oldest_that_counts);
    Some(match last {
        None => Measured::Unknown("Prometheus has not been asked yet".to_owned()),
        Some((_, Err(error))) => Measured::Unknown(error.chars().take(MOST_TOLD).collect()),
        Some((_, Ok(value))) if *value > analysis.limit() => Measured::Bad(format!(
            "the query yields {value}, more than {}",
            analysis.limit()
        )),
        Some(_) => Measured::Good,
    })
}
