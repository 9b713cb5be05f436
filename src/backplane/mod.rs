//! The trusted side: a broker to which the operator's own services and other servers attach, and what of it is one
//! with this server's hub.
//!
//! ```text
//!  hub ──admit──► outbox ──► link ══► the broker ══► link ──► inlet ──publish──► hub
//!         │ bounded, with a time to live                        │
//!         └ refused when it is full                             └ commands, answered on their response topic
//! ```
//!
//! What it promises: a message under a shared filter that a permitted client publishes leaves once; one that arrives
//! reaches this server's subscribers once, through the hub, and never goes back; what this server said itself and
//! hears again is dropped. `events/#` leaves at QoS 1. Nothing waits longer than its time: what expires is counted, and
//! its sender is told. Nothing here is unbounded, and nothing here holds up a room: without the broker, rooms go on.
//!
//! A [`Backplane`] knows no protocol. A *link* is a task that takes from its [`Outbox`], gives what arrives to an
//! [`Inlet`](inlet::Inlet), and says how it is ([`Health`]). There is one at present, [`mqtt`]; another one, to another
//! kind of broker, is another file like it.

mod command;
mod embedded;
mod figures;
mod front;
mod inlet;
mod mqtt;
mod outbox;
mod start;
mod tls;
mod vocabulary;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

pub use embedded::Access;
pub use start::{StartError, Started, start};

use crate::{
    hub::{Dirty, Hub, Message},
    policy::{Refusal, base},
    wire::mqtt::{PublishProperties, QoS, ReasonCode, topic},
};
use figures::Figures;
use outbox::{Outbox, Outgoing};
use vocabulary::Vocabulary;

/// Topics of what happens, all of which leaves.
const EVENTS: &str = "events/";
/// Topics of commands from services.
const COMMANDS: &str = "wigwag/cmd/";
/// How often who waits looks again.
const GLANCE: Duration = Duration::from_millis(5);
/// The user property that says which server a message left.
const STAMP: &str = "wigwag-node";
/// Bytes of a packet beside its payload: topic, properties, the stamp.
const HEAD: usize = 64 << 10;

/// Who publishes, as far as the backplane is concerned.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A client of this user.
    Client(&'a str),
    /// This server: only events leave.
    Server,
    /// The backplane itself: nothing goes back.
    Backplane,
}

/// How the link is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// A message went through the broker and came back.
    Up,
    /// Why it is not up.
    Down(String),
}

/// What is shared, and how much of it.
#[derive(Debug)]
struct Bounds {
    /// Payload of a shared message: what the topic table allows for it.
    payload: usize,
    /// Packet on the link.
    packet: usize,
    topic_length: usize,
    topic_levels: usize,
    user_properties: usize,
}

/// See the module.
pub struct Backplane {
    node: Box<str>,
    share: Box<[Box<str>]>,
    keep_last: Box<[Box<str>]>,
    commands: bool,
    bounds: Bounds,
    /// The largest packet that the broker takes, as far as it has said so.
    broker_packet: AtomicUsize,
    outbox: Mutex<Outbox>,
    /// Something was put into the outbox.
    more: Notify,
    vocabulary: Option<Mutex<Vocabulary>>,
    health: Mutex<Health>,
    figures: Figures,
}

const FULL: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "too many messages wait for the backplane, try again later" };
const TOO_LARGE: Refusal = Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "larger than the backplane takes" };
const UNUSUAL_TOPIC: Refusal = Refusal {
    reason: ReasonCode::TOPIC_NAME_INVALID,
    what: "a control character or noncharacter in a shared topic: brokers close the connection at that",
};
const UNUSUAL_PROPERTY: Refusal = Refusal {
    reason: ReasonCode::PAYLOAD_FORMAT_INVALID,
    what: "a control character or noncharacter in a property of a shared message: brokers close the connection at that",
};
const NO_MORE_TOPICS: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "the backplane takes no further topics" };

/// A place in the outbox for a message that is being published. Given back if the message is not sent after all.
pub struct Crossing<'a> {
    backplane: &'a Backplane,
    size: usize,
    qos: QoS,
    retain: bool,
    user: Option<Box<str>>,
    used: bool,
}

