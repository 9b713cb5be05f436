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
    num::NonZeroU16,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    Close, Link, Session,
    edge::{Edge, Slot},
    inbound::{Codes, Inbound, Step},
    inlet::{FrameEnd, Handler, Inlet, InletLimits, NORMAL_CLOSE, Read, ReadError, Stop},
};
use crate::{
    backplane::Source,
    hub::{Connected, Dirty, End},
    policy::{Identity, Refusal},
    wire::{
        mqtt::{
            Ack, Disconnect, Packet, Publish, QoS, ReasonCode, SubAck, Subscribe, Unsubscribe, UserProperties, Version,
            encode,
        },
        ws,
    },
};

/// Reads of one turn; then other tasks of this thread have theirs.
const READS: usize = 8;
/// Messages of one turn, at most, after which their receivers are written to: many fit into one read, and a queue is
/// for those who do not keep up.
const ROUTED: u64 = 128;
/// Answers that a client may leave unread before nothing more is read from it.
const UNREAD: usize = 64 * 1024;

const TOO_MANY_FILTERS: Close =
    Close { reason: ReasonCode::QUOTA_EXCEEDED, what: "more filters in one packet than this server takes" };
/// Filters of one packet: as many as a session may have, and never fewer than this.
const FILTERS: usize = 256;

/// See the module.
pub struct Connection {
    edge: Arc<Edge>,
    session: Arc<Session>,
    epoch: u32,
    identity: Arc<Identity>,
    /// Taken when the connection is over and only read out.
    inlet: Option<Inlet>,
    inbound: Inbound,
    websocket: bool,
    since: Instant,
    outcome: Outcome,
    slot: Option<Slot>,
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

