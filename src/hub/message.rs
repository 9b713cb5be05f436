//! A message on its way: copied once on arrival, then shared by every queue, flight and retained store it is in.

use std::time::{Duration, Instant};

use super::SubscriberId;
use crate::wire::mqtt::{PublishProperties, QoS};

/// An application message. Topic, properties that are passed on and payload lie in one exact-size allocation, so that
/// a kept message pins no read buffer and a fan-out copies nothing.
#[derive(Debug)]
pub struct Message {
    bytes: Box<[u8]>,
    topic_len: u16,
    properties_len: u32,
    qos: QoS,
    retain: bool,
    raise: bool,
    publisher: SubscriberId,
    expires: Option<Instant>,
}

/// What a message is made of.
pub struct Parts<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// Deliver at the subscription's QoS even where it was published lower.
    pub raise: bool,
    pub properties: &'a PublishProperties<'a>,
    pub publisher: SubscriberId,
}

impl Message {
    pub fn new(parts: &Parts<'_>, now: Instant) -> Self {
        let mut bytes = Vec::with_capacity(parts.topic.len() + parts.payload.len());
        bytes.extend_from_slice(parts.topic.as_bytes());
        parts.properties.encode_forwarded(&mut bytes);
        let properties_len = (bytes.len() - parts.topic.len()) as u32;
        bytes.extend_from_slice(parts.payload);
        Self {
            bytes: bytes.into_boxed_slice(),
            topic_len: parts.topic.len() as u16,
            properties_len,
            qos: parts.qos,
            retain: parts.retain,
            raise: parts.raise,
            publisher: parts.publisher,
            expires: parts.properties.message_expiry.map(|seconds| now + Duration::from_secs(seconds.into())),
        }
    }

    pub fn topic(&self) -> &str {
        // The bytes came from a `&str`; checking again costs a few nanoseconds and keeps this file free of `unsafe`.
        std::str::from_utf8(&self.bytes[..usize::from(self.topic_len)]).unwrap_or_default()
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
        if self.raise { granted } else { self.qos.min(granted) }
    }

    pub fn qos(&self) -> QoS {
        self.qos
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

    /// The same message with its expiry counted from `now`: that of a will begins when it is published.
    pub fn expiring(self, seconds: Option<u32>, now: Instant) -> Self {
        Self { expires: seconds.map(|seconds| now + Duration::from_secs(seconds.into())), ..self }
    }

    pub fn expires(&self) -> Option<Instant> {
        self.expires
    }

    pub fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
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
