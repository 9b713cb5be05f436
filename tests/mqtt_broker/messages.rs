//! What travels with a message: properties, expiry, request and response (3.3.2.3, 4.10).

use std::time::Duration;

use crate::harness::*;

fn rich() -> Message {
    Message::new("t", "{}")
        .utf8(true)
        .content_type("application/json")
        .response_topic("answers/1")
        .correlation(&[0, 1, 0xFF])
        .user("b", "1")
        .user("a", "2")
        .user("b", "3")
        .user("", "é💡")
}

/// The same as its receivers get it: the broker says who sent it.
fn from_p() -> Message {
    rich().user("username", "p")
}

/// The user property `username` is the broker's, whatever a client puts there.
#[test]
fn the_sender_is_named_by_the_broker() {
    let broker = Broker::start();
    let mut subscriber = broker.connect(Client::v5("s"));
    subscriber.subscribe("t", 0);
    let mut mallory = broker.connect(Client::v5("mallory"));
    mallory.publish(Message::new("t", "m").user("username", "alice").user("k", "v").user("username", "bob"));
    assert_eq!(subscriber.expect_message(), Message::new("t", "m").user("k", "v").user("username", "mallory"));
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-18], [MQTT-3.3.2-20]: passed on unaltered, user properties in their
/// order; live, retained, queued, and in a will.
#[test]
fn properties_are_passed_on() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let subscriber = || Client::kept(Version::V5, "s").over(transport);
        let mut live = broker.connect(subscriber());
        let mut publisher = broker.connect(Client::v5("p").over(transport).will(rich().qos(1)));
        live.subscribe("t", 2);
        for qos in 0..=2 {
            publisher.publish(rich().qos(qos));
            assert_eq!(live.expect_message(), Message { id: u16::from(qos), ..from_p().qos(qos) });
        }
        live.disconnect();
        broker.wait_for_connections(1);
        publisher.publish(rich().qos(1));
        publisher.hang_up();
        broker.wait_for_connections(0);
        let mut queued = broker.connect(subscriber());
        for _ in ["queued", "will"] {
            let message = queued.expect_message();
            assert_eq!(message, Message { id: message.id, ..from_p().qos(1) });
        }
        broker.connect(Client::v5("p")).publish(rich().retain());
        let mut late = broker.connect(Client::v5("late"));
        late.subscribe("t", 0);
        assert_eq!(late.expect_message(), from_p().retain());
    }
}

/// What 3.1.1 cannot say is left out, the message is not.
#[test]
fn properties_are_left_out_for_3_1_1() {
    let broker = Broker::start();
    let mut subscriber = broker.connect(Client::v311("s"));
    subscriber.subscribe("t", 0);
    broker.connect(Client::v5("p")).publish(rich().expiry(60));
    assert_eq!(subscriber.expect_message(), Message::new("t", "{}"));
}

/// 3.3.2.3.2: both values of the Payload Format Indicator, and its absence, are different things.
#[test]
fn the_payload_format_is_passed_on_as_it_was() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c"));
    client.subscribe("t", 0);
    for message in [Message::new("t", ""), Message::new("t", "").utf8(false), Message::new("t", "").utf8(true)] {
        client.publish(message.clone());
        assert_eq!(client.expect_message(), message.user("username", "c"));
    }
}

/// [MQTT-3.3.2-6]: the interval is passed on less the time that the message waited; at once, whole.
#[test]
fn message_expiry_is_counted_down() {
    let broker = Broker::start();
    let subscriber = || Client::kept(Version::V5, "s");
    let mut live = broker.connect(subscriber());
    live.subscribe("t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    for qos in 0..=1 {
        publisher.publish(Message::new("t", "live").qos(qos).expiry(100));
        assert_eq!(live.expect_message().expiry, Some(100));
    }
    live.disconnect();
    broker.wait_for_connections(1);
    publisher.publish(Message::new("t", "queued").qos(1).expiry(100));
    publisher.publish(Message::new("t", "gone").qos(1).expiry(1));
    publisher.publish(Message::new("t", "for ever").qos(1));
    publisher.publish(Message::new("r", "retained").retain().expiry(100));
    publisher.expect_silence(Duration::from_millis(1200));

    let mut back = broker.connect(subscriber());
    let queued = back.expect_message();
    assert_eq!((queued.text(), queued.expiry), ("queued", Some(99)));
    // [MQTT-3.3.2-5]: what has run out is not sent.
    let for_ever = back.expect_message();
    assert_eq!((for_ever.text(), for_ever.expiry), ("for ever", None));
    back.subscribe("r", 0);
    let retained = back.expect_message();
    assert_eq!((retained.text(), retained.expiry), ("retained", Some(99)));
    back.expect_nothing();
}

