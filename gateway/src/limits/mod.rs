//! Admission and rates: token buckets, what one connection may send, what one address may open.
//!
//! Sans-IO: time is passed in as a [`Moment`], so tests run in virtual time. State is small: 16 bytes a bucket, 40 a
//! connection. Configuration (a [`Rate`]) is shared, never stored per connection.
//!
//! Connections per user need no table here: a user's personal stream knows its members on this gateway, and compares
//! their number with [`crate::config::Limits::connections_per_user`]; [`crate::broker::Broker::take_seat`] counts those
//! of the fleet.

mod address;
mod bucket;
mod inbound;
mod per_ip;

pub use address::{IpKey, client_address};
pub use bucket::{Moment, Rate, RetryAfter, TokenBucket};
pub use inbound::{InboundLimiter, InboundRates, Verdict};
pub use per_ip::{IpRefusal, PerIp};
