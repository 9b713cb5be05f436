//! The same packets, whatever pieces their bytes come in.

use std::task::Waker;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    session::testing::Script,
    wire::{
        mqtt::{Publish, PublishProperties, QoS, ReasonCode, encode},
        ws::Opcode,
    },
};

const LIMITS: InletLimits = InletLimits { packet: 1 << 20, frames: ws::Limits { frame: 1 << 20, message: u32::MAX } };

/// Notes what it is handed.
struct Recorder {
    packets: Vec<Vec<u8>>,
    pings: Vec<Vec<u8>>,
    malformed: bool,
    /// Stops behind this many packets.
    stop: Option<usize>,
    stops: Stop,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { packets: Vec::new(), pings: Vec::new(), malformed: false, stop: None, stops: Stop::Taken }
    }
}

impl Handler for Recorder {
    fn version(&self) -> Version {
        Version::V5
    }

    fn packet(&mut self, _packet: Packet<'_>, bytes: &[u8]) -> Result<(), Stop> {
        self.packets.push(bytes.to_vec());
        if self.stop == Some(self.packets.len()) { Err(self.stops) } else { Ok(()) }
    }

    fn malformed(&mut self, _bytes: &[u8]) {
        self.malformed = true;
    }

    fn ping(&mut self, payload: &ws::ControlPayload) {
        self.pings.push(payload.to_vec());
    }
}

/// An inlet whose peer is the script.
struct Peer {
    script: Script,
    inlet: Inlet,
    limits: InletLimits,
    seen: Recorder,
}

impl Peer {
    fn new(websocket: bool) -> Self {
        let script = Script::default();
        let inlet = Inlet::new(script.stream().split().0, websocket);
        Self { script, inlet, limits: LIMITS, seen: Recorder::default() }
    }

    /// Reads once.
    fn read(&mut self) -> Poll<Result<Read, ReadError>> {
        self.inlet.poll_read(&mut Context::from_waker(Waker::noop()), self.limits, &mut self.seen)
    }

