//! Messages on their way out of a session: the bounded queue, the flight window, and what is sent again.
//!
//! Pure: messages, acknowledgements and the time go in, transmissions come out. It outlives the connection, so a
//! session that comes back gets what was in flight (marked DUP, in the order it was first sent [MQTT-4.4.0-1],
//! [MQTT-4.6.0-1]) and then what was queued. Order is first in, first out, whatever the QoS; but while a subscription
//! still brings retained messages ([`Cursor`]), those are put in front of the live ones that came since, up to half a
//! queue of which wait for them.

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Instant,
};

use super::Cursor;
use crate::{
    hub::Message,
    policy::Visible,
    wire::mqtt::{QoS, ReasonCode},
};

/// Bounds of one session's outgoing side.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Messages waiting to be sent for the first time.
    pub messages: usize,
    /// The same of the server's own, which are counted apart: a room that is closed, or that everybody joins at once, is
    /// that many lines of a roster, and whoever misses one of them believes in a ghost.
    pub own: usize,
    /// Topic, property and payload bytes of those, and of what is in flight and may have to be sent again.
    pub bytes: usize,
}

/// One delivery of a message to one session.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub message: Arc<Message>,
    pub qos: QoS,
    pub retain: bool,
    pub ids: SubscriptionIds,
    /// A 5.0 client is told when the message was received.
    pub stamped: bool,
    /// It came while the client was connected, so that how long it takes says something of the server.
    pub live: bool,
}

impl Delivery {
    /// One for a subscription that asks for nothing special.
    pub fn plain(message: Arc<Message>, qos: QoS) -> Self {
        Self { message, qos, retain: false, ids: SubscriptionIds::None, stamped: false, live: false }
    }
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
}

