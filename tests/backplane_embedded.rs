//! The embedded broker: what clients and services share, which commands services may send, and what is kept away from
//! a broker that forgets nothing. All servers of this process have the same one, so each test has topics of its own.

mod harness;
mod services;

use std::{net::TcpListener, time::Duration};

use harness::*;
use serde_json::{Value, json};
use services::*;
use wigwag::{
    StartError,
    config::{BackplaneMode, Password, TopicRows},
};

fn json_of(message: &Message) -> Value {
    serde_json::from_str(message.text()).expect("JSON")
}

#[test]
fn what_is_shared_goes_both_ways_once_with_its_properties() {
    let broker = embedded(|_| {});
    let mut browser = broker.connect(Client::v5("browser"));
    let mut service = embedded_service(&broker, Client::v5("service"));
    browser.subscribe("app/both/#", 2);
    service.subscribe("app/both/#", 1);

    let full = |topic: &str, text: &str| {
        let message = Message::new(topic, text).qos(1).content_type("text/plain").response_topic("app/both/answer");
        message.correlation(b"\0\xFF").user("a", "1").user("a", "2").utf8(true)
    };
    assert_eq!(browser.publish(full("app/both/up", "up")), 0);
    let up = service.expect_message();
    let expected = full("app/both/up", "up");
    assert_eq!(up.gist(), ("app/both/up", "up", 1, false));
    assert_eq!((&up.content_type, &up.response_topic), (&expected.content_type, &expected.response_topic));
    assert_eq!((&up.correlation, up.utf8), (&expected.correlation, Some(true)));
    let user: Vec<_> = up.user.iter().filter(|(key, _)| key == "a").cloned().collect();
    assert_eq!(user, expected.user);
    assert!(up.user.iter().any(|(key, _)| key == "wigwag-node"), "{:?}", up.user);
    assert_eq!(browser.expect_message().gist(), ("app/both/up", "up", 1, false));

    assert_eq!(service.publish(full("app/both/down", "down")), 0);
    let down = browser.expect_message();
    assert_eq!(down.gist(), ("app/both/down", "down", 1, false));
    assert_eq!(down.user.iter().filter(|(key, _)| key != "username").cloned().collect::<Vec<_>>(), expected.user);
    assert_eq!(down.correlation, expected.correlation);
    assert_eq!(service.expect_message().text(), "down");

    // Our own message came back, since this broker knows no No Local, and went no further.
    broker.wait_for_metric("wigwag_backplane_echoes_total", 1);
    browser.expect_nothing();
    service.expect_nothing();
    assert_eq!(broker.metric("wigwag_backplane_received_total"), 1);
    eventually("it is acknowledged", || broker.metric("wigwag_backplane_sent_total") == 1);
}

#[test]
fn a_will_leaves_as_its_client_would_have_said_it() {
    let broker = embedded(|_| {});
    let mut service = embedded_service(&broker, Client::v5("service"));
    service.subscribe("app/wills", 1);
    let browser = broker.connect(Client::v5("browser").will(Message::new("app/wills", "gone").qos(1)));
    browser.hang_up();
    assert_eq!(service.expect_message().text(), "gone");
    service.expect_nothing();
}

#[test]
fn what_is_not_shared_stays_here() {
    let broker = embedded(|_| {});
    let mut service = embedded_service(&broker, Client::v5("service"));
    service.subscribe("rooms/#", 1);
    service.subscribe("other/#", 1);
    service.subscribe("app/stays/#", 1);
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("rooms/#", 1);
    browser.publish(Message::new("other/x", "x").qos(1));
    browser.publish(Message::new("rooms/demo/chat", "{}").qos(1));
    assert_eq!(browser.expect_message().topic, "rooms/demo/chat");
    service.publish(Message::new("rooms/demo/chat", "{}").qos(1));
    service.publish(Message::new("app/stays/last", "x").qos(1));
    assert_eq!(service.expect_message().topic, "rooms/demo/chat");
    assert_eq!(service.expect_message().topic, "app/stays/last");
    browser.expect_nothing();
}

