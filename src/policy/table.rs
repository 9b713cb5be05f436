//! The topic table: who may publish and subscribe what, decided from the rows of the configuration, the grants of a
//! connection and its places in rooms, and from nothing else; it has no clock, no sockets and no state.
//!
//! A topic belongs to the first row whose filter matches it; where none does, everything is denied. A level that the
//! row calls `{room}` or `{user}` and that is no name is refused there and then: no later row is asked. A filter is
//! granted if everything that it can match may be read. That is judged from above, row by row down to the first that
//! takes in the whole filter: each row that shares a topic with the filter must be readable for all of what they
//! share, so that a row hidden by another may cost a subscription, and never opens one.
//!
//! An observer's filter with a wildcard is granted even so, with the set of classes that it may show; delivery drops
//! the others. A message is shown by the class that its topic has for everybody ([`TopicTable::class_of`]), in which
//! rows for one client (`{client}`, `{claim:…}`) have no part.
//!
//! Deciding over a publish allocates nothing.

mod explain;
mod place;
mod subscribe;

use std::fmt;

use explain::{Action, Notes, Outcome};
pub use explain::{Explanation, Step};
pub use place::Who;
use place::{Index, Levels, Place};
pub use subscribe::SubscribeDecision;

use super::Refusal;
use crate::{
    config::{Audience, Level, PayloadKind, RetainRule, TopicRow, TopicRows, Word},
    wire::mqtt::{QoS, ReasonCode},
};

/// See the module.
#[derive(Debug, Clone)]
pub struct TopicTable {
    rows: Box<[TopicRow]>,
    index: Index,
}

/// A row's place in the table, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u8);

/// Some of the classes of a table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClassSet(u64);

/// What a topic is, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Class<'t> {
    pub id: ClassId,
    /// The level that the row calls `{room}`.
    pub room: Option<&'t str>,
    /// The level that the row calls `{user}`.
    pub user: Option<&'t str>,
}

/// How a message may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishDecision<'t> {
    /// The row that decided; its size has been checked, its rate and its retained bound have not.
    pub class: ClassId,
    /// The class by which observers see or do not see it; none sees a message without.
    pub shown_as: Option<ClassId>,
    /// That of the publish, or the row's cap. The handshake with the publisher is that of the publish.
    pub qos: QoS,
    /// Deliver at the subscription's QoS.
    pub raise: bool,
    /// The flag of the publish, unless the server alone retains in this class.
    pub retain: bool,
    /// What the payload has yet to be checked for.
    pub payload: PayloadKind,
    pub room: Option<&'t str>,
    pub user: Option<&'t str>,
}

/// A publish or a subscription that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    /// The row that decided, if there was one.
    pub class: Option<ClassId>,
    pub why: Why,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// No row matches the topic, or all of the filter.
    NoRow,
    /// A level of the topic that should name a room or a user does not.
    TopicName,
    /// A level of the filter that should name a room or a user does not.
    FilterName,
    /// The row lets others publish.
    Publish,
    /// The row lets members publish, and this connection may join but has not.
    NotJoined,
    /// A retained message where this connection may set none.
    Retain,
    /// A QoS below the row's floor.
    Floor,
    /// More bytes than the row allows.
    Size,
    /// The row lets others subscribe.
    Subscribe,
    /// A filter with wildcards that reaches what others may read.
    Reach,
    /// A shared subscription to what is somebody's own.
    Shared,
}

impl TopicTable {
    /// Compiles the rows; in open mode one more follows them, by which everything else is anybody's. No rows deny
    /// everything in every mode.
    pub fn new(rows: &TopicRows, open: bool) -> Self {
        let extra = (open && !rows.0.is_empty()).then(TopicRow::open);
        let rows: Box<[_]> = rows.0.iter().take(TopicRows::MAX).cloned().chain(extra).collect();
        Self { index: Index::new(rows.iter().map(|row| &row.filter)), rows }
    }

    /// The row of a class, which is one of this table.
    pub fn row(&self, class: ClassId) -> &TopicRow {
        &self.rows[usize::from(class.0)]
    }

    /// The class of that name: the server itself writes and reads some topics, and knows them by the names that their
    /// rows have in the shipped table.
    pub fn named(&self, name: &str) -> Option<ClassId> {
        self.rows().find(|(_, row)| row.name == name).map(|(class, _)| class)
    }

