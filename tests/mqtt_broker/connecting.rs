//! CONNECT and CONNACK (3.1, 3.2), keep alive, AUTH (3.15, 4.12), DISCONNECT (3.14).

use std::time::{Duration, Instant};

use crate::harness::*;

/// What the broker announces (3.2.2.3): what is absent has the default that a client assumes.
#[test]
fn connack_announces_limits() {
    let broker = Broker::start_with(|config| {
        config.limits.inflight = 33;
        config.limits.packet = 100_000;
        config.limits.topic_aliases = 5;
    });
    let client = broker.connect(Client::v5("c").expiry(60));
    assert_eq!(
        client.connack,
        ConnAck {
            receive_maximum: Some(33),
            maximum_packet: Some(100_000),
            topic_alias_maximum: Some(5),
            ..ConnAck::default()
        }
    );
    assert_eq!(broker.connect(Client::v311("c")).connack, ConnAck::default());
}

/// [MQTT-3.1.0-1]: a first packet other than CONNECT ends the connection, without an answer.
#[test]
fn the_first_packet_is_connect() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let packets: [&[u8]; 6] = [
            &[0xC0, 0],
            &[0xE0, 0],
            &[0x30, 4, 0, 1, b't', 0],
            &[0x82, 6, 0, 1, 0, 1, b't', 1],
            &[0x20, 2, 0, 0],
            b"GET / HTTP/1.1\r\n\r\n",
        ];
        for packet in packets {
            let mut client = broker.raw(version, transport);
            client.send_bytes(packet);
            client.expect_closed();
        }
        assert_eq!(broker.running().held(), Default::default());
    });
}

/// [MQTT-3.1.0-2]
#[test]
fn a_second_connect_ends_the_connection() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        Client::new(version, "c").send(&mut client);
        client.expect_disconnect(0x82);
    });
}

/// [MQTT-3.1.2-2]: an unknown protocol level is refused in the way of the version nearest to it, and closed.
#[test]
fn unknown_protocol_levels_are_refused() {
    let broker = Broker::start();
    for transport in TRANSPORTS {
        // MQTT 3.1 calls itself MQIsdp, level 3.
        let mut old = broker.raw(Version::V311, transport);
        old.send_bytes(b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c");
        assert_eq!(old.expect_connack().reason, 1);
        old.expect_closed();

        let mut ancient = broker.raw(Version::V311, transport);
        ancient.send_bytes(b"\x10\x0D\x00\x04MQTT\x03\x02\x00\x3C\x00\x01c");
        assert_eq!(ancient.expect_connack().reason, 1);
        ancient.expect_closed();

        let mut future = broker.raw(Version::V5, transport);
        future.send_bytes(b"\x10\x0E\x00\x04MQTT\x06\x02\x00\x3C\x00\x00\x01c");
        assert_eq!(future.expect_connack().reason, 0x84);
        future.expect_closed();
    }
}

/// [MQTT-3.1.2-1]: what does not call itself MQTT is told that it is not understood, and closed.
#[test]
fn other_protocol_names_are_refused() {
    let broker = Broker::start();
    let mut other = broker.raw(Version::V311, Transport::Tcp);
    other.send_bytes(b"\x10\x0D\x00\x04MQTX\x04\x02\x00\x3C\x00\x01c");
    assert_eq!(other.expect_connack().reason, 1);
    other.expect_closed();
}

/// A malformed CONNECT of 5.0 is told so [MQTT-3.1.4-1]; one of 3.1.1 has no answer (3.2.2.3): reserved flag
/// [MQTT-3.1.2-3], a password without a user name in 3.1.1 [MQTT-3.1.2-22], a will QoS of 3 [MQTT-3.1.2-12].
#[test]
fn malformed_connects_are_refused() {
    let broker = Broker::start();
    for flags in [0x03, 0x42, 0x1E, 0x0A] {
        let mut v311 = broker.raw(Version::V311, Transport::Tcp);
        v311.send_bytes(&[&b"\x10\x10\x00\x04MQTT\x04"[..], &[flags], b"\x00\x3C\x00\x01c\x00\x01x"].concat());
        v311.expect_closed();
    }
    for flags in [0x03, 0x1E, 0x0A] {
        let mut v5 = broker.raw(Version::V5, Transport::Tcp);
        v5.send_bytes(&[&b"\x10\x11\x00\x04MQTT\x05"[..], &[flags], b"\x00\x3C\x00\x00\x01c\x00\x01x"].concat());
        assert_eq!(v5.expect_connack().reason, 0x81);
        v5.expect_closed();
    }
}

/// [MQTT-3.1.3-5], [MQTT-3.1.3-6], [MQTT-3.1.3-7], [MQTT-3.2.2-16]
#[test]
fn a_client_without_an_id_is_given_one() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let first = broker.connect(Client::v5("").over(transport).clean(false).expiry(60));
        let second = broker.connect(Client::v5("").over(transport));
        let id = first.connack.assigned_client_id.clone().expect("an id");
        assert!(id.len() > 20 && second.connack.assigned_client_id != Some(id.clone()));
        // It is an id like another: its session can be resumed.
        first.disconnect();
        let again = broker.connect(Client::v5(&id).clean(false));
        assert!(again.present() && again.connack.assigned_client_id.is_none());
    }
}

