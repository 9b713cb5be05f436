//! Rights that change while somebody is connected: a token that runs out or is replaced, another topic table.

use std::{
    thread,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use wigwag::QoS;

use crate::{harness::*, people::*};

/// A broker that ends a connection as soon as its token has run out.
fn without_leeway() -> Broker {
    Broker::shipped_with(|config| {
        with_tokens(config);
        config.auth.token.leeway = Duration::ZERO;
    })
}

fn is_past(exp: u64) -> bool {
    SystemTime::now() >= SystemTime::UNIX_EPOCH + Duration::from_secs(exp)
}

#[test]
fn abuse_24_a_token_runs_out_while_connected() {
    let broker = without_leeway();
    let mut bob = broker.connect(client(Version::V5, "bob", demo(&["join"])));
    assert_eq!(bob.subscribe("rooms/demo/presence/+", 1), 1);
    let exp = seconds() + 3;
    let mut connected = Vec::new();
    for (n, version) in VERSIONS.into_iter().enumerate() {
        for (m, transport) in TRANSPORTS.into_iter().enumerate() {
            let name = format!("alice~{n}{m}");
            let claims = json!({ "exp": exp, "rooms": { "demo": ["join"] } });
            let mut alice = broker.connect(client(version, &name, claims).over(transport));
            assert_eq!(alice.subscribe(&format!("rooms/demo/signal/{name}"), 1), 1);
            bob.expect_message();
            // Less than a minute is left, so the notice comes as soon as somebody listens, and behind the SUBACK.
            let errors = format!("users/{name}/errors");
            assert_eq!(alice.subscribe(&errors, 1), 0);
            let notice = alice.expect_message();
            assert_eq!((&*notice.topic, line(&notice)), (&*errors, json!({ "reason": "token expires", "exp": exp })));
            connected.push(alice);
        }
    }
    for mut alice in connected {
        alice.expect_disconnect(0x87);
        assert!(is_past(exp), "too early");
    }
    // The place is kept for the grace, for somebody who comes back with a new token.
    bob.expect_nothing();
    let mut back = broker.connect(client(Version::V5, "alice~00", demo(&["join"])));
    assert_eq!(back.subscribe("rooms/demo/signal/alice~00", 1), 1);
    let changed = line(&bob.expect_message());
    assert_eq!((&changed["username"], &changed["status"]), (&json!("alice~00"), &json!("online")));
}

#[test]
fn abuse_24_the_notice_comes_a_minute_before_the_end() {
    let broker = tokens(); // five seconds of leeway
    let exp = seconds() + 63;
    let mut alice = broker.connect(client(Version::V5, "alice", json!({ "exp": exp })));
    assert_eq!(alice.subscribe("users/alice/errors", 0), 0);
    let notice = alice.expect_message();
    assert_eq!(line(&notice), json!({ "reason": "token expires", "exp": exp }));
    assert!(is_past(exp - 60), "not yet");
    assert!(!is_past(exp - 58) || is_past(exp - 55), "a minute before exp, not before the end of the leeway");
    alice.expect_nothing();
}

#[test]
fn a_token_is_refreshed_in_time() {
    let broker = without_leeway();
    for way in ["AUTH", "reconnect"] {
        let exp = seconds() + 2;
        let mut alice = refreshing("alice", json!({ "exp": exp, "rooms": { "demo": ["join"] } }));
        (alice.clean, alice.expiry) = (false, 60);
        let mut alice = broker.connect(alice);
        let own = ["rooms/demo/signal/alice", "rooms/demo/chat"].map(|topic| (topic, options(1)));
        assert_eq!(alice.subscribe_all(&own, None), [1, 1]);
        if way == "AUTH" {
            assert_eq!(refresh(&mut alice, &token("alice", demo(&["join"]))), []);
        } else {
            alice.hang_up();
            let next = Client { clean: false, expiry: 60, ..refreshing("alice", demo(&["join"])) };
            alice = broker.connect(next);
            assert!(alice.present());
        }
        while !is_past(exp) {
            thread::sleep(Duration::from_millis(100));
        }
        thread::sleep(Duration::from_millis(200)); // a deadline is met within less
        assert_eq!(alice.publish(signal("rooms/demo/signal/alice", "alice").qos(1)), 0);
        assert_eq!(alice.expect_message().topic, "rooms/demo/signal/alice");
        broker.connect(refreshing("alice", json!({}))).disconnect();
    }
}

#[test]
fn a_refresh_with_more_rights() {
    let broker = tokens();
    let mut eve = broker.connect(client(Version::V5, "eve", demo(&["listen"])));
    assert_eq!(eve.subscribe("rooms/demo/presence/+", 1), 1);
    let mut alice = broker.connect(refreshing("alice", demo(&["listen"])));
    assert_eq!(alice.subscribe("rooms/demo/signal", 1), 1);
    assert_eq!(alice.subscribe("app/news/x", 1), 0x87);
    assert_eq!(alice.publish(signal("rooms/demo/signal", "alice").qos(1)), 0x87);
    eve.expect_nothing();
    let more = json!({ "rooms": { "demo": ["join"] }, "subscribe": ["app/news/#"] });
    refresh(&mut alice, &token("alice", more));
    assert_eq!(line(&eve.expect_message())["username"], "alice", "who listens, and may join now, has joined");
    assert_eq!(alice.subscribe("app/news/x", 1), 1);
    assert_eq!(alice.publish(signal("rooms/demo/signal", "alice").qos(1)), 0);
    assert_eq!(alice.expect_message().topic, "rooms/demo/signal");
}

#[test]
fn abuse_26_a_refresh_with_fewer_rights() {
    let broker = tokens();
    let root = broker.running().client("root").expect("a name");
    let mut eve = broker.connect(client(Version::V5, "eve", demo(&["join"])));
    assert_eq!(eve.subscribe("rooms/demo/signal/eve", 1), 1);
    assert_eq!(eve.subscribe("rooms/demo/presence/+", 1), 1);
    eve.expect_message();
    let more = json!({ "rooms": { "demo": ["join"], "else": ["listen"] }, "subscribe": ["app/news/#", "app/more"] });
    // One message is on its way to it, and what comes behind that waits.
    let mut alice = broker.connect(refreshing("alice", more).receive_maximum(1));
    let own = ["rooms/demo/signal", "rooms/else/chat", "app/news/x", "app/more", "users/alice/errors"];
    assert_eq!(alice.subscribe_all(&own.map(|topic| (topic, options(1))), None), [1, 1, 1, 1, 0]);
    assert_eq!(line(&eve.expect_message())["username"], "alice");
    for topic in ["app/more", "app/news/x", "app/more", "app/news/x", "rooms/demo/signal"] {
        root.publish(topic, br#"{"username":"root"}"#, QoS::AtLeastOnce).expect("root may");
    }
    let first = alice.expect_publish();
    assert_eq!(first.topic, "app/more");

    let fewer = json!({ "rooms": { "demo": ["listen"], "else": ["listen"] }, "subscribe": ["app/more"] });
    refresh(&mut alice, &token("alice", fewer));
    alice.send_puback(first.id);
    let left = [alice.expect_message().topic, alice.expect_message().topic];
    assert_eq!(left, ["app/more", "rooms/demo/signal"], "what waited for a subscription that has ended is dropped");
    let told = line(&alice.expect_message());
    assert_eq!(
        (&told["topic"], &told["action"], &told["code"]),
        (&json!("app/news/x"), &json!("subscribe"), &json!(0x87))
    );
    root.publish("app/news/x", b"", QoS::AtLeastOnce).expect("root may");
    alice.expect_nothing();
    // It may listen and is no member any more.
    assert_eq!(eve.expect_message().payload, b"", "it has left the roster");
    assert_eq!(alice.publish(signal("rooms/demo/signal", "alice").qos(1)), 0x87);
    assert_eq!(alice.expect_message().topic, "users/alice/errors");
    eve.publish(signal("rooms/demo/signal", "eve").qos(1));
    assert_eq!(alice.expect_message().topic, "rooms/demo/signal");
    // Nothing of the room is left to it, and everything is gone with it.
    refresh(&mut alice, &token("alice", json!({})));
    let ended: Vec<_> = (0..3).map(|_| line(&alice.expect_message())["topic"].clone()).collect();
    assert_eq!(ended, ["app/more", "rooms/demo/signal", "rooms/else/chat"]);
    eve.publish(signal("rooms/demo/signal", "eve").qos(1));
    alice.expect_nothing();
}

/// A filter that shows a part of what it matches goes on, and shows less.
#[test]
fn abuse_26_an_observer_sees_less_after_a_refresh() {
    let broker = tokens();
    let root = broker.running().client("root").expect("a name");
    let grants = |filters: &[&str]| json!({ "roles": ["observe"], "subscribe": filters });
    let mut olga = broker.connect(refreshing("olga", grants(&["app/#"])).receive_maximum(1));
    assert_eq!(olga.subscribe("#", 1), 1);
    for payload in ["1", "2", "3"] {
        root.publish("app/news", payload.as_bytes(), QoS::AtLeastOnce).expect("root may");
    }
    let first = olga.expect_publish();
    assert_eq!(refresh(&mut olga, &token("olga", grants(&[]))), []);
    olga.send_puback(first.id);
    root.publish("app/news", b"4", QoS::AtLeastOnce).expect("root may");
    olga.expect_nothing();
    refresh(&mut olga, &token("olga", grants(&["app/#"])));
    root.publish("app/news", b"5", QoS::AtLeastOnce).expect("root may");
    assert_eq!(olga.expect_message().text(), "5");
}

/// Nor does it get retained messages that it was still to get.
#[test]
fn abuse_26_an_observer_gets_less_of_what_is_retained() {
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        config.limits.queue_messages = 16;
    });
    let root = broker.running().client("root").expect("a name");
    for n in 0..50 {
        root.publish_retained(&format!("app/{n}"), b"x", QoS::AtLeastOnce).expect("root may");
    }
    let grants = |filters: &[&str]| json!({ "roles": ["observe"], "subscribe": filters });
    let mut olga = broker.connect(refreshing("olga", grants(&["app/#"])).receive_maximum(1));
    let id = olga.send_subscribe(&[("#", options(1))], None);
    olga.expect_suback(id);
    let first = olga.expect_publish();
    assert_eq!(refresh(&mut olga, &token("olga", grants(&[]))), []);
    olga.send_puback(first.id);
    olga.expect_nothing();
    olga.expect_silence(Duration::from_millis(100));
}

