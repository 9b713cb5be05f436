//! What each side lets the other send: Receive Maximum (4.9), Maximum Packet Size, topic aliases, reason strings.

use crate::harness::*;

/// [MQTT-3.3.4-9], [MQTT-4.9.0-1], [MQTT-4.9.0-2]: no more is in flight than the client takes; QoS 0 waits its turn.
#[test]
fn the_clients_receive_maximum_is_kept() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::v5("s").receive_maximum(2).over(transport));
        subscriber.subscribe("t", 2);
        let mut publisher = broker.connect(Client::v5("p"));
        for (payload, qos) in [("a", 1), ("b", 2), ("c", 1), ("d", 2), ("e", 0)] {
            publisher.publish(Message::new("t", payload).qos(qos));
        }
        let a = subscriber.expect_publish();
        let b = subscriber.expect_publish();
        assert_eq!((a.text(), b.text()), ("a", "b"));
        subscriber.expect_nothing();
        subscriber.send_puback(a.id);
        let c = subscriber.expect_publish();
        assert_eq!(c.text(), "c");
        // PUBREC gives nothing back, PUBCOMP does.
        subscriber.send_pubrec(b.id);
        subscriber.expect_pubrel(b.id);
        subscriber.expect_nothing();
        subscriber.send_pubcomp(b.id);
        let d = subscriber.expect_publish();
        assert_eq!(d.text(), "d");
        // QoS 0 needs no quota and is sent in its turn.
        let e = subscriber.expect_publish();
        assert_eq!(e.text(), "e");
        subscriber.send_puback(c.id);
        subscriber.send_pubrec(d.id);
        subscriber.expect_pubrel(d.id);
        subscriber.send_pubcomp(d.id);
        subscriber.expect_nothing();
    }
}

/// 4.9: what was in flight counts again on the next connection, with that connection's Receive Maximum.
#[test]
fn the_receive_maximum_is_that_of_the_present_connection() {
    let broker = Broker::start();
    let client = || Client::kept(Version::V5, "s");
    let mut first = broker.connect(client().receive_maximum(3));
    first.subscribe("t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    for payload in ["a", "b", "c", "d"] {
        publisher.publish(Message::new("t", payload).qos(1));
    }
    for _ in 0..3 {
        first.expect_publish();
    }
    first.expect_nothing();
    first.hang_up();
    let mut second = broker.connect(client().receive_maximum(1));
    for (payload, dup) in [("a", true), ("b", true), ("c", true), ("d", false)] {
        let message = second.expect_publish();
        assert_eq!((message.text(), message.dup), (payload, dup));
        second.expect_nothing();
        second.send_puback(message.id);
    }
    second.expect_nothing();
}

/// A client of 3.1.1 names no maximum; the broker keeps `limits.inflight`.
#[test]
fn the_brokers_own_window_bounds_what_is_in_flight() {
    let broker = Broker::start_with(|config| config.limits.inflight = 2);
    let mut subscriber = broker.connect(Client::v311("s"));
    subscriber.subscribe("t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    for _ in 0..4 {
        publisher.publish(Message::new("t", "m").qos(1));
    }
    let ids = [subscriber.expect_publish().id, subscriber.expect_publish().id];
    subscriber.expect_nothing();
    ids.into_iter().for_each(|id| subscriber.send_puback(id));
    subscriber.expect_payloads(2);
}

/// [MQTT-3.3.4-7]: more unreleased QoS 2 messages than the broker announced end the connection with 0x93. One that is
/// sent again counts once.
#[test]
fn exceeding_the_brokers_receive_maximum_ends_the_connection() {
    for transport in TRANSPORTS {
        let broker = Broker::start_with(|config| config.limits.inflight = 3);
        let mut client = broker.connect(Client::v5("c").over(transport));
        assert_eq!(client.connack.receive_maximum, Some(3));
        for id in 1..=3 {
            client.send_publish(Message::new("t", "m").qos(2).id(id));
            client.expect_pubrec(id);
        }
        client.send_publish(Message::new("t", "m").qos(2).id(3).dup());
        client.expect_pubrec(3);
        client.publish(Message::new("t", "m").qos(1));
        client.send_pubrel(1);
        client.expect_pubcomp(1);
        client.send_publish(Message::new("t", "m").qos(2).id(4));
        client.expect_pubrec(4);
        client.send_publish(Message::new("t", "m").qos(2).id(5));
        client.expect_disconnect(0x93);
    }
}

