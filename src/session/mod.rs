//! MQTT sessions: what a client has with the server, with or without a connection.
//!
//! A [`Session`] is shared: its connection's task reads for it, the hub queues messages in it, and whoever has done so
//! writes them to the socket at once (see [`Session::flush`]), so that a delivery costs no task switch. What the
//! protocol demands of it is pure: [`outbound`] for messages to the client, [`inbound`] for packets from it.

pub mod accept;
mod batch;
mod connection;
mod cursor;
pub mod edge;
mod inbound;
pub mod inlet;
mod link;
mod outbound;
mod state;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod turn;

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    task::Waker,
    time::Instant,
};

use parking_lot::{Mutex, MutexGuard};

pub use cursor::Cursor;
pub use link::{Close, Link, Look, Terms};
pub use outbound::{Delivery, Outbound, QueueLimits, Queued, SubscriptionIds};
pub use state::{Attachment, Flushed, Kept, Over, Standing, State};
pub use stream::{Io, ReadHalf, Stream, WriteHalf};

use crate::{hub::SubscriberId, metrics::Latency};

/// One MQTT session. Lock order: a shard of the hub, then a session; never two sessions.
pub struct Session {
    pub id: SubscriberId,
    pub client_id: Box<str>,
    /// The user it belongs to; each of its connections has an identity of its own.
    pub user: Box<str>,
    /// Counts the connections of this session; the task of an older one sees that it has been replaced.
    epoch: AtomicU32,
    /// Milliseconds on the hub's clock at which the client was last heard.
    heard: AtomicU64,
    state: Mutex<State>,
}

impl Session {
    pub fn new(id: SubscriberId, client_id: &str, user: &str) -> Self {
        Self {
            id,
            client_id: client_id.into(),
            user: user.into(),
            epoch: AtomicU32::new(0),
            heard: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Begins the next connection's epoch. Call with the state locked.
    pub fn next_epoch(&self) -> u32 {
        self.epoch.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub fn hear(&self, millis: u64) {
        self.heard.store(millis, Ordering::Relaxed);
    }

    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Writes `control` (encoded packets other than PUBLISH, from the connection of that epoch) and then the messages
    /// that wait for this client, as far as its socket takes them. How long those took from where they came from to
    /// there goes to `latency`.
    pub fn flush(&self, control: Option<(u32, &[u8])>, now: Instant, latency: &Latency) -> Flushed {
        thread_local!(static BATCH: RefCell<batch::Batch> = RefCell::default());
        let (flushed, local) = BATCH.with_borrow_mut(|batch| {
            let mut state = self.lock();
            let control = control.filter(|(epoch, _)| *epoch == self.epoch()).map_or(&[][..], |(_, bytes)| bytes);
            let flushed = state.flush(batch, control, now);
            let local = state.take_local_waker();
            drop(state);
            latency.record(batch.take_notes());
            (flushed, local)
        });
        local.into_iter().for_each(Waker::wake);
        flushed
    }

    /// Asks the present connection to end; without one, nothing.
    pub fn close(&self, close: Close) {
        self.end(|link| link.close(close));
    }

    /// Asks the present connection to end when it has sent what waits.
    pub fn drain(&self, close: Close) {
        self.end(|link| link.drain(close));
    }

    fn end(&self, ask: impl FnOnce(&mut Link)) {
        let mut state = self.lock();
        match &mut state.attachment {
            Attachment::Link(link) => ask(link),
            Attachment::Local(_) => state.ended = true,
            Attachment::None => {}
        }
        let local = state.take_local_waker();
        drop(state);
        local.into_iter().for_each(Waker::wake);
    }

    /// Gives the link of the connection of `epoch` to `change`, if that is still the session's connection.
    pub fn with_link(&self, epoch: u32, change: impl FnOnce(&mut Link)) {
        let mut state = self.lock();
        if self.epoch() == epoch
            && let Some(link) = state.link()
        {
            change(link);
        }
    }
}
