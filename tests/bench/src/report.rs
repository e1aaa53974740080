//! The results: one row for each run, kept as JSON, and what is made of them.

use serde::{Deserialize, Serialize};

use crate::server::Server;
use crate::workload::{Scale, Values, Workload};

/// All runs of `make bench`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What, and when, for people.
    pub(crate) about: String,
    /// On what, for people.
    pub(crate) machine: String,
    pub(crate) quick: bool,
    pub(crate) scale: Scale,
    pub(crate) rows: Vec<Row>,
}

/// One workload against one server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) round: u32,
    pub(crate) workload: Workload,
    pub(crate) server: Server,
    #[serde(default, skip_serializing_if = "Values::is_empty")]
    pub(crate) values: Values,
    /// Why there are no values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl Report {
    /// What was measured when, in how many rounds, and on what.
    pub(crate) fn heading(&self) -> String {
        let rounds = self.rows.iter().map(|row| row.round).max().unwrap_or_default();
        let word = if rounds == 1 { "round" } else { "rounds" };
        let others = self.rows.iter().filter(|row| !row.server.is_of_pair());
        let all = match others.map(|row| row.round).max() {
            Some(all) if all < rounds => format!(" ({all} of all servers)"),
            _ => String::new(),
        };
        format!("{}, {rounds} {word}{all}, {}", self.about, self.machine)
    }

    /// The servers that ran a workload, in their order.
    pub(crate) fn servers(&self, workload: Workload) -> Vec<Server> {
        let mut servers: Vec<Server> = self.of(workload).map(|row| row.server).collect();
        servers.sort_unstable();
        servers.dedup();
        servers
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, workload: Workload, server: Server, key: &str) -> Option<f64> {
        let rows = self.of(workload).filter(|row| row.server == server);
        median(rows.filter_map(|row| row.values.get(key).copied()).collect())
    }

    /// The median of the rounds' ratios to the floor: both were measured within minutes of each other.
    pub(crate) fn ratio(&self, workload: Workload, server: Server, key: &str) -> Option<f64> {
        let ratios = self.of(workload).filter(|row| row.server == server);
        let ratios = ratios.filter_map(|row| {
            let floor = self
                .of(workload)
                .find(|floor| floor.server == Server::Floor && floor.round == row.round)?;
            Some(row.values.get(key)? / floor.values.get(key)?)
        });
        median(ratios.filter(|ratio| ratio.is_finite()).collect())
    }

    /// The values of a server's first round, for what is counted.
    pub(crate) fn first(&self, workload: Workload, server: Server) -> Option<&Values> {
        self.of(workload)
            .find(|row| row.server == server && row.error.is_none())
            .map(|row| &row.values)
    }

    /// What went wrong, a line each.
    pub(crate) fn errors(&self, workload: Workload) -> Vec<String> {
        let rows = self.of(workload);
        rows.filter_map(|row| {
            let error = row.error.as_ref()?.replace('\n', " ");
            Some(format!("{}, round {}: {error}", row.server.name(), row.round))
        })
        .collect()
    }

    fn of(&self, workload: Workload) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.workload == workload)
    }
}

/// Of an even number the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[middle - 1], upper))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report(rows: &[(u32, Server, f64)]) -> Report {
        let row = |&(round, server, value): &(u32, Server, f64)| Row {
            round,
            workload: Workload::Fanout,
            server,
            values: Values::from([("deliveries_per_second".into(), value)]),
            error: None,
        };
        Report {
            about: "Measured today".into(),
            machine: "on paper.".into(),
            quick: false,
            scale: Scale::full(),
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn a_ratio_compares_with_the_floor_of_its_own_round() {
        let report = report(&[
            (1, Server::Floor, 100.0),
            (1, Server::Gateway, 120.0),
            (2, Server::Floor, 50.0),
            (2, Server::Gateway, 40.0),
            (3, Server::Floor, 100.0),
            (3, Server::Gateway, 110.0),
        ]);
        let key = "deliveries_per_second";
        assert_eq!(report.ratio(Workload::Fanout, Server::Gateway, key), Some(1.1));
        assert_eq!(report.median(Workload::Fanout, Server::Gateway, key), Some(110.0));
        assert_eq!(report.ratio(Workload::Fanout, Server::Axum, key), None);
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let text = serde_json::to_string(&report(&[(1, Server::SocketIo, 1.5)])).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.servers(Workload::Fanout), [Server::SocketIo]);
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }

    #[test]
    fn the_heading_says_how_many_rounds_were_made_and_not_how_many_were_planned() {
        let one = report(&[(1, Server::Floor, 1.0)]);
        assert_eq!(one.heading(), "Measured today, 1 round, on paper.");
        let two = report(&[(1, Server::Floor, 1.0), (2, Server::Floor, 1.0)]);
        assert!(two.scale.rounds > 2);
        assert_eq!(two.heading(), "Measured today, 2 rounds, on paper.");
        let of_all = |round| (round, Server::Axum, 1.0);
        let more = report(&[of_all(1), of_all(2), (3, Server::Gateway, 1.0)]);
        assert_eq!(
            more.heading(),
            "Measured today, 3 rounds (2 of all servers), on paper."
        );
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