    /// The topic of a class in that room, of that user; `None` if the row leaves more open than these two.
    pub fn topic(&self, class: ClassId, room: &str, user: &str) -> Option<String> {
        let level = |level: &'_ Level| match level {
            Level::Literal(text) => Some(text.to_string()),
            Level::Room => Some(room.into()),
            Level::User => Some(user.into()),
            Level::One | Level::Rest | Level::Client | Level::Claim(_) => None,
        };
        let levels: Option<Vec<_>> = self.row(class).filter.levels().iter().map(level).collect();
        levels.map(|levels| levels.join("/"))
    }

    /// Filters that match whatever the classes with a `{room}` have in that room.
    pub fn filters_of_room(&self, room: &str) -> Vec<String> {
        let of_rooms = self.rows().filter(|(_, row)| row.filter.has_room());
        of_rooms.map(|(class, _)| self.filter_of_room(class, room)).collect()
    }

    /// The filter that matches whatever a class has in that room.
    pub fn filter_of_room(&self, class: ClassId, room: &str) -> String {
        in_room(self.row(class).filter.levels(), room)
    }

    /// Where what the classes with a `{room}` have in that room begins: the levels up to its name, and which level that
    /// is.
    pub fn paths_to_room(&self, room: &str) -> Vec<(String, usize)> {
        let mut paths = Vec::new();
        for (_, row) in self.rows() {
            let levels = row.filter.levels();
            if let Some(name) = levels.iter().position(|level| *level == Level::Room) {
                paths.push((in_room(&levels[..=name], room), name));
            }
        }
        paths.sort();
        paths.dedup();
        paths
    }

    /// All classes, in order.
    pub fn rows(&self) -> impl Iterator<Item = (ClassId, &TopicRow)> {
        (0..).map(ClassId).zip(&self.rows)
    }

    /// The highest QoS of any class.
    pub fn max_qos(&self) -> QoS {
        self.rows.iter().map(|row| row.qos.max).max().unwrap_or(QoS::AtMostOnce)
    }

    /// The class of a topic, without the rows that speak of one client; `None` if there is none, or a name in it is no
    /// name.
    pub fn class_of<'t>(&self, topic: &'t str) -> Option<Class<'t>> {
        let levels = Levels::of_topic(topic);
        let mut candidates = self.index.candidates(&levels).map(ClassId);
        let (id, place) = candidates.find_map(|id| Some((id, place::matches(&self.row(id).filter, &levels, None)?)))?;
        place.has_names().then(|| Class { id, room: place.room.name(), user: place.user.name() })
    }

    /// Judges a publish of `size` payload bytes to a valid topic name.
    ///
    /// # Errors
    /// The first reason against it.
    pub fn publish<'t>(
        &self,
        who: &Who<'_>,
        topic: &'t str,
        qos: QoS,
        retain: bool,
        size: usize,
    ) -> Result<PublishDecision<'t>, Denied> {
        self.judge_publish(who, &Attempt { topic, qos, retain, size }, &mut Notes::none())
    }

    /// The same decision, and how it came about.
    pub fn explain_publish(&self, who: &Who<'_>, topic: &str, qos: QoS, retain: bool, size: usize) -> Explanation {
        let mut notes = Notes::taken();
        let verdict = self.judge_publish(who, &Attempt { topic, qos, retain, size }, &mut notes);
        let granted = verdict.map(|decision| {
            let (name, qos) = (&self.row(decision.class).name, decision.qos as u8);
            let raised = if decision.raise { ", raised to the subscription's" } else { "" };
            let retained = if decision.retain { ", retained" } else { "" };
            format!("as {name}, delivered at QoS {qos}{raised}{retained}")
        });
        Explanation { action: Action::Publish, topic: topic.into(), steps: notes.into_steps(), verdict: granted }
    }

    fn judge_publish<'t>(
        &self,
        who: &Who<'_>,
        attempt: &Attempt<'t>,
        notes: &mut Notes,
    ) -> Result<PublishDecision<'t>, Denied> {
        let levels = Levels::of_topic(attempt.topic);
        for class in self.index.candidates(&levels).map(ClassId) {
            let row = self.row(class);
            let Some(place) = place::matches(&row.filter, &levels, Some(who)) else { continue };
            let granted = || who.grants.may_publish(attempt.topic);
            notes.add(self, class, || Outcome::publish(row, who, &place, &granted));
            let judged = attempt.judge(row, who, &place, &granted);
            return judged.map_err(|why| Denied { class: Some(class), why }).map(|()| PublishDecision {
                class,
                shown_as: if row.filter.is_bound() {
                    self.class_of(attempt.topic).map(|class| class.id)
                } else {
                    Some(class)
                },
                qos: attempt.qos.min(row.qos.max),
                raise: row.qos.raise,
                retain: attempt.retain && row.retain != RetainRule::Broker,
                payload: row.payload,
                room: place.room.name(),
                user: place.user.name(),
            });
        }
        notes.add_rest(self);
        Err(Denied { class: None, why: Why::NoRow })
    }
}

