//! A topic table in force, and which of its classes the server itself writes or reads.

use std::sync::Arc;

use super::{
    Meaning,
    table::{ClassId, ClassSet, PublishDecision, TopicTable, Who},
};
use crate::{
    config::{Rate, TopicRows},
    hub::Message,
    wire::mqtt::QoS,
};

/// See the module.
#[derive(Debug)]
pub struct Rules {
    pub table: TopicTable,
    generation: u8,
    presence: Option<ClassId>,
    control: Option<ClassId>,
    errors: Option<ClassId>,
    ice: Option<ClassId>,
    inbox: Option<ClassId>,
}

/// A class of one table among those that were in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassTag {
    generation: u8,
    class: ClassId,
}

impl ClassTag {
    /// Which table that is, among those that were in force.
    pub fn generation(self) -> u8 {
        self.generation
    }

    /// The class's place in its table.
    pub fn class(self) -> ClassId {
        self.class
    }
}

/// The part of what it matches that an observer's subscription shows; all of it, perhaps.
#[derive(Debug)]
pub struct Visible {
    pub(super) rules: Arc<Rules>,
    pub(super) classes: ClassSet,
}

impl Rules {
    pub(crate) fn new(rows: &TopicRows, open: bool, generation: u8) -> Self {
        let table = TopicTable::new(rows, open);
        let named = |name| table.named(name);
        let (presence, control, errors) = (named("presence"), named("control"), named("errors"));
        let (ice, inbox) = (named("ice"), named("inbox"));
        Self { generation, presence, control, errors, ice, inbox, table }
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation
    }

    pub(crate) fn tag(&self, class: Option<ClassId>) -> Option<ClassTag> {
        class.map(|class| ClassTag { generation: self.generation, class })
    }

    pub(super) fn meaning(&self, decision: &PublishDecision<'_>) -> Meaning {
        match Some(decision.class) {
            class if class == self.presence && decision.room.is_some() && decision.user.is_some() => Meaning::Presence,
            class if class == self.control && decision.room.is_some() => Meaning::Control,
            _ => Meaning::Message,
        }
    }

    /// Whether somebody may read a topic, or write to it.
    pub(super) fn may_use(&self, who: &Who<'_>, topic: &str) -> bool {
        self.table.subscribe(who, topic, false, QoS::AtMostOnce).is_ok()
            || self.table.publish(who, topic, self.table.max_qos(), false, 0).is_ok()
    }

    /// Where the server writes that a user is in a room.
    pub fn presence_topic(&self, room: &str, user: &str) -> Option<String> {
        self.table.topic(self.presence?, room, user)
    }

    /// Where a room is moderated.
    pub fn control_topic(&self, room: &str) -> Option<String> {
        self.table.topic(self.control?, room, "")
    }

    /// What joins a room, whoever it is.
    pub fn signal_topic(&self, room: &str) -> Option<String> {
        let (class, _) = self.table.rows().find(|(_, row)| row.joins && !row.filter.has_user())?;
        self.table.topic(class, room, "")
    }

    /// The class by whose topics rooms are joined, and how fast one connection may use it: a join and a leave count there,
    /// since they make a message for everybody in the room, too.
    pub fn joining(&self) -> Option<(ClassTag, Rate)> {
        let (class, row) = self.table.rows().find(|(_, row)| row.joins)?;
        Some((self.tag(Some(class))?, row.rate))
    }

    /// Where a user is told what was refused.
    pub fn errors_topic(&self, user: &str) -> Option<String> {
        self.table.topic(self.errors?, "", user)
    }

    /// Where a user finds STUN and TURN servers.
    pub fn ice_topic(&self, user: &str) -> Option<String> {
        self.table.topic(self.ice?, "", user)
    }

    /// Where a user gets what is for nobody else.
    pub fn inbox_topic(&self, user: &str) -> Option<String> {
        self.table.topic(self.inbox?, "", user)
    }

    /// The room that a topic is in.
    pub fn room_of<'t>(&self, topic: &'t str) -> Option<&'t str> {
        self.table.class_of(topic)?.room
    }
}

impl Visible {
    /// Whether a message is among what is shown. Its class is looked up anew if it was judged by another table.
    pub fn shows(&self, message: &Message) -> bool {
        if self.classes == ClassSet::ALL {
            return true;
        }
        let class = match message.class() {
            Some(tag) if tag.generation == self.rules.generation => Some(tag.class),
            Some(_) => self.rules.table.class_of(message.topic()).map(|class| class.id),
            None => None,
        };
        class.is_some_and(|class| self.classes.contains(class))
    }
}
