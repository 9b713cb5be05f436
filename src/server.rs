//! The server as a value: built from a configuration, started inside whatever tokio runtime there is, and stopped
//! without leaving a thread, a task or a port behind.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    backplane,
    client::{Client, NameError},
    config::Config,
    http,
    hub::{Held, Hub, HubLimits},
    listener::{self, Protocol, tls},
    metrics::{Gauges, Metrics},
    policy::{Policy, TopicLimits},
    session::{
        Close, QueueLimits,
        edge::{Edge, EdgeLimits},
        inlet::InletLimits,
    },
    wire::{mqtt::ReasonCode, ws},
    worker::Workers,
};

/// What a server is made of. See [`Server::builder`].
#[derive(Debug, Default)]
pub struct Builder {
    config: Config,
}

/// A WebRTC signaling server that speaks MQTT.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let mut config = wigwag::Config::default();
/// config.http.listen = vec!["127.0.0.1:0".parse().unwrap()]; // port 0: the system chooses
/// config.mqtt.listen = vec!["127.0.0.1:0".parse().unwrap()];
/// let server = wigwag::Server::builder().config(config).start().await.unwrap();
/// println!("mqtt://{}", server.addresses().mqtt[0]);
/// server.shutdown(std::time::Duration::from_secs(1)).await;
/// # });
/// ```
#[derive(Debug)]
pub struct Server;

/// A server that runs. Dropping it stops it at once; [`Running::shutdown`] stops it gracefully.
pub struct Running {
    shared: Arc<Shared>,
    addresses: Addresses,
    workers: Workers,
    stop: watch::Sender<bool>,
    backplane: Option<backplane::Access>,
}

/// What the server's parts, and handlers of HTTP requests, have in common.
pub struct Shared {
    pub(crate) edge: Arc<Edge>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) workers: Workers,
    pub(crate) config: Config,
    pub(crate) stopping: watch::Receiver<bool>,
    tls: Option<tls::Certificate>,
}

/// The addresses that were bound; port 0 in the configuration has become a real one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    pub http: Vec<SocketAddr>,
    pub https: Vec<SocketAddr>,
    pub mqtt: Vec<SocketAddr>,
    pub mqtts: Vec<SocketAddr>,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration key, the address, and what the system said.
    Bind { key: &'static str, address: SocketAddr, error: io::Error },
    /// What is wrong with the certificate or its key.
    Tls(tls::TlsError),
    /// Threads or their event queues could not be made.
    Workers(io::Error),
    /// The broker for services could not be started.
    Backplane(backplane::StartError),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind { key, address, error } => write!(f, "{key}: cannot listen on {address}: {error}"),
            Self::Tls(error) => write!(f, "{error}"),
            Self::Workers(error) => write!(f, "cannot start worker threads: {error}"),
            Self::Backplane(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { error, .. } | Self::Workers(error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Backplane(error) => Some(error),
        }
    }
}

/// How long a shutdown waits, after everything else, for workers that are in the middle of something.
const LAST_WORK: Duration = Duration::from_secs(2);
/// How long a start waits for the embedded broker, which says itself how it is after that.
const FIRST_ROUND_TRIP: Duration = Duration::from_secs(5);
const SHUTTING_DOWN: Close = Close { reason: ReasonCode::SERVER_SHUTTING_DOWN, what: "the server is shutting down" };

impl Addresses {
    /// All there are, those of MQTT over TCP first.
    fn all(&self) -> impl Iterator<Item = SocketAddr> {
        [&self.mqtt, &self.mqtts, &self.http, &self.https].into_iter().flatten().copied()
    }
}

