//! Going, being lost, and coming back.

use super::*;

/// Somebody who has the roster of a room and is in it.
fn watching(broker: &Broker, room: &str) -> Connection {
    let mut watching = member(broker, user(Version::V5, "w", "walter"), room);
    watching.subscribe(&format!("rooms/{room}/presence/+"), 1);
    assert_eq!(entry(&watching.expect_message()).0, "walter");
    watching
}

#[test]
fn the_same_session_back_within_the_grace_shows_nothing_and_misses_nothing() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut walter = watching(&broker, "demo");
        let mut alice = broker.connect(kept(version, "a", "alice"));
        for filter in ["rooms/demo/signal", "rooms/demo/signal/alice", "rooms/demo/presence/+"] {
            alice.subscribe(filter, 1);
        }
        let since = entry(&walter.expect_message());
        alice.hang_up();
        broker.wait_for_connections(1);
        // Offer and candidates, as they are sent: at QoS 0 by some, which the class raises.
        for n in 0..5 {
            let direct = Message::new("rooms/demo/signal/alice", json!({ "username": "walter", "n": n }).to_string());
            walter.publish(direct.qos((n % 2) as u8));
        }
        let mut alice = broker.connect(kept(version, "a", "alice"));
        assert!(alice.present());
        let signals = std::iter::from_fn(|| Some(alice.expect_message()));
        let direct = signals.filter(|message| message.topic.ends_with("signal/alice"));
        let numbers: Vec<_> = direct.take(5).map(|message| body(&message)["n"].clone()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        walter.expect_nothing();
        alice.publish(signal("demo", "alice", "here"));
        assert_eq!(body(&walter.expect_message())["text"], "here");
        let roster = broker.metric("wigwag_room_resumes_total");
        assert_eq!((roster, since.0.as_str()), (1, "alice"));
    }
}

#[test]
fn a_reloaded_page_is_one_update_with_another_instance_whatever_its_client_id() {
    for (first, second) in [("a", "b"), ("a", "a")] {
        for version in VERSIONS {
            let broker = house(LONG, |_| {});
            let mut reporter = reporter(&broker);
            let mut walter = watching(&broker, "demo");
            let page = member(&broker, user(version, first, "alice"), "demo");
            let (_, instance) = entry(&walter.expect_message());
            page.hang_up();
            broker.wait_for_connections(2);
            let mut page = broker.connect(user(version, second, "alice"));
            // MQTT.js sends first what it has queued: the place is held, so it may speak.
            page.publish(signal("demo", "alice", "hello again"));
            assert_eq!(body(&walter.expect_message())["text"], "hello again");
            assert_eq!(join(&mut page, "demo"), 1);
            let (user, other) = entry(&walter.expect_message());
            assert!(user == "alice" && other.is_some() && other != instance);
            walter.expect_nothing();
            for expected in ["room/opened demo", "member/joined demo walter", "member/joined demo alice"] {
                assert_eq!(event(&mut reporter), expected);
            }
            reporter.expect_nothing();
        }
    }
}

#[test]
fn a_second_tab_takes_the_place_over_and_the_first_keeps_everything_else() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut walter = watching(&broker, "demo");
        let mut first = member(&broker, user(version, "one", "alice"), "demo");
        let (_, instance) = entry(&walter.expect_message());
        for filter in ["rooms/other/signal", "rooms/demo/chat", "users/alice/errors"] {
            assert!(first.subscribe(filter, 1) <= 1);
        }
        let mut second = broker.connect(user(version, "two", "alice"));
        second.subscribe("users/alice/errors", 0);
        assert_eq!(join(&mut second, "demo"), 1);
        let told = first.expect_message();
        assert_eq!(told.topic, "users/alice/errors");
        let told = body(&told);
        assert_eq!(
            (&told["action"], &told["code"], &told["topic"]),
            (&json!("replaced"), &json!(0x8E), &json!("rooms/demo/signal"))
        );
        second.expect_nothing(); // it did not lose anything
        let (_, other) = entry(&walter.expect_message());
        assert!(other.is_some() && other != instance);
        walter.expect_nothing();
        walter.publish(signal("demo", "walter", "hello"));
        walter.publish(Message::new("rooms/demo/chat", r#"{"text":"hello"}"#).qos(1));
        assert_eq!(body(&second.expect_message())["text"], "hello");
        walter.expect_message(); // its own
        first.expect_nothing();
        let reason = first.publish(signal("demo", "alice", "am I here?"));
        assert!(version == Version::V311 || reason == 0x87);
        first.expect_message(); // on its errors topic
        first.publish(signal("other", "alice", "and here?"));
        assert_eq!(body(&first.expect_message())["text"], "and here?");
        // The first goes, which nobody notices.
        first.disconnect();
        walter.expect_nothing();
    }
}

