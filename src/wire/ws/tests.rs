//! Scripts of frames and what becomes of them.

use super::*;

const LIMITS: Limits = Limits { frame: 1 << 20, message: 1 << 20 };
const MASK: [u8; 4] = [0xA1, 0x02, 0x43, 0xF4];

/// A client's frame, whatever is wrong with it.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = FrameHeader::new(Opcode::Binary, payload.len(), Some(MASK)).to_vec();
    out[0] = first;
    let at = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[at..], MASK);
    out
}

/// What a server makes of a stream that arrives in pieces of `step` bytes.
fn read(role: Role, stream: &[u8], step: usize, limits: Limits) -> (Vec<u8>, Vec<Event>, Option<WsError>) {
    let mut deframer = Deframer::new(role);
    let (mut payload, mut events) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        // As in a worker's buffer: the payload that is kept lies in front of the bytes that come in.
        let mut buf = [&payload[..], piece].concat();
        let (mut start, mut write) = (payload.len(), payload.len());
        let end = buf.len();
        loop {
            let progress = deframer.deframe(&mut buf, start, end, write, &limits);
            (start, write) = (progress.start, progress.write);
            match progress.event {
                Some(Event::Failed(error)) => return (buf[..write].to_vec(), events, Some(error)),
                Some(event) => events.push(event),
                None => break,
            }
        }
        assert_eq!(start, end);
        buf.truncate(write);
        payload = buf;
    }
    (payload, events, None)
}

/// The error that a stream ends in, the same in one piece and byte by byte.
#[track_caller]
fn refused(stream: &[u8]) -> (u16, &'static str) {
    let error = read(Role::Server, stream, stream.len(), LIMITS).2.expect("an error");
    assert_eq!(read(Role::Server, stream, 1, LIMITS).2, Some(error));
    (error.code, error.clause)
}

fn ping(payload: &[u8]) -> Event {
    let mut control = ControlPayload::EMPTY;
    control.bytes[..payload.len()].copy_from_slice(payload);
    control.len = payload.len() as u8;
    Event::Ping(Box::new(control))
}

#[test]
fn small_between_two_reads() {
    assert!(size_of::<Deframer>() <= 32, "{}", size_of::<Deframer>());
}

#[test]
fn a_stream_comes_out_the_same_however_it_goes_in() {
    let long: Vec<u8> = (0..70_000u32).map(|n| (n * 7) as u8).collect();
    let stream = [
        raw(0x82, b"abc"),
        raw(0x02, b"de"),
        raw(0x89, b"in between"),
        raw(0x00, b""),
        raw(0x8A, b"unasked"),
        raw(0x80, b"f"),
        raw(0x82, b""),
        raw(0x82, &long[..126]),
        raw(0x89, b""),
        raw(0x82, &long),
        raw(0x88, b"\x03\xE8bye"),
        raw(0x82, b"after the end"),
    ]
    .concat();
    let payload = [b"abcdef", &long[..126], &long].concat();
    let events = vec![ping(b"in between"), Event::Pong, ping(b""), Event::Close(Some(1000))];
    for step in [1, 2, 3, 5, 7, 13, 64, 4096, stream.len()] {
        assert_eq!(read(Role::Server, &stream, step, LIMITS), (payload.clone(), events.clone(), None), "{step}");
    }
}

#[test]
fn a_server_s_frames_are_read_by_a_client() {
    let mut stream = [&FrameHeader::binary(300)[..], &[7; 300]].concat();
    ping_frame(&mut stream, b"there?");
    close_frame(&mut stream, 1001, "going away");
    let events = vec![ping(b"there?"), Event::Close(Some(1001))];
    for step in [1, 3, stream.len()] {
        assert_eq!(read(Role::Client, &stream, step, LIMITS), (vec![7; 300], events.clone(), None));
    }
    let masked = read(Role::Client, &raw(0x82, b"a"), 1, LIMITS).2;
    assert_eq!(masked.map(|error| error.code), Some(1002));
}

#[test]
fn what_the_rfc_forbids() {
    assert_eq!(refused(&[0x82, 0x01, 0xFF]), (1002, "RFC 6455 5.1"), "no mask");
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(refused(&raw(0x82 | bit, b"")), (1002, "RFC 6455 5.2"), "reserved bit {bit:#x}");
    }
    for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_eq!(refused(&raw(0x80 | opcode, b"")), (1002, "RFC 6455 5.2"), "opcode {opcode}");
    }
    assert_eq!(refused(&raw(0x80, b"a")), (1002, "RFC 6455 5.4"), "a continuation of nothing");
    assert_eq!(refused(&[raw(0x02, b"a"), raw(0x82, b"b")].concat()), (1002, "RFC 6455 5.4"));
    assert_eq!(refused(&[raw(0x02, b"a"), raw(0x80, b"b"), raw(0x80, b"c")].concat()), (1002, "RFC 6455 5.4"));
    for opcode in [8, 9, 10] {
        assert_eq!(refused(&raw(opcode, b"")), (1002, "RFC 6455 5.5"), "fragmented {opcode}");
        assert_eq!(refused(&raw(0x80 | opcode, &[0; 126])), (1002, "RFC 6455 5.5"), "long {opcode}");
    }
    assert_eq!(refused(&raw(0x81, b"text")), (1003, "MQTT-6.0.0-1"));
    assert_eq!(refused(&[raw(0x02, b"a"), raw(0x81, b"text")].concat()), (1002, "RFC 6455 5.4"));
}

