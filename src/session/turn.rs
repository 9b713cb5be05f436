//! One read's packets being handled: what each does, and what is answered.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Close, Link, Session,
    connection::DELIVERIES,
    edge::Edge,
    inbound::{Codes, Inbound, Step},
    inlet::{Handler, Stop},
};
use crate::{
    config::Rate,
    hub::Dirty,
    policy::{Asker, ClassTag, Decided, Identity, Refusal, rate::Throttle},
    wire::{
        mqtt::{
            Ack, Auth, Disconnect, Packet, Publish, QoS, ReasonCode, SubAck, Subscribe, SubscribeOptions, Unsubscribe,
            UserProperties, Version, encode,
        },
        ws,
    },
};

/// Messages of one turn, at most, after which their receivers are written to: many fit into one read, and a queue is
/// for those who do not keep up.
const ROUTED: u64 = 128;

const TOO_MANY_FILTERS: Close =
    Close { reason: ReasonCode::QUOTA_EXCEEDED, what: "more filters in one packet than this server takes" };
/// Filters of one packet: as many as a session may have, and never fewer than this.
const FILTERS: usize = 256;
/// Refusing this is no strike: the client may not know better.
const TOO_FAST: Refusal = Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "too fast: send less, or slower" };
const TOO_OFTEN: Close =
    Close { reason: ReasonCode::MESSAGE_RATE_TOO_HIGH, what: "too many publishes or subscriptions were refused" };

/// Whether a packet may be handled that its rate does not hold back any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admitted {
    Now,
    /// It would have to wait for too long.
    Never,
}

/// Memory that the connections of a thread use in turn.
#[derive(Default)]
pub struct Scratch {
    /// Answers to the client whose turn it is.
    pub acks: Vec<u8>,
    pub dirty: Dirty,
}

/// One read's packets being handled.
pub struct Turn<'a> {
    pub inbound: &'a mut Inbound,
    pub work: Work<'a>,
}

/// What handling a packet needs beside the packet.
pub struct Work<'a> {
    pub edge: &'a Edge,
    pub session: &'a Arc<Session>,
    pub epoch: u32,
    pub identity: &'a mut Arc<Identity>,
    pub throttle: &'a mut Option<Box<Throttle>>,
    /// Since when the packets at hand have been waiting because they came too fast.
    pub waits_since: Option<Instant>,
    /// How long nothing more is to be read, because of pings.
    pub pings_wait: Duration,
    pub version: Version,
    pub scratch: &'a mut Scratch,
    pub now: Instant,
    /// Whether a packet was whole: nothing less keeps a connection alive.
    pub heard: bool,
    pub received: u64,
    pub bytes: u64,
    pub corked: bool,
    pub with_will: bool,
    /// Whether it has just begun to listen on its errors topic.
    pub errors_heard: bool,
}

impl Handler for Turn<'_> {
    fn version(&self) -> Version {
        self.inbound.version
    }

    fn packet(&mut self, packet: Packet<'_>, bytes: &[u8]) -> Result<(), Stop> {
        let work = &mut self.work;
        work.heard = true;
        if work.session.epoch() != work.epoch {
            return Err(Stop::Replaced); // whatever it still says, the session is another connection's
        }
        let moves = matches!(packet, Packet::Subscribe(_) | Packet::Unsubscribe(_));
        if moves {
            work.rested()?;
        }
        if let Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::PingReq | Packet::Auth(_) = packet {
            work.admit(None, bytes.len()).map_err(Stop::Later)?; // there is no refusing these: they wait as long as it takes
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
                work.subscribe(&subscribe)?;
            }
            Step::Unsubscribe(unsubscribe) => {
                work.bound_filters(unsubscribe.filters.iter().count())?;
                work.unsubscribe(&unsubscribe);
            }
            Step::Ping => encode(&mut work.scratch.acks, work.version, &Packet::PingResp), // [MQTT-3.12.4-1]
            Step::Reauthenticate { method, token } => work.reauthenticate(method, token)?,
            Step::Disconnect(disconnect) => {
                work.goodbye(&disconnect);
                return Err(Stop::Goodbye);
            }
        }
        if moves {
            work.pay_for_changes();
        }
        if work.scratch.dirty.work() < DELIVERIES { Ok(()) } else { Err(Stop::Pause) }
    }

    /// Frames are taken off before packets are handled, so a ping cannot wait; whatever comes next does.
    fn ping(&mut self, payload: &ws::ControlPayload) {
        let work = &mut self.work;
        work.with_link(|link| ws::pong_frame(&mut link.unsent, payload));
        let now = work.edge.hub.nanos(work.now);
        work.pings_wait = work.throttled().charge(0, now);
    }

    fn pong(&mut self) {
        let now = self.work.now;
        self.work.with_link(|link| link.probe.iter_mut().for_each(|probe| probe.answer(now)));
    }
}

