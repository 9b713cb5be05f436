//! Packets in a byte stream: split, packed, and in WebSocket frames (6).

use std::time::Duration;

use crate::harness::*;

/// What a client sends in one go: CONNECT, SUBSCRIBE, PUBLISH to itself, PINGREQ.
fn conversation(version: Version) -> Vec<u8> {
    let mut bytes = Client::new(version, "c").encode();
    let subscribe: &[u8] = match version {
        Version::V311 => &[0x82, 6, 0, 1, 0, 1, b't', 1],
        Version::V5 => &[0x82, 7, 0, 1, 0, 0, 1, b't', 1],
    };
    bytes.extend_from_slice(subscribe);
    Message::new("t", "hello").qos(1).id(2).encode(&mut bytes, version);
    bytes.extend_from_slice(&[0xC0, 0]);
    bytes
}

fn expect_conversation(client: &mut Connection) {
    assert_eq!(client.expect_connack().reason, 0);
    assert_eq!(client.expect_suback(1).codes, [1]);
    assert_eq!(client.expect_puback(2).reason, 0);
    client.expect_pingresp();
    assert_eq!(client.expect_message().text(), "hello");
    client.expect_nothing();
}

/// Packets do not depend on how the stream is cut (4.2); behind CONNECT a client need not wait for CONNACK (3.1.4).
#[test]
fn packets_may_be_packed_into_one_write() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.raw(version, transport);
        client.send_bytes(&conversation(version));
        expect_conversation(&mut client);
    });
}

/// The same, and over WebSocket each byte in a frame of its own [MQTT-6.0.0-2].
#[test]
fn packets_may_come_byte_by_byte() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.raw(version, transport);
        for byte in conversation(version) {
            client.send_bytes(&[byte]);
        }
        expect_conversation(&mut client);
    });
}

/// [MQTT-6.0.0-2]: a packet may span fragments of a message, with control frames between them, and empty frames.
#[test]
fn packets_may_span_fragments() {
    for version in VERSIONS {
        let broker = Broker::start();
        let mut client = broker.raw(version, Transport::WebSocket);
        let bytes = conversation(version);
        let (a, rest) = bytes.split_at(9);
        let (b, c) = rest.split_at(20);
        let frame = |first: u8, payload: &[u8]| {
            let mut frame = vec![first, 0x80 | payload.len() as u8, 0, 0, 0, 0];
            frame.extend_from_slice(payload);
            frame
        };
        for (first, payload) in [(0x02, a), (0x89, &b"ping"[..]), (0x00, b), (0x00, b""), (0x80, c), (0x82, b"")] {
            client.socket.send_raw(&frame(first, payload));
        }
        expect_conversation(&mut client);
        assert_eq!(client.socket.pongs, 1);
    }
}

/// [MQTT-6.0.0-1]: a text frame ends the connection, before and after CONNECT; its sender is told by close code 1003.
#[test]
fn text_frames_are_refused() {
    let broker = Broker::start();
    let mut early = broker.raw(Version::V5, Transport::WebSocket);
    early.socket.send_frame(Opcode::Text, &Client::v5("c").encode());
    early.expect_closed();
    assert_eq!(early.socket.closed, Some(Some(1003)));

    let mut late = broker.connect(Client::v5("c").over(Transport::WebSocket));
    late.socket.send_frame(Opcode::Text, &[0xC0, 0]);
    late.expect_closed();
    assert_eq!(late.socket.closed, Some(Some(1003)));
}

/// RFC 6455 7.4.1: a frame larger than `limits.frame` ends the connection with 1009, when its length is read.
#[test]
fn frames_are_bounded() {
    let broker = Broker::start_with(|config| {
        config.limits.frame = 1024;
        config.limits.packet = 1024;
    });
    let mut client = broker.connect(Client::v5("c").over(Transport::WebSocket));
    client.send_bytes(&[0xC0, 0].repeat(512));
    for _ in 0..512 {
        client.expect_pingresp();
    }
    client.socket.send_raw(&[0x82, 0xFE, 0x04, 0x01, 0, 0, 0, 0]);
    client.expect_closed();
    assert_eq!(client.socket.closed, Some(Some(1009)));
}

/// RFC 6455 5.1: a frame of a client without a mask ends the connection.
#[test]
fn unmasked_frames_are_refused() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c").over(Transport::WebSocket));
    client.socket.send_raw(&[0x82, 2, 0xC0, 0]);
    client.expect_closed();
    assert_eq!(client.socket.closed, Some(Some(1002)));
}

/// RFC 6455 5.5: pings are answered, also before CONNECT; a close frame is answered by a close frame.
#[test]
fn control_frames_are_answered() {
    let broker = Broker::start();
    let mut client = broker.raw(Version::V5, Transport::WebSocket);
    client.socket.send_frame(Opcode::Ping, b"early");
    Client::v5("c").send(&mut client);
    assert_eq!(client.expect_connack().reason, 0);
    client.socket.send_frame(Opcode::Ping, b"late");
    client.socket.send_frame(Opcode::Pong, b"nobody asked");
    client.ping();
    assert_eq!(client.socket.pongs, 2);
    client.socket.send_frame(Opcode::Close, &1000u16.to_be_bytes());
    client.expect_closed();
    assert_eq!(client.socket.closed, Some(Some(1000)));
}

