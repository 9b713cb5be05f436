//! Rooms over real sockets with the shipped topic table: what members, newcomers, moderators and services see of who
//! comes, goes, is lost and comes back.

#[path = "../harness/mod.rs"]
mod harness;

mod coming;
mod events;
mod going;
mod links;
mod moderation;
mod places;
mod speaking;
mod wills;

use std::time::{Duration, SystemTime};

use harness::*;
use serde_json::{Value, json};
use wigwag::{
    auth::keys::SigningKey,
    config::{AuthMethod, Secret},
};

const SECRET: &str = "an HMAC secret of more than 32 bytes";
/// A grace that no test outlives, and one that is over at once.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(100);

/// A broker that asks for tokens.
fn house(grace: Duration, change: impl FnOnce(&mut Config)) -> Broker {
    Broker::shipped_with(|config| {
        config.presence.grace = grace;
        config.auth.methods = vec![AuthMethod::Token];
        config.auth.token.secret = Secret::new(SECRET);
        config.auth.failures = None;
        change(config);
    })
}

/// The same client with a token of these claims, good for an hour unless they say something else.
fn with_claims(client: Client, mut claims: Value) -> Client {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = claims.as_object_mut().expect("an object");
    claims.entry("exp").or_insert_with(|| json!(now + 3600));
    let key = SigningKey::from_secret(&Secret::new(SECRET).expect("long enough"));
    client.password(key.token(None, claims).expect("signed").as_bytes())
}

/// A client of that user, who may join every room, and moderate the rooms that begin with "ours".
fn user(version: Version, id: &str, name: &str) -> Client {
    let base = name.split('~').next().expect("a name");
    let rooms = json!({ "*": ["join"], "ours*": ["admin"] });
    with_claims(Client::new(version, id).user_name(name), json!({ "sub": base, "rooms": rooms }))
}

/// The same with a session that is kept.
fn kept(version: Version, id: &str, name: &str) -> Client {
    Client { clean: false, expiry: 60, ..user(version, id, name) }
}

/// Somebody who sees everything and is nowhere.
fn observer(broker: &Broker) -> Connection {
    let client = with_claims(Client::v5("observer"), json!({ "sub": "observer", "roles": ["observe", "service"] }));
    broker.connect(client)
}

/// One who is told whatever happens to members of any room.
fn reporter(broker: &Broker) -> Connection {
    let mut reporter = observer(broker);
    assert_eq!(reporter.subscribe("events/#", 1), 1);
    reporter
}

fn signal_topic(room: &str) -> String {
    format!("rooms/{room}/signal")
}

fn join(connection: &mut Connection, room: &str) -> u8 {
    connection.subscribe(&signal_topic(room), 1)
}

/// Connects and joins.
#[track_caller]
fn member(broker: &Broker, client: Client, room: &str) -> Connection {
    let mut connection = broker.connect(client);
    assert_eq!(join(&mut connection, room), 1);
    connection
}

fn signal(room: &str, from: &str, text: &str) -> Message {
    Message::new(&signal_topic(room), json!({ "username": from, "text": text }).to_string()).qos(1)
}

fn order(room: &str, from: &str, order: Value) -> Message {
    let mut order = order;
    order["username"] = from.into();
    Message::new(&format!("rooms/{room}/control"), order.to_string()).qos(1)
}

fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).expect("JSON")
}

/// A change of a roster, or a line of one: who, and with which instance; none for who has gone.
fn entry(message: &Message) -> (String, Option<String>) {
    let user = message.topic.rsplit('/').next().expect("a topic").to_owned();
    if message.payload.is_empty() {
        return (user, None);
    }
    let entry = body(message);
    assert_eq!((&entry["username"], &entry["status"]), (&json!(user), &json!("online")));
    assert!(entry["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{entry}");
    (user, Some(entry["instance"].as_str().expect("an instance").to_owned()))
}

/// The next event, in one line.
#[track_caller]
fn event(connection: &mut Connection) -> String {
    let message = connection.expect_message();
    let topic = message.topic.strip_prefix("events/").unwrap_or_else(|| panic!("{message:?}")).to_owned();
    let body = body(&message);
    assert!(body["at"].is_string() && body["node"].is_string(), "{body}");
    let field = |name: &str| body[name].as_str().map_or(String::new(), |text| format!(" {text}"));
    topic + &field("room") + &field("user") + &field("reason")
}

/// What SUBACK says of what is refused.
fn refused(version: Version, reason: u8) -> u8 {
    if version == Version::V5 { reason } else { 0x80 }
}
