//! Packets to bytes.
//!
//! Every packet that [`decode()`] yields fits. Of what somebody made up, a string or binary field of
//! more than 65,535 bytes is cut to that (a string at a character boundary), because its length cannot be said; the
//! rest (valid topics, no U+0000, an authentication method beside its data) is the caller's to keep.

use std::num::{NonZeroU16, NonZeroU32};

use super::properties::{id, put_pair, put_subscription_id};
use super::reader::MAX_VARINT;
use super::*;

/// A PUBLISH without its payload, for a payload that is shared between receivers.
#[derive(Debug, Clone, Copy)]
pub struct PublishHeader<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    /// `Some` exactly from QoS 1 on.
    pub packet_id: Option<NonZeroU16>,
    pub topic_alias: Option<NonZeroU16>,
    /// Seconds left.
    pub message_expiry: Option<u32>,
    pub subscription_ids: &'a [NonZeroU32],
    /// Encoded properties without their length, as `PublishProperties::encode_forwarded` wrote them; left out in 3.1.1.
    pub properties: &'a [u8],
    /// The value of the user property [`RECEIVED`], behind all others; left out in 3.1.1.
    pub received: Option<&'a str>,
}

/// Appends the bytes that precede the payload, whose length in bytes is `payload_len`.
pub fn publish_header(out: &mut Vec<u8>, version: Version, header: &PublishHeader<'_>, payload_len: usize) {
    let mut length = Length(0);
    put_publish(&mut length, version, header.topic, header.packet_id, header);
    out.reserve(5 + length.0);
    out.put(&[publish_byte(header.dup, header.qos, header.retain)]);
    put_varint(out, (length.0 + payload_len) as u32);
    put_publish(out, version, header.topic, header.packet_id, header);
}

/// Appends a whole packet.
///
/// 3.1.1 leaves out what it cannot say: properties, the reason of an acknowledgement or DISCONNECT, the codes of an
/// UNSUBACK, and AUTH altogether; every failure in a SUBACK is 0x80 there. CONNECT is written in its own version.
pub fn encode(out: &mut Vec<u8>, version: Version, packet: &Packet<'_>) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        Packet::Auth(_) if version == Version::V311 => return,
        _ => version,
    };
    let mut remaining = Length(0);
    put_body(&mut remaining, version, packet);
    out.reserve(5 + remaining.0);
    out.put(&[first_byte(packet)]);
    put_varint(out, remaining.0 as u32);
    put_body(out, version, packet);
}

/// Where encoded bytes go: into a buffer, or nowhere, to learn how many they are.
pub(super) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts, so that a length can be written before what it measures.
struct Length(usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// Variable Byte Integer (1.5.5), in as few bytes as it takes ([MQTT-1.5.5-1]).
pub(super) fn put_varint<S: Sink>(out: &mut S, value: u32) {
    debug_assert!(value <= MAX_VARINT);
    let [a, b, c, d] = [0, 7, 14, 21].map(|shift| (value.min(MAX_VARINT) >> shift) as u8 & 0x7F);
    match value {
        0..0x80 => out.put(&[a]),
        0x80..0x4000 => out.put(&[a | 0x80, b]),
        0x4000..0x20_0000 => out.put(&[a | 0x80, b | 0x80, c]),
        _ => out.put(&[a | 0x80, b | 0x80, c | 0x80, d]),
    }
}

/// Binary Data (1.5.6).
pub(super) fn put_data<S: Sink>(out: &mut S, data: &[u8]) {
    let data = &data[..data.len().min(u16::MAX.into())];
    out.put(&(data.len() as u16).to_be_bytes());
    out.put(data);
}

/// UTF-8 Encoded String (1.5.4).
pub(super) fn put_text<S: Sink>(out: &mut S, text: &str) {
    put_data(out, &text.as_bytes()[..text.floor_char_boundary(u16::MAX.into())]);
}

fn put_u16<S: Sink>(out: &mut S, id: u8, value: Option<u16>) {
    if let Some(value) = value {
        let [a, b] = value.to_be_bytes();
        out.put(&[id, a, b]);
    }
}

fn put_u32<S: Sink>(out: &mut S, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        let [a, b, c, d] = value.to_be_bytes();
        out.put(&[id, a, b, c, d]);
    }
}

