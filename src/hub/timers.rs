//! Deadlines in order, each of which can be called off: wills that wait, sessions and messages that expire.
//!
//! Takes the time as an argument and keeps no clock. What is not waited for any more takes no memory.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// Deadlines with what is due at each. Those of one instant come due in the order in which they were set.
#[derive(Debug)]
pub struct Timers<T> {
    queue: BTreeMap<TimerKey, T>,
    /// The number of the next deadline, which tells those of one instant apart.
    next: NonZeroU64,
    /// What instants are counted from.
    start: Instant,
}

/// One deadline, to call it off by. Good for the [`Timers`] it came from. Two words, also where there may be none: every
/// connection has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey {
    /// Nanoseconds, which last for centuries.
    at: u64,
    serial: NonZeroU64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers { queue: BTreeMap::new(), next: NonZeroU64::MIN, start: Instant::now() }
    }
}

impl<T> Timers<T> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Deadlines still waited for, past ones that were not taken included.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Makes `item` due at `at`.
    pub fn insert(&mut self, at: Instant, item: T) -> TimerKey {
        let key = TimerKey { at: self.nanos(at), serial: self.next };
        self.next = self.next.saturating_add(1);
        self.queue.insert(key, item);
        key
    }

    /// Takes back what was to be due; `None` if it was taken already, by this or by [`Timers::pop_due`].
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        self.queue.remove(&key)
    }

    /// The earliest deadline, which may have passed.
    pub fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|(key, _)| self.start + Duration::from_nanos(key.at))
    }

    /// Takes the earliest of what is due at `now`. Call until `None`.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        let now = self.nanos(now);
        let earliest = self.queue.first_entry()?;
        (earliest.key().at <= now).then(|| earliest.remove())
    }

    fn nanos(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Timers;

    #[test]
    fn comes_due_in_order_and_not_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut timers = Timers::new();
        assert_eq!(timers.next(), None);
        timers.insert(at(3), "three");
        timers.insert(at(1), "one");
        timers.insert(at(2), "two");
        timers.insert(at(1), "one, set later");

        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.pop_due(at(1)), Some("one"));
        assert_eq!(timers.pop_due(at(1)), Some("one, set later"));
        assert_eq!(timers.pop_due(at(1)), None);
        assert_eq!(timers.next(), Some(at(2)));
        assert_eq!(timers.pop_due(at(9)), Some("two"));
        assert_eq!(timers.pop_due(at(9)), Some("three"));
        assert_eq!(timers.pop_due(at(9)), None);
        assert!(timers.is_empty());
    }

    #[test]
    fn what_was_cancelled_is_given_back_once_and_never_due() {
        let start = Instant::now();
        let mut timers = Timers::new();
        let keys: Vec<_> = (0..100).map(|n| timers.insert(start, n)).collect();
        assert_eq!(timers.len(), 100);
        for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
            assert_eq!(timers.cancel(*key), Some(n));
            assert_eq!(timers.cancel(*key), None);
        }
        assert_eq!(timers.len(), 50);
        for n in (1..100).step_by(2) {
            assert_eq!(timers.pop_due(start), Some(n));
        }
        assert!(timers.is_empty());
        assert_eq!(timers.cancel(keys[1]), None);
    }
}
