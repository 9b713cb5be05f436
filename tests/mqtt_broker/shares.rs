//! Shared subscriptions (4.8.2).

use crate::harness::*;

/// 4.8.2: the members of a share take turns, whichever version they speak; each message goes to one of them.
#[test]
fn members_of_a_share_take_turns() {
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut members: Vec<_> =
            (0..3).map(|n| broker.connect(Client::new(VERSIONS[n % 2], &format!("m{n}")).over(transport))).collect();
        members.iter_mut().for_each(|member| assert_eq!(member.subscribe("$share/g/work/+", 1), 1));
        let mut everything = broker.connect(Client::v5("all"));
        everything.subscribe("work/#", 0);
        let mut publisher = broker.connect(Client::v5("p"));
        for n in 0..9 {
            publisher.publish(Message::new("work/1", n.to_string()).qos(1));
        }
        let mut seen = Vec::new();
        for member in &mut members {
            seen.extend(member.expect_payloads(3));
            member.expect_nothing();
        }
        seen.sort();
        assert_eq!(seen, (0..9).map(|n| n.to_string()).collect::<Vec<_>>());
        everything.expect_payloads(9);

        // One leaves by UNSUBSCRIBE, one by disconnecting: the last has it all.
        assert_eq!(members[0].unsubscribe(&["$share/g/work/+"]).first().copied().unwrap_or(0), 0);
        members.remove(1).disconnect();
        broker.wait_for_connections(4);
        for _ in 0..4 {
            publisher.publish(Message::new("work/1", "m").qos(1));
        }
        members[0].expect_nothing();
        members[1].expect_payloads(4);
    }
}

/// 4.8.2: shares of different names, and a plain subscription, are independent, even of one client.
#[test]
fn shares_are_independent_of_each_other() {
    let broker = Broker::start();
    let mut client = broker.connect(Client::v5("c"));
    client.subscribe_as("$share/g/t", 2, 1);
    client.subscribe_as("$share/h/t", 1, 2);
    client.subscribe_as("$share/g/+", 0, 3);
    client.subscribe_as("t", 1, 4);
    client.publish(Message::new("t", "m").qos(2));
    let mut copies: Vec<_> = (0..4)
        .map(|_| {
            let message = client.expect_message();
            (message.subscription_ids.clone(), message.qos)
        })
        .collect();
    copies.sort();
    assert_eq!(copies, [(vec![1], 2), (vec![2], 1), (vec![3], 0), (vec![4], 1)]);
    client.expect_nothing();
    assert_eq!(client.unsubscribe(&["$share/x/t", "$share/g/t", "t"]), [0x11, 0, 0]);
    client.publish(Message::new("t", "m"));
    client.expect_payloads(2);
    client.expect_nothing();
}

/// 4.8.2: whoever is connected is preferred; if nobody is, a session keeps the message.
#[test]
fn offline_members_of_a_share_get_what_nobody_else_can() {
    for version in VERSIONS {
        let broker = Broker::start();
        let member = |n| Client::kept(version, &format!("m{n}"));
        let mut members = [0, 1].map(|n| broker.connect(member(n)));
        for member in members.iter_mut() {
            member.subscribe("$share/g/t", 1);
        }
        let [first, mut second] = members;
        first.disconnect();
        broker.wait_for_connections(1);
        let mut publisher = broker.connect(Client::v5("p"));
        for _ in 0..4 {
            publisher.publish(Message::new("t", "m").qos(1));
        }
        second.expect_payloads(4);
        second.disconnect();
        broker.wait_for_connections(1);
        (0..4).for_each(|n| assert_eq!(publisher.publish(Message::new("t", n.to_string()).qos(1)), 0));
        let mut seen = Vec::new();
        for n in 0..2 {
            let mut back = broker.connect(member(n));
            assert!(back.present());
            seen.extend(back.expect_payloads(2));
            back.expect_nothing();
        }
        seen.sort();
        assert_eq!(seen, ["0", "1", "2", "3"]);
    }
}

