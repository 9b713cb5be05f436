//! Joining, leaving and everything between, carried out: places, the roster, events, what the rooms held.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use serde::Serialize;
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Held, Join, Reason, Refused, Room,
    registry::{HubMember, HubRoom, SessionRef, Shard},
};
use crate::{
    hub::{Dirty, Due, Hub, SubscriberId, TimerKey, Will},
    policy::{Identity, Refusal, SubscribePermit},
    session::{Over, Session},
    wire::mqtt::{QoS, ReasonCode},
};

/// What is kept with a held place.
#[derive(Debug)]
pub struct Keeping {
    until: Instant,
    timer: TimerKey,
    /// To be sent if nobody comes back.
    will: Option<Box<Will>>,
}

/// The grace of a held place is over, unless somebody came back.
#[derive(Debug)]
pub struct Lapse {
    room: Box<str>,
    user: Box<str>,
}

/// How members part from their rooms when their connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    Now(Reason),
    /// After the grace, for this reason.
    Later(Reason),
}

/// What parts from which rooms.
pub struct Leaving<'a> {
    pub rooms: &'a [Box<str>],
    pub parting: Parting,
    /// For the room that its topic is in; dropped if that is none of these.
    pub will: Option<Box<Will>>,
}

const FULL: Refusal = Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "the room is full" };
const LOCKED: Refusal = Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "the room is locked" };
const BANNED: Refusal = Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "you are kept out of this room" };
const TOO_MANY_ROOMS: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "as many rooms as this server has" };
const IN_TOO_MANY: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "you are in as many rooms as you may" };
const NO_PLACE: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "you are not in this room: join it first" };
const NO_ROOM: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "nobody is in this room, so nothing is retained in it" };

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => FULL,
            Refused::Locked => LOCKED,
            Refused::Banned => BANNED,
        }
    }
}

impl Hub {
    /// Subscribes a session to a filter, which joins a room if that is what the permit says. Says whether the session
    /// had subscribed to that filter before. Retained messages are on their way to it.
    ///
    /// # Errors
    /// The room does not take it, or a limit is reached.
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        permit: &SubscribePermit<'_>,
        identity: &Identity,
        id: Option<std::num::NonZeroU32>,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<bool, Refusal> {
        let Some(name) = permit.room() else { return self.index_subscription(session, permit, id, now, dirty) };
        let mut shard = self.rooms.lock(name);
        if permit.joins().is_none() {
            shard.get(name).map_or(Ok(()), |room| may_read(room, &session.user, identity, now))?;
            return self.index_subscription(session, permit, id, now, dirty);
        }
        let taken = self.reserve(&shard, name, &session.user, now)?;
        match self.index_subscription(session, permit, id, now, dirty) {
            Ok(existed) => {
                self.join(&mut shard, name, session, identity, now, dirty);
                Ok(existed)
            }
            Err(refusal) => {
                if taken {
                    self.rooms.give_back_place(&session.user);
                }
                Err(refusal)
            }
        }
    }

    /// Whether there is place for a user, and whether it had none yet: then one more is counted.
    fn reserve(&self, shard: &Shard, name: &str, user: &str, now: Instant) -> Result<bool, Refusal> {
        let room = shard.get(name);
        if let Some(room) = room {
            room.admits(user, self.rooms.config.members, now)?;
        }
        if room.is_some_and(|room| room.member(user).is_some()) {
            return Ok(false);
        }
        let opens = room.is_none_or(Room::is_empty);
        if opens && self.rooms.config.rooms.is_some_and(|most| self.rooms.open.load(Ordering::Relaxed) >= most) {
            return Err(TOO_MANY_ROOMS);
        }
        if self.rooms.take_place(user) { Ok(true) } else { Err(IN_TOO_MANY) }
    }

