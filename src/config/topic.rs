//! `[[topic]]`: who may say what, and where.
//!
//! The rows are one ordered table: the first whose filter matches a topic decides over it, and where none matches,
//! everything is denied. What is written here is what the policy compiles; nothing is decided in this module. A table
//! that was loaded makes sense as far as that can be seen without looking at a connection: every row can be reached,
//! and asks for nothing that its filter cannot say.

mod audience;
mod pattern;
mod read;
mod shipped;

use std::fmt;
use std::time::Duration;

pub use audience::{Audience, Combination, Word};
pub use pattern::{Level, Pattern, PatternError};
pub(super) use read::rate_keys;

use super::value::{Choice, Kind, Switch, quote};
use crate::wire::mqtt::QoS;

/// One `[[topic]]` of the configuration: a class of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRow {
    /// What the class is called in metrics, in logs and by `wigwag explain`; the server knows the classes that it
    /// writes itself by the names presence, control, errors, ice and inbox. 1 to 32 of a-z, 0-9, "-" and "_"; not
    /// "open".
    pub name: String,
    /// Which topics it is about. A topic filter of at most 16 levels; a level may also be {room} or {user} (any name,
    /// for the words of publish and subscribe to speak of), {client} or {claim:NAME} (the client id, or that claim of
    /// the token, of whoever asks; for everybody else the row does not match).
    pub filter: Pattern,
    /// Who may publish. List of the words self, member, join, listen, admin, grant, observe, service, anyone, broker
    /// and nobody; one of the list is enough, "self+join" is both.
    pub publish: Audience,
    /// Who may subscribe. As for publish; the broker needs no subscription.
    pub subscribe: Audience,
    /// Whether to subscribe without a wildcard is to join {room}, for who may join it, and where there is a {user} to
    /// be that user. true or false.
    pub joins: bool,
    /// Quality of service: max caps what is delivered and granted, below min a message is refused, raise delivers at
    /// the subscription's QoS what was published at less. Each 0 to 2; raise is true or false.
    pub qos: QosRule,
    /// Who may set and clear the retained message: never, allowed (who may publish), grant (who was granted the topic
    /// in retain), broker (the server writes it itself, and overlooks the flag).
    pub retain: RetainRule,
    /// Retained messages of the class in one room. 0 to 1000000; 0 = no bound but those of `[limits]`.
    pub retain_per_room: Option<usize>,
    /// What a message must be. "any", "json" or "signal" (a JSON object with its sender's name).
    pub payload: PayloadKind,
    /// Largest payload. Size, 0 to 256 MiB; 0 = no bound but that of `[limits]`.
    pub size: Option<usize>,
    /// How fast one connection may publish to the class: messages and bytes in a second, and burst, the time for which
    /// both may be saved up. 0 to 1000000 messages, 0 to 1 GiB, 0 = no bound; 100 ms to 1 hour.
    pub rate: Rate,
}

/// Key `qos` of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QosRule {
    /// The highest at which anything is delivered or a subscription granted.
    pub max: QoS,
    /// What is published below it is refused.
    pub min: QoS,
    /// Delivered at the subscription's QoS even if published at less; departs from [MQTT-3.8.4-8].
    pub raise: bool,
}

/// Key `retain` of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainRule {
    /// A message with the flag is refused.
    Never,
    /// Who may publish may retain.
    Allowed,
    /// Who was granted the topic in `retain` may.
    Grant,
    /// The server decides what is retained; a client's flag is overlooked.
    Broker,
}

/// Key `payload` of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadKind {
    /// Any bytes.
    Any,
    /// JSON; a sender's name, if there is one, is the publisher's.
    Json,
    /// A JSON object with the publisher's name.
    Signal,
}

/// Key `rate` of a row. The defaults let every connection of a mesh of twelve send its offers, answers and candidates
/// (eleven peers, twenty candidates each) at once, twice over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Messages in a second. 0 to 1000000; 0 = no bound.
    pub messages: Option<usize>,
    /// Payload and topic bytes in a second. Size, 0 to 1 GiB; 0 = no bound.
    pub bytes: Option<usize>,
    /// What was not used is saved up for this long. Duration, 100 ms to 1 hour.
    pub burst: Duration,
}

impl Rate {
    /// Whether it holds anything back at all.
    pub fn is_bounded(&self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }
}

impl TopicRow {
    /// A row at its defaults: nobody may do anything.
    pub fn new(name: &str, filter: Pattern) -> Self {
        Self {
            name: name.into(),
            filter,
            publish: Audience::nobody(),
            subscribe: Audience::nobody(),
            joins: false,
            qos: QosRule { max: QoS::ExactlyOnce, min: QoS::AtMostOnce, raise: false },
            retain: RetainRule::Never,
            retain_per_room: None,
            payload: PayloadKind::Any,
            size: Some(64 << 10),
            rate: Rate { messages: Some(100), bytes: Some(256 << 10), burst: Duration::from_secs(6) },
        }
    }

    /// The class of whatever is in no other, in open mode: anybody's.
    pub(crate) fn open() -> Self {
        Self {
            publish: shipped::audience(&["anyone"]),
            subscribe: shipped::audience(&["anyone"]),
            retain: RetainRule::Allowed,
            size: None,
            rate: Rate { messages: None, bytes: None, burst: Duration::from_secs(1) },
            ..Self::new(OPEN, shipped::pattern("#"))
        }
    }
}

/// The name of [`TopicRow::open`], which therefore no other row has.
const OPEN: &str = "open";

/// The rows, in order. The default is the shipped table; no row at all denies everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRows(pub Vec<TopicRow>);

impl Default for TopicRows {
    fn default() -> Self {
        Self(shipped::rows())
    }
}

/// As in `broker.toml`, with every key.
impl fmt::Display for TopicRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { qos, rate, .. } = self;
        writeln!(f, "name = {}", quote(&self.name))?;
        writeln!(f, "filter = {}", pattern::PatternText.show(&self.filter))?;
        writeln!(f, "publish = {}", audience::AudienceList.show(&self.publish))?;
        writeln!(f, "subscribe = {}", audience::AudienceList.show(&self.subscribe))?;
        writeln!(f, "joins = {}", Switch.show(&self.joins))?;
        writeln!(f, "qos = {{ max = {}, min = {}, raise = {} }}", qos.max as u8, qos.min as u8, qos.raise)?;
        writeln!(f, "retain = {}", RETAIN.show(&self.retain))?;
        writeln!(f, "retain_per_room = {}", read::retain_per_room().show(&self.retain_per_room))?;
        writeln!(f, "payload = {}", PAYLOAD.show(&self.payload))?;
        writeln!(f, "size = {}", read::payload_size().show(&self.size))?;
        let (messages, bytes) = (read::messages().show(&rate.messages), read::bytes().show(&rate.bytes));
        writeln!(f, "rate = {{ messages = {messages}, bytes = {bytes}, burst = {} }}", read::burst().show(&rate.burst))
    }
}

const RETAIN: Choice<RetainRule> = Choice(&[
    ("never", RetainRule::Never),
    ("allowed", RetainRule::Allowed),
    ("grant", RetainRule::Grant),
    ("broker", RetainRule::Broker),
]);

const PAYLOAD: Choice<PayloadKind> =
    Choice(&[("any", PayloadKind::Any), ("json", PayloadKind::Json), ("signal", PayloadKind::Signal)]);

#[cfg(test)]
mod tests;
