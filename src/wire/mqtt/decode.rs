//! Bytes to packets.
//!
//! What is refused is refused as early as it shows: the first byte, the announced length and a CONNECT's protocol
//! before the rest has arrived. A prefix of a packet is therefore incomplete or refused as the whole would be.

use std::num::NonZeroU16;

use super::properties::{PropertyList, id};
use super::reader::{Reader, Result, Varint, varint};
use super::*;

mod connect;

use connect::{connack, connect};

/// Why bytes are not a packet, with the clause that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// What a 5.0 peer is told: 0x81, 0x82, 0x95 …; 0x84 for an unknown protocol level.
    pub reason: ReasonCode,
    /// Such as `MQTT-3.1.2-3`, or the section where the specification gives no number.
    pub clause: &'static str,
    /// One line for a human.
    pub what: &'static str,
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.what, self.clause)
    }
}

impl std::error::Error for DecodeError {}

/// Decodes the first packet in `bytes`: the packet and the number of bytes it took, or `None` while it is incomplete.
///
/// `version` is that of the connection; a CONNECT is read in the version it names itself. `max_packet` is in bytes
/// and counts the fixed header; a longer packet is refused when its length is read, not when it is there.
///
/// # Errors
/// If the bytes cannot become a packet, whatever follows them. Which peer may send the packet, and when, is not
/// looked at; for the first, see [`check_from_client`].
pub fn decode(bytes: &[u8], version: Version, max_packet: usize) -> Result<Option<(Packet<'_>, usize)>> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let kind = Kind::of(first, version)?;
    let Some((remaining, len, padded)) = remaining_length(rest, version)? else { return Ok(None) };
    if kind != Kind::Connect {
        check_padding(padded, version)?; // a CONNECT has yet to say which version it is
    }
    let total = 1 + len + remaining;
    if total > max_packet {
        let clause = version.clause("2.2.3", "MQTT-3.2.2-15");
        return Err(DecodeError { reason: ReasonCode::PACKET_TOO_LARGE, clause, what: "a packet larger than allowed" });
    }
    kind.check_remaining(remaining, version)?;
    let body = &rest[len..rest.len().min(len + remaining)];
    let version = match kind {
        Kind::Connect => match protocol(body, remaining)? {
            Some(named) => check_padding(padded, named).map(|()| named)?,
            None => return Ok(None),
        },
        _ => version,
    };
    if body.len() < remaining {
        return Ok(None);
    }
    // In tail position the packet is built where it is wanted; moving it would take as long as reading it.
    kind.read(first, Reader { bytes: body, version }, total)
}

/// The Remaining Length (2.1.4; 2.2.3 in 3.1.1), the bytes it takes, and whether fewer would have done.
fn remaining_length(bytes: &[u8], version: Version) -> Result<Option<(usize, usize, bool)>> {
    match varint(bytes) {
        Varint::Incomplete => Ok(None),
        Varint::TooLong => {
            let clause = version.clause("2.2.3", "1.5.5");
            Err(DecodeError::malformed(clause, "a Remaining Length of more than four bytes"))
        }
        Varint::Value { value, len, padded } => Ok(Some((value as usize, len, padded))),
    }
}

/// Refuses a Remaining Length in more bytes than it takes, which 3.1.1 allows.
fn check_padding(padded: bool, version: Version) -> Result<()> {
    if padded && version == Version::V5 {
        return Err(DecodeError::malformed("MQTT-1.5.5-1", "a Remaining Length longer than its value needs"));
    }
    Ok(())
}