    fn join(
        &self,
        shard: &mut Shard,
        name: &str,
        session: &Arc<Session>,
        identity: &Identity,
        now: Instant,
        dirty: &mut Dirty,
    ) {
        let limit = identity.grants.room(name).members;
        let room = shard.entry(name.into()).or_insert_with(|| Room::new(None, now));
        let opens = room.is_empty();
        if opens {
            room.reopen(limit, now);
            self.rooms.unwatch_bans(name).into_iter().for_each(|timer| self.clock_cancel(timer));
        }
        let (user, own) = (&*session.user, SessionRef::of(session));
        // It was admitted with the room locked, and still is.
        let Ok(joined) = room.join(user, &own, None, now, SystemTime::now()) else { return };
        let announce = |room: &HubRoom, dirty: &mut Dirty| {
            if let Some(member) = room.member(user) {
                dirty.changed();
                self.write_presence(name, member, dirty);
            }
        };
        match joined {
            Join::Already => {}
            Join::Resumed(held) => self.came_back(held),
            Join::Joined => {
                self.rooms.members.fetch_add(1, Ordering::Relaxed);
                self.metrics.joins.increment(1);
                if opens {
                    self.rooms.open.fetch_add(1, Ordering::Relaxed);
                    self.tell("events/room/opened", Event::in_room(self, name), dirty);
                }
                if room.locked() {
                    self.rooms.note_closed(name, Some(room));
                }
                announce(room, dirty);
                self.tell("events/member/joined", Event { user: Some(user), ..Event::in_room(self, name) }, dirty);
            }
            Join::Moved { from, held } => {
                held.into_iter().for_each(|held| self.came_back(held));
                announce(room, dirty);
                if let Some(old) = from.0.upgrade() {
                    self.take_out_of_room(&old, name, Over::Replaced, None, dirty);
                }
            }
        }
    }

    fn came_back(&self, held: Held<Keeping>) {
        self.clock_cancel(held.with.timer);
        self.metrics.resumed.increment(1);
    }

    /// Whether a session may publish into a room: as a member, or as a user whose place is held; in open mode also as
    /// a stranger, while the room is neither full nor locked.
    pub(crate) fn may_speak(&self, session: &Session, identity: &Identity, room: &str, now: Instant) -> bool {
        if session.lock().is_member(room) {
            return true;
        }
        let shard = self.rooms.lock(room);
        match shard.get(room) {
            None => identity.believed,
            Some(found) => {
                found.member(&session.user).is_some_and(|place| place.held.is_some())
                    || identity.believed && found.admits(&session.user, self.rooms.config.members, now).is_ok()
            }
        }
    }

    /// A joining subscription has ended: the last one of its room was the place.
    pub(crate) fn unsubscribed(&self, session: &Arc<Session>, room: &str, now: Instant, dirty: &mut Dirty) {
        let mut shard = self.rooms.lock(room);
        if session.lock().is_member(room) {
            return;
        }
        if shard.get(room).is_some_and(|found| found.has(&session.user, &SessionRef::of(session))) {
            self.leave(&mut shard, room, &session.user, Reason::Left, now, dirty);
            // What it may still read of a room it may not where that is for members alone.
            if shard.get(room).is_some_and(Room::locked) && !session.lock().observes() {
                self.take_out_of_room(session, room, Over::Locked, None, dirty);
            }
        }
    }

