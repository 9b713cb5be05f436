//! What a token, a line of the user file or an authentication service grants, in two forms: [`GrantClaims`] as it is
//! written, and [`Grants`] compiled from it once, when the connection is made, and asked on every packet.
//!
//! What is misspelt grants nothing: an unknown right or role, a pattern that no room name can match, a filter that is
//! none. It does not make the whole grant invalid either, so that tokens minted for a newer server still work;
//! [`GrantClaims::problems`] tells whoever mints one. Grants only ever add up, the order of what is written does not
//! matter. The queries allocate nothing and take time linear in the size of the grant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::valid_name;
use crate::wire::mqtt::topic;

/// Grants as JSON has them. Every field may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantClaims {
    /// Rights by room pattern: `join`, `listen`, `admin`; `*` in a pattern stands for any run of characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<String, Vec<String>>,
    /// Filters of the topics that may be published to, where the topic table leaves it to grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// Filters that may be subscribed to, where the topic table leaves it to grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscribe: Vec<String>,
    /// Filters of the topics that may be retained, where the topic table leaves it to grants.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retain: Vec<String>,
    /// `observe`, `service`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
}

impl GrantClaims {
    /// One line for each thing in it that grants nothing, for who mints or inspects a token.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (pattern, rights) in &self.rooms {
            if !valid_pattern(pattern) {
                problems
                    .push(format!("rooms: {pattern:?} can be no room: 1 to 64 bytes, no / + # or control character"));
            }
            let unknown = rights.iter().filter(|right| right_named(right).is_none());
            problems.extend(
                unknown.map(|right| format!("rooms: {pattern:?}: {right:?} is not join, listen, admin or members=N")),
            );
            if rights.is_empty() {
                problems.push(format!("rooms: {pattern:?} has no right: join, listen or admin"));
            }
        }
        for (name, filters) in [("publish", &self.publish), ("subscribe", &self.subscribe), ("retain", &self.retain)] {
            let invalid = filters.iter().filter(|filter| !grantable(filter));
            problems.extend(invalid.map(|filter| format!("{name}: {filter:?} is no topic filter")));
        }
        let unknown = self.roles.iter().filter(|role| !matches!(role.as_str(), OBSERVE | SERVICE));
        problems.extend(unknown.map(|role| format!("roles: {role:?} is not observe or service")));
        problems
    }
}

const OBSERVE: &str = "observe";
const SERVICE: &str = "service";

/// What may be done in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoomRights {
    /// Become a member.
    pub join: bool,
    /// Read what is for the whole room, without becoming a member.
    pub listen: bool,
    /// Moderate; comes with `join`.
    pub admin: bool,
    /// How many members a room may have that it opens: `members=N`, which is no right to anything by itself.
    pub members: Option<usize>,
}

impl RoomRights {
    /// Some right at all.
    pub fn any(self) -> bool {
        self.join || self.listen || self.admin
    }

    fn and(self, other: Self) -> Self {
        Self {
            join: self.join || other.join,
            listen: self.listen || other.listen,
            admin: self.admin || other.admin,
            members: self.members.max(other.members),
        }
    }
}

const ALL_RIGHTS: RoomRights = RoomRights { join: true, listen: true, admin: true, members: None };

fn right_named(name: &str) -> Option<RoomRights> {
    let none = RoomRights::default();
    match name {
        "join" => Some(RoomRights { join: true, ..none }),
        "listen" => Some(RoomRights { listen: true, ..none }),
        "admin" => Some(RoomRights { join: true, admin: true, ..none }),
        other => {
            let members = other.strip_prefix("members=")?.parse().ok().filter(|members| *members > 0)?;
            Some(RoomRights { members: Some(members), ..none })
        }
    }
}

/// What one connection was granted. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Rooms by their full names, sorted.
    rooms: Box<[(Box<str>, RoomRights)]>,
    /// Rooms by pattern, all with a `*`.
    patterns: Box<[(Box<str>, RoomRights)]>,
    every_room: RoomRights,
    publish: Box<[Box<str>]>,
    subscribe: Box<[Box<str>]>,
    retain: Box<[Box<str>]>,
    observe: bool,
    service: bool,
}

