//! Subscriptions judged again: when a client comes back, when its rights change, when the rules do.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{Dirty, Due, Hub, Message};
use crate::{
    policy::{Asker, Expiry, Identity, Refusal, Visible, split_share},
    room::{Leaving, Parting, Reason},
    session::{Close, Kept, Over, Session, Standing, State},
    wire::mqtt::{ReasonCode, topic},
};

/// What ends a connection whose token has run out.
pub const TOKEN_OVER: Close = Close { reason: ReasonCode::NOT_AUTHORIZED, what: "the token has expired" };
/// What ends a connection that the operator wants ended.
pub const REVOKED: Close = Close { reason: ReasonCode::ADMINISTRATIVE_ACTION, what: "this login was revoked" };
pub const DISCONNECTED: Close =
    Close { reason: ReasonCode::ADMINISTRATIVE_ACTION, what: "disconnected by the operator" };
/// How long before its `exp` a token's user is told.
const NOTICE: Duration = Duration::from_secs(60);

impl Hub {
    /// The client of a kept session is back: its subscriptions are judged by who it is now, its places in rooms are its
    /// own again, and where its stay ended meanwhile, it joins anew or is told that it does not.
    pub(super) fn wake_up(&self, session: &Arc<Session>, epoch: u32, now: Instant) {
        let rooms = session.lock().joined();
        for room in rooms {
            if !self.resume_place(session, &room) {
                self.sleep(session, &room);
            }
        }
        let mut dirty = Dirty::default();
        self.rejudge(session, epoch, now, &mut dirty);
        self.ice_resumed(session, epoch, now, &mut dirty);
        // Its CONNACK goes first, with the connection that is only beginning.
        dirty.flush(self, now);
    }

    /// Judges every subscription of a session by the rules and the rights that it has now. What is no longer allowed
    /// ends, and so does what is queued for it alone; its user is told.
    pub(crate) fn rejudge(&self, session: &Arc<Session>, epoch: u32, now: Instant, dirty: &mut Dirty) {
        let state = session.lock();
        let Some(identity) = state.identity.clone().filter(|_| session.epoch() == epoch) else { return };
        let all = state.subscriptions.clone();
        drop(state);
        let (mut ended, mut partial) = (false, Vec::new());
        for kept in &all {
            if let Standing::Over(over) = kept.standing {
                if !session.lock().connected() {
                    continue;
                }
                self.take_out(session, &kept.filter);
                self.report_to(session, &kept.filter, over.action(), over.refusal(), dirty);
                continue;
            }
            match self.rejudge_one(session, &identity, kept, now, dirty) {
                Ok(None) => {}
                Ok(Some(visible)) => partial.push((&kept.filter, visible)),
                Err(refusal) => {
                    self.unsubscribe(session, &kept.filter, now, dirty);
                    self.report_to(session, &kept.filter, "subscribe", refusal, dirty);
                    ended = true;
                }
            }
        }
        if ended || !partial.is_empty() {
            let mut state = session.lock();
            let State { subscriptions, outbound, .. } = &mut *state;
            let shows = |asked: &str, message: &Message| {
                let visible = partial.iter().find(|(filter, _)| ***filter == *asked).map(|(_, visible)| visible);
                topic::matches(split_share(asked).1, message.topic())
                    && visible.is_none_or(|visible| visible.shows(message))
            };
            outbound.drop_queued(|message| !subscriptions.iter().any(|kept| shows(&kept.filter, message)));
        }
    }

