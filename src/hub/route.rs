//! From a permit to the sessions that it concerns.

use std::{
    num::NonZeroU32,
    ops::{ControlFlow, Range},
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use smallvec::SmallVec;

use super::{
    Dirty, Due, Hub, Message, SHARDS, Shard, SubscriberId, Subscription,
    index::FilterNode,
    is_wide,
    store::{RetainedMessage, Serial, cost},
    two_levels,
};
use crate::{
    backplane::Source,
    policy::{Meaning, PublishPermit, Refusal, SubscribePermit, split_share},
    room::{Closed, Moderation},
    session::{Cursor, Delivery, Kept, Session, Standing, SubscriptionIds},
    wire::mqtt::{QoS, ReasonCode, RetainHandling},
};

/// Subscriptions of a session up to which it has memory for just as many.
const FEW: usize = 8;

/// The filters that match one topic; more than a few are rare.
type Nodes<'a> = SmallVec<[&'a FilterNode<Subscription>; 4]>;

const RETAINED_FULL: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "the server retains as much as it may" };
const ROOM_RETAINS_ENOUGH: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "this room retains as much as it may" };
const TOO_MANY_SUBSCRIPTIONS: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "this session has as many subscriptions as it may" };
const SESSION_OVER: Refusal = Refusal { reason: ReasonCode::UNSPECIFIED_ERROR, what: "the session has ended" };

