//! Writes the results where people read them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::report::Report;
use crate::sections::SECTIONS;
use crate::table::markdown;

/// Replaces what is between the markers of a `part` of `page`, and writes the pictures to the folder that is called like the page.
pub(crate) fn record(report: &Report, page: &Path, part: &str) -> Result<()> {
    ensure!(
        !report.quick,
        "a quick run says nothing about speed: it is not recorded"
    );
    let images = page.with_extension("");
    let name = images
        .file_name()
        .and_then(|name| name.to_str())
        .context("the page has no name")?;
    let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let text = replace(&text, part, &markdown(report, name))?;
    fs::create_dir_all(&images)?;
    for section in &SECTIONS {
        if report.servers(section.workload).is_empty() {
            continue;
        }
        if let Some(chart) = section.chart(report) {
            fs::write(images.join(section.file()), chart.render())?;
        }
    }
    fs::write(page, text)?;
    Ok(())
}

fn replace(page: &str, part: &str, section: &str) -> Result<String> {
    let begin = format!("<!-- {part}: written by RECORD=yes make {part} -->\n");
    let end = format!("<!-- {part}: end -->\n");
    let (before, rest) = page
        .split_once(&begin)
        .with_context(|| format!("the page has no line {begin}"))?;
    let (_, after) = rest
        .split_once(&end)
        .with_context(|| format!("the page has no line {end}"))?;
    Ok(format!("{before}{begin}{section}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;
    use crate::server::Server;

    const BEGIN: &str = "<!-- bench: written by RECORD=yes make bench -->\n";
    const END: &str = "<!-- bench: end -->\n";

    #[test]
    fn a_page_keeps_what_is_around_the_markers_and_gets_its_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("numbers.md");
        fs::write(&page, format!("before\n{BEGIN}old\n{END}after\n")).unwrap();
        let report = report(&[(1, Server::Floor, 10.0)]);
        record(&report, &page, "bench").unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            text.starts_with(&format!("before\n{BEGIN}Measured today, 1 round, on paper.\n")),
            "{text}"
        );
        assert!(
            text.ends_with(&format!("{END}after\n")) && !text.contains("old"),
            "{text}"
        );
        assert!(folder.path().join("numbers/fanout.svg").is_file());
        assert!(record(&report, &page, "another").is_err(), "it has no such part");
    }

    #[test]
    fn a_quick_run_and_a_page_without_markers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("numbers.md");
        fs::write(&page, "nothing").unwrap();
        let mut report = report(&[(1, Server::Floor, 10.0)]);
        assert!(record(&report, &page, "bench").is_err());
        report.quick = true;
        assert!(record(&report, &page, "bench").is_err());
        assert_eq!(fs::read_to_string(&page).unwrap(), "nothing");
    }
}
