//! Wills (3.1.2.5, 3.1.3.2).

use std::time::{Duration, Instant};

use crate::harness::*;

fn will() -> Message {
    Message::new("will/c", "gone").qos(1)
}

fn watcher(broker: &Broker) -> Connection {
    let mut watcher = broker.connect(Client::v5("watcher"));
    watcher.subscribe("will/+", 2);
    watcher
}

/// [MQTT-3.1.2-8], 3.1.2.5: a connection that ends without DISCONNECT.
#[test]
fn a_will_is_sent_when_the_connection_is_lost() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut watcher = watcher(&broker);
        for qos in 0..=2 {
            broker.connect(Client::new(version, "c").over(transport).will(will().qos(qos))).hang_up();
            assert_eq!(watcher.expect_message().gist(), ("will/c", "gone", qos, false));
        }
        watcher.expect_nothing();
    });
}

/// [MQTT-3.14.4-3], [MQTT-3.1.2-10]: DISCONNECT 0x00 discards it.
#[test]
fn a_will_is_not_sent_after_disconnect() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut watcher = watcher(&broker);
        broker.connect(Client::new(version, "c").over(transport).will(will())).disconnect();
        broker.connect(Client::kept(version, "c").over(transport).will(will())).disconnect();
        broker.wait_for_connections(1);
        watcher.expect_nothing();
        // It is gone for good, though the session goes on.
        broker.connect(Client::kept(version, "c").over(transport)).hang_up();
        broker.wait_for_connections(1);
        watcher.expect_nothing();
    });
}

/// 3.14.2.1: DISCONNECT 0x04 asks for it; so does every reason but 0x00 [MQTT-3.14.4-3].
#[test]
fn a_will_is_sent_after_a_disconnect_that_asks_for_it() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut watcher = watcher(&broker);
        for reason in [0x04, 0x80, 0x97] {
            broker.connect(Client::v5("c").over(transport).will(will())).disconnect_with(reason, None);
            assert_eq!(watcher.expect_message().text(), "gone");
        }
        watcher.expect_nothing();
    }
}

/// 3.1.2.5: the broker ends the connection: keep alive, protocol error, malformed packet, larger than allowed.
#[test]
fn a_will_is_sent_when_the_broker_ends_the_connection() {
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.packet = 1024);
        let mut watcher = watcher(&broker);
        let connect = || broker.connect(Client::new(version, "c").over(transport).keep_alive(1).will(will()));
        let mut again = connect();
        again.send_bytes(&Client::new(version, "c").encode());
        again.expect_disconnect(0x82);
        assert_eq!(watcher.expect_message().text(), "gone");
        let mut malformed = connect();
        malformed.send_bytes(&[0x00, 0]);
        malformed.expect_disconnect(0x81);
        assert_eq!(watcher.expect_message().text(), "gone");
        let mut large = connect();
        large.send_publish(Message::new("t", [0; 2000]));
        large.expect_disconnect(0x95);
        assert_eq!(watcher.expect_message().text(), "gone");
        let mut silent = connect();
        silent.expect_disconnect(0x8D);
        assert_eq!(watcher.expect_message().text(), "gone");
        watcher.expect_nothing();
    });
}

/// A WebSocket that is closed without a DISCONNECT has not said goodbye in MQTT [MQTT-3.1.2-8].
#[test]
fn a_will_is_sent_when_only_the_websocket_is_closed() {
    for version in VERSIONS {
        let broker = Broker::start();
        let mut watcher = watcher(&broker);
        let mut client = broker.connect(Client::new(version, "c").over(Transport::WebSocket).will(will()));
        client.socket.send_frame(Opcode::Close, &1000u16.to_be_bytes());
        client.expect_closed();
        assert_eq!(watcher.expect_message().text(), "gone");
    }
}

/// [MQTT-3.1.2-14], [MQTT-3.1.2-15]: retained or not, as the will says; an empty one clears.
#[test]
fn a_will_may_be_retained() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let late = || {
            let mut late = broker.connect(Client::new(version, "late"));
            late.subscribe("will/c", 1);
            late
        };
        let lose = |will| {
            broker.connect(Client::new(version, "c").over(transport).will(will)).hang_up();
            broker.wait_for_connections(0);
        };
        lose(will());
        late().expect_nothing();
        broker.wait_for_connections(0);
        lose(will().retain());
        assert_eq!(late().expect_message().gist(), ("will/c", "gone", 1, true));
        broker.wait_for_connections(0);
        lose(Message::new("will/c", "").retain());
        late().expect_nothing();
    });
}

