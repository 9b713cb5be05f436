//! Mutations of the table's packets and of WebSocket frames, checked against themselves and against codecs that
//! others wrote.
//!
//! Runs for `WIGWAG_FUZZ_SECONDS` (5 if it is not set) from a fixed seed, so that a failure fails again.

#[path = "corpus/checks.rs"]
mod checks;
mod corpus;
#[path = "corpus/oracles.rs"]
mod oracles;

use std::time::{Duration, Instant};

use corpus::{MAX_PACKET, Row, rows};
use oracles::Stream;
use wigwag::wire::mqtt::Version;
use wigwag::wire::ws::{self, Limits, Opcode, Role};

/// How long one test goes on.
fn budget() -> Duration {
    let seconds = std::env::var("WIGWAG_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// xorshift64*, which needs no crate and no state but this.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        start..start + self.below((len - start).min(16) + 1)
    }
}

/// Properties, whole and not, to put where a property list is.
const PROPERTIES: [&[u8]; 34] = [
    b"\x01\x00",
    b"\x01\x02",
    b"\x02\0\0\0\x0A",
    b"\x03\0\x01t",
    b"\x08\0\x01r",
    b"\x08\0\x01#",
    b"\x09\0\x02\0\xFF",
    b"\x0B\x01",
    b"\x0B\x00",
    b"\x0B\xFF\xFF\xFF\x7F",
    b"\x11\xFF\xFF\xFF\xFF",
    b"\x12\0\x01i",
    b"\x13\0\x0A",
    b"\x15\0\x01m",
    b"\x16\0\x01\xFF",
    b"\x17\x01",
    b"\x18\0\0\0\x05",
    b"\x19\x01",
    b"\x1A\0\x01i",
    b"\x1C\0\x01s",
    b"\x1F\0\x01w",
    b"\x21\0\x01",
    b"\x21\0\0",
    b"\x22\0\0",
    b"\x23\0\x01",
    b"\x23\0\0",
    b"\x24\x01",
    b"\x25\x01",
    b"\x26\0\x01k\0\x01v",
    b"\x27\0\0\x01\0",
    b"\x28\x01",
    b"\x29\x01",
    b"\x2A\x01",
    b"\x2B\x01",
];

/// The body of a packet and its first byte, changed here and there.
fn mutate(random: &mut Random, seeds: &[Row], row: &Row) -> Vec<u8> {
    let header = 1 + row.bytes[1..].iter().take_while(|byte| *byte & 0x80 != 0).count() + 1;
    let mut first = row.bytes[0];
    let mut body = row.bytes.get(header..).unwrap_or_default().to_vec();
    for _ in 0..=random.below(3) {
        let at = random.range(body.len());
        match random.below(10) {
            0 => first ^= 1 << random.below(8),
            1..=4 if at.start < body.len() => {
                let byte = &mut body[at.start];
                *byte = match random.below(2) {
                    0 => *byte ^ 1 << random.below(8),
                    _ => random.one_of(b"\x00\x01\x02\x03\x04\x05\x06\x07\x7F\x80\x81\x82\xC3\xFF+#/$a"),
                };
            }
            5 => drop(body.drain(at)),
            6 => {
                let again = body[at.clone()].to_vec();
                body.splice(at.end..at.end, again);
            }
            7 => {
                let other = &seeds[random.below(seeds.len())].bytes;
                let piece = random.range(other.len());
                body.splice(at, other[piece].iter().copied());
            }
            _ if row.version == Version::V5 => insert_property(random, first, &mut body),
            _ => {}
        }
    }
    let mut bytes = vec![first];
    match random.below(20) {
        // Mostly the length is right, or nothing behind it would ever be looked at.
        0 => bytes.extend_from_slice(&row.bytes[1..header.min(row.bytes.len())]),
        1 => bytes.extend_from_slice(random.one_of::<&[u8]>(&[
            b"\x80\0",
            b"\xFF\xFF\xFF\x7F",
            b"\xFF\xFF\xFF\xFF",
            b"\x7F",
        ])),
        _ => bytes.extend(corpus::varint(body.len())),
    }
    bytes.extend_from_slice(&body);
    bytes
}

/// Puts a property in front of those that are there, with their length put right.
fn insert_property(random: &mut Random, first: u8, body: &mut Vec<u8>) {
    let topic = || body.get(..2).map_or(0, |len| 2 + usize::from(u16::from_be_bytes([len[0], len[1]])));
    let at = match first >> 4 {
        1 => 10,
        3 => topic() + if first & 6 == 0 { 0 } else { 2 },
        4..=7 => 3,
        14 | 15 => 1,
        _ => 2,
    };
    let property = random.one_of(&PROPERTIES);
    let Some(len) = body.get_mut(at).filter(|len| usize::from(**len) + property.len() < 0x80) else { return };
    *len += property.len() as u8;
    body.splice(at + 1..at + 1, property.iter().copied());
}

