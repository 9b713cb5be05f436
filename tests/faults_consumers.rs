//! Receivers that do not read, or do not acknowledge, and publishers that do not read their answers: each costs its
//! own queue and in the end its own connection, and nobody else notices.

mod harness;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use harness::*;

const DROPPED: &str = "wigwag_messages_dropped_total{reason=\"queue full\"}";
const CLOSED: &str = "wigwag_connections_ended_total{how=\"closed\"}";
const OVERFLOWED: &str = "wigwag_sessions_overflowed_total";
const NEVER: Duration = Duration::from_secs(600);

/// A message too large for the system to hold many of, numbered.
fn large(number: usize) -> Message {
    let mut payload = format!("{number} ").into_bytes();
    payload.resize(32 * 1024, b'.');
    Message::new("t", payload)
}

fn number(message: &Message) -> usize {
    let number = message.text().split(' ').next().expect("a number");
    number.parse().expect("a number")
}

/// Publishes numbered messages, each of which `reader` receives in its turn, until `enough`.
fn publish_until(publisher: &mut Connection, reader: &mut Connection, enough: impl Fn() -> bool) -> usize {
    for sent in 0..10_000 {
        if enough() {
            return sent;
        }
        assert_eq!(publisher.publish(large(sent).qos(1)), 0);
        assert_eq!(number(&reader.expect_message()), sent, "lost, or out of order");
    }
    panic!("nothing is full after 10,000 messages of 32 KiB");
}

#[test]
fn who_stops_reading_misses_qos_0_messages_and_delays_nobody() {
    for transport in TRANSPORTS {
        let broker = Broker::start_with(|config| {
            config.limits.queue_messages = 20;
            config.limits.write_timeout = NEVER;
        });
        let mut publisher = broker.connect(Client::v5("publisher").over(transport));
        let mut healthy = broker.connect(Client::v5("healthy").over(transport));
        let mut stuck = broker.connect(Client::v5("stuck").over(transport));
        healthy.subscribe("t", 1);
        stuck.subscribe("t", 0);

        let sent = publish_until(&mut publisher, &mut healthy, || broker.metric(DROPPED) >= 50);

        // It reads again: what it gets is in order and lacks what was dropped and nothing else.
        stuck.ping();
        let mut received = Vec::new();
        while received.len() < sent - 50 {
            received.push(number(&stuck.expect_message()));
        }
        assert!(received.is_sorted(), "{received:?}");
        assert_eq!(publisher.publish(large(sent).qos(1)), 0);
        assert_eq!(number(&stuck.expect_message()), sent);
        assert_eq!(broker.metric(DROPPED), 50);
    }
}

#[test]
fn who_does_not_acknowledge_loses_its_session_with_0x97() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| {
            config.limits.queue_messages = 10;
            config.limits.inflight = 4;
        });
        let mut subscriber = broker.connect(Client::kept(version, "s").over(transport));
        subscriber.subscribe("t", 1);
        let mut publisher = broker.connect(Client::new(version, "p"));
        for number in 0..15 {
            assert_eq!(publisher.publish(Message::new("t", number.to_string()).qos(1)), 0);
        }
        for number in 0..4 {
            assert_eq!(subscriber.expect_publish().text(), number.to_string());
        }
        // Nothing follows it [MQTT-3.14.4-1].
        subscriber.expect_disconnect(0x97);
        broker.wait_for_metric(OVERFLOWED, 1);
        broker.wait_for_sessions(1);
        assert_eq!(broker.running().held().subscriptions, 0);
        let again = broker.connect(Client::kept(version, "s").over(transport));
        assert!(!again.present(), "the session is over");
    });
}

#[test]
fn who_stops_reading_qos_1_messages_loses_its_session_and_what_it_held() {
    for transport in TRANSPORTS {
        let broker = Broker::start_with(|config| {
            config.limits.queue_messages = 20;
            config.limits.write_timeout = NEVER;
        });
        let mut publisher = broker.connect(Client::v5("publisher"));
        let mut healthy = broker.connect(Client::v5("healthy").over(transport));
        let mut stuck = broker.connect(Client::kept(Version::V5, "stuck").over(transport).receive_maximum(60_000));
        healthy.subscribe("t", 1);
        stuck.subscribe("t", 1);
        publish_until(&mut publisher, &mut healthy, || broker.metric(OVERFLOWED) == 1);
        broker.wait_for_sessions(2);
        let held = broker.running().held();
        assert_eq!((held.subscriptions, held.timers), (1, 2), "{held:?}");
        assert_eq!(broker.metric(CLOSED), 1);
        assert_eq!(broker.metric(DROPPED), 0);
    }
}

