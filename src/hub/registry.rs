//! Sessions by client id: how one begins, is taken over, is resumed, waits without a connection, and ends.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Dirty, Due, Hub, Message,
    kept::{Displaced, Kept},
};
use crate::{
    backplane::Source,
    policy::{Identity, Refusal},
    room::{Leaving, Parting, Reason},
    session::{Attachment, Close, Session, State},
    wire::mqtt::ReasonCode,
};

const SHARDS: usize = 64;
/// A session expiry of this many seconds never comes [MQTT-3.1.2.11.2].
pub const NEVER: u32 = u32::MAX;

pub const TAKEN_OVER: Close =
    Close { reason: ReasonCode::SESSION_TAKEN_OVER, what: "another connection uses this client id" };
const QUEUE_FULL: Close =
    Close { reason: ReasonCode::QUOTA_EXCEEDED, what: "messages were not read as fast as they came" };
pub const SILENT: Close = Close { reason: ReasonCode::KEEP_ALIVE_TIMEOUT, what: "nothing heard within keep alive" };
pub const LOST: Close = Close { reason: ReasonCode::KEEP_ALIVE_TIMEOUT, what: "no answer to a ping" };
pub const STUCK: Close =
    Close { reason: ReasonCode::UNSPECIFIED_ERROR, what: "the connection took no bytes for too long" };
const CLOSING: Refusal = Refusal { reason: ReasonCode::SERVER_UNAVAILABLE, what: "the server is shutting down" };
const NOT_YOURS: Refusal = Refusal {
    reason: ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    what: "this client id belongs to a session of another user",
};

/// A will, judged and ready to be sent.
#[derive(Debug)]
pub struct Will {
    /// Who left it: it is judged again when it is sent.
    pub identity: Arc<Identity>,
    pub client_id: Box<str>,
    pub message: Message,
    /// Will Delay Interval, seconds.
    pub delay: u32,
    /// Message Expiry Interval, seconds from when it is published.
    pub expiry: Option<u32>,
}

/// A connection that wants its session.
pub struct Connect<'a> {
    pub client_id: &'a str,
    pub identity: &'a Arc<Identity>,
    pub clean_start: bool,
    /// Seconds that the session shall outlive the connection.
    pub expiry: u32,
    pub attachment: Attachment,
    pub will: Option<Will>,
    /// Makes the CONNACK, given whether a session was present: it is there before anybody else can write.
    pub greeting: &'a dyn Fn(bool) -> Vec<u8>,
}

/// A connection that has its session.
pub struct Connected {
    pub session: Arc<Session>,
    pub epoch: u32,
    pub present: bool,
}

/// How a connection ended, as far as its session is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// DISCONNECT 0x00: the will is discarded [MQTT-3.14.4-3].
    Normal,
    /// DISCONNECT 0x04: the client says goodbye and the will is due.
    WithWill,
    /// The will is due, and so for all that follows.
    Lost,
    /// Its token ran out.
    Expired,
    /// The operator ended it, or too many refusals did.
    Removed,
}

impl End {
    fn parting(self) -> Parting {
        match self {
            Self::Normal | Self::WithWill => Parting::Now(Reason::Left),
            Self::Removed => Parting::Now(Reason::Disconnected),
            Self::Lost => Parting::Later(Reason::Lost),
            Self::Expired => Parting::Later(Reason::Expired),
        }
    }
}

pub(super) struct Registry {
    shards: Box<[Mutex<Sessions>]>,
    hasher: RandomState,
    /// Sessions in all.
    sessions: AtomicUsize,
    /// Those of them without a connection. Locked after a session, if together.
    kept: Mutex<Kept>,
    /// No session begins any more. Looked at with the client id's shard locked, so that whoever sets it finds in the
    /// shards every session that began.
    closed: AtomicBool,
}

type Sessions = HashMap<Box<str>, Arc<Session>>;

impl Default for Registry {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            sessions: AtomicUsize::new(0),
            kept: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }
}

