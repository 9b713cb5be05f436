//! Packets that were received, as values of their own.

use std::num::{NonZeroU16, NonZeroU32};

use wigwag::wire::mqtt::{self, Packet, QoS, Version, decode};

/// A packet's bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Received {
    pub bytes: Vec<u8>,
    pub version: Version,
}

impl Received {
    pub fn packet(&self) -> Packet<'_> {
        match decode(&self.bytes, self.version, usize::MAX) {
            Ok(Some((packet, _))) => packet,
            other => panic!("the broker sent what is no packet: {other:?} in {:02X?}", self.bytes),
        }
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = format!("{:?}", self.packet());
        if text.len() > 600 {
            text.truncate(text.floor_char_boundary(600));
            text.push('…');
        }
        f.write_str(&text)
    }
}

/// User properties, in order.
pub type User = Vec<(String, String)>;

fn user(properties: &mqtt::UserProperties<'_>) -> User {
    properties.iter().map(|(key, value)| (key.into(), value.into())).collect()
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAck {
    pub session_present: bool,
    pub reason: u8,
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub maximum_packet: Option<u32>,
    pub assigned_client_id: Option<String>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<String>,
    pub wildcards: Option<bool>,
    pub subscription_ids: Option<bool>,
    pub shared: Option<bool>,
    pub server_keep_alive: Option<u16>,
}

impl From<&mqtt::ConnAck<'_>> for ConnAck {
    fn from(ack: &mqtt::ConnAck<'_>) -> Self {
        let properties = &ack.properties;
        Self {
            session_present: ack.session_present,
            reason: ack.reason.0,
            session_expiry: properties.session_expiry,
            receive_maximum: properties.receive_maximum.map(NonZeroU16::get),
            maximum_qos: properties.maximum_qos,
            retain_available: properties.retain_available,
            maximum_packet: properties.maximum_packet_size.map(NonZeroU32::get),
            assigned_client_id: properties.assigned_client_id.map(Into::into),
            topic_alias_maximum: properties.topic_alias_maximum,
            reason_string: properties.reason_string.map(Into::into),
            wildcards: properties.wildcard_subscription_available,
            subscription_ids: properties.subscription_identifiers_available,
            shared: properties.shared_subscription_available,
            server_keep_alive: properties.server_keep_alive,
        }
    }
}

/// A PUBLISH, received or to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// 0 at QoS 0, and before it was sent.
    pub id: u16,
    pub expiry: Option<u32>,
    pub alias: Option<u16>,
    pub utf8: Option<bool>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation: Option<Vec<u8>>,
    pub user: User,
    pub subscription_ids: Vec<u32>,
}

