//! MQTT over WebSocket, in bytes: the handshake (RFC 6455 4.2), frames in every shape (5), control frames (5.5), and
//! the sub-protocol of MQTT 5.0 section 6.

mod harness;

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use harness::*;
use wigwag::wire::ws::{self, FrameHeader};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const UPGRADE: &str = "Upgrade: websocket";
const CONNECTION: &str = "Connection: keep-alive, Upgrade";
const VERSION: &str = "Sec-WebSocket-Version: 13";
const PROTOCOL: &str = "Sec-WebSocket-Protocol: mqtt";

/// Status, head in small letters, and body of the answer to a request with these headers.
fn handshake(broker: &Broker, line: &str, headers: &[&str]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(broker.address(Transport::WebSocket)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n", headers.join("\r\n"));
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut head = String::new();
    let mut byte = [0];
    while !head.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0].into());
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| {
        let length: usize = length.parse().expect("a number");
        length
    });
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body");
    (head[9..12].parse().expect("a status"), head, String::from_utf8(body).expect("text"))
}

/// [MQTT-6.0.0-3], [MQTT-6.0.0-4]
#[test]
fn the_sub_protocol_is_mqtt() {
    let broker = Broker::start();
    let with = |protocol: &str| handshake(&broker, "GET /mqtt", &[UPGRADE, CONNECTION, KEY, VERSION, protocol]);
    for offered in ["mqtt", "mqttv3.1, mqtt", "mqtt,mqttv3.1", "chat\r\nSec-WebSocket-Protocol: mqtt"] {
        let (status, head, _) = with(&format!("Sec-WebSocket-Protocol: {offered}"));
        assert_eq!(status, 101, "{offered}: {head}");
        assert!(head.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{head}");
        assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    }
    for other in ["Sec-WebSocket-Protocol: mqttv3.1", "Sec-WebSocket-Protocol: mqtt5", "X-None: offered"] {
        let (status, head, body) = with(other);
        assert_eq!(status, 400, "{other}");
        assert!(head.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "it says which one: {head}");
        assert!(body.contains("`mqtt`"), "{body}");
    }
}

#[test]
fn a_handshake_that_is_none_is_refused_with_a_reason() {
    let broker = Broker::start();
    let cases: [(u16, &str, &str, &[&str]); 8] = [
        (426, "no upgrade", "GET /mqtt", &[]),
        (426, "another method", "POST /mqtt", &[UPGRADE, CONNECTION, KEY, VERSION, PROTOCOL]),
        (426, "another protocol", "GET /mqtt", &["Upgrade: h2c", CONNECTION, KEY, VERSION, PROTOCOL]),
        (426, "an old version", "GET /mqtt", &[UPGRADE, CONNECTION, KEY, "Sec-WebSocket-Version: 8", PROTOCOL]),
        (426, "no version", "GET /mqtt", &[UPGRADE, CONNECTION, KEY, PROTOCOL]),
        (400, "no connection header", "GET /mqtt", &[UPGRADE, KEY, VERSION, PROTOCOL]),
        (400, "no key", "GET /mqtt", &[UPGRADE, CONNECTION, VERSION, PROTOCOL]),
        (400, "a short key", "GET /mqtt", &[UPGRADE, CONNECTION, "Sec-WebSocket-Key: YWJj", VERSION, PROTOCOL]),
    ];
    for (expected, what, line, headers) in cases {
        let (status, head, body) = handshake(&broker, line, headers);
        assert_eq!(status, expected, "{what}");
        assert!(expected != 426 || head.contains("\r\nsec-websocket-version: 13\r\n"), "{what}: {head}");
        assert!(!body.is_empty(), "{what}");
    }
    assert_eq!(handshake(&broker, "GET /mqtt/", &[UPGRADE, CONNECTION, KEY, VERSION, PROTOCOL]).0, 404);
}

/// Behind a proxy that sees no body there (or another one), what follows would be somebody else's request.
#[test]
fn a_handshake_with_a_body_is_refused() {
    let broker = Broker::start();
    let with = |more: &str| handshake(&broker, "GET /mqtt", &[UPGRADE, CONNECTION, KEY, VERSION, PROTOCOL, more]);
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Content-Length: 38\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost",
        "Transfer-Encoding: chunked\r\n\r\n0",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0",
    ] {
        let (status, head, answer) = with(body);
        assert_eq!(status, 400, "{body}: {head}");
        assert_eq!(answer, "a WebSocket handshake has no body\n", "{body}");
    }
    // Refused by the HTTP server itself, without a sentence.
    for body in ["Content-Length: -1", "Content-Length: 0\r\nContent-Length: 5", "Transfer-Encoding: identity"] {
        assert_eq!(with(body).0, 400, "{body}");
    }
    assert_eq!(with("Content-Length: 0").0, 101);
}

