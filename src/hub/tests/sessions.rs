//! How sessions begin, go on and end, and what becomes of wills.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use crate::{
    hub::{
        End, HubLimits, KeptLimits, REVOKED,
        registry::NEVER,
        testing::{Asks, CLEAN, KEPT, LIMITS, World},
    },
    policy::auth::Revocation,
    wire::mqtt::{QoS, ReasonCode},
};

const fn with_will(asks: Asks, delay: u32) -> Asks {
    Asks { will: Some(("will", delay)), ..asks }
}

/// A world with somebody who watches for wills.
fn watched() -> (World, crate::hub::testing::Peer) {
    let world = World::new();
    let watcher = world.connect("watcher", CLEAN);
    world.subscribe(&watcher, "will").unwrap();
    (world, watcher)
}

/// [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
#[test]
fn a_session_waits_for_its_client_with_subscriptions_and_messages() {
    let mut world = World::new();
    let first = world.connect("client", KEPT);
    assert!(!first.present);
    world.subscribe(&first, "a").unwrap();
    world.disconnect(&first, End::Lost);
    assert_eq!(world.kept(), 1);
    world.publish("a");
    world.publish_message("a", b"", QoS::AtMostOnce, false, None).unwrap();
    world.wait(59);
    let second = world.connect("client", KEPT);
    assert!(second.present && second.epoch > first.epoch);
    assert_eq!((world.kept(), world.hub.held().timers), (0, 0));
    world.hub.flush(&second.session, None, world.now);
    assert_eq!(second.received(), ["a@1"]);
    world.disconnect(&second, End::Normal);
    world.wait(61);
    world.assert_empty();
}

#[test]
fn a_clean_start_ends_the_session_that_was_there() {
    let world = World::new();
    let first = world.connect("client", KEPT);
    world.subscribe(&first, "a").unwrap();
    world.disconnect(&first, End::Normal);
    let second = world.connect("client", CLEAN);
    assert!(!second.present);
    assert!(!world.publish("a"));
    assert_eq!((world.hub.held().sessions, world.kept()), (1, 0));
    world.disconnect(&second, End::Normal);
    world.assert_empty();
}

/// [MQTT-3.1.4-3]
#[test]
fn a_second_connection_takes_the_session_over() {
    for asks in [KEPT, CLEAN] {
        let world = World::new();
        let first = world.connect("client", asks);
        world.subscribe(&first, "a").unwrap();
        let second = world.connect("client", asks);
        assert_eq!(second.present, !asks.clean_start);
        assert!(first.script.is_shut() && first.woken.times() > 0);
        let told = first.script.written();
        assert_eq!((told[0], told[2]), (0xE0, ReasonCode::SESSION_TAKEN_OVER.0));
        // The task of the first finds out later and says so; the second is none the worse for it.
        world.disconnect(&first, End::Lost);
        assert!(second.session.lock().connected());
        assert_eq!(world.publish("a"), !asks.clean_start);
        assert_eq!(world.hub.held().sessions, 1);
        world.disconnect(&second, End::Normal);
        assert!(world.connect("client", CLEAN).epoch > 0);
    }
}

#[test]
fn a_client_id_is_for_its_user_alone_while_its_session_lasts() {
    let mut world = World::new();
    let alice = world.try_connect("client", "alice", KEPT).unwrap();
    let refused = |world: &World, asks| {
        world.try_connect("client", "mallory", asks).map(|_| ()).map_err(|refusal| refusal.reason)
    };
    for asks in [KEPT, CLEAN] {
        assert_eq!(refused(&world, asks), Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID));
    }
    assert!(alice.session.lock().connected());
    world.disconnect(&alice, End::Normal);
    assert_eq!(refused(&world, CLEAN), Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID));
    world.wait(61);
    assert_eq!(refused(&world, CLEAN), Ok(()));
}