impl Server {
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Everything that `broker.toml` can say; the default is what the documented `broker.toml` says.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Binds every address and starts to serve.
    ///
    /// # Errors
    /// [`StartError`] says which key of the configuration cannot be met. Nothing is left running then.
    pub async fn start(self) -> Result<Running, StartError> {
        let config = self.config;
        let certificate = tls::Certificate::load(&config.tls.identity).map_err(StartError::Tls)?;
        let (listeners, addresses) = bind(&config)?;
        let backplane = backplane::start(&config).await.map_err(StartError::Backplane)?;
        let workers = Workers::start(config.server.workers).map_err(StartError::Workers)?;
        let (stop, stopping) = watch::channel(false);
        let policy =
            Policy::open(TopicLimits { levels: config.limits.topic_levels, bytes: config.limits.topic_length });
        let hub = Arc::new(Hub::new(hub_limits(&config), policy, Arc::new(Metrics::default())));
        let edge = Arc::new(Edge::new(Arc::clone(&hub), edge_limits(&config)));
        let shared = Arc::new(Shared { edge, hub, workers: workers.clone(), config, stopping, tls: certificate });
        let first = addresses.all().next();
        let join = |backplane: backplane::Started| backplane.join(&shared.config, &shared.hub, &workers, first);
        let backplane = backplane.and_then(join);
        shared.start(listeners);
        // What is in this process is there when the server is; another broker may come whenever it likes.
        if let Some(link) = shared.hub.backplane.get().filter(|_| backplane.is_some()) {
            link.up_by(Instant::now() + FIRST_ROUND_TRIP).await;
        }
        Ok(Running { shared, addresses, workers, stop, backplane })
    }
}

impl Shared {
    /// Starts what runs beside the connections.
    fn start(self: &Arc<Self>, listeners: Vec<Listener>) {
        self.workers.spawn(Arc::clone(&self.hub).drive());
        if let Some(interval) = self.config.sys.interval {
            let edge = Arc::clone(&self.edge);
            self.workers.spawn(Arc::clone(&self.hub).publish_sys(interval, move || edge.connected()));
        }
        if let (Some(certificate), Some(interval)) = (&self.tls, self.config.tls.reload) {
            self.workers.spawn(certificate.clone().watch(interval));
        }
        let router = http::router(Arc::clone(self));
        for Listener { socket, service, secure } in listeners {
            let tls = self.tls.as_ref().filter(|_| secure).map(tls::Certificate::acceptor);
            let protocol = match service {
                Service::Mqtt => Protocol::Mqtt,
                Service::Http => Protocol::Http(router.clone()),
            };
            self.workers.spawn(listener::serve(Arc::clone(self), socket, protocol, tls));
        }
    }

    /// Numbers for `/metrics`.
    pub(crate) fn gauges(&self) -> Gauges {
        let held = self.hub.held();
        Gauges {
            connections: self.edge.connected(),
            sessions: held.sessions,
            subscriptions: held.subscriptions,
            retained: held.retained,
        }
    }

    /// Runs `task` until a shutdown begins: for what has not become a connection by then.
    pub(crate) async fn unless_stopping(&self, task: impl Future<Output = ()>) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = task => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Whether a shutdown has begun.
    pub(crate) fn stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}

impl Running {
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How the operator's services reach the embedded broker, where there is one.
    pub fn backplane(&self) -> Option<&backplane::Access> {
        self.backplane.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    /// A router with the WebSocket endpoint (`/mqtt`, as configured), to be merged into an application's own.
    ///
    /// Connections that are upgraded there move to this server's workers and cost what its own connections cost. Only
    /// where the application serves something else than plain sockets (TLS of its own, a Unix socket) do they stay on
    /// the application's runtime; then a few hundred bytes and its stream's own buffers come on top. Addresses of
    /// clients are known, and limited, if the application serves with `into_make_service_with_connect_info`.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        http::upgrade_router(Arc::clone(&self.shared))
    }

    /// The figures that `/metrics` shows, in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        self.shared.hub.metrics.render(self.shared.gauges())
    }

    /// A client inside this process: it takes part without a socket, by the name it is given.
    ///
    /// # Errors
    /// `name` is no valid user name (1 to 64 bytes, one topic level, no control characters).
    pub fn client(&self, name: &str) -> Result<Client, NameError> {
        Client::new(Arc::clone(&self.shared.hub), name)
    }

    /// Counts what the hub holds: zeros when nobody is there and nothing is retained.
    pub fn held(&self) -> Held {
        self.shared.hub.held()
    }

    /// Connections at the moment.
    pub fn connections(&self) -> usize {
        self.shared.edge.connected()
    }

    /// Reads the certificate again, as a change of its files would have done.
    ///
    /// # Errors
    /// What is wrong with the new files; the old certificate stays in use.
    pub fn reload(&self) -> Result<(), tls::TlsError> {
        self.shared.tls.as_ref().map_or(Ok(()), tls::Certificate::reload)
    }

    /// Stops accepting, tells every client (5.0: DISCONNECT 0x8B), waits up to `grace` until they have taken what was
    /// queued for them, and stops.
    pub async fn shutdown(self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.stop.send_replace(true);
        self.shared.hub.drain_all(SHUTTING_DOWN);
        self.without_sockets_by(deadline - grace / 4).await;
        // Who has not taken everything by now is told at least why it does not get it.
        self.shared.hub.close_all(SHUTTING_DOWN);
        self.without_sockets_by(deadline).await;
        if let Some(backplane) = self.shared.hub.backplane.get() {
            backplane.drain(deadline).await;
        }
        self.workers.stop(LAST_WORK).await;
    }

    async fn without_sockets_by(&self, deadline: Instant) {
        while self.shared.edge.sockets() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // Connections that an application's own runtime carries outlive the workers.
        self.shared.hub.drain_all(SHUTTING_DOWN);
        self.shared.hub.close_all(SHUTTING_DOWN);
        self.workers.abandon();
    }
}

