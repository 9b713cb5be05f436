//! `/api/rooms`

use std::time::Instant;

use axum::{
    extract::{Query, Request},
    http::{StatusCode, Uri},
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{Caller, Problem, body, done, json};
use crate::{
    room::{Action, Moderation, Summary},
    server::Shared,
};

const NO_ROOM: &str = "nobody is in this room";

#[derive(Deserialize)]
struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
struct List {
    rooms: Vec<Summary>,
    /// How many there are in all.
    total: usize,
    /// What to ask for next, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Box<str>>,
}

/// Rooms in the order of their names.
pub fn list(shared: &Shared, uri: &Uri) -> Result<Response, Problem> {
    const MOST: usize = 1000;
    let wrong = || Problem::new(StatusCode::BAD_REQUEST, format!("limit is 1 to {MOST}, after is the name of a room"));
    let Query(page) = Query::<Page>::try_from_uri(uri).map_err(|_| wrong())?;
    let limit = page.limit.unwrap_or(100);
    if !(1..=MOST).contains(&limit) {
        return Err(wrong());
    }
    let (rooms, more) = shared.hub.list_rooms(page.after.as_deref(), limit, Instant::now());
    let next = rooms.last().filter(|_| more).map(|room| room.name.clone());
    Ok(json(&List { rooms, total: shared.hub.overview().rooms, next }))
}

/// One room with its roster.
pub fn one(shared: &Shared, room: &str) -> Result<Response, Problem> {
    let survey = shared.hub.survey(room, Instant::now()).ok_or_else(|| Problem::not_found(NO_ROOM))?;
    Ok(json(&survey))
}

/// An order without what the path says.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    user: Option<String>,
    #[serde(default, deserialize_with = "body::whole")]
    seconds: Option<u64>,
    #[serde(default, deserialize_with = "body::whole")]
    members: Option<u64>,
    reason: Option<String>,
}

pub async fn moderate(
    shared: &Shared,
    caller: &Caller,
    room: &str,
    action: Action,
    request: Request,
) -> Result<Response, Problem> {
    let Order { user, seconds, members, reason } = body::read(shared, request).await?;
    let members = members.map(|members| usize::try_from(members).unwrap_or(usize::MAX));
    let order = Moderation { username: caller.name(), action, user, seconds, members, reason };
    shared.hub.order(room, &order, Instant::now())?;
    tracing::info!(?room, ?action, user = ?order.user, by = ?caller.identity.user, "moderated over HTTP");
    Ok(done())
}
