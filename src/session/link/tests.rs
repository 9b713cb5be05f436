//! What a client is sent: what it agreed to and no more.

use std::time::Instant;

use super::*;
use crate::{
    session::{
        SubscriptionIds,
        testing::{Script, delivery, expiring_message, id, message, packets, terms},
    },
    wire::mqtt::QoS,
};

/// Publishes on a link of these terms; `None` if the client cannot be sent it.
fn published(link: &mut Link, delivery: &Delivery, packet_id: Option<u16>, now: Instant) -> Option<Vec<u8>> {
    let mut batch = Batch::default();
    batch.start(false);
    let sent = link.publish(&mut batch, delivery, packet_id.map(id), false, now);
    batch.seal();
    let mut bytes = Vec::new();
    batch.write_to(&mut bytes, |_| Ok(0)).unwrap();
    assert!(sent || bytes.is_empty(), "what was refused leaves no trace");
    sent.then_some(bytes)
}

fn link(terms: Terms) -> Box<Link> {
    Script::default().link(terms, false).0
}

#[test]
fn a_message_goes_out_with_the_expiry_left_and_its_subscription_identifiers() {
    let now = Instant::now();
    let number = |n| NonZeroU32::new(n).unwrap();
    let ids = SubscriptionIds::Many([number(1), number(268_435_455)].into());
    let message = expiring_message("a/b", b"payload", Some(10), now);
    let delivery = Delivery { ids, retain: true, ..delivery(&message, QoS::AtLeastOnce) };
    let bytes = published(&mut link(terms(Version::V5)), &delivery, Some(7), now + Duration::from_secs(3)).unwrap();
    let [Packet::Publish(publish)] = &packets(&bytes, Version::V5)[..] else { panic!("{bytes:?}") };
    assert_eq!((publish.topic, publish.payload, publish.packet_id), ("a/b", &b"payload"[..], Some(id(7))));
    assert_eq!((publish.qos, publish.retain, publish.dup), (QoS::AtLeastOnce, true, false));
    assert_eq!(publish.properties.message_expiry, Some(7)); // [MQTT-3.3.2-6]
    let ids: Vec<_> = publish.properties.subscription_ids.iter().map(NonZeroU32::get).collect();
    assert_eq!(ids, [1, 268_435_455]); // [MQTT-3.3.4-3]
}

/// [MQTT-3.1.2-24]
#[test]
fn a_packet_of_exactly_the_maximum_packet_size_is_sent_and_a_byte_more_is_not() {
    let now = Instant::now();
    for payload in [0, 1, 90, 110, 120, 1100, 16_370, 16_380] {
        for (ids, expiry) in [(0, None), (0, Some(9)), (1, None), (3, Some(9))] {
            let message = expiring_message("some/topic", &vec![b'.'; payload], expiry, now);
            let mut delivery = delivery(&message, QoS::ExactlyOnce);
            let ids: Vec<_> = (1..=ids).map(|n| NonZeroU32::new(n * 1000).unwrap()).collect();
            delivery.ids = ids[..].into();
            let whole = published(&mut link(terms(Version::V5)), &delivery, Some(1), now).unwrap().len() as u32;
            for aliases in [0, 5] {
                for (maximum, fits) in [(whole - 1, false), (whole, true), (whole + 1, true)] {
                    let maximum_packet = NonZeroU32::new(maximum);
                    let terms = Terms { maximum_packet, topic_aliases: aliases, ..terms(Version::V5) };
                    let sent = published(&mut link(terms), &delivery, Some(1), now);
                    assert_eq!(sent.map(|bytes| bytes.len() <= maximum as usize), fits.then_some(true));
                }
            }
        }
    }
}

/// A generous limit is judged without encoding; what that finds to fit must fit with the longest of everything.
#[test]
fn what_surely_fits_does_fit() {
    let now = Instant::now();
    for payload in 0..200 {
        let message = expiring_message("t", &vec![0; payload], Some(u32::MAX), now);
        let mut delivery = delivery(&message, QoS::AtLeastOnce);
        delivery.ids = [NonZeroU32::new(268_435_455).unwrap(); 3][..].into();
        for maximum in payload + 1..payload + 50 {
            let maximum_packet = NonZeroU32::new(maximum as u32);
            let terms = Terms { maximum_packet, topic_aliases: 5, ..terms(Version::V5) };
            let sent = published(&mut link(terms), &delivery, Some(1), now);
            assert!(sent.is_none_or(|bytes| bytes.len() <= maximum));
        }
    }
}

/// [MQTT-3.3.2-8] to [MQTT-3.3.2-12], [MQTT-3.1.2-26], [MQTT-3.1.2-27]
#[test]
fn the_first_topics_get_an_alias_each_and_no_more_than_the_client_allows() {
    let mut link = link(Terms { topic_aliases: 2, ..terms(Version::V5) });
    let mut sent = |topic| {
        let delivery = delivery(&message(topic, b""), QoS::AtMostOnce);
        let bytes = published(&mut link, &delivery, None, Instant::now()).unwrap();
        let [Packet::Publish(publish)] = &packets(&bytes, Version::V5)[..] else { panic!("{bytes:?}") };
        (publish.topic.to_owned(), publish.properties.topic_alias.map(NonZeroU16::get))
    };
    assert_eq!(sent("a"), ("a".into(), Some(1)));
    assert_eq!(sent("b"), ("b".into(), Some(2)));
    assert_eq!(sent("c"), ("c".into(), None));
    assert_eq!(sent("a"), ("".into(), Some(1)));
    assert_eq!(sent("b"), ("".into(), Some(2)));
    assert_eq!(sent("c"), ("c".into(), None));
}

