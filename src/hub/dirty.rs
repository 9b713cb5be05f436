//! Sessions that were given messages and have not been written to yet.

use std::{sync::Arc, time::Instant};

use super::Hub;
use crate::session::{Close, Delivery, Link, Queued, Session};

/// Sockets written to by the thread that published; beyond it the receivers' own tasks do it, so that one large room
/// does not hold up everybody else on this worker.
const WRITTEN_AT_ONCE: usize = 64;

/// Collects receivers while messages are routed; [`Dirty::flush`] then writes once to each, however many messages it
/// got. Reused by its thread.
#[derive(Default)]
pub struct Dirty {
    sessions: Vec<Arc<Session>>,
    /// Sessions that could not take a message they were promised, to be ended once no lock is held.
    overflowed: Vec<Arc<Session>>,
    /// Connections to be ended when they have been sent what they were given.
    ending: Vec<(Arc<Session>, Close)>,
    dropped: u64,
    expired: u64,
    /// Deliveries since this was last asked, and what takes about as long.
    work: usize,
    /// Stays that began, ended or went to another session, since this was last asked.
    changes: usize,
}

impl Dirty {
    /// Queues `delivery` in `session`.
    pub(super) fn deliver(&mut self, hub: &Hub, session: &Arc<Session>, delivery: Delivery, now: Instant) {
        self.work += 1;
        let mut state = session.lock();
        if state.ended {
            return;
        }
        let connected = state.connected();
        match state.outbound.push(delivery, &hub.limits.queue, connected, now, &mut self.expired) {
            Queued::Accepted => {
                if connected && !state.dirty {
                    state.dirty = true;
                    self.sessions.push(Arc::clone(session));
                }
            }
            Queued::Dropped => self.dropped += 1,
            Queued::Overflow => {
                state.ended = true;
                self.overflowed.push(Arc::clone(session));
            }
        }
    }

    /// Has the connection of a session ended once it has been sent what it was given.
    pub fn close_afterwards(&mut self, session: &Arc<Session>, close: Close) {
        self.ending.push((Arc::clone(session), close));
    }

    /// Notes a change of a roster.
    pub(crate) fn changed(&mut self) {
        self.changes += 1;
    }

    pub fn take_changes(&mut self) -> usize {
        std::mem::take(&mut self.changes)
    }

    /// How much has been done since [`Dirty::take_work`].
    pub fn work(&self) -> usize {
        self.work
    }

    pub fn take_work(&mut self) -> usize {
        std::mem::take(&mut self.work)
    }

    /// A session that was given something otherwise, which was so much work.
    pub(super) fn add(&mut self, session: &Arc<Session>, work: usize) {
        self.work += work;
        let mut state = session.lock();
        if state.connected() && !std::mem::replace(&mut state.dirty, true) {
            self.sessions.push(Arc::clone(session));
        }
    }

    /// Writes to everybody who was given something. Call with no lock held.
    pub fn flush(&mut self, hub: &Hub, now: Instant) {
        self.write(None, hub, now);
    }

    /// The same, but leaves out one session, which its own connection is about to write to.
    pub fn flush_except(&mut self, own: &Arc<Session>, hub: &Hub, now: Instant) {
        self.write(Some(own), hub, now);
    }

    fn write(&mut self, own: Option<&Arc<Session>>, hub: &Hub, now: Instant) {
        for (index, session) in self.sessions.drain(..).enumerate() {
            if own.is_some_and(|own| Arc::ptr_eq(own, &session)) {
                continue;
            }
            // A client in this process has no task of ours that would see to it.
            let written_by_its_task = |link: &mut Link| link.waker.wake_by_ref();
            if index < WRITTEN_AT_ONCE || session.lock().link().map(written_by_its_task).is_none() {
                hub.flush(&session, None, now);
            }
        }
        if self.sessions.capacity() > 4096 {
            self.sessions = Vec::new();
        }
        if self.dropped > 0 {
            hub.metrics.dropped_full.increment(std::mem::take(&mut self.dropped));
        }
        if self.expired > 0 {
            hub.metrics.dropped_expired.increment(std::mem::take(&mut self.expired));
        }
        for session in self.overflowed.drain(..) {
            hub.overflow(&session);
        }
        for (session, close) in self.ending.drain(..) {
            hub.flush(&session, None, now);
            session.close(close);
        }
    }
}
