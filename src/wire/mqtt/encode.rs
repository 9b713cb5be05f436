//! Packets to bytes.

use std::num::{NonZeroU16, NonZeroU32};

use super::{Packet, QoS, Version};

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
}

/// Appends the bytes that precede the payload.
pub fn publish_header(out: &mut Vec<u8>, version: Version, header: &PublishHeader<'_>, payload_len: usize) {
    let _ = (out, version, header, payload_len);
}

/// Appends a whole packet.
pub fn encode(out: &mut Vec<u8>, version: Version, packet: &Packet<'_>) {
    let _ = (out, version, packet);
}