    /// The connection of that epoch has ended: its session's places are left or held. Places that a later connection
    /// of the session has already are not touched.
    pub(crate) fn part(
        &self,
        session: &Arc<Session>,
        epoch: u32,
        Leaving { rooms, parting, mut will }: Leaving<'_>,
        now: Instant,
        dirty: &mut Dirty,
    ) {
        for name in rooms {
            let mut shard = self.rooms.lock(name);
            let own = SessionRef::of(session);
            let is_own = shard.get(name).is_some_and(|room| room.has(&session.user, &own));
            if !is_own || session.epoch() != epoch {
                continue;
            }
            let own_will = will.take_if(|will| will.message.room() == Some(&**name));
            match parting {
                Parting::Later(reason) if !self.rooms.grace.is_zero() => {
                    self.hold(&mut shard, name, session, reason, own_will, now);
                }
                Parting::Now(reason) | Parting::Later(reason) => {
                    self.leave(&mut shard, name, &session.user, reason, now, dirty);
                    // With the room locked: its client, who may be back at this moment, joins anew after this.
                    self.sleep(session, name);
                    drop(shard);
                    // Whoever was put out says nothing any more.
                    if matches!(reason, Reason::Left | Reason::Lost | Reason::Expired) {
                        self.send_will_with(own_will, now, dirty);
                    }
                }
            }
        }
    }

    fn hold(
        &self,
        shard: &mut Shard,
        name: &str,
        session: &Arc<Session>,
        reason: Reason,
        will: Option<Box<Will>>,
        now: Instant,
    ) {
        let until = now + self.rooms.grace;
        let timer = self.clock_at(until, Due::Lapse(Lapse { room: name.into(), user: session.user.clone() }));
        let held = Held { reason, with: Keeping { until, timer, will } };
        let room = shard.get_mut(name);
        let kept = room.map(|room| room.hold(&session.user, &SessionRef::of(session), held));
        if !matches!(kept, Some(Ok(()))) {
            self.clock_cancel(timer);
        }
    }

    /// The session is connected again: what it held is its own. Says which of these rooms it is still in.
    pub(crate) fn resume_place(&self, session: &Arc<Session>, name: &str) -> bool {
        let mut shard = self.rooms.lock(name);
        let own = SessionRef::of(session);
        let Some(room) = shard.get_mut(name).filter(|room| room.has(&session.user, &own)) else { return false };
        if let Some(held) = room.resume(&session.user, &own) {
            self.came_back(held);
        }
        true
    }

    /// A grace is over.
    pub(crate) fn lapse(&self, lapse: &Lapse, now: Instant) {
        let mut dirty = Dirty::default();
        let Lapse { room: name, user } = lapse;
        let mut shard = self.rooms.lock(name);
        let held = shard.get(name).and_then(|room| room.member(user)?.held.as_ref());
        let Some(reason) = held.filter(|held| held.with.until <= now).map(|held| held.reason) else { return };
        let gone = self.leave(&mut shard, name, user, reason, now, &mut dirty);
        if let Some(session) = gone.as_ref().and_then(|gone| gone.session.0.upgrade()) {
            self.sleep(&session, name);
        }
        drop(shard);
        if let Some(gone) = gone {
            self.send_will_with(gone.held.and_then(|held| held.with.will), now, &mut dirty);
        }
        dirty.flush(self, now);
    }

