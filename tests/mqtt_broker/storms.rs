//! What each clause promises, under many connections that come, go and break at any moment.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use crate::harness::*;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A publisher of QoS 2 messages as 4.3.3 and 4.4 want it, whose connection breaks now and then.
struct Publisher {
    client: Client,
    /// What is under way: identifier, payload, whether PUBREC has come.
    pending: VecDeque<(u16, String, bool)>,
    dice: Dice,
}

impl Publisher {
    fn publish_all(&mut self, broker: &Broker, count: usize) {
        let mut next = 0;
        while next < count || !self.pending.is_empty() {
            let mut connection = broker.connect(self.client.clone());
            let breaks_after = 5 + self.dice.below(60);
            for (id, payload, received) in &self.pending {
                match received {
                    true => connection.send_pubrel(*id),
                    false => drop(connection.send_publish(Message::new("t", payload).qos(2).id(*id).dup())),
                }
            }
            for _ in 0..breaks_after {
                while self.pending.len() < 10 && next < count {
                    let id = (next % 1000 + 1) as u16;
                    connection.send_publish(Message::new("t", next.to_string()).qos(2).id(id));
                    self.pending.push_back((id, next.to_string(), false));
                    next += 1;
                }
                if self.pending.is_empty() {
                    break;
                }
                match connection.receive().packet() {
                    Packet::PubRec(ack) => {
                        let id = ack.packet_id.get();
                        self.pending.iter_mut().filter(|entry| entry.0 == id).for_each(|entry| entry.2 = true);
                        connection.send_pubrel(id);
                    }
                    Packet::PubComp(ack) => self.pending.retain(|entry| entry.0 != ack.packet_id.get()),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

/// A subscriber likewise, that has received what is to be received when `count` messages are complete.
fn subscribe_all(broker: &Broker, client: &Client, mut dice: Dice, count: usize) -> Vec<String> {
    let (mut messages, mut unreleased, mut completed) = (Vec::new(), HashSet::new(), 0);
    while completed < count {
        let mut connection = broker.connect(client.clone());
        assert!(connection.present());
        for _ in 0..5 + dice.below(60) {
            if completed == count {
                break;
            }
            match connection.receive().packet() {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.expect("QoS 2").get();
                    if unreleased.insert(id) {
                        messages.push(String::from_utf8(publish.payload.into()).expect("text"));
                    } else {
                        assert!(publish.dup, "[MQTT-2.2.1-3], [MQTT-3.3.1-1]");
                    }
                    connection.send_pubrec(id);
                }
                Packet::PubRel(ack) => {
                    let id = ack.packet_id.get();
                    completed += usize::from(unreleased.remove(&id));
                    connection.send_pubcomp(id);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    messages
}

/// [MQTT-4.3.3-1] and following, [MQTT-4.4.0-1], [MQTT-4.6.0-5]: exactly once and in order, though both ends lose
/// their connection all the time, sometimes to a take-over of their own.
#[test]
fn qos_2_is_exactly_once_across_broken_connections() {
    const COUNT: usize = 400;
    for (seed, version) in VERSIONS.into_iter().enumerate() {
        let broker = Broker::start();
        let transport = TRANSPORTS[seed];
        let subscriber = Client::kept(version, "s").over(transport);
        broker.connect(subscriber.clone()).subscribe("t", 2);
        let mut publisher = Publisher {
            client: Client::kept(version, "p").over(transport),
            pending: VecDeque::new(),
            dice: Dice(seed as u64),
        };
        let messages = std::thread::scope(|scope| {
            scope.spawn(|| publisher.publish_all(&broker, COUNT));
            subscribe_all(&broker, &subscriber, Dice(seed as u64 + 77), COUNT)
        });
        assert_eq!(messages, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
        let mut back = broker.connect(subscriber.clean(true).expiry(0));
        back.expect_nothing();
    }
}

/// [MQTT-3.1.4-3]: however many want one client id at once, one has it, and nothing is left of the others but their
/// wills, each of them once [MQTT-3.1.2-8].
#[test]
fn concurrent_take_overs_leave_one_session_and_every_will() {
    const CONNECTS: usize = 25;
    let broker = Broker::start();
    let mut watcher = broker.connect(Client::v5("watcher"));
    watcher.subscribe("will", 1);
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            let broker = &broker;
            scope.spawn(move || {
                let mut dice = Dice(thread);
                for round in 0..CONNECTS {
                    let client = Client::new(VERSIONS[dice.below(2) as usize], "c")
                        .user_name("u")
                        .over(TRANSPORTS[dice.below(2) as usize])
                        .clean(dice.below(2) == 0)
                        .expiry(60)
                        .will(Message::new("will", format!("{thread}-{round}")).qos(1));
                    let (mut connection, connack) = broker.connect_or_not(client);
                    assert_eq!(connack.reason, 0);
                    // Whether these are answered depends on who else came.
                    connection.send_subscribe(&[("t", options(1)), ("#", options(0))], None);
                    connection.send_publish(Message::new("t", "m").qos(1));
                    let _ = connection.next(Duration::from_millis(dice.below(5) + 1));
                }
            });
        }
    });
    broker.wait_for_connections(1);
    let mut wills = watcher.expect_payloads(6 * CONNECTS);
    wills.sort();
    wills.dedup();
    assert_eq!(wills.len(), 6 * CONNECTS);
    watcher.expect_nothing();
    watcher.disconnect();
    broker.wait_for_connections(0);
    assert!(broker.running().held().sessions <= 1);
    let last = broker.connect(Client::v5("c").user_name("u"));
    last.disconnect();
    broker.wait_for_sessions(0);
    assert_eq!(broker.running().held(), Default::default());
    assert!(broker.running().metrics().contains("wigwag_connection_panics_total 0"));
}

/// 4.8.2: while members of a share come and go, each message goes to exactly one of them.
#[test]
fn a_share_whose_members_come_and_go_loses_and_doubles_nothing() {
    const COUNT: usize = 1500;
    let broker = Broker::start();
    let publishing = std::sync::atomic::AtomicBool::new(true);
    let mut publisher = broker.connect(Client::v5("p"));
    let mut steady = broker.connect(Client::v5("steady"));
    steady.subscribe("$share/g/work/#", 1);
    let mut heard = std::thread::scope(|scope| {
        let fickle: Vec<_> = (0..2)
            .map(|n| {
                let (broker, publishing) = (&broker, &publishing);
                scope.spawn(move || {
                    let mut member = broker.connect(Client::new(VERSIONS[n], &format!("m{n}")).over(TRANSPORTS[n]));
                    while publishing.load(std::sync::atomic::Ordering::Relaxed) {
                        member.subscribe("$share/g/work/#", 1);
                        member.ping();
                        member.unsubscribe(&["$share/g/work/#"]);
                    }
                    all_that_came(&mut member)
                })
            })
            .collect();
        let steady = scope.spawn(|| {
            let mut payloads = Vec::new();
            while publishing.load(std::sync::atomic::Ordering::Relaxed) {
                payloads.append(&mut all_that_came(&mut steady));
            }
            payloads.append(&mut all_that_came(&mut steady));
            payloads
        });
        for number in 0..COUNT {
            publisher.publish(Message::new("work/1", number.to_string()).qos(1));
        }
        publishing.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut heard = steady.join().expect("no panic");
        fickle.into_iter().for_each(|member| heard.extend(member.join().expect("no panic")));
        heard
    });
    heard.sort_by_key(|number| number.parse::<usize>().expect("a number"));
    assert_eq!(heard, (0..COUNT).map(|n| n.to_string()).collect::<Vec<_>>());
}

/// Takes messages until two pings find none on the way: one may overtake what its own acknowledgements let go.
fn all_that_came(connection: &mut Connection) -> Vec<String> {
    let mut payloads = Vec::new();
    let mut quiet = 0;
    while quiet < 2 {
        quiet += 1;
        connection.send(&Packet::PingReq);
        loop {
            let received = connection.receive();
            match received.packet() {
                Packet::Publish(publish) => {
                    quiet = 0;
                    payloads.push(String::from_utf8(publish.payload.into()).expect("text"));
                    connection.send_puback(publish.packet_id.expect("QoS 1").get());
                }
                Packet::PingResp => break,
                other => panic!("{other:?}"),
            }
        }
    }
    payloads
}

/// [MQTT-3.3.5-1]: everybody who is subscribed gets everything, in order, also where there are many.
#[test]
fn a_large_room_hears_everything() {
    const MEMBERS: usize = 150;
    let broker = Broker::start();
    let mut members: Vec<_> = (0..MEMBERS)
        .map(|n| {
            let client = Client::new(VERSIONS[n % 2], &format!("m{n}")).over(TRANSPORTS[n / 2 % 2]);
            let mut member = broker.connect(client);
            member.subscribe("rooms/large/chat", (n % 3) as u8);
            member
        })
        .collect();
    for round in 0..10 {
        let payload = round.to_string();
        let sender = &mut members[round * 7];
        sender.publish(Message::new("rooms/large/chat", &payload).qos((round % 3) as u8));
    }
    for member in &mut members {
        let heard = member.expect_payloads(10);
        assert_eq!(heard, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    members.iter_mut().for_each(Connection::expect_nothing);
}

/// A burst that comes in one read is no reason to lose anything for who reads at once, the publisher itself included.
#[test]
fn a_burst_reaches_whoever_reads() {
    const COUNT: usize = 5000;
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
        publisher.subscribe("t", 0);
        subscriber.subscribe("t", 0);
        let mut bytes = Vec::new();
        (0..COUNT).for_each(|n| Message::new("t", n.to_string()).encode(&mut bytes, version));
        publisher.send_bytes(&bytes);
        let expected: Vec<_> = (0..COUNT).map(|n| n.to_string()).collect();
        for client in [&mut subscriber, &mut publisher] {
            assert!(client.expect_payloads(COUNT) == expected);
            client.expect_nothing();
        }
    });
}

/// 3.3.1.3, [MQTT-3.8.4-4]: whoever subscribes while a topic is being published to gets the retained message and then
/// every later one, with no gap between.
#[test]
fn there_is_no_gap_between_retained_and_live_messages() {
    let broker = Broker::start();
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("a/b/c", "0").retain().qos(1));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                publisher.publish(Message::new("a/b/c", number.to_string()).retain().qos(1));
            }
        });
        for round in 0..30 {
            let mut subscriber = broker.connect(Client::new(VERSIONS[round % 2], "s"));
            let filter = ["a/b/c", "a/b/#", "#", "+/b/c"][round % 4];
            subscriber.subscribe(filter, 1);
            let numbers: Vec<u32> =
                subscriber.expect_payloads(12).iter().map(|text| text.parse().expect("a number")).collect();
            // A filter for every topic meets what is retained one shard after another: a message may come live and
            // then as retained, but never too late.
            assert!(numbers.is_sorted(), "{filter}: {numbers:?}");
            assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{filter}: {numbers:?}");
            if !filter.starts_with(['#', '+']) {
                assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] == 1), "{filter}: {numbers:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A client that sends much before it reads is read no further than its answers fit, and is answered in full once it
/// reads (4.2).
#[test]
fn answers_that_are_read_late_are_all_there() {
    const PINGS: usize = 300_000;
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut client = broker.connect(Client::v5("c").over(transport));
        let mut sending = client.socket.to_send_on();
        let writer = std::thread::spawn(move || {
            let pings = [0xC0, 0].repeat(1000);
            (0..PINGS / 1000).for_each(|_| sending.send(&pings));
        });
        std::thread::sleep(Duration::from_millis(100)); // without reading
        for _ in 0..PINGS {
            assert!(matches!(client.receive().packet(), Packet::PingResp));
        }
        writer.join().expect("everything was taken");
        client.expect_nothing();
    }
}
