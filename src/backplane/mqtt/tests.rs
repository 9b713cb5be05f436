//! Scripts: what the broker says, what it is answered, and what becomes of it here; and whatever bytes it may say.

mod breaks;

use std::num::NonZeroU32;

use super::*;
use crate::{
    backplane::{Source, outbox::Terms},
    config::{BackplaneMode, BrokerUrl, Config, PresenceConfig, RoomsConfig},
    hub::{HubLimits, KeptLimits, Message},
    metrics::Gauges,
    room::Rooms,
    session::{QueueLimits, testing::parts, testing::policy},
    wire::mqtt::{
        Ack, Connect, ConnectProperties, Publish, PublishProperties, QoS, SubAck, SubscriptionIds, UserProperties,
        decode,
    },
};

const V5: Version = Version::V5;
const PACKET_MAX: usize = 4096;

struct World {
    exchange: Exchange,
    backplane: Arc<Backplane>,
    hub: Arc<Hub>,
    now: Instant,
    out: Vec<u8>,
}

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not 0")
}

/// The identifier of what was said.
fn id_of(text: &str) -> u16 {
    text.split(" id ").nth(1).and_then(|id| id.split(' ').next()?.parse().ok()).expect("an id")
}

fn ack(number: u16, reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id: id(number), reason, reason_string: None, user: UserProperties::default() }
}

fn incoming<'a>(topic: &'a str, payload: &'a str, qos: QoS, packet_id: u16) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: true,
        topic,
        packet_id: NonZeroU16::new(packet_id),
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

const OK: ReasonCode = ReasonCode::SUCCESS;

impl World {
    fn new() -> Self {
        Self::probing(Duration::from_secs(2))
    }

    fn probing(every: Duration) -> Self {
        Self::at(false, every)
    }

    /// One whose broker is the embedded one, or another.
    fn at(embedded: bool, every: Duration) -> Self {
        let limits = HubLimits {
            queue: QueueLimits { messages: 100, own: 100, bytes: 100_000 },
            subscriptions: 10,
            sessions: KeptLimits { all: 10, per_user: 10, per_address: 10 },
            retained_messages: 1000,
            retained_bytes: 1 << 20,
            write_timeout: Duration::from_secs(10),
        };
        let mut config = Config::default();
        config.backplane.mode = BackplaneMode::Mqtt;
        let rooms = Rooms::new(RoomsConfig::default(), &PresenceConfig::default());
        let hub = Arc::new(Hub::new(limits, policy(), rooms, "here", Arc::default()));
        let url = BrokerUrl { tls: false, host: "127.0.0.1".into(), port: 9 };
        let backplane = Arc::new(Backplane::new(&config, &Broker::Remote { url, tls: None }, &hub));
        let now = Instant::now();
        let (of_link, of_hub) = (Arc::clone(&backplane), Arc::clone(&hub));
        let exchange = Exchange::new(of_link, of_hub, embedded, "me", every, now);
        Self { exchange, backplane, hub, now, out: Vec::new() }
    }

    /// One whose subscriptions are made.
    fn connected() -> Self {
        let mut world = Self::new();
        world.begin(false, 10);
        assert!(matches!(world.said()[..], [ref only] if only.starts_with("SUBSCRIBE")));
        world.hear(&Packet::SubAck(suback(&[2, 1, 0]))).expect("granted");
        assert_eq!(world.said(), ["PUBLISH wigwag/probe/me 1 QoS 0"]);
        world
    }

    fn begin(&mut self, present: bool, window: usize) {
        let terms = Terms { window, qos_max: QoS::ExactlyOnce };
        let welcome = Welcome { present, terms, retain: true, packet_max: usize::MAX, keep_alive: KEEP_ALIVE };
        self.exchange.begin(&welcome, self.now, &mut self.out);
    }

    fn wait(&mut self, seconds: f64) -> Result<(), Failure> {
        self.now += Duration::from_secs_f64(seconds);
        self.exchange.tick(self.now, &mut self.out)
    }

    fn hear(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        encode(&mut bytes, V5, packet);
        self.hear_bytes(&bytes)
    }

