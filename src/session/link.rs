//! The sending side of one connection: what its peer agreed to in CONNECT, and the bytes that it has not taken yet.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io::IoSlice,
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    task::Waker,
    time::{Duration, Instant, SystemTime},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{WriteHalf, batch::Batch, inlet::NORMAL_CLOSE, outbound::Delivery};
use crate::{
    hub::{Message, TimerKey},
    wire::{
        mqtt::{Disconnect, Packet, PublishHeader, RECEIVED, ReasonCode, Version, encode, publish_header},
        ws::{self, Opcode},
    },
};

/// What CONNECT settled for the packets that we send.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub version: Version,
    /// Unacknowledged QoS 1 and 2 messages that may be on the way to this client.
    pub window: u16,
    /// Bytes; the client's Maximum Packet Size.
    pub maximum_packet: Option<NonZeroU32>,
    /// Aliases that we may use towards this client.
    pub topic_aliases: u16,
    /// Whether reason strings may be sent with packets other than CONNACK and DISCONNECT [MQTT-3.1.2-29].
    pub problem_information: bool,
}

impl Terms {
    /// Gives back a reason string unless its packet, in which it stands beside at most `beside` bytes, could be larger
    /// than the client's Maximum Packet Size [MQTT-3.4.2-2], [MQTT-3.9.2-1], [MQTT-3.14.2-3].
    pub fn explained<'w>(&self, what: &'w str, beside: usize) -> Option<&'w str> {
        Some(what).filter(|what| fits(self.maximum_packet, what.len() + beside))
    }
}

/// Whether a client that named `maximum` takes a packet of that many bytes [MQTT-3.1.2-24].
pub fn fits(maximum: Option<NonZeroU32>, bytes: usize) -> bool {
    maximum.is_none_or(|maximum| bytes <= maximum.get() as usize)
}

/// See the module.
pub struct Link {
    pub terms: Terms,
    pub websocket: bool,
    pub stream: WriteHalf,
    /// Where it comes from, as addresses are counted, if that is known.
    pub address: Option<IpAddr>,
    /// Wakes the connection's task.
    pub waker: Waker,
    /// Encoded packets other than PUBLISH, to be sent before queued messages.
    pub control: Vec<u8>,
    /// Bytes of a batch that the socket refused.
    pub unsent: Vec<u8>,
    /// Since when the socket has refused bytes.
    pub blocked_since: Option<Instant>,
    /// Somebody is to look, within the write timeout, whether it still does.
    pub watched: bool,
    pub stuck_watch: Option<TimerKey>,
    /// Milliseconds within which the client must be heard: one and a half times its keep alive [MQTT-3.1.2-22].
    pub silence: Option<NonZeroU32>,
    /// Asks a peer behind a proxy whether it is there.
    pub probe: Option<Box<Probe>>,
    /// The next look at when it was last heard.
    pub silence_watch: Option<TimerKey>,
    /// The next look at the token.
    pub token_watch: Option<TimerKey>,
    /// The next answer to who wants to know the ICE servers.
    pub ice_watch: Option<TimerKey>,
    /// While set, only the connection's own task writes: a SUBACK is to precede what it brings.
    pub corked: bool,
    /// The socket has failed: nothing more is written.
    pub failed: bool,
    /// Why the connection is to end; its task acts on it.
    pub close: Option<Close>,
    /// It ends when the client has taken what waits for it, and not before.
    draining: bool,
    /// DISCONNECT was said, by either side: nothing may follow [MQTT-3.14.4-1].
    pub finished: bool,
    aliases: Option<Box<Aliases>>,
}

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// What a 5.0 client is told.
    pub reason: ReasonCode,
    /// One line for the client and for the log.
    pub what: &'static str,
}

impl Link {
    pub fn new(terms: Terms, websocket: bool, stream: WriteHalf, waker: Waker) -> Self {
        let aliases = (terms.topic_aliases > 0).then(Box::<Aliases>::default);
        Self {
            terms,
            websocket,
            stream,
            address: None,
            waker,
            control: Vec::new(),
            unsent: Vec::new(),
            blocked_since: None,
            watched: false,
            stuck_watch: None,
            silence: None,
            probe: None,
            silence_watch: None,
            token_watch: None,
            ice_watch: None,
            corked: false,
            failed: false,
            close: None,
            draining: false,
            finished: false,
            aliases,
        }
    }

    /// Bytes that wait for the socket.
    pub fn waiting(&self) -> usize {
        self.unsent.len() + self.control.len() + usize::from(self.stream.unflushed() && !self.failed)
    }

    /// Asks the connection's task to end it; the first reason stands.
    pub fn close(&mut self, close: Close) {
        if self.closes_now().is_none() {
            self.close.get_or_insert(close);
            self.draining = false;
            self.waker.wake_by_ref();
        }
    }

    /// Asks for the same once everything that waits has been sent.
    pub fn drain(&mut self, close: Close) {
        if self.close.is_none() {
            self.close = Some(close);
            self.draining = true;
            self.waker.wake_by_ref();
        }
    }

    /// Why the connection is to end whatever still waits.
    pub fn closes_now(&self) -> Option<Close> {
        self.close.filter(|_| !self.draining)
    }