fn put_flag<S: Sink>(out: &mut S, id: u8, value: Option<bool>) {
    if let Some(value) = value {
        out.put(&[id, value.into()]);
    }
}

fn put_str<S: Sink>(out: &mut S, id: u8, value: Option<&str>) {
    if let Some(value) = value {
        out.put(&[id]);
        put_text(out, value);
    }
}

fn put_bytes<S: Sink>(out: &mut S, id: u8, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.put(&[id]);
        put_data(out, value);
    }
}

/// What has properties to write.
trait Properties {
    /// Appends them without their length, and leaves out those that say what their absence says.
    fn put<S: Sink>(&self, out: &mut S);
}

/// A property list with its length in front (2.2.2.1); nothing in 3.1.1.
fn put_list<S: Sink>(out: &mut S, version: Version, properties: &impl Properties) {
    if version == Version::V5 {
        let mut length = Length(0);
        properties.put(&mut length);
        put_varint(out, length.0 as u32);
        properties.put(out);
    }
}

/// The first byte: packet type and flags (2.1).
fn first_byte(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::ConnAck(_) => 0x20,
        Packet::Publish(publish) => publish_byte(publish.dup, publish.qos, publish.retain),
        Packet::PubAck(_) => 0x40,
        Packet::PubRec(_) => 0x50,
        Packet::PubRel(_) => 0x62, // [MQTT-3.6.1-1]
        Packet::PubComp(_) => 0x70,
        Packet::Subscribe(_) => 0x82, // [MQTT-3.8.1-1]
        Packet::SubAck(_) => 0x90,
        Packet::Unsubscribe(_) => 0xA2, // [MQTT-3.10.1-1]
        Packet::UnsubAck(_) => 0xB0,
        Packet::PingReq => 0xC0,
        Packet::PingResp => 0xD0,
        Packet::Disconnect(_) => 0xE0,
        Packet::Auth(_) => 0xF0,
    }
}

fn publish_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    0x30 | u8::from(dup) << 3 | (qos as u8) << 1 | u8::from(retain)
}

fn put_body<S: Sink>(out: &mut S, version: Version, packet: &Packet<'_>) {
    match packet {
        Packet::Connect(connect) => put_connect(out, connect),
        Packet::ConnAck(ack) => {
            out.put(&[ack.session_present.into(), ack.reason.0]);
            put_list(out, version, &ack.properties);
        }
        Packet::Publish(publish) => {
            put_publish(out, version, publish.topic, publish.packet_id, &publish.properties);
            out.put(publish.payload);
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            out.put(&ack.packet_id.get().to_be_bytes());
            put_reason(out, version, ack.reason, ack);
        }
        Packet::Subscribe(subscribe) => put_subscribe(out, version, subscribe),
        Packet::SubAck(ack) => {
            put_ack_head(out, version, ack);
            match version {
                Version::V311 => ack.codes.iter().for_each(|&code| out.put(&[code.min(0x80)])), // [MQTT-3.9.3-2]
                Version::V5 => out.put(ack.codes),
            }
        }
        Packet::Unsubscribe(unsubscribe) => {
            out.put(&unsubscribe.packet_id.get().to_be_bytes());
            put_list(out, version, unsubscribe);
            unsubscribe.filters.iter().for_each(|filter| put_text(out, filter));
        }
        Packet::UnsubAck(ack) => {
            put_ack_head(out, version, ack);
            if version == Version::V5 {
                out.put(ack.codes);
            }
        }
        Packet::PingReq | Packet::PingResp => {}
        Packet::Disconnect(disconnect) => put_reason(out, version, disconnect.reason, disconnect),
        Packet::Auth(auth) => put_reason(out, version, auth.reason, auth),
    }
}

