//! Bytes to packets.

use super::{Packet, ReasonCode, Version};

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

/// Decodes the first packet in `bytes`: the packet and the number of bytes it took, or `None` while it is incomplete.
pub fn decode(bytes: &[u8], version: Version, max_packet: usize) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    let _ = (bytes, version, max_packet);
    Ok(None)
}