#[test]
fn so_many_sessions_are_kept_and_no_more() {
    let mut world = World::with(HubLimits { sessions: KeptLimits { all: 2, ..LIMITS.sessions }, ..LIMITS });
    let peers = ["one", "two", "three"].map(|id| world.connect(id, KEPT));
    peers.iter().for_each(|peer| world.disconnect(peer, End::Lost));
    assert_eq!((world.kept(), world.hub.held().sessions), (2, 2));
    assert!(!world.connect("three", CLEAN).present);
    let back = world.connect("one", KEPT);
    assert_eq!(world.kept(), 1);
    world.disconnect(&back, End::Lost);
    world.disconnect(&back, End::Lost);
    assert_eq!(world.kept(), 2, "a connection ends once");
    world.wait(61);
    assert_eq!(world.kept(), 0);
}

fn displaced(world: &World, limit: &str) -> bool {
    let counted = format!("wigwag_sessions_displaced_total{{limit=\"{limit}\"}} 0");
    !world.metrics().contains(&counted)
}

#[test]
fn a_user_who_keeps_too_many_sessions_loses_the_oldest_of_its_own() {
    let sessions = KeptLimits { all: 5, per_user: 3, per_address: 10 };
    let mut world = World::with(HubLimits { sessions, ..LIMITS });
    let watcher = world.connect("watcher", CLEAN);
    world.subscribe(&watcher, "will").unwrap();
    let keep = |world: &World, id: &str, user: &str| {
        let peer =
            world.try_connect(id, user, with_will(KEPT, 30)).unwrap_or_else(|refusal| panic!("{}", refusal.what));
        world.subscribe(&peer, &format!("to/{id}")).unwrap();
        world.disconnect(&peer, End::Lost);
        peer.present
    };
    let before = world.hub.held().timers;
    keep(&world, "bob", "bob");
    for (id, user) in [("a1", "alice"), ("a2", "alice~phone"), ("a3", "alice~laptop")] {
        keep(&world, id, user);
    }
    assert!((world.kept(), displaced(&world, "user")) == (4, false) && watcher.received().is_empty());
    // Who comes back and leaves again is the youngest.
    assert!(keep(&world, "a1", "alice"));
    for n in 0..20 {
        keep(&world, &format!("page-{n}"), "alice");
        let ended =
            ["a2", "a3", "a1"].get(n).map_or(format!("to/page-{}", n.saturating_sub(3)), |id| format!("to/{id}"));
        assert!(!world.publish(&ended), "{ended} has made room");
        assert_eq!(watcher.received(), ["will@1"], "as if it had expired");
        assert_eq!((world.kept(), world.hub.held().sessions), (4, 5));
        assert_eq!(world.hub.held().timers - before, 2 * 4, "expiry and will of each");
    }
    assert!(displaced(&world, "user") && !displaced(&world, "address"));
    assert!(world.publish("to/page-17") && world.publish("to/bob"));
    // A full server refuses those who have nothing to make room with.
    keep(&world, "carol", "carol");
    keep(&world, "dave", "dave");
    assert!(!world.publish("to/dave") && world.publish("to/carol"));
    keep(&world, "page-20", "alice");
    assert!(world.publish("to/page-20"), "its own made room");
    world.disconnect(&watcher, End::Normal);
    world.wait(61);
    world.assert_empty();
}

#[test]
fn of_an_address_with_too_many_sessions_the_oldest_ends() {
    let sessions = KeptLimits { all: 100, per_user: 2, per_address: 3 };
    let mut world = World::with(HubLimits { sessions, ..LIMITS });
    let keep = |world: &World, id: &str, user: &str, address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        let peer =
            world.try_connect(id, user, Asks { address, ..KEPT }).unwrap_or_else(|refusal| panic!("{}", refusal.what));
        world.subscribe(&peer, &format!("to/{id}")).unwrap();
        world.disconnect(&peer, End::Normal);
    };
    keep(&world, "elsewhere", "elsewhere", Some("192.0.2.2"));
    for n in 0..10 {
        keep(&world, &format!("nowhere {n}"), &format!("nowhere {n}"), None); // a stream that somebody else accepted
    }
    for n in 0..20 {
        let id = format!("random {n}");
        keep(&world, &id, &id, Some("192.0.2.1"));
        assert_eq!(world.kept(), 11 + (n + 1).min(3));
        assert!(n < 3 || !world.publish(&format!("to/random {}", n - 3)));
    }
    assert!(displaced(&world, "address") && !displaced(&world, "user"));
    assert!(world.publish("to/elsewhere") && world.publish("to/nowhere 0") && world.publish("to/random 17"));
    // Its last connection is what counts.
    keep(&world, "random 17", "random 17", Some("192.0.2.2"));
    keep(&world, "random 20", "random 20", Some("192.0.2.1"));
    assert!(world.publish("to/random 18"));
    // One that comes may end two: the oldest of its user and the oldest of its address.
    keep(&world, "x1", "x", Some("192.0.2.3"));
    keep(&world, "x2", "x", Some("192.0.2.3"));
    let before = world.kept();
    keep(&world, "x3", "x", Some("192.0.2.1"));
    assert_eq!(world.kept(), before - 1);
    assert!(!world.publish("to/x1") && !world.publish("to/random 18") && world.publish("to/x2"));
    world.wait(61);
    world.assert_empty();
}

