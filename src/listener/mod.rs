//! Accept loops: sockets in, byte streams out, each with a place among the counted ones and a deadline by which it
//! must have said who it is.

pub mod proxy;
pub mod tls;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    http,
    server::Shared,
    session::{
        Stream,
        accept::{Incoming, accept},
        edge::Slot,
    },
};

/// What is spoken on a listener.
#[derive(Clone)]
pub enum Protocol {
    Mqtt,
    /// HTTP/1.1 with these routes.
    Http(Router),
}

/// How long to wait after the system could not accept (no file descriptors left, usually): others must end first.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until a shutdown begins.
pub async fn serve(shared: Arc<Shared>, socket: StdListener, protocol: Protocol, tls: Option<tls::Acceptor>) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a listener could not be registered"),
    };
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, remote)) => hand_over(&shared, stream, remote, &protocol, tls.as_ref()),
            Err(error) if ended_already(&error) => {}
            Err(error) => {
                shared.hub.metrics.accept_errors.increment(1);
                tracing::warn!(%error, "cannot accept connections at the moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The peer was gone before it was accepted, which is nothing to wait for.
fn ended_already(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Gives a socket to the next worker; without a place it is closed here.
fn hand_over(
    shared: &Arc<Shared>,
    stream: TcpStream,
    remote: SocketAddr,
    protocol: &Protocol,
    tls: Option<&tls::Acceptor>,
) {
    let Some(slot) = shared.edge.slot(remote) else { return };
    // The socket is registered with the worker that will poll it.
    let Ok(stream) = prepared(&stream, shared.edge.limits.lost).and_then(|()| stream.into_std()) else { return };
    let tls = tls.map(tls::Acceptor::current);
    let (shared_there, protocol) = (Arc::clone(shared), protocol.clone());
    shared.workers.spawn(async move {
        if let Ok(stream) = TcpStream::from_std(stream) {
            let deadline = Instant::now() + shared_there.edge.limits.connect_timeout;
            let connection = begin(Arc::clone(&shared_there), stream, slot, protocol, tls, deadline);
            shared_there.unless_stopping(connection).await;
        }
    });
}

/// Small packets go out at once, and the system notices within `lost` that the peer's machine has gone, or the way to
/// it: an idle peer is asked whether it is there, and what is sent has to be acknowledged.
pub fn prepared(stream: &TcpStream, lost: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    // Whole seconds, at least one, are what the system takes.
    let interval = (lost / 4).max(Duration::from_secs(1));
    let probes = socket2::TcpKeepalive::new().with_time(lost / 2).with_interval(interval).with_retries(2);
    socket.set_tcp_keepalive(&probes)?;
    // It is looked at when a probe is due, the last time just before `lost`.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(lost - lost / 8))?;
    Ok(())
}

async fn begin(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    mut slot: Slot,
    protocol: Protocol,
    tls: Option<TlsAcceptor>,
    deadline: Instant,
) {
    if proxy::is_trusted(&shared.config.server.trusted_proxies, slot.remote().ip()) {
        slot.set_distant();
        match tokio::time::timeout_at(deadline.into(), proxy::read_header(&mut stream)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(client))) => match slot.on_behalf_of(client) {
                Some(counted) => slot = counted,
                None => return,
            },
            Ok(Err(_)) | Err(_) => return tracing::debug!(remote = %slot.remote(), "no PROXY header"),
        }
    }
    let stream = match tls {
        None => Stream::Tcp(stream),
        Some(acceptor) => match tokio::time::timeout_at(deadline.into(), acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Stream::Other(Box::new(stream)),
            Ok(Err(error)) => return tracing::debug!(remote = %slot.remote(), %error, "TLS failed"),
            Err(_) => return tracing::debug!(remote = %slot.remote(), "no TLS handshake in time"),
        },
    };
    match protocol {
        Protocol::Http(router) => http::serve(&shared, router, stream, slot, deadline).await,
        Protocol::Mqtt => {
            let incoming = Incoming { stream, websocket: false, early: Vec::new(), slot, deadline };
            accept(Arc::clone(&shared.edge), incoming).await;
        }
    }
}
