//! What is said to all gateways of a fleet: close these connections, and let those tokens in no more.
//!
//! Both are messages of streams of their own, to which every gateway is subscribed while it runs, so an order reaches every
//! gateway that is there, and one that missed it reads it again like a room's messages. Revocations are kept until their
//! end; a gateway that starts reads them before it lets anybody in ([`Revocations`]). Why it is made like this is in
//! `docs/decisions/0008-disconnect-and-revoke.md`.

mod inbox;
mod order;
mod revocations;
mod run;
mod tokens;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::broker::StreamKey;
use crate::config::Retention;

pub use inbox::Inbox;
pub use order::{Disconnect, Order, Revocation, Whom};
pub use revocations::{LONGEST, MOST_REVOCATIONS, Revocations};
pub use run::run;
pub use tokens::Tokens;

const DISCONNECTS: &str = "disconnects";
/// Name of the stream of revocations.
pub(crate) const REVOCATIONS: &str = "revocations";

/// The stream of orders to close connections.
pub fn disconnects() -> StreamKey {
    static NAME: LazyLock<Arc<str>> = LazyLock::new(|| DISCONNECTS.into());
    StreamKey::Fleet(Arc::clone(&NAME))
}

/// The stream of revocations.
pub fn revocations() -> StreamKey {
    static NAME: LazyLock<Arc<str>> = LazyLock::new(|| REVOCATIONS.into());
    StreamKey::Fleet(Arc::clone(&NAME))
}

/// What is kept of a stream of this name: revocations until the longest of them has ended, of disconnects as much as repairs
/// a link that was lost for a moment.
pub fn retention(name: &str) -> Retention {
    match name {
        REVOCATIONS => Retention::Keep {
            messages: MOST_REVOCATIONS,
            age: Duration::from_secs(LONGEST),
        },
        _ => Retention::default(),
    }
}
