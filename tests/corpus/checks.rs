//! What must hold for any bytes at all; the fuzz tests and the fuzz targets share it.

use wigwag::wire::mqtt::{
    Connect, DecodeError, Packet, PublishHeader, PublishProperties, Version, check_from_client, connect_level, decode,
    encode, publish_header,
};
use wigwag::wire::ws::{Deframer, Event, Limits, Role, WsError};

/// Decodes `bytes` in every way that must come to the same, and returns what it is.
///
/// # Panics
/// If something does not hold.
pub fn mqtt(bytes: &[u8], version: Version, max_packet: usize) -> Result<Option<(Packet<'_>, usize)>, DecodeError> {
    connect_level(bytes);
    let whole = decode(bytes, version, max_packet);
    match &whole {
        Ok(Some((packet, len))) => {
            assert!((2..=bytes.len()).contains(len) && *len <= max_packet, "{len} bytes of {}", bytes.len());
            assert_eq!(decode(&bytes[..*len], version, max_packet), whole, "what follows changed the packet");
            prefixes(bytes, *len, |prefix| {
                assert_eq!(decode(prefix, version, max_packet), Ok(None), "complete after {} bytes", prefix.len());
            });
            again(packet, version);
            let _ = check_from_client(packet);
        }
        Ok(None) => {}
        Err(error) => prefixes(bytes, bytes.len(), |prefix| {
            let early = decode(prefix, version, max_packet);
            assert!(early == Ok(None) || early == Err(*error), "{early:?}, but the whole is {error:?}");
        }),
    }
    whole
}

/// The shortest and the longest prefixes, where headers and ends are.
fn prefixes(bytes: &[u8], len: usize, check: impl Fn(&[u8])) {
    (0..len).filter(|end| *end < 24 || len - end < 8).for_each(|end| check(&bytes[..end]));
}

/// What a packet is encoded to is that packet again, and encoded the same.
fn again(packet: &Packet<'_>, version: Version) {
    let mut bytes = Vec::new();
    encode(&mut bytes, version, packet);
    let (decoded, len) = decode(&bytes, version, usize::MAX).expect("legal").expect("complete");
    assert_eq!((&decoded, len), (packet, bytes.len()));
    let mut twice = Vec::new();
    encode(&mut twice, version, &decoded);
    assert_eq!(bytes, twice);
    match packet {
        Packet::Publish(publish) => {
            let mut properties = Vec::new();
            publish.properties.encode_forwarded(None, &mut properties);
            let ids: Vec<_> = publish.properties.subscription_ids.iter().collect();
            let header = PublishHeader {
                dup: publish.dup,
                qos: publish.qos,
                retain: publish.retain,
                topic: publish.topic,
                packet_id: publish.packet_id,
                topic_alias: publish.properties.topic_alias,
                message_expiry: publish.properties.message_expiry,
                subscription_ids: &ids,
                properties: &properties,
                received: None,
            };
            let mut beside = Vec::new();
            publish_header(&mut beside, version, &header, publish.payload.len());
            beside.extend_from_slice(publish.payload);
            assert_eq!(beside, bytes);
            count_user_properties(&publish.properties);
        }
        Packet::Connect(Connect { will: Some(will), .. }) => count_user_properties(&will.properties),
        Packet::Subscribe(subscribe) => assert!(subscribe.filters.iter().next().is_some()),
        Packet::Unsubscribe(unsubscribe) => assert!(unsubscribe.filters.iter().next().is_some()),
        _ => {}
    }
}

fn count_user_properties(properties: &PublishProperties<'_>) {
    assert_eq!(properties.user.iter().count(), properties.user.len());
}

/// What a deframer makes of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deframed {
    pub payload: Vec<u8>,
    pub events: Vec<Event>,
    pub error: Option<WsError>,
}

/// Reads a stream that arrives in pieces, each after the payload that is kept, as in a worker's buffer.
pub fn ws<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, role: Role, limits: Limits) -> Deframed {
    let mut deframer = Deframer::new(role);
    let mut out = Deframed::default();
    for piece in pieces {
        let mut buf = [&out.payload[..], piece].concat();
        let (end, mut start, mut write) = (buf.len(), out.payload.len(), out.payload.len());
        loop {
            let progress = deframer.deframe(&mut buf, start, end, write, &limits);
            assert!(progress.start >= start && progress.write >= write && progress.write <= progress.start);
            (start, write) = (progress.start, progress.write);
            match progress.event {
                Some(Event::Failed(error)) => {
                    assert!(out.error.is_none(), "failed twice");
                    out.error = Some(error);
                }
                Some(event) => out.events.push(event),
                None => break,
            }
        }
        assert_eq!(start, end);
        buf.truncate(write);
        out.payload = buf;
    }
    out
}
