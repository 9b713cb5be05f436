//! Retained messages for filters that match more of them than a queue holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;

use crate::{
    backplane::Source,
    client::Client,
    hub::{
        Dirty, End, HubLimits, KeptLimits,
        testing::{CLEAN, KEPT, LIMITS, Peer, World},
    },
    policy::grants::Grants,
    session::{QueueLimits, testing::whole_packets},
    wire::mqtt::{Packet, QoS, RetainHandling, SubscribeOptions, Version, topic},
};

const QUEUE: QueueLimits = QueueLimits { messages: 40, own: 40, bytes: 100_000 };
const PORTION: usize = QUEUE.messages / 4;
/// Of `testing::terms`.
const WINDOW: usize = 100;

fn world() -> World {
    let sessions = KeptLimits { all: 1000, per_user: 1000, per_address: 1000 };
    let limits = HubLimits { queue: QUEUE, sessions, retained_messages: 100_000, retained_bytes: 1 << 30, ..LIMITS };
    World::with(limits)
}

fn full_world(count: usize) -> World {
    let world = world();
    for number in 0..count {
        world.retain(&format!("a/{number}"), b"0", None).unwrap();
    }
    world
}

/// What one receiver has read.
#[derive(Default)]
struct Reader {
    bytes: Vec<u8>,
    /// Topic, payload, and whether it came from the store.
    messages: Vec<(String, String, bool)>,
}

impl Reader {
    /// Lets the peer take so many bytes more, and acknowledges what is whole.
    fn read(&mut self, world: &World, peer: &Peer, bytes: usize) {
        peer.script.takes(bytes);
        world.hub.flush(&peer.session, None, world.now);
        world.settle(peer);
        self.bytes.extend(peer.script.written());
        let (packets, rest) = whole_packets(&self.bytes, Version::V5);
        let rest = rest.len();
        for packet in packets {
            let Packet::Publish(publish) = packet else { continue };
            publish.packet_id.into_iter().for_each(|id| assert!(peer.session.lock().outbound.puback(id)));
            let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
            self.messages.push((publish.topic.to_owned(), payload, publish.retain));
        }
        self.bytes.drain(..self.bytes.len() - rest);
    }

    fn read_all(&mut self, world: &World, peer: &Peer) {
        loop {
            let before = self.messages.len();
            self.read(world, peer, usize::MAX);
            if self.messages.len() == before {
                return;
            }
        }
    }
}

#[test]
fn absent_sessions_hold_a_portion_each_and_go_on_when_they_are_back() {
    const RETAINED: usize = 20_000;
    let world = full_world(RETAINED);
    let connect = |number: usize| world.connect(&format!("client {number}"), KEPT);
    let peers: Vec<_> = (0..200).map(connect).collect();
    for peer in &peers {
        peer.script.takes(0);
        world.subscribe(peer, "#").unwrap();
        world.disconnect(peer, End::Lost);
        let outbound = &peer.session.lock().outbound;
        assert!(outbound.queued() + outbound.in_flight() <= PORTION + WINDOW);
    }
    let back = connect(7);
    assert!(back.present);
    let mut reader = Reader::default();
    reader.read_all(&world, &back);
    assert_eq!(reader.messages.len(), RETAINED);
    assert_eq!(reader.messages.iter().collect::<BTreeSet<_>>().len(), RETAINED);
}

