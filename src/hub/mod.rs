//! What happens between connections in this process: who subscribed to what, what is retained, which sessions exist.
//!
//! The hub takes permits only. It is divided into shards by the first two levels of a topic, so that a room lives in
//! one of them and a publish locks that one alone; filters with a wildcard in those levels lie apart. A message is
//! queued in each receiver's session while the shard is locked, which keeps the order of each publisher and topic;
//! sockets are written afterwards ([`Dirty`]). Retained messages are collected by who reads for the session
//! ([`Hub::collect`]).
//!
//! Nothing is kept for a topic, filter, session or client id that nobody uses any more.

mod clock;
mod collect;
mod concerned;
mod dirty;
mod ice;
pub mod index;
mod joint;
mod kept;
mod message;
mod operator;
mod registry;
mod rejudge;
pub mod retained;
mod route;
mod store;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};

use clock::Clock;
pub(crate) use clock::Due;
pub use collect::Collected;
use concerned::Asleep;
pub use dirty::Dirty;
use index::Index;
pub use index::SubscriberId;
pub use kept::{KeptLimits, Place};
pub(crate) use message::position;
pub use message::{Message, Parts};
pub use operator::{Declined, operator};
use registry::Registry;
pub use registry::{Connect, Connected, End, Will};
pub use rejudge::{DISCONNECTED, REVOKED, TOKEN_OVER};
use store::Store;
pub use timers::{TimerKey, Timers};

use crate::{
    backplane::Backplane,
    ice::Ice,
    metrics::Metrics,
    policy::{Policy, Visible},
    room::{Overview, Rooms},
    session::{QueueLimits, Session},
    webhooks::Webhooks,
    wire::mqtt::SubscribeOptions,
};

/// Bounds of everything that outlives a packet.
#[derive(Debug, Clone, Copy)]
pub struct HubLimits {
    pub queue: QueueLimits,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Sessions kept without a connection.
    pub sessions: KeptLimits,
    pub retained_messages: usize,
    /// Bytes of topics, properties and payloads retained, and of the tree that deep topics need.
    pub retained_bytes: usize,
    /// How long a socket may refuse bytes.
    pub write_timeout: Duration,
}

/// See the module.
pub struct Hub {
    pub(crate) limits: HubLimits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: Policy,
    pub(crate) rooms: Rooms,
    pub(crate) ice: Ice,
    pub(crate) webhooks: Option<Webhooks>,
    /// What this server is called in events.
    pub(crate) node: Box<str>,
    shards: Box<[Mutex<Shard>]>,
    /// Filters whose first two levels hold a wildcard: they concern every shard.
    wide: RwLock<Index<Subscription>>,
    wide_len: AtomicUsize,
    /// Filters of kept sessions in rooms that these have left. Locked after the others.
    asleep: Asleep,
    hasher: RandomState,
    registry: Registry,
    retained: RetainedUse,
    clock: Clock,
    started: Instant,
    next_subscriber: AtomicU64,
    /// Set once, at start, where there is one.
    pub(crate) backplane: OnceLock<Arc<Backplane>>,
}

#[derive(Default)]
struct Shard {
    index: Index<Subscription>,
    retained: Store,
}

#[derive(Default)]
struct RetainedUse {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    /// Messages that were ever set.
    serial: AtomicU64,
}

/// One session's interest in a filter.
#[derive(Clone)]
struct Subscription {
    session: Arc<Session>,
    options: SubscribeOptions,
    id: Option<NonZeroU32>,
    /// What it shows, if it is an observer's.
    visible: Option<Arc<Visible>>,
}

/// What the hub holds at present, in objects: all of it is zero again when everybody has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    pub sessions: usize,
    pub subscriptions: usize,
    pub index_nodes: usize,
    /// Subscriptions of kept sessions in rooms that these have left.
    pub asleep: usize,
    pub retained: usize,
    pub retained_nodes: usize,
    pub timers: usize,
    /// Rooms in memory, and places in them.
    pub rooms: usize,
    pub members: usize,
    /// Users whose places are counted.
    pub users: usize,
}

const SHARDS: usize = 64;

