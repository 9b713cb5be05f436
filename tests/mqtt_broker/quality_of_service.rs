//! QoS 0, 1 and 2, both ways (4.3), what is sent again (4.4) and in which order (4.6).

use crate::harness::*;

/// [MQTT-4.3.1-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8], [MQTT-3.8.4-8]
#[test]
fn the_lower_of_both_qos_is_delivered() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        for granted in 0..=2 {
            let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
            assert_eq!(subscriber.subscribe("t", granted), granted);
            for sent in 0..=2 {
                assert_eq!(publisher.publish(Message::new("t", "m").qos(sent)), 0);
                assert_eq!(subscriber.expect_message().gist(), ("t", "m", sent.min(granted), false));
            }
            subscriber.expect_nothing();
        }
    });
}

/// A first delivery has DUP 0, whatever the publisher's was [MQTT-3.3.1-2], [MQTT-3.3.1-3].
#[test]
fn dup_is_not_passed_on() {
    for version in VERSIONS {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s"));
        subscriber.subscribe("t", 2);
        let mut publisher = broker.connect(Client::new(version, "p"));
        for qos in 1..=2 {
            publisher.publish(Message::new("t", "m").qos(qos).dup());
            let message = subscriber.expect_message();
            assert!(!message.dup && message.qos == qos);
        }
    }
}

/// [MQTT-4.3.2-5]: after its PUBACK a packet identifier is free, and the same one is a new message.
#[test]
fn a_qos_1_message_sent_again_is_a_new_message() {
    for version in VERSIONS {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s"));
        subscriber.subscribe("t", 1);
        let mut publisher = broker.connect(Client::new(version, "p"));
        publisher.publish(Message::new("t", "m").qos(1).id(7));
        publisher.publish(Message::new("t", "m").qos(1).id(7).dup());
        subscriber.expect_payloads(2);
        subscriber.expect_nothing();
    }
}

/// [MQTT-4.3.3-9], [MQTT-4.3.3-10], [MQTT-4.3.3-11], [MQTT-4.3.3-12]
#[test]
fn a_qos_2_message_is_delivered_once_however_often_it_is_sent() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
        subscriber.subscribe("t", 2);
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        for dup in [false, true, true] {
            let message = Message { dup, ..Message::new("t", "once").qos(2).id(7) };
            publisher.send_publish(message);
            publisher.expect_pubrec(7);
        }
        for _ in 0..2 {
            publisher.send_pubrel(7);
            publisher.expect_pubcomp(7);
        }
        assert_eq!(subscriber.expect_message().text(), "once");
        subscriber.expect_nothing();
        // The identifier is free again.
        publisher.publish(Message::new("t", "twice").qos(2).id(7));
        assert_eq!(subscriber.expect_message().text(), "twice");
    });
}

/// What is known of QoS 2 messages belongs to the session [MQTT-4.3.3-10], [MQTT-4.1.0-1].
#[test]
fn a_qos_2_message_is_delivered_once_across_a_reconnect() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s"));
        subscriber.subscribe("t", 2);
        let publisher = Client::kept(version, "p").over(transport);

        let mut first = broker.connect(publisher.clone());
        first.send_publish(Message::new("t", "once").qos(2).id(3));
        first.expect_pubrec(3);
        first.hang_up();

        let mut second = broker.connect(publisher.clone());
        assert!(second.present());
        second.send_publish(Message::new("t", "once").qos(2).id(3).dup());
        assert_eq!(second.expect_pubrec(3).reason, 0);
        second.send_pubrel(3);
        second.expect_pubcomp(3);
        subscriber.expect_payloads(1);
        subscriber.expect_nothing();

        // A new session knows nothing of it.
        let mut third = broker.connect(publisher.clean(true));
        third.publish(Message::new("t", "again").qos(2).id(3).dup());
        subscriber.expect_payloads(1);
    });
}

/// A PUBREL for what the receiver does not know is answered: 0x92 in 5.0 (3.7.2.1), a plain PUBCOMP in 3.1.1.
#[test]
fn pubrel_of_an_unknown_message_is_answered() {
    let broker = Broker::start();
    for (version, reason) in [(Version::V311, 0x00), (Version::V5, 0x92)] {
        let mut client = broker.connect(Client::new(version, "c"));
        client.send_pubrel(99);
        assert_eq!(client.expect_pubcomp(99).reason, reason);
    }
}