#[test]
fn a_slow_reader_gets_every_one_once_while_others_are_set_replaced_and_cleared() {
    const RETAINED: usize = 20_000;
    let world = full_world(RETAINED);
    let peer = world.connect("slow", CLEAN);
    peer.script.takes(0);
    world.subscribe(&peer, "#").unwrap();
    let mut reader = Reader::default();
    for round in 0.. {
        let before = reader.messages.len();
        reader.read(&world, &peer, 1000);
        if round < 100 {
            world.retain(&format!("b/{round}"), b"1", None).unwrap(); // another
            world.retain(&format!("a/{}", round * 100), b"1", None).unwrap(); // in place of one
            world.retain(&format!("a/{}", round * 100 + 50), b"", None).unwrap(); // the end of one
            let outbound = &peer.session.lock().outbound;
            assert!(outbound.queued() <= QUEUE.messages + PORTION);
        } else if reader.messages.len() == before {
            break;
        }
    }
    let mut came = BTreeMap::<_, Vec<_>>::new();
    for (topic, payload, stored) in &reader.messages {
        came.entry(topic.as_str()).or_default().push((payload.as_str(), *stored));
    }
    for number in 0..RETAINED {
        let came = came.remove(format!("a/{number}").as_str()).unwrap_or_default();
        match number % 100 {
            0 if number < 10_000 => {
                assert!(matches!(came[..], [("1", false)] | [("0", true), ("1", false)]), "{came:?}")
            }
            50 if number < 10_000 => {
                assert!(matches!(came[..], [("", false)] | [("0", true), ("", false)]), "{came:?}")
            }
            _ => assert_eq!(came, [("0", true)], "a/{number}"),
        }
    }
    assert_eq!(came.len(), 100);
    assert!(came.values().all(|came| *came == [("1", false)]));
}

#[test]
fn live_messages_wait_behind_and_none_is_lost_for_the_sake_of_retained_ones() {
    for (qos, most) in
        [(QoS::AtMostOnce, QUEUE.messages * 3 / 4 - PORTION), (QoS::AtLeastOnce, QUEUE.messages - PORTION)]
    {
        let world = full_world(1000);
        let peer = world.connect("client", CLEAN);
        peer.script.takes(0);
        world.subscribe(&peer, "a/+").unwrap();
        // The socket refuses a batch, and a portion waits behind that.
        let publish = || world.publish_message("a/live", b"live", qos, false, None).unwrap();
        (0..most).for_each(|_| assert!(publish()));
        assert!(!peer.session.lock().ended);
        let mut reader = Reader::default();
        reader.read_all(&world, &peer);
        let live: Vec<_> = (0..reader.messages.len()).filter(|at| reader.messages[*at].1 == "live").collect();
        assert_eq!((reader.messages.len(), live.len()), (1000 + most, most));
        // The first of more than half a queue of them did not wait so long.
        let waited = most.min(QUEUE.messages / 2);
        assert!(live[most - waited..].iter().copied().eq(1000 + most - waited..1000 + most), "{live:?}");
    }
}

/// What is in flight leaves room for one more at times, and none at others.
#[test]
fn large_messages_come_a_few_at_a_time_and_all_of_them() {
    for size in [100, 600, 3000] {
        let queue = QueueLimits { bytes: 4000, ..QUEUE };
        let world = World::with(HubLimits { queue, retained_messages: 1000, retained_bytes: 1 << 20, ..LIMITS });
        for number in 0..100 {
            world.retain(&format!("a/{number}"), &vec![b'.'; size], None).unwrap();
        }
        let peer = world.connect("client", CLEAN);
        world.subscribe(&peer, "a/+").unwrap();
        let mut reader = Reader::default();
        for _ in 0..5 {
            world.publish("a/live");
        }
        reader.read_all(&world, &peer);
        let topics: BTreeSet<_> = reader.messages.iter().map(|(topic, ..)| topic).collect();
        assert_eq!((topics.len(), reader.messages.len()), (101, 105), "{size}");
    }
}

#[test]
fn a_second_filter_with_few_matches_does_not_wait_for_the_first() {
    let world = full_world(1000);
    world.retain("room/x/presence/ada", b"here", None).unwrap();
    let peer = world.connect("client", CLEAN);
    peer.script.takes(0);
    let mut reader = Reader::default();
    world.subscribe(&peer, "a/#").unwrap();
    world.subscribe(&peer, "room/x/presence/+").unwrap();
    reader.read_all(&world, &peer);
    let at = reader.messages.iter().position(|(_, payload, _)| payload == "here").unwrap();
    assert!(at <= WINDOW + 2 * PORTION, "at {at}");
    assert_eq!(reader.messages.len(), 1001);
}

