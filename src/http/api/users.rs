//! `/api/users` and `/api/tokens`: who is to go, and who is to stay away.

use std::time::{Instant, SystemTime};

use axum::{extract::Request, http::StatusCode, response::Response};
use serde::Deserialize;

use super::{Problem, body, done};
use crate::{
    auth::{Full, Revocation, token::MAX_ID},
    policy::valid_name,
    server::Shared,
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: Option<String>,
}

/// Nothing is to be said.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Ends what a user has at the moment. It may come back.
pub async fn disconnect(shared: &Shared, user: &str, request: Request) -> Result<Response, Problem> {
    let Why { reason } = body::read(shared, request).await?;
    match shared.hub.disconnect_user(user, reason.as_deref(), Instant::now()) {
        true => {
            tracing::info!(?user, "disconnected over HTTP");
            Ok(done())
        }
        false => Err(Problem::not_found("this user is not connected")),
    }
}

/// Keeps a user out with everything that was issued until now.
pub async fn revoke(shared: &Shared, user: &str, request: Request) -> Result<Response, Problem> {
    body::read::<Nothing>(shared, request).await?;
    if !valid_name(user) {
        return Err(Problem::unprocessable("no user can have this name"));
    }
    add(shared, Revocation::User(user.into()))?;
    tracing::info!(?user, "revoked over HTTP");
    Ok(done())
}

/// Keeps one token out for good.
pub async fn revoke_token(shared: &Shared, id: &str, request: Request) -> Result<Response, Problem> {
    body::read::<Nothing>(shared, request).await?;
    if id.is_empty() || id.len() > MAX_ID {
        return Err(Problem::unprocessable("no token can have this id"));
    }
    add(shared, Revocation::Token(id.into()))?;
    tracing::info!(token = ?id, "revoked over HTTP");
    Ok(done())
}

/// Whoever is connected is looked at again within a second.
fn add(shared: &Shared, revocation: Revocation) -> Result<(), Problem> {
    let full = |full: Full| Problem::new(StatusCode::INSUFFICIENT_STORAGE, full.to_string());
    shared.hub.policy.auth.revocations().revoke(revocation, SystemTime::now()).map_err(full)
}
