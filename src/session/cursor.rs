//! What a subscription is still to bring of the retained messages: a place in their store instead of the messages.

use std::{num::NonZeroU32, ops::Range, sync::Arc, time::Instant};

use super::{Delivery, SubscriptionIds};
use crate::{
    hub::{Message, SubscriberId},
    policy::Visible,
    wire::mqtt::SubscribeOptions,
};

/// See the module.
#[derive(Debug)]
pub struct Cursor {
    pub filter: Box<str>,
    pub options: SubscribeOptions,
    pub id: Option<NonZeroU32>,
    /// What it shows, if it is an observer's.
    pub visible: Option<Arc<Visible>>,
    /// The serial number that the store had come to when the subscription began: what was set later came as a live
    /// message.
    pub until: u64,
    /// Shards of the store that are to be gone through.
    pub shards: Range<usize>,
    /// The serial number to go on from in the first of them; 0 if that is untouched.
    pub from: u64,
}

impl Cursor {
    /// The delivery of a retained message that matches, unless the subscription leaves it out.
    pub fn delivery(&self, message: &Arc<Message>, subscriber: SubscriberId, now: Instant) -> Option<Delivery> {
        let own = self.options.no_local && message.publisher() == subscriber; // [MQTT-3.8.3-3]
        let shown = || self.visible.as_ref().is_none_or(|visible| visible.shows(message));
        (!own && !message.expired(now) && shown()).then(|| Delivery {
            retain: true,
            ids: self.id.map_or(SubscriptionIds::None, SubscriptionIds::One),
            stamped: self.visible.is_some(),
            ..Delivery::plain(Arc::clone(message), message.qos_for(self.options.qos))
        })
    }
}
