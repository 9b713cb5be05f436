//! The server as a value: built from a configuration, started inside whatever tokio runtime there is, and stopped
//! without leaving a thread, a task or a port behind.

use std::{
    future::Future,
    hash::{BuildHasher, RandomState},
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
    http::{self, api::Operators},
    hub::{Held, Hub, HubLimits, KeptLimits},
    ice::Ice,
    listener::{self, Protocol, tls},
    metrics::{Gauges, Metrics},
    policy::{
        Policy, TopicLimits,
        auth::{AuthError, Authenticator, Full, Revocation},
        grants::{GrantClaims, Grants},
        rate::Throttles,
        strikes::Strikes,
    },
    room::Rooms,
    session::{
        Close, QueueLimits,
        edge::{Edge, EdgeLimits},
        inlet::InletLimits,
    },
    webhooks::Webhooks,
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
    pub(crate) operators: Operators,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Where MQTT over TCP is spoken, for the page.
    pub(crate) mqtt_port: Option<u16>,
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
    /// What is wrong with keys, users or revocations.
    Auth(AuthError),
    /// The configuration key of a file, and what is wrong with it.
    File { key: &'static str, problem: String },
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
            Self::Auth(error) => write!(f, "{error}"),
            Self::File { key, problem } => write!(f, "{key}: {problem}"),
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
            Self::Auth(error) => Some(error),
            Self::Backplane(error) => Some(error),
            Self::File { .. } => None,
        }
    }
}

/// Why something was not read again.
#[derive(Debug)]
pub enum ReloadError {
    /// The certificate or its key.
    Tls(tls::TlsError),
    /// Keys, users or revocations.
    Auth(AuthError),
    /// The configuration key of another file, and what is wrong with it.
    File { key: &'static str, problem: String },
}

impl std::fmt::Display for ReloadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(error) => write!(f, "{error}"),
            Self::Auth(error) => write!(f, "{error}"),
            Self::File { key, problem } => write!(f, "{key}: {problem}"),
        }
    }
}

impl std::error::Error for ReloadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Tls(error) => Some(error),
            Self::Auth(error) => Some(error),
            Self::File { .. } => None,
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

    /// Reads the files that the configuration names, and starts nothing.
    ///
    /// # Errors
    /// [`StartError::Tls`], [`StartError::Auth`] and [`StartError::File`], as [`Builder::start`] would have them.
    pub fn check(&self) -> Result<(), StartError> {
        Files::read(&self.config).map(|_| ())
    }

    /// Binds every address and starts to serve.
    ///
    /// # Errors
    /// [`StartError`] says which key of the configuration cannot be met. Nothing is left running then.
    pub async fn start(self) -> Result<Running, StartError> {
        let config = self.config;
        let Files { certificate, auth, operators, ice } = Files::read(&config)?;
        let (listeners, addresses) = bind(&config)?;
        let backplane = backplane::start(&config).await.map_err(StartError::Backplane)?;
        let workers = Workers::start(config.server.workers).map_err(StartError::Workers)?;
        let (stop, stopping) = watch::channel(false);
        let limits = TopicLimits { levels: config.limits.topic_levels, bytes: config.limits.topic_length };
        let policy = Policy::new(limits, &config.topics, auth).with_signal_expiry(config.rooms.signal_expiry);
        let rooms = Rooms::new(config.rooms.clone(), &config.presence);
        let node = node_name(&config.server.node, addresses.all().next());
        let metrics = Arc::new(Metrics::default());
        let webhooks = Webhooks::start(&config.webhooks, &metrics).map_err(StartError::Workers)?;
        let hub = Hub::new(hub_limits(&config), policy, rooms, &node, metrics).serving(ice, webhooks);
        let hub = Arc::new(hub);
        let (throttles, strikes) = (Throttles::new(config.rate.clone()), Strikes::new(config.abuse.clone()));
        let edge = Arc::new(Edge::new(Arc::clone(&hub), edge_limits(&config), throttles, strikes));
        let mqtt_port = addresses.mqtt.first().map(SocketAddr::port);
        let (tls, workers_of_shared) = (certificate, workers.clone());
        let shared = Shared { edge, hub, workers: workers_of_shared, config, operators, stopping, mqtt_port, tls };
        let shared = Arc::new(shared);
        let join = |backplane: backplane::Started| backplane.join(&shared.config, &shared.hub, &workers);
        let backplane = backplane.and_then(join);
        shared.start(listeners);
        // What is in this process is there when the server is; another broker may come whenever it likes.
        if let Some(link) = shared.hub.backplane.get().filter(|_| backplane.is_some()) {
            link.up_by(Instant::now() + FIRST_ROUND_TRIP).await;
        }
        Ok(Running { shared, addresses, workers, stop, backplane })
    }
}

/// What the files say that a configuration names.
struct Files {
    certificate: Option<tls::Certificate>,
    auth: Arc<Authenticator>,
    operators: Operators,
    ice: Ice,
}

impl Files {
    fn read(config: &Config) -> Result<Self, StartError> {
        let file = |key| move |problem| StartError::File { key, problem };
        Ok(Self {
            certificate: tls::Certificate::load(&config.tls.identity).map_err(StartError::Tls)?,
            auth: Arc::new(Authenticator::new(&config.auth).map_err(StartError::Auth)?),
            operators: Operators::new(&config.api).map_err(file("api.keys_file"))?,
            ice: Ice::new(&config.ice).map_err(file("ice.secret_file"))?,
        })
    }
}

