//! The link to a broker that speaks MQTT 5.0: a connection that is made again whenever it ends.
//!
//! One task. It reads once, handles every whole packet, takes from the [`Outbox`](super::outbox::Outbox) what the broker
//! takes at present, and writes all of it, answers included, once: a shared message costs what one more subscriber
//! costs. Reading goes on while a write waits, so that neither side waits for the other. What must not be lost is in
//! the outbox, which knows what to say again; here is only what is on the wire at the moment, and all of that is
//! bounded.
//!
//! The packets are those of [`wire`](crate::wire::mqtt), which is strict: whatever a broker says, the worst that comes
//! of it is another connection, after a pause.

mod connect;
mod exchange;

use std::{
    hash::{BuildHasher, RandomState},
    io,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{Backplane, Health, embedded};
use crate::{
    config::BackplaneConfig,
    hub::Hub,
    wire::mqtt::{Disconnect, Packet, ReasonCode, Version, encode},
};
pub use connect::Broker;
use connect::{Failure, Login, Stream, Welcome, broken, jittered};
use exchange::Exchange;

/// What client ids of links begin with.
pub const LINK_ID: &str = "wigwag-link-";

/// See the module.
pub struct Link {
    broker: Broker,
    login: Login,
    backplane: Arc<Backplane>,
    hub: Arc<Hub>,
    exchange: Exchange,
    look_every: Duration,
    /// The next connection gives up the session.
    clean_start: bool,
    /// Connections in a row that did not come to a round trip, and those of them that broke the protocol after CONNACK
    /// while nothing of ours was in flight.
    failures: u32,
    broken: u32,
    /// Times in a row that the broker answered no CONNECT, or no probe.
    silences: u32,
    /// When the present connection was made, and how many before it did not last.
    since: Option<Instant>,
    fleeting: u32,
    /// What came of an incomplete packet.
    incoming: Vec<u8>,
    /// What is said and not written yet, from `written` on.
    out: Vec<u8>,
    written: usize,
}

/// Messages of QoS 1 and 2 that are not acknowledged at a time, in each direction; fewer where the broker says so. A
/// probe waits behind them, and behind what a broker writes to its disk for each.
const INFLIGHT: NonZeroU16 = NonZeroU16::new(64).unwrap();
/// Neither side is silent for longer; the probes find out sooner, unless they are rare.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// From address to CONNACK: of a broker elsewhere, and of one in this process, which may have died in the middle of it.
const CONNECT_TIME: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];
/// How long the broker may take no bytes.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// What there is room for in a read, in bytes.
const READ: usize = 32 << 10;
/// Bytes after which nothing more is taken from the outbox until they are written.
const WRITE: usize = 64 << 10;
/// Bytes of answers, beside those, after which no more is read.
const ANSWERS: usize = 64 << 10;
/// Buffers that a large packet has stretched further than this are given back.
const KEPT: usize = 256 << 10;
/// How long the last words of a connection may take, in either direction.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// Attempts after which an embedded broker that does not answer is replaced, and the protocol is begun anew.
const PATIENCE: u32 = 3;
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A connection that ends sooner makes the next pause longer, however well it was: another server may have our name, and
/// the two would take the session from each other without a pause.
const STEADY: Duration = Duration::from_secs(3);
/// Pauses where the broker does not want us: nothing that we do changes that.
const UNWANTED: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(60)];

/// Not every broker says why.
const CLOSED: &str = "the broker closed the connection; if it does so again and again, another server there may have \
                      the same server.node";

/// What a connection waits for.
enum Wake {
    /// All that was said is written.
    Written(io::Result<()>),
    Read(io::Result<usize>),
    /// There is more in the outbox.
    More,
    Tick,
}

impl Link {
    pub fn new(config: &BackplaneConfig, broker: Broker, backplane: Arc<Backplane>, hub: Arc<Hub>) -> Self {
        let remote = matches!(broker, Broker::Remote { .. });
        let client_id = if remote {
            format!("wigwag-{}", backplane.node)
        } else {
            // No two servers of this process, and none of its earlier ones.
            format!("{LINK_ID}{}-{:08x}", backplane.node, RandomState::new().hash_one(0) as u32)
        };
        let credentials = (remote && !config.username.is_empty()).then(|| {
            let password = config.password.as_ref().map(|password| password.expose()).unwrap_or_default();
            (config.username.clone(), password.to_owned())
        });
        let (other, hubs) = (Arc::clone(&backplane), Arc::clone(&hub));
        Self {
            exchange: Exchange::new(other, hubs, !remote, &client_id, config.probe, Instant::now()),
            login: Login {
                client_id,
                credentials,
                session: if remote { config.session } else { Duration::from_secs(600) },
                packet_max: backplane.bounds.packet,
            },
            broker,
            look_every: (config.ttl / 4).min(config.probe / 2).clamp(Duration::from_millis(20), KEEP_ALIVE / 10),
            backplane,
            hub,
            clean_start: false,
            failures: 0,
            broken: 0,
            silences: 0,
            since: None,
            fleeting: 0,
            incoming: Vec::new(),
            out: Vec::new(),
            written: 0,
        }
    }

