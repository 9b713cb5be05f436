//! Scripts of what goes in and what comes out, and a model that random scripts are held against.

use std::time::Duration;

use super::*;
use crate::session::testing::{delivery, expiring_message, id, message};

mod model;

const LIMITS: QueueLimits = QueueLimits { messages: 100, own: 100, bytes: 100_000 };

/// An outgoing side, driven by one line for each event.
struct Script {
    outbound: Outbound,
    now: Instant,
    expired: u64,
}

impl Script {
    fn new() -> Self {
        Self { outbound: Outbound::default(), now: Instant::now(), expired: 0 }
    }

    fn push(&mut self, topic: &str, qos: QoS) -> Queued {
        self.outbound.push(delivery(&message(topic, b""), qos), &LIMITS, true, Instant::now(), &mut 0)
    }

    /// Everything that may be sent now, as `topic`, `topic#id`, `topic#id again` or `release#id`.
    fn sent(&mut self, window: u16) -> Vec<String> {
        std::iter::from_fn(|| self.outbound.next(window, self.now, &mut self.expired))
            .map(|transmit| match transmit {
                Transmit::PubRel { packet_id } => format!("release#{packet_id}"),
                Transmit::Publish { delivery, packet_id, dup } => {
                    let packet_id = packet_id.map_or(String::new(), |id| format!("#{id}"));
                    format!("{}{packet_id}{}", delivery.message.topic(), if dup { " again" } else { "" })
                }
            })
            .collect()
    }
}

/// [MQTT-4.6.0-6], [MQTT-2.2.1-4] (3.1.1: [MQTT-2.3.1-4])
#[test]
fn messages_go_out_in_order_and_each_open_exchange_has_an_identifier_of_its_own() {
    let mut it = Script::new();
    for (topic, qos) in [("a", QoS::AtLeastOnce), ("b", QoS::AtMostOnce), ("c", QoS::ExactlyOnce)] {
        assert_eq!(it.push(topic, qos), Queued::Accepted);
    }
    assert_eq!(it.sent(10), ["a#1", "b", "c#2"]);
    assert_eq!(it.outbound.in_flight(), 2);
    assert!(it.outbound.puback(id(1)));
    assert!(!it.outbound.puback(id(1)), "acknowledged once, it is over");
    assert!(!it.outbound.puback(id(2)), "a QoS 2 exchange takes no PUBACK");
    assert!(!it.outbound.pubcomp(id(2)), "nor a PUBCOMP before its PUBREC");
    assert_eq!(it.outbound.in_flight(), 1);
}

/// [MQTT-4.9.0-2]
#[test]
fn the_window_is_never_exceeded_and_opens_with_each_acknowledgement() {
    let mut it = Script::new();
    for topic in ["a", "b", "c", "d"] {
        it.push(topic, QoS::AtLeastOnce);
    }
    assert_eq!(it.sent(2), ["a#1", "b#2"]);
    assert_eq!(it.sent(2), [""; 0]);
    it.outbound.puback(id(2));
    assert_eq!(it.sent(2), ["c#3"]);
    it.outbound.puback(id(1));
    it.outbound.puback(id(3));
    assert_eq!(it.sent(2), ["d#4"]);
}

#[test]
fn qos_0_waits_its_turn_but_needs_no_window() {
    let mut it = Script::new();
    it.push("a", QoS::AtLeastOnce);
    it.push("b", QoS::AtMostOnce);
    it.push("c", QoS::AtLeastOnce);
    it.push("d", QoS::AtMostOnce);
    assert_eq!(it.sent(1), ["a#1", "b"]);
    it.outbound.puback(id(1));
    assert_eq!(it.sent(1), ["c#2", "d"]);
}

