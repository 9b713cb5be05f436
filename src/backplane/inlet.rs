//! What arrives from the broker, and what becomes of it.
//!
//! A message goes to this server's subscribers, once, through the hub, or is a command, or is dropped and counted. What
//! arrives is judged as what clients say is: a topic that no client could publish to, a payload larger than the topic
//! table allows, more user properties than clients may send do not get in.
//!
//! A broker sends the retained messages of a subscription whenever it is made, so also after each reconnect. Those that
//! are known already are not told to subscribers again: until a round trip has shown that no more of them come, and for a
//! few seconds at most, the first retained message of a topic that says what is retained here is dropped, and counted.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Backplane, COMMANDS, Source,
    command::{Answer, Command},
};
use crate::{
    hub::{Declined, Dirty, Hub},
    wire::mqtt::{Publish, PublishProperties, QoS, topic},
};

/// A message from the broker.
pub struct Incoming<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub properties: PublishProperties<'a>,
    /// This server's own stamp was on it.
    pub own: bool,
}

/// See the module.
pub struct Inlet {
    backplane: Arc<Backplane>,
    hub: Arc<Hub>,
    dirty: Dirty,
    /// Until then, retained messages may be no news.
    settling: Option<Instant>,
    /// Topics of those that were known already: the broker sends each once, so the next one was published since.
    repeated: HashSet<Box<str>>,
    /// One was known already since the last round trip. Messages of QoS 0, as those of round trips are, overtake others.
    known: bool,
}

/// Time after which a reconnect is over, whatever still comes.
const SETTLING: Duration = Duration::from_secs(3);

impl Inlet {
    pub fn new(backplane: Arc<Backplane>, hub: Arc<Hub>) -> Self {
        Self { backplane, hub, dirty: Dirty::default(), settling: None, repeated: HashSet::new(), known: false }
    }

    /// The subscriptions are being made.
    pub fn reconnected(&mut self, now: Instant) {
        self.repeated.clear();
        self.known = false;
        self.subscribed(now);
    }

    /// They have been made. Retained messages may have come before.
    pub fn subscribed(&mut self, now: Instant) {
        self.settling = Some(now + SETTLING);
    }

    /// A message went through the broker and came back.
    pub fn round_trip(&mut self) {
        if !std::mem::take(&mut self.known) {
            self.settled();
        }
    }

    fn settled(&mut self) {
        self.settling = None;
        self.repeated = HashSet::new();
    }

    /// Whether it is a retained message that the broker sends because of the subscription, and says nothing new.
    fn is_repeated(&mut self, incoming: &Incoming<'_>, now: Instant) -> bool {
        if self.settling.is_some_and(|until| until <= now) {
            self.settled();
        }
        let known = self.settling.is_some()
            && incoming.retain
            && self.hub.retains(incoming.topic, incoming.payload)
            && self.repeated.insert(incoming.topic.into());
        self.known |= known;
        known
    }

    /// Takes a message; [`Inlet::flush`] writes to its receivers.
    pub fn receive(&mut self, incoming: &Incoming<'_>, now: Instant) {
        let backplane = Arc::clone(&self.backplane);
        let figures = &backplane.figures;
        if incoming.own {
            figures.echoes.increment(1);
        } else if let Some(name) = incoming.topic.strip_prefix(COMMANDS) {
            // A command that is retained would be done again at each reconnect.
            match backplane.commands && !incoming.retain {
                true => self.command(name, incoming, now),
                false => figures.dropped_invalid.increment(1),
            }
        } else if !self.is_for_clients(incoming) {
            figures.dropped_invalid.increment(1);
        } else if self.is_repeated(incoming, now) {
            figures.dropped_known.increment(1);
        } else {
            figures.received.increment(1);
            self.publish(incoming, now);
        }
    }

    fn is_for_clients(&self, incoming: &Incoming<'_>) -> bool {
        let bounds = &self.backplane.bounds;
        topic::valid_name(incoming.topic)
            && self.backplane.shares(incoming.topic)
            && incoming.topic.len() <= bounds.topic_length
            && incoming.topic.split('/').count() <= bounds.topic_levels
            && incoming.payload.len() <= bounds.payload
            && incoming.properties.user.len() <= bounds.user_properties
    }

    fn publish(&mut self, incoming: &Incoming<'_>, now: Instant) {
        let Incoming { topic, payload, qos, properties, .. } = *incoming;
        let mut route = |source, retain| {
            let publish = Publish { dup: false, qos, retain, topic, packet_id: None, properties, payload };
            self.hub.publish(source, self.hub.policy.trusted(&publish, now), now, &mut self.dirty)
        };
        // What cannot be retained any more is news all the same.
        if let Err(refusal) = route(Source::Backplane, incoming.retain) {
            tracing::debug!(topic = ?incoming.topic, reason = refusal.what, "not retained");
            let _ = route(Source::Server, false);
        }
    }

    fn command(&mut self, name: &str, incoming: &Incoming<'_>, now: Instant) {
        self.backplane.figures.commands.increment(1);
        let mut request = Command::parse(name, incoming.payload);
        let command = std::mem::replace(&mut request.command, Err(Declined::new(400, "")));
        let answer = command.and_then(|command| command.execute(&self.hub, now, &mut self.dirty));
        let answer = answer.unwrap_or_else(Answer::Declined);
        tracing::info!(command = ?name, status = answer.status(), "a command from the backplane");
        let Some(reply_to) = incoming.properties.response_topic.or(request.reply_to.as_deref()) else { return };
        // rumqttd does not survive a topic that begins otherwise; and an answer is no command.
        let begins_well = reply_to.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !topic::valid_name(reply_to) || !begins_well || reply_to.starts_with(COMMANDS) {
            self.backplane.figures.dropped_invalid.increment(1);
            return;
        }
        let payload = request.answer(name, &self.backplane.node, &answer);
        let properties = PublishProperties {
            payload_is_utf8: Some(true),
            content_type: Some("application/json"),
            correlation_data: incoming.properties.correlation_data,
            ..PublishProperties::default()
        };
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: reply_to,
            packet_id: None,
            properties,
            payload: payload.as_bytes(),
        };
        let message = self.hub.policy.trusted(&publish, now).into_message();
        self.backplane.send(message, QoS::AtLeastOnce, now);
    }

    /// Writes to everybody who was given something.
    pub fn flush(&mut self, now: Instant) {
        self.dirty.flush(&self.hub, now);
    }
}
