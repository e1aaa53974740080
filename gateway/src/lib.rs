//! One WebSocket gateway.
