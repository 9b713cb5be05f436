//! Packets made up, encoded, decoded and compared.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::prelude::*;

use super::*;

#[track_caller]
fn round_trip(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, version, packet);
    assert_eq!(decode(&bytes, version, usize::MAX), Ok(Some((packet.clone(), bytes.len()))), "{bytes:02x?}");
    for end in 0..bytes.len().min(300) {
        assert_eq!(decode(&bytes[..end], version, usize::MAX), Ok(None), "{:02x?}", &bytes[..end]);
    }
    bytes
}

/// Choices, drawn from numbers that proptest can shrink; 0 for ever once they are used up.
struct Tape<'a>(std::slice::Iter<'a, u32>);

impl Tape<'_> {
    fn number(&mut self) -> u32 {
        self.0.next().copied().unwrap_or(0)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.number() as usize % choices.len()]
    }

    fn flag(&mut self) -> bool {
        self.one_of(&[false, true])
    }

    fn maybe<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| value(self))
    }

    fn text(&mut self) -> &'static str {
        static LONG: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "ü".repeat(32_767));
        self.one_of(&["", "a", "b/c", "+/#", "käse 🧀", "\u{FEFF}\u{1}\u{FFFF}", LONG.as_str()])
    }

    fn data(&mut self) -> &'static [u8] {
        self.one_of(&[b"", b"\0", b"\xFF\xFE", b"{\"username\":\"alice\"}", &[7; 200]])
    }

    fn name(&mut self) -> &'static str {
        self.one_of(&["a", "/", "rooms/demo/signal", "$SYS/x", "ä//ö"])
    }

    fn filter(&mut self) -> &'static str {
        self.one_of(&["a", "#", "+", "/", "rooms/+/signal/#", "$share/g/a/#", "$share/g//"])
    }

    fn nonzero(&mut self) -> NonZeroU16 {
        NonZeroU16::new(self.number() as u16).unwrap_or(NonZeroU16::MAX)
    }

    fn nonzero_u32(&mut self) -> NonZeroU32 {
        NonZeroU32::new(self.number()).unwrap_or(NonZeroU32::MIN)
    }

    fn subscription_id(&mut self) -> NonZeroU32 {
        let id = self.one_of(&[1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455]);
        NonZeroU32::new(id).unwrap()
    }

    fn qos(&mut self) -> QoS {
        self.one_of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    fn reason(&mut self, codes: &[u8]) -> ReasonCode {
        ReasonCode(self.one_of(codes))
    }
}

/// What the views of a made-up packet look at.
struct Lists {
    user: Vec<u8>,
    ids: Vec<u8>,
    subscribe: Vec<u8>,
    unsubscribe: Vec<u8>,
}

impl Lists {
    fn draw(tape: &mut Tape<'_>, version: Version) -> Self {
        let mut lists = Self { user: vec![], ids: vec![], subscribe: vec![], unsubscribe: vec![] };
        for _ in 0..tape.one_of(&[0, 1, 3]) {
            UserProperties::push(&mut lists.user, tape.text(), tape.text());
        }
        for _ in 0..tape.one_of(&[0, 1, 3]) {
            SubscriptionIds::push(&mut lists.ids, tape.subscription_id());
        }
        for _ in 0..tape.one_of(&[1, 4]) {
            let filter = tape.filter();
            let mut options = SubscribeOptions::new(tape.qos());
            if version == Version::V5 {
                options.no_local = tape.flag() && !filter.starts_with("$share/");
                options.retain_as_published = tape.flag();
                options.retain_handling = tape.one_of(&[
                    RetainHandling::SendAtSubscribe,
                    RetainHandling::SendIfNew,
                    RetainHandling::DoNotSend,
                ]);
            }
            SubscribeFilters::push(&mut lists.subscribe, filter, options);
            UnsubscribeFilters::push(&mut lists.unsubscribe, filter);
        }
        lists
    }

    fn user(&self) -> UserProperties<'_> {
        UserProperties::new(&self.user).unwrap()
    }
}

