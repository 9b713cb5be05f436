//! The packets that open a connection, and the only ones with more than a handful of properties.

use super::*;

pub(super) fn connect<'a>(body: &mut Reader<'a>) -> Result<Connect<'a>> {
    body.take(7)?; // protocol name and level, as `protocol` has found them
    let version = body.version;
    let flags = ConnectFlags::read(body)?;
    let keep_alive = body.u16()?;
    let properties = connect_properties(body)?;
    let client_id = body.text()?; // [MQTT-3.1.3-3], [MQTT-3.1.3-4]
    let will = flags.will.map(|(qos, retain)| will(body, qos, retain)).transpose()?;
    let user_name = flags.user_name.then(|| body.text()).transpose()?;
    let password = flags.password.then(|| body.data()).transpose()?;
    Ok(Connect {
        version,
        clean_start: flags.clean_start,
        keep_alive,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

/// Connect Flags (3.1.2.3).
struct ConnectFlags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    password: bool,
    user_name: bool,
}

impl ConnectFlags {
    fn read(body: &mut Reader<'_>) -> Result<Self> {
        let flags = body.u8()?;
        let bit = |n: u8| flags >> n & 1 == 1;
        if bit(0) {
            return Err(body.malformed("MQTT-3.1.2-3", "MQTT-3.1.2-3", "the reserved Connect Flag is set"));
        }
        let (qos, retain) = (QoS::from_bits(flags >> 3 & 3), bit(5));
        let will = match (bit(2), qos) {
            (true, Some(qos)) => Some((qos, retain)),
            (true, None) => return Err(body.malformed("MQTT-3.1.2-14", "MQTT-3.1.2-12", "Will QoS 3")),
            (false, Some(QoS::AtMostOnce)) if !retain => None,
            (false, Some(QoS::AtMostOnce)) => {
                return Err(body.malformed("MQTT-3.1.2-15", "MQTT-3.1.2-13", "Will Retain without Will Flag"));
            }
            (false, _) => return Err(body.malformed("MQTT-3.1.2-13", "MQTT-3.1.2-11", "Will QoS without Will Flag")),
        };
        let (password, user_name) = (bit(6), bit(7));
        if password && !user_name && body.version == Version::V311 {
            return Err(DecodeError::malformed("MQTT-3.1.2-22", "a password without a user name"));
        }
        Ok(Self { clean_start: bit(1), will, password, user_name })
    }
}

fn connect_properties<'a>(body: &mut Reader<'a>) -> Result<ConnectProperties<'a>> {
    let mut found = ConnectProperties::default();
    if body.version == Version::V311 {
        return Ok(found);
    }
    let mut list = PropertyList::open(body)?;
    while let Some(id) = list.next()? {
        let value = &mut list.rest;
        match id {
            id::SESSION_EXPIRY => found.session_expiry = value.u32()?,
            id::RECEIVE_MAXIMUM => found.receive_maximum = value.non_zero_u16("3.1.2.11.3", "Receive Maximum 0")?,
            id::MAXIMUM_PACKET_SIZE => {
                found.maximum_packet_size = Some(value.non_zero_u32("3.1.2.11.4", "Maximum Packet Size 0")?);
            }
            id::TOPIC_ALIAS_MAXIMUM => found.topic_alias_maximum = value.u16()?,
            id::REQUEST_RESPONSE_INFORMATION => {
                found.request_response_information =
                    value.flag("3.1.2.11.6", "Request Response Information not 0 or 1")?;
            }
            id::REQUEST_PROBLEM_INFORMATION => {
                found.request_problem_information =
                    value.flag("3.1.2.11.7", "Request Problem Information not 0 or 1")?;
            }
            id::AUTHENTICATION_METHOD => found.authentication_method = Some(value.text()?),
            id::AUTHENTICATION_DATA => found.authentication_data = Some(value.data()?),
            _ => return Err(list.misplaced()),
        }
    }
    if found.authentication_data.is_some() && found.authentication_method.is_none() {
        return Err(DecodeError::protocol("3.1.2.11.10", "Authentication Data without an Authentication Method"));
    }
    found.user = list.user();
    Ok(found)
}