/// Control packet types (2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl Kind {
    /// The type that a first byte says, its flags checked.
    fn of(first: u8, version: Version) -> Result<Kind> {
        let (kind, flags, v311, v5) = match first >> 4 {
            1 => (Kind::Connect, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            2 => (Kind::ConnAck, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            3 => return publish_flags(first).map(|_| Kind::Publish),
            4 => (Kind::PubAck, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            5 => (Kind::PubRec, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            6 => (Kind::PubRel, 2, "MQTT-3.6.1-1", "MQTT-3.6.1-1"),
            7 => (Kind::PubComp, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            8 => (Kind::Subscribe, 2, "MQTT-3.8.1-1", "MQTT-3.8.1-1"),
            9 => (Kind::SubAck, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            10 => (Kind::Unsubscribe, 2, "MQTT-3.10.1-1", "MQTT-3.10.1-1"),
            11 => (Kind::UnsubAck, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            12 => (Kind::PingReq, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            13 => (Kind::PingResp, 0, "MQTT-2.2.2-2", "MQTT-2.1.3-1"),
            14 => (Kind::Disconnect, 0, "MQTT-3.14.1-1", "MQTT-3.14.1-1"),
            15 if version == Version::V5 => (Kind::Auth, 0, "", "MQTT-3.15.1-1"),
            _ => return Err(DecodeError::malformed(version.clause("2.2.1", "2.1.2"), "a reserved packet type")),
        };
        if first & 0x0F != flags {
            return Err(DecodeError::malformed(version.clause(v311, v5), "wrong flags in the first byte"));
        }
        Ok(kind)
    }

    /// Refuses at once a body that is too short or too long for the type, whatever is in it.
    fn check_remaining(self, remaining: usize, version: Version) -> Result<()> {
        let v5 = version == Version::V5;
        let (least, most) = match self {
            Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp if v5 => (2, usize::MAX),
            Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => (2, 2),
            Kind::ConnAck if v5 => (3, usize::MAX),
            Kind::ConnAck | Kind::UnsubAck if !v5 => (2, 2),
            Kind::PingReq | Kind::PingResp => (0, 0),
            Kind::Disconnect if !v5 => (0, 0),
            _ => (0, usize::MAX),
        };
        let what = match remaining {
            _ if remaining < least => "a Remaining Length too short for the packet",
            _ if remaining > most => "a Remaining Length too long for the packet",
            _ => return Ok(()),
        };
        Err(DecodeError::malformed(version.clause("2.2.3", "2.1.4"), what))
    }

    /// Reads a whole body; `total` is the size of the packet in bytes.
    fn read(self, first: u8, mut body: Reader<'_>, total: usize) -> Result<Option<(Packet<'_>, usize)>> {
        let body = &mut body;
        let packet = match self {
            Kind::Connect => Packet::Connect(connect(body)?),
            Kind::ConnAck => Packet::ConnAck(connack(body)?),
            Kind::Publish => Packet::Publish(publish(first, body)?),
            Kind::PubAck => Packet::PubAck(ack(body, ReasonCode::answers_publish, "MQTT-3.4.2-1")?),
            Kind::PubRec => Packet::PubRec(ack(body, ReasonCode::answers_publish, "MQTT-3.5.2-1")?),
            Kind::PubRel => Packet::PubRel(ack(body, ReasonCode::answers_pubrec, "MQTT-3.6.2-1")?),
            Kind::PubComp => Packet::PubComp(ack(body, ReasonCode::answers_pubrec, "MQTT-3.7.2-1")?),
            Kind::Subscribe => Packet::Subscribe(subscribe(body)?),
            Kind::SubAck => Packet::SubAck(suback(body)?),
            Kind::Unsubscribe => Packet::Unsubscribe(unsubscribe(body)?),
            Kind::UnsubAck => Packet::UnsubAck(unsuback(body)?),
            Kind::PingReq => Packet::PingReq,
            Kind::PingResp => Packet::PingResp,
            Kind::Disconnect => Packet::Disconnect(disconnect(body)?),
            Kind::Auth => Packet::Auth(auth(body)?),
        };
        body.end()?;
        Ok(Some((packet, total)))
    }
}

/// The protocol that the body of a CONNECT names, as soon as it is there.
fn protocol(body: &[u8], remaining: usize) -> Result<Option<Version>> {
    const NAME: &[u8] = b"\x00\x04MQTT";
    let refused = |clause, what| DecodeError { reason: ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, clause, what };
    if remaining < NAME.len() + 1 {
        return Err(DecodeError::malformed("3.1.2.1", "a CONNECT too short to name its protocol"));
    }
    match body.split_at_checked(NAME.len()) {
        None => Ok(None),
        Some((name, _)) if name != NAME => Err(refused("MQTT-3.1.2-1", "a protocol name other than MQTT")),
        Some((_, [])) => Ok(None),
        Some((_, [4, ..])) => Ok(Some(Version::V311)),
        Some((_, [5, ..])) => Ok(Some(Version::V5)),
        Some(_) => Err(refused("MQTT-3.1.2-2", "a protocol level other than 4 and 5")),
    }
}

/// The protocol level that a CONNECT names, once it is there: the server answers one that it does not know, and 3
/// (`MQIsdp`) and 4 read the answer in another form than 5 and above.
pub fn connect_level(bytes: &[u8]) -> Option<u8> {
    let (&first, rest) = bytes.split_first()?;
    let Varint::Value { len, .. } = varint(rest) else { return None };
    let (&name_len, rest) = rest[len..].split_first_chunk()?;
    (first == 0x10).then(|| rest.get(usize::from(u16::from_be_bytes(name_len))).copied())?
}

/// DUP, QoS and RETAIN of a PUBLISH (3.3.1).
fn publish_flags(first: u8) -> Result<(bool, QoS, bool)> {
    let (dup, retain) = (first & 0x08 != 0, first & 0x01 != 0);
    match QoS::from_bits(first >> 1 & 3) {
        None => Err(DecodeError::malformed("MQTT-3.3.1-4", "QoS 3")),
        Some(QoS::AtMostOnce) if dup => Err(DecodeError::malformed("MQTT-3.3.1-2", "DUP at QoS 0")),
        Some(qos) => Ok((dup, qos, retain)),
    }
}

#[inline]
fn publish<'a>(first: u8, body: &mut Reader<'a>) -> Result<Publish<'a>> {
    let (dup, qos, retain) = publish_flags(first)?;
    let topic = body.name_or_empty("MQTT-3.3.2-2", "MQTT-3.3.2-2")?; // [MQTT-3.3.2-1]
    let packet_id = match qos {
        QoS::AtMostOnce => None, // [MQTT-2.2.1-2]; [MQTT-2.3.1-5] in 3.1.1
        _ => Some(body.packet_id()?),
    };
    let properties = match body.version {
        Version::V311 => PublishProperties::default(),
        Version::V5 => publish_properties(body)?,
    };
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(match body.version {
            Version::V311 => DecodeError::malformed("MQTT-4.7.3-1", "an empty topic name"),
            Version::V5 => DecodeError::protocol("3.3.2.1", "neither a topic name nor a topic alias"),
        });
    }
    let payload = body.take(body.bytes.len())?;
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload })
}

fn publish_properties<'a>(body: &mut Reader<'a>) -> Result<PublishProperties<'a>> {
    listed_properties(PropertyList::open(body)?)
}

