//! Values that only the policy can make, and that the hub cannot do without.

use std::sync::Arc;

use super::{
    Visible,
    table::{ClassId, SubscribeDecision},
};
use crate::{hub::Message, wire::mqtt::SubscribeOptions};

/// What a publish is to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Something to deliver.
    Message,
    /// What a member wants others to know of it: the server writes it into the roster.
    Presence,
    /// An order of moderation, delivered when it was carried out.
    Control,
}

/// This message may be published.
#[derive(Debug)]
pub struct PublishPermit {
    message: Message,
    meaning: Meaning,
    retained_in_room: Option<(ClassId, usize)>,
}

impl PublishPermit {
    pub(super) fn new(message: Message, meaning: Meaning, retained_in_room: Option<(ClassId, usize)>) -> Self {
        Self { message, meaning, retained_in_room }
    }

    /// The server's own messages need nobody's leave.
    pub(crate) fn server(message: Message) -> Self {
        Self { message, meaning: Meaning::Message, retained_in_room: None }
    }

    pub(crate) fn meaning(&self) -> Meaning {
        self.meaning
    }

    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// How many messages of a class may be retained in the message's room.
    pub(crate) fn retained_in_room(&self) -> Option<(ClassId, usize)> {
        self.retained_in_room
    }

    pub(crate) fn into_message(self) -> Message {
        self.message
    }
}

/// This session may have this subscription.
#[derive(Debug, Clone)]
pub struct SubscribePermit<'a> {
    asked: &'a str,
    group: Option<&'a str>,
    filter: &'a str,
    asked_options: SubscribeOptions,
    options: SubscribeOptions,
    joins: Option<&'a str>,
    room: Option<&'a str>,
    visible: Option<Arc<Visible>>,
}

impl<'a> SubscribePermit<'a> {
    /// A permit to subscribe to `asked`, which is `filter` alone or shared in a group, as the table decided.
    pub(super) fn new(
        asked: &'a str,
        (group, filter): (Option<&'a str>, &'a str),
        asked_options: SubscribeOptions,
        decision: &SubscribeDecision<'a>,
        visible: Option<Arc<Visible>>,
    ) -> Self {
        let options = SubscribeOptions { qos: decision.qos, ..asked_options };
        let SubscribeDecision { joins, room, .. } = *decision;
        Self { asked, group, filter, asked_options, options, joins, room, visible }
    }

    /// What the client wanted.
    pub(crate) fn asked_options(&self) -> SubscribeOptions {
        self.asked_options
    }

    /// The filter as the client wrote it, which is what it will unsubscribe from.
    pub(crate) fn asked(&self) -> &'a str {
        self.asked
    }

    /// The share name of a shared subscription.
    pub(crate) fn group(&self) -> Option<&'a str> {
        self.group
    }

    /// The filter that topics are matched against.
    pub(crate) fn filter(&self) -> &'a str {
        self.filter
    }

    /// As granted; the QoS may be lower than what was asked for.
    pub(crate) fn options(&self) -> SubscribeOptions {
        self.options
    }

    /// The room that it joins.
    pub(crate) fn joins(&self) -> Option<&'a str> {
        self.joins
    }

    /// The one room that everything is in that it matches.
    pub(crate) fn room(&self) -> Option<&'a str> {
        self.room
    }

    /// What it shows, if it is an observer's.
    pub(crate) fn visible(&self) -> Option<&Arc<Visible>> {
        self.visible.as_ref()
    }
}
