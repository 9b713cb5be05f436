//! The client inside the process, among clients on the wire.

use crate::harness::*;

/// It publishes to and hears from everybody else, at any QoS.
#[test]
fn the_client_inside_takes_part() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut inside = broker.running().client("host").expect("a name");
        let mut outside = broker.connect(Client::new(version, "c").over(transport));
        outside.subscribe("to/outside", 2);
        inside.subscribe("to/inside/+", QoS::ExactlyOnce).expect("allowed");
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(inside.publish("to/outside", b"hello", qos), Ok(true));
            assert_eq!(outside.expect_message().gist(), ("to/outside", "hello", qos as u8, false));
            assert_eq!(outside.publish(Message::new("to/inside/1", "hi").qos(qos as u8)), 0);
            let received = broker.block_on(inside.recv()).expect("a message");
            assert_eq!((received.topic(), received.payload(), received.qos()), ("to/inside/1", &b"hi"[..], qos));
        }
        assert_eq!(inside.publish("to/nobody", b"", QoS::AtLeastOnce), Ok(false));
        outside.expect_nothing();
    });
}

/// Retained messages reach it and come from it.
#[test]
fn the_client_inside_retains() {
    let broker = Broker::start();
    let mut inside = broker.running().client("host").expect("a name");
    inside.publish_retained("t", b"kept", QoS::AtLeastOnce).expect("allowed");
    let mut late = broker.connect(Client::v5("late"));
    late.subscribe("t", 1);
    assert_eq!(late.expect_message().gist(), ("t", "kept", 1, true));
    inside.subscribe("#", QoS::AtMostOnce).expect("allowed");
    let received = broker.block_on(inside.recv()).expect("a message");
    assert!(received.retain() && received.payload() == b"kept");
    assert!(inside.unsubscribe("#") && !inside.unsubscribe("#"));
}

/// It is bound by the same rules: topic names and filters, and who owns `$`.
#[test]
fn the_client_inside_is_bound_by_the_policy() {
    let broker = Broker::start();
    let inside = broker.running().client("host").expect("a name");
    assert!(inside.publish("a/+", b"", QoS::AtMostOnce).is_err());
    assert!(inside.publish("$SYS/x", b"", QoS::AtMostOnce).is_err());
    assert!(inside.subscribe("a#", QoS::AtMostOnce).is_err());
    assert!(broker.running().client("a/b").is_err());
}

/// It ends when it is dropped, and leaves nothing behind.
#[test]
fn the_client_inside_ends_with_its_value() {
    let broker = Broker::start();
    let inside = broker.running().client("host").expect("a name");
    inside.subscribe("t", QoS::AtLeastOnce).expect("allowed");
    let mut outside = broker.connect(Client::v5("c"));
    assert_eq!(outside.publish(Message::new("t", "m").qos(1)), 0);
    drop(inside);
    assert_eq!(outside.publish(Message::new("t", "m").qos(1)), 0x10);
    outside.disconnect();
    broker.wait_for_sessions(0);
    assert_eq!(broker.running().held(), Default::default());
}

/// A share may have it for a member, beside others.
#[test]
fn the_client_inside_may_share() {
    let broker = Broker::start();
    let mut inside = broker.running().client("host").expect("a name");
    inside.subscribe("$share/g/t", QoS::AtLeastOnce).expect("allowed");
    let mut outside = broker.connect(Client::v311("c"));
    outside.subscribe("$share/g/t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    for _ in 0..4 {
        publisher.publish(Message::new("t", "m").qos(1));
    }
    outside.expect_payloads(2);
    outside.expect_nothing();
    for _ in 0..2 {
        broker.block_on(inside.recv()).expect("a message");
    }
}

/// It hears what a large room hears, though it comes last in it.
#[test]
fn the_client_inside_hears_a_large_room() {
    let broker = Broker::start();
    let mut members: Vec<_> = (0..100)
        .map(|n| {
            let mut member = broker.connect(Client::v5(&format!("m{n}")));
            member.subscribe("t", 0);
            member
        })
        .collect();
    let mut inside = broker.running().client("host").expect("a name");
    inside.subscribe("t", QoS::AtMostOnce).expect("allowed");
    broker.block_on(async {
        let heard = tokio::spawn(async move { inside.recv().await.map(|received| received.payload().to_vec()) });
        tokio::task::yield_now().await; // so that it waits
        members[0].publish(Message::new("t", "hello"));
        assert_eq!(heard.await.expect("no panic"), Some(b"hello".to_vec()));
    });
    members.iter_mut().for_each(|member| assert_eq!(member.expect_message().text(), "hello"));
}