impl<'a> PublishProperties<'a> {
    /// The properties that [`encode_forwarded`](Self::encode_forwarded) wrote.
    ///
    /// # Errors
    /// If the bytes are anything but a well-formed list of properties of a PUBLISH.
    pub fn decode_forwarded(bytes: &'a [u8]) -> Result<Self> {
        listed_properties(PropertyList::new(bytes))
    }
}

fn listed_properties<'a>(mut list: PropertyList<'a>) -> Result<PublishProperties<'a>> {
    let mut found = PublishProperties::default();
    while let Some(id) = list.next()? {
        match id {
            id::TOPIC_ALIAS => found.topic_alias = Some(topic_alias(&mut list.rest)?),
            id::SUBSCRIPTION_ID => {
                list.subscription_id("3.3.2.3.8")?;
            }
            _ => message_property(&mut found, id, &mut list)?,
        }
    }
    found.user = list.user();
    found.subscription_ids = list.subscription_ids();
    Ok(found)
}

/// What PUBLISH and will have in common.
fn message_property<'a>(found: &mut PublishProperties<'a>, id: u8, list: &mut PropertyList<'a>) -> Result<()> {
    let value = &mut list.rest;
    match id {
        id::PAYLOAD_FORMAT => {
            found.payload_is_utf8 = Some(value.flag("3.3.2.3.2", "Payload Format Indicator not 0 or 1")?);
        }
        id::MESSAGE_EXPIRY => found.message_expiry = Some(value.u32()?),
        id::CONTENT_TYPE => found.content_type = Some(value.text()?),
        id::RESPONSE_TOPIC => found.response_topic = Some(value.name("", "MQTT-3.3.2-14")?),
        id::CORRELATION_DATA => found.correlation_data = Some(value.data()?),
        _ => return Err(list.misplaced()),
    }
    Ok(())
}

