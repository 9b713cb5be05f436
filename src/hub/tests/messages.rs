//! A message in one piece of memory, and how long it lasts.

use std::time::{Duration, Instant};

use crate::{
    hub::{Message, Parts, SubscriberId},
    session::testing::parts,
    wire::mqtt::{PublishProperties, QoS},
};

fn message(expiry: Option<u32>, raised: Option<QoS>, now: Instant) -> Message {
    let properties =
        &PublishProperties { message_expiry: expiry, content_type: Some("text/plain"), ..PublishProperties::default() };
    let parts = parts("a/b", b"payload", properties);
    let publisher = SubscriberId(7);
    Message::new(&Parts { qos: QoS::AtMostOnce, retain: true, raised, publisher, ..parts }, now)
}

#[test]
fn it_gives_back_what_it_was_made_of() {
    let message = message(None, None, Instant::now());
    assert_eq!((message.topic(), message.payload()), ("a/b", &b"payload"[..]));
    assert_eq!(message.properties(), b"\x03\x00\x0Atext/plain"); // [MQTT-3.3.2-20]
    assert_eq!(message.size(), 3 + 13 + 7);
    assert!(message.retain() && message.publisher() == SubscriberId(7));
}

/// [MQTT-3.8.4-8]
#[test]
fn its_qos_is_the_lower_one_unless_it_is_raised() {
    let now = Instant::now();
    let delivered = |raised, granted| message(None, raised, now).qos_for(granted);
    assert_eq!(delivered(None, QoS::ExactlyOnce), QoS::AtMostOnce);
    assert_eq!(delivered(Some(QoS::AtLeastOnce), QoS::AtMostOnce), QoS::AtMostOnce);
    assert_eq!(
        delivered(Some(QoS::AtLeastOnce), QoS::ExactlyOnce),
        QoS::AtLeastOnce,
        "the cap of a class is for raising too"
    );
}

/// [MQTT-3.3.2-5], [MQTT-3.3.2-6]
#[test]
fn the_expiry_that_is_passed_on_counts_down_to_the_nearest_second() {
    let now = Instant::now();
    let message = message(Some(10), None, now);
    let left = |millis| message.expiry_left(now + Duration::from_millis(millis));
    assert_eq!([0, 400, 600, 5000, 9400, 9999].map(left), [10, 10, 9, 5, 1, 1].map(Some));
    assert_eq!(left(10_000), Some(0), "in flight before that, and sent again");
    assert!(!message.expired(now + Duration::from_millis(9999)) && message.expired(now + Duration::from_secs(10)));
    assert_eq!(message.expiry_left(now - Duration::from_millis(300)), Some(10), "on a thread a little behind");
}

#[test]
fn the_longest_expiry_neither_overflows_nor_wraps() {
    let now = Instant::now();
    let message = message(Some(u32::MAX), None, now);
    assert_eq!(message.expiry_left(now - Duration::from_secs(5)), Some(u32::MAX));
    assert_eq!(message.expiry_left(now), Some(u32::MAX));
}

#[test]
fn the_expiry_of_a_will_begins_when_it_is_sent() {
    let now = Instant::now();
    let later = now + Duration::from_secs(100);
    let will = message(Some(10), None, now).expiring(Some(10), later);
    assert_eq!(will.expiry_left(later), Some(10));
    assert_eq!(message(Some(10), None, now).expiring(None, later).expires(), None);
}
