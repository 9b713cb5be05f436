//! One shard's retained messages: found by topic, and gone through in the order in which they were set.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use super::{Message, TimerKey, retained::Retained};

/// Tells when a message was set, among all of the process.
pub(super) type Serial = NonZeroU64;

pub(super) struct RetainedMessage {
    pub message: Arc<Message>,
    pub expiry: Option<TimerKey>,
}

/// What one level of a topic takes in the tree, at most and beside its text (`tests/hub_memory.rs`).
const LEVEL: usize = 128;
/// Levels that are not counted, those of common topics: with the message's own place they take half a KiB or so, which
/// the number of messages bounds.
const FREE_LEVELS: usize = 4;

/// The bytes that a message counts as while it is retained.
pub(super) fn cost(message: &Message) -> usize {
    let levels = message.topic().split('/').count();
    message.size() + LEVEL * levels.saturating_sub(FREE_LEVELS)
}

/// See the module. The tree has many nodes without a message, so what it holds is small.
#[derive(Default)]
pub(super) struct Store {
    topics: Retained<Serial>,
    messages: BTreeMap<Serial, RetainedMessage>,
}

impl Store {
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn node_count(&self) -> usize {
        self.topics.node_count()
    }

    pub fn get(&self, topic: &str) -> Option<&RetainedMessage> {
        self.messages.get(self.topics.get(topic)?)
    }

    /// Gives back what it replaces.
    pub fn set(&mut self, serial: Serial, kept: RetainedMessage) -> Option<RetainedMessage> {
        let replaced = self.topics.set(kept.message.topic(), serial).and_then(|old| self.messages.remove(&old));
        self.messages.insert(serial, kept);
        replaced
    }

    pub fn clear(&mut self, topic: &str) -> Option<RetainedMessage> {
        self.messages.remove(&self.topics.clear(topic)?)
    }

    /// Visits what `filter` matches, in no order, until `visit` breaks off.
    pub fn matching(
        &self,
        filter: &str,
        visit: &mut impl FnMut(Serial, &Arc<Message>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.topics.try_matching(filter, &mut |serial| match self.messages.get(serial) {
            Some(kept) => visit(*serial, &kept.message),
            None => ControlFlow::Continue(()),
        })
    }

    /// What was set then and is still there, in order.
    pub fn set_in(&self, serials: Range<u64>) -> impl Iterator<Item = (Serial, &Arc<Message>)> {
        let from = Serial::new(serials.start).unwrap_or(Serial::MIN);
        // An empty range is one, too, and not a panic of the map.
        let until = Serial::new(serials.end).unwrap_or(Serial::MIN).max(from);
        self.messages.range(from..until).map(|(serial, kept)| (*serial, &kept.message))
    }
}