#[test]
fn abuse_26_a_refresh_that_is_none() {
    let broker = tokens();
    let bad = [
        token("bob", demo(&["join"])),
        token("alice~phone", demo(&["join"])),
        signed("another HMAC secret of over 32 bytes", "alice", demo(&["join"])),
        token("alice", json!({ "exp": seconds() - 100 })),
        "x".into(),
        String::new(),
    ];
    for token in bad {
        let mut alice = broker.connect(refreshing("alice", demo(&["join"])));
        send_refresh(&mut alice, &token);
        alice.expect_disconnect(0x87);
    }
    // Who did not say at CONNECT that it would [MQTT-4.12.0-6].
    let mut alice = broker.connect(client(Version::V5, "alice", demo(&["join"])));
    send_refresh(&mut alice, &token("alice", demo(&["join"])));
    alice.expect_disconnect(0x82);
    let unknown = Client::v5("alice").authentication_method("SCRAM-SHA-1").authentication_data(b"x");
    assert_eq!(broker.connect_refused(unknown).reason, 0x8C);
}

/// A configuration with tokens whose table has been changed.
fn changed(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    with_tokens(&mut config);
    change(&mut config);
    config
}

#[test]
fn another_table_while_connected() {
    for version in VERSIONS {
        let broker = tokens();
        let root = broker.running().client("root").expect("a name");
        let mut eve = broker.connect(client(Version::V5, "eve", json!({ "roles": ["service"] })));
        assert_eq!(eve.subscribe("events/#", 1), 1);
        let mut alice = broker.connect(client(version, "alice", demo(&["join"])));
        let own = ["rooms/demo/signal", "rooms/demo/chat", "users/alice/errors", "users/alice/inbox"];
        assert_eq!(alice.subscribe_all(&own.map(|topic| (topic, options(1))), None), [1, 1, 0, 1]);
        let kept = Client { id: "kept".into(), clean: false, expiry: 60, ..client(version, "bob", demo(&["join"])) };
        let mut bob = broker.connect(kept.clone());
        let own = ["rooms/demo/chat", "users/bob/inbox"].map(|topic| (topic, options(1)));
        assert_eq!(bob.subscribe_all(&own, None), [1, 1]);
        bob.hang_up();
        broker.wait_until("bob waits", |running| running.connections() == 2);
        root.publish("rooms/demo/chat", br#"{"n":1}"#, QoS::AtLeastOnce).expect("root may");
        assert_eq!(alice.expect_message().topic, "rooms/demo/chat");
        while eve.next(Duration::from_millis(50)).is_ok() {}

        let no_chat = changed(|config| config.topics.0.retain(|row| &*row.name != "chat"));
        broker.running().apply(&no_chat);
        let told = line(&alice.expect_message());
        let expected =
            json!({ "topic": "rooms/demo/chat", "action": "subscribe", "code": 0x87, "reason": told["reason"] });
        assert_eq!(told, expected);
        assert!(matches!(&told["reason"], Value::String(reason) if !reason.is_empty()));
        let service = broker.running().client("service").expect("a name");
        assert!(service.publish("rooms/demo/chat", b"{}", QoS::AtLeastOnce).is_err());
        alice.expect_nothing();
        assert_eq!(alice.publish(signal("rooms/demo/signal", "alice").qos(1)), 0, "the rest goes on");
        assert_eq!(alice.expect_message().topic, "rooms/demo/signal");
        // What waited for who is not connected is gone, too, and so is its subscription.
        root.publish("users/bob/inbox", b"{}", QoS::AtLeastOnce).expect("root may");
        let mut bob = broker.connect(kept);
        assert!(bob.present());
        assert_eq!(bob.expect_message().topic, "users/bob/inbox");
        bob.expect_nothing();

        // Nobody may join any more: who has, leaves.
        let nobody = changed(|config| {
            config.topics.0.iter_mut().filter(|row| row.joins).for_each(|row| row.joins = false);
        });
        broker.running().apply(&nobody);
        broker.wait_until("nobody is in the room", |running| running.held().members == 0);
        assert_eq!(eve.expect_message().topic, "events/member/left");
        let code = alice.publish(signal("rooms/demo/signal", "alice").qos(1));
        assert_eq!(code, if version == Version::V5 { 0x87 } else { 0 });

        // And back: what had been pruned is asked for again, who listens has joined.
        broker.running().apply(&changed(|_| {}));
        broker.wait_until("alice is back", |running| running.held().members == 1);
        assert_eq!(alice.subscribe("rooms/demo/chat", 1), 1);
    }
}

#[test]
fn a_roster_goes_where_the_table_has_it() {
    let broker = tokens();
    let mut observer = broker.connect(client(Version::V5, "eve", json!({ "roles": ["observe"] })));
    let mut alice = broker.connect(client(Version::V5, "alice", demo(&["join"])));
    assert_eq!(alice.subscribe("rooms/demo/signal", 1), 1);
    let moved = changed(|config| {
        let row = config.topics.0.iter_mut().find(|row| row.name == "presence").expect("a row");
        row.filter = wigwag::config::Pattern::parse("rooms/{room}/who/{user}").expect("a pattern");
    });
    let retained = |observer: &mut Connection| {
        assert_eq!(observer.subscribe("rooms/#", 1), 1);
        let first = observer.expect_message();
        observer.expect_nothing();
        assert_eq!(observer.unsubscribe(&["rooms/#"]), [0]);
        first.topic
    };
    assert_eq!(retained(&mut observer), "rooms/demo/presence/alice");
    broker.running().apply(&moved);
    assert_eq!(retained(&mut observer), "rooms/demo/who/alice", "there, and nowhere else");
    broker.running().apply(&changed(|_| {}));
    assert_eq!(retained(&mut observer), "rooms/demo/presence/alice");
    drop(alice);
    broker.wait_for_connections(1);
}

/// In this process, too.
#[test]
fn another_table_for_a_client_inside() {
    let broker = tokens();
    let mut inside = broker.running().client("inside").expect("a name");
    inside.subscribe("app/#", QoS::AtLeastOnce).expect("it may");
    inside.subscribe("users/inside/errors", QoS::AtMostOnce).expect("it may");
    broker.running().apply(&changed(|config| config.topics.0.retain(|row| &*row.name != "app")));
    let told = taken(&mut inside);
    assert_eq!(told.iter().map(wigwag::Received::topic).collect::<Vec<_>>(), ["users/inside/errors"]);
    assert!(inside.publish("app/x", b"", QoS::AtMostOnce).is_err());
    assert!(!inside.unsubscribe("app/#"));
}
