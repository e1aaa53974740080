//! What the watcher of the demo sees: lines with the time since the start, and tables.

use std::io::Write;
use std::time::{Duration, Instant};

/// Prints lines with the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Console {
    started: Instant,
}

impl Console {
    /// The clock of all lines starts now.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// Time since the start of the demo.
    pub(crate) fn elapsed(self) -> Duration {
        self.started.elapsed()
    }

    /// One line with the time.
    pub(crate) fn line(self, text: &str) {
        let seconds = self.elapsed().as_secs();
        say(&format!("{:02}:{:02}  {text}", seconds / 60, seconds % 60));
    }

    /// A new part of the demo.
    pub(crate) fn heading(self, text: &str) {
        say("");
        self.line(&format!("── {text}"));
    }
}

/// Prints text as it is. A closed terminal is no reason to stop the demo: errors of writing are dropped.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A table with a title; numbers stand to the right.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new(title: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            head: head.iter().map(|cell| (*cell).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as text.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = std::iter::once(&self.head).chain(&self.rows);
            cells
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |row: &[String]| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| align(cell, *width));
            format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        let rule = format!(
            "  {}",
            widths
                .iter()
                .map(|width| "─".repeat(*width))
                .collect::<Vec<_>>()
                .join("  ")
        );
        let mut lines = vec![self.title.clone()];
        if !self.head.iter().all(String::is_empty) {
            lines.extend([line(&self.head), rule]);
        }
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines.join("\n")
    }
}

fn align(cell: &str, width: usize) -> String {
    let number = cell
        .chars()
        .next()
        .is_some_and(|first| first.is_ascii_digit() || first == '–');
    if number {
        format!("{cell:>width$}")
    } else {
        format!("{cell:<width$}")
    }
}

/// 12345 as `12,345`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn a_table_lines_up_text_to_the_left_and_numbers_to_the_right() {
        let mut table = Table::new("title", &["name", "sockets"]);
        table.row(vec!["a".to_owned(), "12".to_owned()]);
        table.row(vec!["longer".to_owned(), "3".to_owned()]);
        assert_eq!(
            table.render(),
            "title\n  name    sockets\n  ──────  ───────\n  a            12\n  longer        3"
        );
    }
}
