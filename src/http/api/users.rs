//! `/api/users` and `/api/tokens`: who is to go, and who is to stay away.

use std::time::Instant;

use axum::{extract::Request, response::Response};
use serde::Deserialize;

use super::{Problem, body, done};
use crate::{
    auth::{Revocation, token::MAX_ID},
    hub::Declined,
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
    shared.hub.disconnect_by_order(user, reason.as_deref(), Instant::now())?;
    tracing::info!(?user, "disconnected over HTTP");
    Ok(done())
}

/// Keeps a user out with everything that was issued until now.
pub async fn revoke(shared: &Shared, user: &str, request: Request) -> Result<Response, Problem> {
    body::read::<Nothing>(shared, request).await?;
    shared.hub.revoke_user(user)?;
    tracing::info!(?user, "revoked over HTTP");
    Ok(done())
}

/// Keeps one token out for good.
pub async fn revoke_token(shared: &Shared, id: &str, request: Request) -> Result<Response, Problem> {
    body::read::<Nothing>(shared, request).await?;
    if id.is_empty() || id.len() > MAX_ID {
        return Err(Problem::unprocessable("no token can have this id"));
    }
    shared.hub.revoke(Revocation::Token(id.into())).map_err(Declined::from)?;
    tracing::info!(token = ?id, "revoked over HTTP");
    Ok(done())
}
