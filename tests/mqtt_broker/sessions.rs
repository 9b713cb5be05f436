//! Sessions that outlive their connection (3.1.2.4, 3.1.2.11.2, 4.1).

use std::time::{Duration, Instant};

use crate::harness::*;

/// [MQTT-4.1.0-1], [MQTT-3.1.2-5]: subscriptions and what they brought meanwhile are there; QoS 0 is not kept (4.1).
#[test]
fn a_resumed_session_has_its_subscriptions_and_its_messages() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let client = || Client::kept(version, "s").over(transport);
        let mut first = broker.connect(client());
        first.subscribe_all(&[("a", options(2)), ("b/+", options(1))], None);
        first.disconnect();
        broker.wait_for_connections(0);
        let mut publisher = broker.connect(Client::new(version, "p"));
        for (topic, qos) in [("a", 2), ("b/1", 1), ("a", 0), ("a", 1), ("c", 1), ("b/2", 2)] {
            publisher.publish(Message::new(topic, format!("{topic}{qos}")).qos(qos));
        }
        let mut second = broker.connect(client());
        assert!(second.present());
        let come: Vec<_> = (0..4).map(|_| second.expect_message()).collect();
        let gists: Vec<_> = come.iter().map(Message::gist).collect();
        let expected =
            [("a", "a2", 2, false), ("b/1", "b/11", 1, false), ("a", "a1", 1, false), ("b/2", "b/22", 1, false)];
        assert_eq!(gists, expected);
        assert!(come.iter().all(|message| !message.dup), "these were never sent before");
        second.expect_nothing();
    });
}

/// [MQTT-3.1.2-4]: a clean start discards what there was.
#[test]
fn a_clean_start_discards_the_session() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let client = || Client::kept(version, "s").over(transport);
        let mut first = broker.connect(client());
        first.subscribe("t", 1);
        first.disconnect();
        broker.connect(Client::v5("p")).publish(Message::new("t", "missed").qos(1));
        let mut second = broker.connect(client().clean(true));
        assert!(!second.present());
        second.expect_nothing();
        assert_eq!(broker.connect(Client::v5("p")).publish(Message::new("t", "m").qos(1)), 0x10);
        second.expect_nothing();
    });
}

/// [MQTT-3.1.2-6] of 3.1.1, [MQTT-3.1.2-23]: a session without an expiry interval ends with its connection, also where
/// another connection ends that.
#[test]
fn a_session_without_expiry_is_never_resumed() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let client = Client::new(version, "c").over(transport).clean(version == Version::V311);
        for how in ["disconnect", "hang up", "take over"] {
            let mut first = broker.connect(client.clone());
            first.subscribe("t", 1);
            match how {
                "disconnect" => first.disconnect(),
                "hang up" => {
                    first.hang_up();
                    broker.wait_for_connections(0);
                }
                _ => std::mem::forget(first), // its socket stays open
            }
            let mut second = broker.connect(client.clone().clean(false));
            assert!(!second.present(), "after {how}");
            second.publish(Message::new("t", "m").qos(1));
            second.expect_nothing();
            second.disconnect();
            broker.connect(client.clone().clean(true)).disconnect();
            broker.wait_for_connections(0);
        }
    });
}

/// [MQTT-3.1.2-23], [MQTT-4.1.0-2]: a session lives for its expiry interval and no longer.
#[test]
fn a_session_expires() {
    let broker = Broker::start_with(|config| config.session.expiry = Duration::from_secs(1));
    for client in [Client::v5("c").expiry(1), Client::v311("c").clean(false)] {
        broker.connect(client.clone()).disconnect();
        broker.wait_for_connections(0);
        assert!(broker.connect(client.clone().clean(false)).present());
        broker.wait_for_connections(0);
        let start = Instant::now();
        broker.wait_for_sessions(0);
        let after = start.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_millis(1900)).contains(&after), "{after:?}");
        assert!(!broker.connect(client.clone().clean(false)).present());
        broker.connect(client.clean(true).expiry(0)).disconnect();
        broker.wait_for_sessions(0);
    }
    assert_eq!(broker.running().held(), Default::default(), "nothing is left behind");
}