/// RFC 9112 3.2: with a host that is none, a request could be anybody's.
#[test]
fn a_request_without_a_host_is_refused() {
    let broker = Broker::start();
    let status = |target: &str, hosts: &[u8]| {
        let mut stream = TcpStream::connect(broker.address(Transport::WebSocket)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let more = [UPGRADE, CONNECTION, KEY, VERSION, PROTOCOL].join("\r\n");
        let request = [format!("GET {target} HTTP/1.1\r\n").as_bytes(), hosts, more.as_bytes(), b"\r\n\r\n"].concat();
        stream.write_all(&request).expect("it reads");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    let bad: [&[u8]; 6] = [
        b"Host: local\xFFhost\r\n",
        "Host: éxample\r\n".as_bytes(),
        b"Host: \r\n",
        b"Host: evil@localhost\r\n",
        b"Host: localhost\r\nHost: evil.example\r\n",
        b"",
    ];
    for target in ["/mqtt", "/", "/metrics"] {
        for hosts in bad {
            assert_eq!(status(target, hosts), "400", "{target} {}", String::from_utf8_lossy(hosts));
        }
        assert_eq!(status(target, b"Host: evil.example\r\n"), "403", "{target}");
    }
    assert_eq!(status("/mqtt", b"Host: localhost:8080\r\n"), "101");
    assert_eq!(status("/healthz", b"Host: 127.0.0.1\r\n"), "200");
}

/// Its frames would be without compression, so it must not be told that they are.
#[test]
fn compression_is_not_negotiated() {
    let broker = Broker::start();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
    let (status, head, _) = handshake(&broker, "GET /mqtt", &[UPGRADE, CONNECTION, KEY, VERSION, PROTOCOL, offer]);
    assert_eq!(status, 101);
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

#[test]
fn connect_behind_the_handshake_in_one_segment() {
    let broker = Broker::start();
    let mut stream = TcpStream::connect(broker.address(Transport::WebSocket)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let head = ["GET /mqtt HTTP/1.1\r\nHost: localhost", UPGRADE, CONNECTION, KEY, VERSION, PROTOCOL].join("\r\n");
    let mut bytes = format!("{head}\r\n\r\n").into_bytes();
    bytes.extend(frame(true, Opcode::Ping, b"first"));
    bytes.extend(frame(true, Opcode::Binary, &Client::v311("eager").encode()));
    stream.write_all(&bytes).expect("it reads");
    let mut answer = Vec::new();
    let pong_and_connack = b"\x8A\x05first\x82\x04\x20\x02\x00\x00";
    while !answer.ends_with(pong_and_connack) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&answer)));
        answer.push(byte[0]);
    }
}

/// A frame of a client, which may be one of several of a message.
fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ws::frame(&mut bytes, opcode, payload, Some([0xA5, 0x5A, 0xFF, 1]));
    bytes[0] &= if fin { 0xFF } else { 0x7F };
    bytes
}

/// Reads to the end and returns the code of the close frame in front of it.
#[track_caller]
fn close_code(mut connection: Connection) -> Option<u16> {
    while connection.next(PATIENCE).is_ok() {}
    assert_eq!(connection.socket.read(PATIENCE), harness::Progress::End, "it is still open");
    connection.socket.closed.expect("a close frame")
}