#[test]
fn payload_before_a_failure_counts() {
    let stream = [raw(0x82, b"DISCONNECT"), raw(0x88, &1006u16.to_be_bytes()), raw(0x82, b"more")].concat();
    for step in [1, stream.len()] {
        let (payload, events, error) = read(Role::Server, &stream, step, LIMITS);
        assert_eq!(
            (&payload[..], &events[..], error.map(|error| error.code)),
            (&b"DISCONNECT"[..], &[][..], Some(1002))
        );
    }
}

#[test]
fn lengths_are_written_as_short_as_they_are() {
    assert_eq!(refused(&[0x82, 0xFE, 0, 125]), (1002, "RFC 6455 5.2"));
    assert_eq!(refused(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]), (1002, "RFC 6455 5.2"));
    assert_eq!(refused(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 1, 0, 0]), (1002, "RFC 6455 5.2"));
}

#[test]
fn what_is_announced_is_limited_before_it_comes() {
    assert_eq!(refused(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 1]), (1009, "RFC 6455 7.4.1"));
    assert_eq!(refused(&[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), (1009, "RFC 6455 7.4.1"));
    let limits = Limits { frame: 10, message: 15 };
    let code = |stream: &[u8]| read(Role::Server, stream, 1, limits).2.map(|error| error.code);
    assert_eq!(code(&raw(0x82, &[0; 11])), Some(1009));
    assert_eq!(code(&[raw(0x02, &[0; 10]), raw(0x00, &[0; 6])].concat()), Some(1009));
    assert_eq!(code(&[raw(0x02, &[0; 10]), raw(0x00, &[0; 5]), raw(0x80, &[0; 1])].concat()), Some(1009));
    assert_eq!(
        code(&[raw(0x02, &[0; 10]), raw(0x89, &[0; 125]), raw(0x80, &[0; 5]), raw(0x82, &[0; 10])].concat()),
        None
    );
}

#[test]
fn close_frames() {
    assert_eq!(read(Role::Server, &raw(0x88, b""), 1, LIMITS).1, [Event::Close(None)]);
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999u16] {
        assert_eq!(read(Role::Server, &raw(0x88, &code.to_be_bytes()), 1, LIMITS).1, [Event::Close(Some(code))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535u16] {
        assert_eq!(refused(&raw(0x88, &code.to_be_bytes())), (1002, "RFC 6455 7.4"), "{code}");
    }
    assert_eq!(refused(&raw(0x88, b"\x03")), (1002, "RFC 6455 5.5.1"));
    assert_eq!(refused(&raw(0x88, b"\x03\xE8\xFF")), (1007, "RFC 6455 5.5.1"));
    let mut out = Vec::new();
    close_frame(&mut out, 1008, &"é".repeat(100));
    assert_eq!(out.len(), 2 + 2 + 122);
}

#[test]
fn headers_to_send() {
    assert_eq!(&FrameHeader::binary(0)[..], [0x82, 0]);
    assert_eq!(&FrameHeader::binary(125)[..], [0x82, 125]);
    assert_eq!(&FrameHeader::binary(126)[..], [0x82, 126, 0, 126]);
    assert_eq!(&FrameHeader::binary(65_535)[..], [0x82, 126, 0xFF, 0xFF]);
    assert_eq!(&FrameHeader::binary(65_536)[..], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(&FrameHeader::new(Opcode::Binary, 1, Some(MASK))[..], [0x82, 0x81, 0xA1, 0x02, 0x43, 0xF4]);
}

#[test]
fn masks_go_on_where_they_stopped() {
    let plain: Vec<u8> = (0..100).collect();
    for split in 0..plain.len() {
        let mut whole = plain.clone();
        unmask(&mut whole, MASK);
        let mut parts = plain.clone();
        let (head, tail) = parts.split_at_mut(split);
        let next = unmask(head, MASK);
        unmask(tail, next);
        assert_eq!(whole, parts, "{split}");
        assert!(whole.iter().zip(&plain).enumerate().all(|(i, (w, p))| w ^ p == MASK[i % 4]));
    }
}
