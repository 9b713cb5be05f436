//! What services are told.

use super::*;

#[test]
fn services_are_told_of_rooms_and_members_with_the_length_of_the_stay() {
    let broker = house(LONG, |config| config.server.node = "node-7".into());
    let mut reporter = reporter(&broker);
    let mut alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    alice.disconnect_with(0, None);
    let topics = ["room/opened", "member/joined", "member/left", "room/closed"];
    for topic in topics {
        let message = reporter.expect_message();
        assert_eq!((message.topic.as_str(), message.qos, message.retain), (&*format!("events/{topic}"), 1, false));
        let body = body(&message);
        assert_eq!((&body["node"], &body["room"]), (&json!("node-7"), &json!("demo")));
        let is_end = topic == "member/left" || topic == "room/closed";
        assert_eq!(body["seconds"].as_u64().is_some(), is_end, "{body}");
        assert_eq!(body["user"].is_string(), topic.starts_with("member"), "{body}");
    }
    alice = broker.connect(user(Version::V5, "a", "alice"));
    assert_eq!(alice.subscribe("events/#", 1), 0x87);
}

#[test]
fn a_service_with_a_kept_session_misses_nothing() {
    let broker = house(LONG, |_| {});
    let service = |clean| {
        let client = with_claims(Client::v5("service"), json!({ "sub": "billing", "roles": ["service"] }));
        Client { clean, expiry: 60, ..client }
    };
    let mut billing = broker.connect(service(true));
    billing.subscribe("events/member/+", 1);
    billing.hang_up();
    broker.wait_for_connections(0);
    member(&broker, user(Version::V5, "a", "alice"), "demo").disconnect();
    broker.wait_for_connections(0);
    let mut billing = broker.connect(service(false));
    assert_eq!(event(&mut billing), "member/joined demo alice");
    assert_eq!(event(&mut billing), "member/left demo alice left");
    billing.expect_nothing();
}

#[test]
fn services_are_told_who_was_not_let_in() {
    let broker = house(LONG, |_| {});
    let mut reporter = reporter(&broker);
    broker.connect_refused(Client::v5("m").user_name("mallory").password(b"guess"));
    let message = reporter.expect_message();
    assert_eq!(message.topic, "events/connection/refused");
    assert_eq!(body(&message)["user"], "mallory");
    assert!(body(&message)["reason"].is_string());
}

#[test]
fn who_finds_no_place_is_counted() {
    let broker = house(LONG, |config| config.rooms.members = Some(1));
    let refused =
        |reason: &str| broker.metric(&format!("wigwag_refused_total{{action=\"subscribe\",reason=\"{reason}\"}}"));
    let mut ada = member(&broker, user(Version::V5, "ada", "ada"), "ours");
    let mut bob = broker.connect(user(Version::V5, "b", "bob"));
    assert_eq!(join(&mut bob, "ours"), 0x97);
    assert_eq!((refused("quota exceeded"), refused("not authorized")), (1, 0));
    ada.publish(order("ours", "ada", json!({ "action": "lock" })));
    assert_eq!(join(&mut bob, "ours"), 0x87);
    ada.publish(order("ours", "ada", json!({ "action": "ban", "user": "bob", "seconds": 60 })));
    assert_eq!(join(&mut bob, "ours"), 0x87);
    assert_eq!((refused("quota exceeded"), refused("not authorized")), (1, 2));
}

#[test]
fn joins_and_leaves_are_counted() {
    let broker = house(SHORT, |_| {});
    let leaves = |reason: &str| broker.metric(&format!("wigwag_room_leaves_total{{reason=\"{reason}\"}}"));
    member(&broker, user(Version::V5, "a", "alice"), "demo").disconnect();
    member(&broker, user(Version::V5, "a", "alice"), "demo").hang_up();
    broker.wait_until("she has left", |running| running.held().members == 0);
    assert_eq!((broker.metric("wigwag_room_joins_total"), leaves("left"), leaves("lost")), (2, 1, 1));
    let mut ada = member(&broker, user(Version::V5, "ada", "ada"), "ours");
    for (action, reason) in [("kick", "kicked"), ("close", "closed")] {
        let _bob = member(&broker, user(Version::V5, action, action), "ours");
        assert_eq!(ada.publish(order("ours", "ada", json!({ "action": action, "user": action }))) & 0x80, 0);
        assert_eq!(leaves(reason), if action == "close" { 2 } else { 1 }, "{reason}");
    }
    assert_eq!(broker.metric("wigwag_room_joins_total"), 2 + 3);
    let _alice = member(&broker, user(Version::V5, "a", "alice"), "demo");
    assert_eq!((broker.metric("wigwag_rooms"), broker.metric("wigwag_room_members")), (1, 1));
}