    fn hear_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let heard = self.exchange.listen(bytes, PACKET_MAX, self.now, &mut self.out)?;
        assert_eq!(heard, bytes.len());
        Ok(())
    }

    /// What has been said since the last look.
    fn said(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.out);
        let mut rest = &bytes[..];
        let mut said = Vec::new();
        while let Some((packet, length)) = decode(rest, V5, usize::MAX).expect("we speak MQTT") {
            said.push(match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.map_or(String::new(), |id| format!(" id {id}"));
                    let dup = if publish.dup { " again" } else { "" };
                    let payload = String::from_utf8_lossy(publish.payload);
                    format!("PUBLISH {} {payload} QoS {}{id}{dup}", publish.topic, publish.qos as u8)
                }
                Packet::PubAck(ack) => format!("PUBACK {} {}", ack.packet_id, ack.reason.0),
                Packet::PubRec(ack) => format!("PUBREC {} {}", ack.packet_id, ack.reason.0),
                Packet::PubRel(ack) => format!("PUBREL {} {}", ack.packet_id, ack.reason.0),
                Packet::PubComp(ack) => format!("PUBCOMP {} {}", ack.packet_id, ack.reason.0),
                Packet::Subscribe(subscribe) => {
                    let filters = subscribe.filters.iter().map(|(filter, options)| {
                        let retained = options.retain_handling as u8;
                        let flags = (options.no_local, options.retain_as_published);
                        format!(" {filter} QoS {} {flags:?} {retained}", options.qos as u8)
                    });
                    format!("SUBSCRIBE {}{}", subscribe.packet_id, filters.collect::<String>())
                }
                other => format!("{other:?}"),
            });
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        said
    }

    fn send(&mut self, text: &str, qos: QoS, properties: &PublishProperties<'_>) {
        let message = Message::new(&parts("app/x", text.as_bytes(), properties), self.now);
        assert!(self.backplane.send(message, qos, self.now));
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.hub.metrics.render(Gauges::default());
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().expect("a number"))
    }

    fn speak(&mut self) -> Vec<String> {
        self.exchange.speak(self.now, &mut self.out, WRITE);
        self.said()
    }
}

fn suback(codes: &[u8]) -> SubAck<'_> {
    SubAck { packet_id: id(u16::MAX), reason_string: None, user: UserProperties::default(), codes }
}

#[test]
fn it_subscribes_and_is_up_when_a_message_has_come_back() {
    let mut world = World::new();
    world.begin(false, 10);
    let filters = "app/# QoS 2 (true, true) 0 wigwag/cmd/+ QoS 1 (true, true) 2 wigwag/probe/me QoS 0 (false, false) 0";
    assert_eq!(world.said(), [format!("SUBSCRIBE 65535 {filters}")]);
    world.hear(&Packet::SubAck(suback(&[2, 1, 0]))).expect("granted");
    assert_eq!(world.said(), ["PUBLISH wigwag/probe/me 1 QoS 0"]);
    assert!(!world.exchange.is_well());
    world.hear(&Packet::Publish(incoming("wigwag/probe/me", "1", QoS::AtMostOnce, 0))).expect("its answer");
    assert!(world.exchange.is_well());
    assert_eq!(world.backplane.health(), Health::Up);
}

#[test]
fn what_waits_is_said_at_once_and_acknowledged_in_any_order() {
    let mut world = World::connected();
    let none = PublishProperties::default();
    for number in 0..12 {
        world.send(&number.to_string(), QoS::AtLeastOnce, &none);
    }
    let said = world.speak();
    assert_eq!(said.len(), 10, "no more than the broker takes");
    let first = |text: &str| text.rsplit(' ').next().and_then(|id| id.parse().ok()).expect("an id");
    let ids: Vec<u16> = said.iter().map(|text| first(text)).collect();
    world.hear(&Packet::PubAck(ack(ids[5], OK))).expect("known");
    world.hear(&Packet::PubAck(ack(ids[0], ReasonCode::NO_MATCHING_SUBSCRIBERS))).expect("known");
    world.hear(&Packet::PubAck(ack(ids[0], OK))).expect("not known, and of no consequence");
    assert_eq!(world.speak().len(), 2);
    assert_eq!(world.backplane.outbox().len(), 10);
}

