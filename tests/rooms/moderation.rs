//! Moderation: kick, ban, unban, lock, unlock, limit, close.

use super::*;

/// The moderator of room "ours", who hears what is said on its control topic.
fn moderator(broker: &Broker) -> Connection {
    let mut ada = member(broker, user(Version::V5, "ada", "ada"), "ours");
    ada.subscribe("rooms/ours/control", 1);
    ada
}

fn gives(ada: &mut Connection, what: Value) {
    assert_eq!(ada.publish(order("ours", "ada", what)), 0);
    ada.expect_message();
}

#[test]
fn who_is_kicked_is_told_why_and_keeps_its_other_rooms() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut reporter = reporter(&broker);
        let mut ada = moderator(&broker);
        let mut carol = member(&broker, user(version, "c", "carol"), "else");
        let mut bob = member(&broker, user(version, "b", "bob"), "ours");
        for filter in ["rooms/ours/control", "rooms/ours/chat", "users/bob/errors"] {
            bob.subscribe(filter, 1);
        }
        join(&mut bob, "else");
        let _phone = member(&broker, user(version, "p", "bob~phone"), "ours");
        for _ in 0..7 {
            event(&mut reporter);
        }
        gives(&mut ada, json!({ "action": "kick", "user": "bob", "seconds": 60, "reason": "be kind" }));
        let control = bob.expect_message();
        assert_eq!((control.topic.as_str(), &body(&control)["reason"]), ("rooms/ours/control", &json!("be kind")));
        let told = bob.expect_message();
        assert_eq!(told.topic, "users/bob/errors");
        let told = body(&told);
        assert_eq!(
            (&told["action"], &told["code"], &told["reason"]),
            (&json!("kicked"), &json!(0x98), &json!("be kind"))
        );
        assert_eq!(event(&mut reporter), "member/left ours bob kicked");
        assert_eq!(event(&mut reporter), "member/left ours bob~phone kicked");
        // Its other room has not noticed.
        carol.publish(signal("else", "carol", "hello"));
        assert_eq!(body(&bob.expect_message())["text"], "hello");
        ada.publish(Message::new("rooms/ours/chat", "{}").qos(1));
        bob.expect_nothing();
        reporter.expect_nothing();
        // It stays out for as long as was said, under every name.
        for filter in ["rooms/ours/signal", "rooms/ours/chat", "rooms/ours/presence/+"] {
            assert_eq!(bob.subscribe(filter, 1), refused(version, 0x87), "{filter}");
            bob.expect_message(); // on its errors topic
        }
        let mut tablet = broker.connect(user(version, "t", "bob~tablet"));
        assert_eq!(join(&mut tablet, "ours"), refused(version, 0x87));
        gives(&mut ada, json!({ "action": "unban", "user": "bob" }));
        assert_eq!(join(&mut tablet, "ours"), 1);
    }
}

#[test]
fn the_connection_of_who_is_kicked_out_of_its_only_room_ends_after_the_last_word() {
    for (version, transport) in [(Version::V5, Transport::Tcp), (Version::V311, Transport::WebSocket)] {
        let broker = house(LONG, |_| {});
        let mut ada = moderator(&broker);
        let mut bob = member(&broker, user(version, "b", "bob").over(transport), "ours");
        for filter in ["rooms/ours/control", "users/bob/errors"] {
            bob.subscribe(filter, 1);
        }
        gives(&mut ada, json!({ "action": "kick", "user": "bob" }));
        assert_eq!(bob.expect_message().topic, "rooms/ours/control");
        assert_eq!(bob.expect_message().topic, "users/bob/errors");
        bob.expect_disconnect(0x98);
        let mut bob = broker.connect(user(version, "b", "bob"));
        assert_eq!(join(&mut bob, "ours"), refused(version, 0x87), "ten seconds, unless the order says");
    }
}

#[test]
fn a_ban_holds_for_who_is_not_there_and_for_a_room_that_was_gone_meanwhile() {
    let broker = house(LONG, |_| {});
    let mut ada = moderator(&broker);
    gives(&mut ada, json!({ "action": "ban", "user": "bob", "seconds": 600 }));
    let mut bob = broker.connect(user(Version::V5, "b", "bob~phone"));
    assert_eq!(join(&mut bob, "ours"), 0x87);
    ada.unsubscribe(&["rooms/ours/signal"]);
    broker.wait_until("nobody is in it", |running| running.held().members == 0);
    assert_eq!(join(&mut bob, "ours"), 0x87);
    // She needs no place to let him in.
    gives(&mut ada, json!({ "action": "unban", "user": "bob" }));
    assert_eq!(broker.running().held().rooms, 0);
    assert_eq!(join(&mut bob, "ours"), 1);
}

