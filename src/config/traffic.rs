//! `[rate]` and `[abuse]`: how fast clients may go, and how often they may be refused.

use std::time::Duration;

use super::reader::Reader;
use super::topic::{Rate, rate_keys};
use super::value::{DAY, HOUR, MINUTE, count, time};

/// Section `[rate]`. Who goes faster is read from no faster than this; a topic class has a rate of its own besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateConfig {
    /// Section `[rate.connection]`.
    pub connection: Rate,
    /// Section `[rate.user]`.
    pub user: Rate,
    /// Section `[rate.address]`.
    pub address: Rate,
    /// How long a message that came too fast may wait; one that would wait longer is refused. Duration, 0 to 1 minute.
    pub wait: Duration,
}

impl Default for RateConfig {
    fn default() -> Self {
        let rate = |messages, mib: usize| Rate {
            messages: Some(messages),
            bytes: Some(mib << 20),
            burst: Duration::from_secs(5),
        };
        Self {
            connection: rate(2000, 8),
            user: rate(4000, 16),
            address: rate(20_000, 64),
            wait: Duration::from_secs(2),
        }
    }
}

impl RateConfig {
    /// No bounds at all.
    pub fn unlimited() -> Self {
        let none = Rate { messages: None, bytes: None, burst: Duration::from_secs(1) };
        Self { connection: none, user: none, address: none, wait: Duration::from_secs(2) }
    }

    pub(super) fn read(reader: &mut Reader) -> Self {
        let d = Self::default();
        let wait = reader.section("rate").read("wait", time(0..=MINUTE), d.wait);
        let mut level = |name, d| rate_keys(&mut reader.section(name), d);
        let (connection, user) = (level("rate.connection", d.connection), level("rate.user", d.user));
        Self { connection, user, address: level("rate.address", d.address), wait }
    }
}

/// Section `[abuse]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbuseConfig {
    /// Refused publishes and subscriptions of one user at one address after which its connection is ended and it is
    /// kept out. 1 to 1000000; 0 = they are not counted.
    pub strikes: Option<usize>,
    /// The time in which they count. Duration, 100 ms to 1 hour.
    pub window: Duration,
    /// How long that user is kept out at that address. Duration, 100 ms to 1 day.
    pub ban: Duration,
}

impl Default for AbuseConfig {
    fn default() -> Self {
        Self { strikes: Some(100), window: Duration::from_secs(10), ban: Duration::from_secs(60) }
    }
}

impl AbuseConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("abuse");
        let d = Self::default();
        Self {
            strikes: section.read("strikes", count(1..=1_000_000).or_zero("not counted"), d.strikes),
            window: section.read("window", time(100..=HOUR), d.window),
            ban: section.read("ban", time(100..=DAY), d.ban),
        }
    }
}
