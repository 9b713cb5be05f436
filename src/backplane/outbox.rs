//! What waits for the broker, and what is on its way to it.
//!
//! It promises that what was accepted is handed to the broker once, in order, and is kept until the broker has taken
//! responsibility for it: after a connection that broke, the next one is told what to say again and what to say anew.
//! It gives packet identifiers, and no more messages at a time than the broker takes. It is bounded in messages and
//! bytes, and nothing waits longer than its time, nor is said again after it: what has expired comes back to the
//! caller, once. Pure: `now` is an
//! argument, and whoever speaks is a closure.

use std::{
    collections::VecDeque,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{hub::Message, wire::mqtt::QoS};

/// Bounds of everything that was accepted and is not done.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub messages: usize,
    pub bytes: usize,
    /// How long a message may wait.
    pub ttl: Duration,
}

/// A message that is to leave.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    /// Who is told if it expires.
    pub user: Option<Box<str>>,
    /// When it is given up.
    pub deadline: Instant,
    /// It was said on a connection that has ended.
    said: bool,
}

impl Outgoing {
    fn expired(&self, now: Instant) -> bool {
        self.deadline <= now || self.message.expired(now)
    }
}

/// See the module.
pub struct Outbox {
    limits: Limits,
    waiting: VecDeque<Outgoing>,
    /// In the order in which they were first said.
    flights: VecDeque<Flight>,
    /// How many of the flights were said on this connection; the others have yet to be said again.
    said: usize,
    /// Places promised and not yet used, and all bytes, promised ones included.
    reserved: usize,
    bytes: usize,
    /// What the broker takes; `None`: nobody speaks.
    terms: Option<Terms>,
    last_id: u16,
    /// Something that was said before has been acknowledged on this connection.
    progress: bool,
    /// Connections in a row that ended without that, although something was said again.
    fruitless: u32,
    /// The next connection is not told of the oldest flight.
    hopeless: bool,
}

/// How long after its time the end of an exchange of QoS 2 is still asked for.
const RELEASE_TIME: Duration = Duration::from_secs(60);
/// How long a broker may leave a message unacknowledged, at least.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(10);
/// As many, and it may be the oldest flight that ends them: a broker that does not bear a message does not say which.
const FRUITLESS: u32 = 3;

/// What a broker takes.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Messages of QoS 1 and 2 at a time; at least one.
    pub window: usize,
    /// What is of more is said at this.
    pub qos_max: QoS,
}

/// A message of QoS 1 or 2 that the broker may have heard of.
struct Flight {
    out: Outgoing,
    packet_id: NonZeroU16,
    /// PUBREC has come: only the end of the exchange is missing.
    received: bool,
    /// When it was said last.
    since: Instant,
}

impl Flight {
    /// It is not said any more. Its identifier is not given again before all others have been.
    fn over(&self, now: Instant) -> bool {
        if self.received { self.out.deadline + RELEASE_TIME <= now } else { self.out.expired(now) }
    }
}

/// What is to be said to the broker.
#[derive(Debug)]
pub enum Say<'a> {
    Publish {
        out: &'a Outgoing,
        /// `None` exactly at QoS 0.
        packet_id: Option<NonZeroU16>,
        /// It was said on an earlier connection [MQTT-4.4.0-1].
        again: bool,
    },
    /// A PUBREL that may not have been heard [MQTT-4.4.0-1].
    Release(NonZeroU16),
}

/// What a new connection means for messages that were accepted before.
#[derive(Debug, Default)]
pub struct Ended {
    pub expired: Vec<Outgoing>,
    /// Messages that the broker had.
    pub done: u64,
    /// This broker does not take them.
    pub rejected: Vec<Outgoing>,
    /// Connections ended whenever it was said.
    pub hopeless: Option<Outgoing>,
}

/// A packet identifier that no message gets: it is the subscription's.
pub const RESERVED_ID: NonZeroU16 = NonZeroU16::MAX;

