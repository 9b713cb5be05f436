//! STUN and TURN servers for users: over MQTT to who subscribes, over HTTP to who has a token.

mod harness;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Answer, Broker, Client, Connection, Message, VERSIONS, Version, options};
use serde_json::{Value, json};
use wigwag::{
    Config, QoS,
    auth::keys::SigningKey,
    config::{AuthMethod, Secret},
    wire::mqtt::{RetainHandling, SubscribeOptions},
};

const SECRET: &str = "a secret that this server shares with coturn";
const TOKENS: &str = "an HMAC secret of more than 32 bytes";

fn with_turn(config: &mut Config) {
    config.ice.stun = vec!["stun:stun.example.org".into()];
    config.ice.turn = vec!["turn:turn.example.org".into()];
    config.ice.secret = Secret::new(SECRET);
}

fn with_tokens(config: &mut Config) {
    with_turn(config);
    config.auth.methods = vec![AuthMethod::Token];
    config.auth.token.secret = Secret::new(TOKENS);
}

fn token(user: &str, rooms: Value) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 600;
    let Value::Object(claims) = json!({ "sub": user, "exp": exp, "rooms": rooms }) else { unreachable!() };
    let key = SigningKey::from_secret(&Secret::new(TOKENS).expect("long enough"));
    key.token(None, &claims).expect("signed")
}

fn get(broker: &Broker, token: &str) -> Answer {
    broker.http("GET", "/api/ice", &[("Authorization", &format!("Bearer {token}"))], "")
}

/// What came is an answer on that user's topic; when its credential runs out.
#[track_caller]
fn check(message: &Message, user: &str) -> u64 {
    assert_eq!((message.topic.as_str(), message.retain), (&*format!("users/{user}/ice"), false));
    check_servers(&serde_json::from_str(message.text()).expect("JSON"), user)
}

#[track_caller]
fn check_servers(answer: &Value, user: &str) -> u64 {
    assert_eq!(answer["iceServers"][0], json!({ "urls": ["stun:stun.example.org"] }));
    let turn = &answer["iceServers"][1];
    assert_eq!(turn["urls"], json!(["turn:turn.example.org"]));
    let username = turn["username"].as_str().expect("text");
    let (expiry, name) = username.split_once(':').expect("expiry:user");
    assert_eq!(name, user);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let expected = ring::hmac::sign(&key, username.as_bytes());
    use base64::Engine;
    assert_eq!(turn["credential"], base64::prelude::BASE64_STANDARD.encode(expected));
    let expiry: u64 = expiry.parse().expect("seconds");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let ttl = answer["ttl"].as_u64().expect("seconds");
    assert!((now + ttl - 30..=now + ttl).contains(&expiry), "{expiry} {now} {ttl}");
    expiry
}

fn alice(broker: &Broker, version: Version) -> Connection {
    broker.connect(Client::new(version, "tab").user_name("alice"))
}

#[test]
fn who_subscribes_is_answered_after_the_suback_and_alone() {
    for version in VERSIONS {
        let broker = Broker::shipped_with(with_turn);
        let mut first = alice(&broker, version);
        let mut second = broker.connect(Client::new(version, "other tab").user_name("alice"));
        for qos in 0..=1 {
            let id = first.send_subscribe(&[("users/alice/ice", options(qos))], None);
            let received = first.receive();
            assert!(
                matches!(received.packet(), harness::Packet::SubAck(ack) if ack.packet_id.get() == id),
                "{received:?}"
            );
            let message = first.expect_message();
            check(&message, "alice");
            assert_eq!(message.qos, qos);
        }
        first.expect_nothing();
        assert_eq!(second.subscribe("users/alice/ice", 1), 1);
        check(&second.expect_message(), "alice");
        first.expect_nothing();
    }
}

#[test]
fn whatever_retain_handling_says_and_with_the_identifier() {
    let broker = Broker::shipped_with(with_turn);
    let mut alice = alice(&broker, Version::V5);
    for retain_handling in [RetainHandling::DoNotSend, RetainHandling::SendIfNew, RetainHandling::SendAtSubscribe] {
        let options = SubscribeOptions { retain_handling, retain_as_published: true, no_local: true, ..options(1) };
        assert_eq!(alice.subscribe_as("users/alice/ice", options, 7), 1);
        let message = alice.expect_message();
        check(&message, "alice");
        assert_eq!(message.subscription_ids, [7]);
    }
}