    /// Ends a stay, and with the last one the room.
    pub(super) fn leave(
        &self,
        shard: &mut Shard,
        name: &str,
        user: &str,
        reason: Reason,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Option<HubMember> {
        let room = shard.get_mut(name)?;
        let gone = room.leave(user)?;
        dirty.changed();
        let empty = room.is_empty();
        if room.locked() {
            self.rooms.note_closed(name, Some(room));
        }
        gone.held.iter().for_each(|held| self.clock_cancel(held.with.timer));
        self.rooms.give_back_place(user);
        self.rooms.members.fetch_sub(1, Ordering::Relaxed);
        self.metrics.left(reason);
        if let Some(topic) = self.policy.rules().presence_topic(name, user) {
            self.publish_own(&topic, b"", QoS::AtLeastOnce, true, dirty);
        }
        let seconds = Some(gone.stayed(now).as_secs());
        let event = Event { user: Some(user), reason: Some(reason.name()), seconds, ..Event::in_room(self, name) };
        self.tell("events/member/left", event, dirty);
        if empty {
            self.close_empty(shard, name, user, now, dirty);
        }
        Some(gone)
    }

    /// Takes back all that a room held whose last member has left.
    fn close_empty(&self, shard: &mut Shard, name: &str, last: &str, now: Instant, dirty: &mut Dirty) {
        self.rooms.open.fetch_sub(1, Ordering::Relaxed);
        for filter in self.policy.rules().table.filters_of_room(name) {
            self.clear_retained(&filter);
        }
        if let Some(room) = shard.get_mut(name) {
            let seconds = Some(now.saturating_duration_since(room.opened()).as_secs());
            self.tell("events/room/closed", Event { seconds, ..Event::in_room(self, name) }, dirty);
            room.set_locked(false);
            self.rooms.note_closed(name, Some(room));
            match room.banned_until().filter(|until| *until > now) {
                Some(until) if self.rooms.may_watch_bans(last) => {
                    self.rooms.watch_bans(name, last, self.clock_at(until, Due::Bans(name.into())));
                }
                banned => {
                    if banned.is_some() {
                        self.metrics.refused("keep bans", ReasonCode::QUOTA_EXCEEDED);
                        tracing::warn!(room = ?name, user = ?last, "bans forgotten: too many rooms that are kept for theirs");
                    }
                    self.forget_room(shard, name);
                }
            }
        }
    }

    /// The last ban of a room without members may have ended.
    pub(crate) fn bans_over(&self, name: &str, now: Instant) {
        let mut shard = self.rooms.lock(name);
        match shard.get(name) {
            Some(room) if room.is_over(now) => self.forget_room(&mut shard, name),
            Some(room) if room.is_empty() => {
                let until = room.banned_until().unwrap_or(now);
                self.rooms.watch_bans_on(name, self.clock_at(until, Due::Bans(name.into())));
            }
            _ => {}
        }
    }

    pub(super) fn forget_room(&self, shard: &mut Shard, name: &str) {
        shard.remove(name);
        self.rooms.unwatch_bans(name).into_iter().for_each(|timer| self.clock_cancel(timer));
        self.rooms.note_closed(name, None);
        if shard.len() < shard.capacity() / 8 {
            shard.shrink_to_fit();
        }
    }

    /// Does something with the room locked, if anybody is in it: nothing is retained in one that is gone.
    ///
    /// # Errors
    /// Nobody is in it.
    pub(crate) fn while_open<T>(&self, name: &str, act: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let shard = self.rooms.lock(name);
        if shard.get(name).is_none_or(Room::is_empty) {
            return Err(NO_ROOM);
        }
        act()
    }

    /// What a member wants others to know of it; nothing clears it.
    ///
    /// # Errors
    /// It is no member.
    pub(crate) fn set_meta(
        &self,
        session: &Arc<Session>,
        name: &str,
        meta: &[u8],
        dirty: &mut Dirty,
    ) -> Result<(), Refusal> {
        let mut shard = self.rooms.lock(name);
        let member = shard.get_mut(name).and_then(|room| room.member_mut(&session.user)).ok_or(NO_PLACE)?;
        member.meta = (!meta.is_empty()).then(|| meta.into());
        self.write_presence(name, member, dirty);
        Ok(())
    }

    pub(super) fn write_presence(&self, room: &str, member: &HubMember, dirty: &mut Dirty) {
        let Some(topic) = self.policy.rules().presence_topic(room, &member.user) else { return };
        let instance = self.instance(member.session.1);
        let payload = serde_json::to_vec(&Entry::of(member, &instance)).unwrap_or_default();
        self.publish_own(&topic, &payload, QoS::AtLeastOnce, true, dirty);
    }

    /// What a session is called in the roster: the same for as long as it lives, and told apart from the others.
    pub(crate) fn instance(&self, session: SubscriberId) -> String {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut rest = self.hash(session);
        let mut digit = || {
            let digit = DIGITS[(rest % 36) as usize];
            rest /= 36;
            char::from(digit)
        };
        (0..7).map(|_| digit()).collect()
    }

    /// Publishes an event for services, if anybody listens.
    pub(crate) fn tell(&self, topic: &str, event: Event<'_>, dirty: &mut Dirty) {
        if let Some(webhooks) = &self.webhooks {
            webhooks.offer(topic, &event);
        }
        if self.backplane.get().is_some() || self.is_subscribed(topic) {
            let payload = serde_json::to_vec(&event).unwrap_or_default();
            self.publish_own(topic, &payload, QoS::AtLeastOnce, false, dirty);
        }
    }

    /// Tells services that somebody was not let in.
    pub(crate) fn tell_refused(&self, user: &str, reason: &str) {
        let mut dirty = Dirty::default();
        self.tell(
            "events/connection/refused",
            Event { user: Some(user), reason: Some(reason), ..Event::now(self) },
            &mut dirty,
        );
        dirty.flush(self, Instant::now());
    }

    /// Tells a user what was refused, on its errors topic, if it listens there.
    pub(crate) fn report(
        &self,
        user: &str,
        topic: &str,
        action: &'static str,
        code: ReasonCode,
        reason: &str,
        dirty: &mut Dirty,
    ) {
        let Some(errors) = self.policy.rules().errors_topic(user) else { return };
        if self.is_subscribed(&errors) {
            let payload = Line { topic, action, code: code.0, reason }.to_json();
            self.publish_own(&errors, &payload, QoS::AtMostOnce, false, dirty);
        }
    }

    /// Tells one session on that topic what concerns it alone: another tab of its user is none the worse for it.
    pub(crate) fn report_to(
        &self,
        session: &Arc<Session>,
        topic: &str,
        action: &'static str,
        refusal: Refusal,
        dirty: &mut Dirty,
    ) {
        self.report_why(session, topic, action, refusal.reason, refusal.what, dirty);
    }

    /// The same, in a moderator's words.
    pub(crate) fn report_why(
        &self,
        session: &Arc<Session>,
        topic: &str,
        action: &'static str,
        code: ReasonCode,
        reason: &str,
        dirty: &mut Dirty,
    ) {
        if let Some(errors) = self.policy.rules().errors_topic(&session.user) {
            self.send_own(session, &errors, &Line { topic, action, code: code.0, reason }.to_json(), dirty);
        }
    }
}

/// One line on an errors topic.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    action: &'a str,
    code: u8,
    reason: &'a str,
}

