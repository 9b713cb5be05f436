//! Who may do what. The edge asks; the answer is a *permit*, and the hub takes nothing else, so that a publish or a
//! subscription that nobody authorised does not compile.
//!
//! Three things decide: who a connection is ([`auth`]), what it was granted ([`grants`]), and the topic table
//! ([`table`]), which can be replaced at any time. What a payload has to be ([`payload`]) is checked once the topic is
//! allowed; how fast somebody may go ([`rate`]) and how much refusing is enough ([`strikes`]) come on top.

pub mod auth;
pub mod grants;
mod identity;
pub mod payload;
mod permit;
pub mod rate;
mod rules;
pub mod strikes;
pub mod table;

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::{RwLock, RwLockReadGuard};

use auth::Authenticator;
pub use identity::{Credentials, Expiry, Identity, base, valid_name};
pub use permit::{Meaning, PublishPermit, SubscribePermit};
pub use rules::{ClassTag, Rules, Visible};
use table::{PublishDecision, Who};

use crate::{
    config::{PayloadKind, Rate, RetainRule, RoomsConfig, TopicRows},
    hub::{Message, Parts, SubscriberId, Will},
    wire::mqtt::{self, QoS, ReasonCode, SubscribeOptions, topic},
};

/// Why something was refused: the code that a 5.0 client sees, and one line that helps it and reveals nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub reason: ReasonCode,
    pub what: &'static str,
}

/// Bounds on topic names and filters.
#[derive(Debug, Clone, Copy)]
pub struct TopicLimits {
    pub levels: usize,
    pub bytes: usize,
}

/// Who asks: a connection, or what it left behind.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    pub identity: &'a Identity,
    pub client_id: &'a str,
    /// Whether it may publish as a member of the room of this name.
    pub in_room: &'a dyn Fn(&str) -> bool,
}

/// See the module.
pub struct Policy {
    topics: TopicLimits,
    rules: RwLock<Arc<Rules>>,
    /// Signals that nobody has taken for this long are of no use to anybody.
    signal_expiry: Duration,
    pub auth: Arc<Authenticator>,
}

const NOT_OURS: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "topics that begin with $ belong to the server" };
/// Whoever answers writes there by its own rights, which may be more: nobody makes another write where it could not.
const NOT_FOR_RESPONSES: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "you may neither read nor write the response topic" };
const NAME_TOO_LONG: Refusal =
    Refusal { reason: ReasonCode::TOPIC_NAME_INVALID, what: "topic longer or deeper than this server allows" };
const FILTER_TOO_LONG: Refusal =
    Refusal { reason: ReasonCode::TOPIC_FILTER_INVALID, what: "filter longer or deeper than this server allows" };
const WILL_REVOKED: Refusal = Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "this login was revoked" };
const WILL_TO_BROKER: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "the server itself says here who has gone; no will is needed" };
const WILL_OF_ORDERS: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "an order to moderate is given now or not at all" };

impl Policy {
    pub fn new(topics: TopicLimits, rows: &TopicRows, auth: Arc<Authenticator>) -> Self {
        let rules = RwLock::new(Arc::new(Rules::new(rows, auth.is_open(), 0)));
        Self { topics, rules, signal_expiry: RoomsConfig::default().signal_expiry, auth }
    }

    /// The same with signals that wait for so long.
    pub fn with_signal_expiry(self, signal_expiry: Duration) -> Self {
        Self { signal_expiry, ..self }
    }

    /// Puts another topic table in place of the present one. Whoever has a subscription has to be judged again.
    pub fn replace_table(&self, rows: &TopicRows) {
        let mut rules = self.rules.write();
        *rules = Arc::new(Rules::new(rows, self.auth.is_open(), rules.generation().wrapping_add(1)));
    }