#[test]
fn a_message_of_qos_2_is_released_once_it_is_received() {
    let mut world = World::connected();
    world.send("exact", QoS::ExactlyOnce, &PublishProperties::default());
    let said = world.speak();
    let number: u16 = said[0].rsplit(' ').next().and_then(|id| id.parse().ok()).expect("an id");
    world.hear(&Packet::PubRec(ack(number, OK))).expect("known");
    assert_eq!(world.said(), [format!("PUBREL {number} 0")]);
    // The connection breaks, the broker knows the session: only the release is said again.
    world.exchange.lost();
    world.begin(true, 10);
    world.said();
    assert_eq!(world.speak(), [format!("PUBREL {number} 0")]);
    world.hear(&Packet::PubComp(ack(number, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND))).expect("known");
    assert_eq!(world.backplane.outbox().len(), 0);
    world.hear(&Packet::PubRec(ack(number, OK))).expect("not known");
    assert_eq!(world.said(), [format!("PUBREL {number} 146")]);
}

#[test]
fn our_own_stamp_is_the_only_one() {
    let mut world = World::connected();
    let mut user = Vec::new();
    for (key, value) in [("a", "1"), ("wigwag-node", "forged"), ("a", "2"), ("wigwag-node", "here")] {
        UserProperties::push(&mut user, key, value);
    }
    let user = UserProperties::new(&user).expect("pairs");
    let properties = PublishProperties { user, content_type: Some("text/plain"), ..PublishProperties::default() };
    world.send("x", QoS::AtMostOnce, &properties);
    world.exchange.speak(world.now, &mut world.out, WRITE);
    let Ok(Some((Packet::Publish(publish), _))) = decode(&world.out, V5, usize::MAX) else { panic!("no PUBLISH") };
    let user: Vec<_> = publish.properties.user.iter().collect();
    assert_eq!(user, [("a", "1"), ("a", "2"), ("wigwag-node", "here")]);
    assert_eq!(publish.properties.content_type, Some("text/plain"));
}

#[test]
fn what_comes_is_acknowledged_and_at_qos_2_taken_once() {
    let mut world = World::connected();
    world.hear(&Packet::Publish(incoming("app/a", "1", QoS::AtLeastOnce, 7))).expect("a message");
    assert_eq!(world.said(), ["PUBACK 7 0"]);
    assert!(world.hub.retains("app/a", b"1"));
    for (text, number) in [("first", 5), ("second", 6), ("first", 5)] {
        world.hear(&Packet::Publish(incoming("app/b", text, QoS::ExactlyOnce, number))).expect("a message");
        assert_eq!(world.said(), [format!("PUBREC {number} 0")]);
    }
    assert!(world.hub.retains("app/b", b"second"), "one that was not released is the same one");
    world.exchange.lost();
    world.begin(true, 10);
    world.said();
    world.hear(&Packet::Publish(incoming("app/b", "first", QoS::ExactlyOnce, 5))).expect("a message");
    assert!(world.hub.retains("app/b", b"second"), "and is so on the next connection");
    world.said();
    world.hear(&Packet::PubRel(ack(5, OK))).expect("known");
    world.hear(&Packet::PubRel(ack(5, OK))).expect("released before");
    assert_eq!(world.said(), ["PUBCOMP 5 0", "PUBCOMP 5 0"]);
    world.hear(&Packet::Publish(incoming("app/b", "third", QoS::ExactlyOnce, 5))).expect("a message");
    assert!(world.hub.retains("app/b", b"third"));
    // A broker that knows no session has no unfinished messages.
    world.exchange.lost();
    world.begin(false, 10);
    world.hear(&Packet::Publish(incoming("app/b", "fourth", QoS::ExactlyOnce, 5))).expect("a message");
    assert!(world.hub.retains("app/b", b"fourth"));
}

