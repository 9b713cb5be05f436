//! Retained messages (3.3.1.3).

use std::time::Duration;

use crate::harness::*;

/// [MQTT-3.3.1-5], [MQTT-3.3.1-9], [MQTT-3.3.1-6]: set, replaced, cleared; whoever subscribes later gets the last one,
/// with RETAIN 1 and at the lower of both QoS.
#[test]
fn retained_messages_are_set_replaced_and_cleared() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        let late = |qos| {
            let mut late = broker.connect(Client::new(version, "late").over(transport));
            late.subscribe("t", qos);
            late
        };
        late(0).expect_nothing();
        publisher.publish(Message::new("t", "first").retain().qos(2));
        for qos in 0..=2 {
            let mut late = late(qos);
            assert_eq!(late.expect_message().gist(), ("t", "first", qos, true));
            late.expect_nothing();
        }
        publisher.publish(Message::new("t", "second").retain().qos(1));
        assert_eq!(late(2).expect_message().gist(), ("t", "second", 1, true));
        // [MQTT-3.3.1-8]: what is not retained changes nothing.
        publisher.publish(Message::new("t", "live").qos(1));
        publisher.publish(Message::new("t", "").qos(1));
        assert_eq!(late(2).expect_message().gist(), ("t", "second", 1, true));
        // QoS 0 is retained as well.
        publisher.publish(Message::new("t", "third").retain());
        assert_eq!(late(2).expect_message().gist(), ("t", "third", 0, true));
        publisher.publish(Message::new("t", "").retain().qos(1));
        late(2).expect_nothing();
        publisher.publish(Message::new("t", "").retain());
        assert_eq!(broker.running().held().retained_nodes, 0);
    });
}

/// [MQTT-3.3.1-6], [MQTT-3.3.1-7], [MQTT-3.3.1-12]: those who are subscribed already get the message as a live one,
/// an empty one too.
#[test]
fn subscribers_see_retained_messages_live() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
        subscriber.subscribe("t", 1);
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        for payload in ["m", ""] {
            publisher.publish(Message::new("t", payload).retain().qos(1));
            assert_eq!(subscriber.expect_message().gist(), ("t", payload, 1, false));
        }
        subscriber.expect_nothing();
    });
}

/// A filter with wildcards brings the message of every topic that it matches [MQTT-3.3.1-9].
#[test]
fn wildcards_bring_every_retained_message_they_match() {
    let topics = ["a", "a/b", "a/b/c", "b/b", "c", "/", "x/y/z/w"];
    let broker = Broker::start();
    let mut publisher = broker.connect(Client::v5("p"));
    for topic in topics.iter() {
        publisher.publish(Message::new(topic, *topic).retain());
    }
    let cases: [(&str, &[&str]); 7] = [
        ("#", &["/", "a", "a/b", "a/b/c", "b/b", "c", "x/y/z/w"]),
        ("+", &["a", "c"]),
        ("+/b", &["a/b", "b/b"]),
        ("a/#", &["a", "a/b", "a/b/c"]),
        ("a/b/#", &["a/b", "a/b/c"]),
        ("x/y/+/w", &["x/y/z/w"]),
        ("nothing/#", &[]),
    ];
    for version in VERSIONS {
        for (filter, expected) in cases {
            let mut client = broker.connect(Client::new(version, "c"));
            client.subscribe(filter, 0);
            let mut seen: Vec<_> = expected
                .iter()
                .map(|_| {
                    let message = client.expect_message();
                    assert!(message.retain && message.text() == message.topic);
                    message.topic
                })
                .collect();
            seen.sort();
            assert_eq!(seen, expected, "{filter}");
            client.expect_nothing();
        }
    }
}

/// [MQTT-3.8.4-4]: subscribing again sends them again, and loses nothing.
#[test]
fn subscribing_again_sends_retained_messages_again() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        client.publish(Message::new("t", "kept").retain());
        for _ in 0..3 {
            client.subscribe("t", 0);
            assert_eq!(client.expect_message().gist(), ("t", "kept", 0, true));
        }
        client.expect_nothing();
    });
}

/// [MQTT-3.3.2-5] and 3.3.2.3.3: a retained message runs out; one that replaced it does not run out with it.
#[test]
fn retained_messages_expire() {
    let broker = Broker::start();
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("gone", "m").retain().expiry(1));
    publisher.publish(Message::new("replaced", "old").retain().expiry(1));
    publisher.publish(Message::new("replaced", "new").retain());
    publisher.publish(Message::new("longer", "m").retain().expiry(100));
    assert_eq!(broker.running().held().retained, 3);
    broker.wait_until("expired", |running| running.held().retained == 2);
    let mut late = broker.connect(Client::v311("late"));
    late.subscribe("gone", 0);
    late.expect_nothing();
    late.subscribe("replaced", 0);
    assert_eq!(late.expect_message().text(), "new");
    late.subscribe("longer", 0);
    assert_eq!(late.expect_message().text(), "m");
    publisher.publish(Message::new("longer", "").retain());
    publisher.publish(Message::new("replaced", "").retain());
    late.hang_up();
    publisher.hang_up();
    broker.wait_for_sessions(0);
    assert_eq!(broker.running().held(), Default::default());
}

