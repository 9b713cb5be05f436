//! Who may do what. The edge asks; the answer is a *permit*, and the hub takes nothing else, so that a publish or a
//! subscription that nobody authorised does not compile.
//!
//! At present there is one policy, *open*: the user name is believed, every topic outside `$…` is open to everybody.
//! It still refuses what no policy would allow: names that are not names, and topics beyond the configured bounds.

pub mod auth;
pub mod grants;
mod identity;
pub mod payload;
mod permit;
pub mod table;

use std::{sync::Arc, time::Instant};

pub use identity::{Credentials, Expiry, Identity, valid_name};
pub use permit::{PublishPermit, SubscribePermit};

use crate::{
    hub::{Message, Parts, SubscriberId, Will},
    wire::mqtt::{self, ReasonCode, SubscribeOptions, topic},
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

/// See the module.
#[derive(Debug, Clone)]
pub struct Policy {
    topics: TopicLimits,
}

const NOT_OURS: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "topics that begin with $ belong to the server" };
const NAME_TOO_LONG: Refusal =
    Refusal { reason: ReasonCode::TOPIC_NAME_INVALID, what: "topic longer or deeper than this server allows" };
const FILTER_TOO_LONG: Refusal =
    Refusal { reason: ReasonCode::TOPIC_FILTER_INVALID, what: "filter longer or deeper than this server allows" };

impl Policy {
    pub fn open(topics: TopicLimits) -> Self {
        Self { topics }
    }

    /// Bytes of the longest topic that anybody may publish to.
    pub fn topic_length(&self) -> usize {
        self.topics.bytes
    }

    /// Decides who a connection is.
    pub fn authenticate(&self, credentials: &Credentials<'_>) -> Result<Identity, Refusal> {
        identity::open(credentials, std::time::SystemTime::now())
    }

    /// Judges a PUBLISH whose topic alias, if any, has been resolved.
    pub fn publish(
        &self,
        _identity: &Identity,
        publisher: SubscriberId,
        publish: &mqtt::Publish<'_>,
        now: Instant,
    ) -> Result<PublishPermit, Refusal> {
        self.check_topic(publish.topic)?;
        Ok(PublishPermit::new(Message::new(
            &Parts {
                topic: publish.topic,
                payload: publish.payload,
                qos: publish.qos,
                retain: publish.retain,
                raise: false,
                properties: &publish.properties,
                publisher,
            },
            now,
        )))
    }

    /// Judges a will when it is handed in; [`Policy::will_fires`] judges it again when it is sent.
    pub fn will(&self, identity: &Arc<Identity>, will: &mqtt::Will<'_>, now: Instant) -> Result<Will, Refusal> {
        self.check_topic(will.topic)?;
        let parts = Parts {
            topic: will.topic,
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            raise: false,
            properties: &will.properties,
            publisher: SubscriberId::SERVER, // its own client has gone
        };
        Ok(Will {
            identity: Arc::clone(identity),
            message: Message::new(&parts, now),
            delay: will.delay,
            expiry: will.properties.message_expiry,
        })
    }

    /// Judges a will at the moment it is sent.
    pub fn will_fires(&self, will: Will, now: Instant) -> Result<PublishPermit, Refusal> {
        self.check_topic(will.message.topic())?;
        Ok(PublishPermit::new(will.message.expiring(will.expiry, now)))
    }

    /// Judges one filter of a SUBSCRIBE.
    pub fn subscribe<'a>(
        &self,
        _identity: &Identity,
        asked: &'a str,
        options: SubscribeOptions,
    ) -> Result<SubscribePermit<'a>, Refusal> {
        let (group, filter) = match topic::split_share(asked) {
            Some((group, filter)) => (Some(group), filter),
            None => (None, asked),
        };
        if self.exceeds(filter) || group.is_some_and(|group| group.len() > self.topics.bytes) {
            return Err(FILTER_TOO_LONG);
        }
        Ok(SubscribePermit::new(asked, group, filter, options))
    }

    fn check_topic(&self, topic: &str) -> Result<(), Refusal> {
        if topic.starts_with('$') {
            return Err(NOT_OURS);
        }
        if self.exceeds(topic) { Err(NAME_TOO_LONG) } else { Ok(()) }
    }

    fn exceeds(&self, topic: &str) -> bool {
        topic.len() > self.topics.bytes || topic.bytes().filter(|&byte| byte == b'/').count() >= self.topics.levels
    }
}