/// A packet that says everything its version can.
fn packet<'l>(tape: &mut Tape<'_>, version: Version, lists: &'l Lists) -> Packet<'l> {
    let kind = tape.one_of(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    match version {
        Version::V311 => packet_311(tape, kind, lists),
        Version::V5 => packet_5(tape, kind, lists),
    }
}

fn packet_311<'l>(tape: &mut Tape<'_>, kind: u8, lists: &'l Lists) -> Packet<'l> {
    let packet_id = tape.nonzero();
    let (reason_string, user) = (None, UserProperties::default());
    let ack = Ack { packet_id, reason: ReasonCode::SUCCESS, reason_string, user };
    match kind {
        0 => {
            let user_name = tape.maybe(Tape::text);
            Packet::Connect(Connect {
                version: Version::V311,
                clean_start: tape.flag(),
                keep_alive: tape.number() as u16,
                client_id: tape.text(),
                will: tape.maybe(|tape| Will {
                    delay: 0,
                    properties: PublishProperties::default(),
                    ..will(tape, lists)
                }),
                user_name,
                password: user_name.and_then(|_| tape.maybe(Tape::data)),
                properties: ConnectProperties::default(),
            })
        }
        1 => {
            let reason = tape.reason(&[0, 1, 2, 3, 4, 5]);
            let session_present = reason == ReasonCode::SUCCESS && tape.flag();
            Packet::ConnAck(ConnAck { session_present, reason, properties: ConnAckProperties::default() })
        }
        2 => Packet::Publish(publish(tape, PublishProperties::default())),
        3 => Packet::PubAck(ack),
        4 => Packet::PubRec(ack),
        5 => Packet::PubRel(ack),
        6 => Packet::PubComp(ack),
        7 => {
            let filters = SubscribeFilters::new(&lists.subscribe).unwrap();
            Packet::Subscribe(Subscribe { packet_id, subscription_id: None, user, filters })
        }
        8 => Packet::SubAck(SubAck { packet_id, reason_string, user, codes: tape.one_of(&[&[0], &[2, 0x80, 1]]) }),
        9 => {
            let filters = UnsubscribeFilters::new(&lists.unsubscribe).unwrap();
            Packet::Unsubscribe(Unsubscribe { packet_id, user, filters })
        }
        10 => Packet::UnsubAck(SubAck { packet_id, reason_string, user, codes: &[] }),
        11 => Packet::PingReq,
        12 => Packet::PingResp,
        _ => Packet::Disconnect(Disconnect::default()),
    }
}

fn packet_5<'l>(tape: &mut Tape<'_>, kind: u8, lists: &'l Lists) -> Packet<'l> {
    let (packet_id, reason_string, user) = (tape.nonzero(), tape.maybe(Tape::text), lists.user());
    let publish_ack = tape.reason(&[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
    let pubrec_ack = tape.reason(&[0, 0x92]);
    let ack = |reason| Ack { packet_id, reason, reason_string, user };
    match kind {
        0 => Packet::Connect(Connect {
            version: Version::V5,
            clean_start: tape.flag(),
            keep_alive: tape.number() as u16,
            client_id: tape.text(),
            will: tape.maybe(|tape| will(tape, lists)),
            user_name: tape.maybe(Tape::text),
            password: tape.maybe(Tape::data),
            properties: connect_properties(tape, lists),
        }),
        1 => {
            let reason = tape.reason(&[0, 0, 0x80, 0x84, 0x87, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9D, 0x9F]);
            let session_present = reason == ReasonCode::SUCCESS && tape.flag();
            Packet::ConnAck(ConnAck { session_present, reason, properties: connack_properties(tape, lists) })
        }
        2 => {
            let topic_alias = tape.maybe(Tape::nonzero);
            let subscription_ids = SubscriptionIds::new(&lists.ids).unwrap();
            let properties = PublishProperties { topic_alias, subscription_ids, ..message(tape, lists) };
            Packet::Publish(publish(tape, properties))
        }
        3 => Packet::PubAck(ack(publish_ack)),
        4 => Packet::PubRec(ack(publish_ack)),
        5 => Packet::PubRel(ack(pubrec_ack)),
        6 => Packet::PubComp(ack(pubrec_ack)),
        7 => {
            let subscription_id = tape.maybe(Tape::subscription_id);
            let filters = SubscribeFilters::new(&lists.subscribe).unwrap();
            Packet::Subscribe(Subscribe { packet_id, subscription_id, user, filters })
        }
        8 => {
            let codes = tape.one_of::<&[u8]>(&[&[0], &[1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]]);
            Packet::SubAck(SubAck { packet_id, reason_string, user, codes })
        }
        9 => {
            let filters = UnsubscribeFilters::new(&lists.unsubscribe).unwrap();
            Packet::Unsubscribe(Unsubscribe { packet_id, user, filters })
        }
        10 => {
            let codes = tape.one_of::<&[u8]>(&[&[0], &[0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]]);
            Packet::UnsubAck(SubAck { packet_id, reason_string, user, codes })
        }
        11 => Packet::PingReq,
        12 => Packet::PingResp,
        13 => Packet::Disconnect(Disconnect {
            reason: tape.reason(&[0, 4, 0x80, 0x82, 0x8B, 0x8E, 0x93, 0x98, 0xA2]),
            session_expiry: tape.maybe(Tape::number),
            reason_string,
            user,
            server_reference: tape.maybe(Tape::text),
        }),
        _ => Packet::Auth(Auth {
            reason: tape.reason(&[0, 0x18, 0x19]),
            authentication_method: Some(tape.text()),
            authentication_data: tape.maybe(Tape::data),
            reason_string,
            user,
        }),
    }
}

fn publish<'l>(tape: &mut Tape<'_>, properties: PublishProperties<'l>) -> Publish<'l> {
    let qos = tape.qos();
    Publish {
        dup: qos > QoS::AtMostOnce && tape.flag(),
        qos,
        retain: tape.flag(),
        topic: if properties.topic_alias.is_some() && tape.flag() { "" } else { tape.name() },
        packet_id: (qos > QoS::AtMostOnce).then(|| tape.nonzero()),
        properties,
        payload: tape.data(),
    }
}

fn message<'l>(tape: &mut Tape<'_>, lists: &'l Lists) -> PublishProperties<'l> {
    PublishProperties {
        payload_is_utf8: tape.maybe(Tape::flag),
        message_expiry: tape.maybe(Tape::number),
        response_topic: tape.maybe(Tape::name),
        correlation_data: tape.maybe(Tape::data),
        content_type: tape.maybe(Tape::text),
        user: lists.user(),
        ..PublishProperties::default()
    }
}

fn will<'l>(tape: &mut Tape<'_>, lists: &'l Lists) -> Will<'l> {
    Will {
        qos: tape.qos(),
        retain: tape.flag(),
        topic: tape.name(),
        payload: tape.data(),
        delay: tape.number(),
        properties: message(tape, lists),
    }
}

fn connect_properties<'l>(tape: &mut Tape<'_>, lists: &'l Lists) -> ConnectProperties<'l> {
    let authentication_method = tape.maybe(Tape::text);
    ConnectProperties {
        session_expiry: tape.number(),
        receive_maximum: tape.nonzero(),
        maximum_packet_size: tape.maybe(Tape::nonzero_u32),
        topic_alias_maximum: tape.number() as u16,
        request_response_information: tape.flag(),
        request_problem_information: tape.flag(),
        user: lists.user(),
        authentication_method,
        authentication_data: authentication_method.and_then(|_| tape.maybe(Tape::data)),
    }
}

fn connack_properties<'l>(tape: &mut Tape<'_>, lists: &'l Lists) -> ConnAckProperties<'l> {
    let authentication_method = tape.maybe(Tape::text);
    ConnAckProperties {
        session_expiry: tape.maybe(Tape::number),
        receive_maximum: tape.maybe(Tape::nonzero),
        maximum_qos: tape.maybe(|tape| tape.one_of(&[QoS::AtMostOnce, QoS::AtLeastOnce])),
        retain_available: tape.maybe(Tape::flag),
        maximum_packet_size: tape.maybe(Tape::nonzero_u32),
        assigned_client_id: tape.maybe(Tape::text),
        topic_alias_maximum: tape.maybe(|tape| tape.number() as u16),
        reason_string: tape.maybe(Tape::text),
        user: lists.user(),
        wildcard_subscription_available: tape.maybe(Tape::flag),
        subscription_identifiers_available: tape.maybe(Tape::flag),
        shared_subscription_available: tape.maybe(Tape::flag),
        server_keep_alive: tape.maybe(|tape| tape.number() as u16),
        response_information: tape.maybe(Tape::text),
        server_reference: tape.maybe(Tape::text),
        authentication_method,
        authentication_data: authentication_method.and_then(|_| tape.maybe(Tape::data)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_encoded_decodes_to_itself(five: bool, numbers in prop::collection::vec(any::<u32>(), 0..80)) {
        let version = if five { Version::V5 } else { Version::V311 };
        let mut tape = Tape(numbers.iter());
        let lists = Lists::draw(&mut tape, version);
        round_trip(version, &packet(&mut tape, version, &lists));
    }

    #[test]
    fn a_header_beside_its_payload_is_the_packet(five: bool, numbers in prop::collection::vec(any::<u32>(), 0..60)) {
        let version = if five { Version::V5 } else { Version::V311 };
        let mut tape = Tape(numbers.iter());
        let lists = Lists::draw(&mut tape, version);
        let Packet::Publish(publish) = (if five {
            packet_5(&mut tape, 2, &lists)
        } else {
            packet_311(&mut tape, 2, &lists)
        }) else { unreachable!() };
        let mut properties = Vec::new();
        publish.properties.encode_forwarded(None, &mut properties);
        let header = PublishHeader {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic,
            packet_id: publish.packet_id,
            topic_alias: publish.properties.topic_alias,
            message_expiry: publish.properties.message_expiry,
            subscription_ids: &publish.properties.subscription_ids.iter().collect::<Vec<_>>(),
            properties: &properties,
received: None,
        };
        let mut bytes = Vec::new();
        publish_header(&mut bytes, version, &header, publish.payload.len());
        bytes.extend_from_slice(publish.payload);
        prop_assert_eq!(decode(&bytes, version, usize::MAX), Ok(Some((Packet::Publish(publish), bytes.len()))));
    }

    #[test]
    fn no_bytes_panic(version in prop::sample::select(vec![Version::V311, Version::V5]), bytes: Vec<u8>) {
        let _ = decode(&bytes, version, usize::MAX);
        connect_level(&bytes);
    }
}

fn encoded(version: Version, packet: Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(&mut bytes, version, &packet);
    bytes
}

fn ack(reason: ReasonCode) -> Ack<'static> {
    Ack { packet_id: NonZeroU16::new(7).unwrap(), reason, reason_string: None, user: UserProperties::default() }
}

#[test]
fn the_shortest_form_is_written() {
    let reason = |reason| Disconnect { reason, ..Disconnect::default() };
    assert_eq!(encoded(Version::V5, Packet::PubAck(ack(ReasonCode::SUCCESS))), [0x40, 2, 0, 7]);
    assert_eq!(encoded(Version::V5, Packet::PubAck(ack(ReasonCode::NOT_AUTHORIZED))), [0x40, 3, 0, 7, 0x87]);
    assert_eq!(encoded(Version::V5, Packet::Disconnect(reason(ReasonCode::SUCCESS))), [0xE0, 0]);
    assert_eq!(encoded(Version::V5, Packet::Disconnect(reason(ReasonCode::SESSION_TAKEN_OVER))), [0xE0, 1, 0x8E]);
    assert_eq!(encoded(Version::V5, Packet::Auth(Auth::default())), [0xF0, 0]);
    assert_eq!(encoded(Version::V5, Packet::ConnAck(ConnAck::default())), [0x20, 3, 0, 0, 0]);
}

#[test]
fn what_3_1_1_cannot_say_is_left_out() {
    let suback = |codes| SubAck {
        packet_id: NonZeroU16::new(7).unwrap(),
        reason_string: Some("why"),
        user: UserProperties::default(),
        codes,
    };
    let disconnect = Disconnect { reason: ReasonCode::SERVER_SHUTTING_DOWN, ..Disconnect::default() };
    assert_eq!(encoded(Version::V311, Packet::PubRec(ack(ReasonCode::QUOTA_EXCEEDED))), [0x50, 2, 0, 7]);
    assert_eq!(encoded(Version::V311, Packet::SubAck(suback(&[1, 0x87, 0x97]))), [0x90, 5, 0, 7, 1, 0x80, 0x80]);
    assert_eq!(encoded(Version::V311, Packet::UnsubAck(suback(&[0x11]))), [0xB0, 2, 0, 7]);
    assert_eq!(encoded(Version::V311, Packet::Disconnect(disconnect)), [0xE0, 0]);
    assert!(encoded(Version::V311, Packet::Auth(Auth::default())).is_empty());
}

#[test]
fn what_is_too_long_is_cut() {
    let mut bytes = Vec::new();
    UserProperties::push(&mut bytes, &"é".repeat(40_000), "v");
    let user = UserProperties::new(&bytes).unwrap();
    assert_eq!(user.iter().map(|(key, value)| (key.len(), value)).collect::<Vec<_>>(), [(65_534, "v")]);
}

#[test]
fn views_look_past_what_is_not_theirs() {
    // Content Type between user properties, an alias between subscription identifiers.
    let bytes =
        b"\x30\x1C\x00\x01t\x18\x26\x00\x01a\x00\x01b\x03\x00\x01c\x0B\x81\x01\x23\x00\x05\x0B\x02\x26\x00\x00\x00\x00";
    let Ok(Some((Packet::Publish(publish), _))) = decode(bytes, Version::V5, 100) else { panic!() };
    assert_eq!(publish.properties.user.len(), 2);
    assert_eq!(publish.properties.user.iter().collect::<Vec<_>>(), [("a", "b"), ("", "")]);
    assert_eq!(publish.properties.subscription_ids.iter().map(NonZeroU32::get).collect::<Vec<_>>(), [129, 2]);
    assert_eq!(format!("{:?}", publish.properties.user), r#"[("a", "b"), ("", "")]"#);

    let mut together = Vec::new();
    UserProperties::push(&mut together, "a", "b");
    UserProperties::push(&mut together, "", "");
    assert_eq!(publish.properties.user, UserProperties::new(&together).unwrap());
    assert_ne!(publish.properties.user, UserProperties::default());
}

#[test]
fn views_of_anything_else_are_refused() {
    assert!(UserProperties::new(b"\x26\x00\x01a\x00").is_err());
    assert!(UserProperties::new(b"\x02\x00\x00\x00\x00").is_err());
    assert!(SubscriptionIds::new(b"\x0B\x00").is_err());
    assert!(SubscriptionIds::new(b"\x26\x00\x00\x00\x00").is_err());
    assert!(SubscribeFilters::new(b"").is_err() && SubscribeFilters::new(b"\x00\x01a\x03").is_err());
    assert!(UnsubscribeFilters::new(b"").is_err() && UnsubscribeFilters::new(b"\x00\x02a#").is_err());
}

#[test]
fn a_refused_connect_tells_its_level() {
    assert_eq!(connect_level(b"\x10\x0C\x00\x06MQIsdp\x03\x02"), Some(3));
    assert_eq!(connect_level(b"\x10\x0C\x00\x04MQTT\x06\x02"), Some(6));
    assert_eq!(connect_level(b"\x10\x0C\x00\x04MQTT"), None);
    assert_eq!(connect_level(b"\x30\x0C\x00\x04MQTT\x06\x02"), None);
}

#[test]
fn what_only_a_server_sends() {
    let from_client = |bytes: &[u8]| {
        let (packet, _) = decode(bytes, Version::V5, 100).unwrap().unwrap();
        check_from_client(&packet).map_err(|error| error.clause)
    };
    assert_eq!(from_client(b"\x20\x03\x00\x00\x00"), Err("2.1.2"));
    assert_eq!(from_client(b"\x90\x04\x00\x01\x00\x00"), Err("2.1.2"));
    assert_eq!(from_client(b"\xB0\x04\x00\x01\x00\x00"), Err("2.1.2"));
    assert_eq!(from_client(b"\xD0\x00"), Err("2.1.2"));
    assert_eq!(from_client(b"\x30\x06\x00\x01t\x02\x0B\x01"), Err("MQTT-3.3.4-6"));
    assert_eq!(from_client(b"\xE0\x01\x8B"), Err("MQTT-3.14.2-1"));
    assert_eq!(from_client(b"\xE0\x06\x00\x04\x1C\x00\x01s"), Err("3.14.2.2.5"));
    assert_eq!(from_client(b"\xF0\x00"), Err("MQTT-3.15.2-1"));
    assert_eq!(from_client(b"\x30\x04\x00\x01t\x00"), Ok(()));
    assert_eq!(from_client(b"\xE0\x01\x04"), Ok(()));
    assert_eq!(from_client(b"\xF0\x06\x19\x04\x15\x00\x01m"), Ok(()));
    assert_eq!(from_client(b"\xC0\x00"), Ok(()));
}
