//! Messages of the operator's, to a room or to one user: by the rules that hold for a client with the role `service`.

use std::time::Instant;

use axum::{extract::Request, response::Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Caller, Problem, body, done};
use crate::{
    hub::{Declined, Dirty},
    server::Shared,
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
    let (to, payload) = ((room, topic.as_deref()), payload.get().as_bytes());
    flushed(shared, |dirty| shared.hub.send_to_room(&caller.identity, to, payload, qos, dirty))
}

/// A message for a user's inbox, if the user listens or has a session that does.
pub async fn to_user(shared: &Shared, caller: &Caller, user: &str, request: Request) -> Result<Response, Problem> {
    let ToUser { payload } = body::read(shared, request).await?;
    let payload = payload.ok_or_else(|| Problem::unprocessable(NO_PAYLOAD))?;
    flushed(shared, |dirty| shared.hub.send_to_user(&caller.identity, user, payload.get().as_bytes(), dirty))
}

fn flushed(shared: &Shared, send: impl FnOnce(&mut Dirty) -> Result<(), Declined>) -> Result<Response, Problem> {
    let mut dirty = Dirty::default();
    let sent = send(&mut dirty);
    dirty.flush(&shared.hub, Instant::now());
    sent?;
    Ok(done())
}