fn put_connect<S: Sink>(out: &mut S, connect: &Connect<'_>) {
    let level = match connect.version {
        Version::V311 => 4,
        Version::V5 => 5,
    };
    let will = connect.will.as_ref().map_or(0, |will| 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
    let flags = u8::from(connect.clean_start) << 1
        | will
        | u8::from(connect.password.is_some()) << 6
        | u8::from(connect.user_name.is_some()) << 7;
    out.put(b"\x00\x04MQTT");
    out.put(&[level, flags]);
    out.put(&connect.keep_alive.to_be_bytes());
    put_list(out, connect.version, &connect.properties);
    put_text(out, connect.client_id);
    if let Some(will) = &connect.will {
        put_list(out, connect.version, will);
        put_text(out, will.topic);
        put_data(out, will.payload);
    }
    if let Some(user_name) = connect.user_name {
        put_text(out, user_name);
    }
    if let Some(password) = connect.password {
        put_data(out, password);
    }
}

fn put_publish<S: Sink>(
    out: &mut S,
    version: Version,
    topic: &str,
    packet_id: Option<NonZeroU16>,
    properties: &impl Properties,
) {
    put_text(out, topic);
    if let Some(id) = packet_id {
        out.put(&id.get().to_be_bytes());
    }
    put_list(out, version, properties);
}

fn put_subscribe<S: Sink>(out: &mut S, version: Version, subscribe: &Subscribe<'_>) {
    out.put(&subscribe.packet_id.get().to_be_bytes());
    put_list(out, version, subscribe);
    for (filter, options) in subscribe.filters.iter() {
        put_text(out, filter);
        out.put(&[options.byte(version)]);
    }
}

fn put_ack_head<S: Sink>(out: &mut S, version: Version, ack: &SubAck<'_>) {
    out.put(&ack.packet_id.get().to_be_bytes());
    put_list(out, version, ack);
}

/// A reason and its properties, in the shortest form (3.4.2.1, 3.14.2.1, 3.15.2.1); nothing in 3.1.1.
fn put_reason<S: Sink>(out: &mut S, version: Version, reason: ReasonCode, properties: &impl Properties) {
    let mut length = Length(0);
    properties.put(&mut length);
    if version == Version::V311 || (reason == ReasonCode::SUCCESS && length.0 == 0) {
        return;
    }
    out.put(&[reason.0]);
    if length.0 > 0 {
        put_list(out, version, properties);
    }
}

impl Properties for ConnectProperties<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_u32(out, id::SESSION_EXPIRY, Some(self.session_expiry).filter(|&expiry| expiry != 0));
        put_u16(out, id::RECEIVE_MAXIMUM, Some(self.receive_maximum.get()).filter(|&maximum| maximum != u16::MAX));
        put_u32(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size.map(NonZeroU32::get));
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, Some(self.topic_alias_maximum).filter(|&maximum| maximum != 0));
        put_flag(out, id::REQUEST_RESPONSE_INFORMATION, self.request_response_information.then_some(true));
        put_flag(out, id::REQUEST_PROBLEM_INFORMATION, (!self.request_problem_information).then_some(false));
        self.user.put(out);
        put_str(out, id::AUTHENTICATION_METHOD, self.authentication_method);
        put_bytes(out, id::AUTHENTICATION_DATA, self.authentication_data);
    }
}

impl Properties for Will<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_u32(out, id::WILL_DELAY, Some(self.delay).filter(|&delay| delay != 0));
        put_u32(out, id::MESSAGE_EXPIRY, self.properties.message_expiry);
        self.properties.put_all_but_user(out);
        self.properties.user.put(out);
    }
}

impl Properties for ConnAckProperties<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_u32(out, id::SESSION_EXPIRY, self.session_expiry);
        put_u16(out, id::RECEIVE_MAXIMUM, self.receive_maximum.map(NonZeroU16::get));
        // Absence says 2, and 2 cannot be said otherwise (3.2.2.3.4).
        put_flag(
            out,
            id::MAXIMUM_QOS,
            self.maximum_qos.filter(|&qos| qos < QoS::ExactlyOnce).map(|qos| qos as u8 == 1),
        );
        put_flag(out, id::RETAIN_AVAILABLE, self.retain_available);
        put_u32(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size.map(NonZeroU32::get));
        put_str(out, id::ASSIGNED_CLIENT_ID, self.assigned_client_id);
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        put_str(out, id::REASON_STRING, self.reason_string);
        self.user.put(out);
        put_flag(out, id::WILDCARD_SUBSCRIPTION_AVAILABLE, self.wildcard_subscription_available);
        put_flag(out, id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE, self.subscription_identifiers_available);
        put_flag(out, id::SHARED_SUBSCRIPTION_AVAILABLE, self.shared_subscription_available);
        put_u16(out, id::SERVER_KEEP_ALIVE, self.server_keep_alive);
        put_str(out, id::RESPONSE_INFORMATION, self.response_information);
        put_str(out, id::SERVER_REFERENCE, self.server_reference);
        put_str(out, id::AUTHENTICATION_METHOD, self.authentication_method);
        put_bytes(out, id::AUTHENTICATION_DATA, self.authentication_data);
    }
}

