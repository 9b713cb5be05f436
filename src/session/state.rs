//! What a session holds, behind its lock.

#[cfg(test)]
mod tests;

use std::{num::NonZeroU32, sync::Arc, task::Waker, time::Instant};

use super::{
    Link,
    batch::Batch,
    inbound::Unreleased,
    outbound::{Outbound, Transmit},
};
use crate::{
    hub::{Place, TimerKey, Will, position},
    policy::{Identity, SubscribePermit},
    wire::mqtt::{Ack, Packet, ReasonCode, SubscribeOptions, UserProperties, encode},
};

/// How the session is attached at present.
pub enum Attachment {
    /// Nobody reads; QoS 1 and 2 wait.
    None,
    /// A network connection.
    Link(Box<Link>),
    /// A client in this process.
    Local(Box<Local>),
}

/// What is known of a client in this process.
#[derive(Default)]
pub struct Local {
    /// Wakes it when there is something to take.
    pub waker: Option<Waker>,
    /// The next answer to who wants to know the ICE servers.
    pub ice_watch: Option<TimerKey>,
}

/// A subscription, as its session remembers it: enough to end it and to judge it again.
#[derive(Debug, Clone)]
pub struct Kept {
    /// As it was asked for, with `$share/…` if it was shared.
    pub filter: Box<str>,
    /// As they were asked for.
    pub options: SubscribeOptions,
    pub id: Option<NonZeroU32>,
    /// Where in the filter the one room stands that all of it is in; an empty range if there is none.
    room: (u16, u16),
    /// It is by this that the session is a member of the room.
    joins: bool,
    pub standing: Standing,
}

/// Whether a subscription brings anything at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is in the index.
    Live,
    /// The stay in the room ended while nobody was connected: it is not in the index, and judged like a new one when
    /// the client is back.
    Asleep,
    /// It was ended while nobody was connected: its client is told when it is back.
    Over(Over),
}

/// How what a session has of a room ends against its will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Another session of that user has the place.
    Replaced,
    Kicked,
    Locked,
    Closed,
}

impl Kept {
    pub fn new(permit: &SubscribePermit<'_>, id: Option<NonZeroU32>) -> Self {
        let room = permit.room().map_or((0, 0), |room| position(room, permit.asked()));
        let joins = permit.joins().is_some();
        Self {
            filter: permit.asked().into(),
            options: permit.asked_options(),
            id,
            room,
            joins,
            standing: Standing::Live,
        }
    }

    /// The one room that all of it is in.
    pub fn room(&self) -> Option<&str> {
        let (start, end) = self.room;
        (start < end).then(|| &self.filter[start.into()..end.into()])
    }

    /// The room that it makes the session a member of.
    pub fn joins(&self) -> Option<&str> {
        self.room().filter(|_| self.joins && self.standing == Standing::Live)
    }
}

/// See the module.
pub struct State {
    pub attachment: Attachment,
    /// Who the present connection is, or the last one was.
    pub identity: Option<Arc<Identity>>,
    /// When its token runs out.
    pub token_ends: Option<Instant>,
    pub outbound: Outbound,
    /// QoS 2 packet ids received and not yet released [MQTT-4.3.3-2].
    pub unreleased: Unreleased,
    /// In the order of their filters.
    pub subscriptions: Vec<Kept>,
    pub will: Option<Box<Will>>,
    /// Seconds that the session outlives its connection; `u32::MAX` = for ever.
    pub expiry: u32,
    /// Where it waits without a connection.
    pub place: Option<Place>,
    /// What is to happen meanwhile: the end of the session, its will.
    pub timers: Option<Box<[Option<TimerKey>; 2]>>,
    /// In a list of sessions to be flushed.
    pub dirty: bool,
    /// Ended: takes no more messages.
    pub ended: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            attachment: Attachment::None,
            identity: None,
            token_ends: None,
            outbound: Outbound::default(),
            unreleased: Unreleased::default(),
            subscriptions: Vec::new(),
            will: None,
            expiry: 0,
            place: None,
            timers: None,
            dirty: false,
            ended: false,
        }
    }
}