/// [MQTT-6.0.0-3], [MQTT-6.0.0-4]: `mqtt` is agreed on where it is offered, whatever else is; without it there is no
/// WebSocket.
#[test]
fn the_sub_protocol_is_mqtt() {
    use std::io::{Read, Write};
    let broker = Broker::start();
    let answer = |offered: &str| {
        let address = broker.address(Transport::WebSocket);
        let mut stream = std::net::TcpStream::connect(address).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n"
        );
        stream.write_all(request.as_bytes()).expect("open");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        String::from_utf8(head).expect("ASCII").to_lowercase()
    };
    for offered in ["mqtt", "mqttv3.1, mqtt", "MQTT"] {
        let head = answer(&format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        assert!(head.starts_with("http/1.1 101 ") && head.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{head}");
    }
    for offered in ["Sec-WebSocket-Protocol: mqttv3.1\r\n", "Sec-WebSocket-Protocol: chat\r\n", ""] {
        let head = answer(offered);
        assert!(head.starts_with("http/1.1 400 ") && head.contains("\r\nsec-websocket-protocol: mqtt\r\n"), "{head}");
    }
}

/// An orderly DISCONNECT, and a CONNECT that is refused, end a WebSocket with a close frame (RFC 6455 7.1.1).
#[test]
fn websockets_end_with_a_close_frame() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c").over(Transport::WebSocket));
    client.send_disconnect(0, None);
    client.expect_closed();
    assert_eq!(client.socket.closed, Some(Some(1000)));

    let mut refused = broker.raw(Version::V311, Transport::WebSocket);
    Client::v311("").clean(false).send(&mut refused);
    assert_eq!(refused.expect_connack().reason, 2);
    refused.expect_closed();
    assert_eq!(refused.socket.closed, Some(Some(1000)));
}

/// A connection that says nothing is closed after `limits.connect_timeout` (3.1.4), one that began to speak as well.
#[test]
fn whoever_does_not_connect_in_time_is_closed() {
    let broker = Broker::start_with(|config| config.limits.connect_timeout = Duration::from_millis(200));
    for transport in TRANSPORTS {
        broker.raw(Version::V5, transport).expect_closed();
        let mut slow = broker.raw(Version::V5, transport);
        slow.send_bytes(&Client::v5("slow").encode()[..10]);
        slow.expect_closed();
    }
}

/// Bytes that are no packet end the connection with 0x81, those that break the protocol with 0x82 [MQTT-4.13.1-1]; what
/// stands before them is done.
#[test]
fn what_is_no_packet_ends_the_connection() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s"));
        subscriber.subscribe("t", 0);
        let cases: [(&[u8], u8); 7] = [
            (&[0x00, 0], 0x81),                         // packet type 0 (2.1.2)
            (&[0xC1, 0], 0x81),                         // reserved flags [MQTT-2.1.3-1]
            (&[0xC0, 0xFF, 0xFF, 0xFF, 0xFF], 0x81),    // a length of five bytes (1.5.5)
            (&[0x36, 5, 0, 1, b't', 0, 1], 0x81),       // QoS 3 [MQTT-3.3.1-4]
            (&[0x30, 5, 0, 3, b'a', b'/', b'#'], 0x81), // a wildcard in a topic name [MQTT-3.3.2-2]
            (&[0x80, 6, 0, 1, 0, 1, b't', 1], 0x81),    // SUBSCRIBE with flags 0 [MQTT-3.8.1-1]
            (&[0xD0, 0], 0x82),                         // a packet that only a server sends (2.1.2)
        ];
        for (bytes, reason) in cases {
            let mut client = broker.connect(Client::new(version, "c").over(transport));
            let mut packed = Vec::new();
            Message::new("t", "before").encode(&mut packed, version);
            packed.extend_from_slice(bytes);
            Message::new("t", "behind").encode(&mut packed, version);
            client.send_bytes(&packed);
            if version == Version::V5 {
                let received = client.receive();
                let Packet::Disconnect(disconnect) = received.packet() else { panic!("{bytes:02X?}: {received:?}") };
                assert_eq!(disconnect.reason.0, reason, "{bytes:02X?}");
            }
            client.expect_closed();
            assert_eq!(subscriber.expect_message().text(), "before", "{bytes:02X?}");
        }
        subscriber.expect_nothing();
    });
}

/// [MQTT-4.13.1-1], [MQTT-3.14.4-1]: a topic name that no string may be is malformed.
#[test]
fn strings_that_are_not_utf8_are_refused() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        // U+0000 [MQTT-1.5.4-2], a surrogate [MQTT-1.5.4-1], a byte that begins nothing, a cut sequence.
        for topic in [&b"a\0b"[..], b"\xED\xA0\x80", b"\xFF", b"a\xC3"] {
            let mut client = broker.connect(Client::new(version, "c").over(transport));
            let mut body = vec![0, topic.len() as u8];
            body.extend_from_slice(topic);
            body.extend_from_slice(if version == Version::V5 { &[0] } else { &[] });
            client.send_bytes(&[&[0x30, body.len() as u8], &body[..]].concat());
            client.expect_disconnect(0x81);
        }
    });
}

/// 1.5.4: any other character is legal in a topic, and U+FEFF stands for itself [MQTT-1.5.4-3]; topics are compared
/// by their bytes [MQTT-4.7.3-4].
#[test]
fn topics_may_hold_any_character() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        for topic in
            ["é", "e\u{301}", "\u{FEFF}bom", "bom", "💡/🛰", " ", "/", "a//b", "A", "a", "日本/語", "\u{10FFFF}"]
        {
            client.subscribe(topic, 1);
            client.publish(Message::new(topic, topic).qos(1));
            assert_eq!(client.expect_message().gist(), (topic, topic, 1, false));
        }
        // Each of them came once: none is equal to another.
        client.expect_nothing();
    });
}
