//! What `/metrics` says of the backplane; nothing where there is none.

use metrics::{Counter, Gauge, counter, gauge};

use crate::metrics::Metrics;

/// See the module.
pub struct Figures {
    pub up: Gauge,
    pub round_trip: Gauge,
    pub buffered_messages: Gauge,
    pub buffered_bytes: Gauge,
    pub sent: Counter,
    pub received: Counter,
    /// Messages of this server's own that came back to it.
    pub echoes: Counter,
    pub expired: Counter,
    pub connections: Counter,
    pub commands: Counter,
    /// Times the embedded broker was started again.
    pub restarts: Counter,
    /// What did not go through, by reason.
    pub dropped_full: Counter,
    pub dropped_large: Counter,
    pub dropped_topics: Counter,
    pub dropped_characters: Counter,
    pub dropped_refused: Counter,
    pub dropped_invalid: Counter,
    /// Retained messages of a new subscription.
    pub dropped_known: Counter,
}

impl Figures {
    pub fn new(metrics: &Metrics) -> Self {
        let dropped = |reason: &'static str| counter!("wigwag_backplane_dropped_total", "reason" => reason);
        let make = || Self {
            up: gauge!("wigwag_backplane_up"),
            round_trip: gauge!("wigwag_backplane_round_trip_seconds"),
            buffered_messages: gauge!("wigwag_backplane_buffered_messages"),
            buffered_bytes: gauge!("wigwag_backplane_buffered_bytes"),
            sent: counter!("wigwag_backplane_sent_total"),
            received: counter!("wigwag_backplane_received_total"),
            echoes: counter!("wigwag_backplane_echoes_total"),
            expired: counter!("wigwag_backplane_expired_total"),
            connections: counter!("wigwag_backplane_connections_total"),
            commands: counter!("wigwag_backplane_commands_total"),
            restarts: counter!("wigwag_backplane_restarts_total"),
            dropped_full: dropped("buffer full"),
            dropped_large: dropped("too large"),
            dropped_topics: dropped("too many topics"),
            dropped_characters: dropped("control characters"),
            dropped_refused: dropped("refused by the broker"),
            dropped_invalid: dropped("not for clients"),
            dropped_known: dropped("retained already"),
        };
        metrics.register(&DESCRIPTIONS, make)
    }
}

const DESCRIPTIONS: [(&str, &str); 12] = [
    ("wigwag_backplane_up", "1 while messages go through the broker and come back"),
    ("wigwag_backplane_round_trip_seconds", "how long the last one took that was sent to see that"),
    ("wigwag_backplane_buffered_messages", "messages that the broker has not acknowledged yet"),
    ("wigwag_backplane_buffered_bytes", "topic, property and payload bytes of those"),
    ("wigwag_backplane_sent_total", "messages that the broker has taken"),
    ("wigwag_backplane_received_total", "messages that came from the broker for clients"),
    ("wigwag_backplane_echoes_total", "messages of this server that came back, and were dropped"),
    ("wigwag_backplane_expired_total", "messages that the broker did not take in time"),
    ("wigwag_backplane_connections_total", "connections made to the broker"),
    ("wigwag_backplane_commands_total", "commands from services"),
    ("wigwag_backplane_restarts_total", "times the embedded broker was started again"),
    ("wigwag_backplane_dropped_total", "messages that did not go through, by reason"),
];