/// Against a list of who waits, in order.
#[test]
fn places_are_counted_as_they_are_taken_and_given_back() {
    let sessions = KeptLimits { all: 40, per_user: 4, per_address: 12 };
    let mut world = World::with(HubLimits { sessions, ..LIMITS });
    let mut waiting: Vec<(String, u32, u32)> = Vec::new();
    let mut random = 1_u32;
    for _ in 0..5_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (user, device, address, way) =
            ((random >> 8) % 16, (random >> 12) % 8, (random >> 15) % 5, (random >> 18) % 8);
        let id = format!("{user} {device}");
        let from = IpAddr::from([192, 0, 2, address as u8]);
        let asks = Asks { clean_start: way == 0, address: Some(from), ..KEPT };
        let peer = world.try_connect(&id, &format!("{user}~{device}"), asks).map_err(|refusal| refusal.what).unwrap();
        let there = waiting.iter().position(|(other, ..)| *other == id);
        assert_eq!(peer.present, there.is_some() && way != 0, "{id}");
        there.map(|position| waiting.remove(position));
        if way == 1 {
            peer.session.lock().expiry = 0;
        } else {
            let mut make_room = |of: &dyn Fn(&(String, u32, u32)) -> bool, limit| {
                if waiting.iter().filter(|other| of(other)).count() == limit {
                    let oldest = waiting.iter().position(of).unwrap();
                    waiting.remove(oldest);
                }
            };
            make_room(&|other| other.1 == user, 4);
            make_room(&|other| other.2 == address, 12);
            if waiting.len() < 40 {
                waiting.push((id, user, address));
            }
        }
        world.disconnect(&peer, End::Normal);
        assert_eq!((world.kept(), world.hub.held().sessions), (waiting.len(), waiting.len()));
    }
    assert!(waiting.len() > 20 && displaced(&world, "user") && displaced(&world, "address"));
    world.wait(61);
    world.assert_empty();
}

/// 3.1.2.11.2
#[test]
fn a_session_that_never_expires_sets_no_timer_and_the_longest_that_does_is_no_overflow() {
    let mut world = World::new();
    let never = world.connect("never", Asks { expiry: NEVER, ..KEPT });
    let long = world.connect("long", with_will(Asks { expiry: NEVER - 1, ..KEPT }, u32::MAX));
    world.disconnect(&never, End::Lost);
    world.disconnect(&long, End::Lost);
    assert_eq!(world.hub.held().timers, 2);
    world.wait(u32::MAX.into());
    assert_eq!(world.hub.held().sessions, 1);
    assert!(world.connect("never", KEPT).present);
}

/// [MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.14.4-3]
#[test]
fn a_will_is_sent_when_the_connection_is_lost_and_not_after_a_goodbye() {
    for asks in [CLEAN, KEPT] {
        for (end, wills) in [(End::Lost, 1), (End::Normal, 0)] {
            let (mut world, watcher) = watched();
            let peer = world.connect("client", with_will(asks, 0));
            world.disconnect(&peer, end);
            assert_eq!(watcher.received().len(), wills);
            world.wait(100);
            assert_eq!(watcher.received().len(), 0, "once");
        }
    }
}