/// [MQTT-3.1.3-7], [MQTT-3.1.3-8] of 3.1.1: without an id only a clean session.
#[test]
fn an_empty_id_of_3_1_1_needs_a_clean_session() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let refused = broker.connect_refused(Client::v311("").clean(false).over(transport));
        assert_eq!(refused.reason, 2);
        let mut first = broker.connect(Client::v311("").over(transport));
        let mut second = broker.connect(Client::v311("").over(transport));
        first.expect_nothing();
        second.expect_nothing();
    }
}

/// 3.1.3.1: a client id may be any string; one that is longer than the broker takes is refused [MQTT-3.1.3-8].
#[test]
fn client_ids_may_be_any_string_of_256_bytes() {
    let broker = Broker::start();
    for version in VERSIONS {
        for id in ["with space", "a/b/+/#", "é💡", "\u{FEFF}", &"x".repeat(256)] {
            broker.connect(Client::new(version, id)).disconnect();
        }
    }
    assert_eq!(broker.connect_refused(Client::v5(&"x".repeat(257))).reason, 0x85);
    assert_eq!(broker.connect_refused(Client::v311(&"x".repeat(257))).reason, 2);
}

/// A user name that cannot be one level of a topic is refused: 0x86, in 3.1.1 return code 4.
#[test]
fn bad_user_names_are_refused() {
    let broker = Broker::start();
    assert_eq!(broker.connect_refused(Client::v5("c").user_name("a/b")).reason, 0x86);
    assert_eq!(broker.connect_refused(Client::v311("c").user_name("a/b")).reason, 4);
    // A password without a user name is legal in 5.0 (3.1.2.9).
    broker.connect(Client::v5("c").password(b"secret"));
}

/// [MQTT-3.1.4-3]: the older connection is told 0x8E and closed; the newer one has the session.
#[test]
fn a_connection_with_the_same_id_takes_over() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        for clean in [true, false] {
            let client = Client::kept(version, "c").over(transport).user_name("alice");
            let mut first = broker.connect(client.clone());
            first.subscribe("t", 1);
            let mut second = broker.connect(client.clean(clean));
            first.expect_disconnect(0x8E);
            assert_eq!(second.present(), !clean);
            second.publish(Message::new("t", "m").qos(1));
            if !clean {
                second.expect_payloads(1);
            }
            second.expect_nothing();
            second.disconnect();
        }
    });
}

/// Another user's client id is not to be had: 0x85, in 3.1.1 return code 2; the older connection stays.
#[test]
fn another_user_cannot_take_over() {
    for version in VERSIONS {
        let broker = Broker::start();
        let mut alice = broker.connect(Client::kept(version, "c").user_name("alice"));
        alice.subscribe("t", 1);
        let mallory = || Client::new(version, "c").user_name("mallory");
        let reason = if version == Version::V5 { 0x85 } else { 2 };
        assert_eq!(broker.connect_refused(mallory()).reason, reason);
        alice.expect_nothing();
        alice.hang_up();
        broker.wait_for_connections(0);
        assert_eq!(broker.connect_refused(mallory()).reason, reason, "nor is the session that was left");
        assert!(broker.connect(Client::kept(version, "c").user_name("alice")).present());
    }
}

/// [MQTT-3.1.4-6]: nothing that stands behind a refused CONNECT is done.
#[test]
fn nothing_behind_a_refused_connect_is_processed() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::v5("s"));
        subscriber.subscribe("t", 0);
        let mut refused = broker.raw(version, transport);
        let mut bytes = Client::new(version, "c").user_name("a/b").encode();
        Message::new("t", "not to be seen").encode(&mut bytes, version);
        refused.send_bytes(&bytes);
        assert_ne!(refused.expect_connack().reason, 0);
        refused.expect_closed();
        subscriber.expect_nothing();
    });
}

