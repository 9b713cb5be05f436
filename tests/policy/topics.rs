//! The shipped topics, attacked: read, written, left as a will and retained by who may not.

use serde_json::json;

use crate::{harness::*, people::*};

fn subscriptions_are_refused(filters: &[&str]) {
    let (broker, mut bob) = with_bob();
    for version in VERSIONS {
        let mut alice = member(&broker, version, "alice");
        for filter in filters {
            let before = refused(&broker, "subscribe", "not authorized");
            assert_eq!(alice.subscribe(filter, 1), no(version), "{filter}");
            let told = alice.expect_message();
            assert_eq!(line(&told)["topic"], *filter);
            assert_eq!((&line(&told)["action"], &line(&told)["code"]), (&json!("subscribe"), &json!(0x87)));
            assert_eq!(refused(&broker, "subscribe", "not authorized"), before + 1);
        }
        bob.publish(signal("rooms/demo/signal", "bob").qos(1));
        bob.expect_message();
        bob.publish(signal("rooms/demo/chat", "bob").qos(1));
        bob.expect_message();
        alice.expect_nothing();
        // What is its own it still gets.
        bob.publish(signal("rooms/demo/signal/alice", "bob").qos(1));
        assert_eq!(alice.expect_message().topic, "rooms/demo/signal/alice");
        alice.disconnect();
    }
}

#[test]
fn abuse_01_wildcards_without_the_role() {
    subscriptions_are_refused(&[
        "#",
        "+/+",
        "+/+/+",
        "rooms/#",
        "rooms/+/signal",
        "rooms/demo/#",
        "rooms/demo/+",
        "users/#",
    ]);
}

#[test]
fn abuse_02_shared_subscriptions_to_what_is_not_for_sharing() {
    subscriptions_are_refused(&[
        "$share/g/#",
        "$share/g/rooms/demo/signal",
        "$share/g/rooms/demo/chat",
        "$share/g/users/alice/inbox",
    ]);
}

#[test]
fn abuse_03_the_servers_own_topics() {
    subscriptions_are_refused(&[
        "$SYS/#",
        "$SYS/broker/clients/total",
        "$SYS/+/x",
        "$internal",
        "$queue/x",
        "$share/g/$SYS/#",
    ]);
}

#[test]
fn abuse_04_another_room() {
    subscriptions_are_refused(&[
        "rooms/secret/signal",
        "rooms/secret/signal/alice",
        "rooms/secret/presence/+",
        "rooms/secret/state/#",
        "rooms/demo/signal/bob",
    ]);
}

#[test]
fn abuse_05_each_filter_of_a_packet_has_its_own_code() {
    let (broker, mut bob) = with_bob();
    for version in VERSIONS {
        let mut alice = broker.connect(client(version, "alice", demo(&["join"])));
        let filters = ["rooms/demo/signal", "#", "rooms/demo/chat", "rooms/secret/chat", "users/alice/inbox"];
        let codes = alice.subscribe_all(&filters.map(|filter| (filter, options(1))), None);
        assert_eq!(codes, [1, no(version), 1, no(version), 1]);
        bob.publish(signal("rooms/demo/chat", "bob").qos(1));
        bob.expect_message();
        assert_eq!(alice.expect_message().topic, "rooms/demo/chat");
        alice.expect_nothing();
        alice.disconnect();
    }
}

#[test]
fn abuse_06_publishing_to_a_filter() {
    let (broker, mut bob) = with_bob();
    for version in VERSIONS {
        for topic in ["rooms/demo/#", "rooms/+/signal", "#", "+"] {
            let mut alice = broker.connect(client(version, "alice", demo(&["join"])));
            alice.send_publish(signal(topic, "alice").qos(1));
            alice.expect_disconnect(0x81); // [MQTT-3.3.2-2]
            bob.expect_nothing();
        }
    }
}

#[test]
fn abuse_07_publishing_to_a_forbidden_topic() {
    let (broker, mut bob) = with_bob();
    for version in VERSIONS {
        let mut alice = member(&broker, version, "alice");
        for topic in ["rooms/secret/signal", "users/bob/inbox", "users/bob/errors", "events/x", "$SYS/x", "anything"] {
            let before = refused(&broker, "publish", "not authorized");
            for qos in 0..=2 {
                let code = alice.publish(signal(topic, "alice").qos(qos));
                assert_eq!(code, if qos > 0 && version == Version::V5 { 0x87 } else { 0 }, "{topic} {version:?}");
                let told = line(&alice.expect_message());
                assert_eq!(
                    (&told["topic"], &told["action"], &told["code"]),
                    (&json!(topic), &json!("publish"), &json!(0x87))
                );
            }
            assert_eq!(refused(&broker, "publish", "not authorized"), before + 3);
        }
        bob.expect_nothing();
        alice.disconnect();
    }
    // An alias stands for its topic, allowed or not.
    let mut alice = member(&broker, Version::V5, "alice");
    assert_eq!(alice.publish(signal("rooms/secret/chat", "alice").qos(1).alias(1)), 0x87);
    assert_eq!(alice.publish(signal("", "alice").qos(1).alias(1)), 0x87);
    assert_eq!(alice.publish(signal("rooms/demo/chat", "alice").qos(1).alias(1)), 0);
    assert_eq!(bob.expect_message().topic, "rooms/demo/chat");
}

