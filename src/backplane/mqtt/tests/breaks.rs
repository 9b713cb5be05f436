//! What becomes of messages, and of the link, when connections end.

use super::*;

#[test]
fn a_message_that_ends_every_connection_is_given_up_and_the_session_kept() {
    let mut world = World::connected();
    let dropped = "wigwag_backplane_dropped_total{reason=\"refused by the broker\"}";
    world.send("poison", QoS::ExactlyOnce, &PublishProperties::default());
    for _ in 0..4 {
        assert!(world.speak()[0].contains("poison"));
        assert_eq!(world.metric(dropped), 0);
        world.exchange.lost();
        world.begin(true, 10);
        world.said();
    }
    assert!(world.speak().is_empty());
    assert_eq!((world.metric(dropped), world.backplane.outbox().len()), (1, 0));
}

#[test]
fn what_a_broker_refuses_in_a_disconnect_is_tried_a_few_times_and_given_up() {
    for reason in [0x90, 0x94, 0x95, 0x97, 0x99, 0x9A, 0x9B].map(ReasonCode) {
        let mut world = World::connected();
        let words = Packet::Disconnect(Disconnect { reason, ..Disconnect::default() });
        assert!(!matches!(world.hear(&words), Err(Failure::Connection(_))), "nothing is in flight");
        world.send("unwanted", QoS::AtLeastOnce, &PublishProperties::default());
        for _ in 0..4 {
            assert_eq!(world.speak().len(), 1);
            let Err(Failure::Connection(why)) = world.hear(&words) else { panic!("{reason:?}") };
            assert!(why.contains(reason.name()), "{why}");
            world.exchange.lost();
            world.begin(true, 10);
            world.said();
        }
        assert!(world.speak().is_empty());
    }
}

#[test]
fn what_is_said_again_is_not_retained_where_the_broker_retains_nothing() {
    let mut world = World::connected();
    let properties = PublishProperties::default();
    let mut message = Message::new(&parts("app/x", b"x", &properties), world.now);
    message.keep();
    let crossing = world.backplane.admit(Source::Client("u"), &mut message, world.now).expect("room").expect("shared");
    crossing.send(&Arc::new(message), world.now);
    let retained = |world: &mut World| {
        world.exchange.speak(world.now, &mut world.out, WRITE);
        let Ok(Some((Packet::Publish(publish), _))) = decode(&world.out, V5, usize::MAX) else { panic!("no PUBLISH") };
        let retained = publish.retain;
        world.out.clear();
        retained
    };
    assert!(retained(&mut world));
    world.exchange.lost();
    let terms = Terms { window: 10, qos_max: QoS::ExactlyOnce };
    let welcome = Welcome { present: true, terms, retain: false, packet_max: usize::MAX, keep_alive: KEEP_ALIVE };
    world.exchange.begin(&welcome, world.now, &mut world.out);
    world.out.clear();
    assert!(!retained(&mut world));
}

#[test]
fn a_broker_that_answers_probes_and_acknowledges_nothing_is_left() {
    let mut world = World::connected();
    world.send("x", QoS::AtLeastOnce, &PublishProperties::default());
    world.speak();
    let mut seconds = 0;
    let failure = loop {
        seconds += 1;
        match world.wait(1.0) {
            Ok(()) => {}
            Err(failure) => break failure,
        }
        for said in world.said() {
            let serial = said.split(' ').nth(2).expect("its payload").to_owned();
            let answer = incoming("wigwag/probe/me", &serial, QoS::AtMostOnce, 0);
            world.hear(&Packet::Publish(answer)).expect("its answer");
        }
    };
    assert_eq!(seconds, 11);
    assert_eq!(failure, Failure::Connection("the broker does not acknowledge what it is sent".into()));
    // It is late by now, and not said again.
    world.exchange.lost();
    world.begin(true, 10);
    world.said();
    assert!(world.speak().is_empty());
    assert_eq!(world.metric("wigwag_backplane_expired_total"), 1);
}