#[test]
fn who_says_goodbye_or_unsubscribes_leaves_at_once() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut walter = watching(&broker, "demo");
        let mut reporter = reporter(&broker);
        let mut leaves = |how: &dyn Fn(Connection) -> Option<Connection>| {
            let mut alice = member(&broker, kept(version, "a", "alice"), "demo");
            alice.subscribe("rooms/demo/signal/alice", 1);
            assert_eq!(entry(&walter.expect_message()).0, "alice");
            let left = how(alice);
            assert_eq!(entry(&walter.expect_message()), ("alice".into(), None));
            assert_eq!(event(&mut reporter), "member/joined demo alice");
            assert_eq!(event(&mut reporter), "member/left demo alice left");
            drop(left);
            broker.connect(user(version, "a", "alice")).disconnect(); // the session is gone
            walter.expect_nothing();
        };
        leaves(&|alice| {
            alice.disconnect();
            None
        });
        if version == Version::V5 {
            leaves(&|alice| {
                alice.disconnect_with(4, None);
                None
            });
        }
        leaves(&|mut alice| {
            alice.unsubscribe(&["rooms/demo/signal"]);
            assert_eq!(broker.running().held().members, 2, "there is another by which it is in");
            alice.unsubscribe(&["rooms/demo/signal/alice"]);
            Some(alice)
        });
    }
}

#[test]
fn who_does_not_come_back_has_left_after_the_grace() {
    let broker = house(SHORT, |config| config.auth.token.leeway = Duration::ZERO);
    let mut walter = watching(&broker, "demo");
    let mut reporter = reporter(&broker);
    let gone = |walter: &mut Connection, reporter: &mut Connection, reason: &str| {
        assert_eq!(entry(&walter.expect_message()), ("alice".into(), None));
        assert_eq!(event(reporter), "member/joined demo alice");
        assert_eq!(event(reporter), format!("member/left demo alice {reason}"));
    };
    for client in [user(Version::V5, "a", "alice"), kept(Version::V311, "a", "alice")] {
        let alice = member(&broker, client, "demo");
        walter.expect_message();
        alice.hang_up();
        gone(&mut walter, &mut reporter, "lost");
    }
    // Taken over by a connection that does not join.
    let mut older = member(&broker, user(Version::V5, "a", "alice"), "demo");
    walter.expect_message();
    let _newer = broker.connect(user(Version::V5, "a", "alice"));
    older.expect_disconnect(0x8E);
    gone(&mut walter, &mut reporter, "lost");
    // Its token runs out.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({ "sub": "alice", "rooms": { "demo": ["join"] }, "exp": now + 3 });
    let mut expires = member(&broker, with_claims(Client::v5("x"), claims), "demo");
    walter.expect_message();
    expires.expect_disconnect(0x87);
    gone(&mut walter, &mut reporter, "expired");
}

