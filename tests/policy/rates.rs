//! How fast one may go, and how often one may be refused. What is measured is what has come by when, never how long
//! something may take.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use wigwag::config::Rate;

use crate::{harness::*, people::*};

fn rate(messages: usize) -> Rate {
    Rate { messages: Some(messages), bytes: None, burst: Duration::from_secs(1) }
}

/// Open mode, in which everything but `change` is unlimited.
fn limited(change: impl FnOnce(&mut Config)) -> Broker {
    Broker::shipped_with(|config| {
        config.rate = RateConfig::unlimited();
        config.abuse.strikes = None;
        change(config);
    })
}

fn named(version: Version, name: &str) -> Client {
    Client::new(version, &format!("client of {name}")).user_name(name)
}

fn chat(n: usize) -> Message {
    Message::new("rooms/demo/chat", json!({ "n": n }).to_string())
}

fn class_rate(config: &mut Config, name: &str, rate: Rate) {
    config.topics.0.iter_mut().find(|row| &*row.name == name).expect("a row").rate = rate;
}

/// Of so many a second with a burst of one second, how many may have come so long after the first.
fn most(rate: usize, since: Instant) -> usize {
    rate + 1 + (since.elapsed().as_secs_f64() * rate as f64).ceil() as usize
}

#[test]
fn who_is_too_fast_is_held_back_and_nothing_is_lost() {
    for (version, transport) in [(Version::V5, Transport::WebSocket), (Version::V311, Transport::Tcp)] {
        let broker = limited(|config| {
            class_rate(config, "chat", rate(20));
            config.rate.wait = Duration::from_secs(60);
            config.abuse.strikes = Some(1);
        });
        let mut bob = broker.connect(named(Version::V5, "bob"));
        assert_eq!(bob.subscribe("rooms/demo/chat", 1), 1);
        let mut alice = broker.connect(named(version, "alice").over(transport));
        let start = Instant::now();
        for n in 0..60 {
            alice.send_publish(chat(n).qos((n % 2) as u8));
        }
        for n in 0..60 {
            assert_eq!(line(&bob.expect_message())["n"], n, "in order");
            assert!(n < most(20, start), "{n} after {:?}", start.elapsed());
            if n == 30 {
                // Others do not wait for it.
                let mut carol = broker.connect(named(version, "carol"));
                carol.publish(signal("rooms/demo/signal", "carol").qos(1));
                assert!(n < 59, "it is still being held back");
            }
        }
        alice.ping();
    }
}

#[test]
fn what_would_wait_too_long_is_refused_and_that_is_no_strike() {
    for version in VERSIONS {
        let broker = limited(|config| {
            class_rate(config, "chat", rate(20));
            config.rate.wait = Duration::from_millis(200);
            config.abuse.strikes = Some(1);
        });
        let mut bob = broker.connect(named(Version::V5, "bob"));
        assert_eq!(bob.subscribe("rooms/demo/chat", 1), 1);
        let mut alice = broker.connect(named(version, "alice"));
        assert_eq!(alice.subscribe("users/alice/errors", 0), 0);
        let (mut all, start) = (Vec::new(), Instant::now());
        for n in 0..400 {
            chat(n).qos(1).id(n as u16 + 1).encode(&mut all, version);
        }
        alice.send_bytes(&all); // one read
        let codes: Vec<u8> = (1..=400).map(|id| alice.expect_puback(id).reason).collect();
        let arrived = drained(&mut bob);
        assert!((21..400).contains(&arrived), "{arrived}");
        let refused = broker.metric("wigwag_refused_total{action=\"publish\",reason=\"quota exceeded\"}");
        assert_eq!(refused as usize, 400 - arrived);
        if version == Version::V5 {
            assert_eq!(codes.iter().filter(|code| **code == 0x97).count(), 400 - arrived);
            assert_eq!(codes.iter().filter(|code| **code == 0).count(), arrived);
        }
        assert_eq!(line(&alice.expect_message())["code"], 0x97);
        let told = 1 + drained(&mut alice);
        let most = 102 + (start.elapsed().as_secs_f64() * 10.0) as usize;
        assert!((1..=most).contains(&told), "{told} lines for {refused} refusals");
        // It is connected, and once it goes slower it is listened to.
        alice.ping();
        let again = Instant::now();
        loop {
            alice.publish(chat(0).qos(1));
            if drained(&mut bob) > 0 {
                break;
            }
            assert!(again.elapsed() < PATIENCE);
        }
    }
}

