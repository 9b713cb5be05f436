//! What is said to the broker and what is made of what it says: bytes in, bytes out. No socket and no clock; `now` is
//! an argument.
//!
//! What a broker says is not trusted: bytes that are no packet, a packet that no server sends, and an answer to what was
//! not asked are a [`Failure`], which ends the connection.

use std::{
    collections::HashSet,
    num::NonZeroU16,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::connect::{Failure, Welcome, explained, judge};
use crate::{
    backplane::{
        Backplane, COMMANDS, Health, STAMP,
        inlet::{Incoming, Inlet},
        outbox::{Outgoing, RESERVED_ID, Say},
    },
    hub::Hub,
    wire::mqtt::{
        Ack, Packet, Publish, PublishHeader, PublishProperties, QoS, ReasonCode, RetainHandling, SubAck, Subscribe,
        SubscribeFilters, SubscribeOptions, SubscriptionIds, UserProperties, Version, decode, encode, publish_header,
    },
};

/// See the module.
pub struct Exchange {
    backplane: Arc<Backplane>,
    hub: Arc<Hub>,
    inlet: Inlet,
    embedded: bool,
    probe_topic: String,
    probe_every: Duration,
    /// Messages of QoS 2 that were received and not released [MQTT-4.3.3-10]. They outlive the connection.
    unreleased: HashSet<NonZeroU16>,
    /// The user property that says who we are, as it is in a packet.
    stamp: Vec<u8>,
    properties: Vec<u8>,
    line: Line,
}

/// The present connection.
struct Line {
    subscribed: bool,
    /// The broker keeps retained messages.
    retain: bool,
    keep_alive: Duration,
    /// When something was said and heard last, and when the broker was asked last to say something.
    spoken: Instant,
    heard: Instant,
    pinged: Instant,
    probe: Probe,
}

/// Messages through the broker and back.
struct Probe {
    serial: u64,
    sent: Instant,
    unanswered: u32,
    next: Instant,
}

/// Probes in a row that may stay unanswered where nothing is heard, and where something is.
const UNANSWERED: u32 = 3;
const UNANSWERED_BUSY: u32 = 4 * UNANSWERED;

/// Reasons of a DISCONNECT that may be about a message.
const ABOUT_A_MESSAGE: [ReasonCode; 7] = [
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::TOPIC_ALIAS_INVALID,
    ReasonCode::PACKET_TOO_LARGE,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
    ReasonCode::RETAIN_NOT_SUPPORTED,
    ReasonCode::QOS_NOT_SUPPORTED,
];

/// What the link speaks.
const V5: Version = Version::V5;

impl Exchange {
    pub fn new(
        backplane: Arc<Backplane>,
        hub: Arc<Hub>,
        embedded: bool,
        client_id: &str,
        probe_every: Duration,
        now: Instant,
    ) -> Self {
        let mut stamp = Vec::new();
        UserProperties::push(&mut stamp, STAMP, &backplane.node);
        Self {
            inlet: Inlet::new(Arc::clone(&backplane), Arc::clone(&hub)),
            backplane,
            hub,
            embedded,
            probe_topic: format!("wigwag/probe/{client_id}"),
            probe_every,
            unreleased: HashSet::new(),
            stamp,
            properties: Vec::new(),
            line: Line {
                subscribed: false,
                retain: true,
                keep_alive: Duration::MAX,
                spoken: now,
                heard: now,
                pinged: now,
                probe: Probe { serial: 0, sent: now, unanswered: 0, next: now },
            },
        }
    }

    /// There is a connection: what is said first on it.
    pub fn begin(&mut self, welcome: &Welcome, now: Instant, out: &mut Vec<u8>) {
        let backplane = Arc::clone(&self.backplane);
        backplane.figures.connections.increment(1);
        backplane.broker_packet.store(welcome.packet_max, Ordering::Relaxed);
        self.line.subscribed = false;
        self.line.retain = welcome.retain;
        self.line.keep_alive = welcome.keep_alive;
        (self.line.spoken, self.line.heard, self.line.pinged) = (now, now, now);
        self.line.probe.unanswered = 0;
        self.line.probe.next = now + self.probe_every;
        if !welcome.present {
            self.unreleased.clear();
        }
        let too_large = |out: &Outgoing| backplane.packet_of(&out.message) > welcome.packet_max;
        // rumqttd cannot resume an exchange of QoS 2, and ends the connection at what belongs to one.
        let known = welcome.present && !self.embedded;
        let ended = backplane.outbox().connected(welcome.terms, known, now, too_large);
        backplane.figures.sent.increment(ended.done);
        let mut expired = ended.expired;
        backplane.give_up(&self.hub, &mut expired, now);
        ended.rejected.iter().for_each(|out| backplane.refused(&self.hub, out, "too large", now));
        let hopeless = "the connection ended whenever it was sent";
        ended.hopeless.iter().for_each(|out| backplane.refused(&self.hub, out, hopeless, now));
        self.inlet.reconnected(now);
        self.subscribe(out);
    }

    fn subscribe(&self, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        self.subscriptions().for_each(|(filter, options)| SubscribeFilters::push(&mut bytes, &filter, options));
        // Filters that the configuration has let through are valid.
        let Ok(filters) = SubscribeFilters::new(&bytes) else { return };
        let user = UserProperties::default();
        let packet = Subscribe { packet_id: RESERVED_ID, subscription_id: None, user, filters };
        encode(out, V5, &Packet::Subscribe(packet));
    }

    fn subscriptions(&self) -> impl Iterator<Item = (String, SubscribeOptions)> {
        let local = |qos| SubscribeOptions { no_local: true, retain_as_published: true, ..SubscribeOptions::new(qos) };
        // rumqttd sends everything at the subscription's QoS, and not exactly once.
        let qos = if self.embedded { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let shared = self.backplane.share.iter().map(move |filter| (filter.to_string(), local(qos)));
        let commands = SubscribeOptions { retain_handling: RetainHandling::DoNotSend, ..local(QoS::AtLeastOnce) };
        let commands = self.backplane.commands.then(|| (format!("{COMMANDS}+"), commands));
        let probe = (self.probe_topic.clone(), SubscribeOptions::new(QoS::AtMostOnce));
        shared.chain(commands).chain([probe])
    }

    /// Says what is in the outbox, until `out` has `most` bytes or a packet more.
    pub fn speak(&mut self, now: Instant, out: &mut Vec<u8>, most: usize) {
        if out.len() >= most {
            return;
        }
        let before = out.len();
        let (mut expired, mut at_once) = (Vec::new(), 0);
        let Self { backplane, stamp, properties, line, .. } = self;
        let say = |what: Say<'_>| {
            match what {
                Say::Publish { out: message, packet_id, again } => {
                    at_once += u64::from(packet_id.is_none());
                    let properties = stamped(message, stamp, properties);
                    let retain = message.retain && line.retain;
                    put(out, message, packet_id, again, retain, properties, now);
                }
                Say::Release(packet_id) => encode(out, V5, &Packet::PubRel(ack(packet_id, ReasonCode::SUCCESS))),
            }
            out.len() < most
        };
        backplane.outbox().speak(now, say, &mut expired);
        if out.len() > before {
            line.spoken = now;
        }
        if at_once > 0 {
            backplane.figures.sent.increment(at_once);
        }
        backplane.give_up(&self.hub, &mut expired, now);
    }

    /// Handles every whole packet of `bytes`, and appends the answers; how many bytes those packets had.
    pub fn listen(
        &mut self,
        bytes: &[u8],
        packet_max: usize,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<usize, Failure> {
        let mut done = 0;
        let heard = loop {
            match decode(bytes.get(done..).unwrap_or_default(), V5, packet_max) {
                Ok(Some((packet, length))) => {
                    done += length;
                    if let Err(failure) = self.hear(&packet, now, out) {
                        break Err(failure);
                    }
                }
                Ok(None) => break Ok(done),
                Err(error) => break Err(Failure::Protocol(format!("what the broker says is not MQTT: {error}"))),
            }
        };
        if done > 0 {
            self.line.heard = now;
        }
        self.inlet.flush(now);
        heard
    }

    fn hear(&mut self, packet: &Packet<'_>, now: Instant, out: &mut Vec<u8>) -> Result<(), Failure> {
        match packet {
            Packet::Publish(publish) => self.publish(publish, now, out)?,
            Packet::PubAck(ack) => self.done(ack, now),
            Packet::PubRec(ack) if ack.reason.is_error() => self.done(ack, now),
            Packet::PubRec(acknowledged) => {
                let known = self.backplane.outbox().received(acknowledged.packet_id);
                let reason = if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
                encode(out, V5, &Packet::PubRel(ack(acknowledged.packet_id, reason)));
            }
            Packet::PubComp(acknowledged) => {
                // Whatever it says: the broker knows no more of it.
                self.done(&ack(acknowledged.packet_id, ReasonCode::SUCCESS), now);
            }
            Packet::PubRel(release) => {
                // One that is not known was released before, on a connection that broke.
                self.unreleased.remove(&release.packet_id);
                encode(out, V5, &Packet::PubComp(ack(release.packet_id, ReasonCode::SUCCESS)));
            }
            Packet::SubAck(ack) => self.subscribed(ack, now, out)?,
            Packet::PingResp => {}
            Packet::Disconnect(said) => {
                let judged = judge(said.reason, said.reason_string);
                // About what is in flight: if it goes on, the outbox gives that up, which makes another attempt worth it.
                if ABOUT_A_MESSAGE.contains(&said.reason) && self.backplane.outbox().is_flying() {
                    let why = explained(said.reason, said.reason_string);
                    return Err(Failure::Connection(format!("the broker ends the connection: {why}")));
                }
                judged?;
                return Err(Failure::Connection("the broker ends the connection".into()));
            }
            _ => return Err(Failure::Protocol("a packet that no server sends at this point".into())),
        }
        Ok(())
    }

    fn done(&self, ack: &Ack<'_>, now: Instant) {
        let Some(out) = self.backplane.outbox().done(ack.packet_id) else { return };
        if ack.reason.is_error() {
            let why = explained(ack.reason, ack.reason_string);
            self.backplane.refused(&self.hub, &out, &why, now);
        } else {
            self.backplane.figures.sent.increment(1);
        }
    }

    fn subscribed(&mut self, ack: &SubAck<'_>, now: Instant, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut refused = self.subscriptions().zip(ack.codes).filter(|(_, code)| ReasonCode(**code).is_error());
        if let Some(((filter, _), code)) = refused.next() {
            let why = explained(ReasonCode(*code), ack.reason_string);
            return Err(Failure::Unwanted(format!("the broker refuses the subscription to {filter}: {why}")));
        }
        drop(refused);
        self.line.subscribed = true;
        self.inlet.subscribed(now);
        self.probe(now, out);
        Ok(())
    }

    fn publish(&mut self, publish: &Publish<'_>, now: Instant, out: &mut Vec<u8>) -> Result<(), Failure> {
        if publish.properties.topic_alias.is_some() {
            return Err(Failure::Protocol("a topic alias, where none is allowed [MQTT-3.1.2-26]".into()));
        }
        // One of QoS 2 that was received before comes again if our PUBREC was lost [MQTT-4.3.3-10].
        let again = publish.qos == QoS::ExactlyOnce && publish.packet_id.is_some_and(|id| !self.unreleased.insert(id));
        if publish.topic == self.probe_topic {
            self.answered(publish.payload, now);
        } else if !again {
            self.receive(publish, now);
        }
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => encode(out, V5, &Packet::PubAck(ack(id, ReasonCode::SUCCESS))),
            (QoS::ExactlyOnce, Some(id)) => encode(out, V5, &Packet::PubRec(ack(id, ReasonCode::SUCCESS))),
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, publish: &Publish<'_>, now: Instant) {
        let mut stamped = false;
        let mut own = false;
        for (_, node) in publish.properties.user.iter().filter(|(key, _)| *key == STAMP) {
            stamped = true;
            own |= *node == *self.backplane.node;
        }
        // Clients are not shown it.
        let mut user = Vec::new();
        if stamped && !own {
            let others = publish.properties.user.iter().filter(|(key, _)| *key != STAMP);
            others.for_each(|(key, value)| UserProperties::push(&mut user, key, value));
        }
        let mut properties = PublishProperties { subscription_ids: SubscriptionIds::default(), ..publish.properties };
        if stamped {
            properties.user = UserProperties::new(&user).unwrap_or_default();
        }
        let Publish { topic, payload, qos, retain, .. } = *publish;
        self.inlet.receive(&Incoming { topic, payload, qos, retain, properties, own }, now);
    }

    fn answered(&mut self, payload: &[u8], now: Instant) {
        let probe = &mut self.line.probe;
        if payload == probe.serial.to_string().as_bytes() {
            let took = now.saturating_duration_since(probe.sent);
            self.backplane.figures.round_trip.set(took.as_secs_f64());
        }
        probe.unanswered = 0;
        self.inlet.round_trip();
        self.backplane.set_health(Health::Up);
    }

    /// Whether a message has come back on this connection and none is missing since.
    pub fn is_well(&self) -> bool {
        self.line.subscribed && self.line.probe.unanswered == 0
    }

    /// Sees to it that the broker hears something now and then, and that it answers.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Failure> {
        if self.backplane.outbox().is_overdue(now) {
            return Err(Failure::Connection("the broker does not acknowledge what it is sent".into()));
        }
        if now >= self.line.probe.next {
            self.line.probe.next = now + self.probe_every;
            // A broker that is busy with what was said before the probes still says something.
            let silent = now.saturating_duration_since(self.line.heard) >= self.probe_every;
            if self.line.probe.unanswered >= if silent { UNANSWERED } else { UNANSWERED_BUSY } {
                return Err(Failure::Silence);
            }
            match self.line.subscribed {
                true => self.probe(now, out),
                false => self.line.probe.unanswered += 1,
            }
        }
        // [MQTT-3.1.2-20]
        let Line { keep_alive, spoken, heard, pinged, .. } = &mut self.line;
        let since = |then: &Instant| now.saturating_duration_since(*then);
        if pinged > heard && since(pinged) >= *keep_alive {
            return Err(Failure::Silence);
        }
        let quiet = since(spoken).max(since(heard)) >= *keep_alive / 2;
        if quiet && since(pinged) >= *keep_alive / 2 && pinged <= heard {
            encode(out, V5, &Packet::PingReq);
            (*spoken, *pinged) = (now, now);
        }
        Ok(())
    }

    fn probe(&mut self, now: Instant, out: &mut Vec<u8>) {
        let probe = &mut self.line.probe;
        probe.unanswered += 1;
        probe.serial += 1;
        probe.sent = now;
        self.line.spoken = now;
        let payload = probe.serial.to_string();
        let header = PublishHeader {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: &self.probe_topic,
            packet_id: None,
            topic_alias: None,
            message_expiry: None,
            subscription_ids: &[],
            properties: &[],
            received: None,
        };
        publish_header(out, V5, &header, payload.len());
        out.extend_from_slice(payload.as_bytes());
    }

    /// The connection is over.
    pub fn lost(&mut self) {
        self.line.subscribed = false;
        self.line.probe.unanswered = 0;
        self.backplane.outbox().lost();
    }
}

fn ack(packet_id: NonZeroU16, reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id, reason, reason_string: None, user: UserProperties::default() }
}