/// 3.1.1 has no Receive Maximum: a client may have as many QoS 2 messages under way as there are identifiers (4.3.3).
#[test]
fn a_3_1_1_client_may_have_many_qos_2_messages_under_way() {
    let broker = Broker::start();
    let mut subscriber = broker.connect(Client::v311("s"));
    subscriber.subscribe("t", 0);
    let mut client = broker.connect(Client::v311("c"));
    let mut bytes = Vec::new();
    (1..=500).for_each(|id| Message::new("t", "m").qos(2).id(id).encode(&mut bytes, Version::V311));
    client.send_bytes(&bytes);
    for id in 1..=500 {
        client.expect_pubrec(id);
    }
    (1..=500).rev().for_each(|id| client.send_pubrel(id));
    for id in (1..=500).rev() {
        client.expect_pubcomp(id);
    }
    subscriber.expect_payloads(500);
    subscriber.expect_nothing();
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]: what is larger than a client takes is not sent to it and counts as sent; others
/// get it.
#[test]
fn the_clients_maximum_packet_size_is_kept() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut small = broker.connect(Client::v5("small").maximum_packet(100).receive_maximum(1).over(transport));
        let mut large = broker.connect(Client::v5("large").over(transport));
        small.subscribe("t", 2);
        large.subscribe("t", 2);
        let mut publisher = broker.connect(Client::v5("p"));
        // Fixed header 2, topic 3, identifier 2, properties 1 and the sender's name 14: 78 bytes of payload fit exactly
        // at QoS 1.
        for (length, qos, fits) in [(500, 1, false), (78, 1, true), (79, 1, false), (80, 0, true), (81, 0, false)] {
            let payload = vec![b'x'; length];
            publisher.publish(Message::new("t", &payload).qos(qos));
            assert_eq!(large.expect_message().payload, payload);
            if fits {
                assert_eq!(small.expect_message().payload, payload);
            }
            small.expect_nothing();
        }
        publisher.publish(Message::new("t", [b'x'; 500]).qos(2));
        publisher.publish(Message::new("t", "fits").qos(2));
        assert_eq!(small.expect_message().text(), "fits");
    }
}

/// [MQTT-3.1.2-24] holds for every packet: a reason string that would not fit is left out [MQTT-3.2.2-19],
/// [MQTT-3.4.2-2], [MQTT-3.9.2-1], [MQTT-3.14.2-3].
#[test]
fn reason_strings_that_do_not_fit_are_left_out() {
    let broker = Broker::start();
    let tiny = || Client::v5("tiny").maximum_packet(20);
    let mut client = broker.connect(tiny());
    let id = client.send_publish(Message::new("$not/ours", "m").qos(1));
    let puback = client.expect_puback(id);
    assert_eq!((puback.reason, puback.reason_string), (0x87, None));
    let id = client.send_subscribe(&[(&"deep/".repeat(40), options(0))], None);
    let suback = client.expect_suback(id);
    assert_eq!((suback.codes, suback.reason_string), (vec![0x8F], None));
    client.send_bytes(&[0x00, 0]);
    assert_eq!(client.expect_disconnect(0x81), None);
    let refused = broker.connect_refused(tiny().user_name("a/b"));
    assert_eq!((refused.reason, refused.reason_string), (0x86, None));
}