impl Shared {
    /// Starts what runs beside the connections.
    fn start(self: &Arc<Self>, listeners: Vec<Listener>) {
        self.workers.spawn(Arc::clone(&self.hub).drive());
        self.workers.spawn(Arc::clone(&self.edge).keep_house());
        if let Some(interval) = self.config.auth.reload {
            self.workers.spawn(Arc::clone(&self.hub.policy.auth).watch(interval));
        }
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

    /// What `/metrics` says.
    pub(crate) fn render_metrics(&self) -> String {
        self.hub.metrics.name_classes(&self.hub.policy.rules().table);
        self.hub.metrics.render(self.gauges())
    }

    fn gauges(&self) -> Gauges {
        let held = self.hub.held();
        Gauges {
            connections: self.edge.connected(),
            sessions: held.sessions,
            subscriptions: held.subscriptions,
            retained: held.retained,
            rooms: self.hub.overview().rooms,
            members: held.members,
            webhooks_waiting: self.hub.webhooks.as_ref().map_or(0, Webhooks::waiting),
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

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.shared.hub
    }

    pub(crate) fn edge(&self) -> &Arc<Edge> {
        &self.shared.edge
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
        self.shared.render_metrics()
    }

    /// A client inside this process: it takes part without a socket, by the name it is given, and may do all that can
    /// be granted.
    ///
    /// # Errors
    /// `name` is no valid user name (1 to 64 bytes, one topic level, no control characters).
    pub fn client(&self, name: &str) -> Result<Client, NameError> {
        Client::new(Arc::clone(&self.shared.hub), name, Grants::all())
    }

    /// The same with no more rights than a token with these claims gives.
    ///
    /// # Errors
    /// As [`Running::client`].
    pub fn client_with(&self, name: &str, claims: &GrantClaims) -> Result<Client, NameError> {
        Client::new(Arc::clone(&self.shared.hub), name, Grants::from_claims(claims))
    }

    /// Counts what the hub holds: zeros when nobody is there and nothing is retained.
    pub fn held(&self) -> Held {
        self.shared.hub.held()
    }

    /// Connections at the moment.
    pub fn connections(&self) -> usize {
        self.shared.edge.connected()
    }

    /// Reads the certificate, keys, secrets, users and revocations again, as a change of their files would have done. Blocks
    /// while it reads.
    ///
    /// # Errors
    /// What is wrong with the new files. What was in use before stays so, of those that cannot be used.
    pub fn reload(&self) -> Result<(), ReloadError> {
        let certificate = self.shared.tls.as_ref().map_or(Ok(()), tls::Certificate::reload);
        let file = |key| move |problem| ReloadError::File { key, problem };
        let operators = self.shared.operators.reload().map_err(file("api.keys_file"));
        let ice = self.shared.hub.ice.reload().map_err(file("ice.secret_file"));
        self.shared.hub.policy.auth.reload().map_err(ReloadError::Auth)?;
        operators.and(ice)?;
        certificate.map_err(ReloadError::Tls)
    }

    /// Ends what was let in as this user, or with this token, within a second, and lets it in no more until the process
    /// ends; a user comes back with a newer token.
    ///
    /// # Errors
    /// So many are revoked already that no more can be.
    pub fn revoke(&self, what: Revocation) -> Result<(), Full> {
        self.shared.hub.revoke(what)
    }

    /// Puts the topic table, the rates and the bounds of refusals of `config` in force, for everybody who is connected
    /// too: subscriptions that are no longer allowed end, and their users are told. Says which other sections differ
    /// from what the server was started with; they take effect when it is started again.
    pub fn apply(&self, config: &Config) -> Vec<&'static str> {
        let Shared { edge, hub, .. } = &*self.shared;
        edge.throttles.replace(config.rate.clone());
        edge.strikes.replace(config.abuse.clone());
        let before = hub.policy.rules();
        hub.metrics.name_classes(&before.table);
        hub.policy.replace_table(&config.topics);
        hub.metrics.latency.follow(&hub.policy.rules());
        hub.rejudge_all(Instant::now());
        hub.move_rosters(&before);
        self.shared.config.needs_restart(config)
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
        if let Some(webhooks) = &self.shared.hub.webhooks {
            webhooks.finish(deadline.max(Instant::now() + LAST_WORK)).await;
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
            // A stay ends with a line of the roster and one for services, and may have begun a moment before.
            own: limits.queue_messages.saturating_add(4 * config.rooms.members.unwrap_or(10_000)),
            bytes: limits.queue_bytes,
        },
        subscriptions: limits.subscriptions,
        sessions: KeptLimits {
            all: limits.sessions,
            per_user: limits.sessions_per_user.unwrap_or(usize::MAX),
            per_address: limits.sessions_per_address.unwrap_or(usize::MAX),
        },
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
        lost: config.presence.lost,
    }
}

/// The configured name; or the host's and a port, which are the same the next time; or one that nobody else has.
fn node_name(configured: &str, first: Option<SocketAddr>) -> String {
    if !configured.is_empty() {
        return configured.into();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(48).collect();
    match first {
        Some(address) => format!("{host}-{}", address.port()),
        None => format!("{host}-{:016x}", RandomState::new().hash_one(std::process::id())),
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
