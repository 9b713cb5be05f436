//! Messages on their way out of a session: the bounded queue, the flight window, and what is sent again.
//!
//! Pure: messages, acknowledgements and the time go in, transmissions come out. It outlives the connection, so a
//! session that comes back gets what was in flight (marked DUP, in the order it was first sent [MQTT-4.4.0-1],
//! [MQTT-4.6.0-1]) and then what was queued. Order is first in, first out, whatever the QoS.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Instant,
};

use crate::{
    hub::Message,
    wire::mqtt::{QoS, ReasonCode},
};

/// Bounds of one session's outgoing side.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Messages waiting to be sent for the first time.
    pub messages: usize,
    /// Topic, property and payload bytes of those.
    pub bytes: usize,
    /// Retained messages that subscriptions brought, which are counted apart: however many a filter matches, they are
    /// sent [MQTT-3.3.1-9], and a queued one costs no more than a reference to what is retained anyway.
    pub retained: usize,
}

/// One delivery of a message to one session.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    /// From the store of retained messages, because of a subscription.
    pub stored: bool,
    pub ids: SubscriptionIds,
}

/// Subscription identifiers of the subscriptions that a delivery is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SubscriptionIds {
    #[default]
    None,
    One(NonZeroU32),
    Many(Box<[NonZeroU32]>),
}

impl SubscriptionIds {
    pub fn as_slice(&self) -> &[NonZeroU32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    pub fn add(&mut self, id: NonZeroU32) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(id),
            Self::One(first) => Self::Many([first, id].into()),
            Self::Many(ids) => Self::Many(ids.iter().copied().chain([id]).collect()),
        }
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    Accepted,
    /// QoS 0 and no room, or nobody connected: gone, as QoS 0 allows.
    Dropped,
    /// QoS 1 or 2 and no room: the session can no longer keep its promise and must end.
    Overflow,
}

