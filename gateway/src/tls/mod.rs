//! TLS for clients (rustls): the certificate and its renewal ([`Tls`]), the handshake ([`accept`]), and what follows it
//! ([`TlsStream`]).

mod accept;
mod engine;
mod files;
mod renewal;
mod stream;

pub use accept::{AcceptError, accept};
pub use files::{LoadError, TlsFiles};
pub use renewal::{StartError, Tls};
pub use stream::TlsStream;

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