#[test]
fn what_a_subscription_was_still_to_bring_ends_with_it() {
    for again in [None, Some(RetainHandling::DoNotSend), Some(RetainHandling::SendAtSubscribe)] {
        let world = full_world(1000);
        let peer = world.connect("client", CLEAN);
        peer.script.takes(0);
        world.subscribe(&peer, "#").unwrap();
        world.publish("b");
        match again {
            None => assert!(world.unsubscribe(&peer, "#")),
            Some(retain_handling) => {
                let options = SubscribeOptions { retain_handling, ..SubscribeOptions::new(QoS::AtLeastOnce) };
                assert_eq!(world.subscribe_with(&peer, "#", options, 0), Ok(true));
            }
        }
        let mut reader = Reader::default();
        reader.read_all(&world, &peer);
        let begun = WINDOW + PORTION;
        let expected = match again {
            None => 0..=begun,
            Some(RetainHandling::DoNotSend) => 1000..=1000, // what was asked for before is not lost [MQTT-3.8.4-4]
            Some(_) => 1000..=1000 + begun,
        };
        let (live, stored): (Vec<_>, Vec<_>) = reader.messages.iter().partition(|(topic, ..)| topic == "b");
        assert!(expected.contains(&stored.len()), "{again:?}: {}", stored.len());
        assert_eq!(live.len(), 1, "and what waited for it does not wait any more");
        assert!(!peer.session.lock().outbound.collecting());
    }
}

#[test]
fn what_ran_out_or_is_ones_own_is_left_out_later_too() {
    let mut world = world();
    let peer = world.connect("client", CLEAN);
    for number in 0..600 {
        let expiry = (number % 3 == 0).then_some(5);
        world.retain(&format!("a/{number}"), b"0", expiry).unwrap();
    }
    let own = |number: usize| {
        let (topic, payload) = (format!("a/own/{number}"), &b"own"[..]);
        let properties = Default::default();
        let qos = QoS::AtLeastOnce;
        let publish = crate::wire::mqtt::Publish {
            dup: false,
            qos,
            retain: true,
            topic: &topic,
            packet_id: None,
            properties,
            payload,
        };
        let permit = world.permit(&peer, &publish);
        world.hub.publish(Source::Server, permit, world.now, &mut Dirty::default()).unwrap();
    };
    (0..300).for_each(own);
    peer.script.takes(0);
    let options = SubscribeOptions { no_local: true, ..SubscribeOptions::new(QoS::AtLeastOnce) };
    world.subscribe_with(&peer, "#", options, 9).unwrap();
    world.now += std::time::Duration::from_secs(6);
    let mut reader = Reader::default();
    reader.read_all(&world, &peer);
    let left =
        reader.messages.iter().filter(|(topic, ..)| topic.split('/').nth(1).unwrap().parse::<usize>().unwrap() % 3 > 0);
    assert_eq!(left.count(), 400);
    assert!(reader.messages.len() <= 400 + WINDOW + PORTION, "some were in flight before they ran out");
    world.wait(1);
    assert_eq!(world.retained().0, 700);
}

#[test]
fn a_client_in_the_process_gets_everything_too() {
    let hub = Arc::new(full_world(5000).hub);
    let cx = &mut Context::from_waker(Waker::noop());
    for filter in ["#", "a/+"] {
        let mut topics = BTreeSet::new();
        let mut client = Client::new(hub.clone(), "client", Grants::all()).unwrap();
        client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        client.publish("a/live", b"", QoS::AtLeastOnce).unwrap();
        while topics.len() < 5001 {
            if let Poll::Ready(received) = client.poll_recv(cx) {
                let received = received.expect("it is not ended");
                assert_eq!(received.retain(), topics.len() < 5000);
                assert!(topics.insert(received.topic().to_owned()));
            }
        }
        assert!(client.poll_recv(cx).is_pending());
    }
}

