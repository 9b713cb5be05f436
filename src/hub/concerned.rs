//! Which sessions an order about a room concerns: those that have something there, found by their filters, however many
//! others there are.
//!
//! Subscriptions inside a room are made with the room locked, so who looks here with that lock held misses none.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::{Hub, SHARDS, SubscriberId, index::Index, is_wide, two_levels};
use crate::session::Session;

/// Subscriptions that bring nothing until their client is back. Each is put in and taken out with its part of the index
/// locked.
#[derive(Default)]
pub(super) struct Asleep {
    index: Mutex<Index<Arc<Session>>>,
    len: AtomicUsize,
}

impl Asleep {
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub fn insert(&self, at: (Option<&str>, &str), session: &Arc<Session>) {
        let mut index = self.index.lock();
        index.put(at, session.id, Arc::clone(session));
        self.len.store(index.len(), Ordering::Relaxed);
    }

    pub fn remove(&self, at: (Option<&str>, &str), id: SubscriberId) {
        // Whoever has put it in had this part of the index locked, as we have: if it is there, this says so.
        if self.len() > 0 {
            let mut index = self.index.lock();
            let removed = index.take(at, id);
            self.len.store(index.len(), Ordering::Relaxed);
            drop(index);
            drop(removed);
        }
    }
}

type Found = BTreeMap<SubscriberId, Arc<Session>>;

impl Hub {
    /// Sessions whose subscriptions name a room, also such as sleep: among them is everything that is inside it.
    pub(crate) fn sessions_in_room(&self, room: &str) -> Vec<Arc<Session>> {
        let mut found = Found::new();
        for (path, level) in self.policy.rules().table.paths_to_room(room) {
            self.find(&path, Some(level), |_| true, &mut found);
        }
        found.into_values().collect()
    }

    /// Sessions of which `wanted` says so, and which may be brought something from a room: by a subscription inside it,
    /// also one that sleeps, or by one that spans rooms.
    pub(crate) fn sessions_reached_by_room(
        &self,
        room: &str,
        wanted: impl Fn(&Session) -> bool + Copy,
    ) -> Vec<Arc<Session>> {
        let mut found = Found::new();
        for (path, _) in self.policy.rules().table.paths_to_room(room) {
            self.find(&path, None, wanted, &mut found);
        }
        found.into_values().collect()
    }

    fn find(&self, path: &str, named: Option<usize>, wanted: impl Fn(&Session) -> bool, found: &mut Found) {
        let mut add = |id: &SubscriberId, session: &Arc<Session>| {
            if wanted(session) {
                found.entry(*id).or_insert_with(|| Arc::clone(session));
            }
        };
        if self.wide_len.load(Ordering::Acquire) > 0 {
            let wide = self.wide.read();
            wide.reaching(path, named, &mut |node| node.all().for_each(|(id, kept)| add(id, &kept.session)));
        }
        let whole = path.contains('/') && !is_wide(path);
        let places = if whole { self.place(two_levels(path))..self.place(two_levels(path)) + 1 } else { 0..SHARDS };
        for place in places {
            let shard = self.shards[place].lock();
            shard.index.reaching(path, named, &mut |node| node.all().for_each(|(id, kept)| add(id, &kept.session)));
        }
        if self.asleep.len() > 0 {
            let asleep = self.asleep.index.lock();
            asleep.reaching(path, named, &mut |node| node.all().for_each(|(id, session)| add(id, session)));
        }
    }
}