/// Whatever the grace: by the operator's order, by revocation, by too many refusals.
#[test]
fn whose_connection_the_server_ends_for_good_has_left_at_once() {
    const KEY: &str = "an operator key of more than 32 bytes";
    let broker = house(LONG, |config| {
        config.api.keys = vec![Secret::new(KEY).expect("long enough")];
        config.abuse.strikes = Some(3);
    });
    let mut reporter = reporter(&broker);
    let _walter = member(&broker, user(Version::V5, "w", "walter"), "demo");
    assert_eq!([event(&mut reporter), event(&mut reporter)], ["room/opened demo", "member/joined demo walter"]);
    let ask = |path: &str| {
        let answer = broker.http("POST", path, &[("Authorization", &format!("Bearer {KEY}"))], "");
        assert_eq!(answer.status, 204, "{answer:?}");
    };
    let mut ends = |name: &str, reason: u8, how: &dyn Fn(&mut Connection)| {
        let mut one = member(&broker, kept(Version::V5, name, name), "demo");
        how(&mut one);
        one.expect_disconnect(reason);
        assert_eq!(event(&mut reporter), format!("member/joined demo {name}"));
        assert_eq!(event(&mut reporter), format!("member/left demo {name} disconnected"));
    };
    ends("ann", 0x98, &|_| ask("/api/users/ann/disconnect"));
    ends("ben", 0x98, &|_| ask("/api/users/ben/revoke"));
    ends("cleo", 0x96, &|cleo| {
        for _ in 0..3 {
            cleo.send_publish(signal("demo", "somebody else", "boo"));
        }
        for _ in 0..2 {
            cleo.receive(); // what it is answered before it is too much
        }
    });
    assert_eq!(broker.metric("wigwag_room_leaves_total{reason=\"disconnected\"}"), 3);
}

#[test]
fn who_reads_too_slowly_keeps_its_place_for_the_grace() {
    let broker = house(SHORT, |config| (config.limits.queue_messages, config.limits.inflight) = (10, 2));
    let mut reporter = reporter(&broker);
    let mut walter = broker.connect(user(Version::V5, "w", "walter"));
    assert_eq!(walter.subscribe("rooms/demo/signal/walter", 1), 1); // he does not hear himself
    let slow = member(&broker, user(Version::V5, "s", "slow"), "demo");
    // One is acknowledged by nobody, and what follows waits for that.
    for n in 0..13 {
        walter.publish(signal("demo", "walter", &n.to_string()));
    }
    let events: Vec<_> = (0..4).map(|_| event(&mut reporter)).collect();
    assert_eq!(
        events,
        ["room/opened demo", "member/joined demo walter", "member/joined demo slow", "member/left demo slow lost"]
    );
    drop(slow);
}

#[test]
fn a_kept_session_that_is_back_after_its_stay_joins_anew_and_gets_nothing_old() {
    for version in VERSIONS {
        let broker = house(SHORT, |_| {});
        let mut walter = watching(&broker, "demo");
        let mut alice = broker.connect(kept(version, "a", "alice"));
        for filter in ["rooms/demo/signal", "rooms/demo/presence/+", "users/alice/inbox"] {
            alice.subscribe(filter, 1);
        }
        walter.expect_message();
        alice.hang_up();
        broker.wait_for_connections(1);
        walter.publish(signal("demo", "walter", "into the void"));
        // Its own, and that she has gone, before that or after.
        let seen = [walter.expect_message(), walter.expect_message()];
        assert!(seen.iter().any(|message| message.topic == "rooms/demo/presence/alice" && message.payload.is_empty()));
        walter.publish(signal("demo", "walter", "after the stay"));
        walter.expect_message();
        let mut observer = observer(&broker);
        observer.publish(Message::new("users/alice/inbox", "{}").qos(1));
        let mut alice = broker.connect(kept(version, "a", "alice"));
        assert!(alice.present());
        assert_eq!(entry(&walter.expect_message()).0, "alice", "it is in again");
        walter.expect_nothing();
        alice.ping();
        let mut topics = Vec::new();
        while let Ok(received) = alice.next(Duration::from_millis(1)) {
            let Packet::Publish(publish) = received.packet() else { continue };
            topics.push(publish.topic.to_owned());
        }
        topics.sort();
        // One of the two entries may have come twice: with the roster, and live.
        topics.dedup();
        assert_eq!(topics, ["rooms/demo/presence/alice", "rooms/demo/presence/walter", "users/alice/inbox"]);
        walter.publish(signal("demo", "walter", "welcome"));
        assert_eq!(body(&alice.expect_message())["text"], "welcome");
    }
}

