//! Topic tables that are not the shipped one.

use serde_json::json;
use wigwag::config::TopicRows;

use crate::{harness::*, people::*};

#[test]
fn abuse_17_an_empty_table_denies_everything() {
    for change in [(|_| {}) as fn(&mut Config), with_tokens] {
        let broker = Broker::shipped_with(|config| {
            change(config);
            config.topics = TopicRows(Vec::new());
        });
        for version in VERSIONS {
            let everything = json!({ "rooms": { "*": ["admin"] }, "publish": ["#"], "subscribe": ["#"], "retain": ["#"],
                "roles": ["observe", "service"] });
            let mut alice = broker.connect(client(version, "alice", everything.clone()));
            for topic in
                ["rooms/demo/signal", "users/alice/errors", "app/x", "$SYS/x", "anything", "#", "rooms/+/signal"]
            {
                assert_eq!(alice.subscribe(topic, 1), no(version), "{topic}");
                if !topic.contains(['#', '+']) {
                    let code = alice.publish(signal(topic, "alice").qos(1));
                    assert_eq!(code, if version == Version::V5 { 0x87 } else { 0 }, "{topic}");
                }
            }
            alice.expect_nothing();
            let will = client(version, "bob", everything).will(signal("app/x", "bob"));
            assert_eq!(broker.connect_refused(will).reason, connack_code(version, 0x87));
            alice.disconnect();
        }
    }
}

/// A broker with tokens whose table is this text alone.
fn ruled_by(table: &str) -> Broker {
    Broker::shipped_with(|config| {
        with_tokens(config);
        config.topics = Config::from_toml_str(table).expect("a table").topics;
    })
}

#[test]
fn rows_for_one_client_are_for_that_client_alone() {
    let broker = ruled_by(
        r#"
        [[topic]]
        name = "own"
        filter = "client/{client}/#"
        publish = ["anyone"]
        subscribe = ["anyone"]
        [[topic]]
        name = "tenant"
        filter = "tenant/{claim:tenant}/#"
        publish = ["anyone"]
        subscribe = ["anyone"]
        "#,
    );
    for version in VERSIONS {
        let connect = |name: &str, tenant: &str| broker.connect(client(version, name, json!({ "tenant": tenant })));
        let (mut alice, mut bob) = (connect("alice", "acme"), connect("bob", "other"));
        let mut nobody = broker.connect(client(version, "nobody", json!({})));
        let mut slash = connect("slash", "acme/x");
        for allowed in ["client/client of alice/#", "client/client of alice", "tenant/acme/+", "tenant/acme/x/y"] {
            assert_eq!(alice.subscribe(allowed, 1), 1, "{allowed}");
            for other in [&mut bob, &mut nobody, &mut slash] {
                assert_eq!(other.subscribe(allowed, 1), no(version), "{allowed}");
            }
        }
        for denied in ["client/+/x", "tenant/#", "tenant/+/x", "client/#", "#", "tenant/acme/../other/x", "tenant//x"] {
            let expected = if denied == "tenant/acme/../other/x" { 1 } else { no(version) };
            assert_eq!(alice.subscribe(denied, 1), expected, "{denied}");
        }
        let code = bob.publish(Message::new("tenant/acme/x", "stolen").qos(1));
        assert_eq!(code, if version == Version::V5 { 0x87 } else { 0 });
        alice.expect_nothing();
        alice.publish(Message::new("tenant/acme/x", "own").qos(1));
        assert_eq!(alice.expect_message().text(), "own");
        bob.expect_nothing();
    }
}

#[test]
fn a_floor_and_a_cap_of_qos() {
    let broker = ruled_by(
        r#"
        [[topic]]
        name = "firm"
        filter = "firm/#"
        publish = ["anyone"]
        subscribe = ["anyone"]
        qos = { min = 1, max = 1 }
        [[topic]]
        name = "light"
        filter = "light/#"
        publish = ["anyone"]
        subscribe = ["anyone"]
        qos = { max = 0 }
        "#,
    );
    for version in VERSIONS {
        let mut alice = broker.connect(client(version, "alice", json!({})));
        if version == Version::V5 {
            assert_eq!(alice.connack.maximum_qos, Some(QoS::AtLeastOnce), "no class has more [MQTT-3.2.2-9]");
        }
        assert_eq!(alice.subscribe_all(&[("firm/#", options(2)), ("light/#", options(2))], None), [1, 0]);
        alice.publish(Message::new("firm/x", "0"));
        alice.expect_nothing();
        alice.publish(Message::new("firm/x", "1").qos(1));
        assert_eq!(alice.expect_message().gist(), ("firm/x", "1", 1, false));
        alice.publish(Message::new("light/x", "2").qos(1));
        assert_eq!(alice.expect_message().gist(), ("light/x", "2", 0, false));
        alice.disconnect();
    }
}