/// A bound socket.
struct Listener {
    socket: StdListener,
    service: Service,
    secure: bool,
}

#[derive(Clone, Copy)]
enum Service {
    Mqtt,
    Http,
}

fn bind(config: &Config) -> Result<(Vec<Listener>, Addresses), StartError> {
    let mut listeners = Vec::new();
    let mut bind = |key, service, secure, addresses: &[SocketAddr]| {
        let bind_one = |address: &SocketAddr| {
            let listener = listen(*address).map_err(|error| StartError::Bind { key, address: *address, error })?;
            let bound = listener.local_addr().unwrap_or(*address);
            listeners.push(Listener { socket: listener, service, secure });
            Ok(bound)
        };
        addresses.iter().map(bind_one).collect::<Result<Vec<_>, _>>()
    };
    let addresses = Addresses {
        http: bind("http.listen", Service::Http, false, &config.http.listen)?,
        https: bind("http.tls_listen", Service::Http, true, &config.http.tls_listen)?,
        mqtt: bind("mqtt.listen", Service::Mqtt, false, &config.mqtt.listen)?,
        mqtts: bind("mqtt.tls_listen", Service::Mqtt, true, &config.mqtt.tls_listen)?,
    };
    Ok((listeners, addresses))
}

pub(crate) fn listen(address: SocketAddr) -> io::Result<StdListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    // Connections that wait to be accepted: enough for a storm of reconnecting clients.
    socket.listen(4096)?;
    Ok(socket.into())
}

fn hub_limits(config: &Config) -> HubLimits {
    let limits = &config.limits;
    HubLimits {
        queue: QueueLimits {
            messages: limits.queue_messages,
            bytes: limits.queue_bytes,
            retained: limits.retained_messages,
        },
        subscriptions: limits.subscriptions,
        sessions: limits.sessions,
        retained_messages: limits.retained_messages,
        retained_bytes: limits.retained_bytes,
        write_timeout: limits.write_timeout,
    }
}

fn edge_limits(config: &Config) -> EdgeLimits {
    let limits = &config.limits;
    let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX - 1);
    EdgeLimits {
        connections: limits.connections.unwrap_or_else(open_files),
        connections_per_address: limits.connections_per_address.unwrap_or(usize::MAX),
        connect_timeout: limits.connect_timeout,
        packet_before_connect: limits.packet_before_connect,
        inlet: InletLimits { packet: limits.packet, frames: frame_limits(limits) },
        user_properties: limits.user_properties,
        inflight: limits.inflight,
        topic_aliases: limits.topic_aliases,
        keep_alive_max: config.session.keep_alive_max.map(|max| max.as_secs().try_into().unwrap_or(u16::MAX)),
        expiry_v311: seconds(config.session.expiry),
        expiry_max: seconds(config.session.expiry_max),
    }
}

fn frame_limits(limits: &crate::config::Limits) -> ws::Limits {
    let frame = u32::try_from(limits.frame).unwrap_or(u32::MAX);
    // A message is of no consequence, since a packet may span several, and no larger than packets are; a peer that
    // packs many small packets into one frame may fill it.
    ws::Limits { frame, message: u32::try_from(limits.packet).unwrap_or(u32::MAX).max(frame) }
}

/// Connections that the process may hold open, less what it needs for itself.
fn open_files() -> usize {
    const OWN: u64 = 128;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit.saturating_sub(OWN)).unwrap_or(usize::MAX).max(1)
}
