//! What the unit tests of sessions are made of: messages, a stream that follows a script, a waker that counts.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    num::NonZeroU16,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Delivery, Link, Stream, Terms};
use crate::{
    config::{AuthConfig, Pattern, TopicRow, TopicRows},
    hub::{Message, Parts, SubscriberId},
    policy::{Identity, Policy, TopicLimits, auth::Authenticator, grants::Grants},
    wire::mqtt::{Packet, PublishProperties, QoS, Version, decode},
};

pub fn message(topic: &str, payload: &[u8]) -> Arc<Message> {
    expiring_message(topic, payload, None, Instant::now())
}

/// A message with a Message Expiry Interval in seconds, published at `now`.
pub fn expiring_message(topic: &str, payload: &[u8], expiry: Option<u32>, now: Instant) -> Arc<Message> {
    let properties = PublishProperties { message_expiry: expiry, ..PublishProperties::default() };
    Arc::new(Message::new(&parts(topic, payload, &properties), now))
}

/// A message of the server's at QoS 2.
pub fn parts<'a>(topic: &'a str, payload: &'a [u8], properties: &'a PublishProperties<'a>) -> Parts<'a> {
    Parts {
        topic,
        payload,
        qos: QoS::ExactlyOnce,
        retain: false,
        raised: None,
        properties,
        publisher: SubscriberId::SERVER,
        sender: None,
        class: None,
        room: None,
        life: None,
    }
}

/// One by which everybody may do everything.
pub fn policy() -> Policy {
    let row =
        |filter: &str| TopicRow { name: filter.into(), filter: Pattern::parse(filter).unwrap(), ..TopicRow::open() };
    policy_of(TopicRows(vec![row("#"), row("$x/#")])) // `#` does not match it
}

/// One with this table, which believes names.
pub fn policy_of(rows: TopicRows) -> Policy {
    let auth = Authenticator::new(&AuthConfig::default()).expect("nothing that could be wrong");
    Policy::new(TopicLimits { levels: 16, bytes: 1000 }, &rows, Arc::new(auth))
}

/// Somebody whose name was believed.
pub fn identity(user: &str) -> Identity {
    Identity { believed: true, ..Identity::local(user, Grants::open()) }
}

pub fn delivery(message: &Arc<Message>, qos: QoS) -> Delivery {
    Delivery::plain(Arc::clone(message), qos)
}

pub fn id(packet_id: u16) -> NonZeroU16 {
    NonZeroU16::new(packet_id).unwrap()
}

/// What a client agrees to that asks for nothing.
pub fn terms(version: Version) -> Terms {
    Terms { version, window: 100, maximum_packet: None, topic_aliases: 0, problem_information: true }
}

/// The whole packets that `bytes` consist of.
pub fn packets(bytes: &[u8], version: Version) -> Vec<Packet<'_>> {
    let (packets, rest) = whole_packets(bytes, version);
    assert!(rest.is_empty(), "the last packet is incomplete");
    packets
}

/// The whole packets at the start of `bytes`, and what is behind them.
pub fn whole_packets(mut bytes: &[u8], version: Version) -> (Vec<Packet<'_>>, &[u8]) {
    let mut packets = Vec::new();
    while let Some((packet, length)) = decode(bytes, version, usize::MAX).unwrap() {
        packets.push(packet);
        bytes = &bytes[length..];
    }
    (packets, bytes)
}

/// Counts how often it is woken.
#[derive(Default)]
pub struct Woken(AtomicUsize);

impl Woken {
    pub fn new() -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self::default());
        (Arc::clone(&woken), Waker::from(woken))
    }

    pub fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One end of a byte stream whose other end is the test.
#[derive(Clone, Default)]
pub struct Script(Arc<Mutex<Scripted>>);

#[derive(Default)]
struct Scripted {
    /// One element for each read; an empty one is the end of the stream.
    reads: VecDeque<Vec<u8>>,
    /// Bytes taken before it would block.
    room: usize,
    fails: bool,
    /// Like a TLS layer over a full socket: what was taken is not passed on yet.
    holds: bool,
    written: Vec<u8>,
    shut: bool,
}

impl Script {
    pub fn says(&self, bytes: &[u8]) {
        self.0.lock().reads.push_back(bytes.to_vec());
    }

    /// From now on takes `bytes` more and then blocks.
    pub fn takes(&self, bytes: usize) {
        self.0.lock().room = bytes;
    }

    pub fn fails(&self) {
        self.0.lock().fails = true;
    }

    pub fn holds(&self, holds: bool) {
        self.0.lock().holds = holds;
    }

    /// What was written since the last call.
    pub fn written(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().written)
    }

    pub fn is_shut(&self) -> bool {
        self.0.lock().shut
    }

    pub fn stream(&self) -> Stream {
        Stream::Other(Box::new(self.clone()))
    }

    /// A link that writes to it, and the count of its wake-ups.
    pub fn link(&self, terms: Terms, websocket: bool) -> (Box<Link>, Arc<Woken>) {
        let (woken, waker) = Woken::new();
        (Box::new(Link::new(terms, websocket, self.stream().split().1, waker)), woken)
    }
}

impl AsyncRead for Script {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut script = self.0.lock();
        let Some(bytes) = script.reads.front_mut() else { return Poll::Pending };
        let length = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..length]);
        bytes.drain(..length);
        if bytes.is_empty() {
            script.reads.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut script = self.0.lock();
        if script.fails {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if script.room == 0 {
            return Poll::Pending;
        }
        let room = script.room;
        let taken: Vec<_> = slices.iter().flat_map(|slice| slice.iter().copied()).take(room).collect();
        script.room -= taken.len();
        script.written.extend_from_slice(&taken);
        Poll::Ready(Ok(taken.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let script = self.0.lock();
        if script.fails {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        } else if script.holds {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().shut = true;
        Poll::Ready(Ok(()))
    }
}
