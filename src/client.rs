//! A client inside the process: publish, subscribe, receive, without a socket or a byte of MQTT.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use crate::{
    hub::{self, Collected, Dirty, End, Hub},
    policy::{Asker, Identity, Refusal, grants::Grants, valid_name},
    session::{Attachment, Delivery, Session},
    wire::mqtt::{Publish, PublishProperties, QoS, SubscribeOptions, topic},
};

/// Takes part in the broker from inside the process. Ends, with its subscriptions, when it is dropped.
///
/// It is bound by the same policy and the same queue limits as everybody else; a client that lets its queue of
/// QoS 1 and 2 messages overflow is ended: [`Client::recv`] returns what was queued, and then `None`.
pub struct Client {
    hub: Arc<Hub>,
    session: Arc<Session>,
    epoch: u32,
    identity: Arc<Identity>,
}

/// A message that a [`Client`] received.
#[derive(Debug, Clone)]
pub struct Received {
    delivery: Delivery,
}

/// Not a user name: 1 to 64 bytes of UTF-8, one topic level, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError(String);

/// Why a publish or a subscription was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// Not a topic name, or not a topic filter, of MQTT (4.7).
    Topic(String),
    /// The policy, or a limit, says no.
    Refused(Refusal),
}

impl Client {
    pub(crate) fn new(hub: Arc<Hub>, name: &str, grants: Grants) -> Result<Self, NameError> {
        if !valid_name(name) {
            return Err(NameError(name.into()));
        }
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        // No client on the wire can have this id: U+0000 is not allowed there [MQTT-1.5.4-2].
        let identity = Arc::new(Identity::local(name, grants));
        let client_id = format!("\0local-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let request = hub::Connect {
            client_id: &client_id,
            identity: &identity,
            clean_start: true,
            expiry: 0,
            attachment: Attachment::Local(Box::default()),
            greeting: &|_| Vec::new(),
            will: None,
        };
        match hub.connect(request, Instant::now()) {
            Ok(connected) => Ok(Self { session: connected.session, epoch: connected.epoch, identity, hub }),
            Err(_) => Err(NameError(name.into())),
        }
    }

    /// Publishes; `Ok(false)` if nobody is subscribed.
    ///
    /// # Errors
    /// [`ClientError::Topic`] for what is no topic name, [`ClientError::Refused`] for what the policy refuses.
    pub fn publish(&self, topic: &str, payload: &[u8], qos: QoS) -> Result<bool, ClientError> {
        self.send(topic, payload, qos, false)
    }

    /// Publishes a retained message; with an empty payload, clears it.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub fn publish_retained(&self, topic: &str, payload: &[u8], qos: QoS) -> Result<bool, ClientError> {
        self.send(topic, payload, qos, true)
    }

    fn send(&self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Result<bool, ClientError> {
        if !topic::valid_name(topic) {
            return Err(ClientError::Topic(topic.into()));
        }
        let now = Instant::now();
        let properties = PublishProperties::default();
        let publish = Publish { dup: false, qos, retain, topic, packet_id: None, properties, payload };
        let mut dirty = Dirty::default();
        let in_room = |room: &str| self.hub.may_speak(&self.session, &self.identity, room, now);
        let permit = self.hub.policy.publish(&self.asker(&in_room), self.session.id, &publish, now);
        let routed = permit.and_then(|permit| self.hub.take(&self.session, permit, now, &mut dirty));
        dirty.flush(&self.hub, now);
        routed.map_err(ClientError::Refused)
    }

    /// Subscribes; retained messages come first. On `users/NAME/ice` the ICE servers are told at once, and again before
    /// their credential runs out.
    ///
    /// # Errors
    /// [`ClientError::Topic`] for what is no topic filter, [`ClientError::Refused`] for what the policy refuses.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<(), ClientError> {
        if !topic::valid_filter(filter) {
            return Err(ClientError::Topic(filter.into()));
        }
        let now = Instant::now();
        let mut dirty = Dirty::default();
        let id: Option<NonZeroU32> = None;
        let options = SubscribeOptions::new(qos);
        let permit = self.hub.policy.subscribe(&self.asker(&|_| false), filter, options);
        let subscribed = permit.and_then(|permit| {
            self.hub.subscribe(&self.session, &permit, &self.identity, id, now, &mut dirty)?;
            self.hub.ice_subscribed(&self.session, &permit, id, now, &mut dirty);
            Ok(())
        });
        dirty.flush(&self.hub, now);
        subscribed.map_err(ClientError::Refused)
    }

    /// Ends a subscription; `false` if there was none.
    pub fn unsubscribe(&self, filter: &str) -> bool {
        let (now, mut dirty) = (Instant::now(), Dirty::default());
        let existed = self.hub.unsubscribe(&self.session, filter, now, &mut dirty);
        dirty.flush(&self.hub, now);
        existed
    }

    fn asker<'a>(&'a self, in_room: &'a dyn Fn(&str) -> bool) -> Asker<'a> {
        Asker { identity: &self.identity, client_id: &self.session.client_id, in_room }
    }

    /// The next message; `None` once the client was ended and has taken what came before.
    pub async fn recv(&mut self) -> Option<Received> {
        std::future::poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`Client::recv`], for whoever implements a stream.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        let now = Instant::now();
        loop {
            let mut expired = 0;
            let mut state = self.session.lock();
            let delivery = state.outbound.take(now, &mut expired);
            self.hub.metrics.dropped_expired.increment(expired);
            if let Some(delivery) = delivery {
                self.hub.metrics.messages_sent.increment(1);
                return Poll::Ready(Some(Received { delivery }));
            }
            if state.ended {
                if state.outbound.abandon() {
                    continue;
                }
                return Poll::Ready(None);
            }
            if let Attachment::Local(local) = &mut state.attachment {
                local.waker = Some(cx.waker().clone());
            }
            let hungry = state.outbound.hungry();
            drop(state);
            let collected = if hungry { self.hub.collect(&self.session, now) } else { Collected::default() };
            if !collected.moved {
                if collected.again {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hub.disconnect(&self.session, self.epoch, End::Normal, Instant::now());
    }
}

impl Received {
    pub fn topic(&self) -> &str {
        self.delivery.message.topic()
    }

    pub fn payload(&self) -> &[u8] {
        self.delivery.message.payload()
    }

    pub fn qos(&self) -> QoS {
        self.delivery.qos
    }

    /// Whether it is a retained message, sent because of the subscription.
    pub fn retain(&self) -> bool {
        self.delivery.retain
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no user name: 1 to 64 bytes, none of / + # or control characters", self.0)
    }
}

impl std::error::Error for NameError {}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(topic) => write!(f, "{topic:?} is no valid topic"),
            Self::Refused(refusal) => write!(f, "refused (0x{:02X}): {}", refusal.reason.0, refusal.what),
        }
    }
}

impl std::error::Error for ClientError {}
