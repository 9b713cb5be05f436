//! What all connections share: bounds, and the count of sockets and connections, in all and by address.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{Session, connection::Outcome, inlet::InletLimits};
use crate::{
    hub::Hub,
    policy::{Refusal, network, rate::Throttles, strikes::Strikes},
    wire::mqtt::ReasonCode,
};

/// What all connections share.
pub struct Edge {
    pub hub: Arc<Hub>,
    pub limits: EdgeLimits,
    pub throttles: Throttles,
    pub strikes: Strikes,
    connected: AtomicUsize,
    sockets: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// Bounds of connections.
#[derive(Debug, Clone, Copy)]
pub struct EdgeLimits {
    /// Connections whose CONNECT was accepted.
    pub connections: usize,
    /// Of those and of sockets on their way there, from one address.
    pub connections_per_address: usize,
    /// Time for TLS, upgrade and CONNECT together.
    pub connect_timeout: Duration,
    /// Bytes of a CONNECT.
    pub packet_before_connect: usize,
    pub inlet: InletLimits,
    pub user_properties: usize,
    /// Receive Maximum, both ways.
    pub inflight: u16,
    /// Topic Alias Maximum, both ways.
    pub topic_aliases: u16,
    /// The longest keep alive, seconds; `None` = whatever clients choose.
    pub keep_alive_max: Option<u16>,
    /// Seconds that a 3.1.1 session without Clean Session is kept.
    pub expiry_v311: u32,
    /// The most seconds that a 5.0 client may ask for.
    pub expiry_max: u32,
    /// After how long a link that has died is noticed.
    pub lost: Duration,
}

impl EdgeLimits {
    /// The session expiry that a 5.0 client gets when it asks for `seconds`.
    pub fn expiry(&self, seconds: u32) -> u32 {
        seconds.min(self.expiry_max)
    }
}

/// Sockets that may be on their way to a CONNECT beyond the limits, so that they can be told that there is no room.
const SPARE: usize = 64;
const SPARE_PER_ADDRESS: usize = 8;
const SERVER_FULL: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "as many connections as this server takes" };
const ADDRESS_FULL: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "as many connections as this server takes from one address" };
impl Edge {
    pub fn new(hub: Arc<Hub>, limits: EdgeLimits, throttles: Throttles, strikes: Strikes) -> Self {
        Self {
            hub,
            limits,
            throttles,
            strikes,
            connected: AtomicUsize::new(0),
            sockets: AtomicUsize::new(0),
            addresses: Mutex::default(),
        }
    }

    /// A place for a socket; `None` if there are so many that it cannot even be told why.
    pub fn slot(self: &Arc<Self>, remote: SocketAddr) -> Option<Slot> {
        let room = |limit: usize, spare: usize| move |n: usize| (n < limit.saturating_add(spare)).then_some(n + 1);
        let taken = self.sockets.try_update(Ordering::Relaxed, Ordering::Relaxed, room(self.limits.connections, SPARE));
        if taken.is_err() {
            self.hub.metrics.refused("socket", ReasonCode::QUOTA_EXCEEDED);
            return None;
        }
        // The slot gives back what was counted, whatever comes of it.
        let slot = Slot { edge: Arc::clone(self), remote, connected: false, distant: false };
        let sockets = slot.address().map_or(0, |address| {
            let mut addresses = self.addresses.lock();
            let count = addresses.entry(address).or_default();
            *count += 1;
            *count
        });
        let fits = sockets <= self.limits.connections_per_address.saturating_add(SPARE_PER_ADDRESS);
        if !fits {
            self.hub.metrics.refused("socket", ReasonCode::QUOTA_EXCEEDED);
        }
        fits.then_some(slot)
    }

