//! Settings: flags, environment, file and defaults, in that order of precedence, checked before anything is opened.
//!
//! [`Settings::load`] either returns settings that are whole and fit together, or a [`ConfigError`] that names the flag
//! and says what is allowed; the caller prints it and exits with [`EXIT_CODE`] before any port is bound. Limits are
//! merged key by key. Secrets are read from files once and never shown by `Debug`.

mod args;
mod auth;
mod broker;
mod error;
mod events;
mod history;
mod limits;
mod presence;
mod secret;
mod settings;
mod slow;
mod values;

pub use args::Args;
pub use auth::{AuthSettings, JwksUrl, JwtSettings, RoomsClaim};
pub use broker::{Authorities, BrokerChoice, BrokerUrl, Durability};
pub use error::{ConfigError, Layer};
pub use events::EventStream;
pub use history::{DirectHistory, Histories, HistoryRule, Retention};
pub use limits::{Limit, Limits};
pub use presence::{PresenceHold, PresenceRule, Presences};
pub use secret::Secret;
pub use settings::Settings;
pub use slow::{SlowPolicies, SlowPolicy, SlowRule};
pub use values::{
    AllowedOrigins, AuthMode, Compression, DrainWindow, HandshakeTimeout, JwtLeeway, LogFilter, LogFormat,
    MaxConnections, Origin, Revision, ServerId, TokenGrace, TrustedHops,
};

/// Exit code after a [`ConfigError`]: `EX_USAGE` of sysexits.h.
pub const EXIT_CODE: u8 = 64;

#[cfg(test)]
mod tests;
