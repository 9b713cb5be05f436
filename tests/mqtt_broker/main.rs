//! The broker over real sockets, in bytes: MQTT 3.1.1 and 5.0, clause by clause.
//!
//! Each test is named after the behaviour it proves and cites its clause; `[MQTT-3.3.1-5]` is one of 5.0, which 3.1.1
//! mostly shares, and a section in round brackets stands where there is no number.

#[path = "../harness/mod.rs"]
mod harness;

mod connecting;
mod embedded;
mod flow;
mod framing;
mod messages;
mod quality_of_service;
mod retained;
mod sessions;
mod shares;
mod storms;
mod subscriptions;
mod wills;