#[test]
fn every_granted_filter_that_matches_is_answered_and_no_other() {
    let broker = Broker::shipped_with(with_turn);
    let mut alice = alice(&broker, Version::V5);
    let filters = ["users/alice/ice", "users/alice/+", "users/alice/#", "users/alice/inbox"];
    let codes = alice.subscribe_all(&filters.map(|filter| (filter, options(1))), None);
    assert_eq!(codes, [1, 1, 1, 1]);
    for _ in 0..3 {
        check(&alice.expect_message(), "alice");
    }
    alice.expect_nothing();
    assert_eq!(alice.subscribe("#", 1), 1, "an observer's, in which what is somebody's own is not shown");
    alice.expect_nothing();
    for others in ["users/bob/ice", "users/+/ice", "$share/g/users/alice/ice"] {
        assert_eq!(alice.subscribe(others, 1), 0x87, "{others}");
    }
}

#[test]
fn nobody_publishes_there_and_nothing_is_retained() {
    let broker = Broker::shipped_with(with_turn);
    let mut alice = alice(&broker, Version::V5);
    assert_eq!(alice.publish(Message::new("users/alice/ice", "{}").qos(1)), 0x87);
    assert_eq!(alice.subscribe("users/alice/ice", 1), 1);
    alice.expect_message();
    assert_eq!(broker.running().held().retained, 0);
}

#[test]
fn without_a_right_to_join_some_room_there_is_nothing() {
    let broker = Broker::shipped_with(with_tokens);
    for (rooms, may) in [
        (json!({ "demo": ["join"] }), true),
        (json!({ "standup-*": ["admin"] }), true),
        (json!({}), false),
        (json!({ "demo": ["listen"] }), false),
        (json!({ "demo": ["members=5"] }), false),
    ] {
        let token = token("alice", rooms);
        let mut alice = broker.connect(Client::v5("tab").password(token.as_bytes()));
        let answer = get(&broker, &token);
        if may {
            assert_eq!(alice.subscribe("users/alice/ice", 1), 1);
            check(&alice.expect_message(), "alice");
            assert_eq!(answer.status, 200);
            check_servers(&answer.json(), "alice");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        } else {
            assert_eq!(alice.subscribe("users/alice/ice", 1), 0x87);
            alice.expect_nothing();
            answer.problem(403);
        }
    }
    broker.http("GET", "/api/ice", &[], "").problem(401);
}

#[test]
fn a_user_gets_so_many_in_a_minute_over_both_ways() {
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        config.ice.per_user = 3;
        config.ice.ttl = Duration::from_secs(24 * 60 * 60);
    });
    let token = token("alice", json!({ "demo": ["join"] }));
    let mut phone = broker.connect(Client::v5("phone").user_name("alice~phone").password(token.as_bytes()));
    assert_eq!(phone.subscribe("users/alice~phone/ice", 1), 1);
    check(&phone.expect_message(), "alice~phone");
    assert_eq!(get(&broker, &token).status, 200);
    assert_eq!(get(&broker, &token).status, 200);
    let answer = get(&broker, &token);
    answer.problem(429);
    let wait: u64 = answer.header("retry-after").and_then(|wait| wait.parse().ok()).expect("seconds");
    assert!((1..=21).contains(&wait), "{wait}");
    assert_eq!(phone.subscribe("users/alice~phone/errors", 0), 0);
    assert_eq!(phone.subscribe("users/alice~phone/ice", 1), 1, "the next one comes later");
    let line: Value = serde_json::from_str(phone.expect_message().text()).expect("JSON");
    assert_eq!((&line["topic"], &line["code"]), (&json!("users/alice~phone/ice"), &json!(0x97)));
    phone.expect_nothing();
}

#[test]
fn the_next_one_comes_before_the_last_runs_out() {
    let broker = Broker::shipped_with(|config| {
        with_turn(config);
        config.ice.ttl = Duration::from_secs(2); // less than a file may say
    });
    let mut alice = alice(&broker, Version::V5);
    assert_eq!(alice.subscribe_as("users/alice/ice", 1, 3), 1);
    check(&alice.expect_message(), "alice");
    for _ in 0..2 {
        let next = alice.expect_message();
        check(&next, "alice");
        assert_eq!((next.subscription_ids.as_slice(), next.qos), (&[3][..], 1));
    }
}