/// 3.1.3.2.2
#[test]
fn a_will_waits_for_its_delay_or_for_the_end_of_the_session_whichever_is_first() {
    for (delay, expiry, sent_after) in [(5, 60, 5), (60, 5, 5), (60, 60, 60), (30, 0, 0), (5, NEVER, 5)] {
        let (mut world, watcher) = watched();
        let peer = world.connect("client", with_will(Asks { expiry, ..KEPT }, delay));
        world.disconnect(&peer, End::Lost);
        if sent_after > 0 {
            world.wait(sent_after - 1);
            assert_eq!(watcher.received().len(), 0);
            world.wait(1);
        }
        assert_eq!(watcher.received(), ["will@1"], "{delay} {expiry}");
        world.wait(100);
        assert_eq!(watcher.received().len(), 0, "once");
    }
}

/// [MQTT-3.1.3-9]
#[test]
fn a_will_that_waits_dies_with_a_resumption_and_is_sent_at_a_clean_start() {
    for (asks, wills) in [(KEPT, 0), (CLEAN, 1)] {
        let (mut world, watcher) = watched();
        let first = world.connect("client", with_will(KEPT, 30));
        world.disconnect(&first, End::Lost);
        world.wait(10);
        let second = world.connect("client", asks);
        assert_eq!(second.present, wills == 0);
        world.wait(100);
        assert_eq!(watcher.received().len(), wills);
    }
}

/// 3.1.4-3 with 3.1.3.2.2: who is taken over has lost its connection.
#[test]
fn a_take_over_sends_the_will_of_the_connection_it_ends_unless_that_can_wait() {
    for (delay, asks, wills) in [(0, KEPT, 1), (0, CLEAN, 1), (30, KEPT, 0), (30, CLEAN, 1)] {
        let (mut world, watcher) = watched();
        world.connect("client", with_will(KEPT, delay));
        world.connect("client", asks);
        assert_eq!(watcher.received().len(), wills, "delay {delay}, clean {}", asks.clean_start);
        world.wait(100);
        assert_eq!(watcher.received().len(), 0);
    }
}

#[test]
fn a_will_is_not_lost_with_a_session_that_cannot_be_resumed() {
    for connected in [true, false] {
        let (world, watcher) = watched();
        let first = world.connect("client", with_will(KEPT, 30));
        if !connected {
            world.disconnect(&first, End::Lost);
        }
        first.session.lock().ended = true; // it has overflowed, or has just run out
        assert!(!world.connect("client", KEPT).present);
        assert_eq!(watcher.received(), ["will@1"]);
    }
}

#[test]
fn a_will_of_the_next_connection_replaces_that_of_the_last() {
    let (mut world, watcher) = watched();
    let first = world.connect("client", with_will(KEPT, 30));
    world.disconnect(&first, End::Lost);
    let second = world.connect("client", with_will(KEPT, 10));
    world.disconnect(&second, End::Lost);
    world.wait(10);
    assert_eq!(watcher.received().len(), 1);
    world.wait(100);
    assert_eq!(watcher.received().len(), 0);
}

/// [MQTT-3.1.2-22]
#[test]
fn a_silent_client_is_closed_after_one_and_a_half_times_its_keep_alive() {
    let mut world = World::new();
    let peer = world.connect("client", CLEAN);
    peer.session.lock().link().unwrap().silence = std::num::NonZeroU32::new(15_000);
    world.hub.watch_silence(&peer.session, peer.epoch, world.now);
    let closed = || peer.session.lock().link().unwrap().close;
    world.wait(10);
    peer.session.hear(world.hub.millis(world.now));
    world.wait(14);
    assert_eq!(closed(), None);
    world.wait(1);
    assert_eq!(closed().map(|close| close.reason), Some(ReasonCode::KEEP_ALIVE_TIMEOUT));
    world.disconnect(&peer, End::Lost);
    world.assert_empty();
}

