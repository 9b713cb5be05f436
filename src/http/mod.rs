//! HTTP on the WebSocket port: the page, the API, health, metrics, and the upgrade to MQTT.

pub mod api;
mod origin;
mod pages;
mod upgrade;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, map_response},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tower_service::Service;

use crate::{
    backplane::Health,
    listener::proxy,
    server::Shared,
    session::{Io, Stream, edge::Slot},
    wire::mqtt::ReasonCode,
};

/// A socket's place among the counted ones, for the connection that an upgrade makes of it.
#[derive(Clone)]
struct Place {
    slot: Arc<Mutex<Option<Slot>>>,
    /// When the socket has to be an MQTT connection, if it came to be one.
    deadline: Instant,
}

/// Serves one HTTP/1.1 connection, which may go on as an MQTT connection.
pub async fn serve(shared: &Shared, router: Router, stream: Stream, slot: Slot, deadline: Instant) {
    match stream {
        Stream::Tcp(stream) => serve_on(shared, router, stream, slot, deadline).await,
        Stream::Other(stream) => serve_on(shared, router, stream, slot, deadline).await,
    }
}

async fn serve_on(shared: &Shared, router: Router, stream: impl Io, slot: Slot, deadline: Instant) {
    let remote = slot.remote();
    let place = Place { slot: Arc::new(Mutex::new(Some(slot))), deadline };
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(remote));
        request.extensions_mut().insert(place.clone());
        let mut router = router.clone();
        async move { Service::<hyper::Request<Body>>::call(&mut router, request.map(Body::new)).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadline.saturating_duration_since(Instant::now()))
        .max_header_size(shared.config.limits.http_header)
        .max_buf_size(shared.config.limits.http_header.max(MIN_HTTP_BUFFER))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%remote, %error, "HTTP connection ended");
    }
}

/// The least that hyper takes.
const MIN_HTTP_BUFFER: usize = 8192;

/// Everything on the server's own port.
pub fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .merge(api::router())
        .merge(upgrade_router(Arc::clone(&shared)))
        .fallback(get(pages::page));
    if shared.config.metrics.enabled {
        router = router.route("/metrics", get(metrics));
    }
    let guarded = Arc::clone(&shared);
    let guard = from_fn(move |request, next| guard(Arc::clone(&guarded), request, next));
    router.with_state(shared).layer(guard).layer(map_response(with_security_headers))
}

/// Refuses a request that was led here by a name that is not this machine's.
async fn guard(shared: Arc<Shared>, request: Request, next: Next) -> Response {
    let trusted = |address| proxy::is_trusted(&shared.config.server.trusted_proxies, address);
    match origin::check_host(&request, trusted) {
        Ok(()) => next.run(request).await,
        Err(refusal) => {
            shared.hub.metrics.refused("page", ReasonCode::NOT_AUTHORIZED);
            refusal.into_response()
        }
    }
}

/// The WebSocket endpoint alone, for a router that is somebody else's.
pub fn upgrade_router<S: Clone + Send + Sync + 'static>(shared: Arc<Shared>) -> Router<S> {
    let path = shared.config.http.path.clone();
    Router::new().route(&path, any(upgrade::upgrade)).with_state(shared)
}

/// The process answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether new connections are welcome: not during a shutdown, and, as far as others can take them, not while the
/// backplane is away.
async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    if shared.stopping() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".into());
    }
    match shared.hub.backplane.get().map(|backplane| backplane.health()) {
        Some(Health::Down(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("degraded: backplane: {why}\n")),
        Some(Health::Up) | None => (StatusCode::OK, "ready\n".into()),
    }
}

/// Figures for Prometheus, for this machine, and for others with a credential of the API's.
async fn metrics(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if !from_this_machine(&request) {
        let caller = api::identify(&shared, &request);
        if let Err(problem) = caller.and_then(|caller| caller.require_service()) {
            return problem.into_response();
        }
    }
    let text = shared.render_metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// What proxies add to what they pass on.
const FORWARDED: [&str; 5] = ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip"];

/// Where a request comes from: whom a trusted proxy speaks for, or who has connected.
fn client_address(shared: &Shared, request: &Request) -> IpAddr {
    let trusted = &shared.config.server.trusted_proxies;
    let remote = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(Slot::UNKNOWN, |remote| remote.0).ip();
    let forwarded = || proxy::forwarded_for(request.headers(), trusted);
    if proxy::is_trusted(trusted, remote) { forwarded().unwrap_or(remote) } else { remote }
}

/// A request from a loopback address that no proxy has passed on.
fn from_this_machine(request: &Request) -> bool {
    let forwarded = |headers: &HeaderMap| FORWARDED.iter().any(|name| headers.contains_key(*name));
    let remote = request.extensions().get::<ConnectInfo<SocketAddr>>();
    remote.is_some_and(|remote| remote.ip().to_canonical().is_loopback()) && !forwarded(request.headers())
}

async fn with_security_headers(mut response: Response) -> Response {
    const HEADERS: [(header::HeaderName, HeaderValue); 4] = [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; media-src 'self' blob:; \
                 frame-ancestors 'self'; base-uri 'none'",
            ),
        ),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}
