//! Messages of the operator's, to a room or to one user: by the rules that hold for a client with the role `service`.

use std::time::Instant;

use axum::{extract::Request, response::Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Caller, Problem, body, done, rooms};
use crate::{
    backplane::Source,
    hub::{Dirty, SubscriberId},
    policy::{Asker, Meaning, valid_name},
    server::Shared,
    wire::mqtt::{Publish, PublishProperties, QoS, topic},
};

const NO_PAYLOAD: &str = "a message has a payload";

/// `{"topic":"chat","payload":{…},"qos":1}`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToRoom {
    topic: Option<String>,
    #[serde(default, deserialize_with = "body::object")]
    payload: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "body::whole")]
    qos: Option<u64>,
}

/// `{"payload":{…}}`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToUser {
    #[serde(default, deserialize_with = "body::object")]
    payload: Option<Box<RawValue>>,
}

/// A message in a room, whether anybody listens to it there or not.
pub async fn to_room(shared: &Shared, caller: &Caller, room: &str, request: Request) -> Result<Response, Problem> {
    let ToRoom { topic, payload, qos } = body::read(shared, request).await?;
    let payload = payload.ok_or_else(|| Problem::unprocessable(NO_PAYLOAD))?;
    let below = topic.unwrap_or_else(|| "chat".into());
    let qos = u8::try_from(qos.unwrap_or(1))
        .ok()
        .and_then(QoS::from_bits)
        .ok_or_else(|| Problem::unprocessable("qos is 0, 1 or 2"))?;
    rooms::require(shared, room)?;
    let name = topic_in_room(shared, room, &below)?;
    publish(shared, caller, &name, payload.get(), qos).map(|_| done())
}

/// A message for a user's inbox, if the user listens or has a session that does.
pub async fn to_user(shared: &Shared, caller: &Caller, user: &str, request: Request) -> Result<Response, Problem> {
    let ToUser { payload } = body::read(shared, request).await?;
    let payload = payload.ok_or_else(|| Problem::unprocessable(NO_PAYLOAD))?;
    let absent = || Problem::not_found("this user does not listen to its inbox");
    let inbox = Some(user).filter(|user| valid_name(user)).and_then(|user| shared.hub.policy.rules().inbox_topic(user));
    let inbox = inbox.ok_or_else(absent)?;
    if publish(shared, caller, &inbox, payload.get(), QoS::AtLeastOnce)? { Ok(done()) } else { Err(absent()) }
}

/// The topic of the class that is called so, or what stands below `rooms/{room}/`; it must belong to the room.
fn topic_in_room(shared: &Shared, room: &str, below: &str) -> Result<String, Problem> {
    let rules = shared.hub.policy.rules();
    let of_class = rules.table.named(below).and_then(|class| rules.table.topic(class, room, ""));
    let name =
        of_class.filter(|name| rules.room_of(name) == Some(room)).unwrap_or_else(|| format!("rooms/{room}/{below}"));
    match topic::valid_name(&name) && rules.room_of(&name) == Some(room) {
        true => Ok(name),
        false => Err(Problem::unprocessable("topic: there is no such topic in a room")),
    }
}

/// Says whether anybody got it.
fn publish(shared: &Shared, caller: &Caller, topic: &str, payload: &str, qos: QoS) -> Result<bool, Problem> {
    let now = Instant::now();
    let (hub, properties) = (&shared.hub, PublishProperties::default());
    let publish =
        Publish { dup: false, qos, retain: false, topic, packet_id: None, properties, payload: payload.as_bytes() };
    let asker = Asker { identity: &caller.identity, client_id: "", in_room: &|_| true };
    let permit = hub.policy.publish(&asker, SubscriberId::SERVER, &publish, now)?;
    if permit.meaning() != Meaning::Message {
        return Err(Problem::forbidden("rooms are moderated by the endpoints of their own"));
    }
    let mut dirty = Dirty::default();
    let found = hub.publish(Source::Server, permit, now, &mut dirty);
    dirty.flush(hub, now);
    Ok(found?)
}
