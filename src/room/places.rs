//! One room: its places, who may take one, and what becomes of each. See the module above.

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

use crate::policy::base;

/// See the module. `S` is a session, `H` what is kept with a held place.
#[derive(Debug)]
pub struct Room<S, H> {
    /// By user.
    places: Vec<Member<S, H>>,
    /// Members at a time, if a moderator or the grant of who opened it said so.
    limit: Option<usize>,
    locked: bool,
    /// Users (the part before `~`) who are kept out, and until when.
    bans: Vec<(Box<str>, Instant)>,
    opened: Instant,
}

/// A place that is taken.
#[derive(Debug)]
pub struct Member<S, H> {
    pub user: Box<str>,
    /// Whose subscription it is.
    pub session: S,
    pub since: SystemTime,
    joined: Instant,
    /// What the member says of itself: a JSON object.
    pub meta: Option<Box<[u8]>>,
    /// Its connection was lost.
    pub held: Option<Box<Held<H>>>,
}

/// How a place is kept for somebody who is away.
#[derive(Debug, PartialEq, Eq)]
pub struct Held<H> {
    /// Why it will have left, if it does not come back.
    pub reason: Reason,
    pub with: H,
}

/// Why a stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It said so, or unsubscribed.
    Left,
    /// The operator, or too many refusals, ended the connection.
    Disconnected,
    /// The connection was lost and nobody came back.
    Lost,
    /// A moderator removed it.
    Kicked,
    /// Its token ran out.
    Expired,
    /// The room was closed.
    Closed,
}

impl Reason {
    pub const ALL: [Self; 6] = [Self::Left, Self::Disconnected, Self::Lost, Self::Kicked, Self::Expired, Self::Closed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Disconnected => "disconnected",
            Self::Lost => "lost",
            Self::Kicked => "kicked",
            Self::Expired => "expired",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of a wish to join.
#[derive(Debug, PartialEq, Eq)]
pub enum Join<S, H> {
    /// A new stay.
    Joined,
    /// The session has the place already.
    Already,
    /// Its place was held, and it has it again: nothing shows.
    Resumed(Held<H>),
    /// The user is the same and the session another: the stay goes on, with a new instance. The old session is to lose
    /// what it has of the room.
    Moved { from: S, held: Option<Held<H>> },
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Full,
    Locked,
    Banned,
}

/// Whom a room keeps out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// All but these users, in order.
    pub members_only: Option<Vec<Box<str>>>,
    /// These users (the part before `~`) in any case, until then.
    pub banned: Vec<(Box<str>, Instant)>,
}

impl Closed {
    /// Whether a user may read what is in the room; `observes` says whether locks are not for it.
    pub fn admits(&self, user: &str, observes: impl FnOnce() -> bool, now: Instant) -> bool {
        let is_member = |members: &Vec<Box<str>>| members.binary_search_by(|member| (**member).cmp(user)).is_ok();
        !self.banned.iter().any(|(banned, until)| **banned == *base(user) && *until > now)
            && (self.members_only.as_ref().is_none_or(is_member) || observes())
    }
}

/// Users who may be kept out of one room at a time.
pub const BANS: usize = 1000;

impl<S: PartialEq + Clone, H> Room<S, H> {
    /// A room that nobody is in yet.
    pub fn new(limit: Option<usize>, now: Instant) -> Self {
        Self { places: Vec::new(), limit, locked: false, bans: Vec::new(), opened: now }
    }

    /// Those who have a place, in the order of their names.
    pub fn members(&self) -> &[Member<S, H>] {
        &self.places
    }

    pub fn member(&self, user: &str) -> Option<&Member<S, H>> {
        self.find(user).ok().map(|at| &self.places[at])
    }

