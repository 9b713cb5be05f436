//! A map from the text of one level to whatever hangs below it.
//!
//! Most levels of a topic tree have a handful of children, and one (`rooms`) has millions. So up to [`FEW`] entries
//! lie in an exact slice and are found by comparison; more of them are hashed, each value in a box of its own, so
//! that the table's free slots are small. The table shrinks as it empties and turns back into a slice in the end.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::exact;
use super::level::Level;

/// Entries that are searched one by one. A map that was hashed is a slice again at half of this, so that one entry
/// coming and going does not convert it each time.
const FEW: usize = 8;

pub(super) enum LevelMap<V> {
    Few(Box<[(Level, V)]>),
    Many(Box<Hashed<V>>),
}

pub(super) struct Hashed<V> {
    table: HashTable<(Level, Box<V>)>,
    hash: LevelHash,
}

impl<V> Default for LevelMap<V> {
    fn default() -> Self {
        LevelMap::Few(Box::default())
    }
}

impl<V> LevelMap<V> {
    pub(super) fn len(&self) -> usize {
        match self {
            LevelMap::Few(entries) => entries.len(),
            LevelMap::Many(hashed) => hashed.table.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get(&self, level: &[u8]) -> Option<&V> {
        match self {
            LevelMap::Few(entries) => entries.iter().find(|(name, _)| name.as_bytes() == level).map(|(_, value)| value),
            LevelMap::Many(hashed) => hashed
                .table
                .find(hashed.hash.of(level), |(name, _)| name.as_bytes() == level)
                .map(|(_, value)| value.as_ref()),
        }
    }

    /// The values at `#`, at `+` and at `level`, which is neither: what a level of a topic is looked up for.
    pub(super) fn get_three(&self, level: &[u8]) -> [Option<&V>; 3] {
        let LevelMap::Few(entries) = self else { return [b"#", b"+", level].map(|level| self.get(level)) };
        let mut found = [None; 3];
        for (name, value) in entries {
            match name.as_bytes() {
                b"#" => found[0] = Some(value),
                b"+" => found[1] = Some(value),
                name if name == level => found[2] = Some(value),
                _ => {}
            }
        }
        found
    }

    pub(super) fn get_mut(&mut self, level: &[u8]) -> Option<&mut V> {
        match self {
            LevelMap::Few(entries) => {
                entries.iter_mut().find(|(name, _)| name.as_bytes() == level).map(|(_, value)| value)
            }
            LevelMap::Many(hashed) => hashed
                .table
                .find_mut(hashed.hash.of(level), |(name, _)| name.as_bytes() == level)
                .map(|(_, value)| value.as_mut()),
        }
    }

    /// The value at `level`, and whether it was made just now.
    pub(super) fn get_or_default(&mut self, level: &[u8]) -> (&mut V, bool)
    where
        V: Default,
    {
        if let LevelMap::Few(entries) = self
            && entries.len() == FEW
            && entries.iter().all(|(name, _)| name.as_bytes() != level)
        {
            *self = LevelMap::Many(Box::new(Hashed::from_entries(std::mem::take(entries))));
        }
        match self {
            LevelMap::Few(entries) => {
                let found = entries.iter().position(|(name, _)| name.as_bytes() == level);
                let place = found.unwrap_or(entries.len());
                if found.is_none() {
                    exact::push(entries, (Level::new(level), V::default()));
                }
                (&mut entries[place].1, found.is_none())
            }
            LevelMap::Many(hashed) => hashed.get_or_default(level),
        }
    }

    pub(super) fn remove(&mut self, level: &[u8]) -> Option<V> {
        match self {
            LevelMap::Few(entries) => {
                let place = entries.iter().position(|(name, _)| name.as_bytes() == level)?;
                Some(exact::swap_remove(entries, place).1)
            }
            LevelMap::Many(hashed) => {
                let entry = hashed.table.find_entry(hashed.hash.of(level), |(name, _)| name.as_bytes() == level);
                let ((_, value), _) = entry.ok()?.remove();
                self.shrink();
                Some(*value)
            }
        }
    }

    /// Keeps the values for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut V) -> bool) {
        match self {
            LevelMap::Few(entries) => exact::retain(entries, |(_, value)| keep(value)),
            LevelMap::Many(hashed) => {
                hashed.table.retain(|(_, value)| keep(value));
                self.shrink();
            }
        }
    }

    /// All entries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &V)> {
        let (few, many) = match self {
            LevelMap::Few(entries) => (Some(entries.iter()), None),
            LevelMap::Many(hashed) => (None, Some(hashed.table.iter())),
        };
        let few = few.into_iter().flatten().map(|(name, value)| (name.as_bytes(), value));
        few.chain(many.into_iter().flatten().map(|(name, value)| (name.as_bytes(), value.as_ref())))
    }