/// The user property by which a broker says who published a message.
pub const SENDER: &str = "username";

/// The name of the user property by which observers learn when the server received a message.
pub const RECEIVED: &str = "received";

impl Properties for PublishProperties<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_u32(out, id::MESSAGE_EXPIRY, self.message_expiry);
        put_u16(out, id::TOPIC_ALIAS, self.topic_alias.map(NonZeroU16::get));
        self.subscription_ids.iter().for_each(|id| put_subscription_id(out, id));
        self.put_all_but_user(out);
        self.user.put(out);
    }
}

impl PublishProperties<'_> {
    /// Appends what a server must pass on unaltered, encoded and without a length in front: payload format, content
    /// type, response topic, correlation data, and the user properties in their order ([MQTT-3.3.2-4],
    /// [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]).
    ///
    /// Message expiry, topic alias and subscription identifiers differ between receivers: [`publish_header`] adds
    /// them.
    ///
    /// With a `sender`, the user property [`SENDER`] says that name, whatever the list had under that key.
    pub fn encode_forwarded(&self, sender: Option<&str>, out: &mut Vec<u8>) {
        self.put_forwarded(sender, out);
    }

    /// How many bytes [`PublishProperties::encode_forwarded`] appends.
    pub fn forwarded_len(&self, sender: Option<&str>) -> usize {
        let mut length = Length(0);
        self.put_forwarded(sender, &mut length);
        length.0
    }

    fn put_forwarded<S: Sink>(&self, sender: Option<&str>, out: &mut S) {
        self.put_all_but_user(out);
        match sender {
            None => self.user.put(out),
            Some(name) => {
                self.user.iter().filter(|(key, _)| *key != SENDER).for_each(|(key, value)| put_pair(out, key, value));
                put_pair(out, SENDER, name);
            }
        }
    }

    fn put_all_but_user<S: Sink>(&self, out: &mut S) {
        put_flag(out, id::PAYLOAD_FORMAT, self.payload_is_utf8);
        put_str(out, id::CONTENT_TYPE, self.content_type);
        put_str(out, id::RESPONSE_TOPIC, self.response_topic);
        put_bytes(out, id::CORRELATION_DATA, self.correlation_data);
    }
}

impl Properties for PublishHeader<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_u32(out, id::MESSAGE_EXPIRY, self.message_expiry);
        put_u16(out, id::TOPIC_ALIAS, self.topic_alias.map(NonZeroU16::get));
        self.subscription_ids.iter().for_each(|&id| put_subscription_id(out, id));
        out.put(self.properties);
        self.received.iter().for_each(|at| put_pair(out, RECEIVED, at));
    }
}

impl Properties for Ack<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_str(out, id::REASON_STRING, self.reason_string);
        self.user.put(out);
    }
}

impl Properties for Subscribe<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        if let Some(id) = self.subscription_id {
            put_subscription_id(out, id);
        }
        self.user.put(out);
    }
}

impl Properties for SubAck<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_str(out, id::REASON_STRING, self.reason_string);
        self.user.put(out);
    }
}

impl Properties for Unsubscribe<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        self.user.put(out);
    }
}

impl Properties for Disconnect<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_u32(out, id::SESSION_EXPIRY, self.session_expiry);
        put_str(out, id::REASON_STRING, self.reason_string);
        self.user.put(out);
        put_str(out, id::SERVER_REFERENCE, self.server_reference);
    }
}

impl Properties for Auth<'_> {
    fn put<S: Sink>(&self, out: &mut S) {
        put_str(out, id::AUTHENTICATION_METHOD, self.authentication_method);
        put_bytes(out, id::AUTHENTICATION_DATA, self.authentication_data);
        put_str(out, id::REASON_STRING, self.reason_string);
        self.user.put(out);
    }
}