/// [MQTT-4.3.3-4] to [MQTT-4.3.3-6]
#[test]
fn qos_2_goes_through_its_phases_and_is_not_sent_again_once_received() {
    let mut it = Script::new();
    it.push("a", QoS::ExactlyOnce);
    assert_eq!(it.sent(1), ["a#1"]);
    it.outbound.reconnect();
    assert_eq!(it.sent(1), ["a#1 again"]);
    assert_eq!(it.outbound.pubrec(id(1), ReasonCode::SUCCESS), Some(ReasonCode::SUCCESS));
    assert_eq!(
        it.outbound.pubrec(id(1), ReasonCode::SUCCESS),
        Some(ReasonCode::SUCCESS),
        "asked again, answered again"
    );
    it.outbound.reconnect();
    assert_eq!(it.sent(1), ["release#1"]);
    it.push("b", QoS::ExactlyOnce);
    assert_eq!(it.sent(1), [""; 0], "the first is not over");
    assert!(it.outbound.pubcomp(id(1)));
    assert_eq!(it.sent(1), ["b#2"]);
}

/// [MQTT-4.3.3-4]: PUBREL answers every PUBREC that is no refusal; 3.6.2.1: 0x92 where nothing is known.
#[test]
fn a_pubrec_that_refuses_ends_the_exchange_and_an_unknown_one_is_told_so() {
    let mut it = Script::new();
    it.push("a", QoS::ExactlyOnce);
    it.push("b", QoS::AtLeastOnce);
    assert_eq!(it.sent(10), ["a#1", "b#2"]);
    assert_eq!(it.outbound.pubrec(id(1), ReasonCode::QUOTA_EXCEEDED), None);
    assert_eq!(it.outbound.in_flight(), 1);
    assert_eq!(it.outbound.pubrec(id(1), ReasonCode::QUOTA_EXCEEDED), None);
    let unknown = Some(ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    assert_eq!(it.outbound.pubrec(id(1), ReasonCode::SUCCESS), unknown);
    assert_eq!(it.outbound.pubrec(id(2), ReasonCode::SUCCESS), unknown, "a QoS 1 exchange has no PUBREC");
    assert!(it.outbound.puback(id(2)), "and is not harmed by one");
}

/// [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-3.3.1-1]
#[test]
fn a_new_connection_gets_what_was_in_flight_first_and_in_the_order_it_was_sent() {
    let mut it = Script::new();
    for (topic, qos) in [("a", QoS::AtLeastOnce), ("b", QoS::ExactlyOnce), ("c", QoS::AtLeastOnce)] {
        it.push(topic, qos);
    }
    assert_eq!(it.sent(3), ["a#1", "b#2", "c#3"]);
    it.push("d", QoS::AtLeastOnce);
    it.outbound.pubrec(id(2), ReasonCode::SUCCESS);
    it.outbound.reconnect();
    assert_eq!(it.sent(10), ["a#1 again", "release#2", "c#3 again", "d#4"]);
}

#[test]
fn a_new_connection_with_a_smaller_window_gets_less_at_a_time() {
    let mut it = Script::new();
    for topic in ["a", "b", "c"] {
        it.push(topic, QoS::AtLeastOnce);
    }
    assert_eq!(it.sent(3), ["a#1", "b#2", "c#3"]);
    it.push("d", QoS::AtMostOnce);
    it.outbound.reconnect();
    assert_eq!(it.sent(1), ["a#1 again"]);
    // The client answers from an earlier connection what was not sent on this one yet: good enough.
    assert!(it.outbound.puback(id(2)));
    assert_eq!(it.sent(1), [""; 0]);
    assert!(it.outbound.puback(id(1)));
    assert_eq!(it.sent(1), ["c#3 again", "d"]);
}

/// [MQTT-3.3.2-5]
#[test]
fn what_ran_out_while_it_waited_is_left_out_and_what_is_in_flight_goes_on() {
    let mut it = Script::new();
    let (now, seconds) = (it.now, Duration::from_secs);
    for (topic, expiry) in [("a", Some(5)), ("b", Some(5)), ("c", None)] {
        let message = expiring_message(topic, b"", expiry, now);
        it.outbound.push(delivery(&message, QoS::AtLeastOnce), &LIMITS, true, Instant::now(), &mut 0);
    }
    it.now = now + seconds(5) - Duration::from_nanos(1);
    assert_eq!(it.sent(1), ["a#1"]);
    it.now = now + seconds(5);
    it.outbound.reconnect();
    assert_eq!(it.sent(2), ["a#1 again", "c#2"]);
    assert_eq!((it.expired, it.outbound.queued()), (1, 0));
}

#[test]
fn qos_0_is_not_kept_for_the_absent() {
    let mut outbound = Outbound::default();
    let mut push = |qos| outbound.push(delivery(&message("a", b""), qos), &LIMITS, false, Instant::now(), &mut 0);
    assert_eq!(push(QoS::AtMostOnce), Queued::Dropped);
    assert_eq!(push(QoS::AtLeastOnce), Queued::Accepted);
    assert_eq!(push(QoS::ExactlyOnce), Queued::Accepted);
}

#[test]
fn qos_0_takes_half_of_the_queue_and_the_rest_overflows() {
    let limits = QueueLimits { messages: 4, own: 4, bytes: 1000 };
    let mut outbound = Outbound::default();
    let mut push = |qos| outbound.push(delivery(&message("a", b""), qos), &limits, true, Instant::now(), &mut 0);
    assert_eq!([0; 3].map(|_| push(QoS::AtMostOnce)), [Queued::Accepted, Queued::Accepted, Queued::Dropped]);
    assert_eq!([0; 3].map(|_| push(QoS::AtLeastOnce)), [Queued::Accepted, Queued::Accepted, Queued::Overflow]);
    assert_eq!(push(QoS::AtMostOnce), Queued::Dropped);
}

#[test]
fn bytes_are_limited_like_messages_but_one_message_always_has_room() {
    let limits = QueueLimits { messages: 100, own: 100, bytes: 100 };
    let mut outbound = Outbound::default();
    let large = message("t", &[0; 199]);
    let small = message("t", &[0; 49]);
    let mut push = |message, qos| outbound.push(delivery(message, qos), &limits, true, Instant::now(), &mut 0);
    assert_eq!(push(&large, QoS::AtLeastOnce), Queued::Accepted);
    assert_eq!(push(&small, QoS::AtLeastOnce), Queued::Overflow);
    assert!(outbound.next(1, Instant::now(), &mut 0).is_some());
    assert!(outbound.puback(id(1)));
    let mut push = |message, qos| outbound.push(delivery(message, qos), &limits, true, Instant::now(), &mut 0);
    assert_eq!(push(&small, QoS::AtMostOnce), Queued::Accepted);
    assert_eq!(push(&small, QoS::AtMostOnce), Queued::Dropped, "50 bytes are half of 100");
    assert_eq!(push(&small, QoS::AtLeastOnce), Queued::Accepted);
    assert_eq!(push(&small, QoS::AtLeastOnce), Queued::Overflow);
}

#[test]
fn what_is_not_acknowledged_counts_in_bytes_until_it_need_not_be_sent_again() {
    let limits = QueueLimits { messages: 100, own: 100, bytes: 100 };
    let mut outbound = Outbound::default();
    let message = message("t", &[0; 49]);
    let now = Instant::now();
    let push = |outbound: &mut Outbound, qos| outbound.push(delivery(&message, qos), &limits, true, now, &mut 0);
    let sent = |outbound: &mut Outbound| outbound.next(10, now, &mut 0).is_some();
    for qos in [QoS::ExactlyOnce, QoS::AtLeastOnce] {
        assert_eq!(push(&mut outbound, qos), Queued::Accepted);
        assert!(sent(&mut outbound));
    }
    assert_eq!((outbound.queued(), outbound.in_flight(), outbound.bytes), (0, 2, 100));
    assert_eq!(push(&mut outbound, QoS::AtMostOnce), Queued::Dropped);
    assert_eq!(push(&mut outbound, QoS::AtLeastOnce), Queued::Overflow);
    assert_eq!(outbound.pubrec(id(1), ReasonCode::SUCCESS), Some(ReasonCode::SUCCESS));
    assert_eq!(outbound.pubrec(id(1), ReasonCode::SUCCESS), Some(ReasonCode::SUCCESS));
    assert_eq!(push(&mut outbound, QoS::AtLeastOnce), Queued::Accepted);
    assert_eq!(push(&mut outbound, QoS::AtLeastOnce), Queued::Overflow);
    outbound.reconnect();
    assert!((0..3).all(|_| sent(&mut outbound)));
    assert_eq!((outbound.in_flight(), outbound.bytes), (3, 100));
    assert!(outbound.pubcomp(id(1)) && outbound.puback(id(2)));
    outbound.discard(Some(id(3)));
    assert_eq!((outbound.in_flight(), outbound.bytes), (0, 0));
}

#[test]
fn identifiers_go_once_around_and_leave_out_0_and_what_is_in_use() {
    let mut it = Script::new();
    it.outbound.last_packet_id = u16::MAX - 1;
    it.push("a", QoS::AtLeastOnce);
    it.push("b", QoS::AtLeastOnce);
    assert_eq!(it.sent(10), ["a#65535", "b#1"]);
    it.outbound.puback(id(1));
    it.outbound.last_packet_id = u16::MAX - 1;
    it.push("c", QoS::AtLeastOnce);
    assert_eq!(it.sent(10), ["c#1"]);
}

#[test]
fn all_identifiers_can_be_in_use_and_the_only_free_one_is_found_at_once() {
    let mut outbound = Outbound::default();
    let limits = QueueLimits { messages: 70_000, own: 70_000, bytes: 1_000_000 };
    let delivery = delivery(&message("a", b""), QoS::AtLeastOnce);
    for _ in 0..70_000 {
        outbound.push(delivery.clone(), &limits, true, Instant::now(), &mut 0);
    }
    // The look-up of an identifier walks the flight, so this fills it by hand.
    outbound.flight = (1..=u16::MAX)
        .map(|packet_id| InFlight {
            packet_id: id(packet_id),
            awaiting: Awaiting::PubAck,
            delivery: Some(delivery.clone()),
        })
        .collect();
    outbound.sent = outbound.flight.len() as u16;
    assert!(outbound.next(u16::MAX, Instant::now(), &mut 0).is_none());
    for free in [1, 40_000, u16::MAX] {
        assert!(outbound.puback(id(free)));
        let next = outbound.next(u16::MAX, Instant::now(), &mut 0);
        assert!(matches!(next, Some(Transmit::Publish { packet_id, .. }) if packet_id == Some(id(free))));
    }
}

/// [MQTT-3.1.2-25]
#[test]
fn what_the_receiver_cannot_be_sent_is_over() {
    let mut it = Script::new();
    it.push("a", QoS::AtLeastOnce);
    it.push("b", QoS::AtLeastOnce);
    assert_eq!(it.sent(1), ["a#1"]);
    it.outbound.discard(Some(id(1)));
    it.outbound.discard(None);
    assert_eq!(it.sent(1), ["b#2"]);
}

#[test]
fn a_burst_gives_its_memory_back() {
    let mut it = Script::new();
    for _ in 0..100 {
        it.push("a", QoS::AtLeastOnce);
    }
    it.sent(100);
    (1..=100).for_each(|packet_id| assert!(it.outbound.puback(id(packet_id))));
    assert_eq!((it.outbound.queue.capacity(), it.outbound.flight.capacity(), it.outbound.bytes), (0, 0, 0));
}

#[test]
fn a_client_in_the_process_takes_what_is_queued_without_the_wire() {
    let mut it = Script::new();
    let gone = expiring_message("gone", b"", Some(1), it.now);
    it.outbound.push(delivery(&gone, QoS::AtLeastOnce), &LIMITS, true, Instant::now(), &mut 0);
    it.push("a", QoS::ExactlyOnce);
    let taken = it.outbound.take(it.now + Duration::from_secs(2), &mut it.expired);
    assert_eq!(taken.map(|delivery| delivery.message.topic().to_owned()), Some("a".into()));
    assert!(it.outbound.take(it.now, &mut it.expired).is_none());
    assert_eq!((it.expired, it.outbound.in_flight(), it.outbound.bytes), (1, 0, 0));
}

#[test]
fn subscription_identifiers_are_kept_in_order() {
    let ids = [7, 3, 7].map(|n| NonZeroU32::new(n).unwrap());
    for count in 0..=3 {
        assert_eq!(SubscriptionIds::from(&ids[..count]).as_slice(), &ids[..count]);
    }
    assert_eq!(SubscriptionIds::default().as_slice(), []);
}
