//! What a scenario concludes from the load's report and the witness' stories.

use wsfleet_load::Report;

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
