//! A connection whose CONNECT was accepted: the actor that reads for its session.
//!
//! One task for each connection, woken when bytes come, when a socket that was full takes bytes again, or when
//! somebody wants the connection ended. It handles every complete packet of a read, writes once to each receiver and
//! once to its own client, and owns no buffer while it is idle. However it ends, its session is told exactly once.

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    Close, Session,
    edge::{Edge, Slot},
    inbound::Inbound,
    inlet::{FrameEnd, Inlet, InletLimits, NORMAL_CLOSE, Read, ReadError, Stop},
    turn::{Scratch, Turn, Work},
};
use crate::{
    hub::{Collected, Connected, End, TOKEN_OVER},
    policy::{Identity, rate::Throttle},
    wire::{mqtt::ReasonCode, ws},
};

/// Reads of one turn; then other tasks of this thread have theirs.
const READS: usize = 8;
/// Deliveries of one turn, or what takes about as long, beyond which no further packet is handled in it: a few packets
/// can be for very many receivers.
pub const DELIVERIES: usize = 4096;
/// Answers that a client may leave unread before nothing more is read from it.
const UNREAD: usize = 64 * 1024;

/// See the module.
pub struct Connection {
    edge: Arc<Edge>,
    session: Arc<Session>,
    epoch: u32,
    identity: Arc<Identity>,
    /// How fast it may go; made when it sends something for the first time.
    throttle: Option<Box<Throttle>>,
    /// Since when packets that were read wait because they came too fast, and until when the first of them does.
    held_back: Option<Box<HeldBack>>,
    /// Taken when the connection is over and only read out.
    inlet: Option<Inlet>,
    inbound: Inbound,
    websocket: bool,
    since: Instant,
    outcome: Outcome,
    slot: Option<Slot>,
}

/// See [`Connection::held_back`].
struct HeldBack {
    /// `None`: nothing waits but what is still to be read.
    since: Option<Instant>,
    until: Pin<Box<tokio::time::Sleep>>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not, or its task was dropped or panicked.
    Dropped,
    /// DISCONNECT.
    Goodbye { with_will: bool },
    /// The peer ended the stream or the network did.
    Lost,
    /// A WebSocket close without DISCONNECT, or what is not WebSocket.
    Unframed(FrameEnd),
    /// We ended it.
    Closed(Close),
    /// Its session went on to another connection.
    Replaced,
}

impl Connection {
    pub fn new(
        edge: Arc<Edge>,
        connected: Connected,
        identity: Arc<Identity>,
        inlet: Inlet,
        inbound: Inbound,
        websocket: bool,
        slot: Slot,
    ) -> Self {
        Self {
            edge,
            session: connected.session,
            epoch: connected.epoch,
            identity,
            throttle: None,
            held_back: None,
            inlet: Some(inlet),
            inbound,
            websocket,
            since: Instant::now(),
            outcome: Outcome::Dropped,
            slot: Some(slot),
        }
    }

    fn limits(&self) -> InletLimits {
        self.edge.limits.inlet
    }

    /// What has to be seen to before reading: an end that somebody asked for, bytes that could not be sent, retained
    /// messages that the client has room for. Says whether the client reads its answers.
    fn attend(&mut self, cx: &Context<'_>, now: Instant) -> Result<bool, Outcome> {
        let mut state = self.session.lock();
        if self.session.epoch() != self.epoch {
            return Err(Outcome::Replaced);
        }
        let dirty = state.dirty;
        let Some(link) = state.link() else { return Err(Outcome::Replaced) };
        if !link.waker.will_wake(cx.waker()) {
            link.waker = cx.waker().clone();
        }
        if let Some(close) = link.closes_now() {
            return Err(Outcome::Closed(close));
        }
        let (waiting, close) = (dirty || link.waiting() > 0, link.close);
        let hungry = state.outbound.hungry();
        if !waiting && !hungry {
            return match close {
                Some(close) if state.outbound.is_empty() => Err(Outcome::Closed(close)),
                _ => Ok(true),
            };
        }
        drop(state);
        let collected = if hungry { self.edge.hub.collect(&self.session, now) } else { Collected::default() };
        if collected.again {
            cx.waker().wake_by_ref();
        }
        if waiting || collected.moved {
            self.edge.hub.flush(&self.session, None, now);
        }
        let mut state = self.session.lock();
        let sent = state.outbound.is_empty();
        let Some(link) = state.link() else { return Ok(true) };
        match link.close {
            Some(close) if sent && link.waiting() == 0 => Err(Outcome::Closed(close)),
            _ => Ok(link.waiting() < UNREAD),
        }
    }

