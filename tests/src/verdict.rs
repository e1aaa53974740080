//! What a scenario concludes from the load's report and the witness' stories.

use std::collections::BTreeMap;

use wsfleet_load::{Closes, Initiator, Report};

use crate::scenario::Failure;
use crate::witness::Stories;

/// Every close had a code, nothing was lost, and no pod was deleted with sockets before its deadline.
pub fn nothing_was_cut(report: &Report, stories: &Stories) -> Result<(), Failure> {
    every_close_had_a_code(report)?;
    for (name, story) in stories {
        if story.cut_short() {
            return Err(format!("{name} was deleted with sockets before its deadline: {story:?}").into());
        }
    }
    Ok(())
}

/// Every close had a code, and nothing was lost.
pub fn every_close_had_a_code(report: &Report) -> Result<(), Failure> {
    if report.verdict.cut > 0 {
        let text = format!(
            "{} closes without a code: {:?}",
            report.verdict.cut, report.closes.by_code
        );
        return Err(text.into());
    }
    nothing_was_lost(report)
}

/// Everything that was acknowledged reached every member that was there, once and in order; cuts aside.
pub fn nothing_was_lost(report: &Report) -> Result<(), Failure> {
    if report.verdict.counts.is_clean() {
        Ok(())
    } else {
        Err(format!("messages went wrong: {:?}", report.verdict).into())
    }
}

/// As [`nothing_was_lost`], and nothing was missed by those that were away: each was given all of it, except one in a
/// thousand, who was told that it was not.
pub fn nothing_was_missed(report: &Report) -> Result<(), Failure> {
    nothing_was_lost(report)?;
    let (counts, reconnects, publishes) = (report.verdict.counts, &report.reconnects, &report.publishes);
    let share = reconnects.resumes.share();
    let none = [
        (
            counts.taken_back + reconnects.offline.taken_back,
            "messages were taken back",
        ),
        (
            publishes.unconfirmed + publishes.outstanding,
            "messages have no answer",
        ),
        (report.sockets.target - report.sockets.joined, "clients are away"),
    ];
    for (count, what) in none {
        if count > 0 {
            return Err(format!("{count} {what}:\n{report}").into());
        }
    }
    if reconnects.resumes.recovered == 0 || share < 0.999 {
        return Err(format!("{:.2} % have recovered:\n{report}", share * 100.0).into());
    }
    if reconnects.resumes.not_recovered.is_empty() && reconnects.offline.missed > 0 {
        return Err(format!("messages were missed silently:\n{report}").into());
    }
    Ok(())
}

/// The closes that the clients did not begin kept to a budget of so many per second: by how many they were ahead at most.
///
/// A fifth more is granted, since what is closed evenly arrives a little less so, and two seconds' worth, since a machine that
/// pauses makes up for it. A gateway that kept to no rate would be ahead by all that it holds.
pub fn budget_was_kept(report: &Report, per_second: u64) -> Result<u64, Failure> {
    let most = per_second * 12 / 10;
    let ahead = most_ahead(&report.closes, most);
    if ahead <= 2 * most {
        return Ok(ahead);
    }
    let seconds = &report.closes.per_second;
    Err(format!("{ahead} closes more than {most} a second allow: {seconds:?}").into())
}

/// Sockets of the fullest of `gateways` gateways at the end, as a multiple of their mean.
pub fn most_of_mean(report: &Report, gateways: usize) -> f64 {
    let held = report.sockets.by_server.values();
    let (most, all) = held.fold((0_u64, 0_u64), |(most, all), held| (most.max(*held), all + held));
    (most * gateways as u64) as f64 / all.max(1) as f64
}

/// By how many the closes that the clients did not begin were ahead of a rate at most: what came in any stretch of seconds,
/// less what the rate allows in it.
fn most_ahead(closes: &Closes, per_second: u64) -> u64 {
    let mut seconds = BTreeMap::<u64, u64>::new();
    for kind in &closes.per_second {
        if kind.initiator != Initiator::Client {
            *seconds.entry(kind.second).or_default() += kind.count;
        }
    }
    let (mut ahead, mut most, mut last) = (0, 0, 0);
    for (second, count) in seconds {
        let quiet: u64 = second.saturating_sub(last + 1) * per_second;
        ahead = (u64::saturating_sub(ahead, quiet) + count).saturating_sub(per_second);
        (most, last) = (most.max(ahead), second);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsfleet_load::SecondCloses;

    fn closes(seconds: &[(u64, u64)]) -> Closes {
        let kind = |(second, count)| SecondCloses {
            second,
            code: 1012,
            initiator: Initiator::Server,
            count,
        };
        Closes {
            per_second: seconds.iter().copied().map(kind).collect(),
            ..Closes::default()
        }
    }

    #[test]
    fn closes_are_ahead_of_a_rate_by_what_no_quiet_second_has_made_up_for() {
        assert_eq!(most_ahead(&closes(&[]), 50), 0);
        assert_eq!(most_ahead(&closes(&[(3, 50), (4, 50), (5, 50)]), 50), 0);
        assert_eq!(most_ahead(&closes(&[(3, 80), (4, 70), (5, 0), (6, 60)]), 50), 50);
        assert_eq!(most_ahead(&closes(&[(3, 90), (5, 90)]), 50), 40);
        assert_eq!(most_ahead(&closes(&[(9, 500)]), 50), 450);
    }
}