/// An interval begins when the connection ends (3.1.2.11.2), and a connection within it stops it.
#[test]
fn a_session_does_not_expire_while_its_client_is_there() {
    let broker = Broker::start();
    let client = Client::v5("c").clean(false).expiry(1);
    let mut first = broker.connect(client.clone());
    first.expect_silence(Duration::from_millis(1300));
    first.disconnect();
    let mut second = broker.connect(client.clone());
    assert!(second.present());
    second.expect_silence(Duration::from_millis(1300));
    second.disconnect();
    assert!(broker.connect(client).present());
}

/// 3.14.2.2.2: DISCONNECT may change the interval: end it at once, or prolong it.
#[test]
fn disconnect_changes_the_session_expiry() {
    let broker = Broker::start();
    let client = |expiry| Client::v5("c").clean(false).expiry(expiry);
    broker.connect(client(60)).disconnect_with(0, Some(0));
    broker.wait_for_sessions(0);
    broker.connect(client(1)).disconnect_with(0, Some(60));
    broker.wait_for_connections(0);
    let mut other = broker.connect(Client::v5("other"));
    other.expect_silence(Duration::from_millis(1300));
    assert!(broker.connect(client(0)).present());
}

/// [MQTT-3.14.2-2], 3.14.2.2.2: an interval where CONNECT had none is a protocol error.
#[test]
fn disconnect_cannot_begin_a_session_expiry() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c"));
    client.send_disconnect(0, Some(5));
    client.expect_disconnect(0x82);
    broker.wait_for_sessions(0);
    // That an interval of 0 is repeated is no error.
    broker.connect(Client::v5("c")).disconnect_with(0, Some(0));
}

/// [MQTT-3.2.2-18]: an interval above `session.expiry_max` is cut, and announced; so is one in DISCONNECT, which is no
/// protocol error where CONNECT asked for one.
#[test]
fn the_session_expiry_is_capped_and_announced() {
    let broker = Broker::start_with(|config| config.session.expiry_max = Duration::from_secs(1));
    assert_eq!(broker.connect(Client::v5("c").expiry(1)).connack.session_expiry, None);
    assert_eq!(broker.connect(Client::v5("c").expiry(0)).connack.session_expiry, None);
    for asked in [2, u32::MAX] {
        let client = broker.connect(Client::v5("c").expiry(asked));
        assert_eq!(client.connack.session_expiry, Some(1));
        client.disconnect_with(0, Some(asked));
        broker.wait_for_connections(0);
        assert_eq!(broker.running().held().sessions, 1);
        broker.wait_for_sessions(0);
    }
    let broker = Broker::start_with(|config| config.session.expiry_max = Duration::ZERO);
    let client = broker.connect(Client::v5("c").expiry(60));
    assert_eq!(client.connack.session_expiry, Some(0));
    client.disconnect_with(0, Some(60));
    broker.wait_for_sessions(0);
}

/// `session.expiry` = 0: sessions of 3.1.1 end with their connection, whatever Clean Session says.
#[test]
fn sessions_of_3_1_1_may_be_switched_off() {
    let broker = Broker::start_with(|config| config.session.expiry = Duration::ZERO);
    broker.connect(Client::v311("c").clean(false)).disconnect();
    broker.wait_for_sessions(0);
    assert!(!broker.connect(Client::v311("c").clean(false)).present());
}

/// A session is the client's, not a version's: it may come back in the other one.
#[test]
fn a_session_may_be_resumed_in_the_other_version() {
    for versions in [[Version::V311, Version::V5], [Version::V5, Version::V311]] {
        let broker = Broker::start();
        let mut first = broker.connect(Client::kept(versions[0], "c"));
        match versions[0] {
            Version::V5 => first.subscribe_as("t", 2, 7),
            Version::V311 => first.subscribe("t", 2),
        };
        let mut publisher = broker.connect(Client::v5("p"));
        publisher.publish(Message::new("t", "in flight").qos(2).user("k", "v"));
        let sent = first.expect_publish();
        first.hang_up();
        publisher.publish(Message::new("t", "queued").qos(1).user("k", "v"));
        let mut second = broker.connect(Client::kept(versions[1], "c").over(Transport::WebSocket));
        assert!(second.present());
        let again = second.expect_message();
        assert!(again.dup && again.id == sent.id && again.text() == "in flight");
        let queued = second.expect_message();
        assert_eq!(queued.text(), "queued");
        assert_eq!(queued.user.len(), if versions[1] == Version::V5 { 2 } else { 0 }, "and the sender's name");
        second.expect_nothing();
    }
}

