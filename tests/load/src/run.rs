//! Runs what the flags say and writes the report.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use wsfleet_load::{Load, Report, serve_control};

use crate::cli::Invocation;
use crate::progress::{Progress, complain};

/// Runs to the end; the exit status.
pub(crate) fn run(invocation: &Invocation) -> anyhow::Result<u8> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = invocation.threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    let report = runtime.block_on(watch(invocation))?;
    write_report(invocation, &report)?;
    if report.handshakes.accepted == 0 && report.sockets.target > 0 {
        anyhow::bail!("no socket could be opened: {:?}", report.handshakes.refused);
    }
    Ok(report.exit_code())
}

async fn watch(invocation: &Invocation) -> anyhow::Result<Report> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let load = Load::start(invocation.config.clone())?;
    if let Some(address) = invocation.control {
        let bound = serve_control(address, load.clone(), stop.clone()).await?;
        complain(&format!("control on http://{bound}"));
    }
    if invocation.idle {
        stop_with_stdin(stop.clone());
    }
    let progress = Progress::new(invocation.quiet);
    let mut ticks = interval(Duration::from_secs(1));
    let mut ready = false;
    let over = async {
        match invocation.duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => break,
            () = stop.cancelled() => break,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = ticks.tick() => {}
        }
        let report = load.snapshot();
        progress.show(&report);
        if invocation.idle && !ready && report.sockets.joined == report.sockets.target {
            ready = true;
            let line =
                serde_json::json!({ "connected": report.sockets.connected, "joined": report.sockets.joined });
            writeln!(std::io::stdout().lock(), "{line}").context("cannot write to standard output")?;
        }
    }
    let stopping = load.stop();
    tokio::pin!(stopping);
    let report = loop {
        tokio::select! {
            report = &mut stopping => break report,
            _ = ticks.tick() => progress.show(&load.snapshot()),
        }
    };
    progress.end();
    Ok(report)
}

/// Cancels `stop` when standard input ends. A thread of its own: a blocked read would hold up the runtime's end.
fn stop_with_stdin(stop: CancellationToken) {
    std::thread::spawn(move || {
        // an input that cannot be read has ended
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        stop.cancel();
    });
}

fn write_report(invocation: &Invocation, report: &Report) -> anyhow::Result<()> {
    let Some(file) = &invocation.json else {
        return write!(std::io::stdout().lock(), "{report}").context("cannot write the table");
    };
    let json = serde_json::to_vec_pretty(report).context("cannot make JSON of the report")?;
    if file.as_os_str() == "-" {
        complain(&report.to_string());
        let mut stdout = std::io::stdout().lock();
        return stdout
            .write_all(&json)
            .and_then(|()| stdout.write_all(b"\n"))
            .context("cannot write the report");
    }
    std::fs::write(file, json).with_context(|| format!("--json: cannot write {}", file.display()))?;
    write!(std::io::stdout().lock(), "{report}").context("cannot write the table")
}