    /// What has to be seen to before reading: an end that somebody asked for, bytes that could not be sent. Says
    /// whether the client reads its answers.
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
        let waiting = dirty || link.waiting() > 0;
        drop(state);
        if waiting {
            self.edge.hub.flush(&self.session, None, now);
        }
        let mut state = self.session.lock();
        let queued = state.outbound.queued();
        let Some(link) = state.link() else { return Ok(true) };
        match link.close {
            Some(close) if queued == 0 && link.waiting() == 0 => Err(Outcome::Closed(close)),
            _ => Ok(link.waiting() < UNREAD),
        }
    }

    /// Handles one read's worth. `Ready` when the connection is over.
    fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Outcome>> {
        let now = Instant::now();
        if !self.attend(cx, now)? {
            return Poll::Pending; // the write that is pending wakes the task
        }
        self.with_scratch(now, |inlet, limits, turn| inlet.poll_read(cx, limits, turn))
    }

    /// Handles what was read together with CONNECT.
    fn start(&mut self) -> Result<(), Outcome> {
        let now = Instant::now();
        let polled = self
            .with_scratch(now, |inlet, limits, turn| Poll::Ready(inlet.feed(&[], limits, turn).map(|()| Read::More)));
        match polled {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    fn with_scratch(
        &mut self,
        now: Instant,
        read: impl FnOnce(&mut Inlet, InletLimits, &mut Turn<'_>) -> Poll<Result<Read, ReadError>>,
    ) -> Poll<Result<(), Outcome>> {
        thread_local!(static SCRATCH: RefCell<Scratch> = RefCell::default());
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.acks.clear();
            let limits = self.limits();
            let work = Work {
                edge: &self.edge,
                session: &self.session,
                epoch: self.epoch,
                identity: &self.identity,
                version: self.inbound.version,
                scratch,
                now,
                heard: false,
                received: 0,
                bytes: 0,
                corked: false,
                with_will: false,
            };
            let mut turn = Turn { inbound: &mut self.inbound, work };
            let Some(inlet) = &mut self.inlet else { return Poll::Ready(Err(Outcome::Dropped)) };
            let polled = read(inlet, limits, &mut turn);
            let with_will = turn.work.with_will;
            if polled.is_ready() {
                turn.work.finish();
            }
            polled.map(|result| match result {
                Ok(Read::More) => Ok(()),
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
    pub async fn run(mut self) {
        self.outcome = match self.start() {
            Ok(()) => (&mut self).await,
            Err(outcome) => outcome,
        };
        match self.outcome {
            Outcome::Closed(close) => self.say_goodbye(Some(close), FrameEnd { code: NORMAL_CLOSE, what: close.what }),
            Outcome::Goodbye { .. } => self.say_goodbye(None, FrameEnd { code: NORMAL_CLOSE, what: "" }),
            Outcome::Unframed(end) => self.say_goodbye(None, end),
            Outcome::Replaced => {} // told so by whoever took the session over
            Outcome::Dropped | Outcome::Lost => return,
        }
        let (inlet, slot) = (self.inlet.take(), self.slot.take());
        drop(self);
        tokio::spawn(async move {
            let _slot = slot;
            if let Some(inlet) = inlet {
                inlet.linger().await;
            }
        });
    }
}

impl Future for Connection {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let this = &mut *self;
        for _ in 0..READS {
            match this.poll_once(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(outcome)) => return Poll::Ready(outcome),
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
            _ => End::Lost,
        };
        self.edge.hub.disconnect(&self.session, self.epoch, end, Instant::now());
        self.edge.ended(&self.session, self.outcome, self.since);
    }
}

/// Memory that the connections of a thread use in turn.
#[derive(Default)]
struct Scratch {
    /// Answers to the client whose turn it is.
    acks: Vec<u8>,
    dirty: Dirty,
}

/// One read's packets being handled.
struct Turn<'a> {
    inbound: &'a mut Inbound,
    work: Work<'a>,
}

/// What handling a packet needs beside the packet.
struct Work<'a> {
    edge: &'a Edge,
    session: &'a Arc<Session>,
    epoch: u32,
    identity: &'a Identity,
    version: Version,
    scratch: &'a mut Scratch,
    now: Instant,
    /// Whether a packet was whole: nothing less keeps a connection alive.
    heard: bool,
    received: u64,
    bytes: u64,
    corked: bool,
    with_will: bool,
}

impl Handler for Turn<'_> {
    fn version(&self) -> Version {
        self.inbound.version
    }

    fn packet(&mut self, packet: Packet<'_>, _bytes: &[u8]) -> Result<(), Stop> {
        let work = &mut self.work;
        work.heard = true;
        if work.session.epoch() != work.epoch {
            return Err(Stop::Replaced); // whatever it still says, the session is another connection's
        }
        match self.inbound.step(packet)? {
            Step::Publish(publish) => work.publish(&publish)?,
            Step::PubAck(ack) => {
                work.session.lock().outbound.puback(ack.packet_id);
            }
            Step::PubRec(ack) => {
                let answer = work.session.lock().outbound.pubrec(ack.packet_id, ack.reason);
                if let Some(reason) = answer {
                    work.acknowledge(Packet::PubRel, ack.packet_id, reason, "no such message");
                }
            }
            Step::PubRel(ack) => {
                let known = work.session.lock().unreleased.release(ack.packet_id);
                // On a session's later connections it is a PUBREL whose PUBCOMP was lost: "not an error during
                // recovery" (3.7.2.1), and MQTT.js would take it for one.
                let fine = known || work.epoch > 1;
                let reason = if fine { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
                work.acknowledge(Packet::PubComp, ack.packet_id, reason, "no such message");
            }
            Step::PubComp(ack) => {
                work.session.lock().outbound.pubcomp(ack.packet_id);
            }
            Step::Subscribe(subscribe) => {
                work.bound_filters(subscribe.filters.iter().count())?;
                work.subscribe(&subscribe);
            }
            Step::Unsubscribe(unsubscribe) => {
                work.bound_filters(unsubscribe.filters.iter().count())?;
                work.unsubscribe(&unsubscribe);
            }
            Step::Ping => encode(&mut work.scratch.acks, work.version, &Packet::PingResp), // [MQTT-3.12.4-1]
            Step::Disconnect(disconnect) => {
                work.goodbye(&disconnect);
                return Err(Stop::Goodbye);
            }
        }
        Ok(())
    }

    fn ping(&mut self, payload: &ws::ControlPayload) {
        self.work.with_link(|link| ws::pong_frame(&mut link.unsent, payload));
    }
}

impl Work<'_> {
    fn with_link(&self, change: impl FnOnce(&mut Link)) {
        self.session.with_link(self.epoch, change);
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Result<(), Stop> {
        self.received += 1;
        self.bytes += publish.payload.len() as u64;
        let together = (self.edge.hub.limits.queue.messages as u64 / 4).clamp(1, ROUTED);
        if self.received.is_multiple_of(together) {
            self.scratch.dirty.flush(&self.edge.hub, self.now);
        }
        let fresh = match (publish.qos, publish.packet_id) {
            (QoS::ExactlyOnce, Some(id)) => self.session.lock().unreleased.receive(id, self.receive_maximum())?,
            _ => true,
        };
        let routed = if fresh { self.route(publish) } else { Ok(true) };
        let Some(packet_id) = publish.packet_id else {
            return Ok(()); // a refused QoS 0 message is dropped and counted
        };
        let (reason, what) = match routed {
            Ok(true) => (ReasonCode::SUCCESS, ""),
            Ok(false) => (ReasonCode::NO_MATCHING_SUBSCRIBERS, ""),
            Err(refusal) => (refusal.reason, refusal.what),
        };
        if publish.qos == QoS::AtLeastOnce {
            self.acknowledge(Packet::PubAck, packet_id, reason, what);
        } else {
            // In 5.0 a refusal ends the exchange; 3.1.1 cannot be told and releases it as usual.
            if reason.is_error() && self.version == Version::V5 {
                self.session.lock().unreleased.release(packet_id);
            }
            self.acknowledge(Packet::PubRec, packet_id, reason, what);
        }
        Ok(())
    }

    /// What a client may have unreleased: 3.1.1 knows no bound but the number of identifiers.
    fn receive_maximum(&self) -> u16 {
        match self.version {
            Version::V5 => self.edge.limits.inflight,
            Version::V311 => u16::MAX,
        }
    }

    fn route(&mut self, publish: &Publish<'_>) -> Result<bool, Refusal> {
        let hub = &self.edge.hub;
        let routed = hub.policy.publish(self.identity, self.session.id, publish, self.now).and_then(|permit| {
            hub.publish_from(Source::Client(self.identity), permit, self.now, &mut self.scratch.dirty)
        });
        if routed.is_err() {
            hub.metrics.publishes_refused.increment(1);
        }
        routed
    }

    fn acknowledge(
        &mut self,
        kind: fn(Ack<'static>) -> Packet<'static>,
        packet_id: NonZeroU16,
        reason: ReasonCode,
        what: &'static str,
    ) {
        let ack = Ack {
            packet_id,
            reason,
            // Fixed header 2, identifier 2, reason 1, property length 1, and 3 in front of the string.
            reason_string: if reason.is_error() { self.explained(what, 9) } else { None },
            user: UserProperties::default(),
        };
        encode(&mut self.scratch.acks, self.version, &kind(ack));
    }

    /// Gives back a reason string if this client wants them [MQTT-3.1.2-29] and its packet has room for it.
    fn explained<'w>(&self, what: &'w str, beside: usize) -> Option<&'w str> {
        let mut explained = None;
        if self.version == Version::V5 {
            self.with_link(|link| {
                explained = link.terms.explained(what, beside).filter(|_| link.terms.problem_information);
            });
        }
        explained
    }

    /// One packet can name tens of thousands of filters, each of them work.
    fn bound_filters(&self, count: usize) -> Result<(), Stop> {
        if count <= self.edge.hub.limits.subscriptions.max(FILTERS) { Ok(()) } else { Err(TOO_MANY_FILTERS.into()) }
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>) {
        // The SUBACK is to precede what the subscription brings, whoever else writes meanwhile.
        if !std::mem::replace(&mut self.corked, true) {
            self.with_link(|link| link.corked = true);
        }
        let hub = &self.edge.hub;
        let mut codes = Codes::new();
        let mut why = None;
        for (filter, options) in subscribe.filters.iter() {
            let granted = hub.policy.subscribe(self.identity, filter, options).and_then(|permit| {
                let id = subscribe.subscription_id;
                hub.subscribe(self.session, &permit, id, self.now, &mut self.scratch.dirty)?;
                Ok(permit.options().qos as u8)
            });
            codes.push(granted.unwrap_or_else(|refusal| {
                hub.metrics.subscribes_refused.increment(1);
                why = Some(refusal.what);
                refusal.reason.0
            }));
        }
        let ack = SubAck {
            packet_id: subscribe.packet_id,
            // Fixed header 5 at most, identifier 2, property length 2 at most, and 3 in front of the string.
            reason_string: why.and_then(|what| self.explained(what, 12 + codes.len())),
            user: UserProperties::default(),
            codes: &codes,
        };
        encode(&mut self.scratch.acks, self.version, &Packet::SubAck(ack));
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) {
        let ended = |filter| match self.edge.hub.unsubscribe(self.session, filter) {
            true => ReasonCode::SUCCESS.0,
            false => ReasonCode::NO_SUBSCRIPTION_EXISTED.0,
        };
        let codes: Codes = unsubscribe.filters.iter().map(ended).collect();
        let packet_id = unsubscribe.packet_id;
        let ack = SubAck { packet_id, reason_string: None, user: UserProperties::default(), codes: &codes };
        encode(&mut self.scratch.acks, self.version, &Packet::UnsubAck(ack));
    }

    /// Takes effect at once: whoever comes for the session before this connection is closed finds it so.
    fn goodbye(&mut self, disconnect: &Disconnect<'_>) {
        self.with_will = disconnect.reason != ReasonCode::SUCCESS;
        let mut state = self.session.lock();
        if self.session.epoch() != self.epoch {
            return;
        }
        if let Some(expiry) = disconnect.session_expiry {
            state.expiry = self.edge.limits.expiry(expiry);
        }
        if !self.with_will {
            state.will = None; // [MQTT-3.14.4-3]
        }
    }

    /// Writes what this read has brought: to the receivers first, then the answers.
    fn finish(self) {
        let hub = &self.edge.hub;
        if self.heard {
            self.session.hear(hub.millis(self.now)); // [MQTT-3.1.2-22]
        }
        if self.received > 0 {
            hub.metrics.messages_received.increment(self.received);
            hub.metrics.bytes_received.increment(self.bytes);
        }
        if self.corked {
            // With the answers in it, so that whoever writes next writes them first.
            let answers = std::mem::take(&mut self.scratch.acks);
            self.with_link(|link| {
                link.control.extend_from_slice(&answers);
                link.corked = false;
            });
        }
        self.scratch.dirty.flush_except(self.session, hub, self.now);
        hub.flush(self.session, Some((self.epoch, &self.scratch.acks)), self.now);
    }
}
