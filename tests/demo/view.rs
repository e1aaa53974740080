//! The live view: once a second everything is looked at; every few seconds a line is printed; what was seen is kept.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::console::{Console, thousands};
use crate::crowd::{Crowd, Numbers};
use crate::fleet::{Counts, Fleet};
use crate::resource::Resource;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Between two lines.
const LINE: Duration = Duration::from_secs(4);

/// One look at the fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Since the start of the demo.
    pub(crate) at: Duration,
    /// Pods.
    pub(crate) counts: Counts,
    /// Clients that were connected.
    pub(crate) clients: u64,
}

/// What is looked at, and what was seen.
pub(crate) struct View {
    console: Console,
    resource: Resource,
    fleet: Fleet,
    told: BTreeSet<String>,
    printed: Option<Instant>,
    moments: Vec<Moment>,
    next: Instant,
}

impl View {
    /// A view of this fleet. Events that happened before are not told.
    pub(crate) async fn open(console: Console, resource: Resource, fleet: Fleet) -> Result<Self> {
        let mut told = BTreeSet::new();
        resource.news(&mut told).await?;
        let next = Instant::now();
        Ok(Self {
            console,
            resource,
            fleet,
            told,
            printed: None,
            moments: Vec::new(),
            next,
        })
    }

    /// Waits for the next second, looks at everything, and prints a line when it is time.
    pub(crate) async fn tick(&mut self, crowd: Option<&Crowd>) -> Numbers {
        tokio::time::sleep_until(self.next.into()).await;
        self.next = Instant::now() + LOOK;
        // the events are decoration: a moment without the API server must not end the demo
        for line in self.resource.news(&mut self.told).await.unwrap_or_default() {
            self.console.line(&line);
        }
        let numbers = crowd.map(Crowd::numbers).unwrap_or_default();
        self.moments.push(Moment {
            at: self.console.elapsed(),
            counts: self.fleet.counts(),
            clients: numbers.clients,
        });
        if self.printed.is_none_or(|printed| printed.elapsed() >= LINE) {
            self.printed = Some(Instant::now());
            self.console.line(&self.describe(&numbers));
        }
        numbers
    }

    /// One line: the sockets of each gateway, `↓` marks those that are leaving, `…` those that are not ready yet.
    fn describe(&self, numbers: &Numbers) -> String {
        let records = self.fleet.records();
        let present = records.iter().filter(|(_, pod)| pod.gone.is_none());
        let gateways = present.map(|(name, pod)| {
            let sockets = numbers.by_gateway.get(name).copied().unwrap_or_default();
            let mark = if pod.is_leaving() { "↓" } else { "" };
            if pod.ready.is_none() {
                "…".to_owned()
            } else {
                format!("{sockets}{mark}")
            }
        });
        format!(
            "{:>5} clients on [{}]  sent {}, delivered {}, lost {}, cut {}, moved {}",
            thousands(numbers.clients),
            gateways.collect::<Vec<_>>().join(" "),
            thousands(numbers.sent),
            thousands(numbers.delivered),
            numbers.lost,
            numbers.cut,
            thousands(numbers.moved),
        )
    }

    /// Everything that was seen.
    pub(crate) fn into_moments(self) -> Vec<Moment> {
        self.moments
    }
}
