//! What happens later: sessions that expire, wills that were put off, connections that fall silent, retained messages
//! that run out. One queue of deadlines for the process, one task that waits for the next of them.
//!
//! Nobody is judged by time in which this process did not run (it was stopped, or its machine was, or there was no
//! processor for it): what clients said then lies in the kernel, and is read first.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Hub, TimerKey, Timers,
    registry::{LOST, SILENT, STUCK},
};
use crate::{
    room::Lapse,
    session::{Look, Session},
    wire::ws,
};

/// Deadlines are met within this much, so that many fall together and wake the process once.
const SLACK: Duration = Duration::from_millis(50);
/// The clock looks up this often while anything waits, so that it notices that time has passed without it.
const BEAT: Duration = Duration::from_secs(1);
/// Looking up this much later than it wanted to, it takes it that the process did not run.
const STALL: Duration = Duration::from_millis(500);
/// Time for the workers, after that, to read what had come for every connection.
const MOMENT: Duration = Duration::from_secs(2);

/// Something that is due. What concerns one connection carries its epoch and is void in a later one.
pub(crate) enum Due {
    /// The session has been without a connection for as long as it may.
    Expiry(Weak<Session>, u32),
    /// The will delay interval has passed.
    Will(Weak<Session>, u32),
    /// Look when this client was last heard.
    Silence(Weak<Session>, u32),
    /// Look whether this socket still refuses bytes.
    Stuck(Weak<Session>, u32),
    /// The retained message of this topic runs out.
    Retained(Box<str>),
    /// The connection's token is about to run out, or has.
    Token(Weak<Session>, u32),
    /// The connection's TURN credential is about to run out.
    Ice(Weak<Session>, u32),
    /// The grace of a place in a room is over.
    Lapse(Lapse),
    /// Nobody may be kept out of this room any more, and nobody is in it.
    Bans(Box<str>),
}

#[derive(Default)]
pub(super) struct Clock {
    timers: Mutex<Timers<Due>>,
    earlier: Notify,
    /// Until when nobody counts as silent or stuck, because the process did not run.
    lenient: Mutex<Option<Instant>>,
}

impl Clock {
    pub fn at(&self, when: Instant, due: Due) -> TimerKey {
        let mut timers = self.timers.lock();
        let first = timers.next().is_none_or(|next| when < next);
        let key = timers.insert(when, due);
        drop(timers);
        if first {
            self.earlier.notify_one();
        }
        key
    }

    pub fn cancel(&self, key: TimerKey) {
        self.timers.lock().cancel(key);
    }

    /// The earliest deadline, which may have passed.
    pub fn next(&self) -> Option<Instant> {
        self.timers.lock().next()
    }

    /// The earliest of what is due at `now`.
    pub fn pop_due(&self, now: Instant) -> Option<Due> {
        self.timers.lock().pop_due(now)
    }

    pub fn len(&self) -> usize {
        self.timers.lock().len()
    }

    /// Says that the clock wanted to look up at `wanted`, and does so `now`.
    pub fn looked_up(&self, wanted: Instant, now: Instant) {
        let late = now.saturating_duration_since(wanted);
        if late > STALL {
            *self.lenient.lock() = Some(now + MOMENT);
            tracing::warn!(
                ?late,
                "this process did not run; what clients said meanwhile is read before they are judged"
            );
        }
    }

    /// When somebody may be judged who is overdue: now, unless the process has only just begun to run again.
    fn judged_at(&self, now: Instant) -> Instant {
        self.lenient.lock().map_or(now, |lenient| lenient.max(now))
    }

    /// Runs until it is dropped.
    pub async fn drive(hub: Arc<Hub>) {
        let clock = &hub.clock;
        let mut wanted = None;
        loop {
            let now = Instant::now();
            wanted.into_iter().for_each(|wanted| clock.looked_up(wanted, now));
            match clock.next() {
                None => {
                    wanted = None;
                    clock.earlier.notified().await;
                }
                Some(at) if at > now => {
                    let then = (at + SLACK).min(now + BEAT);
                    wanted = Some(then);
                    tokio::select! {
                        () = tokio::time::sleep_until(then.into()) => {}
                        () = clock.earlier.notified() => {}
                    }
                }
                Some(_) => {
                    wanted = Some(now);
                    if let Some(due) = clock.pop_due(now) {
                        hub.due(due, now);
                    }
                    // Many sessions may end at once; the connections of this thread have their turn in between.
                    tokio::task::coop::consume_budget().await;
                }
            }
        }
    }
}

