//! Every limit, reached: who reaches it is told in the way of its version, nobody else notices, and what was given back
//! can be had again.

mod harness;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread::sleep,
    time::Duration,
};

use harness::*;

/// What 3.1.1 has in place of a reason.
fn suback_code(version: Version, reason: u8) -> u8 {
    if version == Version::V5 { reason } else { 0x80 }
}

/// The reason with which a publish is refused, which 3.1.1 is not told.
fn puback_code(version: Version, reason: u8) -> u8 {
    if version == Version::V5 { reason } else { 0 }
}

/// The answer to a CONNECT that finds no room.
fn full(version: Version) -> u8 {
    if version == Version::V5 { 0x97 } else { 3 }
}

fn refused(action: &str) -> String {
    format!("wigwag_refused_total{{action=\"{action}\"")
}

#[test]
fn the_queue_of_an_absent_client_is_bounded() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.queue_messages = 10);
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        let away = || {
            let mut subscriber = broker.connect(Client::kept(version, "s").over(transport));
            subscriber.subscribe("t", 1);
            subscriber.hang_up();
            broker.wait_for_metric("wigwag_connections_ended_total{how=\"lost\"}", 1);
        };
        let publish = |publisher: &mut Connection, count: usize| {
            for number in 0..count {
                assert_eq!(publisher.publish(Message::new("t", number.to_string()).qos(1)), 0);
            }
        };
        away();
        publish(&mut publisher, 10);
        publisher.publish(Message::new("t", "of QoS 0, which is not kept"));
        let mut back = broker.connect(Client::kept(version, "s").over(transport));
        assert!(back.present());
        assert_eq!(back.expect_payloads(10), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
        back.expect_nothing();

        back.hang_up();
        broker.wait_for_metric("wigwag_connections_ended_total{how=\"lost\"}", 2);
        publish(&mut publisher, 11);
        broker.wait_for_sessions(1);
        assert_eq!(broker.metric("wigwag_sessions_overflowed_total"), 1);
        let held = broker.running().held();
        assert_eq!((held.subscriptions, held.index_nodes, held.timers), (0, 0, 1), "{held:?}");
        assert!(!broker.connect(Client::kept(version, "s").over(transport)).present(), "it had to be ended");
    });
}

#[test]
fn no_more_sessions_are_kept_than_may_be() {
    let broker = Broker::start_with(|config| config.limits.sessions = 2);
    for id in ["a", "b", "c"] {
        broker.connect(Client::kept(Version::V5, id)).disconnect();
        broker.wait_until("its session has been judged", |running| running.connections() == 0);
    }
    broker.wait_for_sessions(2);
    assert_eq!(broker.metric(&refused("session")), 1);
    let first = broker.connect(Client::kept(Version::V5, "a"));
    assert!(first.present());
    // Its place is free while it is connected.
    broker.connect(Client::kept(Version::V5, "c")).disconnect();
    broker.wait_for_sessions(3);
    assert!(broker.connect(Client::kept(Version::V5, "c")).present());
}

/// A page that connects with another client id each time it is loaded, as MQTT.js does, and never a clean session.
#[test]
fn a_user_loses_its_own_oldest_session_and_nobody_elses() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| {
            config.limits.sessions = 10;
            config.limits.sessions_per_user = Some(3);
        });
        let keep = |id: &str, user: &str| {
            let connection = broker.connect(Client::kept(version, id).over(transport).user_name(user));
            let present = connection.present();
            connection.disconnect();
            broker.wait_for_connections(0);
            present
        };
        keep("bob's", "bob");
        for page in 0..30 {
            keep(&format!("page {page}"), if page % 2 == 0 { "alice" } else { "alice~phone" });
        }
        broker.wait_for_sessions(4);
        assert_eq!(broker.metric("wigwag_sessions_displaced_total{limit=\"user\"}"), 27);
        assert_eq!(broker.metric(&refused("session")), 0);
        assert!(keep("bob's", "bob") && keep("page 29", "alice~phone") && !keep("page 26", "alice"));
    });
}

/// Without a user name everybody is as many users as it has client ids.
#[test]
fn one_address_keeps_a_bounded_number_of_sessions() {
    let broker = Broker::start_with(|config| {
        config.limits.sessions = 1000;
        config.limits.sessions_per_address = Some(5);
    });
    for n in 0..50 {
        broker.connect(Client::kept(VERSIONS[n % 2], &format!("random {n}")).over(TRANSPORTS[n / 2 % 2])).disconnect();
        broker.wait_for_connections(0);
    }
    broker.wait_for_sessions(5);
    assert_eq!(broker.metric("wigwag_sessions_displaced_total{limit=\"address\"}"), 45);
    broker.wait_until("nothing of the others", |running| running.held().timers == 5);
}