    pub(super) fn into_values(self) -> impl Iterator<Item = V> {
        let (few, many) = match self {
            LevelMap::Few(entries) => (Some(entries.into_iter()), None),
            LevelMap::Many(hashed) => (None, Some(hashed.table.into_iter())),
        };
        let few = few.into_iter().flatten().map(|(_, value)| value);
        few.chain(many.into_iter().flatten().map(|(_, value)| *value))
    }

    /// Gives back what a hashed map no longer needs: it is rebuilt only when it has lost half of its entries since
    /// it was last sized, so a removal costs O(1) in the mean.
    fn shrink(&mut self) {
        let LevelMap::Many(hashed) = self else { return };
        if hashed.table.len() <= FEW / 2 {
            let entries = std::mem::take(&mut hashed.table).into_iter();
            *self = LevelMap::Few(entries.map(|(name, value)| (name, *value)).collect());
        } else {
            let Hashed { table, hash } = hashed.as_mut();
            table.shrink_to(2 * table.len(), |(name, _)| hash.of(name.as_bytes()));
        }
    }
}

impl<V> Hashed<V> {
    fn from_entries(entries: Box<[(Level, V)]>) -> Self {
        let hash = LevelHash::new();
        let mut table = HashTable::with_capacity(entries.len() + 1);
        for (name, value) in entries {
            let of_name = hash.of(name.as_bytes());
            table.insert_unique(of_name, (name, Box::new(value)), |(name, _)| hash.of(name.as_bytes()));
        }
        Hashed { table, hash }
    }

    fn get_or_default(&mut self, level: &[u8]) -> (&mut V, bool)
    where
        V: Default,
    {
        let Hashed { table, hash } = self;
        let found =
            table.entry(hash.of(level), |(name, _)| name.as_bytes() == level, |(name, _)| hash.of(name.as_bytes()));
        match found {
            Entry::Occupied(entry) => (&mut entry.into_mut().1, false),
            Entry::Vacant(entry) => (&mut entry.insert((Level::new(level), Box::default())).into_mut().1, true),
        }
    }
}

/// SipHash with a random key per map: strangers choose the names, and may time what their choice does to us.
struct LevelHash {
    keys: RandomState,
    /// The hashes of `+` and `#`, which every publish asks for.
    single_level: u64,
    multi_level: u64,
}

impl LevelHash {
    fn new() -> Self {
        let keys = RandomState::new();
        LevelHash { single_level: hash(&keys, b"+"), multi_level: hash(&keys, b"#"), keys }
    }

    fn of(&self, level: &[u8]) -> u64 {
        match level {
            b"+" => self.single_level,
            b"#" => self.multi_level,
            _ => hash(&self.keys, level),
        }
    }
}

/// The level alone is hashed, so it needs no length in front of it as `Hash for [u8]` would put there.
fn hash(keys: &RandomState, level: &[u8]) -> u64 {
    let mut hasher = keys.build_hasher();
    hasher.write(level);
    hasher.finish()
}
