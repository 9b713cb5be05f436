//! Wills on topics of rooms: the last word of a stay, not of a connection.

use super::*;

fn last_words(room: &str, from: &str) -> Message {
    Message::new(&format!("rooms/{room}/chat"), json!({ "username": from, "bye": true }).to_string()).qos(1)
}

/// A member with a chat to hear.
fn hearing(broker: &Broker) -> Connection {
    let mut walter = member(broker, user(Version::V5, "w", "walter"), "ours");
    walter.subscribe("rooms/ours/chat", 1);
    walter
}

fn leaves_will(version: Version, id: &str) -> Client {
    user(version, id, "alice").will(last_words("ours", "alice"))
}

#[test]
fn a_will_is_sent_when_the_stay_is_over() {
    for version in VERSIONS {
        let broker = house(SHORT, |_| {});
        let mut walter = hearing(&broker);
        member(&broker, leaves_will(version, "a"), "ours").hang_up();
        assert_eq!(body(&walter.expect_message())["bye"], true);
        walter.expect_nothing();
        member(&broker, leaves_will(version, "a"), "ours").disconnect();
        broker.wait_until("she has left", |running| running.held().members == 1);
        walter.expect_nothing(); // [MQTT-3.14.4-3]
        if version == Version::V5 {
            member(&broker, leaves_will(version, "a"), "ours").disconnect_with(4, None);
            assert_eq!(body(&walter.expect_message())["bye"], true);
        }
    }
}

#[test]
fn a_will_is_not_sent_for_who_is_back_was_put_out_or_never_came() {
    for version in VERSIONS {
        let broker = house(LONG, |_| {});
        let mut walter = hearing(&broker);
        // Reloaded: another session, whose own goodbye is a clean one.
        member(&broker, leaves_will(version, "a"), "ours").hang_up();
        let back = member(&broker, user(version, "b", "alice"), "ours");
        // Never joined.
        broker.connect(user(version, "c", "carol").will(last_words("ours", "carol"))).hang_up();
        // Back with the same session, and another will.
        let keeps = Client { clean: false, expiry: 60, ..leaves_will(version, "k").user_name("kim") };
        let keeps = Client { will: Some(last_words("ours", "kim").into()), ..keeps };
        let keeps = Client { password: user(version, "k", "kim").password, ..keeps };
        member(&broker, keeps.clone(), "ours").hang_up();
        let kim = broker.connect(keeps);
        assert!(kim.present());
        // Kicked: the connection ends, since it is in no other room.
        let mut dave = member(&broker, user(version, "d", "dave").will(last_words("ours", "dave")), "ours");
        let kick = order("ours", "walter", json!({ "action": "kick", "user": "dave", "seconds": 0 }));
        assert_eq!(walter.publish(kick), 0);
        while dave.next(PATIENCE).is_ok() {}
        walter.expect_nothing();
        back.disconnect();
        kim.disconnect();
        broker.wait_until("they have left", |running| running.held().members == 1);
        walter.expect_nothing();
    }
}

#[test]
fn a_will_that_its_sender_could_not_publish_as_a_member_is_refused_at_once() {
    let broker = house(LONG, |_| {});
    let will = |message: Message| user(Version::V5, "a", "alice").will(message);
    let presence = Message::new("rooms/demo/presence/alice", r#"{"status":"offline"}"#).qos(1);
    for (client, reason) in [
        (will(presence.clone()), 0x87),
        (will(presence.retain()), 0x87),
        (will(last_words("demo", "bob")), 0x87),
        (will(last_words("demo", "alice").retain()), 0x9A),
        (will(Message::new("rooms/demo/signal", "gone").qos(1)), 0x99),
        (will(Message::new("rooms/demo/signal", r#"{"bye":true}"#).qos(1)), 0x99),
    ] {
        assert_eq!(broker.connect_refused(client).reason, reason);
    }
    let elsewhere = json!({ "sub": "eve", "rooms": { "other": ["join"] } });
    let eve = with_claims(Client::v5("e"), elsewhere).will(last_words("demo", "eve"));
    assert_eq!(broker.connect_refused(eve).reason, 0x87);
}