#[test]
fn what_is_retained_is_bounded_in_messages() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.retained_messages = 2);
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        let mut retain = |topic: &str, payload: &str| client.publish(Message::new(topic, payload).qos(1).retain());
        let full = puback_code(version, 0x97);
        assert_eq!(retain("a", "1") % 0x10, 0);
        assert_eq!(retain("b", "1") % 0x10, 0);
        assert_eq!(retain("c", "1"), full);
        assert_eq!(retain("b", "2") % 0x10, 0, "another in its place");
        assert_eq!(broker.running().held().retained, 2);
        assert_eq!(broker.metric(&refused("publish")), 1);
        assert_eq!(retain("a", "") % 0x10, 0, "cleared");
        assert_eq!(retain("c", "1") % 0x10, 0);
        assert_eq!(retain("b", "") % 0x10, 0);
        assert_eq!(retain("c", "") % 0x10, 0);
        assert_eq!(broker.running().held(), wigwag::Held { sessions: 1, timers: 1, ..wigwag::Held::default() });
    });
}

#[test]
fn what_is_retained_is_bounded_in_bytes() {
    // Of each the name of its sender takes 14.
    let broker = Broker::start_with(|config| config.limits.retained_bytes = 1028);
    let mut client = broker.connect(Client::v5("c"));
    let mut retain = |topic: &str, size: usize| client.publish(Message::new(topic, vec![b'.'; size]).qos(1).retain());
    assert_eq!(retain("a", 600), 0x10);
    assert_eq!(retain("b", 600), 0x97);
    assert_eq!(retain("b", 300), 0x10);
    assert_eq!(retain("a", 900), 0x97);
    assert_eq!(retain("a", 100), 0x10, "less than what it replaces");
    assert_eq!(retain("b", 890), 0x10);
}

#[test]
fn a_session_has_as_many_subscriptions_as_it_may() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.subscriptions = 3);
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        let one = SubscribeOptions::new(QoS::AtLeastOnce);
        let codes = client.subscribe_all(&[("a", one), ("b/#", one), ("$share/g/c", one), ("d", one)], None);
        assert_eq!(codes, [1, 1, 1, suback_code(version, 0x97)]);
        assert_eq!(client.subscribe("a", 0), 0, "a filter that it has already");
        client.unsubscribe(&["a"]);
        assert_eq!(client.subscribe("d", 1), 1);
        assert_eq!(client.subscribe("e", 1), suback_code(version, 0x97));
        assert_eq!(broker.metric(&refused("subscribe")), 2);
        assert_eq!(broker.connect(Client::new(version, "other")).subscribe("e", 1), 1);
    });
}

#[test]
fn a_packet_names_a_bounded_number_of_filters() {
    let broker = Broker::start();
    let filters = vec![("a", SubscribeOptions::new(QoS::AtMostOnce)); 257];
    let mut client = broker.connect(Client::v5("c"));
    assert_eq!(client.subscribe_all(&filters[..256], None).len(), 256);
    client.send_subscribe(&filters, None);
    client.expect_disconnect(0x97);
}

#[test]
fn topics_and_filters_have_a_length_and_a_depth() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        let levels = |count: usize| vec!["l"; count].join("/");
        for (good, bad) in [(levels(32), levels(33)), ("x".repeat(1024), "x".repeat(1025)), (levels(2), levels(10_000))]
        {
            assert_eq!(client.subscribe(&good, 1), 1);
            assert_eq!(client.subscribe(&bad, 1), suback_code(version, 0x8F));
            client.send_publish(Message::new(&bad, "a QoS 0 message is dropped"));
            assert_eq!(client.publish(Message::new(&bad, "").qos(1)), puback_code(version, 0x90));
            assert_eq!(client.publish(Message::new(&bad, "").qos(2)), puback_code(version, 0x90));
            assert_eq!(client.publish(Message::new(&good, "m").qos(1)), 0);
            assert_eq!(client.expect_message().topic, good);
            assert_eq!(client.unsubscribe(&[&good]).len(), if version == Version::V5 { 1 } else { 0 });
        }
        assert_eq!(broker.metric(&refused("publish")), 9);
        assert_eq!(broker.running().held().index_nodes, 0);
        let will = Message::new(&levels(33), "");
        let code = if version == Version::V5 { 0x90 } else { 5 };
        assert_eq!(broker.connect_refused(Client::new(version, "w").over(transport).will(will)).reason, code);
    });
}