/// `limits.queue_messages` and `limits.queue_bytes`: a session that cannot keep what it promised ends, rather than lose
/// something in the middle; its client finds no session.
#[test]
fn a_session_whose_queue_overflows_ends() {
    let broker = Broker::start_with(|config| config.limits.queue_messages = 3);
    for version in VERSIONS {
        let client = || Client::kept(version, "s");
        let mut publisher = broker.connect(Client::v5("p"));
        for count in [3, 4] {
            let mut first = broker.connect(client());
            first.subscribe("t", 1);
            first.disconnect();
            broker.wait_for_connections(1);
            for _ in 0..count {
                publisher.publish(Message::new("t", "m").qos(1));
            }
            if count > 3 {
                broker.wait_for_sessions(1);
            }
            let mut second = broker.connect(client());
            assert_eq!(second.present(), count == 3);
            if count == 3 {
                second.expect_payloads(3);
            }
            second.expect_nothing();
            second.disconnect();
            broker.wait_for_connections(1);
        }
    }
}

/// A DISCONNECT is done when the broker closes: whoever then connects finds its session as DISCONNECT left it.
#[test]
fn a_client_may_come_back_as_soon_as_the_connection_is_closed() {
    let broker = Broker::start();
    let mut watcher = broker.connect(Client::v5("watcher"));
    watcher.subscribe("will", 0);
    for round in 0..100 {
        let will = Message::new("will", "not sent");
        let version = VERSIONS[round % 2];
        let first = broker.connect(Client::kept(version, "c").user_name("u").will(will));
        if version == Version::V5 && round % 4 == 1 {
            first.disconnect_with(0, Some(0));
            assert!(!broker.connect(Client::kept(version, "c").user_name("u")).present());
        } else {
            first.disconnect();
            assert!(broker.connect(Client::kept(version, "c").user_name("u")).present());
        }
    }
    watcher.expect_nothing();
}

/// The last packet a client gets is the DISCONNECT [MQTT-3.14.4-1], however much waits for it.
#[test]
fn nothing_follows_a_disconnect_of_the_broker() {
    for transport in TRANSPORTS {
        let broker = Broker::start_with(|config| config.limits.queue_messages = 100_000);
        let mut subscribers: Vec<_> =
            (0..3).map(|n| broker.connect(Client::v5(&format!("s{n}")).over(transport))).collect();
        for subscriber in subscribers.iter_mut() {
            subscriber.subscribe("t", 0);
        }
        let mut publisher = broker.connect(Client::v5("p"));
        let flood = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            (0..50).for_each(|_| Message::new("t", "m").encode(&mut bytes, Version::V5));
            // Until the broker closes this connection.
            while std::io::Write::write_all(&mut publisher.socket.stream, &bytes).is_ok() {}
        });
        let readers: Vec<_> = subscribers
            .into_iter()
            .map(|mut subscriber| {
                std::thread::spawn(move || {
                    let mut last = subscriber.receive();
                    while let Ok(received) = subscriber.next(PATIENCE) {
                        assert!(!matches!(last.packet(), Packet::Disconnect(_)), "{received:?} after DISCONNECT");
                        last = received;
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50)); // of traffic
        broker.shutdown(Duration::from_secs(3));
        flood.join().expect("it stops");
        readers.into_iter().for_each(|reader| reader.join().expect("DISCONNECT came last"));
    }
}

/// [MQTT-4.13.2-1], 3.14.2.1: clients of a broker that is stopped are told 0x8B.
#[test]
fn a_shutdown_is_announced() {
    let broker = Broker::start();
    let mut clients: Vec<_> = VERSIONS
        .into_iter()
        .flat_map(|version| TRANSPORTS.map(|transport| (version, transport)))
        .map(|(version, transport)| {
            broker.connect(Client::new(version, &format!("{version:?}{transport:?}")).over(transport))
        })
        .collect();
    let readers: Vec<_> =
        clients.drain(..).map(|mut client| std::thread::spawn(move || drop(client.expect_disconnect(0x8B)))).collect();
    broker.shutdown(Duration::from_secs(3));
    readers.into_iter().for_each(|reader| reader.join().expect("told"));
}