impl Outbox {
    /// `last_id` is any number: the first identifier is the one behind it. A process that comes back to a session of
    /// its predecessor's begins elsewhere, so that a message of QoS 2 is not taken for one that was left unfinished.
    pub fn new(limits: Limits, last_id: u16) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            flights: VecDeque::new(),
            said: 0,
            reserved: 0,
            bytes: 0,
            terms: None,
            last_id,
            progress: false,
            fruitless: 0,
            hopeless: false,
        }
    }

    /// Messages that were accepted and are not done.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.flights.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Promises a place for a message of that size, if there is one.
    pub fn reserve(&mut self, size: usize) -> bool {
        let fits = self.len() + self.reserved < self.limits.messages && self.bytes + size <= self.limits.bytes;
        if fits {
            self.reserved += 1;
            self.bytes += size;
        }
        fits
    }

    /// Gives a promised place back.
    pub fn release(&mut self, size: usize) {
        self.reserved -= 1;
        self.bytes -= size;
    }

    /// Puts a message in a promised place; it may wait from now on.
    pub fn push(&mut self, message: Arc<Message>, qos: QoS, retain: bool, user: Option<Box<str>>, now: Instant) {
        self.reserved -= 1;
        self.waiting.push_back(Outgoing { message, qos, retain, user, deadline: now + self.limits.ttl, said: false });
    }

    /// Says what may be said at present, as long as `say` has room for more: it returns whether it has. What is said
    /// at QoS 0 is done.
    pub fn speak(&mut self, now: Instant, mut say: impl FnMut(Say<'_>) -> bool, expired: &mut Vec<Outgoing>) {
        let Some(Terms { window, qos_max }) = self.terms else { return };
        let mut room = true;
        while room && self.said < self.flights.len().min(window) {
            let Flight { out, packet_id, received, since } = &mut self.flights[self.said];
            *since = now;
            room = match received {
                true => say(Say::Release(*packet_id)),
                false => say(Say::Publish { out, packet_id: Some(*packet_id), again: true }),
            };
            self.said += 1;
        }
        while room
            && self.said == self.flights.len()
            && let Some(next) = self.waiting.front()
        {
            let gone = next.expired(now);
            let qos = next.qos.min(qos_max);
            if !gone && qos > QoS::AtMostOnce && self.flights.len() >= window {
                return; // [MQTT-4.9.0-2]
            }
            let Some(out) = self.waiting.pop_front() else { return };
            let out = Outgoing { qos, ..out };
            if gone {
                self.bytes -= out.message.size();
                expired.push(out);
            } else if out.qos == QoS::AtMostOnce {
                self.bytes -= out.message.size();
                room = say(Say::Publish { out: &out, packet_id: None, again: false });
            } else {
                let packet_id = self.next_id();
                room = say(Say::Publish { out: &out, packet_id: Some(packet_id), again: false });
                self.flights.push_back(Flight { out, packet_id, received: false, since: now });
                self.said += 1;
            }
        }
    }

    /// One that is not in use [MQTT-2.2.1-3]; there are far fewer flights than identifiers.
    fn next_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            match NonZeroU16::new(self.last_id) {
                Some(id) if id != RESERVED_ID && self.flight(id).is_none() => return id,
                _ => {}
            }
        }
    }

    /// The exchange of that identifier is over: PUBACK, PUBCOMP, or a refusal in PUBREC.
    pub fn done(&mut self, packet_id: NonZeroU16) -> Option<Outgoing> {
        let at = self.flight(packet_id)?;
        let flight = self.take(at)?;
        self.progress |= flight.out.said;
        Some(flight.out)
    }

    fn take(&mut self, at: usize) -> Option<Flight> {
        let flight = self.flights.remove(at)?;
        self.said -= usize::from(at < self.said);
        self.bytes -= flight.out.message.size();
        Some(flight)
    }

    /// PUBREC: the broker has the message. Says whether there is such a message.
    pub fn received(&mut self, packet_id: NonZeroU16) -> bool {
        let at = self.flight(packet_id);
        if let Some(at) = at {
            self.flights[at].received = true;
            self.progress |= self.flights[at].out.said;
        }
        at.is_some()
    }

    fn flight(&self, packet_id: NonZeroU16) -> Option<usize> {
        self.flights.iter().position(|flight| flight.packet_id == packet_id)
    }

    /// The connection is gone: nothing is said until the next one.
    pub fn lost(&mut self) {
        let again = self.flights.iter().take(self.said).any(|flight| flight.out.said);
        if self.progress || self.said > 0 {
            self.fruitless = if again && !self.progress { self.fruitless.saturating_add(1) } else { 0 };
            self.hopeless = self.fruitless >= FRUITLESS;
        }
        self.flights.iter_mut().take(self.said).for_each(|flight| flight.out.said = true);
        (self.terms, self.said, self.progress) = (None, 0, false);
    }

    /// Whether the broker may have heard of something that is not done.
    pub fn is_flying(&self) -> bool {
        !self.flights.is_empty()
    }

    /// There is a connection, to a broker that knows of the last one or does not. What is in flight is said again, in
    /// order; what is unknown to the broker waits again. Out goes what has expired, what the broker does not take
    /// since it is `too_large`, and, one by one, what connections end at.
    pub fn connected(
        &mut self,
        terms: Terms,
        known: bool,
        now: Instant,
        too_large: impl Fn(&Outgoing) -> bool,
    ) -> Ended {
        (self.terms, self.said, self.progress) = (Some(terms), 0, false);
        let mut ended = Ended::default();
        if std::mem::take(&mut self.hopeless) {
            ended.hopeless = self.take(0).map(|flight| flight.out);
        }
        let mut waiting = VecDeque::new();
        for flight in std::mem::take(&mut self.flights) {
            match &flight {
                // If the broker has forgotten all, it is not ours to say twice.
                Flight { received: true, out, .. } if !known || flight.over(now) => {
                    self.bytes -= out.message.size();
                    ended.done += 1;
                }
                Flight { received: true, .. } => self.flights.push_back(flight),
                Flight { out, .. } if too_large(out) => ended.rejected.push(flight.out),
                _ if flight.over(now) => ended.expired.push(flight.out),
                Flight { out, .. } if known && out.qos <= terms.qos_max => self.flights.push_back(flight),
                // Unknown to the broker, or of more than it takes now: it is said anew, at what it takes.
                _ => waiting.push_back(flight.out),
            }
        }
        waiting.append(&mut self.waiting);
        for out in waiting {
            match too_large(&out) {
                true => ended.rejected.push(out),
                false => self.waiting.push_back(out),
            }
        }
        let sizes = ended.expired.iter().chain(&ended.rejected).map(|out| out.message.size());
        self.bytes -= sizes.sum::<usize>();
        ended
    }

    /// Takes out what has waited too long, whether or not it was said on an earlier connection; how many more are done
    /// with, since the broker had them. Times of waiting are all the same, so those that wait longest are the first.
    pub fn expire(&mut self, now: Instant, expired: &mut Vec<Outgoing>) -> u64 {
        let (mut at, mut done) = (0, 0);
        while let Some(flight) = self.flights.get(at) {
            let unheard_or_had = at >= self.said || flight.received;
            if !(unheard_or_had && flight.over(now)) {
                at += 1;
            } else if let Some(flight) = self.take(at) {
                match flight.received {
                    true => done += 1,
                    false => expired.push(flight.out),
                }
            }
        }
        while let Some(out) = self.waiting.pop_front_if(|out| out.deadline <= now) {
            self.bytes -= out.message.size();
            expired.push(out);
        }
        done
    }

    /// Whether the broker leaves something unacknowledged that it was told on this connection.
    pub fn is_overdue(&self, now: Instant) -> bool {
        let patience = self.limits.ttl.max(ACKNOWLEDGEMENT);
        let since = self.flights.front().filter(|_| self.said > 0).map(|oldest| oldest.since);
        since.is_some_and(|since| now.saturating_duration_since(since) > patience)
    }
}

#[cfg(test)]
mod tests;
