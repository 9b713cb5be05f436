//! `[limits]`: what one client, one session or all of them together may take.

use std::time::Duration;

use super::reader::Reader;
use super::value::{GIB, KIB, MIB, MINUTE, count, size, time};

/// Section `[limits]`. Where a limit is reached the client is told, with the code MQTT has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, in all. 0 to 10000000; 0 = as many as the process may open files.
    pub connections: Option<usize>,
    /// Connections at a time from one IP address. 0 to 10000000; 0 = unlimited.
    pub connections_per_address: Option<usize>,
    /// Time for TLS, WebSocket upgrade and CONNECT together. Duration, 100 ms to 10 minutes.
    pub connect_timeout: Duration,
    /// How long a connection may refuse to take bytes before it is closed. Duration, 100 ms to 10 minutes.
    pub write_timeout: Duration,
    /// Largest first packet (CONNECT, with will and token). Size, 256 bytes to 16 MiB.
    pub packet_before_connect: usize,
    /// Largest MQTT packet, in both directions; announced to MQTT 5.0 clients. Size, 1 KiB to 256 MiB.
    pub packet: usize,
    /// Largest WebSocket frame from a client; one packet may span many. Size, 256 bytes to 256 MiB.
    pub frame: usize,
    /// Largest head of an HTTP request, the WebSocket upgrade included. Size, 1 KiB to 1 MiB.
    pub http_header: usize,
    /// Subscriptions of one session. 1 to 1000000.
    pub subscriptions: usize,
    /// Levels of a topic name or filter. 1 to 1024.
    pub topic_levels: usize,
    /// Length of a topic name or filter in bytes. 1 to 65535.
    pub topic_length: usize,
    /// User properties of one MQTT 5.0 packet. 0 to 10000; 0 = none is accepted.
    pub user_properties: usize,
    /// QoS 1 and 2 messages an MQTT 5.0 client may have unacknowledged (announced as Receive Maximum), and at most that
    /// many are sent to any client unacknowledged. 1 to 65535.
    pub inflight: u16,
    /// Topic aliases of one MQTT 5.0 connection, in each direction. 0 to 65535; 0 = off.
    pub topic_aliases: u16,
    /// Messages waiting to be sent to one session, connected or not; retained ones that it subscribes to take a quarter
    /// at a time. The server's own, such as rosters and events, have as much beside it, and room for four of each member
    /// of the largest room. 1 to 1000000.
    pub queue_messages: usize,
    /// Payload and topic bytes waiting to be sent to one session, or sent to it and unacknowledged. Size, 1 KiB to
    /// 1 GiB.
    pub queue_bytes: usize,
    /// Sessions kept while their client is away. 0 to 10000000; 0 = none is kept.
    pub sessions: usize,
    /// Of those, sessions of one user (the part of the name before a `~`); when it has more, its oldest ends. 0 to
    /// 10000000; 0 = unlimited.
    pub sessions_per_user: Option<usize>,
    /// Of those, sessions whose last connection came from one IP address; when there are more, the oldest of them ends.
    /// 0 to 10000000; 0 = unlimited.
    pub sessions_per_address: Option<usize>,
    /// Retained messages, in all. 0 to 10000000; 0 = none is kept.
    pub retained_messages: usize,
    /// Payload and topic bytes of retained messages, in all, and 128 for each level of a topic beyond its fourth. Size,
    /// 0 to 64 GiB; 0 = none is kept.
    pub retained_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_address: Some(1000),
            connect_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            packet_before_connect: 16 << 10,
            packet: 256 << 10,
            frame: 256 << 10,
            http_header: 16 << 10,
            subscriptions: 256,
            topic_levels: 32,
            topic_length: 1024,
            user_properties: 32,
            inflight: 64,
            topic_aliases: 16,
            queue_messages: 1000,
            queue_bytes: 4 << 20,
            sessions: 100_000,
            sessions_per_user: Some(100),
            sessions_per_address: Some(10_000),
            retained_messages: 100_000,
            retained_bytes: 64 << 20,
        }
    }
}

/// More connections, sessions or retained messages than any machine this runs on.
const MANY: u64 = 10_000_000;
const TIMEOUT: std::ops::RangeInclusive<u64> = 100..=10 * MINUTE;

impl Limits {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("limits");
        let d = Self::default();
        let many = || count(1..=MANY);
        Self {
            connections: section.read(
                "connections",
                many().or_zero("as many as file descriptors allow"),
                d.connections,
            ),
            connections_per_address: section.read(
                "connections_per_address",
                many().or_zero("unlimited"),
                d.connections_per_address,
            ),
            connect_timeout: section.read("connect_timeout", time(TIMEOUT), d.connect_timeout),
            write_timeout: section.read("write_timeout", time(TIMEOUT), d.write_timeout),
            packet_before_connect: section.read("packet_before_connect", size(256..=16 * MIB), d.packet_before_connect),
            packet: section.read("packet", size(KIB..=256 * MIB), d.packet),
            frame: section.read("frame", size(256..=256 * MIB), d.frame),
            http_header: section.read("http_header", size(KIB..=MIB), d.http_header),
            subscriptions: section.read("subscriptions", count(1..=1_000_000), d.subscriptions),
            topic_levels: section.read("topic_levels", count(1..=1024), d.topic_levels),
            topic_length: section.read("topic_length", count(1..=65_535), d.topic_length),
            user_properties: section.read("user_properties", count(0..=10_000), d.user_properties),
            inflight: section.read("inflight", count(1..=65_535), d.inflight),
            topic_aliases: section.read("topic_aliases", count(0..=65_535), d.topic_aliases),
            queue_messages: section.read("queue_messages", count(1..=1_000_000), d.queue_messages),
            queue_bytes: section.read("queue_bytes", size(KIB..=GIB), d.queue_bytes),
            sessions: section.read("sessions", count(0..=MANY), d.sessions),
            sessions_per_user: section.read("sessions_per_user", many().or_zero("unlimited"), d.sessions_per_user),
            sessions_per_address: section.read(
                "sessions_per_address",
                many().or_zero("unlimited"),
                d.sessions_per_address,
            ),
            retained_messages: section.read("retained_messages", count(0..=MANY), d.retained_messages),
            retained_bytes: section.read("retained_bytes", size(0..=64 * GIB), d.retained_bytes),
        }
    }
}