/// Two connections that fight for an id: each in turn has it, and none is left over.
#[test]
fn many_take_overs_leave_one_session() {
    let broker = Broker::start();
    let clients: Vec<_> = (0..20)
        .map(|n| broker.connect(Client::kept(VERSIONS[n % 2], "c").user_name("u").over(TRANSPORTS[n / 2 % 2])))
        .collect();
    let mut last = clients.into_iter().next_back().expect("twenty");
    last.expect_nothing();
    broker.wait_for_connections(1);
    assert_eq!(broker.running().held().sessions, 1);
}

/// [MQTT-3.1.2-22]: after one and a half times the keep alive without a packet the connection is closed, with 0x8D; a
/// packet of any kind keeps it open [MQTT-3.1.2-20].
#[test]
fn a_silent_client_is_closed_after_one_and_a_half_keep_alives() {
    let broker = Broker::start();
    let clients: Vec<_> = VERSIONS
        .into_iter()
        .flat_map(|version| TRANSPORTS.map(|transport| (version, transport)))
        .map(|(version, transport)| {
            let id = format!("{version:?}{transport:?}");
            let start = Instant::now();
            let mut silent = broker.connect(Client::new(version, &id).over(transport).keep_alive(1));
            std::thread::spawn(move || {
                silent.expect_disconnect(0x8D);
                let after = start.elapsed();
                assert!((Duration::from_millis(1450)..Duration::from_millis(2400)).contains(&after), "{after:?}");
            })
        })
        .collect();
    let mut pinging = broker.connect(Client::v5("pinging").keep_alive(1));
    let mut publishing = broker.connect(Client::v311("publishing").keep_alive(1));
    let mut off = broker.connect(Client::v5("off").keep_alive(0)); // (3.1.2.10)
    for _ in 0..4 {
        pinging.ping();
        publishing.send_publish(Message::new("t", "m"));
        off.expect_silence(Duration::from_millis(700));
    }
    pinging.expect_nothing();
    publishing.expect_nothing();
    off.expect_nothing();
    clients.into_iter().for_each(|client| client.join().expect("closed in time"));
}

/// It takes a control packet [MQTT-3.1.2-22]: neither WebSocket pings nor half a packet count.
#[test]
fn what_is_no_packet_does_not_keep_alive() {
    let broker = Broker::start();
    let mut pings = broker.connect(Client::v5("ws").over(Transport::WebSocket).keep_alive(1));
    let mut halves = broker.connect(Client::v5("half").keep_alive(1));
    let mut bytes = Vec::new();
    Message::new("t", "never whole").encode(&mut bytes, Version::V5);
    let start = Instant::now();
    for byte in &bytes[..10] {
        pings.socket.send_frame(Opcode::Ping, b"");
        halves.send_bytes(&[*byte]);
        std::thread::sleep(Duration::from_millis(250)); // the pace of the client under test
    }
    pings.expect_disconnect(0x8D);
    halves.expect_disconnect(0x8D);
    assert!(start.elapsed() < Duration::from_millis(3200), "{:?}", start.elapsed());
}

/// [MQTT-3.2.2-21], [MQTT-3.2.2-22], [MQTT-3.1.2-21]: who asks for more than `session.keep_alive_max`, or for none, is
/// told, and held to it.
#[test]
fn the_server_keep_alive_is_announced_and_kept() {
    let broker = Broker::start_with(|config| config.session.keep_alive_max = Some(Duration::from_secs(1)));
    let within = broker.connect(Client::v5("within").keep_alive(1));
    assert_eq!(within.connack.server_keep_alive, None);
    let mut clients = [60, 0].map(|keep_alive| {
        let client = broker.connect(Client::v5(&format!("k{keep_alive}")).keep_alive(keep_alive));
        assert_eq!(client.connack.server_keep_alive, Some(1));
        client
    });
    clients.iter_mut().for_each(|client| {
        client.expect_disconnect(0x8D);
    });
    // 3.1.1 has no way to be told, and is held to its own.
    let mut v311 = broker.connect(Client::v311("c").keep_alive(60));
    v311.expect_silence(Duration::from_millis(200));
}

/// 4.12: no method is known here, so CONNECT with one is refused 0x8C.
#[test]
fn enhanced_authentication_is_refused() {
    let broker = Broker::start();
    assert_eq!(broker.connect_refused(Client::v5("c").authentication_method("SCRAM-SHA-1")).reason, 0x8C);
}