impl Hub {
    pub fn new(limits: HubLimits, policy: Policy, rooms: Rooms, node: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            rooms,
            ice: Ice::default(),
            webhooks: None,
            node: node.into(),
            limits,
            metrics,
            policy,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            wide: RwLock::default(),
            wide_len: AtomicUsize::new(0),
            asleep: Asleep::default(),
            hasher: RandomState::new(),
            registry: Registry::default(),
            retained: RetainedUse::default(),
            clock: Clock::default(),
            started: Instant::now(),
            next_subscriber: AtomicU64::new(1),
            backplane: OnceLock::new(),
        }
    }

    /// The same with servers for calls, and with somebody who is told of events over HTTP.
    pub(crate) fn serving(self, ice: Ice, webhooks: Option<Webhooks>) -> Self {
        Self { ice, webhooks, ..self }
    }

    /// Counts what is held.
    pub fn held(&self) -> Held {
        let Overview { kept: rooms, members, users, .. } = self.rooms.overview();
        let (sessions, timers, asleep) = (self.registry.len(), self.clock.len(), self.asleep.len());
        let mut held = Held { sessions, timers, asleep, rooms, members, users, ..Held::default() };
        let wide = self.wide.read();
        held.subscriptions += wide.len();
        held.index_nodes += wide.node_count();
        drop(wide);
        for shard in &self.shards {
            let shard = shard.lock();
            held.subscriptions += shard.index.len();
            held.index_nodes += shard.index.node_count();
            held.retained += shard.retained.len();
            held.retained_nodes += shard.retained.node_count();
        }
        held
    }

    /// Sends what is due later; runs until it is dropped.
    pub async fn drive(self: Arc<Self>) {
        Clock::drive(self).await;
    }

    /// Milliseconds since the hub was made: a clock small enough to be kept for every connection.
    pub fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }

    /// The same in nanoseconds.
    pub fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    /// Writes `control` (of the connection of that epoch) and what waits for a session, counts it, and has the
    /// connection watched if it stalls.
    pub fn flush(&self, session: &Arc<Session>, control: Option<(u32, &[u8])>, now: Instant) {
        let metrics = &self.metrics;
        let flushed = session.flush(control, now, &metrics.latency);
        if flushed.messages > 0 {
            metrics.messages_sent.increment(flushed.messages);
            metrics.bytes_sent.increment(flushed.bytes);
        }
        if flushed.expired > 0 {
            metrics.dropped_expired.increment(flushed.expired);
        }
        if flushed.oversize > 0 {
            metrics.dropped_oversize.increment(flushed.oversize);
        }
        if flushed.newly_blocked {
            self.watch_stuck(session, now);
        }
    }

    /// Rooms and members there are.
    pub fn overview(&self) -> Overview {
        self.rooms.overview()
    }

    /// Every session there is at the moment.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.registry.all()
    }

    /// A number for a session that tells nothing of how many there are.
    pub(crate) fn hash(&self, id: SubscriberId) -> u64 {
        self.hasher.hash_one(id)
    }

    pub(crate) fn clock_at(&self, when: Instant, due: Due) -> TimerKey {
        self.clock.at(when, due)
    }

    pub(crate) fn clock_cancel(&self, key: TimerKey) {
        self.clock.cancel(key);
    }

    fn shard(&self, first_two_levels: &str) -> &Mutex<Shard> {
        &self.shards[self.place(first_two_levels)]
    }

    /// Which shard it is.
    fn place(&self, first_two_levels: &str) -> usize {
        self.hasher.hash_one(first_two_levels) as usize % SHARDS
    }

    fn new_subscriber(&self) -> SubscriberId {
        SubscriberId(self.next_subscriber.fetch_add(1, Ordering::Relaxed))
    }
}

/// The first two levels of a topic or filter.
fn two_levels(topic: &str) -> &str {
    let mut slashes = topic.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    slashes.nth(1).map_or(topic, |at| &topic[..at])
}

/// Whether a filter concerns more than one shard.
fn is_wide(filter: &str) -> bool {
    filter.split('/').take(2).any(|level| level == "+" || level == "#")
}
