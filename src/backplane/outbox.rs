//! What waits for the broker, and what is on its way to it.
//!
//! It promises that what was accepted is handed to the broker once, in order, and is kept until the broker has taken
//! responsibility for it: a connection that breaks gives back what was not acknowledged, and the next one is told what
//! to repeat and what to say anew. It is bounded in messages and bytes, and nothing waits longer than its time: what
//! has expired comes back to the caller, once. Pure: `now` is an argument, and whoever sends is a closure.

use std::{
    collections::VecDeque,
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
    flights: VecDeque<Flight>,
    /// Places promised and not yet used, and all bytes, promised ones included.
    reserved: usize,
    bytes: usize,
    /// Messages of QoS 1 and 2 that may lie between the oldest unacknowledged one and the next; `None`: nobody sends.
    window: Option<u64>,
    next_serial: u64,
}

/// A message that was handed over.
struct Flight {
    out: Outgoing,
    /// Counts the messages of QoS 1 and 2, and whatever else takes packet identifiers.
    serial: u64,
    /// Its packet identifier, once it was written.
    packet_id: Option<u16>,
    /// PUBREC has come: only the end of the exchange is missing.
    received: bool,
}

/// What a connection that resumes its session has to say again [MQTT-4.4.0-1].
#[derive(Debug)]
pub enum Again {
    Publish(u16, Outgoing),
    Release(u16),
}

/// Messages of QoS 0 that were handed over and not yet written.
const UNWRITTEN: usize = 64;

impl Outbox {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            flights: VecDeque::new(),
            reserved: 0,
            bytes: 0,
            window: None,
            next_serial: 0,
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
        self.waiting.push_back(Outgoing { message, qos, retain, user, deadline: now + self.limits.ttl });
    }

    /// Hands over what may be handed over at present; `send` says whether it took the message.
    pub fn hand_over(&mut self, now: Instant, mut send: impl FnMut(&Outgoing) -> bool, expired: &mut Vec<Outgoing>) {
        while let Some(next) = self.waiting.front() {
            let gone = next.expired(now);
            let leaves = gone || self.may_fly(next.qos) && send(next);
            if !leaves {
                return;
            }
            let Some(out) = self.waiting.pop_front() else { return };
            if gone {
                self.bytes -= out.message.size();
                expired.push(out);
                continue;
            }
            self.next_serial += u64::from(out.qos > QoS::AtMostOnce);
            self.flights.push_back(Flight { out, serial: self.next_serial, packet_id: None, received: false });
        }
    }

    /// Packet identifiers go round within the receiver's window, so the oldest message that is not done holds up those
    /// that would get its identifier.
    fn may_fly(&self, qos: QoS) -> bool {
        let Some(window) = self.window else { return false };
        if qos == QoS::AtMostOnce {
            return self.flights.iter().filter(|flight| flight.out.qos == QoS::AtMostOnce).count() < UNWRITTEN;
        }
        let oldest = self.flights.iter().find(|flight| flight.out.qos > QoS::AtMostOnce);
        oldest.is_none_or(|oldest| self.next_serial - oldest.serial + 1 < window)
    }

    /// Whether a message of that identifier is on its way.
    pub fn knows(&self, packet_id: u16) -> bool {
        self.flight(packet_id).is_some()
    }

    /// The first message handed over and not written was written, at QoS 0 with identifier 0.
    pub fn written(&mut self, packet_id: u16) {
        let same_kind =
            |flight: &Flight| flight.packet_id.is_none() && (flight.out.qos == QoS::AtMostOnce) == (packet_id == 0);
        let Some(at) = self.flights.iter().position(same_kind) else { return };
        match packet_id {
            0 => drop(self.land(at)),
            id => self.flights[at].packet_id = Some(id),
        }
    }

    /// The exchange of that identifier is over: PUBACK, PUBCOMP, or a refusal in PUBREC.
    pub fn done(&mut self, packet_id: u16) -> Option<Outgoing> {
        let at = self.flight(packet_id)?;
        self.land(at)
    }

    /// PUBREC: the broker has the message.
    pub fn received(&mut self, packet_id: u16) {
        if let Some(at) = self.flight(packet_id) {
            self.flights[at].received = true;
        }
    }

    /// Messages of QoS 1 and 2 on their way.
    pub fn unacknowledged(&self) -> usize {
        self.flights.iter().filter(|flight| flight.packet_id.is_some()).count()
    }

    fn flight(&self, packet_id: u16) -> Option<usize> {
        self.flights.iter().position(|flight| flight.packet_id == Some(packet_id))
    }

    fn land(&mut self, at: usize) -> Option<Outgoing> {
        let flight = self.flights.remove(at)?;
        self.bytes -= flight.out.message.size();
        Some(flight.out)
    }

    /// The connection is gone: nothing is handed over until the next one.
    pub fn lost(&mut self) {
        self.window = None;
    }

    /// There is a connection, to a broker that takes `window` messages at a time, and that knows of the last
    /// connection or does not. What is to be said again is in order; what was never written, or is unknown to the
    /// broker, waits again.
    pub fn connected(&mut self, window: u16, known: bool, now: Instant, expired: &mut Vec<Outgoing>) -> Vec<Again> {
        self.window = Some(u64::from(window.max(1)));
        let (mut again, mut waiting) = (Vec::new(), Vec::new());
        for flight in std::mem::take(&mut self.flights) {
            match flight.packet_id {
                Some(id) if known && flight.received => {
                    again.push(Again::Release(id));
                    self.flights.push_back(flight);
                }
                // An exchange of QoS 2 is finished however late, or its identifier would be poisoned.
                Some(id) if known && (flight.out.qos == QoS::ExactlyOnce || !flight.out.expired(now)) => {
                    again.push(Again::Publish(id, flight.out.clone()));
                    self.flights.push_back(flight);
                }
                // The broker had it and has forgotten all: it is not ours to say twice.
                Some(_) if flight.received => self.bytes -= flight.out.message.size(),
                _ if flight.out.expired(now) => {
                    self.bytes -= flight.out.message.size();
                    expired.push(flight.out);
                }
                _ => waiting.push(flight.out),
            }
        }
        waiting.into_iter().rev().for_each(|out| self.waiting.push_front(out));
        // The subscription that begins a connection takes an identifier, too.
        self.next_serial += 1;
        again
    }

    /// Takes out what has waited too long. Times of waiting are all the same, so those are the first.
    pub fn expire(&mut self, now: Instant, expired: &mut Vec<Outgoing>) {
        while let Some(out) = self.waiting.pop_front_if(|out| out.deadline <= now) {
            self.bytes -= out.message.size();
            expired.push(out);
        }
    }

    /// Takes out what `too_large` says the present broker does not take.
    pub fn reject(&mut self, too_large: impl Fn(&Outgoing) -> bool, rejected: &mut Vec<Outgoing>) {
        for out in std::mem::take(&mut self.waiting) {
            if too_large(&out) {
                self.bytes -= out.message.size();
                rejected.push(out);
            } else {
                self.waiting.push_back(out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