impl Grants {
    /// Compiles what was written.
    pub fn from_claims(claims: &GrantClaims) -> Self {
        let (mut rooms, mut patterns, mut every_room) = (Vec::new(), Vec::new(), RoomRights::default());
        for (pattern, rights) in &claims.rooms {
            let rights =
                rights.iter().filter_map(|right| right_named(right)).fold(RoomRights::default(), RoomRights::and);
            if !rights.any() || !valid_pattern(pattern) {
                continue;
            }
            if pattern.bytes().all(|byte| byte == b'*') {
                every_room = every_room.and(rights);
            } else if pattern.contains('*') {
                patterns.push((pattern.as_str().into(), rights));
            } else {
                rooms.push((pattern.as_str().into(), rights)); // a BTreeMap comes sorted
            }
        }
        let has_role = |name| claims.roles.iter().any(|role| role == name);
        Self {
            rooms: rooms.into(),
            patterns: patterns.into(),
            every_room,
            publish: filters(&claims.publish),
            subscribe: filters(&claims.subscribe),
            retain: filters(&claims.retain),
            observe: has_role(OBSERVE),
            service: has_role(SERVICE),
        }
    }

    /// What everybody has in open mode: every room, with moderation, the application's topics, every inbox to write
    /// to, and a look at everything that is not another user's own.
    pub fn open() -> Self {
        let application = || Box::<str>::from("app/#");
        Self {
            every_room: ALL_RIGHTS,
            publish: Box::new([application(), "users/+/inbox".into()]),
            subscribe: Box::new([application()]),
            retain: Box::new([application()]),
            observe: true,
            ..Self::default()
        }
    }

    /// Everything that can be granted: the application that the server is part of.
    pub fn all() -> Self {
        let everything = || Box::<[Box<str>]>::from([Box::from("#")]);
        Self {
            every_room: ALL_RIGHTS,
            publish: everything(),
            subscribe: everything(),
            retain: everything(),
            observe: true,
            service: true,
            ..Self::default()
        }
    }

    /// The role `service` and nothing else: the holder of an operator key.
    pub fn service() -> Self {
        Self { service: true, ..Self::default() }
    }

    /// What may be done in the room of this name.
    pub fn room(&self, name: &str) -> RoomRights {
        let exact = self.rooms.binary_search_by(|(room, _)| (**room).cmp(name)).map(|at| self.rooms[at].1);
        let by_pattern = self.patterns.iter().filter(|(pattern, _)| glob(pattern, name)).map(|(_, rights)| *rights);
        by_pattern.fold(self.every_room.and(exact.unwrap_or_default()), RoomRights::and)
    }

    /// What may be done in any room whatever its name.
    pub fn every_room(&self) -> RoomRights {
        self.every_room
    }

    /// Whether there is a room that may be joined.
    pub fn any_room(&self) -> bool {
        self.every_room.join || self.rooms.iter().chain(&self.patterns).any(|(_, rights)| rights.join)
    }

    /// Whether publishing to this topic was granted.
    pub fn may_publish(&self, name: &str) -> bool {
        self.publish.iter().any(|filter| topic::matches(filter, name))
    }

    /// Whether one of the filters granted matches everything that `filter` (without `$share/…/`) matches.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        self.subscribe.iter().any(|granted| topic::covers(granted, filter))
    }

    /// Whether setting and clearing the retained message of this topic was granted.
    pub fn may_retain(&self, name: &str) -> bool {
        self.retain.iter().any(|filter| topic::matches(filter, name))
    }

    /// Whether it has the role `observe`: wildcards, and reading without taking part.
    pub fn observe(&self) -> bool {
        self.observe
    }

    /// Whether it has the role `service`: the operator's own software.
    pub fn has_service(&self) -> bool {
        self.service
    }
}

/// Whether some room's name can match: a pattern is written like a name, and a `*` may stand for nothing.
fn valid_pattern(pattern: &str) -> bool {
    valid_name(pattern)
}

/// A filter that may stand in a grant. Shared subscriptions are granted by the filter inside.
fn grantable(filter: &str) -> bool {
    topic::valid_filter(filter) && !filter.starts_with("$share/")
}

fn filters(written: &[String]) -> Box<[Box<str>]> {
    written.iter().filter(|filter| grantable(filter)).map(|filter| filter.as_str().into()).collect()
}

/// Whether `text` is `pattern` with each `*` replaced by some run of characters. Each piece between two `*` is looked
/// for once, at its leftmost: where a match exists, one exists that way, and there is nothing to go back to.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut text) = text.strip_prefix(head) else { return false };
    for piece in middle.split('*') {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests;