    /// The topic table in force.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.in_force())
    }

    /// The lock is taken while rooms are asked who is in them, and by who has a room locked: neither may wait for a
    /// table that waits to be put in its place, or all three would wait for each other.
    fn in_force(&self) -> RwLockReadGuard<'_, Arc<Rules>> {
        self.rules.read_recursive()
    }

    /// Bytes of the longest topic that anybody may publish to.
    pub fn topic_length(&self) -> usize {
        self.topics.bytes
    }

    /// Decides who a connection is.
    ///
    /// # Errors
    /// See [`Authenticator::authenticate`].
    pub async fn authenticate(&self, credentials: Credentials<'_>, remote: IpAddr) -> Result<Identity, Refusal> {
        self.auth.authenticate(credentials, remote).await
    }

    /// Decides over a PUBLISH whose topic alias, if any, has been resolved: by its topic and its length alone.
    ///
    /// # Errors
    /// The topic is not for this asker, or not like this.
    pub fn decide<'t>(&self, asker: &Asker<'_>, publish: &mqtt::Publish<'t>) -> Result<Decided<'t>, Refusal> {
        self.check_topic(publish.topic)?;
        let rules = self.in_force();
        let size = publish.payload.len();
        let decision = asker.with_who(|who| rules.table.publish(who, publish.topic, publish.qos, publish.retain, size));
        let decision = decision?;
        if let Some(response) = publish.properties.response_topic
            && !asker.with_who(|who| rules.may_use(who, response))
        {
            return Err(NOT_FOR_RESPONSES);
        }
        let row = rules.table.row(decision.class);
        Ok(Decided {
            meaning: rules.meaning(&decision),
            rate: row.rate,
            retained_in_room: row.retain_per_room.filter(|_| decision.room.is_some()),
            life: (decision.payload == PayloadKind::Signal).then_some(self.signal_expiry),
            class: rules.tag(Some(decision.class)),
            shown_as: rules.tag(decision.shown_as),
            broker_retains: row.retain == RetainRule::Broker,
            raised: decision.raise.then_some(row.qos.max),
            decision,
        })
    }

    /// Makes a permit of what was decided over a PUBLISH, if its payload is what the topic asks for.
    ///
    /// # Errors
    /// It is not.
    pub fn permit(
        &self,
        asker: &Asker<'_>,
        decided: &Decided<'_>,
        publisher: SubscriberId,
        publish: &mqtt::Publish<'_>,
        now: Instant,
    ) -> Result<PublishPermit, Refusal> {
        let Decided { decision, .. } = decided;
        let clears_own_presence = decided.meaning == Meaning::Presence && publish.payload.is_empty();
        if !clears_own_presence {
            let sender = Some(&*asker.identity.user).filter(|_| asker.identity.tagged);
            payload::check(publish.payload, decision.payload, sender)?;
        }
        let parts = Parts {
            retain: decision.retain,
            sender: Some(&asker.identity.user),
            ..decided.parts(publish.topic, publish.payload, &publish.properties, publisher)
        };
        let message = Message::new(&parts, now);
        Ok(PublishPermit::new(message, decided.meaning, decided.retained_in_room.map(|most| (decision.class, most))))
    }

    /// Both steps at once, for who is not throttled.
    ///
    /// # Errors
    /// As the steps.
    pub fn publish(
        &self,
        asker: &Asker<'_>,
        publisher: SubscriberId,
        publish: &mqtt::Publish<'_>,
        now: Instant,
    ) -> Result<PublishPermit, Refusal> {
        let decided = self.decide(asker, publish)?;
        self.permit(asker, &decided, publisher, publish, now)
    }

    /// Judges a will when it is handed in, as if its sender had joined; [`Policy::will_fires`] judges it again when it
    /// is sent.
    ///
    /// # Errors
    /// Its topic is not for this client, or its payload not for that topic.
    pub fn will(
        &self,
        identity: &Arc<Identity>,
        client_id: &str,
        will: &mqtt::Will<'_>,
        now: Instant,
    ) -> Result<Will, Refusal> {
        let asker = Asker { identity, client_id, in_room: &|room| identity.grants.room(room).join };
        let publish = mqtt::Publish {
            dup: false,
            qos: will.qos,
            retain: will.retain,
            topic: will.topic,
            packet_id: None,
            properties: will.properties,
            payload: will.payload,
        };
        let retained = |refusal: Refusal| match refusal.what == table::Why::Retain.what() {
            true => Refusal { reason: ReasonCode::RETAIN_NOT_SUPPORTED, ..refusal }, // what CONNACK has for it
            false => refusal,
        };
        let decided = self.decide(&asker, &publish).map_err(retained)?;
        decided.suits_a_will()?;
        let permit = self.permit(&asker, &decided, SubscriberId::SERVER, &publish, now)?;
        Ok(Will {
            identity: Arc::clone(identity),
            client_id: client_id.into(),
            message: permit.into_message(),
            delay: will.delay,
            expiry: will.properties.message_expiry,
        })
    }

    /// Judges a will at the moment it is sent, by what holds now.
    ///
    /// # Errors
    /// What was allowed then is so no longer.
    pub fn will_fires(&self, will: Will, now: Instant) -> Result<PublishPermit, Refusal> {
        if self.auth.is_revoked(&will.identity) {
            return Err(WILL_REVOKED);
        }
        let Will { identity, client_id, message, expiry, .. } = will;
        let in_room = |room: &str| identity.grants.room(room).join;
        let asker = Asker { identity: &identity, client_id: &client_id, in_room: &in_room };
        let properties = mqtt::PublishProperties::default();
        let publish = mqtt::Publish {
            dup: false,
            qos: message.qos(),
            retain: message.retain(),
            topic: message.topic(),
            packet_id: None,
            properties,
            payload: message.payload(),
        };
        let decided = self.decide(&asker, &publish)?;
        decided.suits_a_will()?;
        let (class, bound) = (decided.shown_as, decided.retained_in_room.map(|most| (decided.decision.class, most)));
        Ok(PublishPermit::new(message.expiring(expiry, now).in_class(class), Meaning::Message, bound))
    }

    /// Judges one filter of a SUBSCRIBE.
    ///
    /// # Errors
    /// Something that it matches may not be read.
    pub fn subscribe<'a>(
        &self,
        asker: &Asker<'_>,
        asked: &'a str,
        options: SubscribeOptions,
    ) -> Result<SubscribePermit<'a>, Refusal> {
        let (group, filter) = split_share(asked);
        if self.exceeds(filter) || group.is_some_and(|group| group.len() > self.topics.bytes) {
            return Err(FILTER_TOO_LONG);
        }
        let rules = self.rules();
        let decision = asker
            .with_who(|who| rules.table.subscribe(who, filter, group.is_some(), options.qos))
            .map_err(Refusal::from)?;
        let visible = (decision.observes || decision.visible != table::ClassSet::ALL)
            .then(|| Arc::new(Visible { rules: Arc::clone(&rules), classes: decision.visible }));
        Ok(SubscribePermit::new(asked, (group, filter), options, &decision, visible))
    }

    /// A message of the server's own.
    pub(crate) fn server_message(&self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> PublishPermit {
        let properties = mqtt::PublishProperties::default();
        let publish = mqtt::Publish { dup: false, qos, retain, topic, packet_id: None, properties, payload };
        self.trusted(&publish, Instant::now())
    }

    /// A message that needs nobody's leave: the server's, or one of a service behind it.
    pub(crate) fn trusted(&self, publish: &mqtt::Publish<'_>, now: Instant) -> PublishPermit {
        let mqtt::Publish { topic, payload, qos, retain, ref properties, .. } = *publish;
        let rules = self.in_force();
        let class = rules.table.class_of(topic);
        let parts = Parts {
            topic,
            payload,
            qos,
            retain,
            raised: None,
            properties,
            publisher: SubscriberId::SERVER,
            sender: None,
            class: rules.tag(class.map(|class| class.id)),
            room: class.and_then(|class| class.room),
            life: None,
        };
        PublishPermit::server(Message::new(&parts, now))
    }

    fn check_topic(&self, topic: &str) -> Result<(), Refusal> {
        if topic.starts_with('$') {
            return Err(NOT_OURS);
        }
        if self.exceeds(topic) { Err(NAME_TOO_LONG) } else { Ok(()) }
    }

    fn exceeds(&self, topic: &str) -> bool {
        let TopicLimits { levels, bytes } = self.topics;
        // A short one has no room for so many slashes.
        topic.len() > bytes || topic.len() >= levels && topic.bytes().filter(|&byte| byte == b'/').count() >= levels
    }

    /// Whether an identity is good no more.
    pub fn is_over(&self, identity: &Identity, now: SystemTime) -> bool {
        self.auth.is_revoked(identity) || identity.expiry.is_some_and(|expiry| expiry.at <= now)
    }
}