impl Hub {
    /// Routes a message: retains it if it asks for that, queues it for every session that wants it, and hands it to the
    /// backplane if it is to leave. Says whether anybody gets it. The caller flushes `dirty` when it has routed all it
    /// has.
    pub fn publish(
        &self,
        source: Source<'_>,
        permit: PublishPermit,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<bool, Refusal> {
        let message = permit.message();
        let stays = message.retain() && !message.payload().is_empty();
        match message.room().filter(|_| stays).map(Box::<str>::from) {
            Some(room) => self.while_open(&room, || {
                self.bound_retained(&permit, &room)?;
                self.route(source, permit, Bound::Limits, now, dirty)
            }),
            None => self.route(source, permit, Bound::Limits, now, dirty),
        }
    }

    /// Does what a client's publish is for: delivers it, writes what it says of its sender into the roster, or carries
    /// out the order that it is.
    pub fn take(
        &self,
        session: &Arc<Session>,
        permit: PublishPermit,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<bool, Refusal> {
        let source = Source::Client(&session.user);
        match permit.meaning() {
            Meaning::Message => self.publish(source, permit, now, dirty),
            Meaning::Presence => {
                let message = permit.message();
                self.set_meta(session, message.room().unwrap_or_default(), message.payload(), dirty).map(|()| true)
            }
            Meaning::Control => {
                let room = permit.message().room().map(Box::<str>::from).unwrap_or_default();
                let order = Moderation::parse(permit.message().payload())?;
                // It is told before it takes effect, so that whom it concerns learns of it.
                let announce = |dirty: &mut Dirty| {
                    let _ = self.route(source, permit, Bound::Limits, now, dirty); // nothing is retained here
                };
                self.moderate(&room, &order, announce, now, dirty)?;
                Ok(true)
            }
        }
    }

    /// Whether another message may be retained in its room.
    fn bound_retained(&self, permit: &PublishPermit, room: &str) -> Result<(), Refusal> {
        let Some((class, most)) = permit.retained_in_room() else { return Ok(()) };
        let (topic, filter) = (permit.message().topic(), self.policy.rules().table.filter_of_room(class, room));
        let mut others = 0;
        let shard = self.shard(two_levels(topic)).lock();
        let full = shard.retained.matching(&filter, &mut |_, message| {
            others += usize::from(message.topic() != topic);
            if others < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if full.is_break() { Err(ROOM_RETAINS_ENOUGH) } else { Ok(()) }
    }

    /// Publishes a message of the server's own.
    pub(crate) fn publish_own(&self, topic: &str, payload: &[u8], qos: QoS, retain: bool, dirty: &mut Dirty) {
        // Clients cannot keep a member out of the roster by retaining as much as they may; there are no more entries
        // than places.
        let permit = self.policy.server_message(topic, payload, qos, retain);
        let _ = self.route(Source::Server, permit, Bound::Places, Instant::now(), dirty);
    }

    /// Sends a message of the server's own, QoS 0, to one session alone, if that has subscribed to just this topic.
    pub(crate) fn send_own(&self, session: &Arc<Session>, topic: &str, payload: &[u8], dirty: &mut Dirty) {
        let state = session.lock();
        let kept = state.find(topic).ok().map(|at| &state.subscriptions[at]);
        let Some(id) = kept.filter(|kept| kept.standing == Standing::Live).map(|kept| kept.id) else { return };
        drop(state);
        let qos = QoS::AtMostOnce;
        let message = Arc::new(self.policy.server_message(topic, payload, qos, false).into_message());
        let ids = id.map_or(SubscriptionIds::None, SubscriptionIds::One);
        dirty.deliver(self, session, Delivery { ids, ..Delivery::plain(message, qos) }, Instant::now());
    }

    /// Whether anybody would get a message on this topic.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        let mut found = false;
        if self.wide_len.load(Ordering::Acquire) > 0 {
            self.wide.read().matches(topic, &mut |_| found = true);
        }
        if !found {
            self.shard(two_levels(topic)).lock().index.matches(topic, &mut |_| found = true);
        }
        found
    }

    /// Clears the retained messages that match a filter, and tells nobody.
    pub(crate) fn clear_retained(&self, filter: &str) {
        let places = if is_wide(filter) {
            0..SHARDS
        } else {
            self.place(two_levels(filter))..self.place(two_levels(filter)) + 1
        };
        for place in places {
            let mut shard = self.shards[place].lock();
            let mut topics = Vec::<Box<str>>::new();
            let _ = shard.retained.matching(filter, &mut |_, message| {
                topics.push(message.topic().into());
                ControlFlow::Continue(())
            });
            for topic in topics {
                let cleared = shard.retained.clear(&topic);
                self.give_back_retained(cleared);
            }
        }
    }

    fn route(
        &self,
        source: Source<'_>,
        permit: PublishPermit,
        bound: Bound,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<bool, Refusal> {
        let mut message = permit.into_message();
        let crossing = match self.backplane.get() {
            Some(backplane) => backplane.admit(source, &mut message, now)?,
            None => None,
        };
        let message = Arc::new(message);
        let topic = message.topic();
        let closed = self.rooms.closed(&message);
        // One that is to be retained takes this lock in any case: it comes wholly before a wide subscription, which
        // then gets it from the store, or wholly after, and comes live.
        let wide = (message.retain() || self.wide_len.load(Ordering::Acquire) > 0).then(|| self.wide.read());
        let mut shard = self.shard(two_levels(topic)).lock();
        if message.retain() {
            self.retain(&mut shard, &message, bound, now)?;
        }
        let mut nodes = Nodes::new();
        shard.index.matches(topic, &mut |node| nodes.push(node));
        if let Some(wide) = &wide {
            wide.matches(topic, &mut |node| nodes.push(node));
        }
        let crosses = crossing.is_some();
        // With the shard locked, so that the broker sees a topic's messages in the order in which they are seen here.
        if let Some(crossing) = crossing {
            crossing.send(&message, now);
        }
        let routed = Routed { message: &message, closed: closed.as_deref(), now };
        Ok(self.deliver(&nodes, &routed, dirty) || crosses)
    }

    /// Subscribes a session to a filter and begins to bring the retained messages that it is to get. Says whether the
    /// session had subscribed to that filter before.
    pub(crate) fn index_subscription(
        &self,
        session: &Arc<Session>,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<bool, Refusal> {
        let (at, filter) = ((permit.group(), permit.filter()), permit.filter());
        let subscription = self.subscription(session, permit, id);
        let existed = if is_wide(filter) {
            let mut wide = self.wide.write();
            let existed = self.remember(session, permit, id, 0..SHARDS)?;
            wide.put(at, session.id, subscription);
            self.wide_len.store(wide.len(), Ordering::Release);
            self.asleep.remove(at, session.id);
            existed
        } else {
            let place = self.place(two_levels(filter));
            let mut shard = self.shards[place].lock();
            let existed = self.remember(session, permit, id, place..place + 1)?;
            shard.index.put(at, session.id, subscription);
            self.asleep.remove(at, session.id);
            existed
        };
        if wants_retained(permit, existed) {
            let collected = self.collect(session, now);
            dirty.add(session, collected.work);
        }
        Ok(existed)
    }

    fn subscription(
        &self,
        session: &Arc<Session>,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
    ) -> Subscription {
        let visible = permit.visible().cloned();
        Subscription { session: Arc::clone(session), options: permit.options(), id, visible }
    }

    /// Puts a subscription that a session has under what it is granted now; what it has brought it need not again.
    pub(super) fn replace_subscription(
        &self,
        session: &Arc<Session>,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
    ) {
        let subscription = self.subscription(session, permit, id);
        let (at, filter) = ((permit.group(), permit.filter()), permit.filter());
        let still_there = || {
            let mut state = session.lock();
            let found = state.find(permit.asked()).ok();
            let live = found.filter(|at| state.subscriptions[*at].standing == Standing::Live);
            let Some(at) = live else { return false };
            state.subscriptions[at] = Kept::new(permit, id);
            state.outbound.show(filter, permit.visible());
            true
        };
        // What is replaced is dropped after the lock is released.
        let _replaced = if is_wide(filter) {
            let mut wide = self.wide.write();
            still_there().then(|| wide.put(at, session.id, subscription)).flatten()
        } else {
            let mut shard = self.shard(two_levels(filter)).lock();
            still_there().then(|| shard.index.put(at, session.id, subscription)).flatten()
        };
    }

    /// Ends a subscription; `filter` as it was asked for. Says whether there was one.
    pub(crate) fn take_out(&self, session: &Session, filter: &str) -> bool {
        self.take_out_of_index(session.id, filter, |at| {
            let had = session.lock().forget(filter);
            if had {
                self.asleep.remove(at, session.id);
            }
            had
        })
    }

    /// Takes a filter, as it was asked for, out of the index. The session that held it has ended.
    pub(super) fn forget(&self, id: SubscriberId, asked: &str) {
        self.take_out_of_index(id, asked, |at| {
            self.asleep.remove(at, id);
            true
        });
    }

    /// Takes a filter out of the index; the session keeps it until its client is back.
    pub(crate) fn put_to_sleep(&self, session: &Arc<Session>, asked: &str, standing: Standing) {
        self.take_out_of_index(session.id, asked, |at| {
            let Some(was) = session.lock().put_to_sleep(asked, standing) else { return false };
            match (was, standing) {
                (Standing::Live, Standing::Asleep) => self.asleep.insert(at, session),
                (Standing::Asleep, Standing::Over(_)) => self.asleep.remove(at, session.id),
                _ => {}
            }
            was == Standing::Live
        });
    }

    /// Takes a filter out of the index if `held` says so, which is asked with that part of the index locked, so that
    /// index and session agree whatever another thread does with the same subscription meanwhile.
    fn take_out_of_index(
        &self,
        id: SubscriberId,
        asked: &str,
        held: impl FnOnce((Option<&str>, &str)) -> bool,
    ) -> bool {
        let at = split_share(asked);
        // What was removed is dropped after the lock is released: it may be the session's last reference.
        let _removed = if is_wide(at.1) {
            let mut wide = self.wide.write();
            if !held(at) {
                return false;
            }
            let removed = wide.take(at, id);
            self.wide_len.store(wide.len(), Ordering::Release);
            removed
        } else {
            let mut shard = self.shard(two_levels(at.1)).lock();
            if !held(at) {
                return false;
            }
            shard.index.take(at, id)
        };
        true
    }

    /// Notes the subscription in its session, and what it is to bring from which shards. Called with the filter's part
    /// of the index locked, so that a session which ends at this moment either refuses it here or finds it in the
    /// index, and so that every retained message is either set already or will come live.
    fn remember(
        &self,
        session: &Session,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
        shards: Range<usize>,
    ) -> Result<bool, Refusal> {
        let mut state = session.lock();
        // Nobody joins without a connection: there would be nothing whose end is the end of the stay.
        if state.ended || permit.joins().is_some() && !state.connected() {
            return Err(SESSION_OVER);
        }
        let kept = Kept::new(permit, id);
        let existed = match state.find(permit.asked()) {
            // One that slept is a new one, also to a client that wants retained messages with new ones only.
            Ok(position) => std::mem::replace(&mut state.subscriptions[position], kept).standing == Standing::Live,
            Err(_) if state.subscriptions.len() >= self.limits.subscriptions => return Err(TOO_MANY_SUBSCRIPTIONS),
            Err(position) => {
                if state.subscriptions.len() < FEW {
                    state.subscriptions.reserve_exact(1);
                }
                state.subscriptions.insert(position, kept);
                false
            }
        };
        if wants_retained(permit, existed) {
            let (filter, options) = (permit.filter().into(), permit.options());
            let until = self.retained.serial.load(Ordering::Relaxed) + 1;
            let visible = permit.visible().cloned();
            state.outbound.begin(Cursor { filter, options, id, visible, until, shards, from: 0 });
        }
        Ok(existed)
    }

    /// Stores, replaces or (with an empty payload) clears the retained message of a topic [MQTT-3.3.1-5],
    /// [MQTT-3.3.1-6].
    fn retain(&self, shard: &mut Shard, message: &Arc<Message>, bound: Bound, now: Instant) -> Result<(), Refusal> {
        let topic = message.topic();
        if message.payload().is_empty() {
            let cleared = shard.retained.clear(topic);
            self.give_back_retained(cleared);
            return Ok(());
        }
        let cost_now = cost(message);
        let replaces = shard.retained.get(topic).map_or(0, |old| cost(&old.message));
        let bytes = self.retained.bytes.load(Ordering::Relaxed) - replaces + cost_now;
        let messages = self.retained.messages.load(Ordering::Relaxed) + usize::from(replaces == 0);
        let full = bytes > self.limits.retained_bytes || messages > self.limits.retained_messages;
        if full && bound == Bound::Limits {
            return Err(RETAINED_FULL);
        }
        let expiry = message.expires().map(|at| self.clock.at(at.max(now), Due::Retained(topic.into())));
        self.retained.messages.fetch_add(1, Ordering::Relaxed);
        self.retained.bytes.fetch_add(cost_now, Ordering::Relaxed);
        let serial = Serial::MIN.saturating_add(self.retained.serial.fetch_add(1, Ordering::Relaxed));
        let replaced = shard.retained.set(serial, RetainedMessage { message: Arc::clone(message), expiry });
        self.give_back_retained(replaced);
        Ok(())
    }

    /// The retained message of `topic` has run out, unless it was replaced meanwhile.
    pub(super) fn expire_retained(&self, topic: &str, now: Instant) {
        let mut shard = self.shard(two_levels(topic)).lock();
        if shard.retained.get(topic).is_some_and(|retained| retained.message.expired(now)) {
            let cleared = shard.retained.clear(topic);
            self.give_back_retained(cleared);
        }
    }

    fn give_back_retained(&self, gone: Option<RetainedMessage>) {
        let Some(gone) = gone else { return };
        self.retained.messages.fetch_sub(1, Ordering::Relaxed);
        self.retained.bytes.fetch_sub(cost(&gone.message), Ordering::Relaxed);
        if let Some(key) = gone.expiry {
            self.clock.cancel(key);
        }
    }

    fn deliver(&self, nodes: &[&FilterNode<Subscription>], routed: &Routed<'_>, dirty: &mut Dirty) -> bool {
        let mut found = false;
        match nodes {
            // A session has one subscription to a filter, so a single matching filter needs no merging.
            [node] => {
                for (id, subscription) in node.subscribers() {
                    if let Some(delivery) = subscription.wants(*id, routed) {
                        dirty.deliver(self, &subscription.session, delivery, routed.now);
                        found = true;
                    }
                }
            }
            nodes => found = self.deliver_merged(nodes, routed, dirty),
        }
        for group in nodes.iter().flat_map(|node| node.shared_groups()) {
            found |= self.deliver_shared(group.members(), group.next_start(), routed, dirty);
        }
        found
    }

    /// Several filters match: whoever holds more than one of them gets one copy, at the highest QoS
    /// [MQTT-3.3.4-2], with all the identifiers [MQTT-3.3.4-3], [MQTT-3.3.4-4].
    fn deliver_merged(&self, nodes: &[&FilterNode<Subscription>], routed: &Routed<'_>, dirty: &mut Dirty) -> bool {
        let mut all: Vec<_> = nodes
            .iter()
            .flat_map(|node| node.subscribers())
            .filter_map(|(id, subscription)| Some((*id, subscription, subscription.wants(*id, routed)?)))
            .collect();
        all.sort_by_key(|(id, ..)| *id);
        let found = !all.is_empty();
        let mut all = all.into_iter().peekable();
        let mut ids = SmallVec::<[NonZeroU32; 8]>::new();
        while let Some((id, subscription, mut delivery)) = all.next() {
            ids.clear();
            ids.extend(subscription.id);
            while let Some((_, other, copy)) = all.next_if(|(next, ..)| *next == id) {
                delivery.qos = delivery.qos.max(copy.qos);
                delivery.retain |= copy.retain;
                delivery.stamped |= copy.stamped;
                ids.extend(other.id);
            }
            delivery.ids = SubscriptionIds::from(&ids[..]);
            dirty.deliver(self, &subscription.session, delivery, routed.now);
        }
        found
    }

    /// One member of the group gets it: the next in turn who is connected, or else the next in turn, whose session
    /// keeps it if its QoS asks for that (4.8.2).
    fn deliver_shared(
        &self,
        members: &[(SubscriberId, Subscription)],
        start: usize,
        routed: &Routed<'_>,
        dirty: &mut Dirty,
    ) -> bool {
        let all_in_turn = || members[start..].iter().chain(&members[..start]).map(|(_, subscription)| subscription);
        let in_turn = || all_in_turn().filter(|subscription| subscription.shows(routed));
        let connected = in_turn().find(|subscription| {
            let state = subscription.session.lock();
            state.connected() && !state.ended
        });
        let Some(chosen) = connected.or_else(|| in_turn().next()) else { return false };
        dirty.deliver(self, &chosen.session, chosen.delivery(routed.message), routed.now);
        true
    }
}

/// Whether the limits of what is retained apply: the server's own messages are bounded otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Limits,
    Places,
}

/// A message on its way to those who may have it.
struct Routed<'m> {
    message: &'m Arc<Message>,
    /// Whom its room keeps out.
    closed: Option<&'m Closed>,
    now: Instant,
}

impl Subscription {
    /// The delivery of a live message, unless this subscription leaves it out.
    fn wants(&self, id: SubscriberId, routed: &Routed<'_>) -> Option<Delivery> {
        let own = self.options.no_local && routed.message.publisher() == id; // [MQTT-3.8.3-3]
        (!own && self.shows(routed)).then(|| self.delivery(routed.message))
    }

    /// Whether this subscriber may see it: an observer's filter reaches what is not for observers, and one that spans
    /// rooms reaches into those that are closed to it.
    fn shows(&self, routed: &Routed<'_>) -> bool {
        self.visible.as_ref().is_none_or(|visible| visible.shows(routed.message))
            && routed
                .closed
                .is_none_or(|closed| closed.admits(&self.session.user, || self.session.lock().observes(), routed.now))
    }

    fn delivery(&self, message: &Arc<Message>) -> Delivery {
        Delivery {
            // A live message carries the flag only as published, and only to who asked [MQTT-3.3.1-12],
            // [MQTT-3.3.1-13].
            retain: self.options.retain_as_published && message.retain(),
            ids: self.id.map_or(SubscriptionIds::None, SubscriptionIds::One),
            stamped: self.visible.is_some(), // an observer wants to know how long things take
            ..Delivery::plain(Arc::clone(message), message.qos_for(self.options.qos))
        }
    }
}

/// [MQTT-3.3.1-9] to [MQTT-3.3.1-11]; a shared subscription gets none (4.8.2).
fn wants_retained(permit: &SubscribePermit<'_>, existed: bool) -> bool {
    permit.group().is_none()
        && match permit.options().retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => !existed,
            RetainHandling::DoNotSend => false,
        }
}