/// What a flush came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// Publishes and payload bytes that were encoded.
    pub messages: u64,
    pub bytes: u64,
    /// Left out because their expiry had passed, or because they exceed the client's Maximum Packet Size.
    pub expired: u64,
    pub oversize: u64,
    /// The socket has just stopped taking bytes: somebody has to watch how long that lasts.
    pub newly_blocked: bool,
}

impl State {
    pub fn link(&mut self) -> Option<&mut Link> {
        match &mut self.attachment {
            Attachment::Link(link) => Some(link),
            _ => None,
        }
    }

    /// Where the next answer to who wants to know the ICE servers is noted, if anybody is there.
    pub fn ice_watch(&mut self) -> Option<&mut Option<TimerKey>> {
        match &mut self.attachment {
            Attachment::Link(link) => Some(&mut link.ice_watch),
            Attachment::Local(local) => Some(&mut local.ice_watch),
            Attachment::None => None,
        }
    }

    /// Whether a subscription makes it a member of the room.
    pub fn is_member(&self, room: &str) -> bool {
        self.subscriptions.iter().any(|kept| kept.joins() == Some(room))
    }

    /// The rooms that it is a member of by its subscriptions.
    pub fn joined(&self) -> Vec<Box<str>> {
        let mut rooms: Vec<Box<str>> =
            self.subscriptions.iter().filter_map(|kept| kept.joins().map(Into::into)).collect();
        rooms.sort();
        rooms.dedup();
        rooms
    }

    /// Whether it is a member of some room.
    pub fn is_in_a_room(&self) -> bool {
        self.subscriptions.iter().any(|kept| kept.joins().is_some())
    }

    /// Whether locks of rooms are not for it.
    pub fn observes(&self) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.grants.observe())
    }

    /// Marks a subscription as one that is not in the index. Says what it was. What has ended stays so.
    pub fn put_to_sleep(&mut self, filter: &str, standing: Standing) -> Option<Standing> {
        let position = self.find(filter).ok()?;
        self.outbound.forget(filter);
        let kept = &mut self.subscriptions[position].standing;
        let was = *kept;
        if !matches!(was, Standing::Over(_)) {
            *kept = standing;
        }
        Some(was)
    }

    /// The filters of its subscriptions inside a room.
    pub fn filters_in(&self, room: &str) -> Vec<Box<str>> {
        self.subscriptions.iter().filter(|kept| kept.room() == Some(room)).map(|kept| kept.filter.clone()).collect()
    }

    pub fn connected(&self) -> bool {
        !matches!(self.attachment, Attachment::None)
    }

    /// The waker of a client in this process, to be woken when the lock is released: it is somebody else's code.
    pub fn take_local_waker(&mut self) -> Option<Waker> {
        match &mut self.attachment {
            Attachment::Local(local) => local.waker.take(),
            _ => None,
        }
    }

    /// The index of a filter among the subscriptions, or where it belongs.
    pub fn find(&self, filter: &str) -> Result<usize, usize> {
        self.subscriptions.binary_search_by(|kept| (*kept.filter).cmp(filter))
    }

    /// Forgets a subscription and what it is still to bring. Says whether there was one.
    pub fn forget(&mut self, filter: &str) -> bool {
        let Ok(position) = self.find(filter) else { return false };
        self.subscriptions.remove(position);
        self.outbound.forget(filter);
        if self.subscriptions.len() < self.subscriptions.capacity() / 4 {
            self.subscriptions.shrink_to_fit();
        }
        true
    }

    /// Writes what waits, as far as the socket takes it. A socket that fails is left to the connection's task, which
    /// reads what the client said before (a DISCONNECT, say) and then the same failure; should it not, a socket that
    /// has failed counts as one that takes no bytes.
    pub(super) fn flush(&mut self, batch: &mut Batch, control: &[u8], now: Instant) -> Flushed {
        let mut flushed = Flushed::default();
        self.dirty = false;
        let Self { attachment, outbound, .. } = self;
        match attachment {
            Attachment::None | Attachment::Local(_) => {}
            Attachment::Link(link) if link.failed => {}
            Attachment::Link(link) if link.corked => link.control.extend_from_slice(control),
            Attachment::Link(link) => {
                let written = flush_link(link, outbound, batch, control, now, &mut flushed);
                if written.is_err() {
                    link.fail();
                }
                if matches!(written, Ok(true)) && outbound.hungry() {
                    link.waker.wake_by_ref(); // its task fetches more
                }
                if !matches!(written, Ok(true)) {
                    link.blocked_since.get_or_insert(now);
                    flushed.newly_blocked = !std::mem::replace(&mut link.watched, true);
                }
            }
        }
        flushed
    }
}

