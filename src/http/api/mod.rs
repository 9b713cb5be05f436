//! The HTTP API: what the operator's own software asks of rooms and users, and where a user's page finds ICE servers.
//!
//! Nothing is open, wherever the request comes from: it shows an operator key or a token as `Authorization: Bearer`, and
//! all but `/api/ice` is for keys and for tokens of the role `service`. Whatever goes wrong is told in a problem document
//! (RFC 9457). Pages may ask whose origin may open the WebSocket. `docs/openapi.json`, served as `/api/openapi.json`,
//! says the same for programs; a test holds the two together.

mod body;
mod caller;
mod ice;
mod nodes;
mod problem;
mod rooms;
mod send;
mod users;

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use percent_encoding::percent_decode_str;

pub use caller::{Caller, Operators, identify};
pub use problem::Problem;

use super::origin;
use crate::{room::Action, server::Shared};

/// What this API is, for programs.
const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

const NOTHING: &str = "there is nothing at this path";

/// Something that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint<'p> {
    Description,
    Rooms,
    Room(&'p str),
    Moderate(&'p str, Action),
    SendToRoom(&'p str),
    SendToUser(&'p str),
    Disconnect(&'p str),
    RevokeUser(&'p str),
    RevokeToken(&'p str),
    Ice,
    Nodes,
}

impl<'p> Endpoint<'p> {
    /// By the levels of the path below `/api`.
    fn find(path: &[&'p str]) -> Option<Self> {
        Some(match *path {
            ["openapi.json"] => Self::Description,
            ["rooms"] => Self::Rooms,
            ["rooms", room] => Self::Room(room),
            ["rooms", room, "send"] => Self::SendToRoom(room),
            ["rooms", room, action] => Self::Moderate(room, Action::named(action)?),
            ["users", user, "send"] => Self::SendToUser(user),
            ["users", user, "disconnect"] => Self::Disconnect(user),
            ["users", user, "revoke"] => Self::RevokeUser(user),
            ["tokens", id, "revoke"] => Self::RevokeToken(id),
            ["ice"] => Self::Ice,
            ["nodes"] => Self::Nodes,
            _ => return None,
        })
    }

    fn is_read(self) -> bool {
        matches!(self, Self::Description | Self::Rooms | Self::Room(_) | Self::Ice | Self::Nodes)
    }

    fn check_method(self, method: &Method) -> Result<(), Problem> {
        match (self.is_read(), method) {
            (true, &Method::GET | &Method::HEAD) | (false, &Method::POST) => Ok(()),
            (true, _) => Err(Problem::method("GET, HEAD, OPTIONS")),
            (false, _) => Err(Problem::method("POST, OPTIONS")),
        }
    }
}

/// Everything below `/api`.
pub fn router() -> Router<Arc<Shared>> {
    Router::new().route("/api", any(answer)).route("/api/", any(answer)).route("/api/{*path}", any(answer))
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let page = request.headers().get(header::ORIGIN).cloned();
    if page.is_some() && origin::check_origin(request.headers(), &shared.config.http.origins, false).is_err() {
        return Problem::new(StatusCode::FORBIDDEN, "pages of this origin may not ask here; see http.origins")
            .into_response();
    }
    let mut response = match is_preflight(&request) {
        true => preflight(),
        false => dispatch(&shared, request).await.unwrap_or_else(IntoResponse::into_response),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(page) = page {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page);
    }
    response
}

async fn dispatch(shared: &Arc<Shared>, request: Request) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    let path = levels(&path)?;
    let path: Vec<&str> = path.iter().map(|level| &**level).collect();
    let endpoint = Endpoint::find(&path).ok_or_else(|| Problem::not_found(NOTHING))?;
    endpoint.check_method(request.method())?;
    if endpoint == Endpoint::Description {
        return Ok(([(header::CONTENT_TYPE, "application/json")], DESCRIPTION).into_response());
    }
    let caller = identify(shared, &request)?;
    if endpoint == Endpoint::Ice {
        return ice::servers(shared, &caller);
    }
    caller.require_service()?;
    match endpoint {
        Endpoint::Rooms => rooms::list(shared, request.uri()),
        Endpoint::Room(room) => rooms::one(shared, room),
        Endpoint::Moderate(room, action) => rooms::moderate(shared, &caller, room, action, request).await,
        Endpoint::SendToRoom(room) => send::to_room(shared, &caller, room, request).await,
        Endpoint::SendToUser(user) => send::to_user(shared, &caller, user, request).await,
        Endpoint::Disconnect(user) => users::disconnect(shared, user, request).await,
        Endpoint::RevokeUser(user) => users::revoke(shared, user, request).await,
        Endpoint::RevokeToken(id) => users::revoke_token(shared, id, request).await,
        Endpoint::Nodes => Ok(nodes::list(shared)),
        Endpoint::Description | Endpoint::Ice => Err(Problem::not_found(NOTHING)), // answered above
    }
}

/// The levels of a path below `/api`, decoded one by one, so that a name may contain what is encoded in it.
fn levels(path: &str) -> Result<Vec<Cow<'_, str>>, Problem> {
    let below = path.strip_prefix("/api").unwrap_or(path);
    let decode = |level| percent_decode_str(level).decode_utf8();
    let levels: Result<Vec<_>, _> = below.strip_prefix('/').unwrap_or(below).split('/').map(decode).collect();
    levels.map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the path is no UTF-8"))
}

fn is_preflight(request: &Request) -> bool {
    let asks = |headers: &HeaderMap| {
        headers.contains_key(header::ORIGIN) && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    };
    request.method() == Method::OPTIONS && asks(request.headers())
}

/// What a page of an allowed origin may send: a token and JSON, and no cookies.
fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// 200 with JSON.
fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be written").into_response(),
    }
}

fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_level_by_level() {
        let found = |path: &str| {
            let levels = levels(path).map_err(|_| ())?;
            Ok::<_, ()>(levels.iter().map(|level| level.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(found("/api/rooms/a%2Fb/kick"), Ok(vec!["rooms".into(), "a/b".into(), "kick".into()]));
        assert_eq!(found("/api/rooms/%E6%97%A5%20x"), Ok(vec!["rooms".into(), "日 x".into()]));
        assert_eq!(found("/api/rooms/%FF"), Err(()));
        assert_eq!(found("/api"), Ok(vec!["".into()]));
    }

    #[test]
    fn every_action_has_an_endpoint() {
        for action in ["kick", "ban", "unban", "lock", "unlock", "close", "limit"] {
            let endpoint = Endpoint::find(&["rooms", "demo", action]);
            assert!(matches!(endpoint, Some(Endpoint::Moderate("demo", _))), "{action}");
        }
        for path in [&["rooms", "demo", "Kick"][..], &["rooms", "demo", "kick", "x"], &[""], &["users", "x"]] {
            assert_eq!(Endpoint::find(path), None, "{path:?}");
        }
    }
}
