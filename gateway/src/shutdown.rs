//! The wish to end: SIGTERM or SIGINT for the program, a trigger for tests.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Wishes that may wait to be heard; more than two change nothing.
const WISHES: usize = 4;

/// Receives the wish to end: the first begins a drain, the second hurries it.
#[derive(Debug)]
pub struct ShutdownSignal(mpsc::Receiver<()>);

/// Asks a gateway to end.
#[derive(Clone, Debug)]
pub struct ShutdownTrigger(mpsc::Sender<()>);

impl ShutdownTrigger {
    /// Asks once; again, to hurry.
    pub fn trigger(&self) {
        // full or closed: enough was asked, or it has ended
        let _ = self.0.try_send(());
    }
}

impl ShutdownSignal {
    /// A signal and what triggers it. When every trigger is dropped the signal never comes.
    pub fn manual() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = mpsc::channel(WISHES);
        (ShutdownTrigger(sender), Self(receiver))
    }

    /// SIGTERM and SIGINT of this process; to be called inside a tokio runtime. Fails when the handlers cannot be set.
    pub fn of_process() -> io::Result<Self> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (trigger, signal) = Self::manual();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                trigger.trigger();
            }
        });
        Ok(signal)
    }

    /// The next wish. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