/// [MQTT-3.3.2-5]: a message that waits for a slow client runs out as well.
#[test]
fn messages_behind_a_full_window_run_out() {
    let broker = Broker::start();
    let mut subscriber = broker.connect(Client::v5("s").receive_maximum(1));
    subscriber.subscribe("t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("t", "first").qos(1).expiry(1));
    publisher.publish(Message::new("t", "second").qos(1).expiry(1));
    publisher.publish(Message::new("t", "third").qos(1));
    let first = subscriber.expect_publish();
    subscriber.expect_silence(Duration::from_millis(1200));
    subscriber.send_puback(first.id);
    assert_eq!(subscriber.expect_message().text(), "third");
    subscriber.expect_nothing();
}

/// [MQTT-3.3.2-5]: what has run out takes no room from what has not (`limits.queue_messages`).
#[test]
fn messages_that_have_run_out_do_not_fill_the_queue() {
    let broker = Broker::start_with(|config| config.limits.queue_messages = 2);
    let subscriber = || Client::kept(Version::V5, "s");
    let mut first = broker.connect(subscriber());
    first.subscribe("t", 1);
    first.disconnect();
    broker.wait_for_connections(0);
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("t", "first").qos(1));
    publisher.publish(Message::new("t", "gone").qos(1).expiry(1));
    publisher.expect_silence(Duration::from_millis(1200));
    publisher.publish(Message::new("t", "last").qos(1));
    let mut second = broker.connect(subscriber());
    assert!(second.present());
    assert_eq!(second.expect_payloads(2), ["first", "last"]);
    second.expect_nothing();
}

/// Delivery that has begun is completed, whatever the interval says [MQTT-3.3.2-5], [MQTT-4.4.0-1].
#[test]
fn what_is_in_flight_is_sent_again_though_its_expiry_has_passed() {
    let broker = Broker::start();
    let subscriber = || Client::kept(Version::V5, "s");
    let mut first = broker.connect(subscriber());
    first.subscribe("t", 1);
    broker.connect(Client::v5("p")).publish(Message::new("t", "m").qos(1).expiry(1));
    let sent = first.expect_publish();
    first.expect_silence(Duration::from_millis(1200));
    first.hang_up();
    let again = broker.connect(subscriber()).expect_publish();
    assert!(again.dup && again.id == sent.id);
}

/// An interval of 0 has run out when it arrives (3.3.2.3.3); nothing is retained either.
#[test]
fn an_expiry_of_zero_is_delivered_to_nobody_later() {
    let broker = Broker::start();
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("t", "m").retain().expiry(0));
    let mut late = broker.connect(Client::v5("late"));
    late.subscribe("t", 0);
    late.expect_nothing();
}

/// 4.10: a request is answered on its response topic with its correlation data, by way of ordinary messages.
#[test]
fn requests_are_answered() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut requester = broker.connect(Client::v5("requester").response_information().over(transport));
        requester.subscribe("answers/requester", 1);
        let mut responder = broker.connect(Client::v5("responder").over(transport));
        responder.subscribe("requests/+", 1);
        for number in 0..3u8 {
            let request = Message::new("requests/sum", [number]).qos(1);
            requester.publish(request.response_topic("answers/requester").correlation(&[number, 0]));
            let request = responder.expect_message();
            let answer = Message::new(&request.response_topic.expect("where to"), "answer").qos(1);
            responder.publish(answer.correlation(&request.correlation.expect("to what")));
            assert_eq!(requester.expect_message().correlation, Some(vec![number, 0]));
        }
    }
}

/// [MQTT-3.3.2-14]: a response topic is a topic name, or the packet is malformed.
#[test]
fn a_response_topic_with_a_wildcard_ends_the_connection() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c"));
    client.send_publish(Message::new("t", "m").response_topic("answers/#"));
    client.expect_disconnect(0x81);
}

/// `limits.user_properties`: more in one packet end the connection, or refuse the CONNECT, with 0x97.
#[test]
fn user_properties_are_bounded() {
    let broker = Broker::start_with(|config| config.limits.user_properties = 2);
    let mut subscriber = broker.connect(Client::v5("s").user("a", "1").user("b", "2"));
    subscriber.subscribe("t", 0);
    let mut client = broker.connect(Client::v5("c"));
    client.publish(Message::new("t", "m").user("a", "1").user("a", "1"));
    assert_eq!(subscriber.expect_message().user.len(), 3, "and the sender's name");
    client.send_publish(Message::new("t", "m").user("a", "1").user("b", "2").user("c", "3"));
    client.expect_disconnect(0x97);
    let crowded = Client::v5("c").user("a", "1").user("b", "2").user("c", "3");
    assert_eq!(broker.connect_refused(crowded).reason, 0x97);
}
