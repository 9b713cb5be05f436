//! Wigwag: a WebRTC signaling server that speaks MQTT.

pub mod config;
pub mod hub;
pub mod wire;