#[test]
fn services_of_both_versions_have_one_port_and_refusals_are_answered() {
    let broker = embedded(|config| config.backplane.embedded.connections = 2);
    let access = broker.running().backplane().expect("embedded").clone();
    for version in VERSIONS {
        let refused = |client: Client| service_or_not(access.address, client).1.reason;
        let with = |user: &str, password: &str, id: &str| {
            Client::new(version, id).user_name(user).password(password.as_bytes())
        };
        let v5 = version == Version::V5;
        let (credentials, identifier) = if v5 { (0x86, 0x85) } else { (4, 2) };
        assert_eq!(refused(with("wigwag", "wrong", "a")), credentials);
        assert_eq!(refused(with("other", "secret", "a")), credentials);
        assert_eq!(refused(Client::new(version, "a")), credentials);
        assert_eq!(refused(with("wigwag", "secret", "wigwag-link-x")), identifier);
        assert_eq!(refused(with("wigwag", "secret", "a/b")), identifier);
        let will = Message::new("ü/will", "x");
        assert_eq!(refused(with("wigwag", "secret", "a").will(will)), if v5 { 0x90 } else { 5 });

        // Who asks for no keep alive is served all the same; who is one too many is told.
        let mut one = service(access.address, with("wigwag", "secret", "one").keep_alive(0));
        let _two = service(access.address, with("wigwag", "secret", "two"));
        one.subscribe("app/versions", 1);
        assert_eq!(one.publish(Message::new("app/versions", "x").qos(1)), 0);
        assert_eq!(one.expect_message().text(), "x");
        assert_eq!(refused(with("wigwag", "secret", "three")), if v5 { 0x97 } else { 3 });
        drop((one, _two));
        eventually("their places are free", || {
            service_or_not(access.address, with("wigwag", "secret", "four")).1.reason == 0
        });
        eventually("its place is free", || {
            let places = [(); 2].map(|()| service_or_not(access.address, with("wigwag", "secret", "")).1.reason);
            places == [0, 0]
        });
    }
}

#[test]
fn a_session_of_3_1_1_needs_a_name() {
    let broker = embedded(|_| {});
    let access = broker.running().backplane().expect("embedded").clone();
    let nameless = Client::kept(Version::V311, "").user_name("wigwag").password(b"secret");
    assert_eq!(service_or_not(access.address, nameless).1.reason, 2);
}

#[test]
fn sockets_that_say_nothing_have_a_place_for_three_seconds() {
    let broker = embedded(|config| config.backplane.embedded.connections = 2);
    let access = broker.running().backplane().expect("embedded").clone();
    let idle = [(); 2].map(|()| std::net::TcpStream::connect(access.address).expect("it listens"));
    let start = std::time::Instant::now();
    eventually("a place is free", || {
        let client = Client::v5("late").user_name("wigwag").password(b"secret");
        service_or_not(access.address, client).1.reason == 0
    });
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
    drop(idle);
}

#[test]
fn a_port_that_is_taken_is_an_error_that_names_the_key() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let mut config = Config::default();
    (config.http.listen, config.mqtt.listen) = (Vec::new(), Vec::new());
    config.backplane.mode = BackplaneMode::Embedded;
    config.backplane.embedded.listen = address;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let Err(error) = runtime.block_on(Server::builder().config(config).start()) else { panic!("it started") };
    assert!(matches!(&error, StartError::Backplane(_)), "{error:?}");
    let expected = format!("backplane.embedded.listen: cannot listen on {address}: ");
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn it_is_started_once_and_used_again_on_the_same_port() {
    let mut address = "127.0.0.1:0".parse().expect("an address");
    for round in 0..3 {
        let broker = embedded(|config| config.backplane.embedded.listen = address);
        address = broker.running().backplane().expect("embedded").address;
        let mut service = embedded_service(&broker, Client::v5("service"));
        let mut browser = broker.connect(Client::v5("browser"));
        browser.subscribe("app/again", 1);
        service.publish(Message::new("app/again", round.to_string()).qos(1));
        assert_eq!(browser.expect_message().text(), round.to_string());
        browser.expect_nothing();
        let Alone { broker, _guard } = broker;
        broker.shutdown(Duration::from_secs(5));
        service.expect_closed();
    }
}

