//! SUBSCRIBE and UNSUBSCRIBE (3.8 to 3.11) and topic filters (4.7).

use std::collections::BTreeMap;

use crate::harness::*;

/// [MQTT-4.7.1-2], [MQTT-4.7.1-3], [MQTT-4.7.3-3]: what each filter matches.
#[test]
fn wildcards_match_levels() {
    let topics = ["a", "a/b", "a/b/c", "a/b/c/d", "/a", "a/", "/", "b", "a//c", "A/b"];
    let filters: [(&str, &[&str]); 12] = [
        ("a", &["a"]),
        ("a/b", &["a/b"]),
        ("a/+", &["a/b", "a/"]),
        ("a/#", &["a", "a/b", "a/b/c", "a/b/c/d", "a/", "a//c"]),
        ("a/b/#", &["a/b", "a/b/c", "a/b/c/d"]),
        ("a/b/c/#", &["a/b/c", "a/b/c/d"]),
        ("+", &["a", "b"]),
        ("+/+", &["a/b", "/a", "a/", "/", "A/b"]),
        ("/+", &["/a", "/"]),
        ("+/b/#", &["a/b", "a/b/c", "a/b/c/d", "A/b"]),
        ("a/+/c", &["a/b/c", "a//c"]),
        ("#", &topics),
    ];
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        for (filter, matched) in filters {
            let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
            subscriber.subscribe(filter, 0);
            for topic in topics.iter() {
                publisher.send_publish(Message::new(topic, *topic));
            }
            publisher.ping();
            assert_eq!(subscriber.expect_payloads(matched.len()), matched, "{filter}");
            subscriber.expect_nothing();
        }
    });
}

/// [MQTT-4.7.2-1]: a filter that begins with a wildcard does not match a topic that begins with `$`.
#[test]
fn wildcards_leave_out_topics_of_the_server() {
    let broker = Broker::start_with(|config| config.sys.interval = Some(std::time::Duration::from_millis(100)));
    for version in VERSIONS {
        let mut client = broker.connect(Client::new(version, "c"));
        for filter in ["#", "+/#", "+/broker/#", "+/broker/version"] {
            client.subscribe(filter, 0);
        }
        client.expect_silence(std::time::Duration::from_millis(250));
        client.subscribe("$SYS/#", 0);
        let mut names = BTreeMap::new();
        while names.len() < 6 {
            let message = client.expect_message();
            assert!(message.qos == 0 && message.topic.starts_with("$SYS/broker/"), "{message:?}");
            names.insert(message.topic.clone(), message.text().to_owned());
        }
        assert_eq!(names["$SYS/broker/clients/connected"], "1");
        assert_eq!(names["$SYS/broker/version"], concat!("wigwag ", env!("CARGO_PKG_VERSION")));
        client.disconnect();
        broker.wait_for_connections(0);
    }
}

/// 4.7.2: topics that begin with `$` are the server's: publishing there is refused 0x87, in 3.1.1 dropped.
#[test]
fn clients_cannot_publish_to_topics_of_the_server() {
    let broker = Broker::start();
    let mut subscriber = broker.connect(Client::v5("s"));
    subscriber.subscribe("$SYS/#", 0);
    subscriber.subscribe("$other", 0);
    let mut v5 = broker.connect(Client::v5("5"));
    let mut v311 = broker.connect(Client::v311("4"));
    for topic in ["$SYS/broker/version", "$other", "$"] {
        for qos in 1..=2 {
            assert_eq!(v5.publish(Message::new(topic, "m").qos(qos).retain()), 0x87);
            assert_eq!(v311.publish(Message::new(topic, "m").qos(qos).retain()), 0);
        }
        v5.publish(Message::new(topic, "m"));
    }
    subscriber.expect_nothing();
    let refused = broker.connect_refused(Client::v5("w").will(Message::new("$SYS/will", "m")));
    assert_eq!(refused.reason, 0x87);
}

/// [MQTT-3.8.4-3]: a subscription to the same filter replaces the one before.
#[test]
fn a_subscription_to_the_same_filter_replaces_the_first() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        client.subscribe("t", 2);
        client.subscribe("t", 0);
        client.publish(Message::new("t", "m").qos(2));
        assert_eq!(client.expect_message().qos, 0);
        client.subscribe("t", 1);
        client.publish(Message::new("t", "m").qos(2));
        assert_eq!(client.expect_message().qos, 1);
        client.expect_nothing();
        assert_eq!(broker.running().held().subscriptions, 1);
    });
}

