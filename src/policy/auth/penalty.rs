//! Failed logins, by address: whoever guesses passwords or tokens guesses slowly.
//!
//! An address owes time. Each failure adds to what it owes, the passing of time pays it off, and who owes too much is
//! not listened to. A good login pays nothing: with one account of one's own one could otherwise guess at the others'.
//! What is remembered of an address is one instant, and of how many addresses is bounded.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    policy::{Refusal, network},
    wire::mqtt::ReasonCode,
};

/// How many addresses are remembered. Beyond, an arbitrary one is forgiven for each new one.
const CAPACITY: usize = 1 << 16;

const WAIT: Refusal =
    Refusal { reason: ReasonCode::BANNED, what: "too many failed logins from this address; try again later" };

/// See the module.
pub struct Penalties {
    /// What a failure costs.
    price: Duration,
    /// Who owes more has to wait.
    credit: Duration,
    owed: Mutex<Owed>,
}

struct Owed {
    /// When each address will have paid.
    until: HashMap<IpAddr, Instant>,
    /// When those who have paid were last removed.
    swept: Option<Instant>,
}

impl Penalties {
    /// `failures` (at least one) may come at once, and one more each `wait`.
    pub fn new(failures: usize, wait: Duration) -> Self {
        let credit = wait.saturating_mul(u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX));
        Self { price: wait, credit, owed: Mutex::new(Owed { until: HashMap::new(), swept: None }) }
    }

    /// Whether an attempt from this address is to be looked at.
    ///
    /// # Errors
    /// It has to wait.
    pub fn check(&self, remote: IpAddr, now: Instant) -> Result<(), Refusal> {
        let owed = self.owed.lock();
        let until = owed.until.get(&network(remote));
        let waits = until.is_some_and(|until| until.saturating_duration_since(now) > self.credit);
        if waits { Err(WAIT) } else { Ok(()) }
    }

    /// An attempt failed.
    pub fn failed(&self, remote: IpAddr, now: Instant) {
        let network = network(remote);
        let mut owed = self.owed.lock();
        if owed.until.len() >= CAPACITY && !owed.until.contains_key(&network) {
            owed.make_room(now, self.price);
        }
        let until = owed.until.entry(network).or_insert(now);
        // No more than one price beyond the credit: attempts that came all at once, before any had failed, do not add
        // up to hours.
        *until = ((*until).max(now) + self.price).min(now + self.credit + self.price);
    }
}

impl Owed {
    fn make_room(&mut self, now: Instant, interval: Duration) {
        if self.swept.is_none_or(|swept| now.duration_since(swept) >= interval) {
            self.swept = Some(now);
            self.until.retain(|_, until| *until > now);
        }
        if self.until.len() >= CAPACITY
            && let Some(network) = self.until.keys().next().copied()
        {
            self.until.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn some_failures_are_free_and_then_time_pays() {
        let penalties = Penalties::new(3, 5 * SECOND);
        let (here, start) = (address("192.0.2.1"), Instant::now());
        for _ in 0..3 {
            assert_eq!(penalties.check(here, start), Ok(()));
            penalties.failed(here, start);
        }
        assert_eq!(penalties.check(here, start), Err(WAIT));
        assert_eq!(penalties.check(address("192.0.2.2"), start), Ok(()), "somebody else");
        assert_eq!(penalties.check(here, start + 4 * SECOND), Err(WAIT));
        assert_eq!(penalties.check(here, start + 5 * SECOND), Ok(()), "one is forgotten");
        penalties.failed(here, start + 5 * SECOND);
        assert_eq!(penalties.check(here, start + 9 * SECOND), Err(WAIT));
        for _ in 0..2 {
            assert_eq!(penalties.check(here, start + 60 * SECOND), Ok(()));
            penalties.failed(here, start + 60 * SECOND);
        }
        assert_eq!(penalties.check(here, start + 60 * SECOND), Ok(()), "all were forgotten");
    }

    #[test]
    fn many_at_once_owe_no_more_than_one_too_many() {
        let penalties = Penalties::new(3, 5 * SECOND);
        let (here, start) = (address("192.0.2.1"), Instant::now());
        for _ in 0..1000 {
            penalties.failed(here, start);
        }
        assert_eq!(penalties.check(here, start), Err(WAIT));
        assert_eq!(penalties.check(here, start + 5 * SECOND), Ok(()));
    }

    #[test]
    fn a_network_is_one() {
        let penalties = Penalties::new(1, SECOND);
        let start = Instant::now();
        for (fails, same, other) in [
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", "2001:db8:0:1::1"),
            ("192.0.2.7", "::ffff:192.0.2.7", "::ffff:192.0.2.8"),
        ] {
            penalties.failed(address(fails), start);
            assert_eq!(penalties.check(address(same), start), Err(WAIT));
            assert_eq!(penalties.check(address(other), start), Ok(()));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let penalties = Penalties::new(1, SECOND);
        let start = Instant::now();
        let nth = |n: usize| IpAddr::from(u32::try_from(n).expect("small").to_be_bytes());
        for n in 0..CAPACITY + 100 {
            penalties.failed(nth(n), start);
        }
        assert_eq!(penalties.owed.lock().until.len(), CAPACITY);
        assert_eq!(penalties.check(nth(CAPACITY + 99), start), Err(WAIT), "the newest are kept");
        penalties.failed(nth(CAPACITY + 100), start + 2 * SECOND);
        assert_eq!(penalties.owed.lock().until.len(), 1, "who has paid is forgotten");
    }
}
