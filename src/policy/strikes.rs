//! Who is refused again and again: refusals are counted by user and address, and too many of them in a short time keep
//! that user out at that address for a while.
//!
//! A refusal is a debt that time pays off, as in [`rate`](super::rate). How many are remembered is bounded.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Refusal;
use crate::{config::AbuseConfig, wire::mqtt::ReasonCode};

/// Users at addresses that are remembered; beyond, those who have paid are forgotten, and then nobody new is counted
/// until somebody has.
const CAPACITY: usize = 1 << 16;

pub const BANNED: Refusal =
    Refusal { reason: ReasonCode::BANNED, what: "this user was refused too often from this address; come back later" };

type Who = (Box<str>, Option<IpAddr>);

/// See the module.
pub struct Strikes {
    config: Mutex<AbuseConfig>,
    offenders: Mutex<HashMap<Who, Offender>>,
}

#[derive(Debug, Clone, Copy)]
struct Offender {
    /// When all refusals will be paid off.
    until: Instant,
    /// Kept out until then.
    banned: Option<Instant>,
}

impl Offender {
    fn is_over(&self, now: Instant) -> bool {
        self.until <= now && self.banned.is_none_or(|until| until <= now)
    }
}

impl Strikes {
    pub fn new(config: AbuseConfig) -> Self {
        Self { config: Mutex::new(config), offenders: Mutex::default() }
    }

    /// Other bounds from now on.
    pub fn replace(&self, config: AbuseConfig) {
        *self.config.lock() = config;
    }

    /// Counts a refusal of this user (the part before `~`) at this address. Whether that was one too many, and it is
    /// kept out from now on.
    pub fn strike(&self, user: &str, address: Option<IpAddr>, now: Instant) -> bool {
        let config = self.config.lock().clone();
        let Some(strikes) = config.strikes else { return false };
        let price = config.window / u32::try_from(strikes).unwrap_or(u32::MAX);
        let mut offenders = self.offenders.lock();
        if offenders.len() >= CAPACITY {
            offenders.retain(|_, offender| !offender.is_over(now));
            if offenders.len() >= CAPACITY {
                return false;
            }
        }
        let who = (user.into(), address);
        let offender = offenders.entry(who).or_insert(Offender { until: now, banned: None });
        offender.until = offender.until.max(now) + price;
        let over = offender.until.duration_since(now) + price / 2 >= config.window.max(Duration::from_nanos(1));
        if over {
            *offender = Offender { until: now, banned: Some(now + config.ban) };
        }
        over
    }

    /// Whether this user may connect from this address.
    ///
    /// # Errors
    /// It is kept out.
    pub fn check(&self, user: &str, address: Option<IpAddr>, now: Instant) -> Result<(), Refusal> {
        let mut offenders = self.offenders.lock();
        if offenders.is_empty() {
            return Ok(());
        }
        let who = (user.into(), address);
        match offenders.get(&who) {
            Some(offender) if offender.banned.is_some_and(|until| until > now) => Err(BANNED),
            Some(offender) if offender.is_over(now) => {
                offenders.remove(&who);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Who is remembered.
    pub fn remembered(&self) -> usize {
        self.offenders.lock().len()
    }

    /// Forgets who has paid.
    pub fn sweep(&self, now: Instant) {
        let mut offenders = self.offenders.lock();
        offenders.retain(|_, offender| !offender.is_over(now));
        if offenders.len() < offenders.capacity() / 8 {
            offenders.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(strikes: usize) -> Strikes {
        let strikes = (strikes > 0).then_some(strikes);
        Strikes::new(AbuseConfig { strikes, window: Duration::from_secs(10), ban: Duration::from_secs(60) })
    }

    #[test]
    fn too_many_at_once_are_a_ban_for_that_user_at_that_address() {
        let (all, start) = (strikes(100), Instant::now());
        let (here, there) = ("192.0.2.1".parse().ok(), "192.0.2.2".parse().ok());
        let over = (1..=100).find(|_| all.strike("mallory", here, start));
        assert_eq!(over, Some(100));
        assert_eq!(all.check("mallory", here, start), Err(BANNED));
        assert_eq!(all.check("mallory", there, start), Ok(()));
        assert_eq!(all.check("alice", here, start), Ok(()));
        assert_eq!(all.check("mallory", here, start + Duration::from_secs(59)), Err(BANNED));
        assert_eq!(all.check("mallory", here, start + Duration::from_secs(60)), Ok(()));
        assert_eq!(all.remembered(), 0, "served, and forgotten");
    }

    #[test]
    fn now_and_then_is_never_too_many() {
        let (all, start) = (strikes(100), Instant::now());
        for n in 0..10_000 {
            assert!(!all.strike("clumsy", None, start + Duration::from_millis(110) * n), "{n}");
        }
        all.sweep(start + Duration::from_secs(11_000));
        assert_eq!(all.remembered(), 0);
    }

    #[test]
    fn switched_off_it_counts_nothing() {
        let (all, start) = (strikes(0), Instant::now());
        assert!((0..10_000).all(|_| !all.strike("mallory", None, start)));
        assert_eq!(all.remembered(), 0);
    }
}