/// [MQTT-3.1.3-9], 3.1.3.2.2: a delayed will is sent after its delay, if the session lasts that long.
#[test]
fn a_will_is_delayed() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    let start = Instant::now();
    broker.connect(Client::v5("c").expiry(60).will(Will::delayed(will(), 1))).hang_up();
    broker.wait_for_connections(1);
    watcher.expect_nothing();
    assert_eq!(watcher.expect_message().text(), "gone");
    let after = start.elapsed();
    assert!((Duration::from_millis(950)..Duration::from_millis(2000)).contains(&after), "{after:?}");
    assert!(broker.connect(Client::v5("c").clean(false)).present(), "the session goes on");
}

/// 3.1.3.2.2: the end of the session comes before the delay: at its expiry, at once without one, and by DISCONNECT.
#[test]
fn a_delayed_will_is_sent_when_its_session_ends() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    let client = |expiry| Client::v5("c").clean(false).expiry(expiry).will(Will::delayed(will(), 60));
    broker.connect(client(0)).hang_up();
    assert_eq!(watcher.expect_message().text(), "gone");
    let start = Instant::now();
    broker.connect(client(1)).hang_up();
    assert_eq!(watcher.expect_message().text(), "gone");
    assert!(start.elapsed() >= Duration::from_millis(950));
    broker.connect(client(60)).disconnect_with(0x04, Some(0));
    assert_eq!(watcher.expect_message().text(), "gone");
    // A clean start ends it as well [MQTT-3.1.2-4].
    broker.connect(client(60)).hang_up();
    broker.wait_for_connections(1);
    watcher.expect_nothing();
    let clean = broker.connect(Client::v5("c"));
    assert_eq!(watcher.expect_message().text(), "gone");
    clean.disconnect();
    watcher.expect_nothing();
}

/// [MQTT-3.1.3-9]: a client that comes back within the delay takes its will back.
#[test]
fn a_delayed_will_is_cancelled_by_coming_back() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut watcher = watcher(&broker);
        let client = || Client::v5("c").clean(false).expiry(60).over(transport);
        broker.connect(client().will(Will::delayed(will(), 1))).hang_up();
        broker.wait_for_connections(1);
        let back = broker.connect(client());
        assert!(back.present());
        watcher.expect_silence(Duration::from_millis(1300));
        back.hang_up();
        broker.wait_for_connections(1);
        watcher.expect_nothing();
    }
}

/// 3.1.4: a take-over ends the older connection, so its will is sent: not if it is delayed and the session goes on.
#[test]
fn a_take_over_sends_the_will_unless_it_is_delayed_and_the_session_goes_on() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    for version in VERSIONS {
        for clean in [true, false] {
            let mut first = broker.connect(Client::kept(version, "c").user_name("u").will(will()));
            let second = broker.connect(Client::kept(version, "c").user_name("u").clean(clean));
            first.expect_disconnect(0x8E);
            assert_eq!(watcher.expect_message().text(), "gone", "{version:?} {clean}");
            second.disconnect();
        }
    }
    for clean in [true, false] {
        let delayed = Client::kept(Version::V5, "d").will(Will::delayed(will(), 60));
        let mut first = broker.connect(delayed);
        let second = broker.connect(Client::kept(Version::V5, "d").clean(clean));
        first.expect_disconnect(0x8E);
        if clean {
            assert_eq!(watcher.expect_message().text(), "gone");
        }
        watcher.expect_nothing();
        second.disconnect();
    }
}

/// 3.3.2.3.3 for a will: its expiry interval begins when it is sent.
#[test]
fn the_expiry_of_a_will_begins_when_it_is_sent() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    let client = Client::v5("c").expiry(60).will(Will::delayed(will().expiry(100), 2));
    broker.connect(client).hang_up();
    assert_eq!(watcher.expect_message().expiry, Some(100));
}

/// A will is not sent before the connection ends, and not again afterwards.
#[test]
fn a_will_is_sent_once() {
    for version in VERSIONS {
        let broker = Broker::start();
        let mut watcher = watcher(&broker);
        let mut client = broker.connect(Client::kept(version, "c").will(will()));
        client.ping();
        watcher.expect_nothing();
        client.hang_up();
        assert_eq!(watcher.expect_message().text(), "gone");
        broker.connect(Client::kept(version, "c")).hang_up();
        broker.wait_for_connections(1);
        watcher.expect_nothing();
    }
}

/// [MQTT-3.1.2-9]: a CONNECT that is refused leaves no will.
#[test]
fn a_refused_connection_has_no_will() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker);
    broker.connect_refused(Client::v5("c").user_name("a/b").will(will()));
    broker.connect_refused(Client::v311("").clean(false).will(will()));
    watcher.expect_nothing();
}
