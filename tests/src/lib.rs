//! Helpers for the tests that run wsfleet against what it really meets: real sockets, a real Redis, a real cluster.
//!
//! Helpers return errors instead of panicking, so that a failing test says in one line what it waited for.

pub mod api_proxy;
pub mod attendance;
pub mod broker;
pub mod census;
pub mod chat;
pub mod client;
pub mod cluster;
pub mod codec;
pub mod connect;
pub mod farewell;
pub mod fleet;
pub mod front;
pub mod gateway;
pub mod guarded;
pub mod http;
pub mod issuer;
pub mod load;
pub mod nats;
pub mod operator;
pub mod partition;
pub mod process;
pub mod processes;
pub mod program;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod redis_cluster;
pub mod redis_tls;
pub mod resume;
pub mod roll_call;
pub mod scenario;
pub mod sentinel;
pub mod settings;
pub mod standstill;
pub mod steps;
pub mod tls;
pub mod verdict;
pub mod wait;
pub mod witness;
pub mod worker;