    /// Reads until nothing more has come, and holds what is kept against what has.
    fn read_all(&mut self) {
        loop {
            match self.read() {
                Poll::Pending => return,
                Poll::Ready(Ok(Read::More)) => {
                    let kept = self.inlet.tail.len();
                    // A long one grows as vectors do, by what has come, frame headers included.
                    let spare = if kept > MOVED { kept + 2 * BUFFER } else { 0 };
                    assert!(self.inlet.tail.capacity() <= kept + spare, "{kept}: {}", self.inlet.tail.capacity());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn packet(payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "topic",
        packet_id: None,
        properties: PublishProperties::default(),
        payload: &vec![payload as u8; payload],
    };
    encode(&mut bytes, Version::V5, &Packet::Publish(publish));
    bytes
}

fn framed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ws::frame(&mut bytes, opcode, payload, Some([1, 2, 3, 4]));
    bytes
}

/// Cuts `bytes` into pieces of the lengths given, over and over.
fn pieces<'b>(bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, behind) = rest.split_at(rest.len().min(*length));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![3 => 1..50usize, 2 => 1..5000usize, 1 => 20_000..100_000usize], 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// [MQTT-6.0.0-2]
    #[test]
    fn packets_come_out_whole_whatever_pieces_they_come_in(
        payloads in vec(prop_oneof![8 => 0..200usize, 1 => 30_000..40_000usize, 1 => 60_000..150_000usize], 0..20),
        frames in proptest::option::of(lengths()),
        reads in lengths(),
    ) {
        let packets: Vec<_> = payloads.iter().map(|length| packet(*length)).collect();
        let mut stream = packets.concat();
        let mut pings = 0;
        if let Some(frames) = &frames {
            let payload = std::mem::take(&mut stream);
            for (index, piece) in pieces(&payload, frames).into_iter().enumerate() {
                stream.extend(framed(Opcode::Binary, piece));
                if index % 3 == 0 {
                    stream.extend(framed(Opcode::Ping, &[index as u8]));
                    pings += 1;
                }
            }
        }
        let mut peer = Peer::new(frames.is_some());
        pieces(&stream, &reads).into_iter().for_each(|piece| peer.script.says(piece));
        peer.read_all();
        prop_assert_eq!(&peer.seen.packets, &packets);
        prop_assert_eq!(peer.seen.pings.len(), pings);
        prop_assert_eq!(peer.inlet.tail.capacity(), 0, "an idle connection owns no buffer");
    }
}

#[test]
fn what_is_kept_is_what_came_of_an_incomplete_packet_and_not_what_it_announces() {
    let mut peer = Peer::new(false);
    let whole = packet(200_000);
    peer.script.says(&[&packet(3), &whole[..10]].concat());
    peer.read_all();
    assert_eq!(peer.seen.packets.len(), 1);
    assert_eq!((&peer.inlet.tail[..], peer.inlet.tail.capacity()), (&whole[..10], 10));
    peer.script.says(&whole[10..]);
    peer.script.says(&packet(5));
    peer.read_all();
    assert_eq!(peer.seen.packets, [packet(3), whole, packet(5)]);
    assert_eq!(peer.inlet.tail.capacity(), 0);
}

#[test]
fn nothing_that_comes_changes_nothing() {
    for kept in [0, 10, MOVED + 1] {
        let mut peer = Peer::new(false);
        if kept > 0 {
            peer.script.says(&packet(200_000)[..kept]);
            peer.read_all();
        }
        assert!(peer.read().is_pending());
        assert_eq!(peer.inlet.tail, packet(200_000)[..kept]);
        peer.script.says(b"");
        assert!(matches!(peer.read(), Poll::Ready(Ok(Read::End))));
    }
}

/// [MQTT-3.1.2-24], 3.2.2.3.6: refused when its length is known, before its bytes are.
#[test]
fn a_packet_above_the_limit_is_refused_by_its_header() {
    let mut peer = Peer::new(false);
    peer.limits.packet = 1000;
    peer.script.says(&packet(1000 - 11));
    peer.read_all();
    peer.script.says(&packet(2000)[..5]);
    let Poll::Ready(Err(ReadError::Packet(error))) = peer.read() else { panic!("{:?}", peer.seen.packets) };
    assert_eq!(error.reason, ReasonCode::PACKET_TOO_LARGE);
    assert!(peer.seen.malformed);
}

#[test]
fn the_packets_before_a_malformed_one_are_handled() {
    let mut peer = Peer::new(false);
    peer.script.says(&[&packet(1)[..], &packet(2), b"\x00\x00"].concat());
    assert!(matches!(peer.read(), Poll::Ready(Err(ReadError::Packet(_)))));
    assert_eq!(peer.seen.packets.len(), 2);
}

#[test]
fn a_handler_that_stops_leaves_the_rest_for_the_next() {
    for websocket in [false, true] {
        let stream = [packet(1), packet(2), packet(40_000)].concat();
        let stream = if websocket { framed(Opcode::Binary, &stream) } else { stream };
        let mut peer = Peer::new(websocket);
        peer.seen.stop = Some(1);
        peer.script.says(&stream[..100]);
        assert!(matches!(peer.read(), Poll::Ready(Err(ReadError::Handled(Stop::Taken)))));
        peer.seen = Recorder::default();
        peer.inlet.feed(&[], LIMITS, &mut peer.seen).unwrap();
        assert_eq!(peer.seen.packets, [packet(2)]);
        peer.script.says(&stream[100..]);
        peer.read_all();
        assert_eq!(peer.seen.packets, [packet(2), packet(40_000)]);
    }
}

#[test]
fn bytes_behind_an_upgrade_come_first() {
    let mut peer = Peer::new(true);
    let stream = framed(Opcode::Binary, &[packet(1), packet(2)].concat());
    peer.inlet.feed(&stream[..12], LIMITS, &mut peer.seen).unwrap();
    peer.inlet.feed(&stream[12..15], LIMITS, &mut peer.seen).unwrap();
    peer.script.says(&stream[15..]);
    peer.read_all();
    assert_eq!(peer.seen.packets, [packet(1), packet(2)]);
}

fn frame_end(read: Poll<Result<Read, ReadError>>) -> FrameEnd {
    match read {
        Poll::Ready(Err(ReadError::Frame(end))) => end,
        other => panic!("{other:?}"),
    }
}

/// RFC 6455 5.5.1
#[test]
fn a_close_frame_ends_the_stream_behind_the_packets_before_it() {
    for (payload, code) in [(&b""[..], 1000), (b"\x03\xE9bye", 1001), (b"\x0F\xA0", 4000)] {
        let mut peer = Peer::new(true);
        let close = framed(Opcode::Close, payload);
        peer.script.says(&[framed(Opcode::Binary, &packet(1)), close, framed(Opcode::Binary, &packet(2))].concat());
        assert_eq!(frame_end(peer.read()), FrameEnd { code, what: "" });
        assert_eq!(peer.seen.packets, [packet(1)]);
    }
}

/// [MQTT-6.0.0-1], RFC 6455 5.1
#[test]
fn what_is_no_binary_frame_of_a_client_ends_the_stream() {
    let mut unmasked = Vec::new();
    ws::frame(&mut unmasked, Opcode::Binary, &packet(1), None);
    for (bytes, code) in [(framed(Opcode::Text, b"{}"), 1003), (unmasked, 1002), (b"GET / HTTP/1.1".to_vec(), 1002)] {
        let mut peer = Peer::new(true);
        peer.script.says(&bytes);
        assert_eq!(frame_end(peer.read()).code, code);
        assert!(peer.seen.packets.is_empty());
    }
}

#[test]
fn a_close_frame_that_came_with_the_first_packet_is_seen_by_the_next_handler() {
    let mut peer = Peer::new(true);
    let stream = [framed(Opcode::Binary, &[packet(1), packet(2)].concat()), framed(Opcode::Close, b"\x03\xE9")];
    peer.seen.stop = Some(1);
    peer.script.says(&stream.concat());
    assert!(matches!(peer.read(), Poll::Ready(Err(ReadError::Handled(Stop::Taken)))));
    peer.seen = Recorder::default();
    let fed = peer.inlet.feed(&[], LIMITS, &mut peer.seen);
    assert!(matches!(fed, Err(ReadError::Frame(FrameEnd { code: 1001, .. }))), "{fed:?}");
    assert_eq!(peer.seen.packets, [packet(2)]);
}

/// However a handler takes it, packet by packet or all at once, with no byte read twice and no memory kept.
#[test]
fn a_handler_that_pauses_goes_on_where_it_was_before_anything_is_read() {
    for websocket in [false, true] {
        let packets = [packet(1), packet(2), packet(3), packet(40_000), packet(4)];
        let stream = packets.concat();
        let stream = if websocket { framed(Opcode::Binary, &stream) } else { stream };
        let mut peer = Peer::new(websocket);
        peer.script.says(&stream[..50]);
        peer.script.says(&stream[50..]);
        let mut seen = Vec::new();
        let mut paused = 0;
        loop {
            peer.seen = Recorder { stop: Some(1), stops: Stop::Pause, ..Recorder::default() };
            match peer.read() {
                Poll::Pending => break,
                Poll::Ready(Err(ReadError::Handled(Stop::Pause))) => paused += 1,
                Poll::Ready(Ok(Read::More)) => {}
                other => panic!("{other:?}"),
            }
            assert!(peer.seen.packets.len() <= 1);
            assert_eq!(peer.inlet.tail.capacity(), peer.inlet.tail.len());
            seen.append(&mut peer.seen.packets);
        }
        assert_eq!(seen, packets);
        assert_eq!((paused, peer.inlet.tail.capacity()), (5, 0));
    }
}

#[test]
fn a_close_frame_behind_a_pause_is_seen_at_the_end() {
    let mut peer = Peer::new(true);
    let frames = [framed(Opcode::Binary, &[packet(1), packet(2)].concat()), framed(Opcode::Close, b"\x03\xE9")];
    peer.script.says(&frames.concat());
    for count in 1..=2 {
        peer.seen.stop = Some(count);
        peer.seen.stops = Stop::Pause;
        assert!(matches!(peer.read(), Poll::Ready(Err(ReadError::Handled(Stop::Pause)))));
    }
    assert_eq!(frame_end(peer.read()), FrameEnd { code: 1001, what: "" });
    assert_eq!(peer.seen.packets, [packet(1), packet(2)]);
}
