//! Retained messages on their way to who subscribed: from the store into a session's queue, as that has room.
//!
//! A subscription leaves a [`Cursor`](crate::session::Cursor) in its session, and this follows it. What a shard holds
//! for the filter is queued at once if it has room; more comes in portions, each when the one before has left the
//! queue, so that a session holds a portion and a few words however much its filters match. Live messages wait behind
//! that ([`Outbound::push`]), and each message comes once: from the store if it was set before the subscription began,
//! and live if it was set after. One that is replaced before its turn comes live only.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{Hub, Message, store::Store};
use crate::{
    session::{Cursor, Delivery, Outbound, Session},
    wire::mqtt::topic,
};

/// Messages that are looked at in one go: about what a thread does before other connections have their turn.
const LOOKED_AT: usize = 1024;

/// Who collects.
struct Reader<'a> {
    session: &'a Session,
    observes: bool,
    now: Instant,
}

/// What a [`Hub::collect`] came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Collected {
    /// Messages that were looked at.
    pub work: usize,
    /// The session has something to send that it had not before.
    pub moved: bool,
    /// There may be more to be had at once, after others have had their turn.
    pub again: bool,
}

impl Hub {
    /// Queues what the subscriptions of a session are still to bring, as far as there is room and somebody is connected.
    /// Called when it has subscribed, and then by whoever reads for it, whenever it is hungry.
    pub fn collect(&self, session: &Session, now: Instant) -> Collected {
        let mut collected = Collected::default();
        while collected.work < LOOKED_AT {
            // A shard is locked before a session, so the session is asked which, and asked again below.
            let Some(at) = session.lock().outbound.place() else { return collected };
            let shard = self.shards[at].lock();
            let mut state = session.lock();
            if state.ended || !state.connected() {
                return collected;
            }
            let reader = Reader { session, observes: state.observes(), now };
            let outbound = &mut state.outbound;
            if outbound.place() == Some(at)
                && self.collect_from(&shard.retained, outbound, &reader, &mut collected).is_break()
            {
                return collected;
            }
        }
        collected.again = true;
        collected
    }

    /// Whether a reader whose filter spans rooms is not kept out of the message's room.
    fn may_collect(&self, reader: &Reader<'_>, message: &Message) -> bool {
        let closed = self.rooms.closed(message);
        closed.is_none_or(|closed| closed.admits(&reader.session.user, || reader.observes, reader.now))
    }

    /// Goes on with the newest cursor, in the shard where it is. Breaks off when the queue has no more room.
    fn collect_from(
        &self,
        store: &Store,
        outbound: &mut Outbound,
        reader: &Reader<'_>,
        collected: &mut Collected,
    ) -> ControlFlow<()> {
        let limits = &self.limits.queue;
        let delivery = |cursor: &Cursor, message: &Arc<Message>| {
            self.may_collect(reader, message).then(|| cursor.delivery(message, reader.session.id, reader.now))?
        };
        let Some(mut cursor) = outbound.take_cursor() else { return ControlFlow::Continue(()) };
        collected.work += 1;
        if cursor.from == 0 {
            let (mut found, mut bytes) = (SmallVec::<[Delivery; 8]>::new(), 0);
            let all = store.matching(&cursor.filter, &mut |serial, message| {
                collected.work += 1;
                if serial.get() < cursor.until
                    && let Some(delivery) = delivery(&cursor, message)
                {
                    bytes += message.size();
                    found.push(delivery);
                    if !outbound.has_room_in_front(found.len(), bytes, limits) {
                        return ControlFlow::Break(());
                    }
                }
                ControlFlow::Continue(())
            });
            if all.is_continue() {
                collected.moved |= !found.is_empty();
                found.into_iter().for_each(|delivery| outbound.push_in_front(delivery));
                cursor.shards.start += 1;
                collected.moved |= outbound.put_back(cursor);
                return ControlFlow::Continue(());
            }
            if outbound.has_front() {
                outbound.put_back(cursor);
                return ControlFlow::Break(()); // with the queue empty it may have room
            }
        }
        for (serial, message) in store.set_in(cursor.from..cursor.until) {
            let found = Some(message).filter(|message| topic::matches(&cursor.filter, message.topic()));
            let delivery = found.and_then(|message| delivery(&cursor, message));
            let full = delivery.is_some() && !outbound.has_room_in_front(1, message.size(), limits);
            if full || collected.work >= LOOKED_AT {
                cursor.from = serial.get();
                outbound.put_back(cursor);
                return if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
            }
            collected.work += 1;
            if let Some(delivery) = delivery {
                collected.moved = true;
                outbound.push_in_front(delivery);
            }
        }
        cursor.from = 0;
        cursor.shards.start += 1;
        collected.moved |= outbound.put_back(cursor);
        ControlFlow::Continue(())
    }
}
