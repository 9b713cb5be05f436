//! The link to a broker that speaks MQTT 5.0, over rumqttc.
//!
//! rumqttc keeps the connection's state; what must not be lost is in the [`Outbox`](super::outbox::Outbox), which is
//! told of every packet that went out or was acknowledged, and says after a reconnect what is to be said again. What
//! rumqttc 0.25 would do of its own accord is kept from it: it throws away what is pending when the broker does not
//! know the session, repeats what has expired, forgets which messages of QoS 2 it has received when a connection
//! breaks, and lets packet identifiers collide when acknowledgements come out of order.
//!
//! One task runs three loops, none of which is ever cancelled by another: one drives the connection, one hands over
//! what is in the outbox, one looks at the clock.

mod connect;
mod line;

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttc::{
    Outgoing as Sent,
    v5::{
        AsyncClient, Event, EventLoop, Incoming as Packet, Request,
        mqttbytes::{
            QoS as LinkQoS,
            v5::{
                ConnAck, Filter, PubAckReason, PubRecReason, PubRel, Publish, PublishProperties, RetainForwardRule,
                SubAck, Subscribe, SubscribeReasonCode,
            },
        },
    },
};
use tokio::{sync::Notify, time::sleep};

use super::{
    Backplane, COMMANDS, Health, STAMP, embedded,
    inlet::{Incoming, Inlet},
    outbox::Again,
};
use crate::{
    config::BackplaneConfig,
    hub::Hub,
    wire::mqtt::{self, QoS, UserProperties},
};
pub use connect::Broker;
use connect::{Failure, classify, jittered, options};
use line::{Kind, Line, Probe, qos_of};

/// What client ids of links begin with.
pub const LINK_ID: &str = "wigwag-link-";

/// See the module.
pub struct Link {
    broker: Broker,
    client_id: String,
    credentials: Option<(String, String)>,
    session: Duration,
    events: EventLoop,
    inlet: Inlet,
    /// Messages of QoS 2 that were received and not released.
    unreleased: HashSet<u16>,
    /// Those that were released last: the broker may not have heard that, and release them again.
    released: VecDeque<u16>,
    /// Connections in a row that did not come to a round trip, and those of them that broke the protocol.
    failures: u32,
    broken: u32,
    shared: Arc<Shared>,
}

/// What the three loops have in common.
struct Shared {
    backplane: Arc<Backplane>,
    hub: Arc<Hub>,
    line: Mutex<Line>,
    /// The broker has not answered for too long.
    silent: Notify,
    probe_topic: String,
    probe_every: Duration,
    look_every: Duration,
}

/// Messages in flight at most, in each direction; fewer where the broker says so.
const INFLIGHT: u16 = 64;
/// More than any broker leaves unfinished in its direction.
const RELEASED: usize = 256;
/// Requests that rumqttc may not have taken yet.
const REQUESTS: usize = 256;
/// Probes in a row that may stay unanswered.
const UNANSWERED: u32 = 3;
/// Attempts after which an embedded broker that does not answer is replaced, and the protocol is begun anew.
const PATIENCE: u32 = 3;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pauses where the broker does not want us: nothing that we do changes that.
const UNWANTED: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

