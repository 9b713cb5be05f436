//! How many may be in a room, and who.

use super::*;

#[test]
fn a_full_room_refuses_the_next_and_keeps_the_place_of_who_was_lost() {
    for version in VERSIONS {
        let broker = house(LONG, |config| config.rooms.members = Some(2));
        let _alice = member(&broker, user(version, "a", "alice"), "demo");
        let bob = member(&broker, user(version, "b", "bob"), "demo");
        let mut carol = broker.connect(user(version, "c", "carol"));
        assert_eq!(join(&mut carol, "demo"), refused(version, 0x97));
        assert_eq!(carol.subscribe("rooms/demo/presence/+", 1), 1, "who is in there it may see");
        carol.expect_message();
        carol.expect_message();
        let spoken = carol.publish(signal("demo", "carol", "let me in"));
        assert!(version == Version::V311 || spoken == 0x87);
        bob.hang_up();
        broker.wait_for_connections(2);
        assert_eq!(join(&mut carol, "demo"), refused(version, 0x97), "a held place is taken");
        let bob = member(&broker, user(version, "b2", "bob"), "demo");
        bob.disconnect();
        assert_eq!(join(&mut carol, "demo"), 1);
    }
}

#[test]
fn the_grant_of_who_opens_a_room_says_how_many_may_be_in_it() {
    let broker = house(LONG, |_| {});
    let pair = json!({ "sub": "alice", "rooms": { "demo": ["join", "members=2"] } });
    let alice = member(&broker, with_claims(Client::v5("a"), pair), "demo");
    let bob = member(&broker, user(Version::V5, "b", "bob"), "demo");
    let mut carol = broker.connect(user(Version::V5, "c", "carol"));
    assert_eq!(join(&mut carol, "demo"), 0x97);
    alice.disconnect();
    bob.disconnect();
    broker.wait_until("the room is gone", |running| running.held().rooms == 0);
    for (id, name) in [("a", "ann"), ("b", "ben"), ("c", "cleo")] {
        // Whoever opens it now says nothing of the sort.
        let mut next = broker.connect(user(Version::V5, &format!("{id}-2"), name));
        assert_eq!(join(&mut next, "demo"), 1);
        std::mem::forget(next);
    }
}

#[test]
fn there_are_so_many_rooms_and_one_user_is_in_so_many() {
    let broker = house(LONG, |config| {
        config.rooms.rooms = Some(3);
        config.rooms.rooms_per_user = Some(2);
    });
    let mut alice = broker.connect(user(Version::V5, "a", "alice"));
    assert_eq!((join(&mut alice, "one"), join(&mut alice, "two")), (1, 1));
    assert_eq!(join(&mut alice, "three"), 0x97);
    let mut phone = broker.connect(user(Version::V5, "p", "alice~phone"));
    assert_eq!(join(&mut phone, "one"), 0x97, "her devices count as she does");
    let mut bob = member(&broker, user(Version::V5, "b", "bob"), "three");
    assert_eq!((join(&mut bob, "four"), join(&mut bob, "one")), (0x97, 1));
    alice.unsubscribe(&["rooms/two/signal"]);
    assert_eq!(join(&mut phone, "one"), 1);
    assert_eq!(broker.running().held().users, 2);
}

#[test]
fn who_may_join_a_room_may_not_speak_in_it_before() {
    let broker = house(LONG, |_| {});
    let _alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    let mut bob = broker.connect(user(Version::V5, "b", "bob"));
    assert_eq!(bob.publish(signal("demo", "bob", "hello")), 0x87);
    assert_eq!(bob.publish(Message::new("rooms/demo/chat", "{}").qos(1)), 0x87);
    assert_eq!(bob.publish(Message::new("rooms/demo/presence/bob", "{}").qos(1)), 0x87);
    assert_eq!(bob.publish(Message::new("rooms/demo/state/x", "1").qos(1).retain()), 0x87);
    join(&mut bob, "demo");
    assert_eq!(bob.publish(signal("demo", "bob", "hello")), 0);
    let mut service = observer(&broker);
    let said = Message::new("rooms/demo/signal", r#"{"username":"observer"}"#).qos(1);
    assert_eq!(service.publish(said), 0, "the service role takes no place");
}

#[test]
fn in_open_mode_a_stranger_speaks_while_the_room_is_neither_full_nor_locked() {
    let broker = Broker::shipped_with(|config| config.rooms.members = Some(2));
    let mut alice = member(&broker, Client::v5("a").user_name("alice"), "demo");
    let mut bob = broker.connect(Client::v5("b").user_name("bob"));
    assert_eq!(bob.publish(signal("demo", "bob", "hello")), 0);
    assert_eq!(body(&alice.expect_message())["text"], "hello");
    assert_eq!(bob.publish(signal("empty", "bob", "anybody?")), 0x10);
    assert_eq!(bob.publish(Message::new("rooms/demo/presence/bob", "{}").qos(1)), 0x87, "it is not in the roster");
    assert_eq!(bob.publish(Message::new("rooms/empty/state/x", "1").qos(1).retain()), 0x87, "nothing is retained");
    alice.publish(order("demo", "alice", json!({ "action": "lock" })));
    assert_eq!(bob.publish(signal("demo", "bob", "hello")), 0x87);
    alice.publish(order("demo", "alice", json!({ "action": "unlock" })));
    let _carol = member(&broker, Client::v5("c").user_name("carol"), "demo");
    assert_eq!(bob.publish(signal("demo", "bob", "hello")), 0x87, "full");
    assert_eq!(broker.running().held().members, 2);
}
