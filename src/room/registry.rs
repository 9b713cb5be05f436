//! All rooms of this process, by name.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{Closed, Member, Room, live::Keeping};
use crate::{
    config::{PresenceConfig, RoomsConfig},
    hub::{Message, SubscriberId, TimerKey},
    policy::base,
    session::Session,
};

const SHARDS: usize = 64;
/// Rooms that are remembered for nothing but those they keep out.
const ONLY_BANS: usize = 10_000;
/// The same on account of one user, so that nobody's bans are forgotten for somebody else's.
const ONLY_BANS_PER_USER: usize = 100;

/// A session, which this does not keep alive; its number is known also when it has ended.
#[derive(Debug, Clone)]
pub struct SessionRef(pub Weak<Session>, pub SubscriberId);

impl SessionRef {
    pub fn of(session: &Arc<Session>) -> Self {
        Self(Arc::downgrade(session), session.id)
    }
}

impl PartialEq for SessionRef {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

pub(super) type HubRoom = Room<SessionRef, Keeping>;
pub(crate) type HubMember = Member<SessionRef, Keeping>;
pub(super) type Shard = HashMap<Box<str>, HubRoom>;

/// See the module.
pub struct Rooms {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    pub(super) config: RoomsConfig,
    pub(super) grace: Duration,
    /// Rooms with members, and members in all.
    pub(super) open: AtomicUsize,
    pub(super) members: AtomicUsize,
    /// Whom rooms keep out, for messages on their way to subscriptions that span rooms.
    closed: RwLock<HashMap<Box<str>, Arc<Closed>>>,
    closed_len: AtomicUsize,
    /// Rooms that nobody is in and that keep somebody out, each with the deadline at which it is forgotten. Locked
    /// after the room.
    bans: Mutex<OnlyBans>,
    /// Places by user, devices included.
    users: Mutex<HashMap<Box<str>, usize>>,
}

/// Rooms that are remembered for their bans alone: the deadline, and on whose account; and how many are on whose.
#[derive(Default)]
struct OnlyBans {
    rooms: HashMap<Box<str>, (TimerKey, Box<str>)>,
    users: HashMap<Box<str>, usize>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overview {
    pub rooms: usize,
    pub members: usize,
    /// Rooms in memory, those included that keep somebody out and have nobody in them.
    pub kept: usize,
    /// Users whose places are counted.
    pub users: usize,
}

impl Rooms {
    pub fn new(config: RoomsConfig, presence: &PresenceConfig) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            config,
            grace: presence.grace,
            open: AtomicUsize::new(0),
            members: AtomicUsize::new(0),
            closed: RwLock::default(),
            closed_len: AtomicUsize::new(0),
            bans: Mutex::default(),
            users: Mutex::default(),
        }
    }

    /// Counts what there is.
    pub fn overview(&self) -> Overview {
        Overview {
            rooms: self.open.load(Ordering::Relaxed),
            members: self.members.load(Ordering::Relaxed),
            kept: self.shards.iter().map(|shard| shard.lock().len()).sum(),
            users: self.users.lock().len(),
        }
    }

    pub(super) fn lock(&self, room: &str) -> MutexGuard<'_, Shard> {
        self.shards[self.hasher.hash_one(room) as usize % SHARDS].lock()
    }

    /// The rooms with members of which `wanted` says so. By the time one is locked again, it may have changed.
    pub(super) fn names(&self, wanted: impl Fn(&HubRoom) -> bool) -> Vec<Box<str>> {
        let mut names = Vec::new();
        self.each(|name, room| names.extend(wanted(room).then(|| Box::<str>::from(name))));
        names
    }

    /// Looks at every room with members.
    pub(super) fn each(&self, mut look: impl FnMut(&str, &HubRoom)) {
        for shard in &self.shards {
            for (name, room) in shard.lock().iter().filter(|(_, room)| !room.is_empty()) {
                look(name, room);
            }
        }
    }

    /// Notes whom a room keeps out now, after its locks, bans or members have changed.
    pub(super) fn note_closed(&self, name: &str, room: Option<&HubRoom>) {
        let closed = room.and_then(Room::closed).map(Arc::new);
        if closed.is_none() && self.closed_len.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut all = self.closed.write();
        match closed {
            Some(closed) => drop(all.insert(name.into(), closed)),
            None => drop(all.remove(name)),
        }
        if all.len() < all.capacity() / 8 {
            all.shrink_to_fit();
        }
        self.closed_len.store(all.len(), Ordering::Release);
    }

    /// Whether one more room may be remembered for its bans alone, on account of the user who left it last.
    pub(super) fn may_watch_bans(&self, user: &str) -> bool {
        let bans = self.bans.lock();
        bans.rooms.len() < ONLY_BANS && bans.users.get(base(user)).is_none_or(|rooms| *rooms < ONLY_BANS_PER_USER)
    }

    /// Remembers a room for its bans alone until that deadline.
    pub(super) fn watch_bans(&self, name: &str, user: &str, timer: TimerKey) {
        let mut bans = self.bans.lock();
        *bans.users.entry(base(user).into()).or_default() += 1;
        bans.rooms.insert(name.into(), (timer, base(user).into()));
    }

    /// Another deadline for a room that is remembered already.
    pub(super) fn watch_bans_on(&self, name: &str, timer: TimerKey) {
        if let Some(watched) = self.bans.lock().rooms.get_mut(name) {
            watched.0 = timer;
        }
    }

    /// The deadline of a room that is not remembered for its bans alone any more.
    pub(super) fn unwatch_bans(&self, name: &str) -> Option<TimerKey> {
        let OnlyBans { rooms, users } = &mut *self.bans.lock();
        let (timer, user) = rooms.remove(name)?;
        if let Some(count) = users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&user);
            }
        }
        if rooms.len() < rooms.capacity() / 8 {
            rooms.shrink_to_fit();
            users.shrink_to_fit();
        }
        Some(timer)
    }

    /// Whom the room of a message keeps out at the moment.
    pub(crate) fn closed(&self, message: &Message) -> Option<Arc<Closed>> {
        if self.closed_len.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.closed.read().get(message.room()?).cloned()
    }

    /// Takes one more place for a user; `false` if it has as many as it may.
    pub(super) fn take_place(&self, user: &str) -> bool {
        let mut users = self.users.lock();
        let most = self.config.rooms_per_user;
        match users.get_mut(base(user)) {
            Some(places) if most.is_some_and(|most| *places >= most) => return false,
            Some(places) => *places += 1,
            None => drop(users.insert(base(user).into(), 1)),
        }
        true
    }

    pub(super) fn give_back_place(&self, user: &str) {
        let mut users = self.users.lock();
        if let Some(places) = users.get_mut(base(user)) {
            *places -= 1;
            if *places == 0 {
                users.remove(base(user));
            }
        }
        if users.len() < users.capacity() / 8 {
            users.shrink_to_fit();
        }
    }
}