/// Says whether everything has gone.
fn flush_link(
    link: &mut Link,
    outbound: &mut Outbound,
    batch: &mut Batch,
    mut control: &[u8],
    now: Instant,
    flushed: &mut Flushed,
) -> std::io::Result<bool> {
    loop {
        if !push_unsent(link)? {
            link.control.extend_from_slice(control);
            return Ok(false);
        }
        link.blocked_since = None;
        batch.start(link.websocket);
        batch.head().append(&mut std::mem::take(&mut link.control));
        batch.head().extend_from_slice(std::mem::take(&mut control));
        while !link.finished && !batch.full() {
            let Some(next) = outbound.next(link.terms.window, now, &mut flushed.expired) else { break };
            put(link, outbound, batch, next, now, flushed);
        }
        if batch.is_empty() {
            return Ok(true);
        }
        batch.seal();
        let Link { stream, waker, unsent, .. } = link;
        let written = batch.write_to(unsent, |slices| match stream.write(slices, waker) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        });
        batch.clear();
        written?;
    }
}

/// Whether everything that the socket refused earlier has gone now.
fn push_unsent(link: &mut Link) -> std::io::Result<bool> {
    let Link { stream, waker, unsent, blocked_since, .. } = link;
    let would_block = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Ok(false),
        _ => Err(error),
    };
    if stream.unflushed() {
        match stream.flush(waker) {
            Ok(()) => {}
            Err(error) => return would_block(error),
        }
    }
    let mut start = 0;
    let result = loop {
        if start == unsent.len() {
            break Ok(true);
        }
        match stream.write(&[std::io::IoSlice::new(&unsent[start..])], waker) {
            Ok(0) => break Err(std::io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                start += written;
                *blocked_since = None; // it takes some, if slowly
            }
            Err(error) => break would_block(error),
        }
    };
    if start == unsent.len() {
        *unsent = Vec::new();
    } else {
        unsent.drain(..start);
    }
    Ok(result? && !stream.unflushed())
}

fn put(
    link: &mut Link,
    outbound: &mut Outbound,
    batch: &mut Batch,
    next: Transmit,
    now: Instant,
    flushed: &mut Flushed,
) {
    match next {
        Transmit::Publish { delivery, packet_id, dup } => {
            if link.publish(batch, &delivery, packet_id, dup, now) {
                if !dup {
                    batch.note(&delivery);
                }
                flushed.messages += 1;
                flushed.bytes += delivery.message.payload().len() as u64;
            } else {
                flushed.oversize += 1;
                outbound.discard(packet_id);
            }
        }
        Transmit::PubRel { packet_id } => {
            let ack =
                Ack { packet_id, reason: ReasonCode::SUCCESS, reason_string: None, user: UserProperties::default() };
            encode(batch.head(), link.terms.version, &Packet::PubRel(ack));
        }
    }
}
