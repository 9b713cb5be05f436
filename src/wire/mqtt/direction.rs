//! What only a server may say.

use super::{DecodeError, Packet, ReasonCode};

/// Refuses what a client never sends: the packets of a server, and in the others what 5.0 leaves to one. The decoder
/// takes both, so that it reads either side of a connection.
///
/// # Errors
/// A protocol error with its clause. That CONNECT comes first and once, and what depends on what was said before
/// (such as an expiry raised from 0), is the session's to see.
pub fn check_from_client(packet: &Packet<'_>) -> Result<(), DecodeError> {
    let refused = |clause, what| Err(DecodeError::protocol(clause, what));
    match packet {
        Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
            refused("2.1.2", "a packet that only a server sends")
        }
        Packet::Publish(publish) if !publish.properties.subscription_ids.is_empty() => {
            refused("MQTT-3.3.4-6", "a client's PUBLISH with a subscription identifier")
        }
        Packet::Disconnect(disconnect) if disconnect.server_reference.is_some() => {
            refused("3.14.2.2.5", "a client's DISCONNECT with a Server Reference")
        }
        Packet::Disconnect(disconnect) if !disconnect.reason.client_disconnects() => {
            refused("MQTT-3.14.2-1", "a DISCONNECT with a reason that only a server has")
        }
        Packet::Auth(auth) if auth.reason == ReasonCode::SUCCESS => {
            refused("MQTT-3.15.2-1", "a client's AUTH that says success")
        }
        _ => Ok(()),
    }
}