/// What ends a connection, the code that is told, before CONNECT and after.
#[test]
fn what_is_no_websocket_ends_with_its_code() {
    let broker = Broker::start();
    let mut unmasked = Vec::new();
    ws::frame(&mut unmasked, Opcode::Binary, &[0xC0, 0], None);
    let mut huge = FrameHeader::new(Opcode::Binary, 1 << 40, Some([0; 4])).to_vec();
    huge.truncate(10); // the mask need not come
    let with_bits = |first: u8| [&[first][..], &frame(true, Opcode::Binary, b"")[1..]].concat();
    let cases = [
        (1003, "a text frame", frame(true, Opcode::Text, b"hello")), // [MQTT-6.0.0-1]
        (1003, "the beginning of a text message", frame(false, Opcode::Text, b"hel")),
        (1002, "an unmasked frame", unmasked), // 5.1
        (1009, "a frame of a terabyte", huge),
        (1002, "a fragmented control frame", frame(false, Opcode::Ping, b"")), // 5.5
        (1002, "a control frame of 126 bytes", frame(true, Opcode::Ping, &[0; 126])),
        (1002, "a continuation of nothing", frame(true, Opcode::Continuation, b"")), // 5.4
        (
            1002,
            "a message within a message",
            [frame(false, Opcode::Binary, b""), frame(true, Opcode::Binary, b"")].concat(),
        ),
        (1002, "a reserved bit", with_bits(0xC2)), // 5.2
        (1002, "a reserved opcode", with_bits(0x83)),
        (1002, "a close frame of one byte", frame(true, Opcode::Close, &[3])),
        (1002, "a close code that is not sent", frame(true, Opcode::Close, &1005_u16.to_be_bytes())),
        (1007, "a close reason that is no text", frame(true, Opcode::Close, &[3, 0xE8, 0xFF])),
    ];
    for (code, what, bytes) in cases {
        eprintln!("--- {what}"); // shown if the test fails
        let mut before = broker.raw(Version::V5, Transport::WebSocket);
        before.socket.send_raw(&bytes);
        assert_eq!(close_code(before), Some(code), "before CONNECT");

        let mut after = broker.connect(Client::v5("c").over(Transport::WebSocket));
        after.socket.send_raw(&bytes);
        assert_eq!(close_code(after), Some(code), "after CONNECT");

        // In one segment with CONNECT, which is answered.
        let mut with = broker.raw(Version::V5, Transport::WebSocket);
        with.socket.send_raw(&[frame(true, Opcode::Binary, &Client::v5("c").encode()), bytes].concat());
        assert_eq!(with.expect_connack().reason, 0);
        assert_eq!(close_code(with), Some(code), "with CONNECT");
    }
    broker.wait_for_sessions(0);
    assert_eq!(broker.metric("wigwag_connection_panics_total"), 0);
}

/// 5.5.1: the answer to a close frame repeats its code.
#[test]
fn a_close_frame_is_answered() {
    let broker = Broker::start();
    let connected = || broker.connect(Client::v5("c").over(Transport::WebSocket));
    let raw = || broker.raw(Version::V5, Transport::WebSocket);
    for connection in [&connected as &dyn Fn() -> Connection, &raw] {
        for code in [1000, 1001, 4711] {
            let mut connection = connection();
            let payload = [&u16::to_be_bytes(code)[..], "gone".as_bytes()].concat();
            connection.socket.send_frame(Opcode::Close, &payload);
            assert_eq!(close_code(connection), Some(code));
        }
        let mut connection = connection();
        connection.socket.send_frame(Opcode::Close, &[]);
        assert!(matches!(close_code(connection), None | Some(1000)));
    }
    // As browsers do it: DISCONNECT, and the close frame at once.
    let mut connection = connected();
    connection.send_disconnect(0, None);
    connection.socket.send_frame(Opcode::Close, &1000_u16.to_be_bytes());
    assert_eq!(close_code(connection), Some(1000));
    broker.wait_for_metric("wigwag_connections_ended_total{how=\"disconnected\"}", 1);
}

/// 5.5.2, and a will is sent for who closes without DISCONNECT.
#[test]
fn a_close_frame_is_no_disconnect() {
    let broker = Broker::start();
    let mut watcher = broker.connect(Client::v5("w"));
    watcher.subscribe("gone", 1);
    let mut connection =
        broker.connect(Client::v5("c").over(Transport::WebSocket).will(Message::new("gone", "c").qos(1)));
    connection.socket.send_frame(Opcode::Close, &1001_u16.to_be_bytes());
    assert_eq!(watcher.expect_message().text(), "c");
    assert_eq!(close_code(connection), Some(1001));
}

