//! What the unit tests of the hub are made of: sessions without sockets, and a clock that is set by hand.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    backplane::Source,
    config::{PresenceConfig, RoomsConfig, TopicRows},
    metrics::Gauges,
    policy::{Asker, Identity, PublishPermit, Refusal},
    session::{
        Attachment,
        testing::{Script, Woken, identity, parts, policy, policy_of, terms},
    },
    wire::mqtt::{self, PublishProperties, QoS, ReasonCode, Version},
};

pub const LIMITS: HubLimits = HubLimits {
    queue: QueueLimits { messages: 100, own: 100, bytes: 100_000 },
    subscriptions: 10,
    sessions: KeptLimits { all: 10, per_user: 100, per_address: 100 },
    retained_messages: 10,
    retained_bytes: 1000,
    write_timeout: Duration::from_secs(10),
};

/// A hub and the time, which passes when a test says so.
pub struct World {
    pub hub: Hub,
    pub now: Instant,
}

/// A connection of a session.
pub struct Peer {
    pub session: Arc<Session>,
    pub identity: Arc<Identity>,
    pub epoch: u32,
    pub present: bool,
    pub script: Script,
    pub woken: Arc<Woken>,
}

/// A CONNECT to be: as it stands, that of a client which wants its session back if there is one.
#[derive(Clone, Copy)]
pub struct Asks {
    pub clean_start: bool,
    pub expiry: u32,
    /// Will topic and delay.
    pub will: Option<(&'static str, u32)>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
}

pub const KEPT: Asks = Asks { clean_start: false, expiry: 60, will: None, address: None };
pub const CLEAN: Asks = Asks { clean_start: true, expiry: 0, ..KEPT };

impl World {
    pub fn new() -> Self {
        Self::with(LIMITS)
    }

    pub fn with(limits: HubLimits) -> Self {
        Self::with_policy(limits, policy(), RoomsConfig::default())
    }

    /// One with the shipped topic table.
    pub fn shipped(limits: HubLimits, rooms: RoomsConfig) -> Self {
        Self::with_policy(limits, policy_of(TopicRows::default()), rooms)
    }

    fn with_policy(limits: HubLimits, policy: Policy, rooms: RoomsConfig) -> Self {
        let rooms = Rooms::new(rooms, &PresenceConfig::default());
        Self { hub: Hub::new(limits, policy, rooms, "node", Arc::default()), now: Instant::now() }
    }

    pub fn connect(&self, client_id: &str, asks: Asks) -> Peer {
        self.try_connect(client_id, "user", asks).map_err(|refusal| refusal.what).unwrap()
    }

    pub fn try_connect(&self, client_id: &str, user: &str, asks: Asks) -> Result<Peer, Refusal> {
        self.connect_as(client_id, Arc::new(identity(user)), asks)
    }

    pub fn connect_as(&self, client_id: &str, identity: Arc<Identity>, asks: Asks) -> Result<Peer, Refusal> {
        let script = Script::default();
        script.takes(usize::MAX);
        let (mut link, woken) = script.link(terms(Version::V5), false);
        link.address = asks.address;
        let will = asks.will.map(|(topic, delay)| {
            let properties = PublishProperties::default();
            let will = mqtt::Will { qos: QoS::AtLeastOnce, retain: false, topic, payload: b"{}", delay, properties };
            self.hub.policy.will(&identity, client_id, &will, self.now).unwrap()
        });
        let Asks { clean_start, expiry, .. } = asks;
        let attachment = Attachment::Link(link);
        let connect = Connect {
            client_id,
            identity: &identity,
            clean_start,
            expiry,
            attachment,
            will,
            greeting: &|_| Vec::new(),
        };
        let Connected { session, epoch, present } =
            self.hub.connect(connect, self.now).map_err(|(refusal, _)| refusal)?;
        Ok(Peer { session, identity, epoch, present, script, woken })
    }

    pub fn disconnect(&self, peer: &Peer, end: End) {
        self.hub.disconnect(&peer.session, peer.epoch, end, self.now);
    }

    pub fn subscribe(&self, peer: &Peer, filter: &str) -> Result<bool, Refusal> {
        self.subscribe_with(peer, filter, SubscribeOptions::new(QoS::ExactlyOnce), 0)
    }

    /// With a subscription identifier, unless that is 0.
    pub fn subscribe_with(
        &self,
        peer: &Peer,
        filter: &str,
        options: SubscribeOptions,
        id: u32,
    ) -> Result<bool, Refusal> {
        let mut dirty = Dirty::default();
        let identity = &*peer.identity;
        let asker = Asker { identity, client_id: &peer.session.client_id, in_room: &|_| false };
        let permit = self.hub.policy.subscribe(&asker, filter, options)?;
        let id = NonZeroU32::new(id);
        let existed = self.hub.subscribe(&peer.session, &permit, identity, id, self.now, &mut dirty);
        dirty.flush(&self.hub, self.now);
        self.settle(peer);
        existed
    }

    pub fn unsubscribe(&self, peer: &Peer, filter: &str) -> bool {
        let mut dirty = Dirty::default();
        let existed = self.hub.unsubscribe(&peer.session, filter, self.now, &mut dirty);
        dirty.flush(&self.hub, self.now);
        existed
    }