/// [MQTT-4.12.0-6], 4.12.1: AUTH without a method in CONNECT is a protocol error; in 3.1.1 there is no such packet.
#[test]
fn auth_without_a_method_ends_the_connection() {
    let broker = Broker::start();
    let mut v5 = broker.connect(Client::v5("5"));
    v5.send_bytes(&[0xF0, 2, 0x19, 0]);
    v5.expect_disconnect(0x82);
    let mut v311 = broker.connect(Client::v311("4"));
    v311.send_bytes(&[0xF0, 0]);
    v311.expect_closed();
}

/// [MQTT-3.14.4-1], [MQTT-3.14.4-2]: after DISCONNECT nothing is read, and the broker closes.
#[test]
fn nothing_is_read_behind_disconnect() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut subscriber = broker.connect(Client::new(version, "s"));
        subscriber.subscribe("t", 0);
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        let mut bytes = Vec::new();
        Message::new("t", "before").encode(&mut bytes, version);
        bytes.extend_from_slice(&[0xE0, 0]);
        Message::new("t", "behind").encode(&mut bytes, version);
        client.send_bytes(&bytes);
        client.expect_closed();
        assert_eq!(subscriber.expect_message().text(), "before");
        subscriber.expect_nothing();
    });
}

/// [MQTT-3.14.2-1]: a client says only why a client disconnects; every such reason ends the connection.
#[test]
fn disconnect_reasons_of_a_client() {
    let broker = Broker::start();
    for reason in [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        broker.connect(Client::v5("c")).disconnect_with(reason, None);
    }
    for reason in [0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x9C] {
        let mut client = broker.connect(Client::v5("c"));
        client.send_disconnect(reason, None);
        client.expect_disconnect(0x82);
    }
}

/// A limit that is reached is told: connections in all, and of one address (0x97, in 3.1.1 return code 3).
#[test]
fn a_full_broker_refuses_with_a_connack() {
    for per_address in [false, true] {
        let broker = Broker::start_with(|config| match per_address {
            true => config.limits.connections_per_address = Some(2),
            false => config.limits.connections = Some(2),
        });
        let first = broker.connect(Client::v5("1"));
        let _second = broker.connect(Client::v311("2").over(Transport::WebSocket));
        for transport in TRANSPORTS {
            assert_eq!(broker.connect_refused(Client::v5("3").over(transport)).reason, 0x97);
            assert_eq!(broker.connect_refused(Client::v311("3").over(transport)).reason, 3);
        }
        first.disconnect();
        broker.wait_for_connections(1);
        broker.wait_until("sockets of the refused are gone", |_| {
            let (mut connection, connack) = broker.connect_or_not(Client::v5("3"));
            (connack.reason == 0).then(|| connection.expect_nothing()).is_some()
        });
    }
}

/// 3.1.4: a CONNECT larger than `limits.packet_before_connect` is refused when its length is read, 0x95.
#[test]
fn a_connect_that_is_too_large_is_refused() {
    let broker = Broker::start_with(|config| config.limits.packet_before_connect = 512);
    for transport in TRANSPORTS {
        let large = |version| {
            let client = Client::new(version, "c").over(transport).user_name("u");
            client.password(&[b'x'; 600])
        };
        assert_eq!(broker.connect_refused(large(Version::V5)).reason, 0x95);
        let mut v311 = broker.raw(Version::V311, transport);
        large(Version::V311).send(&mut v311);
        v311.expect_closed();
    }
}

/// [MQTT-3.2.2-2], [MQTT-3.2.2-3], [MQTT-3.2.2-6]
#[test]
fn session_present_says_whether_there_was_a_session() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let kept = || Client::kept(version, "c").over(transport);
        let connect_and_go = |client| {
            let client = broker.connect(client);
            let present = client.present();
            client.disconnect();
            present
        };
        assert!(!connect_and_go(kept()), "there was none");
        assert!(connect_and_go(kept()));
        assert!(!connect_and_go(kept().clean(true)), "it was discarded");
        if version == Version::V5 {
            assert!(connect_and_go(kept()), "a clean start may leave a session (3.1.2.4)");
        } else {
            assert!(!connect_and_go(kept()), "a clean session leaves none [MQTT-3.1.2-6]");
        }
        assert!(connect_and_go(kept().expiry(0)));
        if version == Version::V5 {
            assert!(!connect_and_go(kept()), "its expiry interval was 0 [MQTT-3.1.2-23]");
        }
    });
}
