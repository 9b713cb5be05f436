//! From an HTTP request to an MQTT connection: the WebSocket handshake (RFC 6455 4.2), after which the socket is taken
//! back from HTTP and nothing of that remains.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::{rt::TokioIo, server::conn::auto};
use sha1::{Digest, Sha1};
use tokio::net::TcpStream;

use super::{Place, origin};
use crate::{
    listener::{prepared, proxy},
    server::Shared,
    session::{
        Io, Stream,
        accept::{Incoming, accept},
        edge::{Edge, Slot},
    },
};

/// The sub-protocol that both versions of MQTT have [MQTT-6.0.0-3], [MQTT-6.0.0-4].
const SUB_PROTOCOL: &str = "mqtt";

/// Answers a request on the WebSocket path.
pub async fn upgrade(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let accept_key = match handshake(request.method(), request.headers()) {
        Ok(accept_key) => accept_key,
        Err(refusal) => return refusal.into_response(),
    };
    if let Err(refusal) = check_page(&shared, &request) {
        return refusal.into_response();
    }
    let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return (StatusCode::UPGRADE_REQUIRED, "this connection cannot be upgraded: use HTTP/1.1\n").into_response();
    };
    if shared.stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down\n").into_response();
    }
    let place = request.extensions_mut().remove::<Place>();
    let deadline = deadline(place.as_ref(), &shared.edge);
    let own = place.and_then(|place| place.slot.lock().take());
    let is_own = own.is_some();
    let slot = own.or_else(|| shared.edge.slot(remote(&request)));
    let Some(mut slot) = slot.and_then(|slot| on_behalf_of(&shared, slot, request.headers())) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "as many connections as this server takes\n").into_response();
    };
    if was_passed_on(request.headers()) {
        slot.set_distant();
    }
    tokio::spawn(async move {
        let connection = begin(Arc::clone(&shared), on_upgrade, slot, is_own, deadline);
        shared.unless_stopping(connection).await;
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept_key),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUB_PROTOCOL)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Whether the page that asks, if it is one, may. Also here, since the router may be part of somebody else's.
fn check_page(shared: &Shared, request: &Request) -> Result<(), origin::Refusal> {
    let trusted = |address| proxy::is_trusted(&shared.config.server.trusted_proxies, address);
    origin::check_host(request, trusted)?;
    let http = &shared.config.http;
    origin::check_origin(request.headers(), &http.origins, http.origin_required)
}

/// The place of whom a trusted proxy speaks for.
fn on_behalf_of(shared: &Shared, slot: Slot, headers: &HeaderMap) -> Option<Slot> {
    let trusted = &shared.config.server.trusted_proxies;
    if !proxy::is_trusted(trusted, slot.remote().ip()) {
        return Some(slot);
    }
    match proxy::forwarded_for(headers, trusted) {
        Some(client) => slot.on_behalf_of(SocketAddr::new(client, 0)),
        None => Some(slot),
    }
}

/// Whether a proxy, trusted or not, says that it stands between.
fn was_passed_on(headers: &HeaderMap) -> bool {
    ["x-forwarded-for", "forwarded", "via", "x-real-ip"].iter().any(|name| headers.contains_key(*name))
}

/// When CONNECT must have come: TLS, upgrade and CONNECT share the time that a new socket has, and so do upgrade and
/// CONNECT on a socket that has served its page before.
fn deadline(place: Option<&Place>, edge: &Edge) -> Instant {
    let now = Instant::now();
    place.map(|place| place.deadline).filter(|deadline| *deadline > now).unwrap_or(now + edge.limits.connect_timeout)
}

