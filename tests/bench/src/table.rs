//! The report in Markdown: a section for each workload, with its table and its picture.

use std::fmt::Write as _;

use crate::report::Report;
use crate::sections::{Column, Picture, SECTIONS, Section, Show};
use crate::server::Server;
use crate::svg::Chart;
use crate::workload::Workload;

/// All sections; pictures are looked for in `images`.
pub(crate) fn markdown(report: &Report, images: &str) -> String {
    let mut text = format!("{}\n", report.heading());
    for section in &SECTIONS {
        if report.servers(section.workload).is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n### {}\n\n{}\n\n{}",
            section.title,
            section.what(&report.scale),
            section.table(report)
        );
        if section.picture.is_some() {
            let _ = write!(text, "\n![{}]({images}/{})\n", section.title, section.file());
        }
    }
    text
}

impl Section {
    /// The picture's file.
    pub(crate) fn file(&self) -> String {
        format!("{:?}.svg", self.workload).to_lowercase()
    }

    fn table(&self, report: &Report) -> String {
        let titles = self.columns.iter().map(|column| column.title);
        let mut text = format!(
            "| |{}\n|---|",
            titles.fold(String::new(), |all, title| all + " " + title + " |")
        );
        text += &"---:|".repeat(self.columns.len());
        for server in report.servers(self.workload) {
            let _ = write!(text, "\n| {} |", server.name());
            for column in self.columns {
                let _ = write!(text, " {} |", column.cell(report, self.workload, server));
            }
        }
        text.push('\n');
        for error in report.errors(self.workload) {
            let _ = write!(text, "\nFailed: {error}\n");
        }
        text
    }

    /// The picture, if it has one.
    pub(crate) fn chart(&self, report: &Report) -> Option<Chart> {
        let Picture { title, unit, series } = self.picture.as_ref()?;
        let servers = report.servers(self.workload).into_iter();
        let bars = servers.flat_map(|server| {
            series.iter().filter_map(move |(name, key)| {
                let value = report.median(self.workload, server, key)?;
                let label = if name.is_empty() {
                    server.name().to_owned()
                } else {
                    format!("{}, {name}", server.name())
                };
                Some((label, value, server == Server::Gateway))
            })
        });
        Some(Chart {
            title,
            unit,
            bars: bars.collect(),
        })
    }
}

impl Column {
    fn cell(&self, report: &Report, workload: Workload, server: Server) -> String {
        let median = report.median(workload, server, self.key);
        let text = match self.show {
            Show::Number(decimals) => median.map(|value| format!("{value:.decimals$}")),
            Show::Thousands => median.map(thousands),
            Show::Mebibytes => median.map(|bytes| format!("{:.1} MiB", bytes / f64::from(1 << 20))),
            Show::Ratio => report
                .ratio(workload, server, self.key)
                .map(|ratio| format!("{ratio:.2}")),
            Show::Closes => report.first(workload, server).map(|values| {
                let closes = values.iter().filter_map(|(key, count)| {
                    let code = key.strip_prefix("closes_")?;
                    Some(format!("{code}: {count}"))
                });
                closes.collect::<Vec<_>>().join(", ")
            }),
        };
        text.unwrap_or_else(|| "–".into())
    }
}

/// `12 345`.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;
    use crate::report::tests::report;
    use crate::workload::Values;

    #[test]
    fn a_table_has_a_line_for_each_server_and_says_what_failed() {
        let mut report = report(&[(1, Server::Floor, 100_000.0), (1, Server::Gateway, 119_000.0)]);
        report.rows.push(Row {
            round: 1,
            workload: Workload::Fanout,
            server: Server::Ws,
            values: Values::new(),
            error: Some("member 7 got message 3 where 2 was due".into()),
        });
        let text = markdown(&report, "images");
        assert!(
            text.contains("| wsfleet-gateway | 119 000 | 1.19 | – | – |"),
            "{text}"
        );
        assert!(text.contains("| Node ws | – |"), "{text}");
        assert!(
            text.contains("Failed: Node ws, round 1: member 7 got message 3"),
            "{text}"
        );
        assert!(text.contains("](images/fanout.svg)"), "{text}");
        assert!(
            !text.contains("Connect storm"),
            "what was not run is not shown: {text}"
        );
    }

    #[test]
    fn thousands_are_set_apart() {
        let shown: Vec<String> = [0.0, 999.4, 1_000.0, 4_740_000.0].map(thousands).into();
        assert_eq!(shown, ["0", "999", "1 000", "4 740 000"]);
    }
}