#[test]
fn nothing_is_due_for_who_has_gone_or_does_not_listen_any_more() {
    let broker = Broker::shipped_with(with_turn);
    let timers = |broker: &Broker| broker.running().held().timers;
    let mut alice = alice(&broker, Version::V5);
    alice.ping(); // her connection's own deadline is set behind the CONNACK
    let before = timers(&broker);
    assert_eq!(alice.subscribe("users/alice/ice", 1), 1);
    alice.expect_message();
    assert_eq!(alice.subscribe("users/alice/ice", 1), 1);
    alice.expect_message();
    assert_eq!(timers(&broker), before + 1, "one, however often it was asked for");
    assert_eq!(alice.unsubscribe(&["users/alice/ice"]), [0]);
    assert_eq!(timers(&broker), before);
    assert_eq!(alice.subscribe("users/alice/ice", 1), 1);
    alice.expect_message();
    alice.disconnect();
    broker.wait_until("timers", |running| running.held().timers == 0);
}

#[test]
fn who_comes_back_to_a_kept_session_is_told_anew() {
    let broker = Broker::shipped_with(with_turn);
    let kept = || Client::kept(Version::V5, "tab").user_name("alice");
    let mut alice = broker.connect(kept());
    assert_eq!(alice.subscribe("users/alice/ice", 1), 1);
    check(&alice.expect_message(), "alice");
    alice.hang_up();
    broker.wait_for_connections(0);
    let mut alice = broker.connect(kept());
    assert!(alice.present());
    check(&alice.expect_message(), "alice");
    alice.expect_nothing();
}

/// The next answer to a client in this process.
#[track_caller]
fn told(broker: &Broker, client: &mut wigwag::Client) {
    let received = broker.block_on(client.recv()).expect("it goes on");
    assert_eq!((received.topic(), received.retain()), ("users/alice/ice", false));
    check_servers(&serde_json::from_slice(received.payload()).expect("JSON"), "alice");
}

#[test]
fn clients_inside_the_process_are_told_too_and_again() {
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        config.ice.ttl = Duration::from_secs(2); // less than a file may say
    });
    let client = |rooms: Value| {
        let claims = serde_json::from_value(json!({ "rooms": rooms })).expect("claims");
        broker.running().client_with("alice", &claims).expect("a name")
    };
    let listener = client(json!({ "demo": ["listen"] }));
    assert!(listener.subscribe("users/alice/ice", QoS::AtLeastOnce).is_err(), "no right to join some room");
    let mut alice = client(json!({ "demo": ["join"] }));
    assert!(alice.subscribe("users/bob/ice", QoS::AtLeastOnce).is_err());
    for _ in 0..2 {
        alice.subscribe("users/alice/ice", QoS::AtLeastOnce).expect("granted");
        told(&broker, &mut alice);
    }
    for _ in 0..2 {
        told(&broker, &mut alice);
    }
    broker.wait_until("one deadline, however often it was asked for", |running| running.held().timers == 1);
    assert!(alice.unsubscribe("users/alice/ice"));
    assert_eq!(broker.running().held().timers, 0);
    alice.subscribe("users/alice/ice", QoS::AtLeastOnce).expect("granted");
    drop((alice, listener));
    assert_eq!(broker.running().held(), wigwag::Held::default());
}

#[test]
fn the_secret_may_be_in_a_file() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("turn-{}", std::process::id()));
    std::fs::write(&path, format!("{SECRET}\n")).expect("written");
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        config.ice.secret = None;
        config.ice.secret_file = Some(path.clone());
    });
    let token = token("alice", json!({ "demo": ["join"] }));
    check_servers(&get(&broker, &token).json(), "alice");
    std::fs::write(&path, "short").expect("written");
    assert!(broker.running().reload().expect_err("too short").to_string().starts_with("ice.secret_file: "));
    check_servers(&get(&broker, &token).json(), "alice");
    std::fs::remove_file(&path).expect("removed");
}
