//! The codec against the table: every legal packet is accepted, every other ends with the reason and the clause that
//! stand beside it, however it arrives.

mod corpus;

use corpus::{MAX_PACKET, rows};
use wigwag::wire::mqtt::{DecodeError, Packet, ReasonCode, Version, decode, encode};

type Decoded<'a> = Result<Option<(Packet<'a>, usize)>, DecodeError>;

#[test]
fn every_row_ends_as_it_says() {
    let mut wrong = Vec::new();
    for row in rows() {
        let decoded = decode(&row.bytes, row.version, MAX_PACKET);
        let right = match (&decoded, row.refusal) {
            (Ok(Some((_, len))), None) => *len == row.bytes.len(),
            (Err(error), Some(reason)) => (error.reason, error.clause) == (reason, row.clause),
            _ => false,
        };
        if !right {
            wrong.push(format!("{:?} {}: {decoded:?}", row.version, row.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_prefix_is_incomplete_or_refused_as_the_whole() {
    for row in rows() {
        let whole = decode(&row.bytes, row.version, MAX_PACKET);
        for end in 0..row.bytes.len().min(500) {
            match decode(&row.bytes[..end], row.version, MAX_PACKET) {
                Ok(None) => {}
                early => assert_eq!(early, whole, "{:?} {} at {end}", row.version, row.name),
            }
        }
    }
}

#[test]
fn what_follows_a_packet_is_not_looked_at() {
    for row in rows().iter().filter(|row| row.refusal.is_none()) {
        let alone = decode(&row.bytes, row.version, MAX_PACKET);
        for next in [0x00, 0xFF] {
            let bytes = [&row.bytes[..], &[next; 20]].concat();
            assert_eq!(decode(&bytes, row.version, MAX_PACKET), alone, "{}", row.name);
        }
    }
}

#[test]
fn what_is_accepted_is_written_as_it_reads() {
    for row in rows() {
        let Ok(Some((packet, _))) = decode(&row.bytes, row.version, MAX_PACKET) else { continue };
        let mut bytes = Vec::new();
        encode(&mut bytes, row.version, &packet);
        let again: Decoded<'_> = Ok(Some((packet.clone(), bytes.len())));
        assert_eq!(decode(&bytes, row.version, MAX_PACKET), again, "{}", row.name);
        assert!(bytes.len() <= row.bytes.len(), "{} grew", row.name);
    }
}

#[test]
fn the_table_is_whole() {
    let rows = rows();
    let count =
        |version, legal| rows.iter().filter(|row| row.version == version && row.refusal.is_none() == legal).count();
    for version in [Version::V311, Version::V5] {
        let kinds: std::collections::BTreeSet<u8> = rows
            .iter()
            .filter(|row| row.version == version && row.refusal.is_none())
            .map(|row| row.bytes[0] >> 4)
            .collect();
        assert_eq!(kinds.len(), if version == Version::V5 { 15 } else { 14 }, "a packet type without a legal row");
    }
    assert!(count(Version::V311, true) >= 35 && count(Version::V5, true) >= 60);
    assert!(count(Version::V311, false) >= 100 && count(Version::V5, false) >= 200);
}

/// Which packets have which property (2.2.2.2): the packet up to its properties, what follows them, and who is at
/// home there. CONNECT's will is a packet of its own here.
const HOMES: [(&[u8], &[u8], &[u8]); 13] = [
    (b"\x10\0\x04MQTT\x05\x02\0\0", b"\0\0", &[17, 21, 22, 23, 25, 33, 34, 38, 39]),
    (b"\x10\0\x04MQTT\x05\x06\0\0\0\0\0", b"\0\x01t\0\0", &[1, 2, 3, 8, 9, 24, 38]),
    (b"\x20\0\0", b"", &[17, 18, 19, 21, 22, 26, 28, 31, 33, 34, 36, 37, 38, 39, 40, 41, 42]),
    (b"\x30\0\x01t", b"payload", &[1, 2, 3, 8, 9, 11, 35, 38]),
    (b"\x40\0\x01\0", b"", &[31, 38]),
    (b"\x50\0\x01\0", b"", &[31, 38]),
    (b"\x62\0\x01\0", b"", &[31, 38]),
    (b"\x70\0\x01\0", b"", &[31, 38]),
    (b"\x82\0\x01", b"\0\x01a\0", &[11, 38]),
    (b"\x90\0\x01", b"\0", &[31, 38]),
    (b"\xA2\0\x01", b"\0\x01a", &[38]),
    (b"\xB0\0\x01", b"\0", &[31, 38]),
    (b"\xE0\0", b"", &[17, 28, 31, 38]),
];

/// A property with a value that is legal for it; `None` for an identifier that does not exist.
fn property(id: u8) -> Option<Vec<u8>> {
    let value: &[u8] = match id {
        1 | 23 | 25 | 36 | 37 | 40..=42 => &[1],
        19 | 33 | 34 | 35 => &[0, 1],
        2 | 17 | 24 | 39 => &[0, 0, 0, 1],
        11 => &[1],
        3 | 8 | 9 | 18 | 21 | 22 | 26 | 28 | 31 => b"\0\x01x",
        38 => b"\0\x01k\0\x01v",
        _ => return None,
    };
    Some([&[id], value].concat())
}

fn with_properties(head: &[u8], properties: &[u8], tail: &[u8]) -> Vec<u8> {
    let body = [&head[1..], &[properties.len() as u8], properties, tail].concat();
    [&[head[0], body.len() as u8], &body[..]].concat()
}

#[test]
fn every_property_in_every_packet() {
    let auth: (&[u8], &[u8], &[u8]) = (b"\xF0\x18", b"", &[21, 22, 31, 38]);
    for (head, tail, home) in HOMES.into_iter().chain([auth]) {
        for id in 0..=127 {
            let once = property(id).unwrap_or(vec![id, 0, 1, 0]);
            // Data needs a method, and AUTH always has one.
            let method = if id != 21 && home.contains(&21) { property(21).unwrap() } else { vec![] };
            let verdict = |properties: &[Vec<u8>]| {
                let bytes = with_properties(head, &properties.concat(), tail);
                decode(&bytes, Version::V5, 200).map(|packet| packet.is_some()).map_err(|error| error.reason)
            };
            let at_home = home.contains(&id);
            let expected = if at_home { Ok(true) } else { Err(ReasonCode::MALFORMED_PACKET) };
            assert_eq!(verdict(&[method.clone(), once.clone()]), expected, "{id} in {head:02x?}");
            if at_home {
                let repeatable = id == 38 || id == 11 && head[0] == 0x30;
                let expected = if repeatable { Ok(true) } else { Err(ReasonCode::PROTOCOL_ERROR) };
                assert_eq!(verdict(&[method, once.clone(), once]), expected, "{id} twice in {head:02x?}");
            }
        }
    }
}

/// The reason codes of each packet (2.4).
#[test]
fn every_reason_code_in_every_packet() {
    let publish: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let tables: [(&[u8], &[u8], &[u8]); 9] = [
        (
            b"\x20\x03\0",
            b"\0",
            &[
                0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
                0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
            ],
        ),
        (b"\x40\x03\0\x01", b"", publish),
        (b"\x50\x03\0\x01", b"", publish),
        (b"\x62\x03\0\x01", b"", &[0x00, 0x92]),
        (b"\x70\x03\0\x01", b"", &[0x00, 0x92]),
        (b"\x90\x04\0\x01\0", b"", &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]),
        (b"\xB0\x04\0\x01\0", b"", &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]),
        (
            b"\xE0\x01",
            b"",
            &[
                0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
                0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
            ],
        ),
        (b"\xF0\x06", b"\x04\x15\0\x01m", &[0x00, 0x18, 0x19]),
    ];
    for (head, tail, known) in tables {
        for code in 0..=255 {
            let bytes = [head, &[code], tail].concat();
            let decoded = decode(&bytes, Version::V5, 100).map(|packet| packet.is_some());
            match known.contains(&code) {
                true => assert_eq!(decoded, Ok(true), "{code:#04x} in {head:02x?}"),
                false => {
                    let reason = decoded.map_err(|error| error.reason);
                    assert_eq!(reason, Err(ReasonCode::PROTOCOL_ERROR), "{code:#04x} in {head:02x?}");
                }
            }
        }
    }
}