/// The next thing to put on the wire.
#[derive(Debug)]
pub enum Transmit {
    Publish { delivery: Delivery, packet_id: Option<NonZeroU16>, dup: bool },
    PubRel { packet_id: NonZeroU16 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the packets' own names")]
enum Awaiting {
    PubAck,
    PubRec,
    PubComp,
}

#[derive(Debug)]
struct InFlight {
    packet_id: NonZeroU16,
    awaiting: Awaiting,
    /// Gone once the receiver has it (PUBREC).
    delivery: Option<Delivery>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outbound {
    queue: VecDeque<Delivery>,
    /// How many of `queue` came from the retained store, and the bytes of the others.
    stored: usize,
    queued_bytes: usize,
    /// In the order of their first transmission.
    flight: VecDeque<InFlight>,
    /// How many of `flight`, from the front, went out on the present connection.
    sent: usize,
    last_packet_id: u16,
}

impl Outbound {
    /// Queues a delivery. `connected` is whether anybody reads: QoS 0 is not kept for the absent, and takes at most
    /// half of the queue of a slow reader, so that it never crowds out what is acknowledged. Where that has no room
    /// either, messages whose expiry has passed make it, and are counted in `expired` [MQTT-3.3.2-5].
    pub fn push(
        &mut self,
        delivery: Delivery,
        limits: &QueueLimits,
        connected: bool,
        now: Instant,
        expired: &mut u64,
    ) -> Queued {
        let (share, otherwise) = match delivery.qos {
            QoS::AtMostOnce if !connected => return Queued::Dropped,
            QoS::AtMostOnce => (2, Queued::Dropped),
            QoS::AtLeastOnce | QoS::ExactlyOnce => (1, Queued::Overflow),
        };
        if !self.has_room(&delivery, limits, share) {
            if otherwise == Queued::Overflow {
                *expired += self.forget_expired(now);
            }
            if !self.has_room(&delivery, limits, share) {
                return otherwise;
            }
        }
        if delivery.stored {
            self.stored += 1;
        } else {
            self.queued_bytes += delivery.message.size();
        }
        self.queue.push_back(delivery);
        Queued::Accepted
    }

    /// Whether no further retained message has room.
    pub fn stored_full(&self, limits: &QueueLimits) -> bool {
        self.stored >= limits.retained
    }

    /// Whether a delivery leaves the queue within the limits divided by `share`; one message always has room.
    fn has_room(&self, delivery: &Delivery, limits: &QueueLimits, share: usize) -> bool {
        if delivery.stored {
            return self.stored < limits.retained;
        }
        let queued = self.queue.len() - self.stored;
        let bytes = self.queued_bytes + delivery.message.size();
        queued == 0 || (queued < limits.messages / share && bytes <= limits.bytes / share)
    }

    fn forget_expired(&mut self, now: Instant) -> u64 {
        let before = self.queue.len();
        self.queue.retain(|delivery| !delivery.message.expired(now));
        self.stored = self.queue.iter().filter(|delivery| delivery.stored).count();
        let counted = self.queue.iter().filter(|delivery| !delivery.stored);
        self.queued_bytes = counted.map(|delivery| delivery.message.size()).sum();
        (before - self.queue.len()) as u64
    }

    /// The next transmission, while `window` (the smaller of both sides' limits) has room. Messages whose expiry has
    /// passed are left out and counted in `expired` [MQTT-3.3.2-5].
    pub fn next(&mut self, window: u16, now: Instant, expired: &mut u64) -> Option<Transmit> {
        if self.sent < self.flight.len() {
            return self.resend(window);
        }
        while let Some(front) = self.queue.front() {
            if front.message.expired(now) {
                *expired += 1;
                self.pop_queue();
                continue;
            }
            if front.qos == QoS::AtMostOnce {
                return self.pop_queue().map(|delivery| Transmit::Publish { delivery, packet_id: None, dup: false });
            }
            if self.flight.len() >= usize::from(window) {
                return None;
            }
            let packet_id = self.free_packet_id()?;
            let delivery = self.pop_queue()?;
            let awaiting = if delivery.qos == QoS::AtLeastOnce { Awaiting::PubAck } else { Awaiting::PubRec };
            self.flight.push_back(InFlight { packet_id, awaiting, delivery: Some(delivery.clone()) });
            self.sent += 1;
            return Some(Transmit::Publish { delivery, packet_id: Some(packet_id), dup: false });
        }
        None
    }

    fn resend(&mut self, window: u16) -> Option<Transmit> {
        if self.sent >= usize::from(window) {
            return None;
        }
        let entry = &self.flight[self.sent];
        self.sent += 1;
        let packet_id = entry.packet_id;
        Some(match &entry.delivery {
            Some(delivery) => Transmit::Publish { delivery: delivery.clone(), packet_id: Some(packet_id), dup: true },
            None => Transmit::PubRel { packet_id },
        })
    }

    /// Takes back a delivery that the receiver can never be sent (larger than its Maximum Packet Size): done, as if
    /// it had been acknowledged [MQTT-3.1.2-25].
    pub fn discard(&mut self, packet_id: Option<NonZeroU16>) {
        if let Some(position) = packet_id.and_then(|id| self.position(id)) {
            self.remove_flight(position);
        }
    }

    /// PUBACK. `false` if nothing waited for it.
    pub fn puback(&mut self, packet_id: NonZeroU16) -> bool {
        self.complete(packet_id, Awaiting::PubAck)
    }

    /// PUBCOMP. `false` if nothing waited for it.
    pub fn pubcomp(&mut self, packet_id: NonZeroU16) -> bool {
        self.complete(packet_id, Awaiting::PubComp)
    }

    /// PUBREC: what PUBREL to answer with, `None` if the receiver refused the message and the exchange is over
    /// [MQTT-4.3.3-4].
    pub fn pubrec(&mut self, packet_id: NonZeroU16, reason: ReasonCode) -> Option<ReasonCode> {
        let known = self.position(packet_id).filter(|&at| self.flight[at].awaiting != Awaiting::PubAck);
        let Some(position) = known else {
            return (!reason.is_error()).then_some(ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
        };
        if reason.is_error() {
            self.remove_flight(position);
            return None;
        }
        let entry = &mut self.flight[position];
        entry.awaiting = Awaiting::PubComp;
        entry.delivery = None; // the receiver has it and it must not be sent again [MQTT-4.3.3-6]
        Some(ReasonCode::SUCCESS)
    }

    /// A new connection: everything in flight is to be sent again.
    pub fn reconnect(&mut self) {
        self.sent = 0;
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Takes the oldest queued delivery for a receiver that needs no wire (an in-process client).
    pub fn take(&mut self, now: Instant, expired: &mut u64) -> Option<Delivery> {
        loop {
            let delivery = self.pop_queue()?;
            if !delivery.message.expired(now) {
                return Some(delivery);
            }
            *expired += 1;
        }
    }

    fn pop_queue(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        if delivery.stored {
            self.stored -= 1;
        } else {
            self.queued_bytes -= delivery.message.size();
        }
        give_back(&mut self.queue);
        Some(delivery)
    }

    fn complete(&mut self, packet_id: NonZeroU16, awaiting: Awaiting) -> bool {
        let found = self.position(packet_id).filter(|&at| self.flight[at].awaiting == awaiting);
        if let Some(position) = found {
            self.remove_flight(position);
        }
        found.is_some()
    }

    /// Acknowledgements come in order from nearly everybody [MQTT-4.6.0-2], so the search ends at the front.
    fn position(&self, packet_id: NonZeroU16) -> Option<usize> {
        self.flight.iter().position(|entry| entry.packet_id == packet_id)
    }

    fn remove_flight(&mut self, position: usize) {
        self.flight.remove(position);
        if position < self.sent {
            self.sent -= 1;
        }
        give_back(&mut self.flight);
    }

    /// The next unused packet identifier; `None` if all 65,535 are in use.
    fn free_packet_id(&mut self) -> Option<NonZeroU16> {
        let last = self.last_packet_id;
        let mut ids = (1..=1 << 16).filter_map(|step: u32| NonZeroU16::new(last.wrapping_add(step as u16)));
        let next = ids.next()?;
        let free = if self.position(next).is_none() {
            next
        } else {
            // Once around, and an old exchange is still open: rare, but then there may be many of them.
            let mut used = vec![false; 1 << 16];
            self.flight.iter().for_each(|entry| used[usize::from(entry.packet_id.get())] = true);
            ids.find(|id| !used[usize::from(id.get())])?
        };
        self.last_packet_id = free.get();
        Some(free)
    }
}

/// An idle session keeps no memory that a burst needed.
fn give_back<T>(deque: &mut VecDeque<T>) {
    if deque.is_empty() && deque.capacity() > 8 {
        *deque = VecDeque::new();
    }
}