impl Message {
    /// QoS 0, not retained, without properties.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.as_ref().into(),
            qos: 0,
            retain: false,
            dup: false,
            id: 0,
            expiry: None,
            alias: None,
            utf8: None,
            content_type: None,
            response_topic: None,
            correlation: None,
            user: Vec::new(),
            subscription_ids: Vec::new(),
        }
    }

    pub fn qos(self, qos: u8) -> Self {
        Self { qos, ..self }
    }

    pub fn retain(self) -> Self {
        Self { retain: true, ..self }
    }

    pub fn dup(self) -> Self {
        Self { dup: true, ..self }
    }

    /// The packet identifier to send it with, instead of the connection's next.
    pub fn id(self, id: u16) -> Self {
        Self { id, ..self }
    }

    /// Message Expiry Interval, seconds.
    pub fn expiry(self, seconds: u32) -> Self {
        Self { expiry: Some(seconds), ..self }
    }

    pub fn alias(self, alias: u16) -> Self {
        Self { alias: Some(alias), ..self }
    }

    pub fn utf8(self, utf8: bool) -> Self {
        Self { utf8: Some(utf8), ..self }
    }

    pub fn content_type(self, content_type: &str) -> Self {
        Self { content_type: Some(content_type.into()), ..self }
    }

    pub fn response_topic(self, topic: &str) -> Self {
        Self { response_topic: Some(topic.into()), ..self }
    }

    pub fn correlation(self, data: &[u8]) -> Self {
        Self { correlation: Some(data.into()), ..self }
    }

    pub fn user(mut self, key: &str, value: &str) -> Self {
        self.user.push((key.into(), value.into()));
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload of text")
    }

    /// Topic, payload, QoS and retain: what most tests are about.
    pub fn gist(&self) -> (&str, &str, u8, bool) {
        (&self.topic, self.text(), self.qos, self.retain)
    }

    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>, version: Version) {
        let user = encode_user(&self.user);
        let publish = mqtt::Publish {
            dup: self.dup,
            qos: QoS::from_bits(self.qos).expect("a QoS"),
            retain: self.retain,
            topic: &self.topic,
            packet_id: NonZeroU16::new(self.id),
            properties: self.properties(&user),
            payload: &self.payload,
        };
        mqtt::encode(out, version, &Packet::Publish(publish));
    }

    pub fn properties<'a>(&'a self, user: &'a [u8]) -> mqtt::PublishProperties<'a> {
        mqtt::PublishProperties {
            payload_is_utf8: self.utf8,
            message_expiry: self.expiry,
            topic_alias: self.alias.and_then(NonZeroU16::new),
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation.as_deref(),
            content_type: self.content_type.as_deref(),
            user: mqtt::UserProperties::new(user).expect("user properties"),
            subscription_ids: mqtt::SubscriptionIds::default(),
        }
    }
}

/// User properties in the form of the codec.
pub fn encode_user(user: &[(String, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    user.iter().for_each(|(key, value)| mqtt::UserProperties::push(&mut bytes, key, value));
    bytes
}

impl From<&mqtt::Publish<'_>> for Message {
    fn from(publish: &mqtt::Publish<'_>) -> Self {
        let properties = &publish.properties;
        Self {
            topic: publish.topic.into(),
            payload: publish.payload.into(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            id: publish.packet_id.map_or(0, NonZeroU16::get),
            expiry: properties.message_expiry,
            alias: properties.topic_alias.map(NonZeroU16::get),
            utf8: properties.payload_is_utf8,
            content_type: properties.content_type.map(Into::into),
            response_topic: properties.response_topic.map(Into::into),
            correlation: properties.correlation_data.map(Into::into),
            user: user(&properties.user),
            subscription_ids: properties.subscription_ids.iter().map(NonZeroU32::get).collect(),
        }
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let payload = String::from_utf8_lossy(&self.payload[..self.payload.len().min(60)]);
        let Self { topic, qos, retain, dup, id, .. } = self;
        write!(f, "Message({topic:?} {payload:?} qos {qos} retain {retain} dup {dup} id {id}")?;
        let Self { expiry, alias, subscription_ids, user, .. } = self;
        write!(f, " expiry {expiry:?} alias {alias:?} subscriptions {subscription_ids:?} user {user:?})")
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub id: u16,
    pub reason: u8,
    pub reason_string: Option<String>,
}

impl From<&mqtt::Ack<'_>> for Ack {
    fn from(ack: &mqtt::Ack<'_>) -> Self {
        Self { id: ack.packet_id.get(), reason: ack.reason.0, reason_string: ack.reason_string.map(Into::into) }
    }
}

/// SUBACK or UNSUBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck {
    pub id: u16,
    pub codes: Vec<u8>,
    pub reason_string: Option<String>,
}

impl From<&mqtt::SubAck<'_>> for SubAck {
    fn from(ack: &mqtt::SubAck<'_>) -> Self {
        let reason_string = ack.reason_string.map(Into::into);
        Self { id: ack.packet_id.get(), codes: ack.codes.into(), reason_string }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    pub reason: u8,
    pub reason_string: Option<String>,
}

impl From<&mqtt::Disconnect<'_>> for Disconnect {
    fn from(disconnect: &mqtt::Disconnect<'_>) -> Self {
        Self { reason: disconnect.reason.0, reason_string: disconnect.reason_string.map(Into::into) }
    }
}