    /// Keeps the link up until it is dropped.
    pub async fn run(mut self) {
        let look = look(Arc::clone(&self.backplane), Arc::clone(&self.hub), self.look_every);
        tokio::select! {
            () = self.drive() => {}
            () = look => {}
        }
    }

    async fn drive(&mut self) {
        loop {
            let failure = match self.connect().await {
                Ok((stream, welcome)) => self.converse(stream, &welcome).await,
                Err(failure) => failure,
            };
            let pause = self.end(failure);
            sleep(pause).await;
            self.begin_again().await;
        }
    }

    async fn connect(&mut self) -> Result<(Box<dyn Stream>, Welcome), Failure> {
        let time = CONNECT_TIME[usize::from(matches!(self.broker, Broker::Embedded { .. }))];
        let connected = timeout(time, self.broker.connect(&self.login, self.clean_start, &mut self.incoming)).await;
        connected.unwrap_or_else(|_| Err(Failure::Connection(format!("no connection within {} s", time.as_secs()))))
    }

    /// One connection, until it ends, and why.
    async fn converse(&mut self, stream: Box<dyn Stream>, welcome: &Welcome) -> Failure {
        let (mut reader, mut writer) = tokio::io::split(stream);
        self.clean_start = false;
        self.since = Some(Instant::now());
        self.out.clear();
        self.written = 0;
        self.exchange.begin(welcome, Instant::now(), &mut self.out);
        let mut ticks = interval(self.look_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let backplane = Arc::clone(&self.backplane);
        // Since when nothing was written, and how much had been until then.
        let mut stuck = (Instant::now(), 0);
        // What came behind CONNACK.
        let mut heard = self.listen(Instant::now());
        loop {
            if let Err(failure) = heard {
                self.farewell(&failure, &mut writer).await;
                return failure;
            }
            self.exchange.speak(Instant::now(), &mut self.out, WRITE);
            let room = self.out.len() < WRITE;
            if self.incoming.capacity() - self.incoming.len() < READ {
                self.incoming.reserve(READ);
            }
            let wake = tokio::select! {
                written = write(&mut writer, &self.out, &mut self.written), if !self.out.is_empty() => {
                    Wake::Written(written)
                }
                read = reader.read_buf(&mut self.incoming), if self.out.len() < WRITE + ANSWERS => Wake::Read(read),
                () = backplane.more.notified(), if room => Wake::More,
                _ = ticks.tick() => Wake::Tick,
            };
            let now = Instant::now();
            heard = match wake {
                Wake::More => Ok(()),
                Wake::Written(Ok(())) => {
                    emptied(&mut self.out);
                    self.written = 0;
                    stuck = (now, 0);
                    Ok(())
                }
                // What the broker said before may say why.
                Wake::Written(Err(error)) => return self.hear_out(&mut reader).await.unwrap_or(broken(&error)),
                Wake::Read(Ok(0)) => return Failure::Connection(CLOSED.into()),
                Wake::Read(Ok(_)) => self.listen(now),
                Wake::Read(Err(error)) => return broken(&error),
                Wake::Tick if self.out.is_empty() || stuck.1 != self.written => {
                    stuck = (now, self.written);
                    self.exchange.tick(now, &mut self.out)
                }
                Wake::Tick if now.saturating_duration_since(stuck.0) > WRITE_TIME => {
                    return Failure::Connection(format!("the broker takes no bytes for {} s", WRITE_TIME.as_secs()));
                }
                Wake::Tick => self.exchange.tick(now, &mut self.out),
            };
        }
    }

    /// Handles what has come; an incomplete packet stays.
    fn listen(&mut self, now: Instant) -> Result<(), Failure> {
        let heard = self.exchange.listen(&self.incoming, self.login.packet_max, now, &mut self.out)?;
        self.incoming.drain(..heard);
        if self.incoming.is_empty() {
            emptied(&mut self.incoming);
        }
        if self.exchange.is_well() {
            (self.failures, self.broken, self.silences) = (0, 0, 0);
        }
        Ok(())
    }

    /// Takes in what the broker had said before its connection broke.
    async fn hear_out(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> Option<Failure> {
        let all = async {
            while let Ok(1..) = reader.read_buf(&mut self.incoming).await {
                if let Err(failure) = self.listen(Instant::now()) {
                    return Some(failure);
                }
                self.out.clear(); // nobody takes the answers
            }
            None
        };
        timeout(LAST_WORDS, all).await.ok().flatten()
    }

    /// Tells a broker that breaks the protocol that it does [MQTT-4.13.1-1].
    async fn farewell(&mut self, failure: &Failure, writer: &mut (impl AsyncWrite + Unpin)) {
        let Failure::Protocol(_) = failure else { return };
        let words = Disconnect { reason: ReasonCode::PROTOCOL_ERROR, ..Disconnect::default() };
        encode(&mut self.out, Version::V5, &Packet::Disconnect(words));
        // Whether it hears that makes no difference.
        let _ = timeout(LAST_WORDS, write(writer, &self.out, &mut self.written)).await;
    }

    /// The connection is over. How long to wait for the next.
    fn end(&mut self, failure: Failure) -> Duration {
        // What is in flight may be to blame, which the outbox sees to; and what does not even welcome us may be no broker.
        let inexplicable = self.since.is_some() && !self.backplane.outbox().is_flying();
        self.exchange.lost();
        self.incoming.clear();
        self.failures = self.failures.saturating_add(1);
        self.silences += u32::from(self.since.is_none() || failure == Failure::Silence);
        let steady = self.since.take().is_some_and(|since| since.elapsed() >= STEADY);
        self.fleeting = if steady { 1 } else { self.fleeting.saturating_add(1) };
        self.broken += u32::from(inexplicable && matches!(failure, Failure::Protocol(_)));
        let (why, pause) = match failure {
            Failure::Unwanted(why) => {
                let pause = if self.failures <= PATIENCE { UNWANTED[0] } else { UNWANTED[1] };
                (why, pause)
            }
            Failure::Silence => ("no answer from the broker".into(), Duration::ZERO),
            Failure::Connection(why) | Failure::Protocol(why) => {
                let doubled = SHORTEST_PAUSE.saturating_mul(1 << (self.fleeting.min(6) - 1));
                (why, doubled.min(LONGEST_PAUSE))
            }
        };
        self.backplane.set_health(Health::Down(format!("{}: {why}", self.broker.name())));
        jittered(pause)
    }

    /// Sees to it that the next connection has a chance.
    async fn begin_again(&mut self) {
        if self.broken >= PATIENCE {
            // Whatever it was that could not be said or understood, it is in the session.
            self.broken = 0;
            self.clean_start = true;
        }
        let Broker::Embedded { router, size } = &mut self.broker else { return };
        let replaced = embedded::current().is_some_and(|current| !Arc::ptr_eq(&current, router));
        // One that welcomes us and ends the connection is alive, and has what it keeps for services.
        if !replaced && self.silences < PATIENCE {
            return;
        }
        tracing::error!("the embedded broker does not answer: another one is started");
        match embedded::replace(router, *size).await {
            Ok(next) => {
                *router = next;
                self.backplane.figures.restarts.increment(1);
                (self.failures, self.silences) = (0, 0);
            }
            Err(error) => {
                self.backplane.set_health(Health::Down(format!("the embedded broker {error}")));
                sleep(UNWANTED[1]).await;
            }
        }
    }
}

/// Writes from `written` on, and says how far it came even if it is not waited for to the end.
async fn write(writer: &mut (impl AsyncWrite + Unpin), out: &[u8], written: &mut usize) -> io::Result<()> {
    while let Some(rest) = out.get(*written..).filter(|rest| !rest.is_empty()) {
        match writer.write(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            some => *written += some,
        }
    }
    // TLS may have kept some of it.
    writer.flush().await
}

/// Empties a buffer, and gives it back if it was stretched.
fn emptied(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > KEPT {
        buffer.shrink_to(READ);
    }
}

/// Looks for what has expired, connected or not.
async fn look(backplane: Arc<Backplane>, hub: Arc<Hub>, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let mut expired = Vec::new();
        let done = backplane.outbox().expire(now, &mut expired);
        backplane.figures.sent.increment(done);
        backplane.give_up(&hub, &mut expired, now);
        backplane.measure();
    }
}

#[cfg(test)]
mod tests;