/// The properties that a message leaves with: its own, and who we are instead of who its publisher says it is.
fn stamped<'a>(out: &Outgoing, stamp: &[u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    buffer.clear();
    let own = out.message.properties();
    if memchr::memmem::find(own, STAMP.as_bytes()).is_none() {
        buffer.extend_from_slice(own);
    } else {
        let said = PublishProperties::decode_forwarded(own).unwrap_or_default();
        let mut user = Vec::new();
        let others = said.user.iter().filter(|(key, _)| *key != STAMP);
        others.for_each(|(key, value)| UserProperties::push(&mut user, key, value));
        let user = UserProperties::new(&user).unwrap_or_default();
        PublishProperties { user, ..said }.encode_forwarded(None, buffer);
    }
    buffer.extend_from_slice(stamp);
    buffer
}

fn put(
    out: &mut Vec<u8>,
    outgoing: &Outgoing,
    packet_id: Option<NonZeroU16>,
    again: bool,
    retain: bool,
    properties: &[u8],
    now: Instant,
) {
    let message = &outgoing.message;
    let header = PublishHeader {
        dup: again,
        qos: outgoing.qos,
        retain,
        topic: message.topic(),
        packet_id,
        topic_alias: None,
        message_expiry: message.expiry_left(now),
        subscription_ids: &[],
        properties,
        received: None,
    };
    publish_header(out, V5, &header, message.payload().len());
    out.extend_from_slice(message.payload());
}
