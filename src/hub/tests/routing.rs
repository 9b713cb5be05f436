//! Subscriptions and retained messages.

use std::task::{Poll, Waker};

use crate::{
    backplane::Source,
    client::Client,
    hub::{
        Dirty, End, HubLimits,
        testing::{Asks, CLEAN, KEPT, LIMITS, World},
    },
    policy::grants::Grants,
    session::{QueueLimits, testing::parts},
    wire::mqtt::{QoS, ReasonCode, RetainHandling, SubscribeOptions},
};

const QOS_0: SubscribeOptions = SubscribeOptions::new(QoS::AtMostOnce);
const QOS_1: SubscribeOptions = SubscribeOptions::new(QoS::AtLeastOnce);
const QOS_2: SubscribeOptions = SubscribeOptions::new(QoS::ExactlyOnce);

/// [MQTT-3.8.4-8], [MQTT-3.3.4-2] to [MQTT-3.3.4-4]
#[test]
fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos_with_all_identifiers() {
    let world = World::new();
    let peer = world.connect("client", CLEAN);
    for (filter, options, id) in [("a/b", QOS_0, 1), ("a/#", QOS_2, 2), ("+/b", QOS_1, 0), ("a/b/#", QOS_0, 4)] {
        world.subscribe_with(&peer, filter, options, id).unwrap();
    }
    world.publish("a/b");
    let received = peer.received();
    let [one] = &received[..] else { panic!("{received:?}") };
    let mut parts: Vec<_> = one.split(' ').collect();
    parts[1..].sort_unstable();
    assert_eq!(parts, ["a/b@1", "#1", "#2", "#4"]);
}

/// [MQTT-3.8.4-3]
#[test]
fn subscribing_again_replaces_options_and_identifier() {
    let world = World::new();
    let peer = world.connect("client", CLEAN);
    assert_eq!(world.subscribe_with(&peer, "a", QOS_1, 1), Ok(false));
    assert_eq!(world.subscribe_with(&peer, "a", QOS_0, 2), Ok(true));
    world.publish("a");
    assert_eq!(peer.received(), ["a@0 #2"]);
    assert_eq!(world.hub.held().subscriptions, 1);
    assert!(world.unsubscribe(&peer, "a"));
    assert!(!world.publish("a"));
}

/// 4.8.2: each message to one member; the connected ones take turns.
#[test]
fn a_shared_subscription_sends_each_message_to_one_connected_member() {
    let world = World::new();
    let peers = ["one", "two", "away"].map(|id| world.connect(id, KEPT));
    for peer in &peers {
        world.subscribe(peer, "$share/group/+/x").unwrap();
    }
    world.disconnect(&peers[2], End::Normal);
    for _ in 0..12 {
        world.publish("a/x");
    }
    let counts = peers.each_ref().map(|peer| peer.received().len());
    assert!(counts[0] >= 4 && counts[1] >= 4 && counts[0] + counts[1] == 12, "{counts:?}");
    // With nobody there, somebody's session keeps it.
    world.disconnect(&peers[0], End::Normal);
    world.disconnect(&peers[1], End::Normal);
    world.publish("a/x");
    let queued: usize = peers.iter().map(|peer| peer.session.lock().outbound.queued()).sum();
    assert_eq!(queued, 1);
}

#[test]
fn a_member_that_has_overflowed_is_passed_over() {
    let world = World::new();
    let peers = ["one", "two"].map(|id| world.connect(id, CLEAN));
    for peer in &peers {
        world.subscribe(peer, "$share/group/a").unwrap();
    }
    peers[0].session.lock().ended = true;
    (0..4).for_each(|_| {
        world.publish("a");
    });
    assert_eq!(peers[1].received().len(), 4);
}

/// [MQTT-3.3.1-5] to [MQTT-3.3.1-8]
#[test]
fn the_retained_message_of_a_topic_is_the_last_and_an_empty_one_clears_it() {
    let world = World::new();
    world.retain("a/b/c", b"first", None).unwrap();
    world.retain("a/b/c", b"second!", None).unwrap();
    assert_eq!(world.retained(), (1, "a/b/csecond!".len()));
    for filter in ["a/b/c", "#", "a/b/+"] {
        let peer = world.connect(filter, CLEAN);
        world.subscribe(&peer, filter).unwrap();
        assert_eq!(peer.received(), ["a/b/c@1 retained"]);
        world.disconnect(&peer, End::Normal);
    }
    world.retain("a/b/c", b"", None).unwrap();
    world.retain("never/there", b"", None).unwrap();
    world.assert_empty();
}

