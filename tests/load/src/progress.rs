//! What people see while a run goes on: one line each second on standard error, rewritten on a terminal.

use std::io::{IsTerminal as _, Write as _};

use wsfleet_load::{Initiator, Report};

/// Writes to standard error; when that is gone, nobody is there to read it.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Shows reports so far.
pub(crate) struct Progress {
    terminal: bool,
    quiet: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            quiet,
        }
    }

    pub(crate) fn show(&self, report: &Report) {
        if self.quiet {
            return;
        }
        let line = line(report);
        let mut stderr = std::io::stderr().lock();
        // a progress line that cannot be shown is no reason to end a run
        let _ = if self.terminal {
            write!(stderr, "\r{line}\x1b[K")
        } else {
            writeln!(stderr, "{line}")
        };
        let _ = stderr.flush();
    }

    /// Leaves the last line on the terminal.
    pub(crate) fn end(&self) {
        if self.terminal && !self.quiet {
            complain("");
        }
    }
}

fn line(report: &Report) -> String {
    let (sockets, counts) = (&report.sockets, &report.verdict.counts);
    let closes = report
        .closes
        .by_code
        .iter()
        .filter(|close| close.initiator != Initiator::Client);
    let closes: Vec<String> = closes
        .map(|close| format!("{}:{}", close.code, close.count))
        .collect();
    let refused: u64 = report.handshakes.refused.values().sum();
    format!(
        "{:6.1}s  joined {}/{} ({} sockets)  in {:.0}/s p99 {:.1} ms  out {:.0}/s  lost {} dup {} ooo {} cut {}  \
         closes {}  refused {}  reconnects {}",
        report.elapsed_seconds,
        sockets.joined,
        sockets.target,
        sockets.connected,
        report.deliveries.per_second,
        report.deliveries.latency_ms.p99,
        report.publishes.per_second,
        counts.lost + counts.late,
        counts.duplicated,
        counts.out_of_order,
        report.verdict.cut,
        if closes.is_empty() {
            "-".into()
        } else {
            closes.join(" ")
        },
        refused,
        report.reconnects.total,
    )
}