/// [MQTT-3.3.4-2]: whoever holds several matching filters gets one copy, at the highest QoS.
#[test]
fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        let mut other = broker.connect(Client::new(version, "o"));
        client.subscribe_all(&[("a/#", options(0)), ("a/+", options(2)), ("a/b", options(1))], None);
        other.subscribe_all(&[("#", options(0)), ("a/b", options(0))], None);
        for (qos, expected) in [(0, 0), (1, 1), (2, 2)] {
            client.publish(Message::new("a/b", "m").qos(qos));
            assert_eq!(client.expect_message().qos, expected);
            assert_eq!(other.expect_message().qos, 0);
        }
        client.expect_nothing();
        other.expect_nothing();
    });
}

/// [MQTT-3.3.4-3], [MQTT-3.3.4-4], [MQTT-3.3.4-5]: a copy names every subscription that it is for and that has an
/// identifier.
#[test]
fn copies_name_their_subscriptions() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut client = broker.connect(Client::v5("c").over(transport));
        client.subscribe_as("a/+", 1, 1);
        client.subscribe_as("a/#", 0, 268_435_455);
        client.subscribe_as("a/b", 2, 1);
        client.subscribe("+/b", 0);
        client.subscribe_as("z", 0, 5);
        let mut ids_of = |topic: &str| {
            client.publish(Message::new(topic, "m").qos(1));
            let mut ids = client.expect_message().subscription_ids;
            ids.sort_unstable();
            ids
        };
        assert_eq!(ids_of("a/b"), [1, 1, 268_435_455]);
        assert_eq!(ids_of("a/c"), [1, 268_435_455]);
        assert_eq!(ids_of("a"), [268_435_455]);
        assert_eq!(ids_of("z"), [5]);
        assert!(ids_of("b/b").is_empty());
        // A new subscription to the filter has a new identifier, or none [MQTT-3.8.4-3].
        client.subscribe_as("z", 0, 6);
        client.publish(Message::new("z", "m"));
        assert_eq!(client.expect_message().subscription_ids, [6]);
        client.subscribe("z", 0);
        client.publish(Message::new("z", "m"));
        assert!(client.expect_message().subscription_ids.is_empty());
        client.expect_nothing();
    }
}

/// Subscription identifiers belong to the session (4.1), with what waits in it.
#[test]
fn queued_and_retained_messages_name_their_subscription() {
    let broker = Broker::start();
    let client = || Client::kept(Version::V5, "s");
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("r", "retained").retain());
    let mut first = broker.connect(client());
    first.subscribe_as("r", 1, 3);
    assert_eq!(first.expect_message().subscription_ids, [3]);
    first.disconnect();
    broker.wait_for_connections(1);
    publisher.publish(Message::new("r", "queued").qos(1));
    let mut second = broker.connect(client());
    assert_eq!(second.expect_message().subscription_ids, [3]);
    publisher.publish(Message::new("r", "live").qos(1));
    assert_eq!(second.expect_message().subscription_ids, [3]);
}

/// 3.8.2.1.2: identifier 0 is a protocol error; [MQTT-3.3.4-6]: a client's PUBLISH has none.
#[test]
fn invalid_subscription_identifiers_end_the_connection() {
    let broker = Broker::start();
    let mut zero = broker.connect(Client::v5("c"));
    zero.send_bytes(&[0x82, 9, 0, 1, 2, 11, 0, 0, 1, b't', 0]);
    zero.expect_disconnect(0x82);
    let mut publish = broker.connect(Client::v5("c"));
    publish.send_bytes(&[0x30, 6, 0, 1, b't', 2, 11, 1]);
    publish.expect_disconnect(0x82);
}

/// [MQTT-3.8.3-3]: No Local keeps a client's own messages from it, in whatever way they match.
#[test]
fn no_local_leaves_out_ones_own_messages() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let no_local = SubscribeOptions { no_local: true, ..options(1) };
        let mut alice = broker.connect(Client::kept(Version::V5, "alice").over(transport));
        let mut bob = broker.connect(Client::v5("bob"));
        alice.subscribe("room/+", no_local);
        alice.subscribe("room/#", no_local);
        alice.publish(Message::new("room/1", "own").qos(1));
        alice.expect_nothing();
        bob.publish(Message::new("room/1", "bob's").qos(1));
        assert_eq!(alice.expect_message().text(), "bob's");
        alice.expect_nothing();
        // One subscription that wants it suffices, with its own QoS.
        alice.subscribe("#", 0);
        alice.publish(Message::new("room/1", "own").qos(1));
        assert_eq!(alice.expect_message().gist(), ("room/1", "own", 0, false));
        alice.unsubscribe(&["#"]);
        // It is the session that is meant, across its connections.
        alice.disconnect();
        let mut alice = broker.connect(Client::kept(Version::V5, "alice").over(transport));
        alice.publish(Message::new("room/1", "own").qos(1));
        alice.expect_nothing();
    }
}