impl Link {
    pub fn new(config: &BackplaneConfig, broker: Broker, backplane: Arc<Backplane>, hub: Arc<Hub>) -> Self {
        let remote = matches!(broker, Broker::Remote { .. });
        let client_id = if remote {
            format!("wigwag-{}", backplane.node)
        } else {
            // No two servers of this process, and none of its earlier ones.
            format!("{LINK_ID}{}-{:08x}", backplane.node, RandomState::new().hash_one(0) as u32)
        };
        let credentials = (remote && !config.username.is_empty()).then(|| {
            let password = config.password.as_ref().map(|password| password.expose()).unwrap_or_default();
            (config.username.clone(), password.to_owned())
        });
        let session = if remote { config.session } else { Duration::from_secs(600) };
        let options = options(&broker, &client_id, credentials.as_ref(), session, backplane.bounds.packet);
        let (client, events) = AsyncClient::new(options, REQUESTS);
        let now = Instant::now();
        let line = Line {
            client,
            order: VecDeque::new(),
            connected: false,
            subscribed: false,
            qos_max: QoS::ExactlyOnce,
            retain: true,
            probe: Probe { serial: 0, sent: now, unanswered: 0, next: now },
        };
        let shared = Shared {
            probe_topic: format!("wigwag/probe/{client_id}"),
            probe_every: config.probe,
            look_every: (config.ttl / 4).min(config.probe / 2).max(Duration::from_millis(20)),
            line: Mutex::new(line),
            silent: Notify::new(),
            backplane: Arc::clone(&backplane),
            hub: Arc::clone(&hub),
        };
        Self {
            broker,
            client_id,
            credentials,
            session,
            events,
            inlet: Inlet::new(backplane, hub),
            unreleased: HashSet::new(),
            released: VecDeque::new(),
            failures: 0,
            broken: 0,
            shared: Arc::new(shared),
        }
    }

    /// Keeps the link up until it is dropped.
    pub async fn run(mut self) {
        let (feeder, clock) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        tokio::select! {
            () = self.drive() => {}
            () = feeder.feed() => {}
            () = clock.look() => {}
        }
    }

    async fn drive(&mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let event = tokio::select! {
                event = self.events.poll() => event.map_err(|error| classify(&error)),
                () = shared.silent.notified() => {
                    if !shared.is_silent() {
                        continue; // that was about the last connection
                    }
                    Err(Failure::Silence)
                }
            };
            match event.and_then(|event| self.handle(event)) {
                Ok(()) => {}
                Err(failure) => {
                    let pause = self.end(failure);
                    sleep(pause).await;
                    self.begin_again().await;
                }
            }
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        let now = Instant::now();
        match event {
            Event::Incoming(packet) => self.incoming(packet, now)?,
            Event::Outgoing(Sent::Publish(packet_id)) => self.shared.written(packet_id),
            Event::Outgoing(_) => {}
        }
        if self.events.state.events.is_empty() {
            self.inlet.flush(now);
        }
        Ok(())
    }

    fn incoming(&mut self, packet: Packet, now: Instant) -> Result<(), Failure> {
        match packet {
            Packet::ConnAck(ack) => self.connected(&ack, now),
            Packet::SubAck(ack) => self.subscribed(&ack, now)?,
            Packet::Publish(publish) => self.publish(&publish, now),
            Packet::PubRel(release) => {
                self.unreleased.remove(&release.pkid);
                self.released.truncate(RELEASED - 1);
                self.released.push_front(release.pkid);
            }
            Packet::PubAck(ack) => {
                let refused = match ack.reason {
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers => None,
                    reason => Some(format!("{reason:?}")),
                };
                self.shared.done(ack.pkid, refused, now);
            }
            Packet::PubRec(ack) => match ack.reason {
                PubRecReason::Success | PubRecReason::NoMatchingSubscribers => {
                    self.shared.backplane.outbox().received(ack.pkid);
                }
                reason => self.shared.done(ack.pkid, Some(format!("{reason:?}")), now),
            },
            Packet::PubComp(ack) => self.shared.done(ack.pkid, None, now),
            _ => {}
        }
        // rumqttc goes on counting what was refused, until it sends no more.
        let leaked = self.events.state.inflight() > INFLIGHT / 2;
        if leaked && self.shared.backplane.outbox().unacknowledged() == 0 {
            return Err(Failure::Connection("counting anew what is in flight".into()));
        }
        Ok(())
    }