/// A PUBREC for what the sender does not know is answered by PUBREL 0x92 (3.6.2.1), one with an error by nothing
/// [MQTT-4.3.3-4]; a stray PUBACK or PUBCOMP changes nothing.
#[test]
fn acknowledgements_of_unknown_messages_harm_nobody() {
    let broker = Broker::start();
    for (version, reason) in [(Version::V311, 0x00), (Version::V5, 0x92)] {
        let mut client = broker.connect(Client::new(version, "c"));
        client.send_pubrec(99);
        assert_eq!(client.expect_pubrel(99).reason, reason);
        client.send_puback(98);
        client.send_pubcomp(97);
        if version == Version::V5 {
            client.send_pubrec_with(96, 0x80);
        }
        client.expect_nothing();
    }
}

/// A PUBREC that refuses ends the exchange, and the message is not sent again [MQTT-4.3.3-4], [MQTT-4.3.3-5].
#[test]
fn a_refused_qos_2_delivery_is_over() {
    let broker = Broker::start();
    let subscriber = Client::kept(Version::V5, "s").receive_maximum(1);
    let mut first = broker.connect(subscriber.clone());
    first.subscribe("t", 2);
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("t", "refused").qos(2));
    publisher.publish(Message::new("t", "next").qos(2));
    let refused = first.expect_publish();
    first.send_pubrec_with(refused.id, 0x97);
    // The quota is given back (4.9).
    assert_eq!(first.expect_message().text(), "next");
    first.expect_nothing();
    first.hang_up();
    broker.connect(subscriber).expect_nothing();
}

/// [MQTT-4.4.0-1], [MQTT-4.4.0-2]: PUBLISH again with DUP and the same identifier, PUBREL again where PUBREC had come,
/// in the original order, and before what was queued meanwhile [MQTT-4.6.0-1], [MQTT-4.6.0-4], [MQTT-4.3.3-6].
#[test]
fn what_was_not_acknowledged_is_sent_again_in_order() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let subscriber = Client::kept(version, "s").over(transport);
        let mut first = broker.connect(subscriber.clone());
        first.subscribe("t", 2);
        let mut publisher = broker.connect(Client::new(version, "p"));
        for (payload, qos) in [("a", 1), ("b", 2), ("c", 2), ("d", 1), ("e", 0), ("f", 1)] {
            publisher.publish(Message::new("t", payload).qos(qos));
        }
        let sent: Vec<_> = (0..6).map(|_| first.expect_publish()).collect();
        let texts: Vec<_> = sent.iter().map(Message::text).collect();
        assert_eq!(texts, ["a", "b", "c", "d", "e", "f"]);
        first.send_pubrec(sent[1].id);
        first.expect_pubrel(sent[1].id);
        first.send_puback(sent[3].id);
        first.hang_up();
        broker.wait_for_connections(1);
        publisher.publish(Message::new("t", "g").qos(1));
        publisher.publish(Message::new("t", "lost").qos(0));

        let mut second = broker.connect(subscriber.clone());
        assert!(second.present());
        let again = |sent: &Message| Message { dup: true, ..sent.clone() };
        assert_eq!(second.expect_publish(), again(&sent[0]));
        second.expect_pubrel_next(sent[1].id); // where its PUBLISH stood
        assert_eq!(second.expect_publish(), again(&sent[2]));
        assert_eq!(second.expect_publish(), again(&sent[5]));
        let fresh = second.expect_publish();
        assert!(fresh.text() == "g" && !fresh.dup);

        second.send_puback(sent[0].id);
        second.send_pubcomp(sent[1].id);
        second.send_pubrec(sent[2].id);
        second.expect_pubrel(sent[2].id);
        second.send_pubcomp(sent[2].id);
        second.send_puback(sent[5].id);
        second.send_puback(fresh.id);
        second.expect_nothing();
        second.hang_up();
        // Everything was acknowledged.
        broker.connect(subscriber).expect_nothing();
    });
}

/// [MQTT-4.4.0-1]: nothing is sent again within a connection.
#[test]
fn nothing_is_sent_again_without_a_reconnect() {
    let broker = Broker::start();
    let mut subscriber = broker.connect(Client::v5("s"));
    subscriber.subscribe("t", 1);
    broker.connect(Client::v5("p")).publish(Message::new("t", "m").qos(1));
    subscriber.expect_publish();
    subscriber.expect_silence(std::time::Duration::from_millis(300));
    subscriber.expect_nothing();
}

