//! Kick, ban, unban, lock, unlock, close, limit: by a room's moderators over MQTT, by the operator over HTTP.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{
    Reason,
    registry::{HubRoom, Shard},
};
use crate::{
    hub::{Dirty, Hub, Message},
    policy::{Refusal, base, valid_name},
    session::{Close, Over},
    wire::mqtt::{QoS, ReasonCode},
};

/// An order, as a moderator writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moderation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    pub action: Action,
    /// Whom it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// For how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// How many members there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<usize>,
    /// Told to whom it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    #[default]
    Kick,
    Ban,
    Unban,
    Lock,
    Unlock,
    Close,
    Limit,
}

impl Action {
    /// The action of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "kick" => Self::Kick,
            "ban" => Self::Ban,
            "unban" => Self::Unban,
            "lock" => Self::Lock,
            "unlock" => Self::Unlock,
            "close" => Self::Close,
            "limit" => Self::Limit,
            _ => return None,
        })
    }
}

/// Why an order was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Nobody is in the room.
    NoRoom,
    /// That user is not in it.
    NoUser,
    /// The order is not one.
    Invalid(&'static str),
    /// As many are kept out as may be.
    TooManyBans,
}

impl Problem {
    /// One line for whoever gave the order.
    pub fn what(self) -> &'static str {
        match self {
            Self::NoRoom => "nobody is in this room",
            Self::NoUser => "that user is not in this room",
            Self::Invalid(what) => what,
            Self::TooManyBans => "as many users are kept out of this room as may be",
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let reason = match problem {
            Problem::Invalid(_) => ReasonCode::PAYLOAD_FORMAT_INVALID,
            Problem::TooManyBans => ReasonCode::QUOTA_EXCEEDED,
            Problem::NoRoom | Problem::NoUser => ReasonCode::NOT_AUTHORIZED,
        };
        Self { reason, what: problem.what() }
    }
}

/// How long a kick keeps out, unless it says.
const KICK: u64 = 10;
/// The longest ban.
const LONGEST: u64 = 365 * 24 * 60 * 60;
const KICKED: Close = Close { reason: ReasonCode::ADMINISTRATIVE_ACTION, what: "removed from the room by a moderator" };

impl Moderation {
    /// Reads an order.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(payload: &[u8]) -> Result<Self, Problem> {
        let order: Self = serde_json::from_slice(payload).map_err(|_| {
            Problem::Invalid("an order has an action (kick, ban, unban, lock, unlock, close, limit) and what it needs")
        })?;
        order.check().map(|()| order)
    }

    /// Whether it says all that its action needs.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self) -> Result<(), Problem> {
        let user = self.user.as_deref().filter(|user| valid_name(user));
        match self.action {
            Action::Kick | Action::Ban | Action::Unban if user.is_none() => {
                Err(Problem::Invalid("whom? kick, ban and unban have a user"))
            }
            Action::Ban if self.seconds.is_none() => Err(Problem::Invalid("for how long? a ban has seconds")),
            Action::Limit if self.members.is_none_or(|members| members == 0) => {
                Err(Problem::Invalid("how many? a limit has members, at least one"))
            }
            _ if self.seconds.is_some_and(|seconds| seconds > LONGEST) => {
                Err(Problem::Invalid("seconds: at most a year"))
            }
            _ => Ok(()),
        }
    }
}

