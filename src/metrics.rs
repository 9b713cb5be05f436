//! What is counted. One set for each server, so that two in one process do not mix; handles are looked up once, so
//! that counting costs an atomic addition.

mod latency;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use metrics::{Counter, Gauge, Recorder, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

pub use latency::Latency;

use crate::{
    config::TopicRows,
    policy::table::{ClassId, TopicTable},
    room::Reason,
    wire::mqtt::ReasonCode,
};

/// The rows of a table, and the one that open mode adds.
const CLASSES: usize = TopicRows::MAX + 1;

/// See the module.
pub struct Metrics {
    pub messages_received: Counter,
    pub bytes_received: Counter,
    pub messages_sent: Counter,
    pub bytes_sent: Counter,
    /// Messages that were not delivered, by reason.
    pub dropped_full: Counter,
    pub dropped_expired: Counter,
    pub dropped_oversize: Counter,
    pub connects: Counter,
    /// Kept sessions that ended because their user, or their address, kept as many as may be.
    pub sessions_displaced_user: Counter,
    pub sessions_displaced_address: Counter,
    /// Times the system could not accept a connection.
    pub accept_errors: Counter,
    /// Sessions ended because their queue was full.
    pub sessions_overflowed: Counter,
    /// Connections ended by a bug of ours.
    pub panics: Counter,
    pub joins: Counter,
    /// Places taken again within their grace: leaves and joins that nobody saw.
    pub resumed: Counter,
    /// Events for webhooks, by what became of them.
    pub webhooks_delivered: Counter,
    pub webhooks_dropped: Counter,
    pub webhooks_failed: Counter,
    leaves: [Counter; Reason::ALL.len()],
    /// Messages from clients by class of the topic table in force, since they were last moved to their names' counters.
    by_class: [AtomicU64; CLASSES],
    /// How long deliveries took.
    pub latency: Latency,
    rooms: Gauge,
    members: Gauge,
    connections: Gauge,
    sessions: Gauge,
    subscriptions: Gauge,
    retained: Gauge,
    webhooks_waiting: Gauge,
    recorder: PrometheusRecorder,
}

/// What is measured at the moment somebody asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    pub connections: usize,
    pub sessions: usize,
    pub subscriptions: usize,
    pub retained: usize,
    pub rooms: usize,
    pub members: usize,
    pub webhooks_waiting: usize,
}

impl Default for Metrics {
    fn default() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        describe(&recorder);
        let total = |name: &'static str| with_local_recorder(&recorder, || counter!(name));
        let labelled = |name: &'static str, label: &'static str, value: &'static str| {
            with_local_recorder(&recorder, || counter!(name, label => value))
        };
        let dropped = |reason| labelled("wigwag_messages_dropped_total", "reason", reason);
        let hooked = |result| labelled("wigwag_webhook_events_total", "result", result);
        let displaced = |limit| labelled("wigwag_sessions_displaced_total", "limit", limit);
        let now = |name: &'static str| with_local_recorder(&recorder, || gauge!(name));
        Self {
            messages_received: total("wigwag_messages_received_total"),
            bytes_received: total("wigwag_payload_bytes_received_total"),
            messages_sent: total("wigwag_messages_sent_total"),
            bytes_sent: total("wigwag_payload_bytes_sent_total"),
            dropped_full: dropped("queue full"),
            dropped_expired: dropped("expired"),
            dropped_oversize: dropped("too large for its receiver"),
            connects: total("wigwag_connections_accepted_total"),
            sessions_displaced_user: displaced("user"),
            sessions_displaced_address: displaced("address"),
            accept_errors: total("wigwag_accept_errors_total"),
            sessions_overflowed: total("wigwag_sessions_overflowed_total"),
            panics: total("wigwag_connection_panics_total"),
            joins: total("wigwag_room_joins_total"),
            resumed: total("wigwag_room_resumes_total"),
            webhooks_delivered: hooked("delivered"),
            webhooks_dropped: hooked("queue full"),
            webhooks_failed: hooked("given up"),
            leaves: Reason::ALL.map(|reason| labelled("wigwag_room_leaves_total", "reason", reason.name())),
            by_class: std::array::from_fn(|_| AtomicU64::new(0)),
            latency: Latency::default(),
            rooms: now("wigwag_rooms"),
            members: now("wigwag_room_members"),
            connections: now("wigwag_connections"),
            sessions: now("wigwag_sessions"),
            subscriptions: now("wigwag_subscriptions"),
            retained: now("wigwag_retained_messages"),
            webhooks_waiting: now("wigwag_webhook_events_waiting"),
            recorder,
        }
    }
}