/// A refused handshake: status, a header that says how it would work, a sentence.
type Refusal = (StatusCode, [(header::HeaderName, HeaderValue); 1], &'static str);

/// Checks a handshake and computes the value of `Sec-WebSocket-Accept`.
fn handshake(method: &Method, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let upgrade_required = |what| {
        let version = (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        (StatusCode::UPGRADE_REQUIRED, [version], what)
    };
    let bad_request = |what| {
        let protocol = (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUB_PROTOCOL));
        (StatusCode::BAD_REQUEST, [protocol], what)
    };
    if method != Method::GET || !has_token(headers, header::UPGRADE, "websocket") {
        return Err(upgrade_required("this is a WebSocket endpoint: connect with an MQTT client\n"));
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return Err(bad_request("a WebSocket handshake has `Connection: upgrade`\n"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade_required("WebSocket version 13 is spoken here\n"));
    }
    if !has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, SUB_PROTOCOL) {
        return Err(bad_request("offer the WebSocket sub-protocol `mqtt`; MQTT 3.1.1 and 5.0 are spoken here\n"));
    }
    // What one server takes for a body, another takes for frames: between them somebody would be misled.
    let length = headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0");
    if length || headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(bad_request("a WebSocket handshake has no body\n"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).ok().is_none_or(|key| key.len() != 16) {
        return Err(bad_request("a WebSocket handshake has a `Sec-WebSocket-Key` of 16 bytes in base64\n"));
    }
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    HeaderValue::try_from(STANDARD.encode(digest)).map_err(|_| bad_request("a key that has no answer\n"))
}

/// Whether one of a header's comma-separated values is `token`, in any case.
fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// Where a request in somebody else's router came from; unknown unless that router keeps `ConnectInfo`.
fn remote(request: &Request) -> SocketAddr {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(Slot::UNKNOWN, |remote| remote.0)
}

/// Takes the stream back from HTTP. One that came through somebody else's server moves to a worker of ours if it is a
/// plain socket; otherwise it stays on the runtime that it was made for.
async fn begin(shared: Arc<Shared>, on_upgrade: OnUpgrade, mut slot: Slot, is_own: bool, deadline: Instant) {
    let (stream, early) = match on_upgrade.await {
        Ok(upgraded) => take_back(upgraded),
        Err(error) => return tracing::debug!(remote = %slot.remote(), %error, "upgrade failed"),
    };
    let edge = Arc::clone(&shared.edge);
    match stream {
        Stream::Tcp(socket) if !is_own => {
            // What cannot be moved is closed: that happens only to sockets that have failed already.
            let Ok(socket) = socket.into_std() else { return };
            let shared_there = Arc::clone(&shared);
            shared.workers.spawn(async move {
                let Ok(socket) = TcpStream::from_std(socket) else { return };
                if prepared(&socket, shared_there.edge.limits.lost).is_err() {
                    return;
                }
                let stream = Stream::Tcp(socket);
                let incoming = Incoming { stream, websocket: true, early, slot, deadline };
                shared_there.unless_stopping(accept(edge, incoming)).await;
            });
        }
        stream => {
            if !is_own {
                slot.set_distant(); // whatever it is, nobody has prepared it
            }
            accept(edge, Incoming { stream, websocket: true, early, slot, deadline }).await;
        }
    }
}

/// The stream below an upgraded connection, and what HTTP had read of it beyond the handshake.
fn take_back(upgraded: Upgraded) -> (Stream, Vec<u8>) {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(Parts { io, read_buf, .. }) => return (Stream::Tcp(io.into_inner()), read_buf.to_vec()),
        Err(upgraded) => upgraded,
    };
    let upgraded = match upgraded.downcast::<TokioIo<Box<dyn Io>>>() {
        Ok(Parts { io, read_buf, .. }) => return (Stream::Other(io.into_inner()), read_buf.to_vec()),
        Err(upgraded) => upgraded,
    };
    // The layer that `axum::serve` puts between, to tell HTTP/1 from HTTP/2.
    match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => (Stream::Tcp(parts.io.into_inner()), parts.read_buf.to_vec()),
        Err(upgraded) => (Stream::Other(Box::new(TokioIo::new(upgraded))), Vec::new()),
    }
}