impl Hub {
    /// Carries out an order, having told the room of it by `announce`.
    ///
    /// # Errors
    /// It cannot be; nobody was told then.
    pub(crate) fn moderate(
        &self,
        room: &str,
        order: &Moderation,
        announce: impl FnOnce(&mut Dirty),
        now: Instant,
        dirty: &mut Dirty,
    ) -> Result<(), Problem> {
        order.check()?;
        let mut shard = self.rooms.lock(room);
        // Those who are kept out may be let in again also where nobody is.
        let is_there = |found: &&mut HubRoom| order.action == Action::Unban || !found.is_empty();
        let found = shard.get_mut(room).filter(is_there).ok_or(Problem::NoRoom)?;
        let user = base(order.user.as_deref().unwrap_or_default());
        match order.action {
            Action::Kick if found.devices_of(user).is_empty() => return Err(Problem::NoUser),
            Action::Kick | Action::Ban => {
                let seconds = order.seconds.unwrap_or(KICK);
                let until = now + Duration::from_secs(seconds);
                if !found.ban(user, until, now) {
                    return Err(Problem::TooManyBans);
                }
                announce(dirty); // before it is put out, so that it learns why
                self.put_out(&mut shard, room, order, now, dirty);
            }
            Action::Unban => {
                announce(dirty);
                found.unban(user);
                if found.is_over(now) {
                    self.forget_room(&mut shard, room);
                }
            }
            Action::Lock => {
                announce(dirty);
                if !found.locked() {
                    found.set_locked(true);
                    self.shut_out(&shard, room, order, dirty);
                }
            }
            Action::Unlock => {
                announce(dirty);
                found.set_locked(false);
            }
            Action::Limit => {
                announce(dirty);
                found.set_limit(order.members.unwrap_or(1));
            }
            Action::Close => {
                announce(dirty);
                self.clear_out(&mut shard, room, order, now, dirty);
            }
        }
        self.rooms.note_closed(room, shard.get(room));
        Ok(())
    }

    /// Removes a user, with all devices, from a room.
    fn put_out(&self, shard: &mut Shard, room: &str, order: &Moderation, now: Instant, dirty: &mut Dirty) {
        let user = base(order.user.as_deref().unwrap_or_default());
        for device in shard.get(room).map(|found| found.devices_of(user)).unwrap_or_default() {
            self.leave(shard, room, &device, Reason::Kicked, now, dirty);
        }
        for session in self.sessions_reached_by_room(room, |session| base(&session.user) == user) {
            let taken_out = self.take_out_of_room(&session, room, Over::Kicked, order.reason.as_deref(), dirty);
            // Also what a filter that spans rooms has brought and was not sent, but for the order itself.
            let topic = self.policy.rules().control_topic(room);
            let void = |message: &Message| message.room() == Some(room) && topic.as_deref() != Some(message.topic());
            session.lock().outbound.drop_queued(void);
            if taken_out && !session.lock().is_in_a_room() {
                dirty.close_afterwards(&session, KICKED);
            }
        }
    }

    /// Ends what those have of a locked room who are not in it.
    fn shut_out(&self, shard: &Shard, room: &str, order: &Moderation, dirty: &mut Dirty) {
        let Some(found) = shard.get(room) else { return };
        for session in self.sessions_in_room(room) {
            if found.member(&session.user).is_none() && !session.lock().observes() {
                self.take_out_of_room(&session, room, Over::Locked, order.reason.as_deref(), dirty);
            }
        }
    }

    /// Ends the room for everybody.
    fn clear_out(&self, shard: &mut Shard, room: &str, order: &Moderation, now: Instant, dirty: &mut Dirty) {
        let users: Vec<_> =
            shard.get(room).into_iter().flat_map(|found| found.members()).map(|member| member.user.clone()).collect();
        // First nobody reads there any more: that all the others leave is of no use to who is going, too.
        for session in self.sessions_in_room(room) {
            self.take_out_of_room(&session, room, Over::Closed, order.reason.as_deref(), dirty);
        }
        for user in users {
            self.leave(shard, room, &user, Reason::Closed, now, dirty);
        }
    }

    /// An order of the operator's: told to the room in the operator's name.
    ///
    /// # Errors
    /// It cannot be carried out; nobody was told then.
    pub fn moderate_as_operator(&self, room: &str, order: &Moderation, now: Instant) -> Result<(), Problem> {
        let mut dirty = Dirty::default();
        let announce = |dirty: &mut Dirty| {
            if let Some(topic) = self.policy.rules().control_topic(room) {
                let payload = serde_json::to_vec(order).unwrap_or_default();
                self.publish_own(&topic, &payload, QoS::AtLeastOnce, false, dirty);
            }
        };
        let done = self.moderate(room, order, announce, now, &mut dirty);
        dirty.flush(self, now);
        done
    }
}
