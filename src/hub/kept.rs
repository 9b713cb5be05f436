//! Sessions that wait without a connection, in the order in which they began to: how many one user, one address and all
//! of them together may keep.
//!
//! Who keeps as many as may be and goes away once more loses the oldest of its own; nobody loses a session to somebody
//! else's. The limit by user is for clients that come with another client id each time, as pages do; where anybody may
//! call themselves anything, the one by address is what stops a single client from taking every place. Only a server
//! that is full refuses to keep another session.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
    num::NonZeroU64,
    sync::Arc,
};

use crate::session::Session;

/// Bounds of kept sessions.
#[derive(Debug, Clone, Copy)]
pub struct KeptLimits {
    pub all: usize,
    /// This and the next: at least 1.
    pub per_user: usize,
    pub per_address: usize,
}

/// A session's place among those that are kept: places are numbered in the order in which they were taken.
pub type Place = NonZeroU64;

/// Sessions that had to make room, with their epochs: to be ended as if they had expired.
#[derive(Default)]
pub struct Displaced {
    pub by_user: Option<(Arc<Session>, u32)>,
    pub by_address: Option<(Arc<Session>, u32)>,
}

/// See the module.
#[derive(Default)]
pub struct Kept {
    places: BTreeMap<Place, Waiting>,
    users: HashMap<Box<str>, BTreeSet<Place>>,
    addresses: HashMap<IpAddr, BTreeSet<Place>>,
    /// Places ever taken.
    taken: u64,
}

struct Waiting {
    session: Arc<Session>,
    epoch: u32,
    address: Option<IpAddr>,
}

impl Kept {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Users and addresses that are remembered.
    #[cfg(test)]
    pub fn remembered(&self) -> (usize, usize) {
        (self.users.len(), self.addresses.len())
    }

    /// Takes a place for a session whose last connection came from `address`; `None` if all are taken.
    pub fn take(
        &mut self,
        session: &Arc<Session>,
        epoch: u32,
        address: Option<IpAddr>,
        limits: &KeptLimits,
    ) -> Option<(Place, Displaced)> {
        let mut displaced = Displaced::default();
        let full = |places: &BTreeSet<Place>, limit| places.first().copied().filter(|_| places.len() >= limit);
        if let Some(oldest) = self.users.get(account(&session.user)).and_then(|places| full(places, limits.per_user)) {
            displaced.by_user = self.give_back(oldest);
        }
        let places = address.and_then(|address| self.addresses.get(&address));
        if let Some(oldest) = places.and_then(|places| full(places, limits.per_address)) {
            displaced.by_address = self.give_back(oldest);
        }
        if self.places.len() >= limits.all {
            return None;
        }
        let place = Place::MIN.saturating_add(self.taken);
        self.taken += 1;
        self.places.insert(place, Waiting { session: Arc::clone(session), epoch, address });
        self.users.entry(account(&session.user).into()).or_default().insert(place);
        if let Some(address) = address {
            self.addresses.entry(address).or_default().insert(place);
        }
        Some((place, displaced))
    }

    /// Gives back a place, unless it was lost before; says who had it, in which epoch.
    pub fn give_back(&mut self, place: Place) -> Option<(Arc<Session>, u32)> {
        let Waiting { session, epoch, address } = self.places.remove(&place)?;
        remove(&mut self.users, account(&session.user), place);
        if let Some(address) = address {
            remove(&mut self.addresses, &address, place);
        }
        Some((session, epoch))
    }
}

/// The user that a name belongs to: what follows `~` tells its devices apart.
fn account(user: &str) -> &str {
    match user.split_once('~') {
        Some((account, _)) if !account.is_empty() => account,
        _ => user,
    }
}

fn remove<K: Hash + Eq + Borrow<Q>, Q: Hash + Eq + ?Sized>(
    of: &mut HashMap<K, BTreeSet<Place>>,
    key: &Q,
    place: Place,
) {
    if let Some(places) = of.get_mut(key) {
        places.remove(&place);
        if places.is_empty() {
            of.remove(key);
        }
    }
    if of.len() < of.capacity() / 8 {
        of.shrink_to_fit();
    }
}