/// Retained messages belong to nobody's session (4.1): they stay when their publisher goes.
#[test]
fn retained_messages_outlive_their_publisher() {
    let broker = Broker::start();
    broker.connect(Client::v311("p")).publish(Message::new("t", "kept").retain().qos(1));
    broker.wait_for_sessions(0);
    let mut late = broker.connect(Client::v5("late"));
    late.subscribe("t", 1);
    assert_eq!(late.expect_message().gist(), ("t", "kept", 1, true));
}

/// `limits.retained_messages` and `limits.retained_bytes`: beyond them a retained publish is refused 0x97; replacing
/// and clearing stay possible.
#[test]
fn retained_messages_are_bounded() {
    let broker = Broker::start_with(|config| {
        config.limits.retained_messages = 2;
        config.limits.retained_bytes = 128; // of which each message's sender takes 14
    });
    let mut client = broker.connect(Client::v5("c"));
    let mut set = |topic: &str, payload: &[u8]| client.publish(Message::new(topic, payload).retain().qos(1));
    assert_eq!(set("a", b"m"), 0x10);
    assert_eq!(set("b", b"m"), 0x10);
    assert_eq!(set("c", b"m"), 0x97);
    assert_eq!(set("b", &[b'x'; 97]), 0x10);
    assert_eq!(set("b", &[b'x'; 98]), 0x97);
    assert_eq!(set("a", b""), 0x10);
    assert_eq!(set("c", b""), 0x10);
    assert_eq!(set("c", b"mm"), 0x97, "there is no room for that many bytes");
    assert_eq!(set("b", b"m"), 0x10);
    assert_eq!(set("c", b"m"), 0x10);
}

/// A retained message that reaches a session which is away waits there like any other (4.1).
#[test]
fn retained_messages_are_queued_as_live_ones() {
    for version in VERSIONS {
        let broker = Broker::start();
        let client = || Client::kept(version, "s");
        let mut first = broker.connect(client());
        first.subscribe("t", 1);
        first.disconnect();
        broker.connect(Client::v5("p")).publish(Message::new("t", "m").retain().qos(1));
        let mut second = broker.connect(client());
        assert_eq!(second.expect_message().gist(), ("t", "m", 1, false));
        second.expect_nothing();
        second.expect_silence(Duration::from_millis(50));
    }
}

/// [MQTT-3.3.1-9]: a filter brings all that it matches, more than `limits.queue_messages` too, and live messages behind
/// that; nobody is disconnected for subscribing.
#[test]
fn a_filter_may_match_more_retained_messages_than_a_queue_holds() {
    const COUNT: usize = 500;
    let broker = Broker::start_with(|config| config.limits.queue_messages = 10);
    let mut publisher = broker.connect(Client::v5("p"));
    for n in 0..COUNT {
        publisher.publish(Message::new(&format!("r/{n}"), "m").retain().qos(2));
    }
    for version in VERSIONS {
        for qos in 0..=2 {
            let mut late = broker.connect(Client::new(version, "late").over(Transport::WebSocket));
            late.subscribe("r/#", qos);
            for _ in 0..5 {
                publisher.publish(Message::new("r/live", "live").qos(qos));
            }
            let topics: std::collections::HashSet<_> = (0..COUNT).map(|_| late.expect_message().topic).collect();
            assert_eq!(topics.len(), COUNT);
            assert_eq!(late.expect_payloads(5), ["live"; 5]);
            late.expect_nothing();
        }
    }
}

/// [MQTT-3.1.2-4], [MQTT-3.3.1-9]: what a subscription has not brought yet goes on with the session, and live messages
/// that come meanwhile are behind it.
#[test]
fn a_session_that_comes_back_gets_the_rest_of_what_it_subscribed_to() {
    const COUNT: usize = 500;
    let broker = Broker::start_with(|config| config.limits.queue_messages = 40);
    let mut publisher = broker.connect(Client::v5("p"));
    for n in 0..COUNT {
        publisher.publish(Message::new(&format!("r/{n}"), "m").retain().qos(1));
    }
    for version in VERSIONS {
        let mut first = broker.connect(Client::kept(version, "s"));
        first.subscribe("r/#", 1);
        drop(first);
        broker.wait_for_connections(1);
        for _ in 0..5 {
            publisher.publish(Message::new("r/live", "live").qos(1));
        }
        let mut second = broker.connect(Client::kept(version, "s"));
        assert!(second.present());
        let topics: std::collections::HashSet<_> = (0..COUNT).map(|_| second.expect_message().topic).collect();
        assert_eq!(topics.len(), COUNT);
        assert_eq!(second.expect_payloads(5), ["live"; 5]);
        second.expect_nothing();
        second.disconnect();
        let last = broker.connect(Client::new(version, "s"));
        last.disconnect();
    }
}