    fn connected(&mut self, ack: &ConnAck, now: Instant) {
        let backplane = Arc::clone(&self.shared.backplane);
        backplane.figures.connections.increment(1);
        let said = ack.properties.as_ref();
        let window = said.and_then(|said| said.receive_max).unwrap_or(u16::MAX).min(INFLIGHT);
        let packet_max = said.and_then(|said| said.max_packet_size).map_or(usize::MAX, |max| max as usize);
        {
            let mut line = self.shared.line.lock();
            backplane.broker_packet.store(packet_max, Ordering::Relaxed);
            line.qos_max = said.and_then(|said| said.max_qos).and_then(QoS::from_bits).unwrap_or(QoS::ExactlyOnce);
            line.retain = said.and_then(|said| said.retain_available) != Some(0);
            line.connected = true;
            line.probe.unanswered = 0;
            line.probe.next = now + self.shared.probe_every;
        }
        self.events.options.set_clean_start(false);
        self.remember_received(ack.session_present);
        // Packet identifiers of a subscription and of what is repeated are taken from the same few.
        let window = window.saturating_sub(2).max(1);
        let (mut expired, mut rejected) = (Vec::new(), Vec::new());
        let mut outbox = backplane.outbox();
        outbox.reject(|out| backplane.packet_of(&out.message) > packet_max, &mut rejected);
        let again = outbox.connected(window, ack.session_present, now, &mut expired);
        drop(outbox);
        self.events.pending.clear();
        self.events.pending.push_back(Request::Subscribe(self.subscription()));
        let again = again.into_iter().map(|again| match again {
            Again::Publish(packet_id, out) => {
                let publish = self.shared.line.lock().packet(&out, &backplane.node, now);
                Request::Publish(Publish { dup: true, pkid: packet_id, ..publish })
            }
            Again::Release(packet_id) => Request::PubRel(PubRel::new(packet_id, None)),
        });
        self.events.pending.extend(again);
        backplane.give_up(&self.shared.hub, &mut expired, now);
        rejected.iter().for_each(|out| backplane.refused(&self.shared.hub, out, "too large", now));
        self.inlet.reconnected();
        self.shared.hand_over(now);
    }

    /// rumqttc has forgotten which messages of QoS 2 it has received, and takes their release for an error: it is told
    /// of them again, as if they had come.
    fn remember_received(&mut self, known: bool) {
        if !known {
            self.unreleased.clear();
            self.released.clear();
        }
        let before = self.events.state.events.len();
        for &packet_id in self.unreleased.iter().chain(&self.released) {
            let publish = Publish { pkid: packet_id, qos: LinkQoS::ExactlyOnce, ..Publish::default() };
            let publish = Publish { topic: Bytes::from_static(b"-"), ..publish };
            // What it would answer is not sent.
            let _ = self.events.state.handle_incoming_packet(Packet::Publish(publish));
        }
        self.events.state.events.truncate(before);
    }

    fn subscription(&self) -> Subscribe {
        // rumqttd sends everything at the subscription's QoS, and cannot resume an exchange of QoS 2.
        let qos = match self.broker {
            Broker::Embedded { .. } => LinkQoS::AtLeastOnce,
            Broker::Remote { .. } => LinkQoS::ExactlyOnce,
        };
        let backplane = &self.shared.backplane;
        let mut filters: Vec<Filter> = backplane
            .share
            .iter()
            .map(|share| Filter {
                nolocal: true,
                preserve_retain: true,
                retain_forward_rule: RetainForwardRule::OnEverySubscribe,
                ..Filter::new(share.to_string(), qos)
            })
            .collect();
        if backplane.commands {
            let filter = Filter::new(format!("{COMMANDS}+"), LinkQoS::AtLeastOnce);
            let retain_forward_rule = RetainForwardRule::Never;
            filters.push(Filter { nolocal: true, preserve_retain: true, retain_forward_rule, ..filter });
        }
        filters.push(Filter::new(self.shared.probe_topic.clone(), LinkQoS::AtMostOnce));
        Subscribe::new_many(filters, None)
    }

