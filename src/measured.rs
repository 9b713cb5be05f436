//! Entries for `benches/` and `tests/cost.rs`, which measure what has no other door. No part of the API.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Running,
    hub::{Dirty, Hub},
    policy::{Asker, Identity, PublishPermit},
    session::{
        Io, Session, Stream,
        accept::{Incoming, accept},
        edge::Slot,
    },
    wire::mqtt::Publish,
};

/// How long a CONNECT may take: as long as it likes under an emulator.
const CONNECT: Duration = Duration::from_secs(600);

/// Serves MQTT on a byte stream, in WebSocket frames or without, on the runtime that polls this: no socket, no other
/// thread, the same from one run to the next. `None` if there is no room for a connection.
pub fn serve<S: Io>(running: &Running, stream: S, websocket: bool) -> Option<impl Future<Output = ()> + use<S>> {
    let edge = Arc::clone(running.edge());
    let slot = edge.slot(Slot::UNKNOWN)?;
    let (stream, deadline) = (Stream::Other(Box::new(stream)), Instant::now() + CONNECT);
    Some(accept(edge, Incoming { stream, websocket, early: Vec::new(), slot, deadline }))
}

/// The steps of a publish behind its decoding, one at a time, for one client that is connected.
pub struct Steps {
    hub: Arc<Hub>,
    session: Arc<Session>,
    identity: Arc<Identity>,
    dirty: Dirty,
}

impl Steps {
    /// `None` if no such client is connected.
    pub fn of(running: &Running, client_id: &str) -> Option<Self> {
        let hub = Arc::clone(running.hub());
        let session = hub.sessions().into_iter().find(|session| &*session.client_id == client_id)?;
        let identity = session.lock().identity.clone()?;
        Some(Self { hub, session, identity, dirty: Dirty::default() })
    }

    /// Whether it may, and the message. `None` if it may not.
    pub fn permit(&self, publish: &Publish<'_>, now: Instant) -> Option<PublishPermit> {
        let in_room = |room: &str| self.hub.may_speak(&self.session, &self.identity, room, now);
        let asker = Asker { identity: &self.identity, client_id: &self.session.client_id, in_room: &in_room };
        self.hub.policy.publish(&asker, self.session.id, publish, now).ok()
    }

    /// Finds the receivers and queues the message for each. Says whether there are any.
    pub fn route(&mut self, permit: PublishPermit, now: Instant) -> bool {
        self.hub.take(&self.session, permit, now, &mut self.dirty).unwrap_or(false)
    }

    /// Encodes what is queued and writes it to the receivers' streams.
    pub fn write(&mut self, now: Instant) {
        self.dirty.flush(&self.hub, now);
    }
}