/// [MQTT-3.8.3-3] knows no exception for what is retained.
#[test]
fn no_local_leaves_out_ones_own_retained_messages() {
    let broker = Broker::start();
    let no_local = SubscribeOptions { no_local: true, ..options(1) };
    let mut alice = broker.connect(Client::v5("alice"));
    let mut bob = broker.connect(Client::v5("bob"));
    alice.publish(Message::new("room/alice", "own").retain().qos(1));
    bob.publish(Message::new("room/bob", "bob's").retain().qos(1));
    alice.subscribe("room/+", no_local);
    assert_eq!(alice.expect_message().text(), "bob's");
    alice.expect_nothing();
}

/// [MQTT-3.8.3-4]: No Local on a shared subscription is a protocol error.
#[test]
fn no_local_on_a_shared_subscription_ends_the_connection() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c"));
    client.send_bytes(&[&[0x82, 16, 0, 1, 0, 0, 10][..], b"$share/g/t", &[0x05]].concat());
    client.expect_disconnect(0x82);
}

/// [MQTT-3.3.1-12], [MQTT-3.3.1-13]: a live message has RETAIN 0, unless the subscription wants it as published.
#[test]
fn retain_as_published_keeps_the_flag() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut plain = broker.connect(Client::v5("plain").over(transport));
        let mut as_published = broker.connect(Client::v5("rap").over(transport));
        let mut old = broker.connect(Client::v311("old").over(transport));
        plain.subscribe("t", 1);
        old.subscribe("t", 1);
        as_published.subscribe("t", SubscribeOptions { retain_as_published: true, ..options(1) });
        let mut publisher = broker.connect(Client::v5("p"));
        for (message, flag) in [(Message::new("t", "m"), false), (Message::new("t", "r").retain(), true)] {
            publisher.publish(message);
            assert!(!plain.expect_message().retain);
            assert!(!old.expect_message().retain, "[MQTT-3.3.1-9] of 3.1.1");
            assert_eq!(as_published.expect_message().retain, flag);
        }
        // Clearing is a live message like another.
        publisher.publish(Message::new("t", "").retain());
        assert!(as_published.expect_message().retain && !plain.expect_message().retain);
    }
}

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]
#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        broker.connect(Client::v5("p")).publish(Message::new("t", "kept").retain());
        let handled = |retain_handling| SubscribeOptions { retain_handling, ..options(0) };
        let mut client = broker.connect(Client::kept(Version::V5, "c").over(transport));
        client.subscribe("t", handled(RetainHandling::DoNotSend));
        client.expect_nothing();
        for _ in 0..2 {
            client.subscribe("t", handled(RetainHandling::SendAtSubscribe));
            assert_eq!(client.expect_message().gist(), ("t", "kept", 0, true));
        }
        client.subscribe("t", handled(RetainHandling::SendIfNew));
        client.expect_nothing();
        client.unsubscribe(&["t"]);
        client.subscribe("t", handled(RetainHandling::SendIfNew));
        assert_eq!(client.expect_message().gist(), ("t", "kept", 0, true));
        // A subscription of a resumed session is not new.
        client.disconnect();
        let mut client = broker.connect(Client::kept(Version::V5, "c").over(transport));
        assert!(client.present());
        client.subscribe("t", handled(RetainHandling::SendIfNew));
        client.expect_nothing();
        // Another filter is.
        client.subscribe("+", handled(RetainHandling::SendIfNew));
        assert_eq!(client.expect_message().text(), "kept");
        client.expect_nothing();
    }
}

/// [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-5], [MQTT-3.8.4-6], [MQTT-3.9.3-1]: one SUBACK, a code for each filter
/// in order; a refused filter refuses no other; [MQTT-3.9.3-2]: in 3.1.1 every failure is 0x80.
#[test]
fn each_filter_has_its_code_in_the_suback() {
    for (version, too_deep, too_many) in [(Version::V311, 0x80, 0x80), (Version::V5, 0x8F, 0x97)] {
        let broker = Broker::start_with(|config| {
            config.limits.topic_levels = 3;
            config.limits.subscriptions = 4;
        });
        let mut client = broker.connect(Client::new(version, "c"));
        let filters = [("a", options(0)), ("b/+/+", options(2)), ("c/d/e/f", options(1)), ("g", options(1))];
        assert_eq!(client.subscribe_all(&filters, None), [0, 2, too_deep, 1]);
        let filters = [("h", options(1)), ("i", options(1)), ("a", options(2))];
        assert_eq!(client.subscribe_all(&filters, None), [1, too_many, 2]);
        client.unsubscribe(&["a"]);
        assert_eq!(client.subscribe("i", 0), 0, "there is room again");
        assert_eq!(client.publish(Message::new("a/b/c/d", "too deep").qos(1)), if too_deep == 0x80 { 0 } else { 0x90 });
    }
}