fn topic_alias(value: &mut Reader<'_>) -> Result<NonZeroU16> {
    NonZeroU16::new(value.u16()?).ok_or(DecodeError {
        reason: ReasonCode::TOPIC_ALIAS_INVALID,
        clause: "MQTT-3.3.2-8",
        what: "topic alias 0",
    })
}

fn ack<'a>(body: &mut Reader<'a>, known: fn(ReasonCode) -> bool, clause: &'static str) -> Result<Ack<'a>> {
    let mut ack = Ack {
        packet_id: body.packet_id()?,
        reason: ReasonCode::SUCCESS,
        reason_string: None,
        user: UserProperties::default(),
    };
    if body.bytes.is_empty() {
        return Ok(ack); // the only form of 3.1.1; reason 0 in 5.0 (3.4.2.1)
    }
    ack.reason = ReasonCode(body.u8()?);
    if !known(ack.reason) {
        return Err(DecodeError::protocol(clause, "a reason that this packet does not have"));
    }
    if !body.bytes.is_empty() {
        (ack.reason_string, ack.user) = reason_and_user(body)?; // else there are none (3.4.2.2.1)
    }
    Ok(ack)
}

/// The properties of the acknowledgements.
fn reason_and_user<'a>(body: &mut Reader<'a>) -> Result<(Option<&'a str>, UserProperties<'a>)> {
    let mut reason = None;
    let mut list = PropertyList::open(body)?;
    while let Some(id) = list.next()? {
        match id {
            id::REASON_STRING => reason = Some(list.rest.text()?),
            _ => return Err(list.misplaced()),
        }
    }
    Ok((reason, list.user()))
}

fn subscribe<'a>(body: &mut Reader<'a>) -> Result<Subscribe<'a>> {
    let packet_id = body.packet_id()?;
    let (mut subscription_id, mut user) = (None, UserProperties::default());
    if body.version == Version::V5 {
        let mut list = PropertyList::open(body)?;
        while let Some(id) = list.next()? {
            match id {
                id::SUBSCRIPTION_ID if subscription_id.is_some() => return Err(list.repeated()),
                id::SUBSCRIPTION_ID => subscription_id = Some(list.subscription_id("3.8.2.1.2")?),
                _ => return Err(list.misplaced()),
            }
        }
        user = list.user();
    }
    Ok(Subscribe { packet_id, subscription_id, user, filters: SubscribeFilters::read(body)? })
}