/// Who counts as one: an IPv4 address, or the /64 that one IPv6 customer has at least.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Group and filter of a shared subscription; a plain one has no group.
pub fn split_share(asked: &str) -> (Option<&str>, &str) {
    match topic::split_share(asked) {
        Some((group, filter)) => (Some(group), filter),
        None => (None, asked),
    }
}

impl<'a> Asker<'a> {
    fn with_who<T>(&self, ask: impl FnOnce(&Who<'_>) -> T) -> T {
        let Self { identity, client_id, in_room } = *self;
        ask(&Who {
            user: &identity.user,
            client_id,
            grants: &identity.grants,
            claim: &|name| identity.claim(name),
            is_member: in_room,
        })
    }
}

/// What the table said of a publish.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'t> {
    decision: PublishDecision<'t>,
    pub meaning: Meaning,
    /// How fast one connection may publish to this class, and which class that is.
    pub rate: Rate,
    class: Option<ClassTag>,
    /// By which observers see it or do not.
    shown_as: Option<ClassTag>,
    retained_in_room: Option<usize>,
    life: Option<std::time::Duration>,
    broker_retains: bool,
    /// Up to which QoS it is delivered, whatever it was published at.
    raised: Option<QoS>,
}

impl Decided<'_> {
    /// The class that the topic belongs to.
    pub fn class(&self) -> Option<ClassTag> {
        self.class
    }

    /// What the server writes itself, and orders, which are carried out when they are given, are no wills.
    fn suits_a_will(&self) -> Result<(), Refusal> {
        match self.meaning {
            Meaning::Control => Err(WILL_OF_ORDERS),
            _ if self.broker_retains => Err(WILL_TO_BROKER),
            _ => Ok(()),
        }
    }

    fn parts<'p>(
        &'p self,
        topic: &'p str,
        payload: &'p [u8],
        properties: &'p mqtt::PublishProperties<'p>,
        publisher: SubscriberId,
    ) -> Parts<'p> {
        Parts {
            topic,
            payload,
            qos: self.decision.qos,
            retain: false,
            raised: self.raised,
            properties,
            publisher,
            sender: None,
            class: self.shown_as,
            room: self.decision.room,
            life: self.life,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;
    use crate::session::testing::{identity, policy_of};

    /// A publish asks for places in rooms while it looks at the table, and who has a room locked looks at the table.
    #[test]
    fn a_table_that_waits_to_be_replaced_keeps_nobody_who_reads_it_waiting() {
        let policy = Arc::new(policy_of(TopicRows::default()));
        let (done, finished) = mpsc::channel();
        let other = Arc::clone(&policy);
        thread::spawn(move || {
            let in_room = |_: &str| {
                let replacing = Arc::clone(&other);
                thread::spawn(move || replacing.replace_table(&TopicRows::default()));
                thread::sleep(Duration::from_millis(100)); // by now it waits
                other.rules().table.class_of("rooms/demo/signal").is_some()
            };
            let alice = identity("alice");
            let asker = Asker { identity: &alice, client_id: "tab", in_room: &in_room };
            let publish = mqtt::Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain: false,
                topic: "rooms/demo/signal",
                packet_id: None,
                properties: mqtt::PublishProperties::default(),
                payload: b"{}",
            };
            let _ = done.send(other.decide(&asker, &publish).is_ok());
        });
        assert_eq!(finished.recv_timeout(Duration::from_secs(10)), Ok(true), "all three wait for each other");
    }
}