fn will<'a>(body: &mut Reader<'a>, qos: QoS, retain: bool) -> Result<Will<'a>> {
    let mut delay = 0;
    let mut properties = PublishProperties::default();
    if body.version == Version::V5 {
        let mut list = PropertyList::open(body)?;
        while let Some(id) = list.next()? {
            match id {
                id::WILL_DELAY => delay = list.rest.u32()?,
                _ => message_property(&mut properties, id, &mut list)?,
            }
        }
        properties.user = list.user();
    }
    let topic = body.name("MQTT-4.7.1-1", "MQTT-4.7.0-1")?; // [MQTT-3.1.3-11]
    let payload = body.data()?;
    Ok(Will { qos, retain, topic, payload, delay, properties })
}

pub(super) fn connack<'a>(body: &mut Reader<'a>) -> Result<ConnAck<'a>> {
    let flags = body.u8()?;
    if flags > 1 {
        return Err(body.malformed("3.2.2.1", "MQTT-3.2.2-1", "reserved Connect Acknowledge Flags are set"));
    }
    let (session_present, reason) = (flags == 1, ReasonCode(body.u8()?));
    if !reason.answers_connect(body.version) {
        return Err(body.protocol("3.2.2.3", "MQTT-3.2.2-8", "a reason that no CONNACK has"));
    }
    if session_present && reason != ReasonCode::SUCCESS {
        return Err(body.protocol("MQTT-3.2.2-4", "MQTT-3.2.2-6", "Session Present in a refusal"));
    }
    let properties = match body.version {
        Version::V311 => ConnAckProperties::default(),
        Version::V5 => connack_properties(body)?,
    };
    Ok(ConnAck { session_present, reason, properties })
}

fn connack_properties<'a>(body: &mut Reader<'a>) -> Result<ConnAckProperties<'a>> {
    let mut found = ConnAckProperties::default();
    let mut list = PropertyList::open(body)?;
    while let Some(id) = list.next()? {
        let value = &mut list.rest;
        match id {
            id::SESSION_EXPIRY => found.session_expiry = Some(value.u32()?),
            id::RECEIVE_MAXIMUM => {
                found.receive_maximum = Some(value.non_zero_u16("3.2.2.3.3", "Receive Maximum 0")?);
            }
            id::MAXIMUM_QOS => {
                let one = value.flag("3.2.2.3.4", "Maximum QoS not 0 or 1")?;
                found.maximum_qos = Some(if one { QoS::AtLeastOnce } else { QoS::AtMostOnce });
            }
            id::RETAIN_AVAILABLE => {
                found.retain_available = Some(value.flag("3.2.2.3.5", "Retain Available not 0 or 1")?);
            }
            id::MAXIMUM_PACKET_SIZE => {
                found.maximum_packet_size = Some(value.non_zero_u32("3.2.2.3.6", "Maximum Packet Size 0")?);
            }
            id::ASSIGNED_CLIENT_ID => found.assigned_client_id = Some(value.text()?),
            id::TOPIC_ALIAS_MAXIMUM => found.topic_alias_maximum = Some(value.u16()?),
            id::REASON_STRING => found.reason_string = Some(value.text()?),
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                let flag = value.flag("3.2.2.3.11", "Wildcard Subscription Available not 0 or 1")?;
                found.wildcard_subscription_available = Some(flag);
            }
            id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE => {
                let flag = value.flag("3.2.2.3.12", "Subscription Identifiers Available not 0 or 1")?;
                found.subscription_identifiers_available = Some(flag);
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                let flag = value.flag("3.2.2.3.13", "Shared Subscription Available not 0 or 1")?;
                found.shared_subscription_available = Some(flag);
            }
            id::SERVER_KEEP_ALIVE => found.server_keep_alive = Some(value.u16()?),
            id::RESPONSE_INFORMATION => found.response_information = Some(value.text()?),
            id::SERVER_REFERENCE => found.server_reference = Some(value.text()?),
            id::AUTHENTICATION_METHOD => found.authentication_method = Some(value.text()?),
            id::AUTHENTICATION_DATA => found.authentication_data = Some(value.data()?),
            _ => return Err(list.misplaced()),
        }
    }
    if found.authentication_data.is_some() && found.authentication_method.is_none() {
        return Err(DecodeError::protocol("3.2.2.3.18", "Authentication Data without an Authentication Method"));
    }
    found.user = list.user();
    Ok(found)
}
