//! Packets from a client, after CONNECT: what each asks for, and whether it may be sent at this point.
//!
//! Pure: packets in, steps out. What survives the connection (QoS 2 identifiers) lies in the session's state.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, num::NonZeroU16};

use super::Close;
use crate::wire::mqtt::{
    Ack, Auth, Disconnect, Packet, Publish, ReasonCode, Subscribe, Unsubscribe, Version, check_from_client,
};

/// The authentication method whose data is a token.
pub const TOKEN_METHOD: &str = "jwt";

/// What a client's packet asks for.
#[derive(Debug)]
pub enum Step<'a> {
    /// Its topic alias, if it had one, is resolved.
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Ping,
    /// A new token, by the method that CONNECT named.
    Reauthenticate {
        method: &'a str,
        token: &'a [u8],
    },
    Disconnect(Disconnect<'a>),
}

/// See the module.
#[derive(Debug)]
pub struct Inbound {
    pub version: Version,
    /// Topic Alias Maximum that we announced.
    topic_aliases: u16,
    /// Bytes of the longest topic that an alias is kept for.
    topic_length: usize,
    user_properties: usize,
    /// Session expiry that CONNECT asked for.
    expiry: u32,
    /// CONNECT named an authentication method: [`TOKEN_METHOD`].
    authenticates: bool,
    #[expect(clippy::box_collection, reason = "one word for the many connections without aliases")]
    aliases: Option<Box<HashMap<NonZeroU16, Box<str>>>>,
}

const fn protocol_error(what: &'static str) -> Close {
    Close { reason: ReasonCode::PROTOCOL_ERROR, what }
}

const ALIAS_INVALID: Close = Close { reason: ReasonCode::TOPIC_ALIAS_INVALID, what: "no such topic alias" };
const TOO_MANY_PROPERTIES: Close =
    Close { reason: ReasonCode::QUOTA_EXCEEDED, what: "more user properties than this server takes" };

impl Inbound {
    pub fn new(version: Version, topic_aliases: u16, topic_length: usize, user_properties: usize, expiry: u32) -> Self {
        Self { version, topic_aliases, topic_length, user_properties, expiry, authenticates: false, aliases: None }
    }

    /// The same for a connection whose CONNECT named an authentication method.
    pub fn authenticating(self, authenticates: bool) -> Self {
        Self { authenticates, ..self }
    }

    /// Judges the next packet.
    pub fn step<'a>(&'a mut self, packet: Packet<'a>) -> Result<Step<'a>, Close> {
        check_from_client(&packet)?;
        self.check_user_properties(&packet)?;
        match packet {
            Packet::Publish(publish) => self.resolve(publish).map(Step::Publish),
            Packet::PubAck(ack) => Ok(Step::PubAck(ack)),
            Packet::PubRec(ack) => Ok(Step::PubRec(ack)),
            Packet::PubRel(ack) => Ok(Step::PubRel(ack)),
            Packet::PubComp(ack) => Ok(Step::PubComp(ack)),
            Packet::Subscribe(subscribe) => Ok(Step::Subscribe(subscribe)),
            Packet::Unsubscribe(unsubscribe) => Ok(Step::Unsubscribe(unsubscribe)),
            Packet::PingReq => Ok(Step::Ping),
            Packet::Disconnect(disconnect) => self.disconnect(disconnect).map(Step::Disconnect),
            Packet::Connect(_) => Err(protocol_error("a second CONNECT")), // [MQTT-3.1.0-2]
            Packet::Auth(auth) => self.reauthenticate(&auth),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(protocol_error("a packet that only a server sends"))
            }
        }
    }

    fn check_user_properties(&self, packet: &Packet<'_>) -> Result<(), Close> {
        let user = match packet {
            Packet::Publish(publish) => publish.properties.user,
            Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => ack.user,
            Packet::Subscribe(subscribe) => subscribe.user,
            Packet::Unsubscribe(unsubscribe) => unsubscribe.user,
            Packet::Disconnect(disconnect) => disconnect.user,
            Packet::Auth(auth) => auth.user,
            _ => return Ok(()),
        };
        if user.len() > self.user_properties { Err(TOO_MANY_PROPERTIES) } else { Ok(()) }
    }

    fn resolve<'a>(&'a mut self, mut publish: Publish<'a>) -> Result<Publish<'a>, Close> {
        let Some(alias) = publish.properties.topic_alias else { return Ok(publish) };
        if alias.get() > self.topic_aliases {
            return Err(ALIAS_INVALID); // [MQTT-3.3.2-9]
        }
        let aliases = self.aliases.get_or_insert_default();
        if publish.topic.len() > self.topic_length {
            // The policy refuses the message; the name is not worth keeping.
            return Ok(publish);
        }
        if !publish.topic.is_empty() {
            aliases.insert(alias, publish.topic.into());
        } else if let Some(topic) = aliases.get(&alias) {
            publish.topic = topic;
        } else {
            return Err(protocol_error("a topic alias that stands for nothing")); // 3.3.4
        }
        Ok(publish)
    }

    fn reauthenticate<'a>(&self, auth: &Auth<'a>) -> Result<Step<'a>, Close> {
        if !self.authenticates {
            return Err(protocol_error("AUTH without an authentication method")); // [MQTT-4.12.0-6]
        }
        match auth.authentication_method {
            Some(method) if method == TOKEN_METHOD && auth.reason == ReasonCode::REAUTHENTICATE => {
                Ok(Step::Reauthenticate { method, token: auth.authentication_data.unwrap_or_default() })
            }
            Some(TOKEN_METHOD) => Err(protocol_error("AUTH for anything but to re-authenticate")),
            _ => Err(protocol_error("another authentication method than in CONNECT")), // [MQTT-4.12.1-1]
        }
    }

    fn disconnect<'a>(&self, disconnect: Disconnect<'a>) -> Result<Disconnect<'a>, Close> {
        match disconnect.session_expiry {
            // 3.14.2.2.2
            Some(1..) if self.expiry == 0 => Err(protocol_error("a session expiry where CONNECT had none")),
            _ => Ok(disconnect),
        }
    }
}

/// The QoS 2 packet identifiers that a client has used and not released, in order. They belong to the session.
#[derive(Debug, Default)]
pub struct Unreleased(Vec<NonZeroU16>);

impl Unreleased {
    /// Notes a PUBLISH. `Ok(false)` for one that came before and must not be delivered again [MQTT-4.3.3-10];
    /// more than `maximum` at once ends the connection [MQTT-3.3.4-7].
    pub fn receive(&mut self, packet_id: NonZeroU16, maximum: u16) -> Result<bool, Close> {
        let Err(position) = self.0.binary_search(&packet_id) else { return Ok(false) };
        if self.0.len() >= usize::from(maximum) {
            return Err(Close {
                reason: ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
                what: "more unreleased QoS 2 messages than Receive Maximum allows",
            });
        }
        self.0.insert(position, packet_id);
        Ok(true)
    }

    /// PUBREL, or a refusal of the message: the identifier is free again. `false` if it was not in use.
    pub fn release(&mut self, packet_id: NonZeroU16) -> bool {
        let Ok(position) = self.0.binary_search(&packet_id) else { return false };
        self.0.remove(position);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        true
    }
}

/// Codes of a SUBACK or UNSUBACK are kept in order, on the stack for all but unusual packets.
pub type Codes = smallvec::SmallVec<[u8; 16]>;
