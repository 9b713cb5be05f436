//! Bytes and nothing else: what MQTT and WebSocket look like on the wire.
//!
//! Everything below is pure (no I/O, no clock, no tokio), allocates nothing while decoding, and refuses with the
//! clause that was broken. Other modules decide what a packet means; this one decides whether it is one.

pub mod mqtt;
pub mod ws;