#[test]
fn what_the_embedded_broker_did_not_acknowledge_it_hears_anew_and_what_it_had_not_at_all() {
    let mut world = World::at(true, Duration::from_secs(2));
    world.begin(false, 10);
    world.said();
    for text in ["had", "exact", "least"] {
        let qos = if text == "least" { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        world.send(text, qos, &PublishProperties::default());
    }
    let first = world.speak();
    assert_eq!(first.len(), 3);
    world.hear(&Packet::PubRec(ack(id_of(&first[0]), OK))).expect("known");
    world.exchange.lost();
    world.begin(true, 10);
    world.said();
    let anew = world.speak();
    assert_eq!(anew.len(), 2);
    for (text, said) in anew.iter().zip(&first[1..]) {
        assert!(!text.ends_with("again") && id_of(text) > id_of(&first[2]), "{text}, before: {said}");
    }
    assert_eq!(world.metric("wigwag_backplane_sent_total"), 1);
}

#[test]
fn only_a_broker_that_does_not_answer_is_taken_for_dead() {
    let World { backplane, hub, .. } = World::new();
    let url = BrokerUrl { tls: false, host: "127.0.0.1".into(), port: 9 };
    let mut link = Link::new(&Config::default().backplane, Broker::Remote { url, tls: None }, backplane, hub);
    for (failure, welcomed, silences) in [
        (Failure::Connection(CLOSED.into()), true, 0),
        (Failure::Protocol("nonsense".into()), true, 0),
        (Failure::Connection("no CONNACK".into()), false, 1),
        (Failure::Silence, true, 2),
    ] {
        link.since = welcomed.then(Instant::now);
        link.end(failure);
        assert_eq!(link.silences, silences);
    }
}

#[test]
fn of_retained_values_only_those_of_the_subscription_are_no_news() {
    let mut world = World::connected();
    let figures = |world: &World| {
        let dropped = "wigwag_backplane_dropped_total{reason=\"retained already\"}";
        (world.metric("wigwag_backplane_received_total"), world.metric(dropped))
    };
    let value = |world: &mut World, topic| {
        world.hear(&Packet::Publish(incoming(topic, "1", QoS::AtMostOnce, 0))).expect("a message");
        figures(world)
    };
    let probe = |world: &mut World| {
        world.hear(&Packet::Publish(incoming("wigwag/probe/me", "1", QoS::AtMostOnce, 0))).expect("an answer");
    };
    let reconnect = |world: &mut World| {
        world.exchange.lost();
        world.begin(true, 10);
        world.hear(&Packet::SubAck(suback(&[2, 1, 0]))).expect("granted");
    };
    for topic in ["app/a", "app/b", "app/c"] {
        value(&mut world, topic);
    }
    assert_eq!(figures(&world), (3, 0));
    reconnect(&mut world);
    assert_eq!(value(&mut world, "app/a"), (3, 1));
    assert_eq!(value(&mut world, "app/a"), (4, 1), "this one was published since");
    probe(&mut world); // it may have overtaken others
    assert_eq!(value(&mut world, "app/b"), (4, 2));
    probe(&mut world);
    probe(&mut world);
    assert_eq!(value(&mut world, "app/c"), (5, 2), "no more come");
    // Whatever comes, it is over soon.
    reconnect(&mut world);
    assert_eq!(value(&mut world, "app/a"), (5, 3));
    world.now += Duration::from_secs(3);
    assert_eq!(value(&mut world, "app/b"), (6, 3));
}

#[test]
fn only_a_welcome_that_ends_in_nonsense_of_its_own_gives_up_the_session() {
    let mut world = World::connected();
    let url = BrokerUrl { tls: false, host: "127.0.0.1".into(), port: 9 };
    let (backplane, hub) = (Arc::clone(&world.backplane), Arc::clone(&world.hub));
    let config = Config::default().backplane;
    let mut link = Link::new(&config, Broker::Remote { url, tls: None }, backplane, hub);
    let nonsense = |link: &mut Link, welcomed: bool| {
        for _ in 0..PATIENCE {
            link.since = welcomed.then(Instant::now);
            link.end(Failure::Protocol("nonsense".into()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(link.begin_again());
        link.clean_start
    };
    assert!(!nonsense(&mut link, false), "this may be a load balancer");
    world.begin(true, 10);
    world.said();
    world.send("in flight", QoS::AtLeastOnce, &PublishProperties::default());
    let number = id_of(&world.speak()[0]);
    assert!(!nonsense(&mut link, true), "this may be about what is in flight");
    assert!(world.backplane.outbox().done(id(number)).is_some());
    assert!(nonsense(&mut link, true));
}

#[test]
fn what_brokers_do_not_bear_is_not_let_in() {
    let world = World::connected();
    let mut user = Vec::new();
    UserProperties::push(&mut user, "k", "\u{FDD0}");
    let none = PublishProperties::default();
    let property = PublishProperties { user: UserProperties::new(&user).expect("a pair"), ..none };
    let kind = PublishProperties { content_type: Some("text\u{7F}"), ..none };
    let answer = PublishProperties { response_topic: Some("app/\u{1FFFE}"), ..none };
    let fine = PublishProperties { content_type: Some("text/\u{FDFF}é😀"), correlation_data: Some(b"\x01"), ..none };
    let cases = [
        ("app/x\u{1}", none, Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("app/\u{85}", none, Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("app/\u{FFFF}", none, Some(ReasonCode::TOPIC_NAME_INVALID)),
        ("app/x", property, Some(ReasonCode::PAYLOAD_FORMAT_INVALID)),
        ("app/x", kind, Some(ReasonCode::PAYLOAD_FORMAT_INVALID)),
        ("app/x", answer, Some(ReasonCode::PAYLOAD_FORMAT_INVALID)),
        ("app/x", fine, None),
        ("rooms/\u{1}", kind, None),
    ];
    for (topic, properties, expected) in cases {
        let mut message = Message::new(&parts(topic, b"\x01", &properties), world.now);
        let admitted = world.backplane.admit(Source::Client("u"), &mut message, world.now);
        assert_eq!(admitted.err().map(|refusal| refusal.reason), expected, "{topic:?} {properties:?}");
    }
    assert_eq!(world.metric("wigwag_backplane_dropped_total{reason=\"control characters\"}"), 6);
}
