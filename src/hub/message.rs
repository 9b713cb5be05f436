//! A message on its way: copied once on arrival, then shared by every queue, flight and retained store it is in.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use super::SubscriberId;
use crate::{
    policy::ClassTag,
    wire::mqtt::{PublishProperties, QoS},
};

/// An application message. Topic, properties that are passed on and payload lie in one exact-size allocation, so that
/// a kept message pins no read buffer and a fan-out copies nothing.
#[derive(Debug)]
pub struct Message {
    bytes: Box<[u8]>,
    topic_len: u16,
    properties_len: u32,
    qos: QoS,
    retain: bool,
    raised: Option<QoS>,
    publisher: SubscriberId,
    received: Instant,
    expires: Option<Instant>,
    /// When whoever has not been sent it has no use for it any more; no client is told.
    stale: Option<Instant>,
    class: Option<ClassTag>,
    /// Where in the topic the name of its room stands; an empty range if it is in none.
    room: (u16, u16),
}

/// What a message is made of.
pub struct Parts<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// Deliver at the subscription's QoS up to this, even where it was published lower.
    pub raised: Option<QoS>,
    pub properties: &'a PublishProperties<'a>,
    pub publisher: SubscriberId,
    /// Who said it, for receivers that know user properties.
    pub sender: Option<&'a str>,
    /// What it is to those who may see a part of what they subscribed to.
    pub class: Option<ClassTag>,
    /// A level of `topic`: the room that it belongs to.
    pub room: Option<&'a str>,
    /// How long it is of use to whoever has not got it.
    pub life: Option<Duration>,
}

impl Message {
    pub fn new(parts: &Parts<'_>, now: Instant) -> Self {
        let properties_len = parts.properties.forwarded_len(parts.sender);
        let mut bytes = Vec::with_capacity(parts.topic.len() + properties_len + parts.payload.len());
        bytes.extend_from_slice(parts.topic.as_bytes());
        parts.properties.encode_forwarded(parts.sender, &mut bytes);
        bytes.extend_from_slice(parts.payload);
        Self {
            bytes: bytes.into_boxed_slice(),
            topic_len: parts.topic.len() as u16,
            properties_len: properties_len as u32,
            qos: parts.qos,
            retain: parts.retain,
            raised: parts.raised,
            publisher: parts.publisher,
            received: now,
            expires: parts.properties.message_expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
            stale: parts.life.map(|life| now + life),
            class: parts.class,
            room: parts.room.map_or((0, 0), |room| position(room, parts.topic)),
        }
    }

    /// Its class, for who sees only a part.
    pub fn class(&self) -> Option<ClassTag> {
        self.class
    }

    /// The room that it belongs to.
    pub fn room(&self) -> Option<&str> {
        let (start, end) = self.room;
        (start < end).then(|| self.text(start.into()..end.into()))
    }

    /// The QoS it was published at, or the cap of its class.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    pub fn topic(&self) -> &str {
        self.text(0..self.topic_len.into())
    }

    /// A part of the topic. It came from a `&str`; checking again costs some nanoseconds and keeps this file free of
    /// `unsafe`.
    fn text(&self, part: Range<usize>) -> &str {
        std::str::from_utf8(&self.bytes[part]).unwrap_or_default()
    }

    /// Encoded properties that are passed on unchanged, without their length.
    pub fn properties(&self) -> &[u8] {
        &self.bytes[usize::from(self.topic_len)..self.payload_start()]
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_start()..]
    }

    fn payload_start(&self) -> usize {
        usize::from(self.topic_len) + self.properties_len as usize
    }

    /// Bytes that count against queue limits.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The QoS of one delivery: the lower of the two [MQTT-3.8.4-8], except in classes that raise.
    pub fn qos_for(&self, granted: QoS) -> QoS {
        self.raised.unwrap_or(self.qos).min(granted)
    }

    pub fn retain(&self) -> bool {
        self.retain
    }

    /// Makes it the last value of its topic, for who subscribes later.
    pub fn keep(&mut self) {
        self.retain = true;
    }

    pub fn publisher(&self) -> SubscriberId {
        self.publisher
    }

    /// Whether the server itself says it, or a service behind it.
    pub fn is_own(&self) -> bool {
        self.publisher == SubscriberId::SERVER
    }

    /// The same message as if it had come at `now`, from which its expiry counts: a will is published when it is sent.
    pub fn expiring(self, seconds: Option<u32>, now: Instant) -> Self {
        let expires = seconds.map(|seconds| now + Duration::from_secs(seconds.into()));
        Self { expires, received: now, ..self }
    }

    /// The same message as a member of another class.
    pub fn in_class(self, class: Option<ClassTag>) -> Self {
        Self { class, ..self }
    }

    /// When its publisher's bytes were read, or the server made it.
    pub fn received(&self) -> Instant {
        self.received
    }

    pub fn expires(&self) -> Option<Instant> {
        self.expires
    }

    pub fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now) || self.stale.is_some_and(|at| at <= now)
    }

    /// Seconds left of the message expiry interval [MQTT-3.3.2-6], to the nearest and at least one while there is any
    /// time left. `now` may be a little before the message was made, on another thread: what is left is then still no
    /// more than the interval.
    pub fn expiry_left(&self, now: Instant) -> Option<u32> {
        let left = self.expires?.saturating_duration_since(now);
        let seconds = (left.as_millis() + 500) / 1000;
        Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(u32::from(!left.is_zero())))
    }
}

/// Where `part`, a slice of `whole`, begins and ends in it.
pub(crate) fn position(part: &str, whole: &str) -> (u16, u16) {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    (start as u16, (start + part.len()) as u16)
}
