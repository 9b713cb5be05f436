//! The subscription index: which subscriptions a topic name matches.
//!
//! It promises that
//! - the cost of a publish depends on the levels of its topic and on the subscriptions that match, not on how many
//!   others exist, and that matching allocates nothing;
//! - adding and removing a subscription costs one look-up per level of its filter;
//! - a filter that nobody holds any more leaves nothing behind, and tables that were large shrink again.
//!
//! It trusts its callers to hand it valid filters and topic names of a bounded number of levels, and it does not
//! look into subscriptions: No Local, QoS and identifiers are the business of who delivers.
//!
//! A room with two members, each subscribed to `rooms/R/signal`, `rooms/R/signal/ME`, `rooms/R/presence/+` and
//! `rooms/R/chat`, takes 790 bytes with `S` of 32 bytes: 320 for the eight subscriptions, the rest for seven nodes.
//! When nearly all of many rooms are gone, each of the others takes up to 100 bytes more (`tests/hub_memory.rs`).

mod exact;
mod level;
mod level_map;
mod members;
#[cfg(test)]
pub(in crate::hub) mod tests;
pub(in crate::hub) mod trie;

use std::sync::atomic::{AtomicU32, Ordering};

use level_map::LevelMap;
use members::Members;
use trie::{Slot, Trie};

/// Who holds a subscription; the hub gives each session one for as long as it lives. At one filter a subscriber has
/// at most one plain subscription, and one in each group that shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

impl SubscriberId {
    /// Publishes, and never subscribes.
    pub const SERVER: Self = Self(0);
}

/// Subscriptions of type `S` by filter.
pub struct Index<S> {
    filters: Trie<FilterNode<S>>,
    len: usize,
}

impl<S> Default for Index<S> {
    fn default() -> Self {
        Index { filters: Trie::default(), len: 0 }
    }
}

impl<S> Index<S> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Subscriptions held, shared ones included.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Nodes of the tree of filters: 0 when there are no subscriptions.
    pub fn node_count(&self) -> usize {
        self.filters.node_count()
    }

    /// Subscribes `id` to `filter`. A subscription that it had there is replaced and given back [MQTT-3.8.4-3].
    pub fn insert(&mut self, filter: &str, id: SubscriberId, sub: S) -> Option<S> {
        let replaced = self.filters.get_or_create(filter).subscribers.insert(id, sub);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Subscribes `id` to `$share/{group}/{filter}` (4.8.2): as [`Index::insert`], but among the members of `group`.
    pub fn insert_shared(&mut self, group: &str, filter: &str, id: SubscriberId, sub: S) -> Option<S> {
        let groups = self.filters.get_or_create(filter).groups.get_or_insert_default();
        let replaced = groups.get_or_default(group.as_bytes()).0.members.insert(id, sub);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Ends the plain subscription of `id` to `filter`; `None` if there was none [MQTT-3.10.4-1].
    pub fn remove(&mut self, filter: &str, id: SubscriberId) -> Option<S> {
        let removed = self.filters.update(filter, |node| node.subscribers.remove(id)).flatten();
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Ends the subscription of `id` to `$share/{group}/{filter}`; `None` if there was none.
    pub fn remove_shared(&mut self, group: &str, filter: &str, id: SubscriberId) -> Option<S> {
        let removed = self.filters.update(filter, |node| node.remove_shared(group.as_bytes(), id)).flatten();
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// As [`Index::insert_shared`] where there is a group, and as [`Index::insert`] where there is none.
    pub(super) fn put(&mut self, (group, filter): (Option<&str>, &str), id: SubscriberId, sub: S) -> Option<S> {
        match group {
            Some(group) => self.insert_shared(group, filter, id, sub),
            None => self.insert(filter, id, sub),
        }
    }

    /// As [`Index::remove_shared`] where there is a group, and as [`Index::remove`] where there is none.
    pub(super) fn take(&mut self, (group, filter): (Option<&str>, &str), id: SubscriberId) -> Option<S> {
        match group {
            Some(group) => self.remove_shared(group, filter, id),
            None => self.remove(filter, id),
        }
    }

    /// Visits every filter that matches the topic name `topic`. One subscriber can be met at several of them.
    pub fn matches<'a>(&'a self, topic: &str, visit: &mut impl FnMut(&'a FilterNode<S>)) {
        self.filters.filters_matching(topic, visit);
    }

    /// Visits every filter that can match a topic below `path`, in which `+` stands for any level; of those, if there is
    /// a level `named`, the ones that have that level of `path` themselves and no wildcard there. The cost depends on
    /// the filters that are met.
    pub fn reaching<'a>(&'a self, path: &str, named: Option<usize>, visit: &mut impl FnMut(&'a FilterNode<S>)) {
        self.filters.filters_reaching(path, named, visit);
    }
}

/// The subscriptions to one filter.
pub struct FilterNode<S> {
    subscribers: Members<S>,
    /// Shared subscriptions are rare, so a filter without any spends one word on them.
    groups: Option<Box<LevelMap<SharedGroup<S>>>>,
}

impl<S> FilterNode<S> {
    /// The plain subscriptions, each of which gets the message. May be empty where there are groups.
    pub fn subscribers(&self) -> &[(SubscriberId, S)] {
        self.subscribers.as_slice()
    }

    /// The groups that share this filter; of each, one member gets the message (4.8.2).
    pub fn shared_groups(&self) -> impl Iterator<Item = &SharedGroup<S>> {
        self.groups.iter().flat_map(|groups| groups.iter()).map(|(_, group)| group)
    }

    /// All subscriptions, shared ones included.
    pub(super) fn all(&self) -> impl Iterator<Item = &(SubscriberId, S)> {
        self.subscribers().iter().chain(self.shared_groups().flat_map(SharedGroup::members))
    }

    fn remove_shared(&mut self, group: &[u8], id: SubscriberId) -> Option<S> {
        let groups = self.groups.as_mut()?;
        let sharing = groups.get_mut(group)?;
        let removed = sharing.members.remove(id)?;
        if sharing.members.is_empty() {
            groups.remove(group);
        }
        if groups.is_empty() {
            self.groups = None;
        }
        Some(removed)
    }
}

impl<S> Default for FilterNode<S> {
    fn default() -> Self {
        FilterNode { subscribers: Members::default(), groups: None }
    }
}

impl<S> Slot for FilterNode<S> {
    fn is_vacant(&self) -> bool {
        self.subscribers.is_empty() && self.groups.is_none()
    }
}

/// The members of one group at one filter, who take turns.
pub struct SharedGroup<S> {
    members: Members<S>,
    turn: AtomicU32,
}

impl<S> SharedGroup<S> {
    /// Never empty.
    pub fn members(&self) -> &[(SubscriberId, S)] {
        self.members.as_slice()
    }

    /// Whose turn it is, as an index into [`members`](Self::members); the next call names the next one. A caller who
    /// finds that member unable to take the message goes on from there, around the end.
    pub fn next_start(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        turn as usize % self.members().len().max(1)
    }
}

impl<S> Default for SharedGroup<S> {
    fn default() -> Self {
        SharedGroup { members: Members::default(), turn: AtomicU32::new(0) }
    }
}