fn drained(connection: &mut Connection) -> usize {
    connection.send(&Packet::PingReq);
    let mut count = 0;
    loop {
        let received = connection.receive();
        match received.packet() {
            Packet::PingResp => return count,
            Packet::Publish(publish) => {
                count += 1;
                let id = publish.packet_id.map(std::num::NonZeroU16::get);
                id.into_iter().for_each(|id| connection.send_puback(id));
            }
            _ => panic!("{received:?}"),
        }
    }
}

/// The connections of a user share a rate, and those of an address.
#[test]
fn more_connections_are_no_faster() {
    for shared_by in ["user", "address"] {
        let broker = limited(|config| {
            let shared = if shared_by == "user" { &mut config.rate.user } else { &mut config.rate.address };
            *shared = rate(20);
            config.rate.wait = Duration::from_secs(60);
        });
        let mut inside = broker.running().client("inside").expect("a name");
        inside.subscribe("rooms/demo/chat", wigwag::QoS::AtLeastOnce).expect("it may");
        let start = Instant::now();
        let mut all: Vec<_> = (0..3)
            .map(|n| {
                broker
                    .connect(named(Version::V5, &if shared_by == "user" { format!("a~{n}") } else { format!("a{n}") }))
            })
            .collect();
        for client in &mut all {
            for n in 0..20 {
                client.send_publish(chat(n));
            }
        }
        let mut arrived = 0;
        while arrived < 60 {
            arrived += taken(&mut inside).len();
            assert!(arrived <= most(20, start), "{arrived} after {:?}, by {shared_by}", start.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn refused_too_often() {
    for version in VERSIONS {
        for way in ["publish", "subscribe", "one packet"] {
            let broker = limited(|config| {
                with_tokens(config);
                config.abuse.strikes = Some(5);
                config.abuse.window = Duration::from_secs(3600);
                config.abuse.ban = Duration::from_secs(3600);
            });
            let mut bob = broker.connect(client(version, "bob", demo(&["join"])));
            assert_eq!(bob.subscribe("rooms/demo/signal", 1), 1);
            let mut mallory = broker.connect(client(version, "mallory", demo(&["join"])));
            for n in 0..5 {
                match way {
                    "publish" => mallory.send_publish(signal("rooms/else/chat", "mallory").qos(n % 3)),
                    "subscribe" => mallory.send_subscribe(&[("#", options(0))], None),
                    _ if n == 0 => mallory.send_subscribe(&[("#", options(0)); 5], None),
                    _ => 0,
                };
            }
            // Answers to the first come before.
            loop {
                match mallory.next(PATIENCE) {
                    Ok(received) => match received.packet() {
                        Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason.0, 0x96),
                        Packet::PubAck(_) | Packet::PubRec(_) | Packet::SubAck(_) => {}
                        _ => panic!("{received:?}"),
                    },
                    Err(Progress::End) => break,
                    Err(_) => panic!("{way}: it is still connected"),
                }
            }
            for name in ["mallory", "mallory~phone"] {
                let refused = broker.connect_refused(client(version, name, demo(&["join"])));
                assert_eq!(refused.reason, connack_code(version, 0x8A));
            }
            let counted = broker.metric("wigwag_refused_total{action=\"connect\",reason=\"banned\"}");
            assert_eq!(counted, 2);
            // Whoever else is there.
            bob.publish(signal("rooms/demo/signal", "bob").qos(1));
            assert_eq!(bob.expect_message().topic, "rooms/demo/signal");
            broker.connect(client(version, "carol", demo(&["join"]))).disconnect();
        }
    }
}

#[test]
fn a_ban_ends() {
    let broker = limited(|config| {
        with_tokens(config);
        (config.abuse.strikes, config.abuse.ban) = (Some(1), Duration::from_millis(300));
    });
    let mallory = || client(Version::V5, "mallory", json!({}));
    let start = Instant::now();
    broker.connect(mallory()).send_publish(signal("x", "mallory"));
    broker.wait_for_connections(0);
    loop {
        let (_connection, connack) = broker.connect_or_not(mallory());
        match connack.reason {
            0 => break,
            reason => assert_eq!(reason, 0x8A),
        }
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn failed_logins_make_an_address_wait() {
    for version in VERSIONS {
        let broker = limited(|config| {
            with_tokens(config);
            (config.auth.failures, config.auth.failure_wait) = (Some(3), Duration::from_secs(3600));
        });
        let mut bob = broker.connect(client(version, "bob", json!({})));
        for _ in 0..3 {
            let refused = broker.connect_refused(with_token(version, "alice", "eyJ.e30.x"));
            assert_eq!(refused.reason, connack_code(version, 0x86));
        }
        let good = client(version, "alice", json!({}));
        assert_eq!(broker.connect_refused(good).reason, connack_code(version, 0x8A), "from here, for a while");
        bob.ping();
        assert_eq!(broker.metric("wigwag_refused_total{action=\"connect\",reason=\"banned\"}"), 1);
    }
}

/// 57
#[test]
fn a_flood_of_pingreq_is_read_no_faster_than_anything_else() {
    for version in VERSIONS {
        let broker = limited(|config| {
            config.rate.connection = rate(100);
            config.rate.wait = Duration::from_millis(100);
        });
        let mut alice = broker.connect(named(version, "alice"));
        let start = Instant::now();
        alice.send_bytes(&[0xC0, 0].repeat(400));
        for n in 0..400 {
            alice.expect_pingresp();
            assert!(n < most(100, start), "{n} after {:?}", start.elapsed());
            if n == 150 {
                broker.connect(named(version, "bob")).ping();
            }
        }
    }
}

/// 41
#[test]
fn a_flood_of_websocket_pings_is_read_no_faster_than_anything_else() {
    let broker = limited(|config| config.rate.connection = rate(100));
    let mut alice = broker.connect(named(Version::V5, "alice").over(Transport::WebSocket));
    let start = Instant::now();
    for _ in 0..300 {
        alice.socket.send_frame(Opcode::Ping, b"");
    }
    broker.connect(named(Version::V5, "bob").over(Transport::WebSocket)).ping();
    // Those of one read are answered at once; what is behind them waits until they are paid for.
    alice.ping();
    assert!(alice.socket.pongs == 300, "{}", alice.socket.pongs);
    assert!(start.elapsed() >= Duration::from_millis(1900), "after {:?}", start.elapsed());
    // Who pings now and then notices nothing.
    let mut carol = broker.connect(named(Version::V5, "carol").over(Transport::WebSocket));
    for _ in 0..20 {
        carol.socket.send_frame(Opcode::Ping, b"x");
        carol.ping();
    }
    assert_eq!(carol.socket.pongs, 20);
}

/// Everybody offers to everybody, as fast as they can, within the limits as they are shipped.
#[test]
fn a_mesh_of_twelve_forms_at_once() {
    const PEERS: usize = 12;
    const CANDIDATES: usize = 20;
    let broker = Broker::shipped_with(|_| {});
    let name = |n: usize| format!("peer-{n}");
    let mut peers: Vec<_> = (0..PEERS)
        .map(|n| {
            let client = named(VERSIONS[n % 2], &name(n)).over(TRANSPORTS[n / 2 % 2]);
            let mut peer = broker.connect(client);
            let own = [format!("rooms/mesh/signal/{}", name(n)), "rooms/mesh/signal".to_owned()];
            assert_eq!(peer.subscribe_all(&[(&own[0], options(1)), (&own[1], options(1))], None), [1, 1]);
            peer
        })
        .collect();
    let sdp = "a=candidate:1 1 udp 2113937151 192.0.2.1 54400 typ host\r\n".repeat(100);
    let offer = |n| json!({ "username": name(n), "offer": { "type": "offer", "sdp": sdp } }).to_string();
    let candidate = |n| {
        json!({ "username": name(n), "ice": { "candidate": "candidate:1 1 udp 2113937151 192.0.2.1 54400 typ host", "sdpMid": "0" } }).to_string()
    };
    thread::scope(|scope| {
        for (n, peer) in peers.iter_mut().enumerate() {
            let (offer, candidate) = (offer(n), candidate(n));
            let others: Vec<_> = (0..PEERS)
                .filter(|other| *other != n)
                .map(|other| format!("rooms/mesh/signal/{}", name(other)))
                .collect();
            let version = peer.version;
            let mut sending = peer.socket.to_send_on();
            scope.spawn(move || {
                let (mut id, mut send) = (0, |message: Message| {
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes, version);
                    sending.send(&bytes);
                });
                for other in &others {
                    id += 1;
                    send(Message::new(other, &offer).qos(1).id(id));
                    for _ in 0..CANDIDATES {
                        id += 1;
                        send(Message::new(other, &candidate).qos(1).id(id));
                    }
                }
            });
            scope.spawn(move || {
                let expected = (PEERS - 1) * (CANDIDATES + 1);
                let (mut acknowledged, mut received) = (0, 0);
                while acknowledged < expected || received < expected {
                    let packet = peer.receive();
                    match packet.packet() {
                        Packet::PubAck(ack) => {
                            assert_eq!(ack.reason.0, 0);
                            acknowledged += 1;
                        }
                        Packet::Publish(publish) => {
                            received += 1;
                            let id = publish.packet_id.expect("QoS 1").get();
                            peer.send_puback(id);
                        }
                        _ => panic!("{packet:?}"),
                    }
                }
            });
        }
    });
    assert!(!broker.running().metrics().contains("wigwag_refused_total{"), "{}", broker.running().metrics());
}