/// 3.2.2.3.6: a packet larger than the broker announced ends the connection with 0x95, when its length is read.
#[test]
fn exceeding_the_brokers_maximum_packet_size_ends_the_connection() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.packet = 4096);
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        // The fixed header is 3 bytes, the topic 3, and 5.0 has one byte for no properties.
        let fits = 4096 - 6 - usize::from(version == Version::V5);
        client.publish(Message::new("t", vec![b'x'; fits]));
        client.send_publish(Message::new("t", vec![b'x'; fits + 1]));
        client.expect_disconnect(0x95);
        let mut announcing = broker.connect(Client::new(version, "a").over(transport));
        announcing.send_bytes(&[0x30, 0x81, 0x20]);
        announcing.expect_disconnect(0x95);
    });
}

/// [MQTT-3.3.2-12], 3.3.2.3.4: an alias stands for the topic it was last sent with, on that connection.
#[test]
fn a_client_may_use_topic_aliases() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::v5("s"));
        subscriber.subscribe("#", 2);
        let mut client = broker.connect(Client::v5("c").over(transport));
        let maximum = client.connack.topic_alias_maximum.expect("announced");
        let messages =
            [("a", 1, "a"), ("", 1, "a"), ("b", maximum, "b"), ("", maximum, "b"), ("c", 1, "c"), ("", 1, "c")];
        for (qos, (topic, alias, meant)) in (0..=2).cycle().zip(messages) {
            client.publish(Message::new(topic, "m").qos(qos).alias(alias));
            let message = subscriber.expect_message();
            assert_eq!((message.topic.as_str(), message.alias), (meant, None), "an alias is not passed on");
        }
        client.hang_up();
        // Another connection knows none of them [MQTT-3.3.2-7].
        let mut client = broker.connect(Client::v5("c").over(transport));
        client.send_publish(Message::new("", "m").alias(1));
        client.expect_disconnect(0x82);
        subscriber.expect_nothing();
    }
}

/// [MQTT-3.3.2-8], [MQTT-3.3.2-9] and 3.3.4: alias 0 or one above the maximum is 0x94; one that is not known, or no
/// topic at all, 0x82.
#[test]
fn invalid_topic_aliases_end_the_connection() {
    let broker = Broker::start_with(|config| config.limits.topic_aliases = 2);
    let publish = |topic: &[u8], alias: Option<u16>| {
        let mut body = vec![0, topic.len() as u8];
        body.extend_from_slice(topic);
        match alias.map(u16::to_be_bytes) {
            Some([high, low]) => body.extend_from_slice(&[3, 35, high, low]),
            None => body.push(0),
        }
        [&[0x30, body.len() as u8], &body[..]].concat()
    };
    let cases = [
        (publish(b"t", Some(0)), 0x94),
        (publish(b"t", Some(3)), 0x94),
        (publish(b"", Some(2)), 0x82),
        (publish(b"", None), 0x82),
    ];
    for (bytes, reason) in cases {
        let mut client = broker.connect(Client::v5("c"));
        client.send_bytes(&bytes);
        client.expect_disconnect(reason);
    }
}

/// [MQTT-3.1.2-26], [MQTT-3.1.2-27]: the broker uses no alias above what the client takes, and says each topic first.
#[test]
fn the_broker_uses_as_many_aliases_as_the_client_takes() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut none = broker.connect(Client::v5("none").over(transport));
        let mut two = broker.connect(Client::v5("two").aliases(2).over(transport));
        let mut many = broker.connect(Client::v5("many").aliases(u16::MAX).over(transport));
        let mut old = broker.connect(Client::v311("old").over(transport));
        for client in [&mut none, &mut two, &mut many, &mut old] {
            client.subscribe("#", 1);
        }
        let mut publisher = broker.connect(Client::v5("p"));
        let mut known = [std::collections::HashMap::new(), std::collections::HashMap::new()];
        for round in 0..3 {
            for topic in ["long/topic/one", "long/topic/two", "long/topic/three"] {
                publisher.publish(Message::new(topic, "m").qos(round % 2));
                for client in [&mut none, &mut old] {
                    let message = client.expect_message();
                    assert_eq!((message.topic.as_str(), message.alias), (topic, None));
                }
                for (client, (known, maximum)) in [&mut two, &mut many].into_iter().zip(known.iter_mut().zip([2, 16])) {
                    let message = client.expect_message();
                    assert!(message.alias.is_none_or(|alias| (1..=maximum).contains(&alias)), "{message:?}");
                    if let (false, Some(alias)) = (message.topic.is_empty(), message.alias) {
                        known.insert(alias, message.topic.clone());
                    }
                    let meant = match message.topic.as_str() {
                        "" => known[&message.alias.expect("a topic or an alias")].as_str(),
                        topic => topic,
                    };
                    assert_eq!(meant, topic);
                }
            }
        }
        assert_eq!(known.map(|known| known.len()), [2, 3], "aliases are used");
    }
}