    /// Appends a publish. `false` if it is larger than the client accepts [MQTT-3.1.2-24].
    pub fn publish(
        &mut self,
        batch: &mut Batch,
        delivery: &Delivery,
        packet_id: Option<NonZeroU16>,
        dup: bool,
        now: Instant,
    ) -> bool {
        let message = &*delivery.message;
        let mut header = PublishHeader {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: message.topic(),
            packet_id,
            topic_alias: None,
            message_expiry: message.expiry_left(now),
            subscription_ids: delivery.ids.as_slice(),
            properties: message.properties(),
            received: None,
        };
        let stamp = delivery.stamped.then(|| received(message));
        header.received = stamp.as_deref();
        let start = batch.head().len();
        if self.surely_fits(delivery) {
            if let Some(aliases) = &mut self.aliases {
                (header.topic, header.topic_alias) = aliases.shorten(header.topic, self.terms.topic_aliases);
            }
            publish_header(batch.head(), self.terms.version, &header, message.payload().len());
        } else {
            publish_header(batch.head(), self.terms.version, &header, message.payload().len());
            let size = batch.head().len() - start + message.payload().len();
            if !fits(self.terms.maximum_packet, size) {
                batch.head().truncate(start);
                return false;
            }
        }
        batch.payload(&delivery.message);
        true
    }

    /// A bound that needs no encoding; near the limit the encoded packet itself is measured.
    fn surely_fits(&self, delivery: &Delivery) -> bool {
        // The most that stands in a PUBLISH beside topic, properties and payload: fixed header 5, topic length 2,
        // packet id 2, property length 4, expiry 5, alias 3, and 5 for each subscription identifier.
        const BESIDE: usize = 21;
        // Key and value with their lengths, the latter no longer than to the nanosecond.
        const STAMP: usize = 1 + 2 + RECEIVED.len() + 2 + 30;
        let stamp = if delivery.stamped { STAMP } else { 0 };
        let most = delivery.message.size() + BESIDE + stamp + 5 * delivery.ids.as_slice().len();
        fits(self.terms.maximum_packet, most)
    }

    /// Says that another connection has the session now, if that can be said without waiting, and ends this one.
    pub fn replaced(&mut self, close: Close) {
        if self.unsent.is_empty() {
            self.disconnect(close);
            let mut bytes = std::mem::take(&mut self.control);
            if self.websocket {
                let packets = std::mem::take(&mut bytes);
                ws::frame(&mut bytes, Opcode::Binary, &packets, None);
                ws::close_frame(&mut bytes, NORMAL_CLOSE, close.what);
            }
            // Whether it arrives or not, the connection ends here.
            let _ = self.stream.write(&[IoSlice::new(&bytes)], &self.waker);
        }
        self.stream.shutdown(&self.waker);
        self.waker.wake_by_ref();
    }

    /// Forgets what the socket will not take any more, and has the connection's task look what became of it.
    pub fn fail(&mut self) {
        self.failed = true;
        self.unsent = Vec::new();
        self.control = Vec::new();
        self.waker.wake_by_ref();
    }

    /// Queues the last packet: a DISCONNECT, which 3.1.1 does not know.
    pub fn disconnect(&mut self, close: Close) {
        self.finished = true;
        if self.terms.version == Version::V5 {
            // Fixed header 2, reason 1, property length 1, and 3 in front of the string.
            let reason_string = self.terms.explained(close.what, 7);
            let packet = Disconnect { reason: close.reason, reason_string, ..Disconnect::default() };
            encode(&mut self.control, Version::V5, &Packet::Disconnect(packet));
        }
    }
}

/// When a message was received, in UTC to the microsecond (RFC 3339), by the clock of now.
fn received(message: &Message) -> String {
    let at = OffsetDateTime::from(SystemTime::now() - message.received().elapsed());
    let at = at.replace_nanosecond(at.microsecond() * 1000).unwrap_or(at);
    at.format(&Rfc3339).unwrap_or_default()
}

/// Whether a peer is there whose link the system cannot judge, found out by WebSocket pings. A pong keeps no keep alive,
/// and is as good as a packet here: the browser answers also for a page that sleeps.
#[derive(Debug)]
pub struct Probe {
    lost: Duration,
    asked: Option<Instant>,
    answered: Option<Instant>,
}

/// What a look at a [`Probe`] comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// It was heard a moment ago, or has yet to answer.
    Again(Instant),
    /// It is to be sent a ping, and looked at again then.
    Ask(Instant),
    Lost,
}

impl Probe {
    pub fn new(lost: Duration) -> Self {
        Self { lost, asked: None, answered: None }
    }

    /// A pong has come.
    pub fn answer(&mut self, now: Instant) {
        self.answered = Some(now);
    }

    /// Judges a peer of which the last packet came at `heard`. A silent one is asked after half the time that it has,
    /// and has a little less than the other half to answer, so that a late look does not exceed it.
    pub fn look(&mut self, heard: Instant, now: Instant) -> Look {
        let last = self.answered.map_or(heard, |answered| answered.max(heard));
        let given = self.lost * 2 / 5;
        match self.asked.filter(|asked| *asked >= last) {
            Some(asked) if asked + given <= now => Look::Lost,
            Some(asked) => Look::Again(asked + given),
            None if last + self.lost / 2 <= now => {
                self.asked = Some(now);
                Look::Ask(now + given)
            }
            None => Look::Again(last + self.lost / 2),
        }
    }
}

/// Topic aliases that we use towards one client: the first topics get one each.
#[derive(Default)]
struct Aliases(HashMap<Box<str>, NonZeroU16>);

impl Aliases {
    fn shorten<'t>(&mut self, topic: &'t str, maximum: u16) -> (&'t str, Option<NonZeroU16>) {
        if let Some(alias) = self.0.get(topic) {
            return ("", Some(*alias));
        }
        let next = u16::try_from(self.0.len() + 1).ok().filter(|&next| next <= maximum).and_then(NonZeroU16::new);
        if let Some(alias) = next {
            self.0.insert(topic.into(), alias);
        }
        (topic, next)
    }
}
