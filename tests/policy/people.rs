//! Brokers that ask for tokens, and who has them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::SystemTime,
};

use serde_json::{Map, Value, json};
use wigwag::{
    auth::keys::SigningKey,
    config::{AuthMethod, Secret},
};

use crate::harness::*;

pub const SECRET: &str = "an HMAC secret of more than 32 bytes";

/// Asks for tokens signed with [`SECRET`]; nobody is too fast or refused too often.
pub fn with_tokens(config: &mut Config) {
    config.auth.methods = vec![AuthMethod::Token];
    config.auth.token.secret = Secret::new(SECRET);
    config.auth.failures = None;
    config.abuse.strikes = None;
    config.rate = RateConfig::unlimited();
}

/// Such a broker, with the shipped table.
pub fn tokens() -> Broker {
    Broker::shipped_with(with_tokens)
}

/// Believes every name; nobody is too fast or refused too often.
pub fn without_bounds(config: &mut Config) {
    config.abuse.strikes = None;
    config.rate = RateConfig::unlimited();
}

pub fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A token of `sub` that is good for ten minutes, with these claims beside or instead (null: without).
pub fn token(sub: &str, claims: Value) -> String {
    signed(SECRET, sub, claims)
}

pub fn signed(secret: &str, sub: &str, claims: Value) -> String {
    let mut all = Map::new();
    for value in [json!({ "sub": sub, "exp": seconds() + 600, "iat": seconds() }), claims] {
        all.extend(value.as_object().expect("an object").clone());
    }
    all.retain(|_, value| !value.is_null());
    SigningKey::from_secret(&Secret::new(secret).expect("long enough")).token(None, &all).expect("signed")
}

/// `{"rooms":{"demo":[rights…]}}`
pub fn demo(rights: &[&str]) -> Value {
    json!({ "rooms": { "demo": rights } })
}

/// A client that shows a token, under its name.
pub fn with_token(version: Version, name: &str, token: &str) -> Client {
    Client::new(version, &format!("client of {name}")).user_name(name).password(token.as_bytes())
}

/// One with these grants.
pub fn client(version: Version, name: &str, claims: Value) -> Client {
    with_token(version, name, &token(name, claims))
}

/// A client of 5.0 with the Authentication Method of tokens.
pub fn refreshing(name: &str, claims: Value) -> Client {
    let data = token(name, claims);
    Client::v5(&format!("client of {name}"))
        .user_name(name)
        .authentication_method("jwt")
        .authentication_data(data.as_bytes())
}

/// A signal of this sender's.
pub fn signal(topic: &str, sender: &str) -> Message {
    Message::new(topic, json!({ "username": sender, "n": 1 }).to_string())
}

/// What a client in this process has been sent so far.
pub fn taken(client: &mut wigwag::Client) -> Vec<wigwag::Received> {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let waker = Waker::from(Arc::new(Nobody));
    let mut cx = Context::from_waker(&waker);
    std::iter::from_fn(|| match client.poll_recv(&mut cx) {
        Poll::Ready(received) => received,
        Poll::Pending => None,
    })
    .collect()
}

/// A line of an errors topic.
pub fn line(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).expect("JSON")
}

/// A file of a test's own.
pub fn file(name: &str, text: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policy");
    std::fs::create_dir_all(&folder).expect("the test directory is writable");
    let path = folder.join(name);
    std::fs::write(&path, text).expect("the test directory is writable");
    path
}

/// What 3.1.1 has for a CONNACK code of 5.0.
pub fn connack_code(version: Version, reason: u8) -> u8 {
    match (version, reason) {
        (Version::V5, reason) => reason,
        (_, 0) => 0,
        (_, 0x85) => 2,
        (_, 0x88 | 0x89 | 0x97) => 3,
        (_, 0x86) => 4,
        _ => 5,
    }
}

/// AUTH 0x19 with another token.
pub fn send_refresh(connection: &mut Connection, token: &str) {
    let auth = wigwag::wire::mqtt::Auth {
        reason: ReasonCode::REAUTHENTICATE,
        authentication_method: Some("jwt"),
        authentication_data: Some(token.as_bytes()),
        ..Default::default()
    };
    connection.send(&Packet::Auth(auth));
}

/// The same, accepted; returns what came before the answer.
#[track_caller]
pub fn refresh(connection: &mut Connection, token: &str) -> Vec<Message> {
    send_refresh(connection, token);
    let mut before = Vec::new();
    loop {
        let received = connection.receive();
        match received.packet() {
            Packet::Auth(auth) => {
                assert_eq!((auth.reason.0, auth.authentication_method), (0, Some("jwt")));
                return before;
            }
            Packet::Publish(publish) => before.push(Message::from(&publish)),
            _ => panic!("expected AUTH, came: {received:?}"),
        }
    }
}

/// A broker with tokens and bob in demo, who sees what is said there, and the count of what was refused.
pub fn with_bob() -> (Broker, Connection) {
    let broker = tokens();
    let mut bob = broker.connect(client(Version::V5, "bob", demo(&["join"])));
    let topics = ["rooms/demo/signal", "rooms/demo/signal/bob", "rooms/demo/chat"].map(|topic| (topic, options(1)));
    assert_eq!(bob.subscribe_all(&topics, None), [1, 1, 1]);
    (broker, bob)
}

/// A member of demo who listens on its errors topic.
pub fn member(broker: &Broker, version: Version, name: &str) -> Connection {
    let mut member = broker.connect(client(version, name, demo(&["join"])));
    let own = [format!("rooms/demo/signal/{name}"), format!("users/{name}/errors")];
    assert_eq!(member.subscribe_all(&[(&own[0], options(1)), (&own[1], options(0))], None), [1, 0]);
    member
}

pub fn refused(broker: &Broker, action: &str, reason: &str) -> u64 {
    broker.metric(&format!("wigwag_refused_total{{action=\"{action}\",reason=\"{reason}\"}}"))
}

/// The code of a refusal in a SUBACK.
pub fn no(version: Version) -> u8 {
    if version == Version::V5 { 0x87 } else { 0x80 }
}
