//! Wigwag: a WebRTC signaling server that speaks MQTT.

pub mod client;
pub mod config;
mod http;
pub mod hub;
mod listener;
mod metrics;
mod policy;
mod server;
mod session;
pub mod wire;
mod worker;

pub use config::Config;
pub use hub::Held;
pub use policy::auth;
pub use server::{Addresses, Builder, Running, Server, StartError};