/// Aliases belong to a connection, in both directions [MQTT-3.3.2-7]: what is sent again says its topic.
#[test]
fn what_is_sent_again_does_not_rely_on_old_aliases() {
    let broker = Broker::start();
    let client = || Client::kept(Version::V5, "s").aliases(5);
    let mut first = broker.connect(client());
    first.subscribe("t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    for _ in 0..2 {
        publisher.publish(Message::new("t", "m").qos(1));
    }
    assert_eq!(first.expect_publish().topic, "t");
    assert_eq!(first.expect_publish().topic, "");
    first.hang_up();
    let mut second = broker.connect(client());
    assert_eq!(second.expect_publish().topic, "t");
    assert_eq!(second.expect_publish().topic, "");
    let mut third = broker.connect(client().aliases(0));
    assert_eq!(third.expect_publish().topic, "t");
    assert_eq!(third.expect_publish().topic, "t");
}

/// [MQTT-3.1.2-29]: without problem information only CONNACK and DISCONNECT explain themselves.
#[test]
fn without_problem_information_there_are_no_reason_strings() {
    let broker = Broker::start();
    let deep = "deep/".repeat(40);
    for wanted in [true, false] {
        let client = Client { problem_information: wanted, ..Client::v5("c") };
        let mut client = broker.connect(client);
        let id = client.send_publish(Message::new("$not/ours", "m").qos(1));
        assert_eq!(client.expect_puback(id).reason_string.is_some(), wanted);
        let id = client.send_publish(Message::new("$not/ours", "m").qos(2));
        assert_eq!(client.expect_pubrec(id).reason_string.is_some(), wanted);
        client.send_pubrel(99);
        assert_eq!(client.expect_pubcomp(99).reason_string.is_some(), wanted);
        client.send_pubrec(99);
        assert_eq!(client.expect_pubrel(99).reason_string.is_some(), wanted);
        let id = client.send_subscribe(&[(&deep, options(0))], None);
        assert_eq!(client.expect_suback(id).reason_string.is_some(), wanted);
        client.send_bytes(&[0x00, 0]);
        assert!(client.expect_disconnect(0x81).is_some());
        let refused = broker.connect_refused(Client { problem_information: wanted, ..Client::v5("c").user_name("#") });
        assert!(refused.reason_string.is_some());
    }
}

/// 3.5.2.1: a refused QoS 2 message ends with its PUBREC in 5.0, and its identifier is free; in 3.1.1 it goes on.
#[test]
fn a_refused_qos_2_publish_ends_with_pubrec() {
    let broker = Broker::start_with(|config| config.limits.inflight = 1);
    let mut v5 = broker.connect(Client::v5("5"));
    for _ in 0..3 {
        assert_eq!(v5.publish(Message::new("$not/ours", "m").qos(2).id(9)), 0x87);
    }
    assert_eq!(v5.publish(Message::new("t", "m").qos(2).id(9)), 0x10);
    let mut v311 = broker.connect(Client::v311("4"));
    assert_eq!(v311.publish(Message::new("$not/ours", "m").qos(2).id(9)), 0);
}
