//! The retained-message store: at most one message per topic name, found by filter.
//!
//! It promises that a topic whose message is gone leaves nothing behind, that setting and clearing costs one look-up
//! per level of the topic, and that a search walks only what its filter can match. What makes a message retained,
//! and when it expires, is the caller's business, as is the number of levels, which it bounds.

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use super::index::trie::Trie;

/// Messages of type `M` by topic name. A search hands out the message alone, so `M` should know its topic.
pub struct Retained<M> {
    topics: Trie<Option<M>>,
    len: usize,
}

impl<M> Default for Retained<M> {
    fn default() -> Self {
        Retained { topics: Trie::default(), len: 0 }
    }
}

impl<M> Retained<M> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Messages held.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nodes of the tree of topics: 0 when there are no messages.
    pub fn node_count(&self) -> usize {
        self.topics.node_count()
    }

    /// Keeps `message` for `topic`, in place of the one given back [MQTT-3.3.1-5].
    pub fn set(&mut self, topic: &str, message: M) -> Option<M> {
        let replaced = self.topics.get_or_create(topic).replace(message);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Forgets and gives back the message of `topic` [MQTT-3.3.1-6].
    pub fn clear(&mut self, topic: &str) -> Option<M> {
        let cleared = self.topics.update(topic, Option::take).flatten();
        self.len -= usize::from(cleared.is_some());
        cleared
    }

    pub fn get(&self, topic: &str) -> Option<&M> {
        self.topics.get(topic)?.as_ref()
    }

    /// Visits the message of every topic that `filter` matches, in no particular order.
    pub fn matching<'a>(&'a self, filter: &str, visit: &mut impl FnMut(&'a M)) {
        let _never_breaks = self.try_matching(filter, &mut |message| {
            visit(message);
            ControlFlow::Continue(())
        });
    }

    /// The same, until `visit` breaks off.
    pub fn try_matching<'a>(
        &'a self,
        filter: &str,
        visit: &mut impl FnMut(&'a M) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.topics.topics_matching(filter, &mut |message: &'a Option<M>| message.iter().try_for_each(&mut *visit))
    }

    /// Walks all messages, forgets those that `expired` says are, and says how many that were.
    pub fn sweep(&mut self, mut expired: impl FnMut(&M) -> bool) -> usize {
        let mut forgotten = 0;
        self.topics.sweep(|message| forgotten += usize::from(message.take_if(|message| expired(message)).is_some()));
        self.len -= forgotten;
        forgotten
    }
}