    /// What the task of a connection does when it is woken: fetches retained messages, as long as they are read.
    pub fn settle(&self, peer: &Peer) {
        while peer.session.lock().outbound.hungry() {
            let collected = self.hub.collect(&peer.session, self.now);
            if collected.moved {
                self.hub.flush(&peer.session, None, self.now);
            } else if !collected.again {
                break;
            }
        }
    }

    pub fn publish(&self, topic: &str) -> bool {
        self.publish_message(topic, b"payload", QoS::AtLeastOnce, false, None).unwrap()
    }

    pub fn publish_message(
        &self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
        expiry: Option<u32>,
    ) -> Result<bool, Refusal> {
        let properties = &PublishProperties { message_expiry: expiry, ..PublishProperties::default() };
        let parts = Parts { qos, retain, ..parts(topic, payload, properties) };
        let permit = PublishPermit::server(Message::new(&parts, self.now));
        let mut dirty = Dirty::default();
        let found = self.hub.publish(Source::Server, permit, self.now, &mut dirty);
        dirty.flush(&self.hub, self.now);
        found
    }

    pub fn retain(&self, topic: &str, payload: &[u8], expiry: Option<u32>) -> Result<bool, Refusal> {
        self.publish_message(topic, payload, QoS::AtLeastOnce, true, expiry)
    }

    /// A publish of that peer's, judged.
    pub fn permit(&self, peer: &Peer, publish: &mqtt::Publish<'_>) -> PublishPermit {
        self.judge(peer, publish).unwrap()
    }

    /// What comes of a publish of that peer's.
    pub fn publish_as(&self, peer: &Peer, topic: &str, payload: &[u8], retain: bool) -> Result<bool, Refusal> {
        let (properties, qos) = (PublishProperties::default(), QoS::AtLeastOnce);
        let publish = mqtt::Publish { dup: false, qos, retain, topic, packet_id: None, properties, payload };
        let permit = self.judge(peer, &publish)?;
        let mut dirty = Dirty::default();
        let taken = self.hub.take(&peer.session, permit, self.now, &mut dirty);
        dirty.flush(&self.hub, self.now);
        taken
    }

    fn judge(&self, peer: &Peer, publish: &mqtt::Publish<'_>) -> Result<PublishPermit, Refusal> {
        let identity = &*peer.identity;
        let in_room = |room: &str| self.hub.may_speak(&peer.session, identity, room, self.now);
        let asker = Asker { identity, client_id: &peer.session.client_id, in_room: &in_room };
        self.hub.policy.publish(&asker, peer.session.id, publish, self.now)
    }

    /// Lets time pass, and what falls due with it.
    pub fn wait(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.hub.clock.next().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            while let Some(due) = self.hub.clock.pop_due(self.now) {
                self.hub.due(due, self.now);
            }
        }
        self.now = until;
    }

    /// What the retained messages are counted as, and what there is of them.
    pub fn retained(&self) -> (usize, usize) {
        let counted = self.hub.retained.messages.load(Ordering::Relaxed);
        assert_eq!(counted, self.hub.held().retained);
        (counted, self.hub.retained.bytes.load(Ordering::Relaxed))
    }

    /// Sessions that wait without a connection, as they are counted.
    pub fn kept(&self) -> usize {
        self.hub.registry.kept().lock().len()
    }

    /// What the hub has counted, as text.
    pub fn metrics(&self) -> String {
        self.hub.metrics.render(Gauges::default())
    }

    #[track_caller]
    pub fn assert_empty(&self) {
        assert_eq!(self.hub.held(), Held::default());
        assert_eq!((self.retained(), self.kept()), ((0, 0), 0));
        assert_eq!(self.hub.registry.kept().lock().remembered(), (0, 0));
    }
}

impl Peer {
    /// The messages written to it since the last call: topic, payload as text, whether retained.
    pub fn messages(&self) -> Vec<(String, String, bool)> {
        let written = self.script.written();
        let publishes = crate::session::testing::packets(&written, Version::V5).into_iter().filter_map(|packet| {
            let mqtt::Packet::Publish(publish) = packet else { return None };
            if let Some(packet_id) = publish.packet_id {
                self.session.lock().outbound.puback(packet_id);
            }
            let payload = String::from_utf8_lossy(publish.payload).into_owned();
            Some((publish.topic.to_owned(), payload, publish.retain))
        });
        publishes.collect()
    }

    /// Why its connection is to end.
    pub fn closing(&self) -> Option<ReasonCode> {
        self.session.lock().link().and_then(|link| link.closes_now()).map(|close| close.reason)
    }

    /// The messages written to it since the last call: topic, and what is unusual about each.
    pub fn received(&self) -> Vec<String> {
        let written = self.script.written();
        let publishes = crate::session::testing::packets(&written, Version::V5).into_iter().filter_map(|packet| {
            let mqtt::Packet::Publish(publish) = packet else { return None };
            if let Some(packet_id) = publish.packet_id {
                self.session.lock().outbound.puback(packet_id);
            }
            let mut text = format!("{}@{}", publish.topic, publish.qos as u8);
            text += if publish.retain { " retained" } else { "" };
            publish.properties.subscription_ids.iter().for_each(|id| text += &format!(" #{id}"));
            Some(text)
        });
        publishes.collect()
    }
}
