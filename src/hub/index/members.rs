//! Who subscribed: a set of subscriptions by subscriber, always readable as one slice.

use hashbrown::HashMap;

use super::{SubscriberId, exact};

/// Members that are searched one by one; half of it takes a larger set back to that (see `level_map`).
const FEW: usize = 16;

/// Adding and removing costs O(1) in the mean at any size. The order is arbitrary and changes with removals.
pub(super) enum Members<S> {
    Few(Box<[(SubscriberId, S)]>),
    Many(Box<Placed<S>>),
}

pub(super) struct Placed<S> {
    members: Vec<(SubscriberId, S)>,
    /// Where in `members` each one is. The ids are our own, so a fast hash will do.
    places: HashMap<SubscriberId, usize>,
}

impl<S> Default for Members<S> {
    fn default() -> Self {
        Members::Few(Box::default())
    }
}

impl<S> Members<S> {
    pub(super) fn as_slice(&self) -> &[(SubscriberId, S)] {
        match self {
            Members::Few(members) => members,
            Members::Many(placed) => &placed.members,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The subscription that was replaced, if `id` had one.
    pub(super) fn insert(&mut self, id: SubscriberId, sub: S) -> Option<S> {
        match self {
            Members::Few(members) => {
                if let Some((_, held)) = members.iter_mut().find(|(member, _)| *member == id) {
                    return Some(std::mem::replace(held, sub));
                }
                exact::push(members, (id, sub));
                if members.len() > FEW {
                    *self = Members::Many(Box::new(Placed::from_members(std::mem::take(members))));
                }
                None
            }
            Members::Many(placed) => placed.insert(id, sub),
        }
    }

    pub(super) fn remove(&mut self, id: SubscriberId) -> Option<S> {
        match self {
            Members::Few(members) => {
                let place = members.iter().position(|(member, _)| *member == id)?;
                Some(exact::swap_remove(members, place).1)
            }
            Members::Many(placed) => {
                let removed = placed.remove(id);
                if placed.members.len() <= FEW / 2 {
                    *self = Members::Few(std::mem::take(&mut placed.members).into_boxed_slice());
                }
                removed
            }
        }
    }
}

impl<S> Placed<S> {
    fn from_members(members: Box<[(SubscriberId, S)]>) -> Self {
        let places = members.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
        Placed { members: members.into_vec(), places }
    }

    fn insert(&mut self, id: SubscriberId, sub: S) -> Option<S> {
        let place = *self.places.entry(id).or_insert(self.members.len());
        match self.members.get_mut(place) {
            Some((_, held)) => Some(std::mem::replace(held, sub)),
            None => {
                self.members.push((id, sub));
                None
            }
        }
    }

    fn remove(&mut self, id: SubscriberId) -> Option<S> {
        let place = self.places.remove(&id)?;
        let (_, removed) = self.members.swap_remove(place);
        if let Some((moved, _)) = self.members.get(place) {
            self.places.insert(*moved, place);
        }
        self.shrink();
        Some(removed)
    }

    /// Leaves room for twice as many as there are, so that the next shrinking is as many removals away.
    fn shrink(&mut self) {
        let len = self.members.len();
        if self.members.capacity() > 4 * len {
            self.members.shrink_to(2 * len);
        }
        self.places.shrink_to(2 * len);
    }
}
