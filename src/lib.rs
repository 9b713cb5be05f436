//! Wigwag is a WebRTC signaling server that speaks MQTT: one process that embeds an MQTT 3.1.1 and 5.0 broker, for
//! browsers over WebSocket and everybody else over TCP.
//!
//! ```text
//!  browsers (MQTT.js)          mosquitto_sub, devices, services
//!        │ ws(s)://…/mqtt            │ mqtt(s)://…
//!        ▼                           ▼
//!  ┌─ listener ──────────────────────────┐   http: the page, /api, /healthz, /metrics, the upgrade
//!  │ sockets, TLS, a place for each      │
//!  └──────┬──────────────────────────────┘
//!         │ byte stream
//!  ┌─ session ───────────────────────────┐   wire: bytes ⇄ packets, pure
//!  │ inlet ─► inbound ─► policy ─permit──┼─► hub ─► index of filters, retained messages,
//!  │                                     │          sessions by client id, deadlines
//!  │ one write ◄─ batch ◄─ outbound ◄────┼─── shared message
//!  └─────────────────────────────────────┘
//! ```
//!
//! A connection is a task that owns no buffer while it is idle. It reads into a buffer of its thread, hands every
//! complete packet to the protocol ([`wire`] knows bytes, the session knows what may be said when), asks the policy
//! for a permit, and gives the permit to the hub, which accepts nothing else. The hub copies a message once, queues the
//! shared copy in the session of every receiver, and afterwards writes once to each socket, whoever's task that is: a
//! delivery costs one system call and no task switch, and many messages of one read share it.
//!
//! Start with [`Server::builder`]; [`Running`] gives addresses, a router for an axum application, and
//! [in-process clients](Client). `docs/architecture.md` says why things are as they are.

#![forbid(unsafe_code)]

mod backplane;
mod client;
pub mod config;
mod http;
pub mod hub;
mod ice;
mod listener;
#[doc(hidden)]
pub mod measured;
mod metrics;
mod outgoing;
pub mod policy;
pub mod room;
mod server;
mod session;
mod webhooks;
pub mod wire;
mod worker;

pub use backplane::Access as BackplaneAccess;
pub use client::{Client, ClientError, NameError, Received};
pub use config::Config;
pub use hub::Held;
pub use policy::{Refusal, auth};
pub use server::{Addresses, Builder, ReloadError, Running, Server, StartError};
pub use wire::mqtt::QoS;