    fn subscribed(&mut self, ack: &SubAck, now: Instant) -> Result<(), Failure> {
        let filters = self.subscription().filters;
        let refused = |(code, filter): (&SubscribeReasonCode, &Filter)| match code {
            SubscribeReasonCode::Success(_) => None,
            code => Some(format!("the broker refuses the subscription to {}: {code:?}", filter.path)),
        };
        if let Some(why) = ack.return_codes.iter().zip(&filters).find_map(refused) {
            return Err(Failure::Unwanted(why));
        }
        let mut line = self.shared.line.lock();
        line.subscribed = true;
        self.shared.probe(&mut line, now);
        Ok(())
    }

    fn publish(&mut self, publish: &Publish, now: Instant) {
        // One that was received before comes again if our PUBREC was lost.
        if publish.qos == LinkQoS::ExactlyOnce && !self.unreleased.insert(publish.pkid) {
            return;
        }
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return };
        if topic == self.shared.probe_topic {
            self.answered(&publish.payload, now);
            return;
        }
        let none = PublishProperties::default();
        let said = publish.properties.as_ref().unwrap_or(&none);
        let node = &*self.shared.backplane.node;
        let stamps = || said.user_properties.iter().filter(|(key, _)| key == STAMP);
        let own = stamps().any(|(_, value)| value == node);
        let mut user = Vec::new();
        for (key, value) in said.user_properties.iter().filter(|(key, _)| key != STAMP) {
            UserProperties::push(&mut user, key, value);
        }
        let properties = mqtt::PublishProperties {
            payload_is_utf8: said.payload_format_indicator.map(|indicator| indicator == 1),
            message_expiry: said.message_expiry_interval,
            topic_alias: None,
            response_topic: said.response_topic.as_deref(),
            correlation_data: said.correlation_data.as_deref(),
            content_type: said.content_type.as_deref(),
            user: UserProperties::new(&user).unwrap_or_default(),
            subscription_ids: mqtt::SubscriptionIds::default(),
        };
        let (qos, retain, payload) = (qos_of(publish.qos), publish.retain, &publish.payload);
        self.inlet.receive(&Incoming { topic, payload, qos, retain, properties, own }, now);
    }

    fn answered(&mut self, payload: &[u8], now: Instant) {
        let mut line = self.shared.line.lock();
        if payload == line.probe.serial.to_string().as_bytes() {
            let took = now.saturating_duration_since(line.probe.sent);
            self.shared.backplane.figures.round_trip.set(took.as_secs_f64());
        }
        line.probe.unanswered = 0;
        drop(line);
        (self.failures, self.broken) = (0, 0);
        self.inlet.round_trip();
        self.shared.backplane.set_health(Health::Up);
    }

    /// The connection is over: what is left of it is taken, and the state is such that the next can begin. How long to
    /// wait for that.
    fn end(&mut self, failure: Failure) -> Duration {
        let now = Instant::now();
        // What had come before it broke, and what had been written.
        while let Some(event) = self.events.state.events.pop_front() {
            match event {
                Event::Incoming(Packet::ConnAck(_) | Packet::SubAck(_)) => {}
                event => drop(self.handle(event)),
            }
        }
        self.inlet.flush(now);
        self.shared.backplane.outbox().lost();
        self.events.clean();
        self.events.pending.clear();
        {
            let mut line = self.shared.line.lock();
            line.order.clear();
            (line.connected, line.subscribed, line.probe.unanswered) = (false, false, 0);
        }
        self.failures = self.failures.saturating_add(1);
        self.broken += u32::from(matches!(failure, Failure::Protocol(_)));
        let (why, pause) = match failure {
            Failure::Unwanted(why) => {
                let pause = if self.failures <= PATIENCE { UNWANTED[0] } else { UNWANTED[1] };
                (why, pause)
            }
            Failure::Silence => ("no answer from the broker".into(), Duration::ZERO),
            Failure::Connection(why) | Failure::Protocol(why) => {
                let doubled = SHORTEST_PAUSE.saturating_mul(1 << self.failures.min(6).saturating_sub(1));
                (why, doubled.min(LONGEST_PAUSE))
            }
        };
        self.shared.backplane.set_health(Health::Down(format!("{}: {why}", self.broker.name())));
        jittered(pause)
    }

    /// Sees to it that the next connection has a chance.
    async fn begin_again(&mut self) {
        if self.broken >= PATIENCE {
            // Whatever it was that could not be said or understood, it is in the session.
            self.broken = 0;
            let mut options = self.events.options.clone();
            options.set_clean_start(true);
            let (client, events) = AsyncClient::new(options, REQUESTS);
            self.events = events;
            self.shared.line.lock().client = client;
        }
        let Broker::Embedded { router, size } = &mut self.broker else { return };
        let replaced = embedded::current().is_some_and(|current| !Arc::ptr_eq(&current, router));
        if !replaced && self.failures < PATIENCE {
            return;
        }
        tracing::error!("the embedded broker does not answer: another one is started");
        match embedded::replace(router, *size).await {
            Ok(next) => {
                *router = next;
                self.shared.backplane.figures.restarts.increment(1);
                self.failures = 0;
                let packet = self.shared.backplane.bounds.packet;
                self.events.options =
                    options(&self.broker, &self.client_id, self.credentials.as_ref(), self.session, packet);
            }
            Err(error) => {
                self.shared.backplane.set_health(Health::Down(format!("the embedded broker {error}")));
                sleep(UNWANTED[1]).await;
            }
        }
    }
}