#[test]
fn the_last_value_is_kept_for_who_comes_later() {
    let broker = embedded(|config| config.backplane.keep_last = vec!["app/kept/+".into()]);
    let mut service = embedded_service(&broker, Client::v5("service"));
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/kept/+", 1);
    service.publish(Message::new("app/kept/a", "1").qos(1));
    service.publish(Message::new("app/kept/a", "2").qos(1));
    assert_eq!(browser.expect_payloads(2), ["1", "2"]);
    assert_eq!(browser.publish(Message::new("app/kept/b", "3").qos(1)), 0);
    assert_eq!(browser.expect_payloads(1), ["3"]);
    let mut late = broker.connect(Client::v5("late"));
    late.subscribe("app/kept/+", 1);
    let mut found = [late.expect_message(), late.expect_message()];
    found.sort_by(|one, other| one.topic.cmp(&other.topic));
    assert_eq!(found.each_ref().map(Message::gist), [("app/kept/a", "2", 1, true), ("app/kept/b", "3", 1, true)]);
    service.publish(Message::new("app/kept/a", "").qos(1));
    assert_eq!(browser.expect_payloads(1), [""]);
    let mut later = broker.connect(Client::v5("later"));
    later.subscribe("app/kept/a", 1);
    later.expect_nothing();
}

#[test]
fn a_service_with_a_session_misses_nothing_while_it_is_away() {
    let broker = embedded(|_| {});
    let kept = || Client::kept(Version::V5, "away");
    let mut service = embedded_service(&broker, kept());
    service.subscribe("app/away/#", 1);
    service.hang_up();
    let mut browser = broker.connect(Client::v5("browser"));
    for number in 0..500 {
        assert_eq!(browser.publish(Message::new("app/away/x", number.to_string()).qos(1)), 0);
    }
    let mut service = embedded_service(&broker, kept());
    assert!(service.present());
    let expected: Vec<_> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(service.expect_payloads(500), expected);
}

#[test]
fn no_client_can_make_it_grow_without_bound() {
    let broker = embedded(|config| {
        config.backplane.embedded.topics_max = 7;
        config.backplane.embedded.topics_per_user = 5;
    });
    let publish = |connection: &mut Connection, who: &str, number: usize| {
        connection.publish(Message::new(&format!("app/grow/{who}/{number}"), "x").qos(1))
    };
    let mut one = broker.connect(Client::v5("one").user_name("one"));
    let mut device = broker.connect(Client::v5("device").user_name("one~device"));
    let mut other = broker.connect(Client::v5("other").user_name("other"));
    (0..5).for_each(|number| assert_eq!(publish(&mut one, "one", number), 0));
    assert_eq!(publish(&mut one, "one", 5), 0x97);
    assert_eq!(publish(&mut device, "device", 0), 0x97, "a device of the same user");
    assert_eq!(publish(&mut device, "one", 0), 0, "a topic that is known");
    (0..2).for_each(|number| assert_eq!(publish(&mut other, "other", number), 0));
    assert_eq!(publish(&mut other, "other", 2), 0x97);
    broker.wait_for_metric("wigwag_backplane_dropped_total{reason=\"too many topics\"}", 3);
}

#[test]
fn a_message_as_large_as_the_table_allows_goes_both_ways() {
    let broker = embedded(|config| config.topics = TopicRows::default());
    let mut service = embedded_service(&broker, Client::v5("service"));
    let mut browser = broker.connect(Client::v5("browser"));
    service.subscribe("app/large/up", 1);
    browser.subscribe("app/large/down", 1);
    let large = vec![b'x'; 64 << 10];
    assert_eq!(browser.publish(Message::new("app/large/up", &large).qos(1)), 0);
    assert_eq!(service.expect_message().payload.len(), large.len());
    assert_eq!(service.publish(Message::new("app/large/down", &large).qos(1)), 0);
    assert_eq!(browser.expect_message().payload.len(), large.len());
    // What is larger does not come in, and does not break the link.
    assert_eq!(service.publish(Message::new("app/large/down", vec![b'x'; 70 << 10]).qos(1)), 0);
    assert_eq!(service.publish(Message::new("app/large/down", "small").qos(1)), 0);
    assert_eq!(browser.expect_message().text(), "small");
    assert_eq!(broker.metric("wigwag_backplane_connections_total"), 1);
}

