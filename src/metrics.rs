//! What is counted. One set for each server, so that two in one process do not mix; handles are looked up once, so
//! that counting costs an atomic addition.

use metrics::{Counter, Gauge, Recorder, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

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
    /// What was refused, by action.
    pub connects_refused: Counter,
    pub publishes_refused: Counter,
    pub subscribes_refused: Counter,
    pub wills_refused: Counter,
    /// Sessions that ended with their connection because as many as may be were kept.
    pub sessions_refused: Counter,
    /// Sockets closed at once because there were far too many.
    pub sockets_refused: Counter,
    /// Times the system could not accept a connection.
    pub accept_errors: Counter,
    /// Sessions ended because their queue was full.
    pub sessions_overflowed: Counter,
    /// Connections ended by a bug of ours.
    pub panics: Counter,
    connections: Gauge,
    sessions: Gauge,
    subscriptions: Gauge,
    retained: Gauge,
    recorder: PrometheusRecorder,
}

/// What is measured at the moment somebody asks.
#[derive(Debug, Clone, Copy)]
pub struct Gauges {
    pub connections: usize,
    pub sessions: usize,
    pub subscriptions: usize,
    pub retained: usize,
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
        let refused = |action| labelled("wigwag_refused_total", "action", action);
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
            connects_refused: refused("connect"),
            publishes_refused: refused("publish"),
            subscribes_refused: refused("subscribe"),
            wills_refused: refused("will"),
            sessions_refused: refused("session"),
            sockets_refused: refused("socket"),
            accept_errors: total("wigwag_accept_errors_total"),
            sessions_overflowed: total("wigwag_sessions_overflowed_total"),
            panics: total("wigwag_connection_panics_total"),
            connections: now("wigwag_connections"),
            sessions: now("wigwag_sessions"),
            subscriptions: now("wigwag_subscriptions"),
            retained: now("wigwag_retained_messages"),
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

    /// Everything, in the text format of Prometheus.
    pub fn render(&self, gauges: Gauges) -> String {
        self.connections.set(gauges.connections as f64);
        self.sessions.set(gauges.sessions as f64);
        self.subscriptions.set(gauges.subscriptions as f64);
        self.retained.set(gauges.retained as f64);
        let handle = self.recorder.handle();
        handle.run_upkeep();
        handle.render()
    }
}

fn describe(recorder: &PrometheusRecorder) {
    let counters = [
        ("wigwag_messages_received_total", "PUBLISH packets from clients"),
        ("wigwag_payload_bytes_received_total", "payload bytes of those"),
        ("wigwag_messages_sent_total", "PUBLISH packets to clients"),
        ("wigwag_payload_bytes_sent_total", "payload bytes of those"),
        ("wigwag_messages_dropped_total", "deliveries that were not made, by reason"),
        ("wigwag_connections_accepted_total", "CONNECTs accepted"),
        ("wigwag_connections_ended_total", "connections that ended, by how"),
        ("wigwag_refused_total", "what was refused, by action"),
        ("wigwag_accept_errors_total", "times the system could not accept a connection"),
        ("wigwag_sessions_overflowed_total", "sessions ended because their queue was full"),
        ("wigwag_connection_panics_total", "connections ended by a bug"),
    ];
    for (name, help) in counters {
        recorder.describe_counter(name.into(), None, help.into());
    }
    let gauges = [
        ("wigwag_connections", "connections"),
        ("wigwag_sessions", "sessions, with and without a connection"),
        ("wigwag_subscriptions", "subscriptions"),
        ("wigwag_retained_messages", "retained messages"),
    ];
    for (name, help) in gauges {
        recorder.describe_gauge(name.into(), None, help.into());
    }
}