/// `limits.topic_length`: of a filter, and of a share's name, which is kept as long as the filter is.
#[test]
fn filters_are_bounded() {
    let broker = Broker::start_with(|config| config.limits.topic_length = 20);
    let mut client = broker.connect(Client::v5("c"));
    for (filter, code) in [
        ("x".repeat(20), 0),
        ("x".repeat(21), 0x8F),
        (format!("$share/{}/{}", "g".repeat(20), "x".repeat(20)), 0),
        (format!("$share/g/{}", "x".repeat(21)), 0x8F),
        (format!("$share/{}/x", "g".repeat(21)), 0x8F),
    ] {
        assert_eq!(client.subscribe(&filter, 0), code, "{filter}");
    }
}

/// The SUBACK comes before the retained messages that the subscription brings, and before live ones.
#[test]
fn suback_comes_before_what_it_brings() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut publisher = broker.connect(Client::new(version, "p"));
        for n in 0..5 {
            publisher.publish(Message::new(&format!("r/{n}"), "m").retain());
        }
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    publisher.publish(Message::new("r/0", "m").qos(1));
                }
            });
            for _ in 0..20 {
                let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
                let id = subscriber.send_subscribe(&[("r/+", options(0))], None);
                let first = subscriber.receive();
                let Packet::SubAck(suback) = first.packet() else { panic!("before the SUBACK: {first:?}") };
                assert_eq!(suback.packet_id.get(), id);
                subscriber.expect_message();
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

/// [MQTT-3.8.3-3] of 3.1.1, [MQTT-3.8.3-2], [MQTT-3.8.3-5], [MQTT-4.7.1-1], [MQTT-4.7.3-1], [MQTT-4.8.2-1]: what is no
/// subscription ends the connection.
#[test]
fn invalid_subscriptions_end_the_connection() {
    let broker = Broker::start();
    let filters: [&[u8]; 8] = [b"", b"a/#/b", b"a#", b"a+/b", b"+a", b"$share/g", b"$share//t", b"$share/g+/t"];
    for version in VERSIONS {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let subscribe = |filter: &[u8], options: u8| {
            let body = [&[0, 1], properties, &[0, filter.len() as u8], filter, &[options]].concat();
            [&[0x82, body.len() as u8], &body[..]].concat()
        };
        for filter in filters {
            // To 3.1.1 a share is a topic like another.
            if version == Version::V311 && filter.starts_with(b"$share") {
                continue;
            }
            let mut client = broker.connect(Client::new(version, "c"));
            client.send_bytes(&subscribe(filter, 0));
            if version == Version::V5 {
                assert!(matches!(client.receive().packet(), Packet::Disconnect(_)), "{filter:?}");
            }
            client.expect_closed();
        }
        for options in [0x03, 0x30, 0x40, 0x80] {
            let mut client = broker.connect(Client::new(version, "c"));
            client.send_bytes(&subscribe(b"t", options));
            if version == Version::V5 {
                assert!(matches!(client.receive().packet(), Packet::Disconnect(_)), "{options:02X}");
            }
            client.expect_closed();
        }
        let empty = [&[0x82, 2 + properties.len() as u8, 0, 1], properties].concat();
        let mut client = broker.connect(Client::new(version, "c"));
        client.send_bytes(&empty);
        client.expect_disconnect(0x82);
    }
}

/// [MQTT-3.10.4-1], [MQTT-3.10.4-2], [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.11.3-1], [MQTT-3.10.4-6]
#[test]
fn unsubscribe_ends_exactly_the_subscriptions_named() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        client.subscribe_all(&[("a", options(1)), ("a/+", options(1)), ("#", options(0))], None);
        let codes = client.unsubscribe(&["a", "a/b", "#", "a"]);
        match version {
            Version::V5 => assert_eq!(codes, [0x00, 0x11, 0x00, 0x11]),
            Version::V311 => assert!(codes.is_empty()),
        }
        client.publish(Message::new("a", "m").qos(1));
        client.publish(Message::new("a/b", "m").qos(1));
        assert_eq!(client.expect_message().topic, "a/b");
        client.expect_nothing();
    });
}

/// [MQTT-3.10.4-3]: a delivery that has begun is completed.
#[test]
fn unsubscribe_does_not_break_off_a_delivery() {
    for version in VERSIONS {
        let broker = Broker::start();
        let mut client = broker.connect(Client::kept(version, "c"));
        client.subscribe("t", 2);
        broker.connect(Client::v5("p")).publish(Message::new("t", "m").qos(2));
        let message = client.expect_publish();
        client.unsubscribe(&["t"]);
        client.send_pubrec(message.id);
        client.expect_pubrel(message.id);
        client.hang_up();
        let mut client = broker.connect(Client::kept(version, "c"));
        client.expect_pubrel_next(message.id);
        client.send_pubcomp(message.id);
        client.expect_nothing();
    }
}