#[test]
fn user_properties_are_bounded_wherever_they_stand() {
    let broker = Broker::start();
    let with = |count: usize| (0..count).fold(Message::new("t", ""), |message, n| message.user("k", &n.to_string()));
    let mut client = broker.connect(Client::v5("c"));
    client.subscribe("t", 0);
    assert_eq!(client.publish(with(32).qos(1)), 0);
    assert_eq!(client.expect_message().user.len(), 33, "and the sender's name");
    client.send_publish(with(33));
    client.expect_disconnect(0x97);

    let mut large = broker.connect(Client::v5("c"));
    large.send_publish(with(2000).qos(2));
    large.expect_disconnect(0x97);

    let connect = |count: usize| (0..count).fold(Client::v5("d"), |client, n| client.user("k", &n.to_string()));
    broker.connect(connect(32)).disconnect();
    assert_eq!(broker.connect_refused(connect(33)).reason, 0x97);
    assert_eq!(broker.connect_refused(connect(1500)).reason, 0x97);
    assert_eq!(broker.connect_refused(Client::v5("w").will(with(33))).reason, 0x97);
}

/// Bytes of address space that this process has.
fn address_space() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("kilobytes") * 1024
}

#[test]
fn an_announced_length_allocates_nothing() {
    let broker = Broker::start_with(|config| config.limits.packet = 256 << 20);
    broker.connect(Client::v5("c")).disconnect();
    let before = address_space();
    // Before CONNECT: beyond the limit at once, within it as far as bytes come.
    for transport in TRANSPORTS {
        let mut connection = broker.raw(Version::V5, transport);
        connection.send_bytes(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
        connection.expect_closed();
    }
    let beginnings: Vec<_> = (0..200)
        .map(|n| {
            let mut connection = broker.connect(Client::v5(&format!("c{n}")).over(TRANSPORTS[n % 2]));
            connection.send_bytes(&[0x30, 0x80, 0x80, 0x80, 0x40, 0, 1, b't', 0, b'p']);
            connection
        })
        .collect();
    // A worker that answers these has read what came before.
    for n in 0..8 {
        broker.connect(Client::v5(&format!("later {n}"))).ping();
    }
    broker.wait_for_sessions(200);
    let grown = address_space().saturating_sub(before);
    assert!(grown < 2 << 30, "{grown} bytes for 200 times 128 MiB that were announced");
    drop(beginnings);
    broker.wait_for_sessions(0);
}

#[test]
fn a_packet_larger_than_announced_ends_the_connection_before_it_has_come() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.packet = 2048);
        let mut client = broker.connect(Client::new(version, "c").over(transport));
        if version == Version::V5 {
            assert_eq!(client.connack.maximum_packet, Some(2048));
        }
        // Fixed header and topic take 6 bytes, the properties of 5.0 one.
        assert_eq!(client.publish(Message::new("t", vec![0; if version == Version::V5 { 2041 } else { 2042 }])), 0);
        client.send_bytes(&[0x30, 0xFE, 0x0F]); // 2046 + 3 bytes
        client.expect_disconnect(0x95);
        // CONNECT has a limit of its own.
        let mut connection = broker.raw(version, transport);
        Client::new(version, "c").password(&[b'x'; 20_000]).user_name("u").send(&mut connection);
        match version {
            Version::V5 => assert_eq!(connection.expect_connack().reason, 0x95),
            Version::V311 => {}
        }
        connection.expect_closed();
    });
}

#[test]
fn connections_are_bounded_and_a_free_place_is_taken_again() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.connections = Some(3));
        let mut clients: Vec<_> =
            (0..3).map(|n| broker.connect(Client::new(version, &format!("c{n}")).over(transport))).collect();
        for _ in 0..3 {
            assert_eq!(broker.connect_refused(Client::new(version, "d").over(transport)).reason, full(version));
        }
        assert_eq!(broker.metric(&refused("connect")), 3);
        clients.iter_mut().for_each(Connection::ping);
        clients.pop().expect("three").disconnect();
        broker.wait_until("a free place", |running| running.connections() == 2);
        broker.connect(Client::new(version, "d").over(transport)).ping();
    });
}