#[test]
fn a_kept_session_that_is_back_after_its_stay_is_told_when_there_is_no_place() {
    let broker = house(SHORT, |config| config.rooms.members = Some(1));
    let mut alice = member(&broker, kept(Version::V5, "a", "alice"), "demo");
    alice.subscribe("users/alice/errors", 0);
    alice.hang_up();
    broker.wait_until("the grace is over", |running| running.held().members == 0);
    let bob = member(&broker, user(Version::V5, "b", "bob"), "demo");
    let mut alice = broker.connect(kept(Version::V5, "a", "alice"));
    let told = body(&alice.expect_message());
    assert_eq!((&told["topic"], &told["code"]), (&json!("rooms/demo/signal"), &json!(0x97)));
    assert_eq!(told["reason"], "the room is full");
    bob.disconnect();
    alice.expect_nothing();
    assert_eq!(join(&mut alice, "demo"), 1, "it can ask again");
}

#[test]
fn a_kept_session_whose_place_another_took_is_told_when_it_is_back() {
    let broker = house(LONG, |_| {});
    let mut first = member(&broker, kept(Version::V5, "one", "alice"), "demo");
    first.subscribe("users/alice/errors", 0);
    first.hang_up();
    broker.wait_for_connections(0);
    let mut second = member(&broker, user(Version::V5, "two", "alice"), "demo");
    let mut first = broker.connect(kept(Version::V5, "one", "alice"));
    assert!(first.present());
    assert_eq!(body(&first.expect_message())["action"], "replaced");
    second.publish(signal("demo", "alice", "still mine"));
    assert_eq!(body(&second.expect_message())["text"], "still mine");
    first.expect_nothing();
}

#[test]
fn a_room_is_gone_with_its_last_member_and_all_it_held() {
    let broker = house(LONG, |_| {});
    let mut alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    alice.publish(Message::new("rooms/demo/state/board", "x").qos(1).retain());
    assert_eq!((broker.running().held().rooms, broker.running().held().retained), (1, 2));
    alice.disconnect();
    broker.wait_until("nothing is left", |running| running.held() == wigwag::hub::Held::default());
}

/// Both are the server's own messages, of which there can be more at once than a queue has room for others'.
#[test]
fn nobody_is_thrown_out_by_those_who_come_and_go() {
    let broker = house(LONG, |_| {});
    let mut walter = watching(&broker, "demo");
    let mut alice = broker.connect(user(Version::V5, "a", "alice"));
    // Ten seconds' worth at the pace of the class, and more than the burst that it allows.
    let filter = b"\0\x11rooms/demo/signal";
    let (subscribe, unsubscribe) =
        ([b"\x82\x17\0\x01\0", &filter[..], b"\x01"], [b"\xA2\x16\0\x02\0", &filter[..], b""]);
    alice.send_bytes(&[subscribe.concat(), unsubscribe.concat()].concat().repeat(500));
    // The first six seconds' worth comes at once, or the reader would wait for longer.
    let mut here = false;
    for _ in 0..600 {
        let change = walter.expect_message();
        assert_eq!(entry(&change).0, "alice");
        assert_ne!(!change.payload.is_empty(), here, "one joins and leaves in turn");
        here = !here;
    }
    assert_eq!(broker.metric("wigwag_sessions_overflowed_total"), 0);
    assert!(broker.metric("wigwag_room_leaves_total") < 500, "the others wait");
}