impl Metrics {
    /// Counts the end of a connection.
    pub fn ended(&self, how: &'static str) {
        with_local_recorder(&self.recorder, || counter!("wigwag_connections_ended_total", "how" => how).increment(1));
    }

    /// Makes handles of a part of the server that is not always there.
    pub fn register<T>(&self, descriptions: &[(&'static str, &'static str)], make: impl FnOnce() -> T) -> T {
        for &(name, help) in descriptions {
            if name.ends_with("_total") {
                self.recorder.describe_counter(name.into(), None, help.into());
            } else {
                self.recorder.describe_gauge(name.into(), None, help.into());
            }
        }
        with_local_recorder(&self.recorder, make)
    }

    /// Counts the end of a stay.
    pub fn left(&self, reason: Reason) {
        self.leaves[reason as usize].increment(1);
    }

    /// Counts a message of a class.
    pub fn message(&self, class: ClassId) {
        if let Some(count) = self.by_class.get(usize::from(class.0)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Moves what was counted by class to the names of the classes, by the table that was in force.
    pub fn name_classes(&self, table: &TopicTable) {
        for (class, row) in table.rows() {
            let count = self.by_class.get(usize::from(class.0)).map_or(0, |count| count.swap(0, Ordering::Relaxed));
            let name: Arc<str> = row.name.as_str().into();
            with_local_recorder(&self.recorder, || counter!("wigwag_messages_total", "class" => name).increment(count));
        }
        self.latency.name_classes(table);
    }

    /// Counts a refusal.
    pub fn refused(&self, action: &'static str, reason: ReasonCode) {
        let reason = reason.name();
        let count = || counter!("wigwag_refused_total", "action" => action, "reason" => reason).increment(1);
        with_local_recorder(&self.recorder, count);
    }

    /// Everything, in the text format of Prometheus.
    pub fn render(&self, gauges: Gauges) -> String {
        self.connections.set(gauges.connections as f64);
        self.sessions.set(gauges.sessions as f64);
        self.subscriptions.set(gauges.subscriptions as f64);
        self.retained.set(gauges.retained as f64);
        self.rooms.set(gauges.rooms as f64);
        self.members.set(gauges.members as f64);
        self.webhooks_waiting.set(gauges.webhooks_waiting as f64);
        let handle = self.recorder.handle();
        handle.run_upkeep();
        handle.render() + &self.latency.render()
    }
}

fn describe(recorder: &PrometheusRecorder) {
    let counters = [
        ("wigwag_messages_received_total", "PUBLISH packets from clients"),
        (
            "wigwag_messages_total",
            "messages from clients that were accepted, by class (the name of a row of the topic table)",
        ),
        ("wigwag_payload_bytes_received_total", "payload bytes of those"),
        ("wigwag_messages_sent_total", "PUBLISH packets to clients"),
        ("wigwag_payload_bytes_sent_total", "payload bytes of those"),
        ("wigwag_messages_dropped_total", "deliveries that were not made, by reason"),
        ("wigwag_connections_accepted_total", "CONNECTs accepted"),
        ("wigwag_connections_ended_total", "connections that ended, by how"),
        ("wigwag_refused_total", "what was refused, by action and reason"),
        ("wigwag_accept_errors_total", "times the system could not accept a connection"),
        ("wigwag_sessions_displaced_total", "kept sessions ended to make room for newer ones, by limit"),
        ("wigwag_sessions_overflowed_total", "sessions ended because their queue was full"),
        ("wigwag_connection_panics_total", "connections ended by a bug"),
        ("wigwag_webhook_events_total", "events for webhooks, by what became of them"),
        ("wigwag_room_joins_total", "stays in rooms that began"),
        ("wigwag_room_leaves_total", "stays in rooms that ended, by reason"),
        ("wigwag_room_resumes_total", "members who were lost and back within the grace, so that nobody saw it"),
    ];
    for (name, help) in counters {
        recorder.describe_counter(name.into(), None, help.into());
    }
    let gauges = [
        ("wigwag_connections", "connections"),
        ("wigwag_sessions", "sessions, with and without a connection"),
        ("wigwag_subscriptions", "subscriptions"),
        ("wigwag_retained_messages", "retained messages"),
        ("wigwag_rooms", "rooms with members"),
        ("wigwag_webhook_events_waiting", "events for webhooks that wait to be sent"),
        ("wigwag_room_members", "members of all rooms"),
    ];
    for (name, help) in gauges {
        recorder.describe_gauge(name.into(), None, help.into());
    }
}