#[test]
fn connections_from_one_address_are_bounded() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.connections_per_address = Some(2));
        let mut first = broker.connect(Client::new(version, "a").over(transport));
        let second = broker.connect(Client::new(version, "b").over(transport));
        let refused = broker.connect_refused(Client::new(version, "c").over(transport));
        assert_eq!(refused.reason, full(version));
        if let Some(why) = refused.reason_string {
            assert!(why.contains("one address"), "{why}");
        }
        first.ping();
        second.disconnect();
        broker.wait_until("a free place", |running| running.connections() == 1);
        // The refused socket may hold its place for a moment longer.
        broker.wait_until("the next is taken", |_| {
            let mut connection = broker.raw(version, transport);
            Client::new(version, "c").over(transport).send(&mut connection);
            connection.expect_connack().reason == 0
        });
    });
}

#[test]
fn who_is_no_client_by_the_deadline_is_closed() {
    let broker = Broker::start_with(|config| config.limits.connect_timeout = Duration::from_millis(600));
    let mut connect = Vec::new();
    connect.extend_from_slice(&Client::v5("slow, with an id that takes a second to send").encode());
    let request = format!("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nX-Filler: {}\r\n", "x".repeat(200));
    let mqtt = broker.address(Transport::Tcp);
    let http = broker.address(Transport::WebSocket);
    let connected = |address| TcpStream::connect(address).expect("it listens");
    let upgraded = || broker.open(Transport::WebSocket).stream.try_clone().expect("a socket");
    let masked: Vec<u8> = connect.iter().flat_map(|byte| [0x82, 0x81, 0, 0, 0, 0, *byte]).collect();
    let slow: [(&str, TcpStream, Vec<u8>); 6] = [
        ("silent", connected(mqtt), Vec::new()),
        ("CONNECT byte by byte", connected(mqtt), connect),
        ("silent on HTTP", connected(http), Vec::new()),
        ("HTTP byte by byte", connected(http), request.into_bytes()),
        ("silent WebSocket", upgraded(), Vec::new()),
        ("frames byte by byte", upgraded(), masked),
    ];
    let threads = slow.map(|(what, mut stream, bytes)| {
        std::thread::spawn(move || {
            for byte in bytes.chunks(1) {
                if stream.write_all(byte).is_err() {
                    break;
                }
                sleep(Duration::from_millis(20)); // slower than it may be, faster than any idle time
            }
            stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
            let ended = loop {
                match stream.read(&mut [0; 1024]) {
                    Ok(1..) => {}
                    Ok(0) => break true,
                    Err(error) => break error.kind() == std::io::ErrorKind::ConnectionReset,
                }
            };
            assert!(ended, "{what}: still open");
        })
    });
    for thread in threads {
        thread.join().expect("closed");
    }
    assert_eq!(broker.metric("wigwag_connections_ended_total{how=\"no CONNECT in time\"}"), 4);
    broker.connect(Client::v5("healthy")).ping();
}

/// Sends a request on a socket of its own and returns the answer's head.
fn answer(broker: &Broker, request: &str) -> String {
    let mut stream = TcpStream::connect(broker.address(Transport::WebSocket)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let _ = stream.write_all(request.as_bytes()); // which fails if it was refused before its end
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("ASCII")
}

#[test]
fn the_head_of_a_request_is_bounded() {
    let broker = Broker::start_with(|config| config.limits.http_header = 4096);
    let with = |headers: &str| answer(&broker, &format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
    let status = |answer: &str| answer.get(9..12).unwrap_or("none").to_owned();
    assert_eq!(status(&with("")), "200");
    assert_eq!(status(&with(&format!("Origin: {}\r\n", "x".repeat(3000)))), "200");
    for (what, headers) in [
        ("2,000 headers", "a: b\r\n".repeat(2000)),
        ("5,000 bytes", format!("Origin: {}\r\n", "x".repeat(5000))),
        ("20,000 bytes", format!("Origin: {}\r\n", "x".repeat(20_000))),
    ] {
        assert_eq!(status(&with(&headers)), "431", "{what}");
    }
    let long = answer(&broker, &format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(70_000)));
    assert!(["414", "431"].contains(&status(&long).as_str()), "{long}");
    broker.connect(Client::v5("healthy").over(Transport::WebSocket)).ping();
}

#[test]
fn sockets_that_never_speak_keep_nobody_out() {
    let broker = Broker::start();
    let idle: Vec<_> = (0..500).map(|n| broker.open(TRANSPORTS[n % 2])).collect();
    // Long before the deadline of the idle ones.
    for transport in TRANSPORTS {
        broker.connect(Client::v5("healthy").over(transport)).ping();
    }
    drop(idle);
}