/// A publish, as far as the table is concerned.
struct Attempt<'t> {
    topic: &'t str,
    qos: QoS,
    retain: bool,
    size: usize,
}

impl Attempt<'_> {
    /// Judges it by the row that it belongs to.
    fn judge(&self, row: &TopicRow, who: &Who<'_>, place: &Place<'_>, granted: &dyn Fn() -> bool) -> Result<(), Why> {
        if !place.has_names() {
            return Err(Why::TopicName);
        }
        if !who.is_among(&row.publish, place, granted) {
            let joined = Who { is_member: &|_| true, ..*who };
            let lacks_a_place = who.holds(Word::Join, place, granted) && joined.is_among(&row.publish, place, granted);
            return Err(if lacks_a_place { Why::NotJoined } else { Why::Publish });
        }
        let may_retain = match row.retain {
            RetainRule::Allowed | RetainRule::Broker => true,
            RetainRule::Grant => !self.retain || who.grants.may_retain(self.topic),
            RetainRule::Never => false,
        };
        match () {
            () if self.retain && !may_retain => Err(Why::Retain),
            () if self.qos < row.qos.min => Err(Why::Floor),
            () if row.size.is_some_and(|most| self.size > most) => Err(Why::Size),
            () => Ok(()),
        }
    }
}

impl ClassSet {
    /// None of them.
    pub const EMPTY: Self = Self(0);
    /// All of them, those of any table.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether the class is one of them.
    pub const fn contains(self, class: ClassId) -> bool {
        self.0 >> class.0 & 1 == 1
    }

    const fn with(self, class: ClassId) -> Self {
        Self(self.0 | 1 << class.0)
    }
}

impl fmt::Debug for ClassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries((0..64).filter(|n| self.contains(ClassId(*n)))).finish()
    }
}

impl Why {
    /// What a 5.0 client is told.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::TopicName => ReasonCode::TOPIC_NAME_INVALID,
            Self::FilterName => ReasonCode::TOPIC_FILTER_INVALID,
            Self::Size => ReasonCode::QUOTA_EXCEEDED,
            _ => ReasonCode::NOT_AUTHORIZED,
        }
    }

    /// One line that helps and reveals nothing.
    pub const fn what(self) -> &'static str {
        match self {
            Self::NoRow => "no rule allows this topic",
            Self::TopicName | Self::FilterName => {
                "a room or user name in it has more than 64 bytes, none, or a control character"
            }
            Self::Publish => "not allowed to publish here",
            Self::NotJoined => "join the room first, by a subscription to its signal topic",
            Self::Retain => "not allowed to retain here",
            Self::Floor => "the QoS is below what this topic asks for",
            Self::Size => "the payload is larger than this topic allows",
            Self::Subscribe => "not allowed to subscribe to this topic",
            Self::Reach => "the filter reaches topics that you may not read: ask for those that you may, one by one",
            Self::Shared => "no shared subscriptions to this topic",
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self { reason: denied.why.reason(), what: denied.why.what() }
    }
}

/// The filter that matches whatever these levels match in that room.
fn in_room(levels: &[Level], room: &str) -> String {
    let level = |level: &Level| match level {
        Level::Literal(text) => text.to_string(),
        Level::Room => room.into(),
        Level::Rest => "#".into(),
        Level::User | Level::One | Level::Client | Level::Claim(_) => "+".into(),
    };
    levels.iter().map(level).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests;
