//! From a permit to the sessions that it concerns.

use std::{
    num::NonZeroU32,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use smallvec::SmallVec;

use super::{
    Dirty, Due, Hub, Message, RetainedMessage, Shard, SubscriberId, Subscription, index::FilterNode, is_wide,
    two_levels,
};
use crate::{
    backplane::Source,
    policy::{PublishPermit, Refusal, SubscribePermit},
    session::{Delivery, Kept, Session, SubscriptionIds},
    wire::mqtt::{ReasonCode, RetainHandling, topic},
};
/// The filters that match one topic; more than a few are rare.
type Nodes<'a> = SmallVec<[&'a FilterNode<Subscription>; 4]>;

const RETAINED_FULL: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "the server retains as much as it may" };
const TOO_MANY_SUBSCRIPTIONS: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "this session has as many subscriptions as it may" };
const SESSION_OVER: Refusal = Refusal { reason: ReasonCode::UNSPECIFIED_ERROR, what: "the session has ended" };

impl Hub {
    /// Routes a message of the server's own: see [`Hub::publish_from`].
    pub fn publish(&self, permit: PublishPermit, now: Instant, dirty: &mut Dirty) -> Result<bool, Refusal> {
        self.publish_from(Source::Server, permit, now, dirty)
    }

    /// Routes a message: retains it if it asks for that, queues it for every session that wants it, and hands it to the
    /// backplane if it is shared. Says whether anybody gets it. The caller flushes `dirty` when it has routed all it has.
    pub fn publish_from(
        &self,
        source: Source<'_>,
        permit: PublishPermit,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<bool, Refusal> {
        let mut message = permit.into_message();
        let crossing = match self.backplane.get() {
            Some(backplane) => backplane.admit(source, &mut message, now)?,
            None => None,
        };
        let message = Arc::new(message);
        let wide = (self.wide_len.load(Ordering::Acquire) > 0).then(|| self.wide.read());
        let mut shard = self.shard(two_levels(message.topic())).lock();
        if message.retain() {
            self.retain(&mut shard, &message, now)?;
        }
        let mut nodes = Nodes::new();
        shard.index.matches(message.topic(), &mut |node| nodes.push(node));
        if let Some(wide) = &wide {
            wide.matches(message.topic(), &mut |node| nodes.push(node));
        }
        let crosses = crossing.is_some();
        // With the shard locked, so that the broker sees a topic's messages in the order in which they are seen here.
        if let Some(crossing) = crossing {
            crossing.send(&message, now);
        }
        Ok(self.deliver(&nodes, &message, now, dirty) || crosses)
    }

    /// Subscribes a session to a filter and queues the retained messages that it is to get. Says whether the session
    /// had subscribed to that filter before.
    pub fn subscribe(
        &self,
        session: &Arc<Session>,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<bool, Refusal> {
        let filter = permit.filter();
        let subscription = Subscription { session: Arc::clone(session), options: permit.options(), id };
        let existed = if is_wide(filter) {
            let mut wide = self.wide.write();
            let existed = self.remember(session, permit, id)?;
            match permit.group() {
                Some(group) => wide.insert_shared(group, filter, session.id, subscription),
                None => wide.insert(filter, session.id, subscription),
            };
            self.wide_len.store(wide.len(), Ordering::Release);
            drop(wide);
            if wants_retained(permit, existed) {
                for shard in &self.shards {
                    self.send_retained(&shard.lock(), session, permit, id, now, dirty);
                }
            }
            existed
        } else {
            let mut shard = self.shard(two_levels(filter)).lock();
            let existed = self.remember(session, permit, id)?;
            match permit.group() {
                Some(group) => shard.index.insert_shared(group, filter, session.id, subscription),
                None => shard.index.insert(filter, session.id, subscription),
            };
            if wants_retained(permit, existed) {
                self.send_retained(&shard, session, permit, id, now, dirty);
            }
            existed
        };
        Ok(existed)
    }

    /// Ends a subscription; `filter` as it was asked for. Says whether there was one.
    pub fn unsubscribe(&self, session: &Session, filter: &str) -> bool {
        self.take_out(session.id, filter, || session.lock().forget(filter))
    }

    /// Takes a filter, as it was asked for, out of the index. The session that held it has ended.
    pub(super) fn forget(&self, id: SubscriberId, asked: &str) {
        self.take_out(id, asked, || true);
    }

    /// Takes a filter out of the index if `held` says so, which is asked with that part of the index locked, so that
    /// index and session agree whatever another thread does with the same subscription meanwhile.
    fn take_out(&self, id: SubscriberId, asked: &str, held: impl FnOnce() -> bool) -> bool {
        let (group, filter) = match topic::split_share(asked) {
            Some((group, filter)) => (Some(group), filter),
            None => (None, asked),
        };
        // What was removed is dropped after the lock is released: it may be the session's last reference.
        let _removed = if is_wide(filter) {
            let mut wide = self.wide.write();
            if !held() {
                return false;
            }
            let removed = match group {
                Some(group) => wide.remove_shared(group, filter, id),
                None => wide.remove(filter, id),
            };
            self.wide_len.store(wide.len(), Ordering::Release);
            removed
        } else {
            let mut shard = self.shard(two_levels(filter)).lock();
            if !held() {
                return false;
            }
            match group {
                Some(group) => shard.index.remove_shared(group, filter, id),
                None => shard.index.remove(filter, id),
            }
        };
        true
    }

    /// Notes the subscription in its session. Called with the filter's part of the index locked, so that a session
    /// which ends at this moment either refuses it here or finds it in the index.
    fn remember(
        &self,
        session: &Session,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
    ) -> Result<bool, Refusal> {
        let mut state = session.lock();
        if state.ended {
            return Err(SESSION_OVER);
        }
        let kept = Kept { filter: permit.asked().into(), options: permit.options(), id };
        match state.find(permit.asked()) {
            Ok(position) => {
                state.subscriptions[position] = kept;
                Ok(true)
            }
            Err(_) if state.subscriptions.len() >= self.limits.subscriptions => Err(TOO_MANY_SUBSCRIPTIONS),
            Err(position) => {
                state.subscriptions.insert(position, kept);
                Ok(false)
            }
        }
    }

    fn send_retained(
        &self,
        shard: &Shard,
        session: &Arc<Session>,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
        now: Instant,
        dirty: &mut Dirty,
    ) {
        let mut state = session.lock();
        if state.outbound.stored_full(&self.limits.queue) {
            return; // it would be walked for nothing
        }
        shard.retained.matching(permit.filter(), &mut |retained| {
            let own = permit.options().no_local && retained.message.publisher() == session.id; // [MQTT-3.8.3-3]
            if !own && !retained.message.expired(now) {
                let delivery = Delivery {
                    message: Arc::clone(&retained.message),
                    qos: retained.message.qos_for(permit.options().qos),
                    retain: true,
                    stored: true,
                    ids: id.map_or(SubscriptionIds::None, SubscriptionIds::One),
                };
                dirty.deliver_locked(self, session, &mut state, delivery, now);
            }
        });
    }

    /// Stores, replaces or (with an empty payload) clears the retained message of a topic [MQTT-3.3.1-5],
    /// [MQTT-3.3.1-6].
    fn retain(&self, shard: &mut Shard, message: &Arc<Message>, now: Instant) -> Result<(), Refusal> {
        let topic = message.topic();
        if message.payload().is_empty() {
            let cleared = shard.retained.clear(topic);
            self.give_back_retained(cleared);
            return Ok(());
        }
        let replaces = shard.retained.get(topic).map_or(0, |old| old.message.size());
        let bytes = self.retained.bytes.load(Ordering::Relaxed) - replaces + message.size();
        let messages = self.retained.messages.load(Ordering::Relaxed) + usize::from(replaces == 0);
        if bytes > self.limits.retained_bytes || messages > self.limits.retained_messages {
            return Err(RETAINED_FULL);
        }
        let expiry = message.expires().map(|at| self.clock.at(at.max(now), Due::Retained(topic.into())));
        self.retained.messages.fetch_add(1, Ordering::Relaxed);
        self.retained.bytes.fetch_add(message.size(), Ordering::Relaxed);
        let replaced = shard.retained.set(topic, RetainedMessage { message: Arc::clone(message), expiry });
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
        self.retained.bytes.fetch_sub(gone.message.size(), Ordering::Relaxed);
        if let Some(key) = gone.expiry {
            self.clock.cancel(key);
        }
    }

    fn deliver(
        &self,
        nodes: &[&FilterNode<Subscription>],
        message: &Arc<Message>,
        now: Instant,
        dirty: &mut Dirty,
    ) -> bool {
        let mut found = false;
        match nodes {
            // A session has one subscription to a filter, so a single matching filter needs no merging.
            [node] => {
                for (id, subscription) in node.subscribers() {
                    if let Some(delivery) = subscription.wants(*id, message) {
                        dirty.deliver(self, &subscription.session, delivery, now);
                        found = true;
                    }
                }
            }
            nodes => found = self.deliver_merged(nodes, message, now, dirty),
        }
        for group in nodes.iter().flat_map(|node| node.shared_groups()) {
            found |= self.deliver_shared(group.members(), group.next_start(), message, now, dirty);
        }
        found
    }

    /// Several filters match: whoever holds more than one of them gets one copy, at the highest QoS
    /// [MQTT-3.3.4-2], with all the identifiers [MQTT-3.3.4-3], [MQTT-3.3.4-4].
    fn deliver_merged(
        &self,
        nodes: &[&FilterNode<Subscription>],
        message: &Arc<Message>,
        now: Instant,
        dirty: &mut Dirty,
    ) -> bool {
        let mut all: Vec<_> = nodes
            .iter()
            .flat_map(|node| node.subscribers())
            .filter_map(|(id, subscription)| Some((*id, subscription, subscription.wants(*id, message)?)))
            .collect();
        all.sort_by_key(|(id, ..)| *id);
        let found = !all.is_empty();
        let mut all = all.into_iter().peekable();
        while let Some((id, subscription, mut delivery)) = all.next() {
            while let Some((_, other, copy)) = all.next_if(|(next, ..)| *next == id) {
                delivery.qos = delivery.qos.max(copy.qos);
                delivery.retain |= copy.retain;
                other.id.into_iter().for_each(|id| delivery.ids.add(id));
            }
            dirty.deliver(self, &subscription.session, delivery, now);
        }
        found
    }

    /// One member of the group gets it: the next in turn who is connected, or else the next in turn, whose session
    /// keeps it if its QoS asks for that (4.8.2).
    fn deliver_shared(
        &self,
        members: &[(SubscriberId, Subscription)],
        start: usize,
        message: &Arc<Message>,
        now: Instant,
        dirty: &mut Dirty,
    ) -> bool {
        let in_turn = || members[start..].iter().chain(&members[..start]).map(|(_, subscription)| subscription);
        let connected = in_turn().find(|subscription| {
            let state = subscription.session.lock();
            state.connected() && !state.ended
        });
        let Some(chosen) = connected.or_else(|| in_turn().next()) else { return false };
        dirty.deliver(self, &chosen.session, chosen.delivery(message), now);
        true
    }
}

impl Subscription {
    /// The delivery of a live message, unless this subscription leaves it out.
    fn wants(&self, id: SubscriberId, message: &Arc<Message>) -> Option<Delivery> {
        let own = self.options.no_local && message.publisher() == id; // [MQTT-3.8.3-3]
        (!own).then(|| self.delivery(message))
    }

    fn delivery(&self, message: &Arc<Message>) -> Delivery {
        Delivery {
            message: Arc::clone(message),
            qos: message.qos_for(self.options.qos),
            // A live message carries the flag only as published, and only to who asked [MQTT-3.3.1-12],
            // [MQTT-3.3.1-13].
            retain: self.options.retain_as_published && message.retain(),
            stored: false,
            ids: self.id.map_or(SubscriptionIds::None, SubscriptionIds::One),
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
