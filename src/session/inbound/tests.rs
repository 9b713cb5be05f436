//! What a client may say after CONNECT.

use super::*;
use crate::{
    session::testing::id,
    wire::mqtt::{Auth, Connect, Disconnect, PublishProperties, QoS, SubAck, UserProperties, Will},
};

fn inbound() -> Inbound {
    Inbound::new(Version::V5, 2, 100, 3, 0)
}

fn publish(topic: &str, alias: u16) -> Packet<'_> {
    let topic_alias = NonZeroU16::new(alias);
    let properties = PublishProperties { topic_alias, ..PublishProperties::default() };
    let (qos, payload) = (QoS::AtMostOnce, &b""[..]);
    Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id: None, properties, payload })
}

#[track_caller]
fn refused(inbound: &mut Inbound, packet: Packet<'_>, reason: ReasonCode) {
    match inbound.step(packet) {
        Err(close) => assert_eq!(close.reason, reason),
        Ok(step) => panic!("{step:?}"),
    }
}

#[track_caller]
fn topic(inbound: &mut Inbound, topic: &str, alias: u16) -> String {
    match inbound.step(publish(topic, alias)) {
        Ok(Step::Publish(publish)) => publish.topic.into(),
        other => panic!("{other:?}"),
    }
}

/// [MQTT-3.3.2-7], [MQTT-3.3.2-12] (3.3.2.3.4)
#[test]
fn an_alias_stands_for_the_topic_that_last_came_with_it() {
    let mut inbound = inbound();
    assert_eq!(topic(&mut inbound, "a", 1), "a");
    assert_eq!(topic(&mut inbound, "b", 2), "b");
    assert_eq!(topic(&mut inbound, "", 1), "a");
    assert_eq!(topic(&mut inbound, "c", 1), "c");
    assert_eq!(topic(&mut inbound, "", 1), "c");
    assert_eq!(topic(&mut inbound, "", 2), "b");
    assert_eq!(topic(&mut inbound, "plain", 0), "plain");
}

/// [MQTT-3.3.2-9], 3.3.2.3.4
#[test]
fn an_alias_beyond_the_maximum_or_never_set_ends_the_connection() {
    refused(&mut inbound(), publish("a", 3), ReasonCode::TOPIC_ALIAS_INVALID);
    refused(&mut inbound(), publish("", 1), ReasonCode::PROTOCOL_ERROR);
    let mut without = Inbound::new(Version::V5, 0, 100, 3, 0);
    refused(&mut without, publish("a", 1), ReasonCode::TOPIC_ALIAS_INVALID);
    assert!(without.aliases.is_none());
}

#[test]
fn an_alias_keeps_no_topic_that_is_too_long_to_be_published_to() {
    let mut inbound = inbound();
    let long = "x".repeat(101);
    assert_eq!(topic(&mut inbound, &long, 1), long);
    refused(&mut inbound, publish("", 1), ReasonCode::PROTOCOL_ERROR);
}

/// [MQTT-3.1.0-2], [MQTT-4.12.0-6]; what only a server sends is nothing that a client may.
#[test]
fn packets_that_have_no_place_here_end_the_connection() {
    let ack = SubAck { packet_id: id(1), reason_string: None, user: UserProperties::default(), codes: &[0] };
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive: 0,
        client_id: "again",
        will: None::<Will<'_>>,
        user_name: None,
        password: None,
        properties: Default::default(),
    };
    for packet in [
        Packet::Connect(connect),
        Packet::ConnAck(Default::default()),
        Packet::SubAck(ack.clone()),
        Packet::UnsubAck(ack),
        Packet::PingResp,
        Packet::Auth(Auth::default()),
        Packet::Auth(Auth { reason: ReasonCode(0x19), ..Auth::default() }),
    ] {
        refused(&mut inbound(), packet, ReasonCode::PROTOCOL_ERROR);
    }
    assert!(matches!(inbound().step(Packet::PingReq), Ok(Step::Ping)));
}

#[test]
fn user_properties_are_limited_in_every_packet_that_has_them() {
    let mut bytes = Vec::new();
    (0..4).for_each(|_| UserProperties::push(&mut bytes, "k", "v"));
    let four = UserProperties::new(&bytes).unwrap();
    let three = UserProperties::new(&bytes[..bytes.len() / 4 * 3]).unwrap();
    let ack = |user| Ack { packet_id: id(1), reason: ReasonCode::SUCCESS, reason_string: None, user };
    let disconnect = |user| Packet::Disconnect(Disconnect { user, ..Disconnect::default() });
    let kinds: [fn(Ack<'static>) -> Packet<'static>; 4] =
        [Packet::PubAck, Packet::PubRec, Packet::PubRel, Packet::PubComp];
    assert!(kinds.map(|kind| kind(ack_without_properties())).into_iter().all(|it| inbound().step(it).is_ok()));
    for packet in [Packet::PubAck(ack(four)), Packet::PubRec(ack(four)), Packet::PubRel(ack(four)), disconnect(four)] {
        refused(&mut inbound(), packet, ReasonCode::QUOTA_EXCEEDED);
    }
    assert!(inbound().step(Packet::PubComp(ack(three))).is_ok() && inbound().step(disconnect(three)).is_ok());
}

fn ack_without_properties() -> Ack<'static> {
    Ack { packet_id: id(1), reason: ReasonCode::SUCCESS, reason_string: None, user: UserProperties::default() }
}

/// 3.14.2.2.2
#[test]
fn a_disconnect_may_change_a_session_expiry_but_not_bring_one() {
    let disconnect = |seconds| Packet::Disconnect(Disconnect { session_expiry: seconds, ..Disconnect::default() });
    refused(&mut inbound(), disconnect(Some(1)), ReasonCode::PROTOCOL_ERROR);
    assert!(inbound().step(disconnect(Some(0))).is_ok());
    assert!(inbound().step(disconnect(None)).is_ok());
    assert!(Inbound::new(Version::V5, 0, 100, 0, 10).step(disconnect(Some(u32::MAX))).is_ok());
}

/// [MQTT-4.3.3-10], [MQTT-4.3.3-2]
#[test]
fn a_qos_2_identifier_is_new_once_until_it_is_released() {
    let mut unreleased = Unreleased::default();
    assert_eq!(unreleased.receive(id(7), 10), Ok(true));
    assert_eq!(unreleased.receive(id(7), 10), Ok(false));
    assert!(unreleased.release(id(7)));
    assert!(!unreleased.release(id(7)));
    assert_eq!(unreleased.receive(id(7), 10), Ok(true));
}

/// [MQTT-3.3.4-7]
#[test]
fn more_unreleased_identifiers_than_receive_maximum_end_the_connection() {
    let mut unreleased = Unreleased::default();
    assert!((1..=3).all(|n| unreleased.receive(id(n), 3) == Ok(true)));
    assert_eq!(unreleased.receive(id(2), 3), Ok(false), "a repetition takes no room");
    let refused = unreleased.receive(id(4), 3);
    assert_eq!(refused.map_err(|close| close.reason), Err(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED));
    assert!((1..=3).all(|n| unreleased.release(id(n))));
    assert_eq!(unreleased.0.capacity(), 0, "and give their memory back");
}
