//! Packets made up, encoded, decoded and compared.

use super::*;

fn round_trip(version: Version, packet: Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, version, &packet);
    assert_eq!(decode(&bytes, version, usize::MAX), Ok(Some((packet, bytes.len()))), "{bytes:02x?}");
    for end in 0..bytes.len() {
        assert_eq!(decode(&bytes[..end], version, usize::MAX), Ok(None), "{:02x?}", &bytes[..end]);
    }
    bytes
}

#[test]
fn the_shortest_forms() {
    assert_eq!(round_trip(Version::V5, Packet::Disconnect(Disconnect::default())), [0xE0, 0]);
    assert_eq!(round_trip(Version::V5, Packet::PingReq), [0xC0, 0]);
}
