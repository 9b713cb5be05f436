//! What rooms there are, and who is in one: for the operator, not for clients, who subscribe to presence.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Entry, Reason,
    registry::{HubMember, HubRoom},
};
use crate::{
    hub::{DISCONNECTED, Dirty, Hub},
    policy::{Rules, base},
    wire::mqtt::{QoS, ReasonCode},
};

/// A room in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub name: Box<str>,
    pub members: usize,
    pub locked: bool,
    /// Members there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// For how long it has been there, in seconds.
    pub seconds: u64,
}

/// A room and who is in it.
#[derive(Debug, Serialize)]
pub struct Survey {
    #[serde(flatten)]
    pub room: Summary,
    /// As the roster has them, in the order of their names.
    pub roster: Vec<Box<RawValue>>,
}

impl Hub {
    /// The first `most` rooms behind that name, in the order of their names, and whether there are more.
    pub fn list_rooms(&self, after: Option<&str>, most: usize, now: Instant) -> (Vec<Summary>, bool) {
        // No more than one page and one room are held at a time, however many rooms there are.
        let mut page = BTreeMap::<Box<str>, Summary>::new();
        let mut more = false;
        self.rooms.each(|name, room| {
            let behind = after.is_none_or(|after| name > after);
            let fits = page.len() < most || page.last_key_value().is_some_and(|(last, _)| name < &**last);
            more |= behind && !fits;
            if behind && fits {
                page.insert(name.into(), self.summary(name, room, now));
                if page.len() > most {
                    page.pop_last();
                    more = true;
                }
            }
        });
        (page.into_values().collect(), more)
    }

    /// A room with members; `None` if there is none of that name.
    pub fn survey(&self, name: &str, now: Instant) -> Option<Survey> {
        let shard = self.rooms.lock(name);
        let room = shard.get(name).filter(|room| !room.is_empty())?;
        let entry = |member: &HubMember| {
            let instance = self.instance(member.session.1);
            to_raw_value(&Entry::of(member, &instance)).ok()
        };
        let roster = room.members().iter().filter_map(entry).collect();
        Some(Survey { room: self.summary(name, room, now), roster })
    }

    /// Whether anybody is in that room.
    pub fn is_open(&self, name: &str) -> bool {
        self.rooms.lock(name).get(name).is_some_and(|room| !room.is_empty())
    }

    fn summary(&self, name: &str, room: &HubRoom, now: Instant) -> Summary {
        Summary {
            name: name.into(),
            members: room.members().len(),
            locked: room.locked(),
            limit: room.limit().or(self.rooms.config.members),
            seconds: now.saturating_duration_since(room.opened()).as_secs(),
        }
    }

    /// Ends every session of a user, devices included, or of that device, having told it why where it listens. Says
    /// whether there was any.
    pub fn disconnect_user(&self, user: &str, why: Option<&str>, now: Instant) -> bool {
        let mut sessions = self.sessions();
        sessions.retain(|session| *session.user == *user || base(&session.user) == user);
        // Once, whatever a user has: its other sessions hear what is said on its topic, too.
        let users: BTreeSet<&str> = sessions.iter().map(|session| &*session.user).collect();
        let (mut dirty, why) = (Dirty::default(), why.unwrap_or(DISCONNECTED.what));
        for user in users {
            self.report(user, "", "disconnect", ReasonCode::ADMINISTRATIVE_ACTION, why, &mut dirty);
        }
        dirty.flush(self, now);
        for session in &sessions {
            self.remove(session, DISCONNECTED, now);
        }
        let held = self.end_held(now, |member| *member.user == *user || base(&member.user) == user);
        held || !sessions.is_empty()
    }

    /// Ends the stays of such members whose places are held: their sessions may be gone. Says whether there was any.
    pub(crate) fn end_held(&self, now: Instant, concerns: impl Fn(&HubMember) -> bool) -> bool {
        let held = |room: &HubRoom| -> Vec<Box<str>> {
            let members = room.members().iter().filter(|member| member.held.is_some() && concerns(member));
            members.map(|member| member.user.clone()).collect()
        };
        let mut found = false;
        for name in &self.rooms.names(|room| !held(room).is_empty()) {
            let mut dirty = Dirty::default();
            let mut shard = self.rooms.lock(name);
            for user in shard.get(name).map(held).unwrap_or_default() {
                found |= self.leave(&mut shard, name, &user, Reason::Disconnected, now, &mut dirty).is_some();
            }
            drop(shard);
            dirty.flush(self, now);
        }
        found
    }

    /// Another table is in force: rosters go to where it has them, and what is retained in rooms where it has nothing of
    /// theirs goes.
    pub(crate) fn move_rosters(&self, before: &Rules) {
        let now = self.policy.rules();
        for name in &self.rooms.names(|_| true) {
            let (mut dirty, shard) = (Dirty::default(), self.rooms.lock(name));
            for member in shard.get(name).map(|room| room.members()).unwrap_or_default() {
                let [was, is] = [before, &now].map(|rules| rules.presence_topic(name, &member.user));
                if was != is {
                    was.into_iter().for_each(|was| self.publish_own(&was, b"", QoS::AtLeastOnce, true, &mut dirty));
                    self.write_presence(name, member, &mut dirty);
                }
            }
            let kept = now.table.filters_of_room(name);
            let gone = before.table.filters_of_room(name).into_iter().filter(|filter| !kept.contains(filter));
            gone.for_each(|filter| self.clear_retained(&filter));
            drop(shard);
            dirty.flush(self, Instant::now());
        }
    }
}