#[test]
fn a_queue_is_bounded_in_bytes_too() {
    let broker = Broker::start_with(|config| {
        config.limits.queue_bytes = 100 * 1024;
        config.limits.inflight = 1;
    });
    let mut subscriber = broker.connect(Client::v5("s"));
    subscriber.subscribe("t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    // One is in flight, two are queued, the next would make more than 100 KiB.
    for number in 0..5 {
        publisher.publish(large(number).qos(1));
    }
    assert_eq!(number(&subscriber.expect_publish()), 0);
    subscriber.expect_disconnect(0x97);
}

#[test]
fn who_takes_no_bytes_within_the_write_timeout_is_closed() {
    for transport in TRANSPORTS {
        let broker = Broker::start_with(|config| config.limits.write_timeout = Duration::from_millis(200));
        let mut publisher = broker.connect(Client::v5("publisher"));
        let mut healthy = broker.connect(Client::v5("healthy").over(transport));
        let mut stuck = broker.connect(Client::v5("stuck").over(transport));
        healthy.subscribe("t", 1);
        stuck.subscribe("t", 0);
        publish_until(&mut publisher, &mut healthy, || broker.metric(CLOSED) == 1);
        broker.wait_for_sessions(2);
        broker.wait_until("its socket closes", |running| running.connections() == 2);
        healthy.ping();
    }
}

#[test]
fn a_publisher_that_reads_no_answers_is_read_no_more_and_closed() {
    for transport in TRANSPORTS {
        let broker = Broker::start_with(|config| {
            config.limits.write_timeout = Duration::from_millis(500);
            config.limits.topic_levels = 1;
        });
        let mut healthy = broker.connect(Client::v5("healthy").over(transport));
        healthy.subscribe("other", 1);
        let deaf = broker.connect(Client::v5("deaf").over(transport));
        let mut stream = deaf.socket.stream.try_clone().expect("a socket");
        let flood = std::thread::spawn(move || {
            let mut packet = Vec::new();
            // Refused, so that the answers are larger than what they answer.
            Message::new("a/b", "").qos(1).id(1).encode(&mut packet, Version::V5);
            let mut packets = packet.repeat(1024);
            if transport == Transport::WebSocket {
                let mut frame = Vec::new();
                wigwag::wire::ws::frame(&mut frame, Opcode::Binary, &packets, Some([1, 2, 3, 4]));
                packets = frame;
            }
            let mut sent = 0;
            while stream.write_all(&packets).is_ok() {
                sent += packets.len();
            }
            sent
        });
        let mut rounds = 0;
        while broker.metric(CLOSED) == 0 {
            assert_eq!(healthy.publish(Message::new("other", rounds.to_string()).qos(1)), 0);
            assert_eq!(healthy.expect_message().text(), rounds.to_string());
            rounds += 1;
        }
        let sent = flood.join().expect("it ends with the connection");
        assert!(sent < 20_000_000, "{sent} bytes were read from a client that reads nothing");
        drop(deaf);
        broker.wait_for_sessions(1);
    }
}

#[test]
fn a_client_inside_the_process_that_does_not_receive_is_ended_after_what_was_queued() {
    let broker = Broker::start_with(|config| config.limits.queue_messages = 10);
    let mut lazy = broker.running().client("lazy").expect("a name");
    lazy.subscribe("t", wigwag::wire::mqtt::QoS::AtLeastOnce).expect("open");
    let mut publisher = broker.connect(Client::v5("p"));
    for number in 0..12 {
        assert_eq!(publisher.publish(Message::new("t", number.to_string()).qos(1)), 0);
    }
    for number in 0..10 {
        let received = broker.block_on(lazy.recv()).expect("was queued before the end");
        assert_eq!(received.payload(), number.to_string().as_bytes());
    }
    assert!(broker.block_on(lazy.recv()).is_none());
    assert_eq!(broker.metric(OVERFLOWED), 1);
    drop(lazy);
    assert_eq!(broker.running().held().sessions, 1);
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_crowd_is_written_to_without_leaving_anybody_out() {
    let broker = Broker::start();
    let mut crowd: Vec<_> = (0..100).map(|n| broker.connect(Client::v5(&format!("c{n}")))).collect();
    crowd.iter_mut().for_each(|member| assert_eq!(member.subscribe("t", 1), 1));
    // Subscribed last, so that the thread that publishes leaves it to itself.
    let mut inside = broker.running().client("inside").expect("a name");
    inside.subscribe("t", wigwag::wire::mqtt::QoS::AtLeastOnce).expect("open");
    let mut publisher = broker.connect(Client::v5("p"));
    for number in 0..3 {
        let woken = Arc::new(Woken::default());
        assert!(inside.poll_recv(&mut Context::from_waker(&Waker::from(Arc::clone(&woken)))).is_pending());
        publisher.send_publish(Message::new("t", number.to_string()).qos(1));
        broker.wait_until("the client inside is woken", |_| woken.0.load(Ordering::SeqCst));
        let received = broker.block_on(inside.recv()).expect("it is not ended");
        assert_eq!(received.payload(), number.to_string().as_bytes());
        for member in &mut crowd {
            assert_eq!(member.expect_message().text(), number.to_string());
        }
    }
}