impl Backplane {
    /// Judges a message that is about to be routed: the place it has in the outbox if it is to leave, or why it may not
    /// be published at all. A topic whose last value is kept makes a retained message of it.
    pub fn admit(
        &self,
        source: Source<'_>,
        message: &mut Message,
        now: Instant,
    ) -> Result<Option<Crossing<'_>>, Refusal> {
        let name = message.topic();
        let shared = self.shares(name);
        let (qos, retain) = (message.qos(), message.retain());
        let kept = shared && self.keep_last.iter().any(|filter| topic::matches(filter, name));
        let crossing = match source {
            Source::Client(user) if shared => Some(self.take_place(message, qos, retain, Some(user), now)?),
            // Nobody could be told.
            Source::Server if name.starts_with(EVENTS) => {
                self.take_place(message, QoS::AtLeastOnce, retain, None, now).ok()
            }
            _ => None,
        };
        if kept && !matches!(source, Source::Server) {
            message.keep();
        }
        Ok(crossing)
    }

    fn take_place(
        &self,
        message: &Message,
        qos: QoS,
        retain: bool,
        sender: Option<&str>,
        now: Instant,
    ) -> Result<Crossing<'_>, Refusal> {
        let size = message.size();
        bearable(message).inspect_err(|_| self.figures.dropped_characters.increment(1))?;
        if self.packet_of(message) > self.bounds.packet.min(self.broker_packet.load(Ordering::Relaxed)) {
            self.figures.dropped_large.increment(1);
            return Err(TOO_LARGE);
        }
        if !self.outbox.lock().reserve(size) {
            self.figures.dropped_full.increment(1);
            return Err(FULL);
        }
        let crossing = Crossing { backplane: self, size, qos, retain, user: sender.map(Into::into), used: false };
        if let (Some(vocabulary), Some(user)) = (&self.vocabulary, sender)
            && !vocabulary.lock().knows_or_learns(message.topic(), base(user), now)
        {
            self.figures.dropped_topics.increment(1);
            return Err(NO_MORE_TOPICS);
        }
        Ok(crossing)
    }

    /// Bytes of a message's packet on the link, or a few more.
    fn packet_of(&self, message: &Message) -> usize {
        message.size() + STAMP.len() + self.node.len() + 32
    }

    fn shares(&self, name: &str) -> bool {
        self.share.iter().any(|filter| topic::matches(filter, name))
    }

    /// Sends a message of this server's that does not concern its hub. Says whether there was room.
    fn send(&self, message: Message, qos: QoS, now: Instant) -> bool {
        let Ok(crossing) = self.take_place(&message, qos, false, None, now) else { return false };
        crossing.send(&Arc::new(message), now);
        true
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    /// How the link is.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Notes how the link is; says it in the log where that has changed.
    fn set_health(&self, health: Health) {
        let before = std::mem::replace(&mut *self.health.lock(), health.clone());
        self.figures.up.set(f64::from(u8::from(health == Health::Up)));
        if before == health {
            return;
        }
        match &health {
            Health::Up => tracing::info!(node = %self.node, "the backplane is connected"),
            Health::Down(why) => tracing::error!(%why, "the backplane is not connected; rooms go on without it"),
        }
    }

    /// Shows what waits.
    fn measure(&self) {
        let outbox = self.outbox.lock();
        self.figures.buffered_messages.set(outbox.len() as f64);
        self.figures.buffered_bytes.set(outbox.bytes() as f64);
    }

    /// Counts what was not sent in time, and tells its senders.
    fn give_up(&self, hub: &Hub, expired: &mut Vec<Outgoing>, now: Instant) {
        if expired.is_empty() {
            return;
        }
        self.figures.expired.increment(expired.len() as u64);
        let mut dirty = Dirty::default();
        for out in expired.drain(..) {
            if let Some(user) = &out.user {
                report(hub, user, &out.message, "not taken by the backplane in time", &mut dirty);
            }
        }
        dirty.flush(hub, now);
    }

    /// Tells the sender of a message that the broker did not want, and counts it.
    fn refused(&self, hub: &Hub, out: &Outgoing, why: &str, now: Instant) {
        self.figures.dropped_refused.increment(1);
        let Some(user) = &out.user else { return };
        let mut dirty = Dirty::default();
        report(hub, user, &out.message, &format!("refused by the backplane: {why}"), &mut dirty);
        dirty.flush(hub, now);
    }

    /// Waits until the link is up, or `deadline`.
    pub async fn up_by(&self, deadline: Instant) {
        while self.health() != Health::Up && Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until what is to leave has left, or `deadline`.
    pub async fn drain(&self, deadline: Instant) {
        while self.outbox.lock().len() > 0 && self.health() == Health::Up && Instant::now() < deadline {
            tokio::time::sleep(GLANCE).await;
        }
    }
}

impl Crossing<'_> {
    /// Puts the message that the place is for into it.
    pub fn send(mut self, message: &Arc<Message>, now: Instant) {
        self.used = true;
        let user = self.user.take();
        self.backplane.outbox.lock().push(Arc::clone(message), self.qos, self.retain, user, now);
        self.backplane.more.notify_one();
    }
}

impl Drop for Crossing<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.backplane.outbox.lock().release(self.size);
        }
    }
}

/// Whether every broker takes the text in a message. It may close the connection at a control character or a noncharacter
/// [MQTT-1.5.4-2], and would again whenever the message is repeated.
fn bearable(message: &Message) -> Result<(), Refusal> {
    if unusual(message.topic()) {
        return Err(UNUSUAL_TOPIC);
    }
    if message.properties().is_empty() {
        return Ok(());
    }
    let said = PublishProperties::decode_forwarded(message.properties()).unwrap_or_default();
    let mut texts = said.content_type.into_iter().chain(said.response_topic);
    if texts.any(unusual) || said.user.iter().any(|(key, value)| unusual(key) || unusual(value)) {
        return Err(UNUSUAL_PROPERTY);
    }
    Ok(())
}

fn unusual(text: &str) -> bool {
    let noncharacter = |c: u32| matches!(c, 0xFDD0..=0xFDEF) || c & 0xFFFE == 0xFFFE;
    text.chars().any(|c| c.is_control() || noncharacter(c.into()))
}

/// Tells a user, if it listens to that, that a message of its own which was accepted went no further.
fn report(hub: &Hub, user: &str, message: &Message, reason: &str, dirty: &mut Dirty) {
    hub.report(user, message.topic(), "publish", ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR, reason, dirty);
}

#[cfg(test)]
mod tests;