impl From<&[NonZeroU32]> for SubscriptionIds {
    fn from(ids: &[NonZeroU32]) -> Self {
        match ids {
            [] => Self::None,
            [id] => Self::One(*id),
            ids => Self::Many(ids.into()),
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
    /// Of the messages in `queue` and `flight`.
    bytes: usize,
    /// What subscriptions are still to bring. The last goes first, so that a long one holds up no other.
    cursors: Vec<Cursor>,
    /// How many of `queue`, from the back, wait for what the cursors bring; none without a cursor.
    behind: u32,
    /// How many of `queue` are the server's own.
    own: u32,
    /// In the order of their first transmission.
    flight: VecDeque<InFlight>,
    /// How many of `flight`, from the front, went out on the present connection.
    sent: u16,
    last_packet_id: u16,
}

impl Outbound {
    /// Queues a delivery. `connected` is whether anybody reads: QoS 0 is not kept for the absent, and takes at most
    /// half of the queue of a slow reader (beside the quarter that retained messages may have), so that it never crowds
    /// out what is acknowledged. Where that has no room either, messages whose expiry has passed make it, and are
    /// counted in `expired` [MQTT-3.3.2-5].
    pub fn push(
        &mut self,
        delivery: Delivery,
        limits: &QueueLimits,
        connected: bool,
        now: Instant,
        expired: &mut u64,
    ) -> Queued {
        let (quarters, otherwise) = match delivery.qos {
            QoS::AtMostOnce if !connected => return Queued::Dropped,
            QoS::AtMostOnce => (2 + usize::from(self.collecting()), Queued::Dropped),
            QoS::AtLeastOnce | QoS::ExactlyOnce => (4, Queued::Overflow),
        };
        let message = &delivery.message;
        if !self.has_room(message, limits, quarters) {
            if otherwise == Queued::Overflow {
                *expired += self.forget_expired(now);
            }
            if !self.has_room(message, limits, quarters) {
                return otherwise;
            }
        }
        // Beyond these the first that waits goes on, so that what arrives all the time is not held up until it is lost.
        if self.collecting() && (self.behind as usize) < limits.messages / 2 && self.bytes <= limits.bytes / 4 {
            self.behind += 1;
        }
        self.bytes += message.size();
        self.own += u32::from(message.is_own());
        self.queue.push_back(Delivery { live: connected, ..delivery });
        Queued::Accepted
    }

    /// Whether a message leaves the queue within so many quarters of its limits. One message always has room.
    fn has_room(&self, message: &Message, limits: &QueueLimits, quarters: usize) -> bool {
        let (waiting, most) = match message.is_own() {
            true => (self.own as usize, limits.own),
            false => (self.queue.len() - self.own as usize, limits.messages),
        };
        let few = self.queue.is_empty() || waiting < most * quarters / 4;
        few && (self.bytes == 0 || self.bytes + message.size() <= limits.bytes * quarters / 4)
    }

    fn forget_expired(&mut self, now: Instant) -> u64 {
        self.drop_queued(|message| message.expired(now))
    }

    /// Forgets what is queued and has not been sent, and says how many that were.
    pub fn drop_queued(&mut self, mut is_void: impl FnMut(&Message) -> bool) -> u64 {
        let (before, front) = (self.queue.len(), self.front_len());
        let mut at = 0;
        self.queue.retain(|delivery| {
            let expired = is_void(&delivery.message);
            if expired {
                self.bytes -= delivery.message.size();
                self.own -= u32::from(delivery.message.is_own());
                self.behind -= u32::from(at >= front);
            }
            at += 1;
            !expired
        });
        (before - self.queue.len()) as u64
    }

    /// A subscription begins to bring retained messages; anew, if it was doing so.
    pub fn begin(&mut self, cursor: Cursor) {
        self.cursors.retain(|old| old.filter != cursor.filter);
        self.cursors.push(cursor);
    }

    /// A subscription shows another part of what it matches from now on, also of what it is still to bring.
    pub fn show(&mut self, filter: &str, visible: Option<&Arc<Visible>>) {
        let cursors = self.cursors.iter_mut().filter(|cursor| *cursor.filter == *filter);
        cursors.for_each(|cursor| cursor.visible = visible.cloned());
    }

    /// A subscription need not bring any more.
    pub fn forget(&mut self, filter: &str) {
        self.cursors.retain(|cursor| *cursor.filter != *filter);
        self.release();
    }

    /// Nothing more is brought. Says whether messages waited for that, which may go now.
    pub fn abandon(&mut self) -> bool {
        self.cursors.clear();
        self.release()
    }

    /// The shard in which the first cursor goes on.
    pub fn place(&self) -> Option<usize> {
        self.cursors.last().map(|cursor| cursor.shards.start)
    }

    /// Takes the first cursor for the moment.
    pub fn take_cursor(&mut self) -> Option<Cursor> {
        self.cursors.pop()
    }

    /// Puts it back, unless it is done. Says whether what waited for the cursors may go now.
    pub fn put_back(&mut self, cursor: Cursor) -> bool {
        if !cursor.shards.is_empty() {
            self.cursors.push(cursor);
        }
        self.release()
    }

    fn release(&mut self) -> bool {
        if self.cursors.is_empty() {
            self.cursors = Vec::new();
            return std::mem::take(&mut self.behind) > 0;
        }
        false
    }

    /// Whether subscriptions are still to bring something.
    pub fn collecting(&self) -> bool {
        !self.cursors.is_empty()
    }

    /// Whether subscriptions are to bring something now: nothing else can be sent.
    pub fn hungry(&self) -> bool {
        self.collecting() && !self.has_front()
    }

    pub fn has_front(&self) -> bool {
        self.front_len() > 0
    }

    /// How many of the queue need not wait for the cursors.
    fn front_len(&self) -> usize {
        self.queue.len() - self.behind as usize
    }

    /// Whether so many retained messages, of so many bytes together, have room in front of what waits for them. They
    /// take a quarter of the queue at most, and leave the rest to live ones, which are never lost for their sake. One
    /// message always has room.
    pub fn has_room_in_front(&self, count: usize, size: usize, limits: &QueueLimits) -> bool {
        let next = count == 1 && !self.has_front();
        let few = next || self.front_len() + count <= limits.messages / 4;
        (next && self.flight.is_empty()) || (few && self.bytes + size <= limits.bytes / 2)
    }

    pub fn push_in_front(&mut self, delivery: Delivery) {
        self.bytes += delivery.message.size();
        self.own += u32::from(delivery.message.is_own());
        self.queue.insert(self.front_len(), delivery);
    }

    /// The next transmission, while `window` (the smaller of both sides' limits) has room. Messages whose expiry has
    /// passed are left out and counted in `expired` [MQTT-3.3.2-5].
    pub fn next(&mut self, window: u16, now: Instant, expired: &mut u64) -> Option<Transmit> {
        if usize::from(self.sent) < self.flight.len() {
            return self.resend(window);
        }
        while let Some(front) = self.queue.front().filter(|_| self.has_front()) {
            if front.message.expired(now) {
                *expired += 1;
                self.take_front();
                continue;
            }
            if front.qos == QoS::AtMostOnce {
                return self.take_front().map(|delivery| Transmit::Publish { delivery, packet_id: None, dup: false });
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
        if self.sent >= window {
            return None;
        }
        let entry = &self.flight[usize::from(self.sent)];
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
        // The receiver has it and it must not be sent again [MQTT-4.3.3-6].
        self.bytes -= entry.delivery.take().map_or(0, |delivery| delivery.message.size());
        Some(ReasonCode::SUCCESS)
    }

    /// A new connection: everything in flight is to be sent again.
    pub fn reconnect(&mut self) {
        self.sent = 0;
        self.queue.iter_mut().for_each(|delivery| delivery.live = false);
    }

    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits to be sent for the first time.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.collecting()
    }

    pub fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// Takes the oldest queued delivery for a receiver that needs no wire (an in-process client).
    pub fn take(&mut self, now: Instant, expired: &mut u64) -> Option<Delivery> {
        loop {
            let delivery = self.take_front()?;
            if !delivery.message.expired(now) {
                return Some(delivery);
            }
            *expired += 1;
        }
    }

    /// Takes the oldest that may go out of what is counted.
    fn take_front(&mut self) -> Option<Delivery> {
        let delivery = self.pop_queue()?;
        self.bytes -= delivery.message.size();
        Some(delivery)
    }

    fn pop_queue(&mut self) -> Option<Delivery> {
        if !self.has_front() {
            return None;
        }
        let delivery = self.queue.pop_front()?;
        self.own -= u32::from(delivery.message.is_own());
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
        let entry = if position == 0 { self.flight.pop_front() } else { self.flight.remove(position) };
        let delivery = entry.and_then(|entry| entry.delivery);
        self.bytes -= delivery.map_or(0, |delivery| delivery.message.size());
        if position < usize::from(self.sent) {
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