    /// Says what of it the subscription shows, if that is not everything.
    fn rejudge_one(
        &self,
        session: &Arc<Session>,
        identity: &Arc<Identity>,
        kept: &Kept,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<Option<Arc<Visible>>, Refusal> {
        let asker = Asker { identity, client_id: &session.client_id, in_room: &|_| false };
        let permit = self.policy.subscribe(&asker, &kept.filter, kept.options)?;
        let joined = kept.joins();
        if kept.standing == Standing::Asleep && !session.lock().connected() {
            return Ok(None); // it goes on sleeping
        }
        if kept.standing == Standing::Asleep || permit.joins().is_some() && joined.is_none() {
            self.subscribe(session, &permit, identity, kept.id, now, dirty)?;
        } else {
            self.replace_subscription(session, &permit, kept.id);
            if let Some(room) = joined.filter(|room| permit.joins() != Some(room)) {
                self.unsubscribed(session, room, now, dirty); // it may listen on
            }
        }
        Ok(permit.visible().cloned())
    }

    /// Judges everybody: the rules have changed.
    pub(crate) fn rejudge_all(&self, now: Instant) {
        for session in self.sessions() {
            let mut dirty = Dirty::default();
            self.rejudge(&session, session.epoch(), now, &mut dirty);
            dirty.flush(self, now);
        }
    }

    /// Ends every session whose user or token was revoked.
    pub(crate) fn end_revoked(&self, now: Instant) {
        for session in self.sessions() {
            let identity = session.lock().identity.clone();
            if identity.is_some_and(|identity| self.policy.auth.is_revoked(&identity)) {
                self.remove(&session, REVOKED, now);
            }
        }
        let revocations = self.policy.auth.revocations();
        self.end_held(now, |member| revocations.is_user_revoked(&member.user, member.since));
    }

    /// Ends a session for good, and its connection with that word if it has one.
    pub(crate) fn remove(&self, session: &Arc<Session>, close: Close, now: Instant) {
        let mut state = session.lock();
        state.ended = true;
        let connected = state.connected();
        let rooms = state.joined();
        drop(state);
        let mut dirty = Dirty::default();
        let leaving = Leaving { rooms: &rooms, parting: Parting::Now(Reason::Disconnected), will: None };
        self.part(session, session.epoch(), leaving, now, &mut dirty);
        dirty.flush(self, now);
        if connected {
            session.close(close);
        } else {
            self.end_session(session, now);
        }
    }

    /// A stay in a room has ended while nobody was connected: what the session has of the room is kept to be judged
    /// when its client is back, and what was queued from there is forgotten. What is in flight is sent again
    /// [MQTT-4.4.0-1].
    pub(crate) fn sleep(&self, session: &Arc<Session>, room: &str) {
        let state = session.lock();
        if state.ended {
            return; // nobody comes back to it
        }
        let filters = state.filters_in(room);
        drop(state);
        for filter in &filters {
            self.put_to_sleep(session, filter, Standing::Asleep);
        }
        session.lock().outbound.drop_queued(|message| message.room() == Some(room));
    }

    /// Ends every subscription of a session inside a room, and tells it; where its client is away, when it is back.
    /// Says whether there was any.
    pub(crate) fn take_out_of_room(
        &self,
        session: &Arc<Session>,
        room: &str,
        over: Over,
        why: Option<&str>,
        dirty: &mut Dirty,
    ) -> bool {
        let state = session.lock();
        let (filters, away) = (state.filters_in(room), !state.connected());
        drop(state);
        for filter in &filters {
            if away {
                self.put_to_sleep(session, filter, Standing::Over(over));
            } else {
                self.take_out(session, filter);
            }
        }
        if away {
            session.lock().outbound.drop_queued(|message| message.room() == Some(room));
        } else if !filters.is_empty() {
            let topic = self.policy.rules().signal_topic(room);
            let refusal = over.refusal();
            let why = why.unwrap_or(refusal.what);
            self.report_why(session, topic.as_deref().unwrap_or(room), over.action(), refusal.reason, why, dirty);
        }
        !filters.is_empty()
    }

    /// Ends a subscription; `filter` as it was asked for. Says whether there was one. The last one that joins a room is
    /// the end of the stay.
    pub fn unsubscribe(&self, session: &Arc<Session>, filter: &str, now: Instant, dirty: &mut Dirty) -> bool {
        let state = session.lock();
        let room: Option<Box<str>> =
            state.find(filter).ok().and_then(|at| state.subscriptions[at].joins().map(Into::into));
        drop(state);
        let existed = self.take_out(session, filter);
        if let Some(room) = room.filter(|_| existed) {
            self.unsubscribed(session, &room, now, dirty);
        }
        self.ice_unsubscribed(session);
        existed
    }

    /// Tells a user that its token is about to run out, and ends the connection when it has.
    pub(crate) fn watch_token(&self, session: &Arc<Session>, epoch: u32, now: Instant) {
        let mut state = session.lock();
        if session.epoch() != epoch {
            return;
        }
        let Some(ends) = state.token_ends else { return };
        let notice = notice(&state);
        let Some(link) = state.link() else { return };
        link.token_watch = None;
        let due = || Due::Token(Arc::downgrade(session), epoch);
        if ends <= now {
            link.close(TOKEN_OVER);
        } else if ends - now > notice {
            link.token_watch = Some(self.clock.at(ends - notice, due()));
        } else {
            link.token_watch = Some(self.clock.at(ends, due()));
            drop(state);
            let mut dirty = Dirty::default();
            self.notify_token(session, &mut dirty);
            dirty.flush(self, now);
        }
    }

    /// The identity of a connection, from now on: when it ends is counted on the clock that does not jump.
    pub(crate) fn identify(&self, session: &Arc<Session>, epoch: u32, identity: &Arc<Identity>, now: Instant) {
        let mut state = session.lock();
        if session.epoch() != epoch {
            return;
        }
        state.identity = Some(Arc::clone(identity));
        if let Some(will) = &mut state.will {
            will.identity = Arc::clone(identity); // by whose rights it is judged when it is sent
        }
        let left = identity.expiry.map(|expiry| expiry.at.duration_since(SystemTime::now()).unwrap_or_default());
        state.token_ends = left.map(|left| now + left);
        if let Some(key) = state.link().and_then(|link| link.token_watch.take()) {
            self.clock.cancel(key);
        }
        drop(state);
        if self.policy.auth.is_revoked(identity) {
            self.remove(session, REVOKED, now); // between the look at what was shown and now
        }
        self.watch_token(session, epoch, now);
    }

    /// Somebody begins to listen on its errors topic: if its token has not long to go, it is told at once.
    pub(crate) fn errors_heard(&self, session: &Arc<Session>, now: Instant, dirty: &mut Dirty) {
        let state = session.lock();
        let soon = state.token_ends.is_some_and(|ends| ends.saturating_duration_since(now) <= notice(&state));
        drop(state);
        if soon {
            self.notify_token(session, dirty);
        }
    }

    fn notify_token(&self, session: &Arc<Session>, dirty: &mut Dirty) {
        let expiry = session.lock().identity.as_ref().and_then(|identity| identity.expiry);
        let (Some(expiry), Some(topic)) = (expiry, self.policy.rules().errors_topic(&session.user)) else { return };
        if self.is_subscribed(&topic) {
            let notice = serde_json::json!({ "reason": "token expires", "exp": expiry.exp });
            self.send_own(session, &topic, notice.to_string().as_bytes(), dirty);
        }
    }
}

impl Over {
    /// What happened, on the errors topic.
    const fn action(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Kicked => "kicked",
            Self::Locked => "locked",
            Self::Closed => "closed",
        }
    }

    const fn refusal(self) -> Refusal {
        let (reason, what) = match self {
            Self::Replaced => {
                (ReasonCode::SESSION_TAKEN_OVER, "replaced: another connection of yours has this place now")
            }
            Self::Kicked => (ReasonCode::ADMINISTRATIVE_ACTION, "removed from the room by a moderator"),
            Self::Locked => (ReasonCode::NOT_AUTHORIZED, "the room was locked"),
            Self::Closed => (ReasonCode::ADMINISTRATIVE_ACTION, "the room was closed"),
        };
        Refusal { reason, what }
    }
}

/// How long before a connection is ended its user is told: the leeway is in between.
fn notice(state: &State) -> Duration {
    let expiry = state.identity.as_ref().and_then(|identity| identity.expiry);
    let leeway = expiry.and_then(|Expiry { exp, at }| {
        at.duration_since(SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(exp))?).ok()
    });
    NOTICE + leeway.unwrap_or_default()
}
