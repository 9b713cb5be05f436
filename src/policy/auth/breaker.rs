//! A circuit breaker: a service that has failed several times in a row is left alone for a while, and then tried by
//! one request at a time until it answers.

use std::time::{Duration, Instant};

/// See the module.
pub struct Breaker {
    limit: usize,
    pause: Duration,
    failures: usize,
    /// Until when the service is left alone; set while it is.
    until: Option<Instant>,
}

impl Breaker {
    /// Opens after `limit` failures in a row, for `pause` at a time.
    pub fn new(limit: usize, pause: Duration) -> Self {
        Self { limit, pause, failures: 0, until: None }
    }

    /// Whether a request would be refused.
    pub fn is_open(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Whether a request may be made. After a pause one may, and the next pause begins at once: a request of which
    /// nothing is ever heard holds nothing up.
    pub fn admits(&mut self, now: Instant) -> bool {
        if self.is_open(now) {
            return false;
        }
        self.until = self.until.map(|_| now + self.pause);
        true
    }

    /// The service answered.
    pub fn succeeded(&mut self) {
        (self.failures, self.until) = (0, None);
    }

    /// It did not. True if it is left alone from now on, and was not before.
    pub fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = self.failures >= self.limit && self.until.is_none();
        if opens {
            self.until = Some(now + self.pause);
        }
        opens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_tries_and_closes() {
        let mut breaker = Breaker::new(2, 10 * SECOND);
        let start = Instant::now();
        assert!(breaker.admits(start) && !breaker.failed(start));
        breaker.succeeded();
        assert!(breaker.admits(start) && !breaker.failed(start), "in a row, not in all");
        assert!(breaker.admits(start) && breaker.failed(start));
        assert!(breaker.is_open(start) && !breaker.admits(start + 9 * SECOND));

        let later = start + 10 * SECOND;
        assert!(!breaker.is_open(later) && breaker.admits(later), "one request tries it");
        assert!(!breaker.admits(later), "and no other");
        assert!(!breaker.failed(later + SECOND) && !breaker.admits(later + 9 * SECOND));
        assert!(breaker.admits(later + 10 * SECOND), "also if nothing had been heard of the one before");
        breaker.succeeded();
        assert!(breaker.admits(later + 10 * SECOND) && breaker.admits(later + 10 * SECOND));
    }
}
