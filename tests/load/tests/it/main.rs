//! The load generator as a whole, against a small real server.

mod program;
mod run;
mod server;