#[test]
fn a_client_in_the_process_that_is_ended_takes_what_was_queued() {
    let hub = Arc::new(full_world(5000).hub);
    let mut client = Client::new(hub.clone(), "client", Grants::all()).unwrap();
    client.subscribe("a/+", QoS::AtLeastOnce).unwrap();
    client.publish("a/live", b"", QoS::AtLeastOnce).unwrap();
    hub.drain_all(crate::hub::registry::SILENT);
    let mut taken = Vec::new();
    while let Poll::Ready(Some(received)) = client.poll_recv(&mut Context::from_waker(Waker::noop())) {
        taken.push(received.topic().to_owned());
    }
    assert_eq!((taken.len(), taken.last().map(String::as_str)), (PORTION + 1, Some("a/live")));
}

#[derive(Debug, Clone)]
enum Step {
    Set(usize),
    Clear(usize),
    Publish(usize),
    Read(usize),
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..TOPICS).prop_map(Step::Set),
        2 => (0..TOPICS).prop_map(Step::Clear),
        1 => (0..TOPICS).prop_map(Step::Publish),
        6 => (1..400usize).prop_map(Step::Read),
        1 => Just(Step::Break),
    ]
}

const TOPICS: usize = 200;

/// Half of them in one room, which is one shard.
fn name(number: usize) -> String {
    if number < TOPICS / 2 { format!("rooms/one/{number}/x") } else { format!("rooms/{number}/x") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Each topic tells its own story in order: what was retained, unless it was replaced or cleared first, and then
    /// everything that was published since the subscription began.
    #[test]
    fn every_topic_arrives_whole(
        filter in prop_oneof![Just("#"), Just("rooms/+/x"), Just("rooms/one/#"), Just("rooms/one/+/x"), Just("+/+/7/x")],
        retained in prop::collection::vec(0..TOPICS, 0..400),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let world = world();
        let mut held = BTreeMap::new();
        let mut version = 0;
        for number in retained {
            version += 1;
            world.retain(&name(number), version.to_string().as_bytes(), None).unwrap();
            held.insert(number, version.to_string());
        }
        let mut peer = world.connect("client", KEPT);
        peer.script.takes(0);
        world.subscribe(&peer, filter).unwrap();
        let mut reader = Reader::default();
        let mut live = BTreeMap::<_, Vec<_>>::new();
        for step in steps {
            match step {
                Step::Set(number) | Step::Clear(number) | Step::Publish(number) => {
                    version += 1;
                    let cleared = matches!(step, Step::Clear(_));
                    let payload = if cleared { String::new() } else { version.to_string() };
                    let retain = !matches!(step, Step::Publish(_));
                    world.publish_message(&name(number), payload.as_bytes(), QoS::AtLeastOnce, retain, None).unwrap();
                    live.entry(number).or_default().push((payload, false, retain));
                    if peer.session.lock().outbound.queued() > QUEUE.messages / 2 {
                        reader.read(&world, &peer, 1000);
                    }
                }
                Step::Read(bytes) => reader.read(&world, &peer, bytes),
                Step::Break => {
                    // What was not read whole is sent again.
                    world.disconnect(&peer, End::Lost);
                    reader.bytes.clear();
                    peer = world.connect("client", KEPT);
                }
            }
            prop_assert!(!peer.session.lock().ended);
        }
        reader.read_all(&world, &peer);
        for number in 0..TOPICS {
            let topic = name(number);
            let mine = reader.messages.iter().filter(|(name, ..)| *name == topic);
            let mut came: Vec<_> = mine.map(|(_, payload, stored)| (payload.clone(), *stored)).collect();
            let live = live.remove(&number).unwrap_or_default();
            let untouched = live.iter().all(|(.., retain)| !retain);
            if !topic::matches(filter, &topic) {
                prop_assert!(came.is_empty());
                continue;
            }
            let stored: Vec<_> = came.extract_if(.., |(_, stored)| *stored).map(|(payload, _)| payload).collect();
            let expected: Vec<_> = held.get(&number).cloned().into_iter().collect();
            prop_assert!(stored == expected || (stored.is_empty() && !untouched), "{stored:?} {expected:?}");
            let live: Vec<_> = live.into_iter().map(|(payload, ..)| payload).collect();
            prop_assert_eq!(came.into_iter().map(|(payload, _)| payload).collect::<Vec<_>>(), live);
        }
        world.disconnect(&peer, End::Normal);
    }
}
