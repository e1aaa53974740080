//! The report in Markdown: a section for each workload, with its table and its picture.

use std::fmt::Write as _;

use crate::report::Report;
use crate::server::Server;
use crate::svg::Chart;
use crate::workload::{Scale, Workload};

/// How a number is shown.
#[derive(Clone, Copy)]
enum Show {
    /// With so many decimals.
    Number(usize),
    /// A large one, with blanks between thousands.
    Thousands,
    /// Bytes, in MiB.
    Mebibytes,
    /// The ratio to the floor.
    Ratio,
    /// All close codes.
    Closes,
}

/// A picture of a section.
struct Picture {
    title: &'static str,
    unit: &'static str,
    /// Its series: name, and the value that it shows.
    series: &'static [(&'static str, &'static str)],
}

struct Column {
    title: &'static str,
    key: &'static str,
    show: Show,
}

/// A workload's part of the page.
pub(crate) struct Section {
    pub(crate) workload: Workload,
    title: &'static str,
    columns: &'static [Column],
    picture: Option<Picture>,
}

const fn column(title: &'static str, key: &'static str, show: Show) -> Column {
    Column { title, key, show }
}

/// In the order of the page.
pub(crate) const SECTIONS: [Section; 8] = [
    Section {
        workload: Workload::Memory,
        title: "Memory of an idle socket",
        columns: &[
            column("no socket", "empty_bytes", Show::Mebibytes),
            column("all joined", "full_bytes", Show::Mebibytes),
            column("bytes per socket", "bytes_per_socket", Show::Thousands),
        ],
        picture: Some(Picture {
            title: "Resident memory per idle socket, less is better",
            unit: "bytes",
            series: &[("", "bytes_per_socket")],
        }),
    },
    Section {
        workload: Workload::Fanout,
        title: "Fan-out, one message at a time",
        columns: &[
            column("deliveries/s", "deliveries_per_second", Show::Thousands),
            column("× floor", "deliveries_per_second", Show::Ratio),
            column("CPU s per million", "cpu_seconds_per_million", Show::Number(2)),
            column("× floor", "cpu_seconds_per_million", Show::Ratio),
        ],
        picture: Some(Picture {
            title: "Deliveries per second, one message at a time, more is better",
            unit: "/s",
            series: &[("", "deliveries_per_second")],
        }),
    },
    Section {
        workload: Workload::Burst,
        title: "Fan-out, bursts",
        columns: &[
            column("deliveries/s", "deliveries_per_second", Show::Thousands),
            column("× floor", "deliveries_per_second", Show::Ratio),
            column("CPU s per million", "cpu_seconds_per_million", Show::Number(2)),
            column("× floor", "cpu_seconds_per_million", Show::Ratio),
        ],
        picture: Some(Picture {
            title: "Deliveries per second, in bursts, more is better",
            unit: "/s",
            series: &[("", "deliveries_per_second")],
        }),
    },
    Section {
        workload: Workload::Writes,
        title: "System calls of a burst",
        columns: &[column(
            "write calls per member and burst",
            "writes_per_member_and_burst",
            Show::Number(2),
        )],
        picture: None,
    },
    Section {
        workload: Workload::Latency,
        title: "Latency at a fixed rate",
        columns: &[
            column("p50, ms", "p50_ms", Show::Number(1)),
            column("p99, ms", "p99_ms", Show::Number(1)),
            column("p99 × floor", "p99_ms", Show::Ratio),
        ],
        picture: Some(Picture {
            title: "Latency at 20 messages per second, less is better",
            unit: "ms",
            series: &[("p50", "p50_ms"), ("p99", "p99_ms")],
        }),
    },
    Section {
        workload: Workload::Neighbours,
        title: "Small rooms beside a large one",
        columns: &[
            column("p50 alone, ms", "alone_p50_ms", Show::Number(1)),
            column("p99 alone, ms", "alone_p99_ms", Show::Number(1)),
            column("p50 beside, ms", "beside_p50_ms", Show::Number(1)),
            column("p99 beside, ms", "beside_p99_ms", Show::Number(1)),
            column("large room's p99, ms", "large_p99_ms", Show::Number(0)),
        ],
        picture: Some(Picture {
            title: "p99 of small rooms, less is better",
            unit: "ms",
            series: &[("alone", "alone_p99_ms"), ("beside", "beside_p99_ms")],
        }),
    },
    Section {
        workload: Workload::Storm,
        title: "Connect storm",
        columns: &[
            column("connects/s", "connects_per_second", Show::Thousands),
            column("× floor", "connects_per_second", Show::Ratio),
            column("p50, ms", "p50_ms", Show::Number(1)),
            column("p99, ms", "p99_ms", Show::Number(1)),
        ],
        picture: Some(Picture {
            title: "Connects per second, more is better",
            unit: "/s",
            series: &[("", "connects_per_second")],
        }),
    },
    Section {
        workload: Workload::Deploy,
        title: "Deploy",
        columns: &[
            column("closes by code", "", Show::Closes),
            column("in the busiest second", "busiest_second", Show::Thousands),
            column("last close, s", "last_close_seconds", Show::Number(1)),
            column("exit, s", "exit_seconds", Show::Number(1)),
            column("exit status", "exit_status", Show::Number(0)),
        ],
        picture: Some(Picture {
            title: "Sockets closed in the busiest second of a deploy, less is better",
            unit: "",
            series: &[("", "busiest_second")],
        }),
    },
];

/// All sections; pictures are looked for in `images`.
pub(crate) fn markdown(report: &Report, images: &str) -> String {
    let mut text = format!("{}\n", report.about);
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

    /// What was done.
    fn what(&self, scale: &Scale) -> String {
        let Scale {
            idle,
            crowd,
            room,
            burst,
            drain_window,
            ..
        } = scale;
        match self.workload {
            Workload::Memory => {
                format!("{idle} sockets, each joined to a room of 100; `VmRSS` of the server.")
            }
            Workload::Fanout => format!(
                "One room of {crowd}, messages of 100 bytes; the next is published when every member has got the last."
            ),
            Workload::Burst => format!(
                "{burst} messages of 100 bytes at once to a room of {room}; the next burst when every member has got the last."
            ),
            Workload::Writes => format!(
                "{burst} messages of 100 bytes at once to a room of {room}, under `strace -f -c`. \
                 More than 10 of the gateway fail the run."
            ),
            Workload::Latency => format!(
                "20 messages of 100 bytes per second to a room of {room}, from the publisher's write to each member's read."
            ),
            Workload::Neighbours => format!(
                "100 messages of 100 bytes per second in 100 rooms of 10: alone, and beside one message of 64 KiB per \
                 second to a room of {crowd}."
            ),
            Workload::Storm => {
                format!("{crowd} sockets, 500 at a time, from connect to joined. The floor checks no token.")
            }
            Workload::Deploy => format!(
                "SIGTERM with {crowd} sockets whose clients do nothing until they are closed. 1005: closed without a code, \
                 1006: cut. The gateway's drain window is shortened from 60 s to {drain_window} s."
            ),
        }
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