    pub fn member_mut(&mut self, user: &str) -> Option<&mut Member<S, H>> {
        self.find(user).ok().map(|at| &mut self.places[at])
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Nobody is in it and nobody is kept out: nothing would be lost with it.
    pub fn is_over(&self, now: Instant) -> bool {
        self.places.is_empty() && self.bans.iter().all(|(_, until)| *until <= now)
    }

    /// When the last ban ends.
    pub fn banned_until(&self) -> Option<Instant> {
        self.bans.iter().map(|(_, until)| *until).max()
    }

    pub fn locked(&self) -> bool {
        self.locked
    }

    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Forgets what held for those who were in it.
    pub fn reopen(&mut self, limit: Option<usize>, now: Instant) {
        (self.limit, self.locked, self.opened) = (limit, false, now);
    }

    pub fn set_limit(&mut self, members: usize) {
        self.limit = Some(members);
    }

    pub fn set_locked(&mut self, locked: bool) {
        self.locked = locked;
    }

    fn find(&self, user: &str) -> Result<usize, usize> {
        self.places.binary_search_by(|place| (*place.user).cmp(user))
    }

    /// Whether that user, who may be a device, is kept out.
    pub fn is_banned(&self, user: &str, now: Instant) -> bool {
        self.bans.iter().any(|(banned, until)| **banned == *base(user) && *until > now)
    }

    /// Keeps a user (with all devices) out. `false` if as many are kept out as may be.
    pub fn ban(&mut self, user: &str, until: Instant, now: Instant) -> bool {
        self.bans.retain(|(banned, until)| *until > now && **banned != *base(user));
        if self.bans.len() >= BANS {
            return false;
        }
        self.bans.push((base(user).into(), until));
        true
    }

    /// Lets a user in again.
    pub fn unban(&mut self, user: &str) {
        self.bans.retain(|(banned, _)| **banned != *base(user));
    }

    /// Whether a user could take a place now.
    ///
    /// # Errors
    /// Why it could not.
    pub fn admits(&self, user: &str, most: Option<usize>, now: Instant) -> Result<(), Refused> {
        match () {
            () if self.is_banned(user, now) => Err(Refused::Banned),
            () if self.find(user).is_ok() => Ok(()),
            () if self.locked => Err(Refused::Locked),
            () if self.limit.or(most).is_some_and(|most| self.places.len() >= most) => Err(Refused::Full),
            () => Ok(()),
        }
    }

    /// Takes a place, or the place of the same user.
    ///
    /// # Errors
    /// As [`Room::admits`].
    pub fn join(
        &mut self,
        user: &str,
        session: &S,
        most: Option<usize>,
        now: Instant,
        today: SystemTime,
    ) -> Result<Join<S, H>, Refused> {
        self.admits(user, most, now)?;
        let at = match self.find(user) {
            Ok(at) => at,
            Err(at) => {
                let (user, session) = (user.into(), session.clone());
                let place = Member { user, session, since: today, joined: now, meta: None, held: None };
                if self.places.len() < 4 {
                    self.places.reserve_exact(1); // most rooms are for two
                }
                self.places.insert(at, place);
                return Ok(Join::Joined);
            }
        };
        let place = &mut self.places[at];
        let held = place.held.take().map(|held| *held);
        if place.session != *session {
            return Ok(Join::Moved { from: std::mem::replace(&mut place.session, session.clone()), held });
        }
        Ok(held.map_or(Join::Already, Join::Resumed))
    }

    /// Whether the session has a place under that name.
    pub fn has(&self, user: &str, session: &S) -> bool {
        self.member(user).is_some_and(|place| place.session == *session)
    }

    /// The session's connection was lost: its place is kept. Gives back what was to be kept with it if it has none, or
    /// none that is not held already.
    pub fn hold(&mut self, user: &str, session: &S, held: Held<H>) -> Result<(), H> {
        match self.member_mut(user) {
            Some(place) if place.session == *session && place.held.is_none() => {
                place.held = Some(Box::new(held));
                Ok(())
            }
            _ => Err(held.with),
        }
    }

    /// The session is back: its place is its own again. `None` if it was not held for it.
    pub fn resume(&mut self, user: &str, session: &S) -> Option<Held<H>> {
        let place = self.member_mut(user).filter(|place| place.session == *session)?;
        place.held.take().map(|held| *held)
    }

    /// Ends a stay; `None` if that user has no place.
    pub fn leave(&mut self, user: &str) -> Option<Member<S, H>> {
        let place = self.find(user).ok().map(|at| self.places.remove(at));
        if self.places.len() < self.places.capacity() / 4 {
            self.places.shrink_to_fit();
        }
        place
    }

    /// The users who have a place under this name or as devices of it.
    pub fn devices_of(&self, user: &str) -> Vec<Box<str>> {
        let of_user = self.places.iter().filter(|place| *place.user == *user || base(&place.user) == user);
        of_user.map(|place| place.user.clone()).collect()
    }

    /// Whom the room keeps out at the moment; `None` if nobody.
    pub fn closed(&self) -> Option<Closed> {
        let banned = self.bans.clone();
        let members_only = self.locked.then(|| self.places.iter().map(|place| place.user.clone()).collect());
        (members_only.is_some() || !banned.is_empty()).then_some(Closed { members_only, banned })
    }
}

impl<S, H> Member<S, H> {
    /// How long it has been in the room.
    pub fn stayed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.joined)
    }
}

#[cfg(test)]
mod tests;
