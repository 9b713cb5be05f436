//! The topics that clients may make the embedded broker know.
//!
//! rumqttd keeps every topic that was ever published to until its process ends, with a list of filters, and a log of
//! its own for every filter. So that no browser can make it grow without bound, different shared topics are counted:
//! so many in all, so many for each user, devices of a user together.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

/// See the module.
pub struct Vocabulary {
    max: usize,
    max_per_user: usize,
    hasher: RandomState,
    known: HashSet<u64>,
    users: HashMap<Box<str>, usize>,
    /// When it was last said that there is no more room.
    told: Option<Instant>,
}

/// How often that is said.
const PAUSE: Duration = Duration::from_secs(600);

impl Vocabulary {
    pub fn new(max: usize, max_per_user: usize) -> Self {
        let hasher = RandomState::new();
        Self { max, max_per_user, hasher, known: HashSet::new(), users: HashMap::new(), told: None }
    }

    /// Whether `user` may publish to `topic`: it is known, or it is learned now.
    pub fn knows_or_learns(&mut self, topic: &str, user: &str, now: Instant) -> bool {
        let hash = self.hasher.hash_one(topic);
        if self.known.contains(&hash) {
            return true;
        }
        let own = self.users.get(user).copied().unwrap_or_default();
        if self.known.len() >= self.max || own >= self.max_per_user {
            self.tell(user, own, now);
            return false;
        }
        self.known.insert(hash);
        *self.users.entry(user.into()).or_default() += 1;
        true
    }

    fn tell(&mut self, user: &str, own: usize, now: Instant) {
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            return;
        }
        self.told = Some(now);
        tracing::error!(
            topics = self.known.len(),
            ?user,
            topics_of_user = own,
            "a new shared topic was refused, since the embedded broker never forgets one: raise \
             backplane.embedded.topics_max or topics_per_user, or run a separate broker (backplane.mode = \"mqtt\")"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::Vocabulary;
    use std::time::Instant;

    #[test]
    fn topics_are_counted_in_all_and_by_user_and_known_ones_are_anybodys() {
        let mut vocabulary = Vocabulary::new(5, 3);
        let now = Instant::now();
        let mut may = |topic: &str, user: &str| vocabulary.knows_or_learns(topic, user, now);
        assert!((0..3).all(|n| may(&format!("app/a/{n}"), "a")));
        assert!(!may("app/a/3", "a"));
        assert!(may("app/a/0", "a") && may("app/a/0", "b"), "known already");
        assert!(may("app/b/0", "b") && may("app/b/1", "b"));
        assert!(!may("app/b/2", "b"), "five in all");
        assert!(!may("app/c/0", "c"));
    }
}