/// Live and retained, of the room alone and of all rooms.
#[test]
fn who_is_banned_reads_nothing_of_the_room_by_a_filter_that_spans_rooms_either() {
    let broker = house(LONG, |_| {});
    let mut ada = moderator(&broker);
    assert!(ada.publish(Message::new("rooms/ours/state/doc", "secret").retain().qos(1)) < 0x80);
    let mut zoe = member(&broker, user(Version::V5, "z", "zoe"), "theirs");
    assert!(zoe.publish(Message::new("rooms/theirs/state/doc", "open").retain().qos(1)) < 0x80);
    let mut troll = broker.connect(user(Version::V5, "t", "troll")); // an observer, as everybody in open mode
    gives(&mut ada, json!({ "action": "ban", "user": "troll", "seconds": 60 }));
    assert_eq!(troll.subscribe("rooms/+/state/#", 1), 1);
    assert_eq!(troll.expect_message().text(), "open");
    troll.expect_nothing();
    ada.publish(Message::new("rooms/ours/state/doc", "another").retain().qos(1));
    troll.expect_nothing();
    assert_eq!(troll.subscribe("rooms/+/presence/+", 1), 1);
    assert_eq!(troll.expect_message().topic, "rooms/theirs/presence/zoe");
    troll.expect_nothing();
    gives(&mut ada, json!({ "action": "unban", "user": "troll" }));
    assert_eq!(troll.subscribe("rooms/ours/state/#", 1), 1);
    assert_eq!(troll.expect_message().text(), "another");
}

#[test]
fn a_locked_room_is_for_its_members() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut ada = moderator(&broker);
        let mut bob = member(&broker, user(version, "b", "bob"), "ours");
        let mut carol = broker.connect(user(version, "c", "carol"));
        for filter in ["rooms/ours/chat", "rooms/ours/presence/+", "users/carol/errors"] {
            carol.subscribe(filter, 1);
        }
        carol.expect_message();
        carol.expect_message();
        let mut watching = observer(&broker);
        watching.subscribe("rooms/ours/chat", 1);
        gives(&mut ada, json!({ "action": "lock" }));
        assert_eq!(body(&carol.expect_message())["action"], "locked");
        assert_eq!(join(&mut carol, "ours"), refused(version, 0x87));
        assert_eq!(carol.subscribe("rooms/ours/presence/+", 1), refused(version, 0x87));
        carol.expect_message();
        carol.expect_message();
        bob.publish(Message::new("rooms/ours/chat", r#"{"text":"among us"}"#).qos(1));
        carol.expect_nothing();
        assert_eq!(body(&watching.expect_message())["text"], "among us", "observers see through locks");
        // A member who was lost is one still, and takes its place over; one who leaves is none.
        bob.hang_up();
        broker.wait_for_connections(3);
        let mut bob = member(&broker, user(version, "b2", "bob"), "ours");
        bob.subscribe("rooms/ours/chat", 1);
        bob.subscribe("users/bob/errors", 1);
        bob.unsubscribe(&["rooms/ours/signal"]);
        assert_eq!(body(&bob.expect_message())["action"], "locked");
        ada.publish(Message::new("rooms/ours/chat", "{}").qos(1));
        bob.expect_nothing();
        gives(&mut ada, json!({ "action": "unlock" }));
        assert_eq!((join(&mut bob, "ours"), join(&mut carol, "ours")), (1, 1));
    }
}

#[test]
fn a_room_that_is_closed_is_empty_and_can_be_opened_again() {
    let broker = house(LONG, |_| {});
    let mut ada = moderator(&broker);
    let mut bob = member(&broker, user(Version::V5, "b", "bob").will(signal("ours", "bob", "bye")), "ours");
    bob.subscribe("users/bob/errors", 1);
    let mut reporter = reporter(&broker);
    assert_eq!(ada.publish(order("ours", "ada", json!({ "action": "close", "reason": "good night" }))), 0);
    ada.expect_message();
    let told = body(&bob.expect_message());
    assert_eq!((&told["action"], &told["reason"]), (&json!("closed"), &json!("good night")));
    let mut events = [event(&mut reporter), event(&mut reporter), event(&mut reporter)];
    events.sort();
    assert_eq!(events, ["member/left ours ada closed", "member/left ours bob closed", "room/closed ours"]);
    assert_eq!(broker.running().held().rooms, 0);
    assert_eq!(join(&mut bob, "ours"), 1);
}

