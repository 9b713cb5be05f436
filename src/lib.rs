//! Wigwag: a WebRTC signaling server that speaks MQTT.

pub mod hub;
pub mod wire;
