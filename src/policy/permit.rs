//! Values that only the policy can make, and that the hub cannot do without.

use crate::{hub::Message, wire::mqtt::SubscribeOptions};

/// This message may be published.
#[derive(Debug)]
pub struct PublishPermit {
    message: Message,
}

impl PublishPermit {
    pub(super) fn new(message: Message) -> Self {
        Self { message }
    }

    /// The server's own messages need nobody's leave.
    pub(crate) fn server(message: Message) -> Self {
        Self { message }
    }

    pub(crate) fn into_message(self) -> Message {
        self.message
    }
}

/// This session may have this subscription.
#[derive(Debug, Clone, Copy)]
pub struct SubscribePermit<'a> {
    asked: &'a str,
    group: Option<&'a str>,
    filter: &'a str,
    options: SubscribeOptions,
}

impl<'a> SubscribePermit<'a> {
    pub(super) fn new(asked: &'a str, group: Option<&'a str>, filter: &'a str, options: SubscribeOptions) -> Self {
        Self { asked, group, filter, options }
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
}
