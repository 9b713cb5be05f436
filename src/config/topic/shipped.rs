//! The table that is in effect if nobody writes another; `broker.toml` has the same rows and says what each is for.

use std::time::Duration;

use super::{Audience, Pattern, PayloadKind, QosRule, Rate, RetainRule, TopicRow};
use crate::wire::mqtt::QoS;

pub(super) fn rows() -> Vec<TopicRow> {
    vec![
        TopicRow { joins: true, ..signal("signal", "rooms/{room}/signal", &["join", "listen", "observe"]) },
        TopicRow { joins: true, ..signal("signal-direct", "rooms/{room}/signal/{user}", &["self+join", "observe"]) },
        TopicRow {
            payload: PayloadKind::Json,
            size: Some(8 << 10),
            rate: rate(10, 64 << 10, 5),
            ..room("chat", "rooms/{room}/chat", &["member", "service"])
        },
        TopicRow {
            retain: RetainRule::Broker,
            payload: PayloadKind::Json,
            size: Some(4 << 10),
            rate: rate(5, 16 << 10, 4),
            ..room("presence", "rooms/{room}/presence/{user}", &["self+member"])
        },
        TopicRow {
            qos: at_most(QoS::ExactlyOnce),
            retain: RetainRule::Allowed,
            retain_per_room: Some(100),
            ..room("state", "rooms/{room}/state/#", &["member", "service"])
        },
        TopicRow {
            payload: PayloadKind::Json,
            size: Some(4 << 10),
            rate: rate(5, 16 << 10, 4),
            ..room("control", "rooms/{room}/control", &["admin", "service"])
        },
        TopicRow { payload: PayloadKind::Json, ..own("inbox", "users/{user}/inbox", &["grant", "service"], &["self"]) },
        TopicRow { payload: PayloadKind::Json, ..own("ice", "users/{user}/ice", &["broker"], &["self+join"]) },
        TopicRow {
            qos: at_most(QoS::AtMostOnce),
            payload: PayloadKind::Json,
            ..own("errors", "users/{user}/errors", &["broker"], &["self"])
        },
        own("users", "users/#", &["nobody"], &["nobody"]),
        TopicRow {
            qos: at_most(QoS::ExactlyOnce),
            retain: RetainRule::Grant,
            rate: rate(1000, 4 << 20, 5),
            ..own("app", "app/#", &["grant", "service"], &["grant"])
        },
        TopicRow { payload: PayloadKind::Json, ..own("events", "events/#", &["broker"], &["service", "observe"]) },
        own("sys", "$SYS/#", &["broker"], &["observe"]),
    ]
}

/// A row of a room: read by who may join it or listen in it, and by observers.
fn room(name: &str, filter: &str, publish: &[&str]) -> TopicRow {
    own(name, filter, publish, &["join", "listen", "observe"])
}

/// A row of the members' negotiation.
fn signal(name: &str, filter: &str, subscribe: &[&str]) -> TopicRow {
    TopicRow {
        qos: QosRule { raise: true, ..at_most(QoS::AtLeastOnce) },
        payload: PayloadKind::Signal,
        ..own(name, filter, &["member", "service"], subscribe)
    }
}

fn own(name: &str, filter: &str, publish: &[&str], subscribe: &[&str]) -> TopicRow {
    TopicRow {
        publish: audience(publish),
        subscribe: audience(subscribe),
        qos: at_most(QoS::AtLeastOnce),
        ..TopicRow::new(name, pattern(filter))
    }
}

fn at_most(max: QoS) -> QosRule {
    QosRule { max, min: QoS::AtMostOnce, raise: false }
}

fn rate(messages: usize, bytes: usize, burst: u64) -> Rate {
    Rate { messages: Some(messages), bytes: Some(bytes), burst: Duration::from_secs(burst) }
}

pub(super) fn pattern(filter: &str) -> Pattern {
    Pattern::parse(filter).expect("a filter of ours")
}

pub(super) fn audience(words: &[&str]) -> Audience {
    Audience::parse(words).expect("words of ours")
}
