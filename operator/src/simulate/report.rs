//! What a run says in figures.

use std::fmt::Write;

use super::scenario::{LIMIT, Run};
use super::time::{Millis, SECOND};

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span for people.
pub(crate) fn span(span: Millis) -> String {
    let seconds = span / SECOND;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// What a picture and a table are headed by.
pub(crate) fn title(run: &Run) -> String {
    let cluster = &run.world.cluster;
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let scenario = clap::ValueEnum::to_possible_value(&run.scenario);
    let scenario = scenario
        .as_ref()
        .map_or("", clap::builder::PossibleValue::get_name);
    let seed = run.world.settings.seed;
    format!(
        "{scenario} of {name}, {} clients, seed {seed}",
        grouped(run.clients)
    )
}

/// The table that the command prints.
pub(crate) fn table(run: &Run) -> String {
    let mut text = title(run) + "\n";
    for (name, value) in rows(run) {
        // a String takes everything
        let _ = writeln!(text, "  {name:<24} {value}");
    }
    for (at, event) in run.world.record.events.iter().filter(|(_, event)| event.warning) {
        let since = span(at.saturating_sub(run.began));
        let _ = writeln!(text, "  warning after {since}: {}: {}", event.reason, event.note);
    }
    for breach in &run.world.checks.breaches {
        let _ = writeln!(text, "  BROKEN PROMISE {breach}");
    }
    text
}

fn rows(run: &Run) -> Vec<(&'static str, String)> {
    let (world, record, checks) = (&run.world, &run.world.record, &run.world.checks);
    let took = run
        .took
        .map_or_else(|| format!("not within {}: {}", span(LIMIT), waiting(run)), span);
    let closes: Vec<_> = record
        .closes
        .iter()
        .map(|(cause, count)| format!("{} by {}", grouped(*count), cause.as_str()))
        .collect();
    let closes = if closes.is_empty() {
        "none".to_owned()
    } else {
        closes.join(", ")
    };
    let (moves, clients) = world.clients.moves();
    let all: u64 = record.closes.values().sum();
    let capacity = u64::from(world.cluster.spec.gateway.capacity.max_connections);
    let fullest = record.fullest as u64;
    let mut rows = vec![
        ("at rest again after", took),
        ("sockets closed", closes),
        (
            "in the worst second",
            format!(
                "{} by drains, {:.2} % of all sockets, {:.0} % of the budget",
                grouped(checks.busiest),
                checks.busiest_share * 100.0,
                checks.most_of_budget * 100.0
            ),
        ),
        (
            "closes per client",
            format!("{:.3}", all as f64 / run.clients.max(1) as f64),
        ),
    ];
    if moves > 0 {
        let by_count = world.clients.histogram();
        let spread: Vec<_> = by_count
            .iter()
            .enumerate()
            .filter(|(_, clients)| **clients > 0)
            .map(|(times, clients)| format!("{} {times} times", grouped(*clients)))
            .collect();
        let mean = moves as f64 / clients.max(1) as f64;
        rows.push((
            "  of them by the rollout",
            format!("{mean:.3}: {}", spread.join(", ")),
        ));
    }
    rows.extend([
        ("left by themselves", grouped(record.left)),
        ("refused attempts", grouped(record.refused)),
        (
            "without a gateway",
            format!("{} clients at most", grouped(record.most_homeless)),
        ),
        ("pods", format!("{} at most", record.most_pods)),
        (
            "fullest pod",
            format!(
                "{} sockets, {} % of its capacity",
                grouped(fullest),
                fullest * 100 / capacity.max(1)
            ),
        ),
        (
            "at the end",
            format!("the fullest pod holds {:.2} times the average", world.skew()),
        ),
        (
            "operator",
            format!(
                "{} passes, {} writes to the API server, {} crashes",
                grouped(record.passes),
                grouped(record.writes),
                record.crashes
            ),
        ),
    ]);
    rows
}

fn waiting(run: &Run) -> String {
    let status = run.world.cluster.status.as_ref();
    status
        .and_then(|status| status.rollout.as_ref()?.waiting_for.clone())
        .unwrap_or_else(|| "the resource does not say what it waits for".to_owned())
}