impl Shared {
    /// Hands over what is put into the outbox.
    async fn feed(&self) {
        loop {
            self.backplane.more.notified().await;
            self.hand_over(Instant::now());
        }
    }

    /// Looks for what has expired, and for answers that do not come.
    async fn look(&self) {
        let mut ticks = tokio::time::interval(self.look_every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let mut expired = Vec::new();
            self.backplane.outbox().expire(now, &mut expired);
            self.backplane.give_up(&self.hub, &mut expired, now);
            self.backplane.measure();
            let mut line = self.line.lock();
            if !line.connected || now < line.probe.next {
                continue;
            }
            line.probe.next = now + self.probe_every;
            if line.probe.unanswered >= UNANSWERED {
                line.connected = false;
                self.silent.notify_one();
            } else if line.subscribed {
                self.probe(&mut line, now);
            } else {
                line.probe.unanswered += 1;
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.line.lock().probe.unanswered >= UNANSWERED
    }

    fn probe(&self, line: &mut Line, now: Instant) {
        line.probe.unanswered += 1;
        line.probe.serial += 1;
        line.probe.sent = now;
        let payload = line.probe.serial.to_string();
        if line.client.try_publish(self.probe_topic.clone(), LinkQoS::AtMostOnce, false, payload).is_ok() {
            line.order.push_back(Kind::Probe);
        }
    }

    /// Gives rumqttc what it may send.
    fn hand_over(&self, now: Instant) {
        let mut expired = Vec::new();
        {
            let mut outbox = self.backplane.outbox();
            let mut line = self.line.lock();
            outbox.hand_over(now, |out| line.send(out, &self.backplane.node, now), &mut expired);
        }
        self.backplane.give_up(&self.hub, &mut expired, now);
    }

    /// rumqttc wrote a PUBLISH.
    fn written(&self, packet_id: u16) {
        let mut outbox = self.backplane.outbox();
        if packet_id != 0 && outbox.knows(packet_id) {
            return; // said again
        }
        if self.line.lock().order.pop_front() == Some(Kind::Message) {
            outbox.written(packet_id);
            if packet_id == 0 {
                self.backplane.figures.sent.increment(1);
                drop(outbox);
                self.backplane.more.notify_one();
            }
        }
    }

    /// The exchange of a message is over.
    fn done(&self, packet_id: u16, refused: Option<String>, now: Instant) {
        let done = self.backplane.outbox().done(packet_id);
        match (done, refused) {
            (Some(out), Some(why)) => self.backplane.refused(&self.hub, &out, &why, now),
            (Some(_), None) => self.backplane.figures.sent.increment(1),
            (None, _) => return,
        }
        self.hand_over(now);
    }
}
