//! Coming into a room, and what a newcomer and the others see of it.

use super::*;

#[test]
fn a_newcomer_gets_the_whole_roster_before_the_first_change_and_each_member_once() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let _alice = member(&broker, user(version, "a", "alice"), "demo");
        let _phone = member(&broker, user(version, "p", "alice~phone"), "demo");
        let _elsewhere = member(&broker, user(version, "e", "eve"), "other");
        let mut bob = broker.connect(user(version, "b", "bob"));
        assert_eq!(bob.subscribe("rooms/demo/presence/+", 1), 1);
        let mut roster = [bob.expect_message(), bob.expect_message()];
        roster.sort_by(|one, other| one.topic.cmp(&other.topic));
        assert!(roster.iter().all(|message| message.retain && message.qos == 1));
        assert_eq!(roster.map(|message| entry(&message).0), ["alice", "alice~phone"]);
        bob.expect_nothing();
        assert_eq!(join(&mut bob, "demo"), 1);
        let own = bob.expect_message();
        assert_eq!((entry(&own).0, own.retain), ("bob".into(), false), "its own, live");
        let _carol = member(&broker, user(version, "c", "carol"), "demo");
        let carol = bob.expect_message();
        assert_eq!((entry(&carol).0, carol.retain), ("carol".into(), false));
        bob.expect_nothing();
    }
}

#[test]
fn the_order_of_filters_in_a_subscribe_makes_no_difference_to_the_roster() {
    for filters in [["rooms/demo/signal", "rooms/demo/presence/+"], ["rooms/demo/presence/+", "rooms/demo/signal"]] {
        let broker = house(LONG, |_| {});
        let _alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
        let mut bob = broker.connect(user(Version::V5, "b", "bob"));
        assert_eq!(bob.subscribe_all(&filters.map(|filter| (filter, options(1))), None), [1, 1]);
        let mut seen = [entry(&bob.expect_message()).0, entry(&bob.expect_message()).0];
        seen.sort();
        assert_eq!(seen, ["alice", "bob"]);
        bob.expect_nothing();
    }
}

#[test]
fn what_a_member_says_of_itself_is_in_the_roster_until_it_clears_it_or_leaves() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut alice = member(&broker, user(version, "a", "alice"), "demo");
        let mut bob = member(&broker, user(version, "b", "bob"), "demo");
        bob.subscribe("rooms/demo/presence/alice", 1);
        let first = body(&bob.expect_message());
        assert!(first.get("meta").is_none());
        let meta = |text: &str| Message::new("rooms/demo/presence/alice", text).qos(1);
        alice.publish(meta(r#"{"hand":"raised","muted":false}"#).retain());
        let said = body(&bob.expect_message());
        assert_eq!(said["meta"], json!({"hand":"raised","muted":false}));
        assert_eq!((&said["since"], &said["instance"]), (&first["since"], &first["instance"]));
        alice.publish(meta(r#"{"hand":"down"}"#));
        assert_eq!(body(&bob.expect_message())["meta"], json!({"hand":"down"}));
        // Somebody else's, and what is no object.
        let forged = alice.publish(Message::new("rooms/demo/presence/bob", "{}").qos(1));
        let odd = alice.publish(meta("[1]"));
        if version == Version::V5 {
            assert_eq!((forged, odd), (0x87, 0x99));
        }
        bob.expect_nothing();
        alice.publish(meta(""));
        assert!(body(&bob.expect_message()).get("meta").is_none());
        alice.publish(meta(r#"{"hand":"up"}"#));
        bob.expect_message();
        alice.unsubscribe(&["rooms/demo/signal"]);
        assert_eq!(entry(&bob.expect_message()).1, None);
        join(&mut alice, "demo");
        assert!(body(&bob.expect_message()).get("meta").is_none(), "it ended with the stay");
    }
}

#[test]
fn observers_and_listeners_take_no_place_and_say_nothing() {
    let broker = house(LONG, |_| {});
    let mut watching = observer(&broker);
    watching.subscribe("rooms/#", 1);
    let claims = json!({ "sub": "lisa", "rooms": { "demo": ["listen"] } });
    let mut listening = broker.connect(with_claims(Client::v5("l"), claims));
    for filter in ["rooms/demo/signal", "rooms/demo/chat", "rooms/demo/presence/+", "rooms/demo/state/#"] {
        assert!(listening.subscribe(filter, 1) <= 2, "{filter}");
    }
    assert_eq!(listening.subscribe("rooms/demo/signal/lisa", 1), 0x87);
    assert_eq!(broker.running().held().members, 0);
    assert_eq!(listening.publish(signal("demo", "lisa", "hello")), 0x87);
    let mut alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    assert_eq!(entry(&listening.expect_message()).0, "alice");
    assert_eq!(entry(&watching.expect_message()).0, "alice");
    let mut bob = member(&broker, user(Version::V5, "b", "bob"), "demo");
    watching.expect_message();
    bob.subscribe("rooms/demo/signal/bob", 1);
    alice.publish(Message::new("rooms/demo/signal/bob", r#"{"username":"alice","offer":1}"#).qos(1));
    assert_eq!(watching.expect_message().topic, "rooms/demo/signal/bob", "targeted signals included");
    assert_eq!(broker.running().held().members, 2);
}

#[test]
fn a_table_of_retained_messages_that_is_full_keeps_nobody_out_of_the_roster() {
    let broker = Broker::shipped_with(|config| config.limits.retained_messages = 1);
    let mut mallory = broker.connect(Client::v5("m").user_name("mallory"));
    assert_eq!(mallory.publish(Message::new("one", "x").qos(1).retain()), 0x10);
    assert_eq!(mallory.publish(Message::new("two", "x").qos(1).retain()), 0x97);
    let _alice = member(&broker, Client::v5("a").user_name("alice"), "demo");
    let mut bob = broker.connect(Client::v5("b").user_name("bob"));
    bob.subscribe("rooms/demo/presence/+", 1);
    assert_eq!(entry(&bob.expect_message()).0, "alice");
}
