//! The way to rumqttc: what it is given, in which order, and as which packet.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use rumqttc::v5::{
    AsyncClient,
    mqttbytes::{
        QoS as LinkQoS,
        v5::{Publish, PublishProperties},
    },
};

use crate::{
    backplane::{STAMP, outbox::Outgoing},
    wire::mqtt::{self, QoS},
};

/// See the module.
pub struct Line {
    pub client: AsyncClient,
    /// What was handed over and not written yet, in order.
    pub order: VecDeque<Kind>,
    pub connected: bool,
    pub subscribed: bool,
    /// What the broker takes.
    pub qos_max: QoS,
    pub retain: bool,
    pub probe: Probe,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message,
    Probe,
}

/// Messages through the broker and back.
pub struct Probe {
    pub serial: u64,
    pub sent: Instant,
    pub unanswered: u32,
    pub next: Instant,
}

impl Line {
    /// Hands over a message. Says whether there was room for it.
    pub fn send(&mut self, out: &Outgoing, node: &str, now: Instant) -> bool {
        let Publish { topic, qos, retain, payload, properties, .. } = self.packet(out, node, now);
        let topic = String::from_utf8_lossy(&topic).into_owned();
        let properties = properties.unwrap_or_default();
        let taken = self.client.try_publish_with_properties(topic, qos, retain, payload, properties).is_ok();
        if taken {
            self.order.push_back(Kind::Message);
        }
        taken
    }

    /// A message as the broker gets it.
    pub fn packet(&self, out: &Outgoing, node: &str, now: Instant) -> Publish {
        let message = &out.message;
        let said = mqtt::PublishProperties::decode_forwarded(message.properties()).unwrap_or_default();
        let mut user: Vec<(String, String)> =
            said.user.iter().filter(|(key, _)| *key != STAMP).map(|(key, value)| (key.into(), value.into())).collect();
        user.push((STAMP.into(), node.into()));
        let properties = PublishProperties {
            payload_format_indicator: said.payload_is_utf8.map(u8::from),
            message_expiry_interval: message.expiry_left(now),
            response_topic: said.response_topic.map(Into::into),
            correlation_data: said.correlation_data.map(Bytes::copy_from_slice),
            content_type: said.content_type.map(Into::into),
            user_properties: user,
            ..PublishProperties::default()
        };
        Publish {
            dup: false,
            qos: link_qos(out.qos.min(self.qos_max)),
            retain: out.retain && self.retain,
            topic: Bytes::copy_from_slice(message.topic().as_bytes()),
            pkid: 0,
            payload: Bytes::copy_from_slice(message.payload()),
            properties: Some(properties),
        }
    }
}

fn link_qos(qos: QoS) -> LinkQoS {
    match qos {
        QoS::AtMostOnce => LinkQoS::AtMostOnce,
        QoS::AtLeastOnce => LinkQoS::AtLeastOnce,
        QoS::ExactlyOnce => LinkQoS::ExactlyOnce,
    }
}

pub fn qos_of(qos: LinkQoS) -> QoS {
    match qos {
        LinkQoS::AtMostOnce => QoS::AtMostOnce,
        LinkQoS::AtLeastOnce => QoS::AtLeastOnce,
        LinkQoS::ExactlyOnce => QoS::ExactlyOnce,
    }
}
