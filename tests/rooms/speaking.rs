//! What is said in a room: in order, kept for a while, and gone with it.

use super::*;

#[test]
fn offer_and_candidates_arrive_in_order_also_at_who_is_away_in_between() {
    let broker = house(LONG, |_| {});
    let mut alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    let say = |alice: &mut Connection, from: usize| {
        for n in from..from + 10 {
            // The offer at QoS 1 and candidates at QoS 0, as libraries do.
            let direct = json!({ "username": "alice", "n": n }).to_string();
            alice.publish(Message::new("rooms/demo/signal/bob", direct).qos(u8::from(n % 10 == 0)));
        }
    };
    let mut expected = 0;
    let mut bob = broker.connect(kept(Version::V311, "b", "bob"));
    bob.subscribe("rooms/demo/signal/bob", 1);
    for _ in 0..3 {
        say(&mut alice, expected);
        for _ in 0..5 {
            assert_eq!(body(&bob.expect_message())["n"], expected);
            expected += 1;
        }
        bob.hang_up();
        broker.wait_for_connections(1);
        say(&mut alice, expected + 5);
        bob = broker.connect(kept(Version::V311, "b", "bob"));
        for n in 0..15 {
            let message = bob.expect_message();
            assert_eq!(body(&message)["n"], expected, "{n}: {message:?}");
            expected += 1;
        }
    }
}

#[test]
fn a_signal_that_nobody_took_in_time_is_dropped_and_what_is_no_signal_waits_on() {
    let expiry = Duration::from_millis(50); // less than a file may say
    let broker = house(LONG, |config| config.rooms.signal_expiry = expiry);
    for version in VERSIONS {
        let mut walter = member(&broker, user(Version::V5, "w", "walter"), "demo");
        let mut alice = member(&broker, kept(version, "a", "alice"), "demo");
        alice.subscribe("rooms/demo/chat", 1);
        alice.hang_up();
        broker.wait_for_connections(1);
        walter.publish(signal("demo", "walter", "anybody?"));
        walter.publish(Message::new("rooms/demo/chat", "{}").qos(1));
        std::thread::sleep(2 * expiry);
        let mut alice = broker.connect(kept(version, "a", "alice"));
        assert!(alice.present());
        assert_eq!(alice.expect_message().topic, "rooms/demo/chat");
        alice.expect_nothing();
        broker.connect(user(version, "a", "alice")).disconnect(); // the session is gone
    }
    assert_eq!(broker.metric("wigwag_messages_dropped_total{reason=\"expired\"}"), 2);
}

#[test]
fn shared_state_is_retained_bounded_and_gone_with_the_room() {
    let broker = house(LONG, |config| {
        let state = config.topics.0.iter_mut().find(|row| row.name == "state").expect("a row");
        state.retain_per_room = Some(3);
    });
    let mut alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    let set = |n: usize| Message::new(&format!("rooms/demo/state/{n}/deep"), format!("{n}")).qos(2).retain();
    let codes: Vec<_> = (0..4).map(|n| alice.publish(set(n))).collect();
    assert_eq!(codes, [0x10, 0x10, 0x10, 0x97]);
    assert_eq!(alice.publish(set(1)), 0x10, "one that is there may change");
    assert_eq!(alice.publish(Message { payload: Vec::new(), ..set(0) }), 0x10);
    assert_eq!(alice.publish(set(3)), 0x10);
    join(&mut alice, "other");
    assert_eq!(alice.publish(Message::new("rooms/other/state/x", "x").qos(1).retain()), 0x10, "rooms count apart");
    let mut bob = member(&broker, user(Version::V5, "b", "bob"), "demo");
    bob.subscribe("rooms/demo/state/#", 2);
    let mut state = bob.expect_payloads(3);
    state.sort();
    assert_eq!(state, ["1", "2", "3"]);
    assert_eq!(bob.publish(Message::new("rooms/demo/chat", "{}").qos(1).retain()), 0x87, "chat is not retained");
    alice.unsubscribe(&["rooms/demo/signal"]);
    bob.unsubscribe(&["rooms/demo/signal"]);
    join(&mut bob, "demo");
    let mut carol = broker.connect(user(Version::V5, "c", "carol"));
    carol.subscribe("rooms/demo/state/#", 2);
    carol.expect_nothing();
}

#[test]
fn who_watches_a_room_learns_when_each_message_came_and_nobody_else_does() {
    // In open mode everybody is an observer, and one row of the table covers everything.
    let open = Broker::shipped_with(|_| {});
    let mut all = open.connect(Client::v5("all"));
    all.subscribe("rooms/demo/#", 1);
    let mut one = open.connect(Client::v5("one"));
    one.subscribe("rooms/demo/chat", 1);
    all.publish(Message::new("rooms/demo/chat", "{}").qos(1));
    let keys = |message: Message| message.user.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(all.expect_message()), ["username", "received"]);
    assert_eq!(keys(one.expect_message()), ["username"]);

    let broker = house(LONG, |_| {});
    let mut alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    alice.subscribe("rooms/demo/chat", 1);
    let mut observer = observer(&broker);
    observer.subscribe("rooms/demo/#", 1);
    assert!(entry(&observer.expect_message()).1.is_some());
    let before = time::OffsetDateTime::now_utc() - Duration::from_secs(1);
    let forged = Message::new("rooms/demo/chat", "{}").qos(1).user("received", "1970-01-01T00:00:00Z");
    alice.publish(forged);
    let received = |message: Message| {
        let values: Vec<_> = message.user.into_iter().filter(|(key, _)| key == "received").map(|(_, at)| at).collect();
        values.into_iter().nth(1)
    };
    assert_eq!(received(alice.expect_message()), None);
    let at = received(observer.expect_message()).expect("behind what its sender says");
    let at = time::OffsetDateTime::parse(&at, &time::format_description::well_known::Rfc3339).expect("RFC 3339");
    assert!(before < at && at <= time::OffsetDateTime::now_utc(), "{at}");
}
