//! A moment at which a client of the API server stands still: right before a certain write, or right after it.

use std::fmt;

use hyper::{Method, Uri};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A kind of write, by what its call has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its verb.
    pub method: Method,
    /// A part of its path.
    pub path: &'static str,
    /// A part of its body; anything has the empty one.
    pub body: String,
}

impl Write {
    /// A patch that gives an annotation of an object a value. `path` is the kind's plural.
    pub fn mark(path: &'static str, annotation: &str) -> Self {
        Self {
            method: Method::PATCH,
            path,
            // null, which removes it, has no quote
            body: format!("\"{annotation}\":\""),
        }
    }

    /// Any write with that verb to that kind of object.
    pub const fn any(method: Method, path: &'static str) -> Self {
        let body = String::new();
        Self { method, path, body }
    }

    fn fits(&self, method: &Method, uri: &Uri, body: &[u8]) -> bool {
        // a dry run writes nothing
        let is_dry = uri.query().is_some_and(|query| query.contains("dryRun"));
        let text = String::from_utf8_lossy(body);
        self.method == method && uri.path().contains(self.path) && text.contains(&self.body) && !is_dry
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.method, self.path, self.body)
    }
}

/// Whether the write has been made when its client stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It never reaches the API server.
    Before,
    /// The API server has made it, and the client does not know.
    After,
}

/// What becomes of a write.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is passed on and answered.
    Passes,
    /// It is passed on, and then all stands still; whoever waits for that is told.
    IsTheLast(oneshot::Sender<()>),
    /// It is neither passed on nor answered.
    StandsStill,
}

/// Where writes stand still.
#[derive(Debug, Default)]
pub(crate) struct Standstill(Mutex<Phase>);

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Off,
    Awaited(Write, Side, oneshot::Sender<()>),
    Reached,
}

impl Standstill {
    /// Passes everything until the next such write.
    pub(crate) fn at(&self, write: Write, side: Side) -> oneshot::Receiver<()> {
        let (tell, told) = oneshot::channel();
        *self.0.lock() = Phase::Awaited(write, side, tell);
        told
    }

    /// Passes everything.
    pub(crate) fn end(&self) {
        *self.0.lock() = Phase::Off;
    }

    /// Decides about a write.
    pub(crate) fn fate(&self, method: &Method, uri: &Uri, body: &[u8]) -> Fate {
        let mut phase = self.0.lock();
        match std::mem::replace(&mut *phase, Phase::Reached) {
            Phase::Reached => Fate::StandsStill,
            Phase::Awaited(write, side, tell) if write.fits(method, uri, body) => match side {
                Side::Before => {
                    // nobody waits any more: nothing is lost by not telling
                    let _ = tell.send(());
                    Fate::StandsStill
                }
                Side::After => Fate::IsTheLast(tell),
            },
            other => {
                *phase = other;
                Fate::Passes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn what_comes_after_the_awaited_write_stands_still_until_the_end() {
        let standstill = Standstill::default();
        let pods = uri("/api/v1/namespaces/n/pods");
        let passes = |method: &Method, uri: &Uri, body: &str| {
            matches!(standstill.fate(method, uri, body.as_bytes()), Fate::Passes)
        };
        let mut told = standstill.at(Write::mark("/pods/", "a/drained-at"), Side::Before);
        let one = uri("/api/v1/namespaces/n/pods/one");
        assert!(passes(&Method::POST, &pods, "{\"a/drained-at\":\"1\"}"));
        assert!(passes(&Method::PATCH, &one, "{\"a/drained-at\":null}"));
        told.try_recv().unwrap_err();
        assert!(!passes(&Method::PATCH, &one, "{\"a/drained-at\":\"1\"}"));
        told.try_recv().unwrap();
        assert!(!passes(&Method::POST, &pods, ""));
        standstill.end();
        assert!(passes(&Method::POST, &pods, ""));

        let dry = uri("/api/v1/namespaces/n/pods?&dryRun=All");
        let _told = standstill.at(Write::any(Method::POST, "/pods"), Side::After);
        assert!(passes(&Method::POST, &dry, ""));
        let fate = standstill.fate(&Method::POST, &pods, b"");
        assert!(matches!(fate, Fate::IsTheLast(_)), "{fate:?}");
        assert!(!passes(&Method::POST, &pods, ""));
    }
}