/// Whoever answers may have more rights than who asks.
#[test]
fn abuse_07_a_response_topic_that_is_forbidden() {
    let (broker, mut bob) = with_bob();
    let mut alice = member(&broker, Version::V5, "alice");
    let ask = |topic: &str| signal("rooms/demo/signal/bob", "alice").qos(1).response_topic(topic);
    for topic in ["users/bob/inbox", "rooms/secret/chat", "events/x", "$SYS/x", "users/bob/errors", "app/x"] {
        assert_eq!(alice.publish(ask(topic)), 0x87, "{topic}");
        assert_eq!(line(&alice.expect_message())["topic"], "rooms/demo/signal/bob");
        let will = client(Version::V5, "carol", demo(&["join"]));
        let will = will.will(signal("rooms/demo/chat", "carol").response_topic(topic));
        assert_eq!(broker.connect_refused(will).reason, 0x87);
    }
    bob.expect_nothing();
    for topic in ["users/alice/inbox", "rooms/demo/signal/alice", "rooms/demo/signal/bob", "rooms/demo/chat"] {
        assert_eq!(alice.publish(ask(topic)), 0, "{topic}");
        assert_eq!(bob.expect_message().response_topic.as_deref(), Some(topic));
    }
}

#[test]
fn abuse_08_will_on_a_forbidden_topic() {
    let (broker, mut bob) = with_bob();
    for version in VERSIONS {
        for topic in ["rooms/secret/chat", "users/bob/inbox", "app/x", "events/x", "rooms/demo/presence/alice"] {
            let alice = client(version, "alice", demo(&["join"])).will(signal(topic, "alice").qos(1));
            assert_eq!(broker.connect_refused(alice).reason, connack_code(version, 0x87), "{topic}");
        }
        let spoofed = client(version, "alice", demo(&["join"])).will(signal("rooms/demo/chat", "bob"));
        assert_eq!(broker.connect_refused(spoofed).reason, connack_code(version, 0x87));
        let untagged = client(version, "alice", demo(&["join"])).will(Message::new("rooms/demo/signal", "{}"));
        assert_eq!(broker.connect_refused(untagged).reason, connack_code(version, 0x99));
        let retained = client(version, "alice", demo(&["join"])).will(signal("rooms/demo/chat", "alice").retain());
        assert_eq!(broker.connect_refused(retained).reason, connack_code(version, 0x9A));
    }
    bob.expect_nothing();
}

/// Who left it may not say it any more when it is due.
#[test]
fn abuse_08_will_that_is_forbidden_by_the_time_it_fires() {
    let broker = tokens();
    let mut eve = broker.connect(client(Version::V5, "eve", json!({ "subscribe": ["app/#"] })));
    assert_eq!(eve.subscribe("app/#", 1), 1);
    let grants = || json!({ "publish": ["app/alice/#"] });
    let will = || signal("app/alice/gone", "alice").qos(1);

    let kept = broker.connect(refreshing("alice", grants()).will(will()));
    kept.hang_up();
    assert_eq!(eve.expect_message().topic, "app/alice/gone", "as long as it is allowed");

    let mut fewer = broker.connect(refreshing("alice", grants()).will(will()));
    refresh(&mut fewer, &token("alice", json!({ "publish": ["app/other"] })));
    fewer.hang_up();
    broker.wait_for_metric("wigwag_refused_total{action=\"will\",reason=\"not authorized\"}", 1);

    let mut more = broker.connect(refreshing("alice", grants()).will(will()));
    refresh(&mut more, &token("alice", json!({ "publish": ["app/#"] })));
    more.hang_up();
    assert_eq!(eve.expect_message().topic, "app/alice/gone");

    let ruled_out = broker.connect(client(Version::V5, "alice", grants()).will(will()));
    let mut config = Config::default();
    with_tokens(&mut config);
    config.topics.0.retain(|row| &*row.name != "app");
    broker.running().apply(&config);
    ruled_out.hang_up();
    broker.wait_for_metric("wigwag_refused_total{action=\"will\",reason=\"not authorized\"}", 2);
}

#[test]
fn abuse_09_the_will_of_a_failed_login() {
    let (broker, mut bob) = with_bob();
    for version in VERSIONS {
        let will = || signal("rooms/demo/chat", "alice").qos(1);
        let bad =
            with_token(version, "alice", &signed("another HMAC secret of over 32 bytes", "alice", demo(&["join"])));
        assert_eq!(broker.connect_refused(bad.will(will())).reason, connack_code(version, 0x86));
        let somebody_elses = with_token(version, "carol", &token("alice", demo(&["join"]))).will(will());
        assert_eq!(broker.connect_refused(somebody_elses).reason, connack_code(version, 0x87));
    }
    broker.wait_for_connections(1);
    bob.expect_nothing();
}

