//! `/api/ice`: STUN and TURN servers for whoever may join some room.

use std::time::{Instant, SystemTime};

use axum::response::Response;

use super::{Caller, Problem, json};
use crate::{ice::TooMany, server::Shared};

pub fn servers(shared: &Shared, caller: &Caller) -> Result<Response, Problem> {
    let identity = &caller.identity;
    if !identity.grants.any_room() {
        return Err(Problem::forbidden("this is for tokens that may join some room"));
    }
    let servers = shared.hub.ice.servers(&identity.user, SystemTime::now(), Instant::now());
    let too_many = |TooMany(wait)| Problem::too_many("as many credentials as a user gets in a minute", wait);
    Ok(json(&servers.map_err(too_many)?))
}