impl Work<'_> {
    fn with_link(&self, change: impl FnOnce(&mut Link)) {
        self.session.with_link(self.epoch, change);
    }

    fn throttled(&mut self) -> &mut Throttle {
        let Self { edge, identity, session, now, .. } = self;
        self.throttle.get_or_insert_with(|| {
            let address = session.lock().link().and_then(|link| link.address);
            Box::new(edge.throttles.of(identity.base(), address, edge.hub.nanos(*now)))
        })
    }

    /// Takes a packet from the buckets that it concerns, or says how long to wait first.
    fn admit(&mut self, class: Option<(ClassTag, Rate)>, bytes: usize) -> Result<(), Duration> {
        let now = self.edge.hub.nanos(self.now);
        self.throttled().admit(class, bytes, now)
    }

    /// Takes a publish from the buckets that it concerns. Where they are empty it waits, and whatever is behind it; what
    /// would have to wait for too long is refused.
    fn throttle(&mut self, class: Option<(ClassTag, Rate)>, bytes: usize) -> Result<Admitted, Stop> {
        let Err(wait) = self.admit(class, bytes) else { return Ok(Admitted::Now) };
        let since = self.waits_since.unwrap_or(self.now);
        if self.now + wait <= since + self.edge.throttles.patience() {
            Err(Stop::Later(wait))
        } else {
            Ok(Admitted::Never)
        }
    }

    /// Whether joins and leaves that it made have been paid for.
    fn rested(&mut self) -> Result<(), Stop> {
        self.scratch.dirty.take_changes();
        let Some((class, rate)) = self.edge.hub.policy.rules().joining() else { return Ok(()) };
        let now = self.edge.hub.nanos(self.now);
        match self.throttle.as_ref().map_or(Duration::ZERO, |throttle| throttle.owes(class, &rate, now)) {
            Duration::ZERO => Ok(()),
            wait => Err(Stop::Later(wait)),
        }
    }

    /// Everybody in a room is told who comes and goes there: that counts like what a client says itself.
    fn pay_for_changes(&mut self) {
        let changes = self.scratch.dirty.take_changes();
        if changes > 0
            && let Some((class, rate)) = self.edge.hub.policy.rules().joining()
        {
            let now = self.edge.hub.nanos(self.now);
            self.throttled().charge_class(class, &rate, changes, now);
        }
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Result<(), Stop> {
        let asker_rooms = |room: &str| self.edge.hub.may_speak(self.session, self.identity, room, self.now);
        let asker = Asker { identity: self.identity, client_id: &self.session.client_id, in_room: &asker_rooms };
        let decided = self.edge.hub.policy.decide(&asker, publish);
        let class = decided.as_ref().ok().and_then(|decided| Some((decided.class()?, decided.rate)));
        let admitted = self.throttle(class, publish.topic.len() + publish.payload.len())?;
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
        let routed = match admitted {
            _ if !fresh => Ok(true),
            Admitted::Now => decided.and_then(|decided| self.route(&decided, publish)),
            Admitted::Never => Err(TOO_FAST),
        };
        if let Err(refusal) = routed {
            self.refused("publish", publish.topic, refusal)?;
        }
        let Some(packet_id) = publish.packet_id else {
            return Ok(()); // a refused QoS 0 message is dropped, and reported where its user listens
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

    /// Counts a refusal, and tells its user where that listens; one too many ends the connection.
    fn refused(&mut self, action: &'static str, topic: &str, refusal: Refusal) -> Result<(), Stop> {
        let hub = &self.edge.hub;
        hub.metrics.refused(action, refusal.reason);
        let now = hub.nanos(self.now);
        if self.throttled().tells(now) {
            hub.report(&self.session.user, topic, action, refusal.reason, refusal.what, &mut self.scratch.dirty);
        }
        let is_strike = refusal != TOO_FAST;
        let address = self.session.lock().link().and_then(|link| link.address);
        if is_strike && self.edge.strikes.strike(self.identity.base(), address, self.now) {
            tracing::warn!(client = ?self.session.client_id, user = ?self.session.user, "refused too often");
            return Err(TOO_OFTEN.into());
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

    fn route(&mut self, decided: &Decided<'_>, publish: &Publish<'_>) -> Result<bool, Refusal> {
        let hub = &self.edge.hub;
        let asker = Asker { identity: self.identity, client_id: &self.session.client_id, in_room: &|_| true };
        let permit = hub.policy.permit(&asker, decided, self.session.id, publish, self.now)?;
        decided.class().into_iter().for_each(|tag| hub.metrics.message(tag.class()));
        hub.take(self.session, permit, self.now, &mut self.scratch.dirty)
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

    fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), Stop> {
        // The SUBACK is to precede what the subscription brings, whoever else writes meanwhile.
        if !std::mem::replace(&mut self.corked, true) {
            self.with_link(|link| link.corked = true);
        }
        let (mut codes, mut why, mut enough) = (Codes::new(), None, Ok(()));
        for (filter, options) in subscribe.filters.iter() {
            let granted = self.subscribe_one(filter, options, subscribe.subscription_id);
            codes.push(match granted {
                Ok(qos) => qos as u8,
                Err(refusal) => {
                    why = Some(refusal.what);
                    enough = enough.and(self.refused("subscribe", filter, refusal));
                    refusal.reason.0
                }
            });
        }
        let ack = SubAck {
            packet_id: subscribe.packet_id,
            // Fixed header 5 at most, identifier 2, property length 2 at most, and 3 in front of the string.
            reason_string: why.and_then(|what| self.explained(what, 12 + codes.len())),
            user: UserProperties::default(),
            codes: &codes,
        };
        encode(&mut self.scratch.acks, self.version, &Packet::SubAck(ack));
        enough
    }

    fn subscribe_one(
        &mut self,
        filter: &str,
        options: SubscribeOptions,
        id: Option<NonZeroU32>,
    ) -> Result<QoS, Refusal> {
        let hub = &self.edge.hub;
        let asker = Asker { identity: self.identity, client_id: &self.session.client_id, in_room: &|_| false };
        let permit = hub.policy.subscribe(&asker, filter, options)?;
        hub.subscribe(self.session, &permit, self.identity, id, self.now, &mut self.scratch.dirty)?;
        hub.ice_subscribed(self.session, &permit, id, self.now, &mut self.scratch.dirty);
        self.errors_heard |= hub.policy.rules().errors_topic(&self.session.user).is_some_and(|topic| topic == filter);
        Ok(permit.options().qos)
    }

    /// AUTH 0x19: the same user with a new token (4.12.1).
    fn reauthenticate(&mut self, method: &str, token: &[u8]) -> Result<(), Stop> {
        let hub = &self.edge.hub;
        let refused = |refusal: Refusal| Stop::Close(Close { reason: ReasonCode::NOT_AUTHORIZED, what: refusal.what });
        let remote = self.session.lock().link().and_then(|link| link.address);
        let identity = hub.policy.auth.refresh(token, &self.session.user, remote).map_err(refused)?;
        *self.identity = Arc::new(identity);
        hub.identify(self.session, self.epoch, self.identity, self.now);
        hub.rejudge(self.session, self.epoch, self.now, &mut self.scratch.dirty);
        let auth = Auth { authentication_method: Some(method), ..Auth::default() };
        encode(&mut self.scratch.acks, self.version, &Packet::Auth(auth));
        Ok(())
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) {
        let (hub, dirty) = (&self.edge.hub, &mut self.scratch.dirty);
        let ended = |filter| match hub.unsubscribe(self.session, filter, self.now, dirty) {
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
        drop(state);
        self.edge.hub.leave_rooms(self.session, self.epoch, self.now, &mut self.scratch.dirty);
    }

    /// Writes what this read has brought: to the receivers first, then the answers.
    pub fn finish(self) {
        let hub = &self.edge.hub;
        if self.errors_heard {
            hub.errors_heard(self.session, self.now, &mut self.scratch.dirty);
        }
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