/// [MQTT-4.8.2-3]: each member has its messages at the QoS it was granted.
#[test]
fn members_of_a_share_have_their_own_qos() {
    let broker = Broker::start();
    let mut members = [0, 1, 2].map(|n| {
        let mut member = broker.connect(Client::v5(&format!("m{n}")));
        assert_eq!(member.subscribe("$share/g/t", n), n);
        member
    });
    let mut publisher = broker.connect(Client::v5("p"));
    for _ in 0..3 {
        publisher.publish(Message::new("t", "m").qos(2));
    }
    for (qos, member) in members.iter_mut().enumerate() {
        assert_eq!(usize::from(member.expect_message().qos), qos);
    }
}

/// [MQTT-4.8.2-4], [MQTT-4.8.2-5]: a QoS 2 delivery that has begun goes on with its member and with nobody else, also
/// when that member's session ends; [MQTT-4.8.2-6]: nor does what a member refuses.
#[test]
fn a_share_does_not_hand_on_what_a_member_has_begun_with() {
    let broker = Broker::start();
    let mut first = broker.connect(Client::kept(Version::V5, "m1"));
    first.subscribe("$share/g/t", 2);
    let mut publisher = broker.connect(Client::v5("p"));
    publisher.publish(Message::new("t", "begun").qos(2));
    publisher.publish(Message::new("t", "refused").qos(2));
    let begun = first.expect_publish();
    let refused = first.expect_publish();
    first.send_pubrec_with(refused.id, 0x83);
    let mut second = broker.connect(Client::v5("m2"));
    second.subscribe("$share/g/t", 2);
    first.hang_up();
    broker.wait_for_connections(2);
    let mut first = broker.connect(Client::kept(Version::V5, "m1"));
    assert_eq!(first.expect_message(), Message { dup: true, ..begun });
    first.expect_nothing();
    publisher.publish(Message::new("t", "next").qos(2));
    publisher.publish(Message::new("t", "next").qos(2));
    first.expect_publish();
    second.expect_message();
    first.disconnect_with(0, Some(0));
    broker.wait_for_sessions(2);
    second.expect_nothing();
}

/// 4.8.2, 3.3.1.3: a shared subscription brings no retained messages.
#[test]
fn retained_messages_are_not_sent_to_shares() {
    let broker = Broker::start();
    broker.connect(Client::v5("p")).publish(Message::new("t", "kept").retain());
    for version in VERSIONS {
        let mut client = broker.connect(Client::new(version, "c"));
        client.subscribe("$share/g/t", 0);
        client.expect_nothing();
    }
}

/// [MQTT-4.7.2-1] holds within a share; `$SYS` itself may be shared.
#[test]
fn shares_match_like_their_filter() {
    let broker = Broker::start_with(|config| config.sys.interval = Some(std::time::Duration::from_millis(100)));
    let mut client = broker.connect(Client::v5("c"));
    client.subscribe("$share/g/#", 0);
    client.expect_silence(std::time::Duration::from_millis(250));
    client.subscribe("$share/g/$SYS/broker/uptime", 0);
    assert_eq!(client.expect_message().topic, "$SYS/broker/uptime");
}

/// A session's end takes its subscriptions with it, and nothing of them is left.
#[test]
fn nothing_is_left_of_subscriptions() {
    let broker = Broker::start();
    for version in VERSIONS {
        let mut client = broker.connect(Client::new(version, "c"));
        let filters = ["a", "a/b/c/d", "a/#", "+/+/x", "#", "$share/g/a/b/c", "$share/g/#", "$SYS/#"];
        for filter in filters.iter() {
            client.subscribe(filter, 1);
        }
        assert_eq!(broker.running().held().subscriptions, 8);
        client.hang_up();
        broker.wait_for_sessions(0);
        assert_eq!(broker.running().held(), Default::default());
    }
}
