//! Admission and rates: token buckets, what one connection may send, what one address may open.
//!
//! Sans-IO: time is passed in as a [`Moment`], so tests run in virtual time. State is small: 16 bytes a bucket, 40 a
//! connection. Configuration (a [`Rate`]) is shared, never stored per connection.
//!
//! Connections per user need no table here: the registry of users knows how many connections each has, and compares
//! that with [`crate::config::Limits::connections_per_user`].

mod address;
mod bucket;
mod inbound;
mod per_ip;

pub use address::{IpKey, client_address};
pub use bucket::{Moment, Rate, RetryAfter, TokenBucket};
pub use inbound::{InboundLimiter, InboundRates, Verdict};
pub use per_ip::{IpRefusal, PerIp};