#[test]
fn what_comes_with_our_stamp_has_been_here() {
    let mut world = World::connected();
    for (node, expected) in [("here", false), ("there", true)] {
        let mut user = Vec::new();
        UserProperties::push(&mut user, "wigwag-node", node);
        let mut publish = incoming("app/stamped", node, QoS::AtLeastOnce, 1);
        publish.properties.user = UserProperties::new(&user).expect("a pair");
        let mut ids = Vec::new();
        SubscriptionIds::push(&mut ids, NonZeroU32::MIN);
        publish.properties.subscription_ids = SubscriptionIds::new(&ids).expect("one");
        world.hear(&Packet::Publish(publish)).expect("a message");
        assert_eq!(world.hub.retains("app/stamped", node.as_bytes()), expected, "{node}");
    }
}

#[test]
fn what_makes_no_sense_ends_the_connection_and_says_why() {
    let alias = |topic| {
        let mut publish = incoming(topic, "x", QoS::AtMostOnce, 0);
        publish.properties.topic_alias = NonZeroU16::new(1);
        Packet::Publish(publish)
    };
    let connect = Packet::Connect(Connect {
        version: V5,
        clean_start: true,
        keep_alive: 0,
        client_id: "x",
        will: None,
        user_name: None,
        password: None,
        properties: ConnectProperties::default(),
    });
    for packet in [alias("app/x"), alias(""), connect, Packet::ConnAck(Default::default()), Packet::PingReq] {
        let failure = World::connected().hear(&packet).expect_err("no sense");
        assert!(matches!(&failure, Failure::Protocol(why) if !why.is_empty()), "{packet:?}: {failure:?}");
    }
    let Err(Failure::Protocol(why)) = World::connected().hear_bytes(b"\x36\x05garbage") else { panic!() };
    assert!(why.contains("[MQTT-3.3.1-4]"), "{why}");
    let Err(Failure::Protocol(why)) = World::connected().hear_bytes(b"\x30\xFF\xFF\xFF\x7F") else { panic!() };
    assert!(why.contains("larger than allowed"), "{why}");

    let mut world = World::new();
    world.begin(false, 10);
    let refused = world.hear(&Packet::SubAck(suback(&[2, 0x87, 0])));
    let expected = "the broker refuses the subscription to wigwag/cmd/+: 0x87, not authorized";
    assert_eq!(refused, Err(Failure::Unwanted(expected.into())));
    let ended = |reason| {
        let words = Disconnect { reason, ..Disconnect::default() };
        World::connected().hear(&Packet::Disconnect(words)).expect_err("it is over")
    };
    let Failure::Unwanted(why) = ended(ReasonCode::SESSION_TAKEN_OVER) else { panic!() };
    assert!(why.contains("server.node"), "{why}");
    assert!(matches!(ended(ReasonCode::SERVER_SHUTTING_DOWN), Failure::Connection(_)));
    assert!(matches!(ended(ReasonCode::PACKET_TOO_LARGE), Failure::Protocol(_)));
    assert!(matches!(ended(OK), Failure::Connection(_)));
}

#[test]
fn a_broker_that_is_silent_is_asked_and_then_left() {
    let mut world = World::connected();
    // Probes go out every two seconds; three that do not come back are enough.
    for _ in 0..2 {
        world.wait(2.0).expect("patience");
    }
    assert_eq!(world.said(), ["PUBLISH wigwag/probe/me 2 QoS 0", "PUBLISH wigwag/probe/me 3 QoS 0"]);
    assert_eq!(world.wait(2.0), Err(Failure::Silence));

    // One that says something else is busy, which is no reason to leave it, up to a point.
    let mut world = World::connected();
    let mut busy = || {
        world.now += Duration::from_secs(1);
        world.hear(&Packet::PingResp).expect("something");
        world.wait(1.0)
    };
    (0..11).for_each(|_| busy().expect("patience"));
    assert_eq!(busy(), Err(Failure::Silence));

    // Where probes are rare, the keep alive finds out.
    let mut world = World::probing(Duration::from_secs(600));
    world.begin(false, 10);
    world.hear(&Packet::SubAck(suback(&[2, 1, 0]))).expect("granted");
    world.said();
    world.wait(4.0).expect("not yet");
    assert!(world.said().is_empty());
    world.wait(1.5).expect("it is asked");
    assert_eq!(world.said(), ["PingReq"]);
    world.wait(3.0).expect("patience");
    world.hear(&Packet::PingResp).expect("an answer");
    world.wait(1.0).expect("not yet");
    assert!(world.said().is_empty());
    world.wait(1.5).expect("it is asked again");
    assert_eq!(world.said(), ["PingReq"]);
    world.wait(9.0).expect("patience");
    assert_eq!(world.wait(1.5), Err(Failure::Silence));
}