fn suback<'a>(body: &mut Reader<'a>) -> Result<SubAck<'a>> {
    let packet_id = body.packet_id()?;
    let (reason_string, user) = match body.version {
        Version::V311 => Default::default(),
        Version::V5 => reason_and_user(body)?,
    };
    let codes = body.take(body.bytes.len())?;
    if codes.is_empty() {
        return Err(body.protocol("3.9.3", "3.9.3", "a SUBACK without reason codes"));
    }
    if !codes.iter().all(|&code| ReasonCode(code).answers_subscribe(body.version)) {
        return Err(body.protocol("MQTT-3.9.3-2", "MQTT-3.9.3-2", "a reason that no SUBACK has"));
    }
    Ok(SubAck { packet_id, reason_string, user, codes })
}

fn unsubscribe<'a>(body: &mut Reader<'a>) -> Result<Unsubscribe<'a>> {
    let packet_id = body.packet_id()?;
    let mut user = UserProperties::default();
    if body.version == Version::V5 {
        let mut list = PropertyList::open(body)?;
        if list.next()?.is_some() {
            return Err(list.misplaced());
        }
        user = list.user();
    }
    Ok(Unsubscribe { packet_id, user, filters: UnsubscribeFilters::read(body)? })
}

fn unsuback<'a>(body: &mut Reader<'a>) -> Result<SubAck<'a>> {
    let packet_id = body.packet_id()?;
    if body.version == Version::V311 {
        return Ok(SubAck { packet_id, reason_string: None, user: UserProperties::default(), codes: &[] });
    }
    let (reason_string, user) = reason_and_user(body)?;
    let codes = body.take(body.bytes.len())?;
    if codes.is_empty() {
        return Err(DecodeError::protocol("3.11.3", "an UNSUBACK without reason codes"));
    }
    if !codes.iter().all(|&code| ReasonCode(code).answers_unsubscribe()) {
        return Err(DecodeError::protocol("MQTT-3.11.3-2", "a reason that no UNSUBACK has"));
    }
    Ok(SubAck { packet_id, reason_string, user, codes })
}

fn disconnect<'a>(body: &mut Reader<'a>) -> Result<Disconnect<'a>> {
    let mut found = Disconnect::default();
    if body.bytes.is_empty() {
        return Ok(found); // the only form of 3.1.1; reason 0 in 5.0 (3.14.2.1)
    }
    found.reason = ReasonCode(body.u8()?);
    if !found.reason.disconnects() {
        return Err(DecodeError::protocol("MQTT-3.14.2-1", "a reason that no DISCONNECT has"));
    }
    if body.bytes.is_empty() {
        return Ok(found); // 3.14.2.2.1
    }
    let mut list = PropertyList::open(body)?;
    while let Some(id) = list.next()? {
        let value = &mut list.rest;
        match id {
            id::SESSION_EXPIRY => found.session_expiry = Some(value.u32()?),
            id::REASON_STRING => found.reason_string = Some(value.text()?),
            id::SERVER_REFERENCE => found.server_reference = Some(value.text()?),
            _ => return Err(list.misplaced()),
        }
    }
    found.user = list.user();
    Ok(found)
}

fn auth<'a>(body: &mut Reader<'a>) -> Result<Auth<'a>> {
    let mut found = Auth::default();
    if body.bytes.is_empty() {
        return Ok(found); // reason 0 and no properties (3.15.2.1)
    }
    found.reason = ReasonCode(body.u8()?);
    if !found.reason.authenticates() {
        return Err(DecodeError::protocol("MQTT-3.15.2-1", "a reason that no AUTH has"));
    }
    let mut list = PropertyList::open(body)?;
    while let Some(id) = list.next()? {
        let value = &mut list.rest;
        match id {
            id::AUTHENTICATION_METHOD => found.authentication_method = Some(value.text()?),
            id::AUTHENTICATION_DATA => found.authentication_data = Some(value.data()?),
            id::REASON_STRING => found.reason_string = Some(value.text()?),
            _ => return Err(list.misplaced()),
        }
    }
    if found.authentication_method.is_none() {
        return Err(DecodeError::protocol("3.15.2.2.2", "AUTH without an Authentication Method"));
    }
    found.user = list.user();
    Ok(found)
}