impl Line<'_> {
    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn may_read(room: &HubRoom, user: &str, identity: &Identity, now: Instant) -> Result<(), Refusal> {
    match () {
        () if room.is_banned(user, now) => Err(BANNED),
        () if room.locked() && !identity.grants.observe() && room.member(user).is_none() => Err(LOCKED),
        () => Ok(()),
    }
}

/// One line of `events/…`.
#[derive(Debug, Clone, Serialize)]
pub struct Event<'a> {
    pub at: String,
    pub node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// How long it lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

impl<'a> Event<'a> {
    /// Something that happened now.
    pub fn now(hub: &'a Hub) -> Self {
        Self { at: timestamp(SystemTime::now()), node: &hub.node, room: None, user: None, reason: None, seconds: None }
    }

    fn in_room(hub: &'a Hub, room: &'a str) -> Self {
        Self { room: Some(room), ..Self::now(hub) }
    }
}

/// A member as the roster has it.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    username: &'a str,
    status: &'static str,
    instance: &'a str,
    since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

impl<'a> Entry<'a> {
    pub(super) fn of(member: &'a HubMember, instance: &'a str) -> Self {
        let meta = member.meta.as_ref().and_then(|meta| serde_json::from_slice(meta).ok());
        Self { username: &member.user, status: "online", instance, since: timestamp(member.since), meta }
    }
}

/// RFC 3339 in UTC, to the second.
pub fn timestamp(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at).replace_nanosecond(0);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