/// [MQTT-3.3.1-9] to [MQTT-3.3.1-13]; 4.8.2: none for a shared subscription.
#[test]
fn retained_messages_come_as_the_options_say() {
    let world = World::new();
    world.retain("a", b"kept", None).unwrap();
    let if_new = SubscribeOptions { retain_handling: RetainHandling::SendIfNew, ..QOS_0 };
    let never = SubscribeOptions { retain_handling: RetainHandling::DoNotSend, ..QOS_0 };
    let as_published = SubscribeOptions { retain_as_published: true, ..never };
    let peer = world.connect("client", CLEAN);
    let subscribed = |filter, options| {
        world.subscribe_with(&peer, filter, options, 0).unwrap();
        peer.received().len()
    };
    assert_eq!(subscribed("a", never), 0);
    assert_eq!(subscribed("a", if_new), 0);
    assert_eq!(subscribed("a", QOS_0), 1);
    assert_eq!(subscribed("a", QOS_0), 1);
    assert_eq!(subscribed("+", if_new), 1);
    assert_eq!(subscribed("$share/g/a", QOS_0), 0);
    world.unsubscribe(&peer, "$share/g/a");
    world.unsubscribe(&peer, "+");
    world.retain("a", b"live", None).unwrap();
    assert_eq!(peer.received(), ["a@0"]);
    world.subscribe_with(&peer, "a", as_published, 0).unwrap();
    world.retain("a", b"live", None).unwrap();
    assert_eq!(peer.received(), ["a@0 retained"]);
}

/// [MQTT-3.3.2-5] for retained messages (3.3.2.3.3)
#[test]
fn a_retained_message_that_runs_out_is_forgotten_unless_it_was_replaced() {
    let mut world = World::new();
    world.retain("a", b"short", Some(5)).unwrap();
    world.retain("b", b"short", Some(5)).unwrap();
    world.retain("b", b"longer", Some(50)).unwrap();
    world.retain("c", b"short", Some(5)).unwrap();
    world.retain("c", b"for good", None).unwrap();
    assert_eq!(world.hub.held().timers, 2);
    world.wait(6);
    assert_eq!(world.retained(), (2, "blongercfor good".len()));
    world.wait(50);
    assert_eq!((world.retained().0, world.hub.held().timers), (1, 0));
    world.retain("c", b"", None).unwrap();
    world.assert_empty();
}

#[test]
fn retained_messages_are_bounded_in_number_and_bytes_and_a_refused_one_changes_nothing() {
    let world = World::with(HubLimits { retained_messages: 2, retained_bytes: 20, ..LIMITS });
    let reason = |result: Result<bool, crate::policy::Refusal>| result.map_err(|refusal| refusal.reason);
    let peer = world.connect("client", CLEAN);
    world.subscribe(&peer, "#").unwrap();
    assert_eq!(reason(world.retain("a", &[1; 9], None)), Ok(true));
    assert_eq!(reason(world.retain("b", &[1; 10], None)), Err(ReasonCode::QUOTA_EXCEEDED));
    assert_eq!(reason(world.retain("b", &[1; 9], None)), Ok(true));
    assert_eq!(reason(world.retain("b", &[1; 1], None)), Ok(true), "in place of a larger one");
    assert_eq!(reason(world.retain("c", &[1; 1], None)), Err(ReasonCode::QUOTA_EXCEEDED));
    assert_eq!(reason(world.retain("b", &[1; 10], None)), Err(ReasonCode::QUOTA_EXCEEDED));
    assert_eq!(world.retained(), (2, 12));
    assert_eq!(peer.received().len(), 3, "what is refused is not delivered");
}

/// The levels of a topic take more memory than its text.
#[test]
fn deep_topics_count_for_the_tree_that_they_need() {
    for (levels, bytes) in [(3, 7), (4, 9), (5, 11 + 128), (16, 33 + 12 * 128)] {
        let world = World::with(HubLimits { retained_messages: 1000, retained_bytes: 5000, ..LIMITS });
        let topic = |number: usize| format!("{number:03}{}", "/x".repeat(levels - 1));
        let kept = (0..1000).take_while(|number| world.retain(&topic(*number), b".", None).is_ok()).count();
        assert_eq!((kept, world.retained().1), (5000 / (bytes + 1), kept * (bytes + 1)), "{levels} levels");
        assert!(world.retain(&topic(0), b"!", None).is_ok(), "in place of one");
        for number in 0..kept {
            world.retain(&topic(number), b"", None).unwrap();
        }
        world.assert_empty();
    }
}

#[test]
fn more_retained_messages_than_the_queue_holds_all_arrive() {
    let queue = QueueLimits { messages: 4, own: 4, bytes: 1000 };
    let world = World::with(HubLimits { queue, ..LIMITS });
    for name in 0..10 {
        world.retain(&format!("a/b/{name}"), b".", None).unwrap();
    }
    let peer = world.connect("client", CLEAN);
    world.subscribe(&peer, "a/b/+").unwrap();
    assert!(!peer.session.lock().ended);
    assert_eq!(peer.received().len(), 10);
    world.publish("a/b/live");
    assert_eq!(peer.received(), ["a/b/live@1"]);
}

#[test]
fn a_session_has_so_many_subscriptions_and_no_more() {
    let world = World::new();
    let peer = world.connect("client", CLEAN);
    for number in 0..LIMITS.subscriptions {
        world.subscribe(&peer, &format!("a/{number}")).unwrap();
    }
    let refused = world.subscribe(&peer, "+/more").map_err(|refusal| refusal.reason);
    assert_eq!(refused, Err(ReasonCode::QUOTA_EXCEEDED));
    assert_eq!(world.subscribe(&peer, "a/0"), Ok(true), "an old one may be replaced");
    assert_eq!(world.hub.held().subscriptions, LIMITS.subscriptions);
}