/// xorshift64*, which needs no crate and no state but this.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) as usize % end
    }
}

/// A broker's words, well-formed.
fn vocabulary() -> Vec<Vec<u8>> {
    let mut user = Vec::new();
    UserProperties::push(&mut user, "wigwag-node", "there");
    UserProperties::push(&mut user, "k", "v");
    let properties = PublishProperties {
        payload_is_utf8: Some(true),
        message_expiry: Some(10),
        response_topic: Some("app/answers"),
        correlation_data: Some(b"\0\xFF"),
        content_type: Some("a/b"),
        user: UserProperties::new(&user).expect("pairs"),
        ..PublishProperties::default()
    };
    let mut words = vec![
        Packet::PingResp,
        Packet::ConnAck(Default::default()),
        Packet::SubAck(suback(&[2, 1, 0])),
        Packet::SubAck(suback(&[0x80])),
        Packet::Disconnect(Disconnect { reason: ReasonCode::SERVER_BUSY, ..Disconnect::default() }),
        Packet::Publish(incoming("wigwag/probe/me", "1", QoS::AtMostOnce, 0)),
        Packet::Publish(incoming("wigwag/cmd/send", r#"{"user":"u","payload":1}"#, QoS::AtLeastOnce, 1)),
    ];
    for number in 1..4 {
        words.extend([
            Packet::PubAck(ack(number, OK)),
            Packet::PubRec(ack(number, OK)),
            Packet::PubRec(ack(number, ReasonCode::QUOTA_EXCEEDED)),
            Packet::PubRel(ack(number, OK)),
            Packet::PubComp(ack(number, OK)),
            Packet::Publish(Publish { properties, ..incoming("app/x", "text", QoS::ExactlyOnce, number) }),
        ]);
    }
    let encoded = |packet: &Packet<'_>| {
        let mut bytes = Vec::new();
        encode(&mut bytes, V5, packet);
        bytes
    };
    words.iter().map(encoded).collect()
}

/// For `WIGWAG_FUZZ_SECONDS` (2 if it is not set), from a fixed seed.
#[test]
fn whatever_a_broker_says_is_survived_and_answered_within_bounds() {
    let seconds = std::env::var("WIGWAG_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(2);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (words, mut random, mut world) = (vocabulary(), Random(0x5EED), World::connected());
    let (mut runs, mut ended) = (0u64, 0u64);
    while Instant::now() < until {
        for _ in 0..256 {
            let mut bytes = Vec::new();
            for _ in 0..=random.below(4) {
                bytes.extend_from_slice(&words[random.below(words.len())]);
            }
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] = random.below(256) as u8,
                    1 => bytes.insert(at, random.below(256) as u8),
                    2 => drop(bytes.drain(at..(at + 1 + random.below(4)).min(bytes.len()))),
                    _ => bytes[at] ^= 1 << random.below(8),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            if random.below(8) == 0 {
                let _ = world.backplane.send(
                    Message::new(&parts("app/x", b"x", &PublishProperties::default()), world.now),
                    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][random.below(3)],
                    world.now,
                );
                world.exchange.speak(world.now, &mut world.out, WRITE);
            }
            world.out.clear();
            match world.exchange.listen(&bytes, PACKET_MAX, world.now, &mut world.out) {
                Ok(heard) => assert!(heard <= bytes.len()),
                Err(_) => {
                    ended += 1;
                    world.exchange.lost();
                    world.begin(random.below(2) == 0, 1 + random.below(5));
                }
            }
            assert!(world.out.len() < 1 << 10, "four packets are not answered by {} bytes", world.out.len());
            world.said();
            runs += 1;
        }
    }
    assert!(ended > 0 && ended < runs, "{ended} of {runs}");
}