#[test]
fn nobody_is_judged_by_time_in_which_the_process_did_not_run() {
    let mut world = World::new();
    let [pinging, silent, slow, stuck] = ["pinging", "silent", "slow", "stuck"].map(|id| world.connect(id, CLEAN));
    for peer in [&pinging, &silent] {
        peer.session.lock().link().unwrap().silence = std::num::NonZeroU32::new(15_000);
        world.hub.watch_silence(&peer.session, peer.epoch, world.now);
    }
    for peer in [&slow, &stuck] {
        world.subscribe(peer, "a").unwrap();
        peer.script.takes(0);
    }
    world.publish("a");
    let closed = |peer: &crate::hub::testing::Peer| peer.session.lock().link().unwrap().close.map(|close| close.reason);
    for stop in [100, 1000] {
        let wanted = world.now + Duration::from_millis(50);
        world.now += Duration::from_secs(stop);
        world.hub.clock.looked_up(wanted, world.now);
        world.wait(1);
        assert_eq!([&pinging, &silent, &slow, &stuck].map(closed), [None; 4]);
    }
    // By now the workers have read what had come, and written what there was room for.
    pinging.session.hear(world.hub.millis(world.now));
    slow.script.takes(usize::MAX);
    world.hub.flush(&slow.session, None, world.now);
    world.wait(1);
    let (silence, refusal) = (Some(ReasonCode::KEEP_ALIVE_TIMEOUT), Some(ReasonCode::UNSPECIFIED_ERROR));
    assert_eq!([&pinging, &silent, &slow, &stuck].map(closed), [None, silence, None, refusal]);
    // A clock that is as late as clocks are changes nothing.
    world.wait(14);
    world.hub.clock.looked_up(world.now - Duration::from_millis(100), world.now);
    world.wait(1);
    assert_eq!(closed(&pinging), silence);
    [&pinging, &silent, &slow, &stuck].into_iter().for_each(|peer| world.disconnect(peer, End::Lost));
    world.assert_empty();
}

#[test]
fn a_socket_that_takes_nothing_is_closed_after_the_write_timeout_and_a_slow_one_is_not() {
    for (takes, closes) in [(0, true), (1, false)] {
        let mut world = World::new();
        let peer = world.connect("client", CLEAN);
        world.subscribe(&peer, "a").unwrap();
        peer.script.takes(0);
        world.publish("a");
        for _ in 0..4 {
            world.wait(5);
            peer.script.takes(takes);
            world.hub.flush(&peer.session, None, world.now); // as its task does when the socket has room
        }
        assert_eq!(peer.session.lock().link().unwrap().close.is_some(), closes);
        world.disconnect(&peer, End::Lost);
        world.assert_empty();
    }
}

#[test]
fn a_socket_that_recovers_is_watched_again_when_it_next_stalls() {
    let mut world = World::new();
    let peer = world.connect("client", CLEAN);
    world.subscribe(&peer, "a").unwrap();
    for _ in 0..3 {
        peer.script.takes(0);
        world.publish("a");
        assert_eq!(world.hub.held().timers, 1);
        world.wait(5);
        peer.script.takes(usize::MAX);
        world.hub.flush(&peer.session, None, world.now);
        assert_eq!(peer.received(), ["a@1"]);
        world.wait(20);
        assert_eq!(world.hub.held().timers, 0);
    }
    peer.script.takes(0);
    world.publish("a");
    world.wait(10);
    assert!(peer.session.lock().link().unwrap().close.is_some());
}

#[test]
fn everybody_can_be_asked_to_leave() {
    let world = World::new();
    let peers = ["one", "two"].map(|id| world.connect(id, KEPT));
    world.disconnect(&peers[1], End::Normal);
    world.hub.close_all(crate::hub::registry::SILENT);
    assert!(peers[0].session.lock().link().unwrap().close.is_some());
}

/// What was shown was good a moment ago, and those who were connected have been looked through already.
#[test]
fn who_is_revoked_while_it_connects_is_ended() {
    let world = World::new();
    let peer = world.connect("client", KEPT);
    let identity = peer.session.lock().identity.clone().unwrap();
    world.hub.identify(&peer.session, peer.epoch, &identity, world.now);
    assert_eq!(peer.session.lock().link().unwrap().close, None);
    world.hub.policy.auth.revocations().revoke(Revocation::User("user".into()), SystemTime::now()).unwrap();
    world.hub.identify(&peer.session, peer.epoch, &identity, world.now);
    let mut state = peer.session.lock();
    assert!(state.ended);
    assert_eq!(state.link().unwrap().close, Some(REVOKED));
}