impl Registry {
    pub fn len(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Those that wait without a connection.
    #[cfg(test)]
    pub fn kept(&self) -> &Mutex<Kept> {
        &self.kept
    }

    fn shard(&self, client_id: &str) -> &Mutex<Sessions> {
        &self.shards[self.hasher.hash_one(client_id) as usize % SHARDS]
    }

    /// Every session there is at the moment.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// Forgets `session`, if it is still the one of its client id.
    fn remove(&self, session: &Session) {
        let mut sessions = self.shard(&session.client_id).lock();
        if sessions.get(&session.client_id).is_some_and(|found| found.id == session.id) {
            sessions.remove(&session.client_id);
            if sessions.len() < sessions.capacity() / 8 {
                sessions.shrink_to_fit();
            }
            self.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Hub {
    /// Attaches a connection to its session: the one that is there, unless the client wants a clean start
    /// [MQTT-3.1.2-4], [MQTT-3.1.2-5], or a new one. Whoever held the client id is taken over [MQTT-3.1.4-3].
    /// A refusal gives back what was to be attached.
    pub fn connect(&self, connect: Connect<'_>, now: Instant) -> Result<Connected, (Refusal, Attachment)> {
        let mut sessions = self.registry.shard(connect.client_id).lock();
        if self.registry.closed.load(Ordering::SeqCst) {
            return Err((CLOSING, connect.attachment));
        }
        let old = sessions.get(connect.client_id).cloned();
        if old.as_ref().is_some_and(|old| old.user != connect.identity.user) {
            return Err((NOT_YOURS, connect.attachment));
        }
        let mut will = None;
        if let Some(session) = &old {
            let mut state = session.lock();
            // A session that is not to outlive its connection ends with it, however that comes [MQTT-3.1.2-23].
            let ends = connect.clean_start || state.ended || state.expiry == 0;
            will = self.take_over(&mut state, ends);
            if !ends {
                let epoch = self.attach(session, &mut state, connect, true, now);
                drop(state);
                drop(sessions);
                // The will of a room is for who does not come back, and its client is back.
                self.send_will(will.filter(|will| will.message.room().is_none()), now);
                self.wake_up(session, epoch, now);
                return Ok(Connected { session: Arc::clone(session), epoch, present: true });
            }
            state.ended = true;
        }
        let session = Arc::new(Session::new(self.new_subscriber(), connect.client_id, &connect.identity.user));
        let epoch = self.attach(&session, &mut session.lock(), connect, false, now);
        if sessions.insert(session.client_id.clone(), Arc::clone(&session)).is_none() {
            self.registry.sessions.fetch_add(1, Ordering::Relaxed);
        }
        drop(sessions);
        if let Some(old) = old {
            self.end_session_with(&old, will, now);
        }
        Ok(Connected { session, epoch, present: false })
    }

    fn attach(&self, session: &Session, state: &mut State, connect: Connect<'_>, present: bool, now: Instant) -> u32 {
        self.stop_waiting(state);
        state.identity = Some(Arc::clone(connect.identity));
        state.attachment = connect.attachment;
        if let Some(link) = state.link() {
            link.control = (connect.greeting)(present);
        }
        state.expiry = connect.expiry;
        state.will = connect.will.map(Box::new);
        state.outbound.reconnect();
        session.hear(self.millis(now));
        session.next_epoch()
    }

    /// Ends the present connection of a session, which `ends` with it or goes on, in favour of a new one;
    /// gives back the will if it is due now.
    fn take_over(&self, state: &mut State, ends: bool) -> Option<Box<Will>> {
        let attachment = std::mem::replace(&mut state.attachment, Attachment::None);
        self.stop_watching(&attachment);
        match attachment {
            Attachment::Link(mut link) => link.replaced(TAKEN_OVER),
            Attachment::Local(local) => local.waker.into_iter().for_each(std::task::Waker::wake),
            // Its will waits for its delay or for the end of the session, and dies with a resumption [MQTT-3.1.3-9].
            Attachment::None => return state.will.take().filter(|_| ends),
        }
        state.will.take().filter(|will| ends || will.delay == 0)
    }

    /// A connection is over. Does nothing if the session has gone on to a newer one.
    pub fn disconnect(&self, session: &Arc<Session>, epoch: u32, end: End, now: Instant) {
        let mut state = session.lock();
        if session.epoch() != epoch || !state.connected() {
            return;
        }
        let closed_when_unlocked = std::mem::replace(&mut state.attachment, Attachment::None);
        self.stop_watching(&closed_when_unlocked);
        let address = match &closed_when_unlocked {
            Attachment::Link(link) => link.address,
            Attachment::Local(_) | Attachment::None => None,
        };
        let mut will = state.will.take().filter(|_| end != End::Normal);
        let of_room = will.take_if(|will| will.message.room().is_some());
        let rooms = state.joined();
        let lasts = !state.ended && state.expiry > 0;
        let displaced = lasts.then(|| self.keep(session, &mut state, epoch, address)).flatten();
        if displaced.is_some() {
            will = self.wait(session, &mut state, epoch, will, now);
        } else {
            state.ended = true;
        }
        drop(state);
        let mut dirty = Dirty::default();
        let leaving = Leaving { rooms: &rooms, parting: end.parting(), will: of_room };
        self.part(session, epoch, leaving, now, &mut dirty);
        self.send_will_with(will, now, &mut dirty);
        dirty.flush(self, now);
        match displaced {
            Some(displaced) => self.end_displaced(displaced, now),
            None => self.end_session(session, now),
        }
    }

    /// The client says goodbye: it has left its rooms before it sees its connection closed.
    pub fn leave_rooms(&self, session: &Arc<Session>, epoch: u32, now: Instant, dirty: &mut Dirty) {
        let mut state = session.lock();
        if session.epoch() != epoch {
            return;
        }
        let rooms = state.joined();
        let of_room = state.will.take_if(|will| will.message.room().is_some());
        drop(state);
        let leaving = Leaving { rooms: &rooms, parting: End::Normal.parting(), will: of_room };
        self.part(session, epoch, leaving, now, dirty);
    }

    fn stop_watching(&self, attachment: &Attachment) {
        let watches = match attachment {
            Attachment::Link(link) => [link.silence_watch, link.stuck_watch, link.token_watch, link.ice_watch],
            Attachment::Local(local) => [local.ice_watch, None, None, None],
            Attachment::None => return,
        };
        watches.into_iter().flatten().for_each(|key| self.clock.cancel(key));
    }

    /// Takes a place among the sessions kept without a connection, if there is one; says who had to make room.
    fn keep(
        &self,
        session: &Arc<Session>,
        state: &mut State,
        epoch: u32,
        address: Option<IpAddr>,
    ) -> Option<Displaced> {
        let taken = self.registry.kept.lock().take(session, epoch, address, &self.limits.sessions);
        let Some((place, displaced)) = taken else {
            self.metrics.refused("session", ReasonCode::QUOTA_EXCEEDED);
            return None;
        };
        state.place = Some(place);
        Some(displaced)
    }

    /// Ends sessions that had to make room, unless their clients have just come back.
    fn end_displaced(&self, Displaced { by_user, by_address }: Displaced, now: Instant) {
        for (displaced, count) in
            [(by_user, &self.metrics.sessions_displaced_user), (by_address, &self.metrics.sessions_displaced_address)]
        {
            if let Some((session, epoch)) = displaced {
                count.increment(1);
                self.expire(&session, epoch, now);
            }
        }
    }

    /// Sets the deadlines of a session without a connection; gives back the will if it is due at once.
    fn wait(
        &self,
        session: &Arc<Session>,
        state: &mut State,
        epoch: u32,
        will: Option<Box<Will>>,
        now: Instant,
    ) -> Option<Box<Will>> {
        let seconds = |seconds: u32| now + Duration::from_secs(seconds.into());
        if state.expiry != NEVER {
            let key = self.clock.at(seconds(state.expiry), Due::Expiry(Arc::downgrade(session), epoch));
            state.timers.get_or_insert_default()[0] = Some(key);
        }
        let will = will?;
        if will.delay == 0 {
            return Some(will);
        }
        let key = self.clock.at(seconds(will.delay), Due::Will(Arc::downgrade(session), epoch));
        state.timers.get_or_insert_default()[1] = Some(key);
        state.will = Some(will);
        None
    }

    /// Takes back what `wait` arranged.
    fn stop_waiting(&self, state: &mut State) {
        if let Some(place) = state.place.take() {
            self.registry.kept.lock().give_back(place);
        }
        for key in state.timers.take().into_iter().flat_map(|keys| *keys).flatten() {
            self.clock.cancel(key);
        }
    }

    /// Forgets a session that nobody is connected to: its subscriptions, its queue, its client id. A will that was
    /// waiting is sent now, since the session ends before its delay does (3.1.3.2.2).
    pub(super) fn end_session(&self, session: &Arc<Session>, now: Instant) {
        self.end_session_with(session, None, now);
    }

    /// The same, with the will of a connection that has just been taken over. Places in rooms are held.
    fn end_session_with(&self, session: &Arc<Session>, will: Option<Box<Will>>, now: Instant) {
        let mut state = session.lock();
        state.ended = true;
        self.stop_waiting(&mut state);
        let gone = std::mem::take(&mut *state);
        state.ended = true;
        drop(state);
        self.registry.remove(session);
        let mut will = will.or(gone.will);
        let of_room = will.take_if(|will| will.message.room().is_some());
        let mut dirty = Dirty::default();
        let rooms: Vec<Box<str>> = gone.subscriptions.iter().filter_map(|kept| kept.joins().map(Into::into)).collect();
        let leaving = Leaving { rooms: &rooms, parting: Parting::Later(Reason::Lost), will: of_room };
        self.part(session, session.epoch(), leaving, now, &mut dirty);
        for kept in &gone.subscriptions {
            self.forget(session.id, &kept.filter);
        }
        self.send_will_with(will, now, &mut dirty);
        dirty.flush(self, now);
    }

    /// The session could not keep a message that it had to: its client learns it from the reason, or from finding no
    /// session when it comes back.
    pub(super) fn overflow(&self, session: &Arc<Session>) {
        self.metrics.sessions_overflowed.increment(1);
        if session.lock().connected() {
            session.close(QUEUE_FULL);
        } else {
            self.clock.at(Instant::now(), Due::Expiry(Arc::downgrade(session), session.epoch()));
        }
    }

    /// The session has waited long enough for its client, unless that came back meanwhile.
    pub(super) fn expire(&self, session: &Arc<Session>, epoch: u32, now: Instant) {
        let mut state = session.lock();
        let over = session.epoch() == epoch && !state.connected();
        state.ended |= over;
        drop(state);
        if over {
            self.end_session(session, now);
        }
    }

    /// The will has waited long enough, unless its client came back meanwhile.
    pub(super) fn will_due(&self, session: &Arc<Session>, epoch: u32, now: Instant) {
        let mut state = session.lock();
        let due = session.epoch() == epoch && !state.connected();
        let will = if due { state.will.take() } else { None };
        drop(state);
        self.send_will(will, now);
    }

    fn send_will(&self, will: Option<Box<Will>>, now: Instant) {
        let mut dirty = Dirty::default();
        self.send_will_with(will, now, &mut dirty);
        dirty.flush(self, now);
    }

    pub(crate) fn send_will_with(&self, will: Option<Box<Will>>, now: Instant, dirty: &mut Dirty) {
        let Some(will) = will else { return };
        let identity = Arc::clone(&will.identity);
        let source = Source::Client(&identity.user);
        let permit = self.policy.will_fires(*will, now);
        let sent = permit.and_then(|permit| self.publish(source, permit, now, dirty));
        if let Err(refusal) = sent {
            self.metrics.refused("will", refusal.reason);
        }
    }

    /// Takes no more connections, and asks each that is there to end when it has sent what waits.
    pub fn drain_all(&self, close: Close) {
        self.registry.closed.store(true, Ordering::SeqCst);
        for session in self.registry.all() {
            session.drain(close);
        }
    }

    /// Asks every connection to end.
    pub fn close_all(&self, close: Close) {
        for session in self.registry.all() {
            session.close(close);
        }
    }
}