#[test]
fn an_alias_is_only_counted_on_where_the_packet_that_set_it_was_sent() {
    let mut link = link(Terms { topic_aliases: 2, maximum_packet: NonZeroU32::new(50), ..terms(Version::V5) });
    let large = delivery(&message("topic", &[0; 100]), QoS::AtMostOnce);
    assert_eq!(published(&mut link, &large, None, Instant::now()), None);
    let small = delivery(&message("topic", b""), QoS::AtMostOnce);
    let bytes = published(&mut link, &small, None, Instant::now()).unwrap();
    let [Packet::Publish(publish)] = &packets(&bytes, Version::V5)[..] else { panic!("{bytes:?}") };
    assert_eq!((publish.topic, publish.properties.topic_alias.map(NonZeroU16::get)), ("topic", Some(1)));
}

#[test]
fn a_3_1_1_client_gets_no_properties() {
    let now = Instant::now();
    let message = expiring_message("t", b"p", Some(10), now);
    let mut delivery = delivery(&message, QoS::AtMostOnce);
    delivery.ids = [NonZeroU32::MIN][..].into();
    let bytes = published(&mut link(terms(Version::V311)), &delivery, None, now);
    assert_eq!(bytes.as_deref(), Some(&b"\x30\x04\x00\x01tp"[..]));
}

const CLOSE: Close = Close { reason: ReasonCode::SESSION_TAKEN_OVER, what: "taken over" };

/// [MQTT-3.1.4-3]
#[test]
fn a_client_that_is_replaced_is_told_and_its_stream_ends() {
    for (version, websocket, told) in [
        (Version::V5, false, &b"\xE0\x0E\x8E\x0C\x1F\x00\x09taken over"[..]),
        (Version::V311, false, b""),
        (Version::V311, true, b"\x82\x00\x88\x0C\x03\xE8taken over"),
    ] {
        let script = Script::default();
        script.takes(1000);
        let (mut link, woken) = script.link(terms(version), websocket);
        link.replaced(CLOSE);
        let written = script.written();
        match version {
            Version::V5 => {
                let [Packet::Disconnect(packet)] = &packets(&written, version)[..] else { panic!("{written:?}") };
                assert_eq!((packet.reason, packet.reason_string), (CLOSE.reason, Some(CLOSE.what)));
            }
            Version::V311 => assert!(written.ends_with(if websocket { &told[2..] } else { told }), "{written:?}"),
        }
        assert!(script.is_shut());
        assert_eq!(woken.times(), 1);
    }
}

#[test]
fn a_client_in_the_middle_of_a_packet_is_not_told_that_it_is_replaced() {
    let script = Script::default();
    script.takes(1000);
    let (mut link, _) = script.link(terms(Version::V5), false);
    link.unsent = b"the rest of a packet".to_vec();
    link.replaced(CLOSE);
    assert!(script.written().is_empty() && script.is_shut());
}

#[test]
fn the_first_reason_to_close_stands_and_wakes_the_task_once() {
    let (mut link, woken) = Script::default().link(terms(Version::V5), false);
    link.close(CLOSE);
    link.close(Close { reason: ReasonCode::SERVER_SHUTTING_DOWN, what: "later" });
    assert_eq!((link.close, woken.times()), (Some(CLOSE), 1));
}

/// What a probe comes to that has 20 seconds, in tenths of a second: when pongs and packets come, what is done when.
fn looks(answers: &[u64], heard: &[u64], seconds: u64) -> Vec<(u64, &'static str)> {
    let start = Instant::now();
    let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
    let mut probe = Probe::new(Duration::from_secs(20));
    let (mut next, mut said) = (start, Vec::new());
    for tenth in 0..=10 * seconds {
        if answers.contains(&tenth) {
            probe.answer(at(tenth));
        }
        if next > at(tenth) {
            continue;
        }
        let last = heard.iter().copied().filter(|heard| *heard <= tenth).max().unwrap_or(0);
        next = match probe.look(at(last), at(tenth)) {
            Look::Again(next) => next,
            Look::Ask(next) => {
                said.push((tenth, "ask"));
                next
            }
            Look::Lost => {
                said.push((tenth, "lost"));
                break;
            }
        };
    }
    said
}

#[test]
fn a_silent_peer_is_asked_after_half_its_time_and_lost_before_all_of_it() {
    assert_eq!(looks(&[], &[], 60), [(100, "ask"), (180, "lost")]);
    assert_eq!(looks(&[101], &[], 30), [(100, "ask"), (201, "ask"), (281, "lost")]);
    assert_eq!(looks(&[], &[50, 99, 150], 32), [(250, "ask")], "who is heard is not asked");
    assert_eq!(looks(&[], &[105], 40), [(100, "ask"), (205, "ask"), (285, "lost")], "a packet is an answer too");
}

#[test]
fn a_peer_that_is_looked_at_late_is_asked_before_it_counts_as_lost() {
    let start = Instant::now();
    let mut probe = Probe::new(Duration::from_secs(20));
    let late = start + Duration::from_secs(300);
    assert_eq!(probe.look(start, late), Look::Ask(late + Duration::from_secs(8)));
    assert_eq!(probe.look(start, late + Duration::from_secs(7)), Look::Again(late + Duration::from_secs(8)));
    assert_eq!(probe.look(start, late + Duration::from_secs(8)), Look::Lost);
}