/// Packet identifiers in flight are not used for another message [MQTT-2.2.1-3], and both directions have their own
/// (2.2.1).
#[test]
fn packet_identifiers_are_unique_in_flight_and_separate_for_each_direction() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c"));
    client.subscribe("t", 1);
    let ids: Vec<_> = (1..=5)
        .map(|id| {
            client.publish(Message::new("t", "m").qos(1).id(id));
            client.expect_publish().id
        })
        .collect();
    assert!((1..ids.len()).all(|at| ids[at] != 0 && !ids[..at].contains(&ids[at])), "{ids:?}");
    // An identifier of the client's own, in use by the broker at the same time.
    client.publish(Message::new("t", "m").qos(2).id(ids[0]));
}

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6]: each subscriber sees what one publisher sent to one topic in the order sent, at
/// whatever QoS it subscribed.
#[test]
fn the_order_of_a_publisher_and_topic_is_kept() {
    const COUNT: usize = 300;
    let broker = Broker::start();
    let mut subscribers: Vec<_> = (0..6)
        .map(|n| {
            let transport = TRANSPORTS[n % 2];
            let client = Client::new(VERSIONS[n / 3], &format!("s{n}")).over(transport);
            let mut subscriber = broker.connect(client);
            subscriber.subscribe("order/+", (n % 3) as u8);
            subscriber
        })
        .collect();
    let publishers: Vec<_> = (0..2)
        .map(|n| {
            let mut publisher = broker.connect(Client::new(VERSIONS[n], &format!("p{n}")).over(TRANSPORTS[n]));
            std::thread::spawn(move || {
                let topic = format!("order/{n}");
                for number in 0..COUNT {
                    // Of one QoS: between different ones 4.6 promises nothing.
                    let id = publisher.send_publish(Message::new(&topic, number.to_string()).qos(1));
                    if number % 20 == 19 {
                        (id - 19..=id).for_each(|id| assert_eq!(publisher.expect_puback(id).reason, 0));
                    }
                }
            })
        })
        .collect();
    let readers: Vec<_> = subscribers
        .drain(..)
        .map(|mut subscriber| {
            std::thread::spawn(move || {
                let mut next = [0; 2];
                for _ in 0..2 * COUNT {
                    let message = subscriber.expect_message();
                    let publisher = usize::from(message.topic == "order/1");
                    assert_eq!(message.text(), next[publisher].to_string());
                    next[publisher] += 1;
                }
                subscriber.expect_nothing();
            })
        })
        .collect();
    publishers.into_iter().chain(readers).for_each(|thread| thread.join().expect("no assertion failed"));
}

/// [MQTT-4.6.0-1] to [MQTT-4.6.0-4]: acknowledgements are sent in the order of what they acknowledge.
#[test]
fn acknowledgements_keep_the_order_of_publishes() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        let mut bytes = Vec::new();
        for id in [5, 3, 9, 1] {
            Message::new("t", "m").qos(if id == 9 { 1 } else { 2 }).id(id).encode(&mut bytes, version);
        }
        client.send_bytes(&bytes);
        let order: Vec<_> = (0..4)
            .map(|_| match client.receive().packet() {
                Packet::PubAck(ack) | Packet::PubRec(ack) => ack.packet_id.get(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, [5, 3, 9, 1]);
        [3, 5].into_iter().for_each(|id| client.send_pubrel(id));
        let order = [client.receive(), client.receive()].map(|received| match received.packet() {
            Packet::PubComp(ack) => ack.packet_id.get(),
            other => panic!("{other:?}"),
        });
        assert_eq!(order, [3, 5]);
    });
}

/// 3.4.2.1, 3.5.2.1: 0x10 says that nobody was subscribed; 3.1.1 cannot say it.
#[test]
fn the_publisher_learns_that_nobody_was_subscribed() {
    let broker = Broker::start();
    let mut v5 = broker.connect(Client::v5("5"));
    assert_eq!(v5.publish(Message::new("nobody", "m").qos(1)), 0x10);
    assert_eq!(v5.publish(Message::new("nobody", "m").qos(2)), 0x10);
    let mut v311 = broker.connect(Client::v311("4"));
    assert_eq!(v311.publish(Message::new("nobody", "m").qos(1)), 0);
    assert_eq!(v311.publish(Message::new("nobody", "m").qos(2)), 0);
    let mut subscriber = broker.connect(Client::v5("s"));
    subscriber.subscribe("somebody", 0);
    assert_eq!(v5.publish(Message::new("somebody", "m").qos(1)), 0);
}

/// Payloads may be empty (3.3.3), and large: here larger than any buffer on the way.
#[test]
fn payloads_may_be_empty_and_large() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
        subscriber.subscribe("t", 2);
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        let large: Vec<u8> = (0..200 * 1024u32).map(|n| ((n * 31) >> 3) as u8).collect();
        for qos in 0..=2 {
            for payload in [&large[..], b""] {
                publisher.publish(Message::new("t", payload).qos(qos));
                let message = subscriber.expect_message();
                assert!(message.payload == payload && message.qos == qos, "{message:?}");
            }
        }
    });
}