#[test]
fn closing_ends_what_listeners_and_observers_have_of_the_room_and_of_no_other() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut ada = moderator(&broker);
        let mut zoe = member(&broker, user(Version::V5, "z", "zoe"), "theirs");
        let mut carol = broker.connect(user(version, "c", "carol"));
        carol.subscribe("users/carol/errors", 1);
        let mut watching = observer(&broker);
        watching.subscribe("rooms/ours/chat", 1);
        let mut spanning = with_claims(Client::v5("s"), json!({ "sub": "spans", "roles": ["observe"] }));
        spanning.clean = true;
        let mut spanning = broker.connect(spanning);
        spanning.subscribe("rooms/+/chat", 1);
        for room in ["ours", "theirs"] {
            carol.subscribe(&format!("rooms/{room}/chat"), 1);
        }
        let before = broker.running().held().subscriptions;
        assert_eq!(ada.publish(order("ours", "ada", json!({ "action": "close" }))), 0);
        assert_eq!(body(&carol.expect_message())["action"], "closed");
        // Ada's two, carol's and the observer's.
        assert_eq!(broker.running().held().subscriptions, before - 4);
        ada.expect_message();
        assert_eq!(join(&mut ada, "ours"), 1);
        let chat = |room: &str| Message::new(&format!("rooms/{room}/chat"), "{}").qos(1);
        assert_eq!(ada.publish(chat("ours")), 0, "who spans rooms hears it");
        assert_eq!(spanning.expect_message().topic, "rooms/ours/chat");
        watching.expect_nothing();
        zoe.publish(chat("theirs"));
        assert_eq!(carol.expect_message().topic, "rooms/theirs/chat");
        carol.expect_nothing();
    }
}

#[test]
fn a_limit_keeps_the_next_out_and_nobody_in() {
    let broker = house(LONG, |_| {});
    let mut ada = moderator(&broker);
    let _bob = member(&broker, user(Version::V5, "b", "bob"), "ours");
    gives(&mut ada, json!({ "action": "limit", "members": 1 }));
    let mut carol = broker.connect(user(Version::V5, "c", "carol"));
    assert_eq!((join(&mut carol, "ours"), broker.running().held().members), (0x97, 2));
    gives(&mut ada, json!({ "action": "limit", "members": 3 }));
    assert_eq!(join(&mut carol, "ours"), 1);
}

#[test]
fn an_order_that_is_none_or_not_hers_is_refused_and_nobody_hears_it() {
    let broker = house(LONG, |_| {});
    let mut ada = moderator(&broker);
    let mut bob = member(&broker, user(Version::V5, "b", "bob"), "ours");
    bob.subscribe("rooms/ours/control", 1);
    let mut gives = |room: &str, what: Value| ada.publish(order(room, "ada", what));
    for (what, code) in [
        (json!({ "action": "dance" }), 0x99),
        (json!({ "user": "bob" }), 0x99),
        (json!({ "action": "kick" }), 0x99),
        (json!({ "action": "kick", "user": "a/b" }), 0x99),
        (json!({ "action": "ban", "user": "bob" }), 0x99),
        (json!({ "action": "ban", "user": "bob", "seconds": u64::MAX }), 0x99),
        (json!({ "action": "limit", "members": 0 }), 0x99),
        (json!({ "action": "kick", "user": "nobody" }), 0x87),
    ] {
        assert_eq!(gives("ours", what.clone()), code, "{what}");
    }
    assert_eq!(gives("ours-empty", json!({ "action": "lock" })), 0x87);
    assert_eq!(gives("theirs", json!({ "action": "lock" })), 0x87);
    let mallory = json!({ "sub": "mallory", "rooms": { "ours": ["join"] } });
    let mut mallory = member(&broker, with_claims(Client::v5("m"), mallory), "ours");
    assert_eq!(mallory.publish(order("ours", "mallory", json!({ "action": "lock" }))), 0x87);
    assert_eq!(mallory.publish(order("ours", "ada", json!({ "action": "lock" }))), 0x87);
    bob.expect_nothing();
    assert_eq!(broker.running().held().members, 3);
}

#[test]
fn a_large_room_is_closed_and_who_looks_on_misses_nothing() {
    const MEMBERS: usize = 150;
    let broker = house(LONG, |config| {
        config.limits.queue_messages = 100;
        config.limits.connections_per_address = None;
    });
    let mut observer = observer(&broker);
    for filter in ["events/#", "rooms/+/presence/+"] {
        observer.subscribe(filter, 1);
    }
    let mut ada = moderator(&broker);
    let mut members: Vec<_> = (0..MEMBERS)
        .map(|n| member(&broker, user(Version::V311, &format!("m{n}"), &format!("m{n}")), "ours"))
        .collect();
    // Ada and her room, and the others: a line of the roster and an event each.
    for _ in 0..3 + 2 * MEMBERS {
        observer.expect_message();
    }
    gives(&mut ada, json!({ "action": "close" }));
    let mut left = Vec::new();
    for _ in 0..2 * (MEMBERS + 1) + 1 {
        let message = observer.expect_message();
        if message.topic == "events/member/left" {
            left.push(body(&message)["user"].as_str().expect("a user").to_owned());
        }
    }
    left.sort();
    left.dedup();
    assert_eq!(left.len(), MEMBERS + 1, "each once");
    assert_eq!(broker.metric("wigwag_sessions_overflowed_total"), 0);
    members.iter_mut().for_each(Connection::ping);
}
