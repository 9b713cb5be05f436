//! The fifteen control packets as borrowed views of the bytes they were decoded from.

use std::num::{NonZeroU16, NonZeroU32};

use super::{PublishProperties, ReasonCode, SubscribeFilters, UnsubscribeFilters, UserProperties};

/// The protocol that a CONNECT asked for; every later packet of the connection is read and written in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// Quality of service, ordered: `AtMostOnce < AtLeastOnce < ExactlyOnce`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl QoS {
    /// `None` for 3 and above ([MQTT-3.3.1-4]).
    pub const fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// One control packet. The decoder yields all fifteen kinds, so that it serves clients and tests too; which of them
/// a peer may send, and when, is the session's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(SubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// CONNECT (3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Clean Session in 3.1.1, Clean Start in 5.0.
    pub clean_start: bool,
    /// Seconds; 0 switches the mechanism off ([MQTT-3.1.2-22]).
    pub keep_alive: u16,
    /// May be empty.
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: ConnectProperties<'a>,
}

/// CONNECT's properties (3.1.2.11); the defaults of 3.1.1 are those of an empty property list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds; absent = 0 = ends with the connection; `u32::MAX` = never.
    pub session_expiry: u32,
    /// Absent = 65,535.
    pub receive_maximum: NonZeroU16,
    /// Bytes; absent = no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Absent = 0 = no aliases towards this client.
    pub topic_alias_maximum: u16,
    /// Absent = false.
    pub request_response_information: bool,
    /// Absent = true.
    pub request_problem_information: bool,
    pub user: UserProperties<'a>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry: 0,
            receive_maximum: NonZeroU16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user: UserProperties::default(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// The will of a CONNECT (3.1.2.5, 3.1.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// Will Delay Interval, seconds; absent = 0.
    pub delay: u32,
    /// What the will's PUBLISH will carry; never an alias or a subscription identifier.
    pub properties: PublishProperties<'a>,
}

/// CONNACK (3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAck<'a> {
    pub session_present: bool,
    /// In 3.1.1 the return code 0–5 itself, in 5.0 a reason code.
    pub reason: ReasonCode,
    pub properties: ConnAckProperties<'a>,
}

/// CONNACK's properties (3.2.2.3): `None` leaves one out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    pub maximum_qos: Option<QoS>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size: Option<NonZeroU32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_identifiers_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
    pub server_keep_alive: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
}

/// PUBLISH (3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    /// Valid as a topic name; empty only in 5.0 beside a topic alias.
    pub topic: &'a str,
    /// `None` exactly at QoS 0.
    pub packet_id: Option<NonZeroU16>,
    pub properties: PublishProperties<'a>,
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (3.4–3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack<'a> {
    pub packet_id: NonZeroU16,
    pub reason: ReasonCode,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
}

/// SUBSCRIBE (3.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub packet_id: NonZeroU16,
    /// 1 to 268,435,455.
    pub subscription_id: Option<NonZeroU32>,
    pub user: UserProperties<'a>,
    /// At least one; every filter in it is valid.
    pub filters: SubscribeFilters<'a>,
}

/// Subscription Options (3.8.3.1); 3.1.1 has the QoS only and the defaults for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// The QoS, and for the rest what 3.1.1 does.
    pub const fn new(qos: QoS) -> Self {
        Self { qos, no_local: false, retain_as_published: false, retain_handling: RetainHandling::SendAtSubscribe }
    }
}

/// When retained messages are sent for a subscription (3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum RetainHandling {
    #[default]
    SendAtSubscribe = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

/// SUBACK and UNSUBACK (3.9, 3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubAck<'a> {
    pub packet_id: NonZeroU16,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    /// One byte for each filter, in order; an UNSUBACK of 3.1.1 has none.
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE (3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    pub packet_id: NonZeroU16,
    pub user: UserProperties<'a>,
    /// At least one; every filter in it is valid.
    pub filters: UnsubscribeFilters<'a>,
}

/// DISCONNECT (3.14).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    pub reason: ReasonCode,
    /// Seconds; absent = as in CONNECT.
    pub session_expiry: Option<u32>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    pub server_reference: Option<&'a str>,
}

/// AUTH (3.15), 5.0 only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
}
