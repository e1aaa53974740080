//! The part of the opening handshake that is arithmetic (RFC 6455 §4.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// `Sec-WebSocket-Version` that is served (§4.2.1); any other is answered with 426 and this value (§4.4).
pub const VERSION: &str = "13";

/// `Sec-WebSocket-Key` is not the base64 of 16 bytes (§4.2.1); answer with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Key must be the base64 of 16 bytes")]
pub struct InvalidKey;

/// `Sec-WebSocket-Accept` for a client's `Sec-WebSocket-Key` (§4.2.2).
pub fn accept_key(key: &str) -> Result<String, InvalidKey> {
    // 24 characters: checked first, so that nothing larger is ever decoded
    if key.len() != 24 || STANDARD.decode(key).map_err(|_| InvalidKey)?.len() != 16 {
        return Err(InvalidKey);
    }
    Ok(tungstenite::handshake::derive_accept_key(key.as_bytes()))
}