    /// Handles one read's worth, or what was left of it. Says how many deliveries that made; not `Ok` when the
    /// connection is over.
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Outcome>> {
        let now = Instant::now();
        if !self.attend(cx, now)? {
            return Poll::Pending; // the write that is pending wakes the task
        }
        if self.is_held_back(cx) {
            return Poll::Pending;
        }
        thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.acks.clear();
            scratch.dirty.take_work();
            let limits = self.limits();
            let work = Work {
                edge: &self.edge,
                session: &self.session,
                epoch: self.epoch,
                identity: &mut self.identity,
                throttle: &mut self.throttle,
                waits_since: self.held_back.as_ref().and_then(|held| held.since),
                pings_wait: Duration::ZERO,
                version: self.inbound.version,
                scratch,
                now,
                heard: false,
                received: 0,
                bytes: 0,
                corked: false,
                with_will: false,
                errors_heard: false,
            };
            let mut turn = Turn { inbound: &mut self.inbound, work };
            let Some(inlet) = &mut self.inlet else { return Poll::Ready(Err(Outcome::Dropped)) };
            let polled = inlet.poll_read(cx, limits, &mut turn);
            let (with_will, pings_wait) = (turn.work.with_will, turn.work.pings_wait);
            let deliveries = turn.work.scratch.dirty.take_work();
            if polled.is_ready() {
                turn.work.finish();
            }
            if let Poll::Ready(Ok(_)) = polled {
                self.held_back = None;
            }
            if polled.is_ready() && !pings_wait.is_zero() {
                self.hold_back(now, pings_wait, None);
            }
            polled.map(|result| match result {
                Ok(Read::More) | Err(ReadError::Handled(Stop::Pause)) => Ok(deliveries),
                Err(ReadError::Handled(Stop::Later(wait))) => {
                    self.hold_back(now, wait.max(pings_wait), Some(now));
                    Ok(deliveries)
                }
                Ok(Read::End) => Err(Outcome::Lost),
                Err(ReadError::Io(error)) => {
                    tracing::debug!(client = ?self.session.client_id, %error, "read failed");
                    Err(Outcome::Lost)
                }
                Err(ReadError::Packet(error)) => Err(Outcome::Closed(error.into())),
                Err(ReadError::Frame(end)) => Err(Outcome::Unframed(end)),
                Err(ReadError::Handled(Stop::Close(close))) => Err(Outcome::Closed(close)),
                Err(ReadError::Handled(Stop::Replaced)) => Err(Outcome::Replaced),
                Err(ReadError::Handled(Stop::Goodbye | Stop::Taken)) => Err(Outcome::Goodbye { with_will }),
            })
        })
    }

    /// Reads nothing more for that long. Packets that were read may have been waiting already.
    fn hold_back(&mut self, now: Instant, wait: Duration, since: Option<Instant>) {
        let since = self.held_back.as_ref().and_then(|held| held.since).or(since);
        let until = Box::pin(tokio::time::sleep_until((now + wait).into()));
        self.held_back = Some(Box::new(HeldBack { since, until }));
    }

    /// Whether it is to read nothing yet.
    fn is_held_back(&mut self, cx: &mut Context<'_>) -> bool {
        self.held_back.as_mut().is_some_and(|held| held.until.as_mut().poll(cx).is_pending())
    }

    /// Tells a client why it is disconnected, if it can be told.
    fn say_goodbye(&self, close: Option<Close>, frames: FrameEnd) {
        let flush = || self.edge.hub.flush(&self.session, None, Instant::now());
        self.session.with_link(self.epoch, |link| {
            link.corked = false;
            link.finished = true;
            close.into_iter().for_each(|close| link.disconnect(close));
        });
        flush();
        if self.websocket {
            self.session.with_link(self.epoch, |link| ws::close_frame(&mut link.unsent, frames.code, frames.what));
            flush();
        }
        self.session.with_link(self.epoch, |link| link.stream.shutdown(&link.waker));
    }

    /// Runs the connection to its end. One that we end is read for a moment longer, because closing a socket with
    /// unread bytes destroys what the peer has yet to read: why it was closed.
    #[expect(clippy::manual_async_fn, reason = "it would have a place for its argument and one for its variable")]
    pub fn run(mut self) -> impl Future<Output = ()> {
        async move {
            self.outcome = (&mut self).await;
            if let Some((inlet, slot)) = self.finish() {
                drop(self);
                tokio::spawn(async move {
                    let _slot = slot;
                    inlet.linger().await;
                });
            }
        }
    }

    /// Says what there is to say at the end. Gives back what is to be read out, and the place that it takes meanwhile.
    fn finish(&mut self) -> Option<(Inlet, Option<Slot>)> {
        match self.outcome {
            Outcome::Closed(close) => self.say_goodbye(Some(close), FrameEnd { code: NORMAL_CLOSE, what: close.what }),
            Outcome::Goodbye { .. } => self.say_goodbye(None, FrameEnd { code: NORMAL_CLOSE, what: "" }),
            Outcome::Unframed(end) => self.say_goodbye(None, end),
            Outcome::Replaced => {} // told so by whoever took the session over
            Outcome::Dropped | Outcome::Lost => return None,
        }
        Some((self.inlet.take()?, self.slot.take()))
    }
}

/// The operator, a moderator or too many refusals ended it: whoever that is does not come back in a moment.
fn by_order(reason: ReasonCode) -> bool {
    matches!(reason, ReasonCode::ADMINISTRATIVE_ACTION | ReasonCode::MESSAGE_RATE_TOO_HIGH)
}

impl Future for Connection {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        let mut deliveries = 0;
        for _ in 0..READS {
            match this.poll_once(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(made)) => deliveries += made,
                Poll::Ready(Err(outcome)) => return Poll::Ready(outcome),
            }
            if deliveries >= DELIVERIES {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Tells the session that its connection is over, also when the task panicked or was dropped with its runtime.
impl Drop for Connection {
    fn drop(&mut self) {
        let end = match self.outcome {
            Outcome::Goodbye { with_will: false } => End::Normal,
            Outcome::Goodbye { with_will: true } => End::WithWill,
            Outcome::Closed(close) if close == TOKEN_OVER => End::Expired,
            Outcome::Closed(Close { reason, .. }) if by_order(reason) => End::Removed,
            _ => End::Lost,
        };
        self.edge.hub.disconnect(&self.session, self.epoch, end, Instant::now());
        self.edge.ended(&self.session, self.outcome, self.since);
    }
}