#[test]
fn abuse_10_retaining_where_nothing_is_retained() {
    let (broker, mut bob) = with_bob();
    for version in VERSIONS {
        let mut alice = member(&broker, version, "alice");
        let before = broker.running().held().retained;
        for topic in ["rooms/demo/signal", "rooms/demo/signal/bob", "rooms/demo/chat"] {
            for payload in [signal(topic, "alice"), Message::new(topic, "")] {
                let code = alice.publish(payload.qos(1).retain());
                assert_eq!(code, if version == Version::V5 { 0x87 } else { 0 });
                assert_eq!(line(&alice.expect_message())["code"], 0x87);
            }
        }
        assert_eq!(broker.running().held().retained, before);
        alice.disconnect();
    }
    bob.expect_nothing();
}

/// The shared state of one room is bounded, and is gone with it.
#[test]
fn abuse_10_retaining_more_than_a_room_may() {
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        let state = config.topics.0.iter_mut().find(|row| &*row.name == "state").expect("a row");
        state.retain_per_room = Some(2);
    });
    let mut alice = broker.connect(client(Version::V5, "alice", demo(&["join"])));
    assert_eq!(alice.subscribe("rooms/demo/signal", 1), 1);
    let set = |alice: &mut Connection, topic: &str| alice.publish(Message::new(topic, "x").qos(1).retain());
    assert!(
        [set(&mut alice, "rooms/demo/state/a"), set(&mut alice, "rooms/demo/state/b")].iter().all(|code| *code < 0x80)
    );
    assert_eq!(set(&mut alice, "rooms/demo/state/c"), 0x97);
    assert!(set(&mut alice, "rooms/demo/state/b") < 0x80, "another in its place");
    assert!(alice.publish(Message::new("rooms/demo/state/a", "").qos(1).retain()) < 0x80);
    assert!(set(&mut alice, "rooms/demo/state/c") < 0x80);
    alice.disconnect();
    broker.wait_until("retained", |running| running.held().retained == 0);
}

#[test]
fn abuse_11_retained_messages_are_for_who_may_read_them_now() {
    let (broker, mut bob) = with_bob();
    assert!(bob.publish(Message::new("rooms/demo/state/board", "secret").qos(1).retain()) < 0x80);
    for version in VERSIONS {
        let kept = |grants| Client { clean: false, expiry: 60, ..client(version, "alice", grants) };
        let mut alice = broker.connect(kept(demo(&["join"])));
        assert_eq!(alice.subscribe("rooms/demo/state/#", 1), 1);
        assert_eq!(alice.expect_message().text(), "secret");
        alice.disconnect();
        let mut alice = broker.connect(kept(json!({})));
        assert!(alice.present());
        assert_eq!(alice.subscribe("rooms/demo/state/#", 1), no(version));
        assert_eq!(alice.subscribe("rooms/demo/state/board", 1), no(version));
        assert!(bob.publish(Message::new("rooms/demo/state/board", "secret").qos(1).retain()) < 0x80);
        alice.expect_nothing();
        alice.disconnect();
        broker.connect(Client { clean: true, expiry: 0, ..kept(json!({})) }).disconnect();
    }
}

#[test]
fn abuse_15_a_session_resumed_with_fewer_rights() {
    for version in VERSIONS {
        let (broker, mut bob) = with_bob();
        let kept = |rooms| Client { clean: false, expiry: 60, ..client(version, "alice", json!({ "rooms": rooms })) };
        let mut alice = broker.connect(kept(json!({ "demo": ["join"], "else": ["listen"] })));
        let topics =
            ["rooms/demo/chat", "rooms/demo/state/#", "rooms/else/chat", "users/alice/errors", "users/alice/inbox"];
        assert_eq!(alice.subscribe_all(&topics.map(|topic| (topic, options(1))), None), [1, 1, 1, 0, 1]);
        alice.hang_up();
        broker.wait_for_connections(1);
        bob.publish(signal("rooms/demo/chat", "bob").qos(1));
        bob.expect_message();
        let root = broker.running().client("root").expect("a name");
        root.publish("users/alice/inbox", b"{}", QoS::AtLeastOnce).expect("allowed");

        let mut alice = broker.connect(kept(json!({ "else": ["listen"] })));
        assert!(alice.present());
        let (mut lines, mut queued) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let message = alice.expect_message();
            match message.topic.as_str() {
                "users/alice/errors" => lines.push(line(&message)["topic"].clone()),
                topic => queued.push(topic.to_owned()),
            }
        }
        assert_eq!(lines, ["rooms/demo/chat", "rooms/demo/state/#"]);
        assert_eq!(queued, ["users/alice/inbox"], "what was queued and may not be read any more is dropped");
        bob.publish(signal("rooms/demo/chat", "bob").qos(1));
        alice.expect_nothing();
        assert_eq!(broker.running().held().subscriptions, 3 + 3);
    }
}