impl Hub {
    pub(super) fn due(&self, due: Due, now: Instant) {
        match due {
            Due::Expiry(session, epoch) => session.upgrade().iter().for_each(|it| self.expire(it, epoch, now)),
            Due::Will(session, epoch) => session.upgrade().iter().for_each(|it| self.will_due(it, epoch, now)),
            Due::Silence(session, epoch) => session.upgrade().iter().for_each(|it| self.watch_silence(it, epoch, now)),
            Due::Stuck(session, epoch) => session.upgrade().iter().for_each(|it| self.look_if_stuck(it, epoch, now)),
            Due::Retained(topic) => self.expire_retained(&topic, now),
            Due::Token(session, epoch) => session.upgrade().iter().for_each(|it| self.watch_token(it, epoch, now)),
            Due::Ice(session, epoch) => session.upgrade().iter().for_each(|it| self.renew_ice(it, epoch, now)),
            Due::Lapse(lapse) => self.lapse(&lapse, now),
            Due::Bans(room) => self.bans_over(&room, now),
        }
    }

    /// Closes the connection if its client has been silent for too long, or looks again when that would be so. A peer
    /// behind a proxy is asked in between whether it is there.
    pub fn watch_silence(&self, session: &Arc<Session>, epoch: u32, now: Instant) {
        let mut state = session.lock();
        if session.epoch() != epoch {
            return;
        }
        let Some(link) = state.link() else { return };
        let heard = self.started + Duration::from_millis(session.heard());
        let silent = link.silence.map(|silence| heard + Duration::from_millis(silence.get().into()));
        let look = link.probe.as_mut().map(|probe| probe.look(heard, now));
        let (lost, again) = match look {
            Some(Look::Lost) => (true, Some(now)),
            Some(Look::Again(at) | Look::Ask(at)) => (false, Some(at)),
            None => (false, None),
        };
        let Some(next) = silent.into_iter().chain(again).min() else { return };
        let overdue = lost || silent.is_some_and(|at| at <= now);
        let judged = if overdue { self.clock.judged_at(now) } else { next };
        if judged <= now {
            link.silence_watch = None;
            link.close(if lost { LOST } else { SILENT });
            return;
        }
        link.silence_watch = Some(self.clock.at(judged, Due::Silence(Arc::downgrade(session), epoch)));
        if let Some(Look::Ask(_)) = look {
            ws::ping_frame(&mut link.unsent, b"");
            drop(state);
            self.flush(session, None, now);
        }
    }

    /// Has somebody look, after the write timeout, whether the socket of a session still refuses bytes.
    pub(super) fn watch_stuck(&self, session: &Arc<Session>, now: Instant) {
        let mut state = session.lock();
        let epoch = session.epoch();
        if let Some(link) = state.link().filter(|link| link.watched && link.stuck_watch.is_none()) {
            let due = Due::Stuck(Arc::downgrade(session), epoch);
            link.stuck_watch = Some(self.clock.at(now + self.limits.write_timeout, due));
        }
    }

    fn look_if_stuck(&self, session: &Arc<Session>, epoch: u32, now: Instant) {
        let mut state = session.lock();
        if session.epoch() != epoch {
            return;
        }
        let Some(link) = state.link() else { return };
        let Some(since) = link.blocked_since else {
            link.watched = false;
            link.stuck_watch = None;
            return;
        };
        let overdue = since + self.limits.write_timeout;
        let judged = if overdue <= now { self.clock.judged_at(now) } else { overdue };
        if judged <= now {
            link.stuck_watch = None;
            link.close(STUCK);
        } else {
            link.stuck_watch = Some(self.clock.at(judged, Due::Stuck(Arc::downgrade(session), epoch)));
        }
    }
}
