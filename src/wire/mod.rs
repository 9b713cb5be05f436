//! Bytes and nothing else: what MQTT and WebSocket look like on the wire.
//!
//! Everything below is pure (no I/O, no clock, no tokio), allocates nothing while decoding (but for a WebSocket control
//! frame that comes in pieces), and refuses with the clause that was broken. Other modules decide what a packet means;
//! this one decides whether it is one.

#![forbid(unsafe_code)]

pub mod mqtt;
pub mod ws;