#[test]
fn a_receiver_that_overflows_is_closed_and_its_memory_given_back() {
    let queue = QueueLimits { messages: 3, own: 3, bytes: 1000 };
    let mut world = World::with(HubLimits { queue, ..LIMITS });
    let slow = world.connect("slow", KEPT);
    let away = world.connect("away", KEPT);
    let swift = world.connect("swift", CLEAN);
    for peer in [&slow, &away, &swift] {
        world.subscribe(peer, "a").unwrap();
    }
    world.disconnect(&away, End::Lost);
    slow.script.takes(0);
    // The first goes into the batch that the socket refuses.
    (0..5).for_each(|_| {
        world.publish("a");
    });
    assert_eq!(swift.received().len(), 5, "nobody else is held up");
    let close = slow.session.lock().link().and_then(|link| link.close);
    assert_eq!(close.map(|close| close.reason), Some(ReasonCode::QUOTA_EXCEEDED));
    world.disconnect(&slow, End::Lost);
    world.disconnect(&swift, End::Normal);
    world.wait(1);
    world.assert_empty();
    assert!(!world.connect("away", KEPT).present, "it is not told that all is well");
}

#[test]
fn every_client_in_the_process_is_woken_however_many_there_are() {
    let world = World::new();
    let hub = std::sync::Arc::new(world.hub);
    let mut clients: Vec<_> =
        (0..200).map(|n| Client::new(hub.clone(), &format!("client{n}"), Grants::all()).unwrap()).collect();
    let mut woken = Vec::new();
    for client in &mut clients {
        client.subscribe("a", QoS::AtLeastOnce).unwrap();
        let (count, waker) = crate::session::testing::Woken::new();
        assert!(client.poll_recv(&mut std::task::Context::from_waker(&waker)).is_pending());
        woken.push(count);
    }
    clients[0].publish("a", b"", QoS::AtLeastOnce).unwrap();
    assert!(woken.iter().all(|count| count.times() == 1));
    let cx = &mut std::task::Context::from_waker(Waker::noop());
    assert!(clients.iter_mut().all(|client| matches!(client.poll_recv(cx), Poll::Ready(Some(_)))));
    drop(clients);
    assert_eq!(hub.held(), crate::hub::Held::default());
}

/// A room so large that most of it is written to by the receivers' own tasks.
#[test]
fn beyond_what_is_written_at_once_the_receivers_tasks_are_woken() {
    let world = World::new();
    let peers: Vec<_> = (0..70).map(|n| world.connect(&format!("client {n}"), CLEAN)).collect();
    peers.iter().for_each(|peer| {
        world.subscribe(peer, "a").unwrap();
    });
    world.publish("a");
    let written = peers.iter().filter(|peer| peer.received() == ["a@1"]).count();
    let woken: usize = peers.iter().map(|peer| peer.woken.times()).sum();
    assert_eq!((written, woken), (64, 6));
    // As those tasks do.
    peers.iter().for_each(|peer| world.hub.flush(&peer.session, None, world.now));
    assert_eq!(peers.iter().filter(|peer| peer.received() == ["a@1"]).count(), 6);
}

#[test]
fn whoever_is_left_out_of_a_flush_is_written_to_by_its_own() {
    let world = World::new();
    let peer = world.connect("client", CLEAN);
    world.subscribe(&peer, "a").unwrap();
    let mut dirty = Dirty::default();
    let properties = &Default::default();
    let parts = crate::hub::Parts { qos: QoS::AtMostOnce, ..parts("a", b"", properties) };
    let message = crate::hub::Message::new(&parts, world.now);
    world.hub.publish(Source::Server, crate::policy::PublishPermit::server(message), world.now, &mut dirty).unwrap();
    dirty.flush_except(&peer.session, &world.hub, world.now);
    assert!(peer.received().is_empty());
    world.hub.flush(&peer.session, Some((peer.epoch, b"\xD0\x00")), world.now);
    assert_eq!(peer.received(), ["a@0"]);
}

/// [MQTT-3.8.3-3]
#[test]
fn no_local_leaves_out_the_publisher_alone() {
    let world = World::new();
    let peer = world.connect("client", CLEAN);
    let other = world.connect("other", Asks { expiry: 1, ..CLEAN });
    let options = SubscribeOptions { no_local: true, ..QOS_0 };
    world.subscribe_with(&peer, "a", options, 0).unwrap();
    world.subscribe_with(&other, "a", options, 0).unwrap();
    let publish = crate::wire::mqtt::Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "a",
        packet_id: None,
        properties: Default::default(),
        payload: b"",
    };
    let permit = world.permit(&peer, &publish);
    let mut dirty = Dirty::default();
    assert_eq!(world.hub.publish(Source::Server, permit, world.now, &mut dirty), Ok(true));
    dirty.flush(&world.hub, world.now);
    assert_eq!((peer.received().len(), other.received().len()), (0, 1));
}