#[test]
fn packets() {
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.bytes.len() < 2000).collect();
    let (start, budget) = (Instant::now(), budget());
    let mut random = Random(0x5EED_0F3A_11C0_DEC5);
    let mut findings = oracles::Findings::default();
    let mut runs = 0u64;
    while start.elapsed() < budget {
        for _ in 0..100 {
            let row = &rows[random.below(rows.len())];
            let bytes = mutate(&mut random, &rows, row);
            let ours = checks::mqtt(&bytes, row.version, MAX_PACKET);
            findings.judge(&bytes, row.version, &ours);
            runs += 1;
        }
    }
    println!("{runs} packets");
    findings.report();
}

/// Frames of a client, most of them as they should be; sometimes one at the end that is not. And whether all messages
/// are whole.
fn frames(random: &mut Random) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let mut open = false;
    for _ in 0..random.below(8) {
        let len = random.one_of(&[0, 1, 5, 125, 126, 127, 300]);
        let payload: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let control = &payload[..payload.len().min(125)];
        let key = (random.next() as u32).to_be_bytes();
        let at = out.len();
        match random.below(12) {
            0 => ws::frame(&mut out, Opcode::Ping, control, Some(key)),
            1 => ws::frame(&mut out, Opcode::Pong, control, Some(key)),
            2 if random.below(4) == 0 => {
                let code =
                    random.one_of(&[0, 999, 1000, 1001, 1004, 1005, 1006, 1007, 1011, 1015, 2999, 3000, 4999, 5000u16]);
                let reason = random.one_of::<&[u8]>(&[b"", b"bye", b"\xFF"]);
                ws::frame(&mut out, Opcode::Close, &[&code.to_be_bytes()[..], reason].concat(), Some(key));
                break;
            }
            kind => {
                let opcode = if open { Opcode::Continuation } else { Opcode::Binary };
                ws::frame(&mut out, opcode, &payload, Some(key));
                open = kind < 6;
                out[at] &= if open { 0x7F } else { 0xFF };
            }
        }
    }
    if random.below(3) == 0 {
        out.extend_from_slice(random.one_of::<&[u8]>(&FAULTS));
        out.extend_from_slice(&[0; 126]); // whatever it announces, the frame is whole
    }
    (out, !open)
}

/// Frames that no server accepts.
const FAULTS: [&[u8]; 13] = [
    b"\x82\x01a",
    b"\x82\x00",
    b"\xC2\x80\0\0\0\0",
    b"\x92\x80\0\0\0\0",
    b"\x83\x80\0\0\0\0",
    b"\x8B\x80\0\0\0\0",
    b"\x81\x81\0\0\0\0a",
    b"\x09\x80\0\0\0\0",
    b"\x89\xFE\x00\x7E\0\0\0\0",
    b"\x88\x81\0\0\0\0\x03",
    b"\x82\xFE\x00\x01\0\0\0\0a",
    b"\x82\xFF\0\0\0\0\0\0\0\x01\0\0\0\0a",
    b"\x82\xFF\0\0\0\0\0\x10\0\0\0\0\0\0",
];

const LIMITS: Limits = Limits { frame: 100_000, message: 200_000 };

#[test]
fn websocket_frames() {
    let (start, budget) = (Instant::now(), budget());
    let mut random = Random(0x0DDB_A115_CAFE_F00D);
    let mut runs = 0u64;
    while start.elapsed() < budget {
        let (mut stream, complete) = frames(&mut random);
        let mut state = if complete { Stream::Complete } else { Stream::Open };
        if random.below(3) == 0 && !stream.is_empty() {
            let at = random.below(stream.len());
            stream[at] ^= 1 << random.below(8);
            state = Stream::Broken;
        }
        let whole = checks::ws([&stream[..]], Role::Server, LIMITS);
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(random.below(rest.len().min(40) + 1));
            pieces.push(piece);
            rest = behind;
        }
        assert_eq!(checks::ws(pieces, Role::Server, LIMITS), whole, "{stream:02x?}");
        oracles::tungstenite_agrees(&stream, state, LIMITS, &whole);
        checks::ws([&stream[..]], Role::Client, LIMITS);
        runs += 1;
    }
    println!("{runs} streams");
}