/// What the broker says when it ends a connection: DISCONNECT, then a close frame.
#[test]
fn a_disconnect_is_followed_by_a_close_frame() {
    let broker = Broker::start();
    let mut first = broker.connect(Client::v5("c").over(Transport::WebSocket));
    let mut second = broker.connect(Client::v5("c").over(Transport::WebSocket));
    first.expect_disconnect(0x8E);
    assert_eq!(first.socket.closed, Some(Some(1000)));
    second.send_bytes(&[0x30, 0]); // a PUBLISH without a topic
    second.expect_disconnect(0x81);
    assert_eq!(second.socket.closed, Some(Some(1000)));
    let mut refused = broker.raw(Version::V5, Transport::WebSocket);
    Client::v5("c").user_name("not/a/name").send(&mut refused);
    assert_eq!(refused.expect_connack().reason, 0x86);
    refused.expect_closed();
    assert_eq!(refused.socket.closed, Some(Some(1000)));
}

/// 5.4, 5.5.2, [MQTT-6.0.0-2]
#[test]
fn packets_lie_in_frames_in_any_way_and_pings_are_answered_between_them() {
    let broker = Broker::start();
    let mut subscriber = broker.connect(Client::v5("s"));
    subscriber.subscribe("t", 0);
    let mut packets = Client::v5("c").encode();
    for number in 0..10 {
        Message::new("t", format!("{number} {}", "x".repeat(number * 40))).encode(&mut packets, Version::V5);
    }
    for size in [1, 2, 3, 7, 130, packets.len()] {
        for one_message in [false, true] {
            let mut connection = broker.raw(Version::V5, Transport::WebSocket);
            let mut pings = 0;
            let parts: Vec<_> = packets.chunks(size).collect();
            for (index, part) in parts.iter().enumerate() {
                let continues = one_message && index > 0;
                let opcode = if continues { Opcode::Continuation } else { Opcode::Binary };
                let fin = !one_message || index + 1 == parts.len();
                let mut bytes = frame(fin, opcode, part);
                if index % 16 == 0 {
                    bytes.extend(frame(true, Opcode::Ping, b"between"));
                    bytes.extend(frame(true, Opcode::Pong, b"nobody asked"));
                    pings += 1;
                }
                // In segments that have nothing to do with frames.
                bytes.chunks(5).for_each(|segment| connection.socket.send_raw(segment));
            }
            assert_eq!(connection.expect_connack().reason, 0);
            for number in 0..10 {
                let message = subscriber.expect_publish();
                assert!(message.text().starts_with(&format!("{number} ")), "{message:?}");
            }
            connection.ping();
            // Of pings that come together before CONNECT not all need be answered.
            assert!((1..=pings).contains(&connection.socket.pongs), "{pings}, {}", connection.socket.pongs);
            connection.disconnect();
        }
    }
}

/// However small the pieces, a packet has its limit.
#[test]
fn endless_fragments_of_one_packet_end_at_the_packet_limit() {
    let broker = Broker::start_with(|config| config.limits.packet_before_connect = 1024);
    let header = [0x10, 0xFF, 0xFF, 0x7F]; // 2 MiB, more than CONNECT may have
    let mut before = broker.raw(Version::V5, Transport::WebSocket);
    before.socket.send_raw(&frame(false, Opcode::Binary, &header));
    for _ in 0..100 {
        before.socket.send_raw(&frame(false, Opcode::Continuation, b"x"));
    }
    before.expect_closed();

    let mut after = broker.connect(Client::v5("c").over(Transport::WebSocket));
    after.socket.send_raw(&frame(false, Opcode::Binary, &[0x30, 0xFF, 0xFF, 0x7F]));
    for _ in 0..100 {
        after.socket.send_raw(&frame(false, Opcode::Continuation, b"x"));
    }
    after.expect_disconnect(0x95);
}

/// A frame may be as large as the configuration says, and no larger.
#[test]
fn a_frame_has_its_limit() {
    let broker = Broker::start_with(|config| {
        config.limits.frame = 1000;
        config.limits.packet = 10_000;
    });
    let mut client = broker.connect(Client::v5("c").over(Transport::WebSocket));
    client.subscribe("t", 0);
    let mut packet = Vec::new();
    Message::new("t", [b'x'; 5000]).encode(&mut packet, Version::V5);
    packet.chunks(1000).for_each(|part| client.send_bytes(part));
    assert_eq!(client.expect_publish().payload.len(), 5000);
    client.send_bytes(&packet[..1001]);
    assert_eq!(close_code(client), Some(1009));
}