/// Sends a command and gives back status and reason of its answer.
fn ask(service: &mut Connection, answers: &str, name: &str, body: Value) -> (u64, String) {
    let request = Message::new(&format!("wigwag/cmd/{name}"), body.to_string()).qos(1);
    service.publish(request.response_topic(answers).correlation(name.as_bytes()));
    let answer = service.expect_message();
    assert_eq!(answer.correlation.as_deref(), Some(name.as_bytes()));
    let answer = json_of(&answer);
    assert_eq!(answer["command"], name);
    (answer["status"].as_u64().expect("a status"), answer["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn messages_to_rooms_and_users_are_sent_and_answered() {
    let broker = embedded(|config| config.topics = TopicRows::default());
    let mut service = embedded_service(&broker, Client::v5("service"));
    service.subscribe("app/answers/messages", 1);
    let mut ask = |name: &str, body: Value| ask(&mut service, "app/answers/messages", name, body);
    let alice = || broker.connect(Client::v5("alice").user_name("alice").clean(false).expiry(60));
    let mut tab = alice();
    let to_room = json!({"room": "messages", "topic": "chat", "payload": {"username": "bot", "text": "hi"}});
    assert_eq!(ask("send", to_room.clone()), (404, "nobody is in this room".into()));
    assert_eq!(tab.subscribe("rooms/messages/signal", 1), 1);
    tab.subscribe("rooms/messages/chat", 1);
    assert_eq!(ask("send", to_room), (204, String::new()));
    let said = tab.expect_message();
    assert_eq!(said.gist(), ("rooms/messages/chat", r#"{"text":"hi","username":"bot"}"#, 1, false));
    // It is judged as what the HTTP API sends is.
    for (below, status) in [("presence/alice", 403), ("control", 403), ("#", 422)] {
        let body = json!({"room": "messages", "topic": below, "payload": {"action": "close"}});
        assert_eq!(ask("send", body).0, status, "{below}");
    }

    let to_user = |user: &str| json!({"user": user, "payload": {"n": 1}});
    let deaf = "this user does not listen to its inbox";
    assert_eq!(ask("send", to_user("nobody")), (404, deaf.into()));
    assert_eq!(ask("send", to_user("alice")), (404, deaf.into()));
    tab.subscribe("users/alice/inbox", 1);
    assert_eq!(ask("send", to_user("alice")), (204, String::new()));
    assert_eq!(tab.expect_message().gist(), ("users/alice/inbox", r#"{"n":1}"#, 1, false));
    tab.hang_up();
    broker.wait_for_connections(0);
    assert_eq!(ask("send", to_user("alice")).0, 202);
    assert_eq!(alice().expect_message().topic, "users/alice/inbox");

    assert_eq!(ask("send", json!({"payload": {}})), (400, "either a room or a user".into()));
    assert_eq!(ask("explode", json!({})), (400, "no such command".into()));
    assert_eq!(broker.metric("wigwag_backplane_commands_total"), 11);
}

#[test]
fn a_service_sees_who_comes_and_goes_and_moderates() {
    let broker = embedded(|config| config.topics = TopicRows::default());
    let mut events = embedded_service(&broker, Client::v5("events"));
    events.subscribe("events/member/#", 1);
    let mut service = embedded_service(&broker, Client::v5("service"));
    service.subscribe("app/answers/orders", 1);
    let mut ask = |name: &str, body: Value| ask(&mut service, "app/answers/orders", name, body);
    let mut event = || {
        let message = events.expect_message();
        assert_eq!(message.qos, 1);
        let event = json_of(&message);
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("room"), "orders");
        (message.topic.clone(), text("user"), text("reason"))
    };
    let told = |what: &str, user: &str, reason: &str| (format!("events/member/{what}"), user.into(), reason.into());
    let enter = |user: &str| {
        let mut connection = broker.connect(Client::v5(user).user_name(user));
        assert_eq!(connection.subscribe("rooms/orders/signal", 1), 1);
        connection
    };

    let mut alice = enter("alice");
    assert_eq!(event(), told("joined", "alice", ""));
    let mut bob = enter("bob");
    assert_eq!(event(), told("joined", "bob", ""));

    let kick = json!({"room": "orders", "user": "bob", "reason": "spam"});
    assert_eq!(ask("kick", kick.clone()), (204, String::new()));
    assert_eq!(event(), told("left", "bob", "kicked"));
    bob.expect_disconnect(0x98);
    assert_eq!(ask("kick", kick), (404, "that user is not in this room".into()));
    assert_eq!(ask("kick", json!({"room": "orders"})).0, 422);
    assert_eq!(ask("limit", json!({"room": "elsewhere", "members": 3})), (404, "nobody is in this room".into()));
    assert_eq!(ask("lock", json!({"room": "orders"})).0, 204);
    let mut carol = broker.connect(Client::v5("carol").user_name("carol"));
    assert_eq!(carol.subscribe("rooms/orders/signal", 1), 0x87);

    assert_eq!(ask("disconnect", json!({"user": "alice"})), (204, String::new()));
    assert_eq!(event(), told("left", "alice", "disconnected"));
    alice.expect_disconnect(0x98);
    assert_eq!(ask("disconnect", json!({"user": "alice"})), (404, "this user is not connected".into()));
    assert_eq!(ask("revoke", json!({"user": "carol"})), (204, String::new()));
    carol.expect_disconnect(0x98);
    events.expect_nothing();
}

#[test]
fn a_service_of_3_1_1_says_in_the_command_where_its_answer_goes() {
    let broker = embedded(|_| {});
    let mut service = embedded_service(&broker, Client::v311("service"));
    service.subscribe("services/answers", 1);
    let body = json!({"user": "nobody", "payload": {}, "reply_to": "services/answers", "id": "seven"});
    service.publish(Message::new("wigwag/cmd/send", body.to_string()).qos(1));
    let answer = json_of(&service.expect_message());
    assert_eq!((answer["status"].as_u64(), answer["id"].as_str()), (Some(404), Some("seven")));
    // An answer is never a command, and never something that the broker would not survive.
    for reply_to in ["wigwag/cmd/send", "ü", "a/#", ""] {
        let body = json!({"user": "nobody", "payload": {}, "reply_to": reply_to});
        service.publish(Message::new("wigwag/cmd/send", body.to_string()).qos(1));
    }
    broker.wait_for_metric("wigwag_backplane_dropped_total{reason=\"not for clients\"}", 4);
    assert_eq!(get(&broker, "/readyz").0, 200);
}

#[test]
fn commands_can_be_switched_off() {
    let broker = embedded(|config| {
        config.backplane.commands = false;
        config.backplane.embedded.password = Some(Password::new("other"));
    });
    let mut service = embedded_service(&broker, Client::v5("service"));
    service.subscribe("app/answers/off", 1);
    let body = json!({"user": "nobody", "payload": {}, "reply_to": "app/answers/off"}).to_string();
    service.publish(Message::new("wigwag/cmd/send", body).qos(1));
    // Other servers of this process answer; this one does not.
    assert_eq!(broker.metric("wigwag_backplane_commands_total"), 0);
}

#[test]
fn metrics_tell_of_it_and_a_server_without_it_has_none() {
    let broker = embedded(|_| {});
    let metrics = get(&broker, "/metrics").1;
    for name in ["up", "round_trip_seconds", "buffered_messages", "buffered_bytes", "expired_total", "sent_total"] {
        assert!(metrics.contains(&format!("\nwigwag_backplane_{name} ")), "{name}: {metrics}");
    }
    assert_eq!(get(&broker, "/readyz"), (200, "ready\n".into()));
    let without = Broker::start();
    assert!(!get(&without, "/metrics").1.contains("backplane"));
    assert_eq!(get(&without, "/readyz").0, 200);
    assert!(without.running().backplane().is_none());
}

#[test]
fn what_the_broker_would_not_survive_ends_the_service_instead() {
    let broker = embedded(|_| {});
    for version in VERSIONS {
        let mut service = embedded_service(&broker, Client::new(version, "service"));
        service.send_publish(Message::new("ü/x", "x").qos(1));
        service.expect_closed();
    }
    let mut service = embedded_service(&broker, Client::v311("service"));
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/survived", 1);
    service.publish(Message::new("app/survived", "x").qos(1));
    assert_eq!(browser.expect_message().text(), "x");
    assert_eq!(broker.metric("wigwag_backplane_restarts_total"), 0);
}

#[test]
fn a_service_of_3_1_1_is_one_like_another() {
    let broker = embedded(|_| {});
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/old/down", 2);
    let kept = || Client::kept(Version::V311, "old");
    let mut service = embedded_service(&broker, kept());
    assert_eq!(service.subscribe_all(&[("app/old/up", options(2)), ("app/old/0", options(0))], None), [2, 0]);
    for qos in 0..3 {
        let message = Message::new("app/old/up", qos.to_string()).qos(qos).content_type("text/plain").user("a", "b");
        assert_eq!(browser.publish(message), 0);
        assert_eq!(service.expect_message().text(), qos.to_string());
        service.publish(Message::new("app/old/down", qos.to_string()).qos(qos));
        assert_eq!(browser.expect_message().text(), qos.to_string());
    }
    service.hang_up();
    assert_eq!(browser.publish(Message::new("app/old/up", "later").qos(1)), 0);
    let mut service = embedded_service(&broker, kept());
    assert!(service.present());
    assert_eq!(service.expect_message().text(), "later");
    service.disconnect();
}
