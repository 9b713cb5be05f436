//! Names, attacked: somebody else's in a roster, in a payload, as a client id; and what is no plain name.

use serde_json::json;

use crate::{harness::*, people::*};

#[test]
fn abuse_12_somebody_elses_presence() {
    let (broker, _bob) = with_bob();
    let mut eve = broker.connect(client(Version::V5, "eve", demo(&["listen"])));
    assert_eq!(eve.subscribe("rooms/demo/presence/+", 1), 1);
    assert_eq!(line(&eve.expect_message())["username"], "bob");
    for version in VERSIONS {
        let mut alice = member(&broker, version, "alice");
        assert_eq!(line(&eve.expect_message())["username"], "alice");
        let expected = if version == Version::V5 { 0x87 } else { 0 };
        for topic in ["rooms/demo/presence/bob", "rooms/demo/presence/alice~x", "rooms/demo/presence/ghost"] {
            for payload in ["", r#"{"status":"online"}"#, r#"{"username":"bob"}"#] {
                for message in [Message::new(topic, payload).qos(1), Message::new(topic, payload).qos(1).retain()] {
                    assert_eq!(alice.publish(message), expected, "{topic} {payload}");
                    assert_eq!(line(&alice.expect_message())["code"], 0x87);
                }
            }
        }
        eve.expect_nothing();
        // Its own is written by the server, whatever it says there.
        alice.publish(Message::new("rooms/demo/presence/alice", r#"{"status":"gone","instance":"x"}"#).qos(1));
        let shown = line(&eve.expect_message());
        assert_eq!((&shown["status"], &shown["meta"]["status"]), (&json!("online"), &json!("gone")));
        alice.disconnect();
        assert_eq!(eve.expect_message().payload, b"");
    }
}

#[test]
fn abuse_13_a_forged_name() {
    let (broker, mut bob) = with_bob();
    // Each with what it costs.
    let payloads = [
        (r#"{"username":"bob"}"#, 0x87),
        (r#"{"from":"bob","offer":{}}"#, 0x87),
        (r#"{"\u0075sername":"bob"}"#, 0x87),
        (r#"{"username":"alic"}"#, 0x87),
        (r#"{"username":"Alice"}"#, 0x87),
        (r#"{"username":"alice\u0000"}"#, 0x87),
        (r#"{"username":"alice","from":"bob"}"#, 0x99),
        (r#"{"username":"alice","username":"bob"}"#, 0x99),
        (r#"{"username":"alice","\u0075sername":"bob"}"#, 0x99),
        (r#"{"username":["alice"]}"#, 0x99),
        (r#"{"username":null}"#, 0x99),
        (r#"[{"username":"alice"}]"#, 0x99),
        (r#"{"x":{"username":"alice"}}"#, 0x99),
        (r#"{"username":"alice"} {"username":"bob"}"#, 0x99),
        (r#"{"username":"alice""#, 0x99),
        ("", 0x99),
        ("alice", 0x99),
    ];
    for version in VERSIONS {
        let mut alice = member(&broker, version, "alice");
        for (payload, code) in payloads {
            for topic in ["rooms/demo/signal", "rooms/demo/signal/bob"] {
                let said = alice.publish(Message::new(topic, payload).qos(1));
                assert_eq!(said, if version == Version::V5 { code } else { 0 }, "{payload}");
                assert_eq!(line(&alice.expect_message())["code"], code, "{payload}");
            }
        }
        // Where no tag is asked for, a wrong one is refused all the same.
        assert_eq!(alice.publish(Message::new("rooms/demo/chat", r#"{"from":"bob"}"#)), 0);
        assert_eq!(line(&alice.expect_message())["code"], 0x87);
        bob.expect_nothing();
        for payload in
            [r#"{"username":"alice"}"#, r#"{"from":"alice","target":"bob"}"#, r#"{"\u0066rom":"alic\u0065"}"#]
        {
            alice.publish(Message::new("rooms/demo/signal/bob", payload).qos(1).user("username", "bob").user("x", "y"));
            let received = bob.expect_message();
            assert_eq!(received.text(), payload);
            let names: Vec<_> = received.user.iter().filter(|(key, _)| key == "username").collect();
            assert_eq!(names, [&("username".into(), "alice".into())], "a client's own is replaced");
        }
        alice.disconnect();
    }
    // A device goes by its own name, not by its owner's.
    let mut phone = member(&broker, Version::V5, "alice~phone");
    assert_eq!(phone.publish(signal("rooms/demo/signal", "alice").qos(1)), 0x87);
    assert_eq!(phone.publish(signal("rooms/demo/signal", "alice~phone").qos(1)), 0);
    assert_eq!(bob.expect_message().user, [("username".into(), "alice~phone".into())]);
}

#[test]
fn abuse_14_the_client_id_of_another_user() {
    for version in VERSIONS {
        let (broker, mut bob) = with_bob();
        for (name, clean) in [("alice", true), ("alice", false), ("bob~phone", true)] {
            let thief = client(version, name, demo(&["join"]));
            let thief = Client { id: "client of bob".into(), clean, ..thief };
            assert_eq!(broker.connect_refused(thief).reason, connack_code(version, 0x85), "{name}");
        }
        bob.expect_nothing();
        // A kept session is as safe as a connected one.
        drop(bob);
        broker.wait_for_connections(0);
        let kept = Client { id: "kept".into(), clean: false, expiry: 60, ..client(version, "bob", demo(&["join"])) };
        let mut bob = broker.connect(kept.clone());
        assert_eq!(bob.subscribe("users/bob/inbox", 1), 1);
        bob.hang_up();
        broker.wait_for_connections(0);
        let thief = Client { id: "kept".into(), clean: true, ..client(version, "alice", demo(&["join"])) };
        assert_eq!(broker.connect_refused(thief).reason, connack_code(version, 0x85));
        assert!(broker.connect(kept).present());
    }
}

#[test]
fn abuse_16_names_that_are_no_plain_names() {
    // Literally what they say, and for nobody else.
    let (broker, _bob) = with_bob();
    for room in ["a.b", ".*", "^demo$", "[a-z]", "a|demo", "\u{202e}omed", "demo ", "D\u{e9}mo", "..", "%23", "*"] {
        let rooms = json!({ "rooms": { room: ["join"] } });
        let mut alice = broker.connect(client(Version::V5, "alice", rooms));
        let own = format!("rooms/{room}/signal");
        assert_eq!(alice.subscribe(&own, 1), 1, "{room:?}");
        if room != "*" {
            assert_eq!(alice.subscribe("rooms/demo/signal", 1), 0x87, "{room:?}");
        }
        assert_eq!(alice.publish(signal(&own, "alice").qos(1)), 0);
        assert_eq!(alice.expect_message().topic, own);
        alice.disconnect();
    }
    for version in VERSIONS {
        let every_room = json!({ "rooms": { "*": ["join"] } });
        // No names, though they are topic levels.
        let long = "x".repeat(65);
        for room in [&long, "", "a\u{1}b", "\u{85}"] {
            let mut alice = broker.connect(client(version, "alice", every_room.clone()));
            let code = alice.subscribe(&format!("rooms/{room}/signal"), 1);
            assert_eq!(code, if version == Version::V5 { 0x8F } else { 0x80 }, "{room:?}");
            let code = alice.publish(signal(&format!("rooms/{room}/signal"), "alice").qos(1));
            assert_eq!(code, if version == Version::V5 { 0x90 } else { 0 }, "{room:?}");
        }
        // As long as a topic can be.
        let mut alice = broker.connect(client(version, "alice", every_room.clone()));
        let longest = format!("rooms/{}", "x".repeat(65_529));
        assert_eq!(alice.subscribe(&longest, 1), if version == Version::V5 { 0x8F } else { 0x80 });
        assert_eq!(alice.publish(signal(&longest, "alice").qos(1)), if version == Version::V5 { 0x90 } else { 0 });
        alice.expect_nothing();
        // U+0000 is not UTF-8 to MQTT [MQTT-1.5.4-2].
        let mut bytes = Vec::new();
        signal("rooms/a\0b/signal", "alice").encode(&mut bytes, version);
        alice.send_bytes(&bytes);
        alice.expect_disconnect(0x81);
    }
    let names = ["a/b", "+", "#", "", "a\u{1}", &"x".repeat(65)];
    for name in names {
        let alice = with_token(Version::V5, "alice", &token(name, demo(&["join"])));
        let nameless = Client { user_name: None, ..alice };
        assert_eq!(broker.connect_refused(nameless).reason, 0x87, "{name:?}");
    }
}