    /// Ends who was revoked within a second, and forgets who has been forgiven; runs until it is dropped.
    pub async fn keep_house(self: Arc<Self>) {
        let mut revoked = self.hub.policy.auth.revocations().changes();
        let mut ticks = tokio::time::interval(Duration::from_secs(60));
        loop {
            tokio::select! {
                changed = revoked.changed() => match changed {
                    Ok(()) => self.hub.end_revoked(Instant::now()),
                    Err(_) => return, // nobody can be revoked any more
                },
                _ = ticks.tick() => self.strikes.sweep(Instant::now()),
            }
        }
    }

    /// Connections whose CONNECT was accepted and that are not over.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Sockets in any state.
    pub fn sockets(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    pub(super) fn ended(&self, session: &Session, outcome: Outcome, since: Instant) {
        let (end, what) = match outcome {
            Outcome::Goodbye { with_will: false } => ("disconnected", ""),
            Outcome::Goodbye { with_will: true } => ("disconnected with will", ""),
            Outcome::Lost => ("lost", ""),
            Outcome::Unframed(end) => ("lost", end.what),
            Outcome::Closed(close) => ("closed", close.what),
            Outcome::Replaced => ("taken over", ""),
            Outcome::Dropped if std::thread::panicking() => ("panicked", ""),
            Outcome::Dropped => ("dropped", ""),
        };
        if end == "panicked" {
            self.hub.metrics.panics.increment(1);
        }
        self.hub.metrics.ended(end);
        // User-supplied text is logged in its escaped form.
        tracing::info!(
            client = ?session.client_id,
            user = ?session.user,
            seconds = since.elapsed().as_secs(),
            what,
            "connection {end}"
        );
    }
}

/// A socket's place among the counted ones, given back when it is dropped.
pub struct Slot {
    edge: Arc<Edge>,
    remote: SocketAddr,
    connected: bool,
    distant: bool,
}

impl Slot {
    /// Where a socket comes from that somebody else accepted and did not say: nobody connects from here. Such sockets
    /// are not limited by address.
    pub const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The address by which the socket is counted.
    pub(super) fn address(&self) -> Option<IpAddr> {
        (self.remote != Self::UNKNOWN).then(|| network(self.remote.ip()))
    }

    /// Counts the socket for `remote` from now on: a proxy has said whom it speaks for. `None` if that address has so
    /// many that it cannot even be told.
    pub fn on_behalf_of(self, remote: SocketAddr) -> Option<Slot> {
        let edge = Arc::clone(&self.edge);
        drop(self);
        let mut slot = edge.slot(remote)?;
        slot.set_distant();
        Some(slot)
    }

    /// Says that somebody stands between who answers for the peer: the system cannot tell whether that is there.
    pub fn set_distant(&mut self) {
        self.distant = true;
    }

    /// Whether the peer itself has to be heard for its link to count as alive.
    pub(super) fn is_distant(&self) -> bool {
        self.distant
    }

    /// From a socket to a connection, if there is room.
    pub(super) fn promote(&mut self) -> Result<(), Refusal> {
        let limits = &self.edge.limits;
        let sockets = self.address().and_then(|address| self.edge.addresses.lock().get(&address).copied());
        if sockets.is_some_and(|count| count > limits.connections_per_address) {
            return Err(ADDRESS_FULL);
        }
        let room = |n: usize| (n < limits.connections).then_some(n + 1);
        let promoted = self.edge.connected.try_update(Ordering::Relaxed, Ordering::Relaxed, room);
        self.connected = promoted.is_ok();
        promoted.map(|_| ()).map_err(|_| SERVER_FULL)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.edge.sockets.fetch_sub(1, Ordering::Relaxed);
        if self.connected {
            self.edge.connected.fetch_sub(1, Ordering::Relaxed);
        }
        let Some(address) = self.address() else { return };
        let mut addresses = self.edge.addresses.lock();
        if let Entry::Occupied(mut count) = addresses.entry(address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if addresses.len() < addresses.capacity() / 8 {
            addresses.shrink_to_fit();
        }
    }
}
