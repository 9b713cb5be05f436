//! `[presence]` and `[rooms]`: how long a place in a room is kept, and how many there are.

use std::time::Duration;

use super::reader::Reader;
use super::value::{HOUR, MINUTE, SECOND, count, time};

/// Section `[presence]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceConfig {
    /// How long a member whose connection was lost keeps its place: back by then, it never left. Duration, 0 to 10
    /// minutes.
    pub grace: Duration,
    /// After how long at most a link that has died is noticed, whatever keep alive the client chose. Duration in whole
    /// seconds, 5 seconds to 10 minutes.
    pub lost: Duration,
}

impl Default for PresenceConfig {
    fn default() -> Self {
        Self { grace: Duration::from_secs(8), lost: Duration::from_secs(20) }
    }
}

impl PresenceConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("presence");
        let d = Self::default();
        Self {
            grace: section.read("grace", time(0..=10 * MINUTE), d.grace),
            lost: section.read("lost", time(5 * SECOND..=10 * MINUTE).whole_seconds(), d.lost),
        }
    }
}

/// Section `[rooms]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomsConfig {
    /// Rooms at a time. 0 to 10000000; 0 = unlimited.
    pub rooms: Option<usize>,
    /// Members of one room, unless a moderator or the grant of who opened it says otherwise. 0 to 10000000; 0 =
    /// unlimited.
    pub members: Option<usize>,
    /// Rooms that one user is in at a time, with all devices. 0 to 10000000; 0 = unlimited.
    pub rooms_per_user: Option<usize>,
    /// How long a signal waits for who is away, or slow, before it is dropped: by then its sender has given up.
    /// Duration, 1 second to 1 hour.
    pub signal_expiry: Duration,
}

impl Default for RoomsConfig {
    fn default() -> Self {
        Self {
            rooms: Some(100_000),
            members: Some(1000),
            rooms_per_user: Some(100),
            signal_expiry: Duration::from_secs(30),
        }
    }
}

impl RoomsConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("rooms");
        let d = Self::default();
        let most = || count(1..=10_000_000).or_zero("unlimited");
        Self {
            rooms: section.read("rooms", most(), d.rooms),
            members: section.read("members", most(), d.members),
            rooms_per_user: section.read("rooms_per_user", most(), d.rooms_per_user),
            signal_expiry: section.read("signal_expiry", time(SECOND..=HOUR), d.signal_expiry),
        }
    }
}
