//! What every parser of hostile bytes must keep to, whatever the bytes: one function for each, which panics when a promise
//! is broken. libFuzzer finds the bytes (`make fuzz`, docs/fuzzing.md); those committed in `seeds/` are tried by
//! `cargo test`, too.
//!
//! A target promises more than "no panic": what is read in pieces is what is read at once, what is accepted can be
//! written and read again, nothing is proved by a token that was not signed, and the memory that an input takes is
//! bounded ([`memory::within`]).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a panic is how a target says that a promise is broken"
)]

mod frames;
mod handshake;
mod json;
pub mod memory;
mod model;
mod msgpack;
mod proto;
mod replay;
mod schema;
mod token;

pub use frames::frames;
pub use handshake::handshake;
pub use json::json;
pub use msgpack::msgpack;
pub use proto::proto;
pub use replay::replay;
pub use token::token;

#[cfg(test)]
mod tests;
