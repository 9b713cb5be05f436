//! STUN and TURN servers over MQTT: who subscribes to its `users/{user}/ice` is answered, that connection alone, and
//! again before the credential runs out. Nothing of it is retained.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use smallvec::SmallVec;

use super::{Dirty, Due, Hub, Message};
use crate::{
    ice::TooMany,
    policy::{Asker, SubscribePermit},
    session::{Delivery, Session, Standing, SubscriptionIds},
    wire::mqtt::{QoS, ReasonCode, topic},
};

const TOO_MANY: &str = "as many ICE credentials as a user gets in a minute; the next one comes by itself";

impl Hub {
    /// Answers a subscription that was just granted, if that is what it is for, whatever its Retain Handling says.
    /// Called before its SUBACK is written, which goes first.
    pub(crate) fn ice_subscribed(
        &self,
        session: &Arc<Session>,
        permit: &SubscribePermit<'_>,
        id: Option<NonZeroU32>,
        now: Instant,
        dirty: &mut Dirty,
    ) {
        let Some(topic) = self.ice_topic_in(session, permit.filter()) else { return };
        if permit.group().is_some() {
            return;
        }
        match self.ice_message(session, &topic, now) {
            Ok(message) if permit.visible().is_some_and(|visible| !visible.shows(&message)) => {}
            Ok(message) => {
                let qos = message.qos_for(permit.options().qos);
                let ids = id.map_or(SubscriptionIds::None, SubscriptionIds::One);
                dirty.deliver(self, session, Delivery { ids, ..Delivery::plain(message, qos) }, now);
                self.watch_ice(session, session.epoch(), now + self.ice.renewal());
            }
            Err(TooMany(wait)) => {
                self.report(&session.user, &topic, "subscribe", ReasonCode::QUOTA_EXCEEDED, TOO_MANY, dirty);
                self.watch_ice(session, session.epoch(), now + wait);
            }
        }
    }

    /// The client of a kept session is back: what it was told may have run out meanwhile.
    pub(super) fn ice_resumed(&self, session: &Arc<Session>, epoch: u32, now: Instant, dirty: &mut Dirty) {
        if self.listens_for_ice(session) {
            self.renew_ice_into(session, epoch, now, dirty);
        }
    }

    /// A subscription has ended: without another one nobody is to be told again.
    pub(super) fn ice_unsubscribed(&self, session: &Arc<Session>) {
        let watched = session.lock().ice_watch().is_some_and(|watch| watch.is_some());
        if watched && !self.listens_for_ice(session) {
            let watch = session.lock().ice_watch().and_then(Option::take);
            watch.into_iter().for_each(|key| self.clock_cancel(key));
        }
    }

    /// The credential is about to run out, or the next one may be had.
    pub(super) fn renew_ice(&self, session: &Arc<Session>, epoch: u32, now: Instant) {
        let mut dirty = Dirty::default();
        self.renew_ice_into(session, epoch, now, &mut dirty);
        dirty.flush(self, now);
    }

    fn renew_ice_into(&self, session: &Arc<Session>, epoch: u32, now: Instant, dirty: &mut Dirty) {
        let mut state = session.lock();
        if session.epoch() != epoch {
            return;
        }
        let Some(watch) = state.ice_watch() else { return };
        *watch = None;
        drop(state);
        let Some(topic) = self.policy.rules().ice_topic(&session.user) else { return };
        match self.ice_message(session, &topic, now) {
            Ok(message) => {
                let Some(delivery) = self.ice_delivery(session, message) else { return };
                dirty.deliver(self, session, delivery, now);
                self.watch_ice(session, epoch, now + self.ice.renewal());
            }
            Err(TooMany(wait)) => self.watch_ice(session, epoch, now + wait),
        }
    }

    /// One copy, at the highest QoS, with the identifiers of all its subscriptions [MQTT-3.3.4-2], [MQTT-3.3.4-3];
    /// `None` if none shows it any more.
    fn ice_delivery(&self, session: &Arc<Session>, message: Arc<Message>) -> Option<Delivery> {
        let state = session.lock();
        let identity = state.identity.clone()?;
        let kept: SmallVec<[_; 2]> = (state.subscriptions.iter())
            .filter(|kept| kept.standing == Standing::Live && topic::matches(&kept.filter, message.topic()))
            .cloned()
            .collect();
        drop(state);
        let asker = Asker { identity: &identity, client_id: &session.client_id, in_room: &|_| false };
        let (mut granted, mut ids) = (None, SmallVec::<[NonZeroU32; 2]>::new());
        for kept in &kept {
            let Ok(permit) = self.policy.subscribe(&asker, &kept.filter, kept.options) else { continue };
            if permit.visible().is_none_or(|visible| visible.shows(&message)) {
                granted = granted.max(Some(permit.options().qos));
                ids.extend(kept.id);
            }
        }
        let qos = message.qos_for(granted?);
        Some(Delivery { ids: SubscriptionIds::from(&ids[..]), ..Delivery::plain(message, qos) })
    }

    fn ice_message(&self, session: &Session, topic: &str, now: Instant) -> Result<Arc<Message>, TooMany> {
        let servers = self.ice.servers(&session.user, SystemTime::now(), now)?;
        let payload = serde_json::to_vec(&servers).unwrap_or_default();
        Ok(Arc::new(self.policy.server_message(topic, &payload, QoS::AtLeastOnce, false).into_message()))
    }

    /// The topic on which this user is told, if the filter matches it.
    fn ice_topic_in(&self, session: &Session, filter: &str) -> Option<String> {
        self.policy.rules().ice_topic(&session.user).filter(|name| topic::matches(filter, name))
    }

    fn listens_for_ice(&self, session: &Session) -> bool {
        let Some(name) = self.policy.rules().ice_topic(&session.user) else { return false };
        session
            .lock()
            .subscriptions
            .iter()
            .any(|kept| kept.standing == Standing::Live && topic::matches(&kept.filter, &name))
    }

    fn watch_ice(&self, session: &Arc<Session>, epoch: u32, when: Instant) {
        let mut state = session.lock();
        if session.epoch() != epoch {
            return;
        }
        let Some(watch) = state.ice_watch() else { return };
        let key = self
            .clock_at(when.max(Instant::now() + Duration::from_millis(1)), Due::Ice(Arc::downgrade(session), epoch));
        watch.replace(key).into_iter().for_each(|old| self.clock_cancel(old));
    }
}
