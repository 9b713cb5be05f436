//! A broker whose clients are in the same thread: bytes are put into a pipe, the broker's tasks run until they have
//! read everything, and what they wrote lies in the pipe. No socket, no timer, no other thread takes part, so that what
//! is counted (instructions, allocations) is the same each time.

// Every program that measures compiles this module and uses a part of it.
#![allow(dead_code)]

use std::{
    io,
    num::NonZeroU16,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wigwag::{
    Config, Running, Server,
    config::RateConfig,
    measured,
    wire::{
        mqtt::{
            Ack, Connect, ConnectProperties, Disconnect, Packet, PublishHeader, QoS, ReasonCode, Subscribe,
            SubscribeFilters, SubscribeOptions, UserProperties, Version, decode, encode, publish_header,
        },
        ws::{self, Deframer, Opcode, Role},
    },
};

/// Masks cost the broker their removal, unless they are zero.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LIMITS: ws::Limits = ws::Limits { frame: 1 << 20, message: 1 << 20 };
/// Bytes of the candidate that is said.
pub const CANDIDATE: usize = 200;

/// One broker and the runtime on which its connections live.
pub struct World {
    pub running: Running,
    runtime: tokio::runtime::Runtime,
    /// Pipes that hold bytes which the broker has not read.
    unread: Arc<AtomicUsize>,
    version: Version,
    websocket: bool,
}

/// A client.
pub struct Peer {
    pub id: String,
    pipe: Pipe,
    frames: Option<Deframer>,
}

/// What a client has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    pub messages: usize,
    /// Packets other than PUBLISH.
    pub answers: usize,
}

impl World {
    /// With the shipped configuration but for its rates: a benchmark is faster than any caller.
    pub fn new(version: Version, websocket: bool) -> Self {
        let mut config = Config::default();
        (config.http.listen, config.mqtt.listen) = (Vec::new(), Vec::new());
        config.server.workers = Some(1);
        config.sys.interval = None;
        config.rate = RateConfig::unlimited();
        let unlimited = config.rate.connection;
        config.topics.0.iter_mut().for_each(|row| row.rate = unlimited);
        // Looking for events costs as much as an instruction count should not depend on.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1 << 20).build();
        let runtime = runtime.expect("a runtime");
        let running = runtime.block_on(Server::builder().config(config).start()).expect("it starts without ports");
        Self { running, runtime, unread: Arc::default(), version, websocket }
    }

    /// Begins a connection, and sends its CONNECT.
    pub fn connect(&self, id: &str) -> Peer {
        let pipe = Pipe::new(&self.unread);
        let served = measured::serve(&self.running, pipe.clone(), self.websocket).expect("room for a connection");
        self.runtime.spawn(served);
        let frames = self.websocket.then(|| Deframer::new(Role::Client));
        let peer = Peer { id: id.into(), pipe, frames };
        let connect = Packet::Connect(Connect {
            version: self.version,
            clean_start: true,
            keep_alive: 60,
            client_id: id,
            will: None,
            user_name: Some(id),
            password: None,
            properties: ConnectProperties::default(),
        });
        peer.send(&self.packet(&connect));
        peer
    }

    /// Connected and subscribed to `filters`.
    pub fn join(&self, id: &str, filters: &[&str]) -> Peer {
        let mut peer = self.connect(id);
        peer.send(&self.subscribe(filters));
        self.settle();
        assert_eq!(peer.receive(self.version).answers, 2, "a CONNACK and a SUBACK");
        peer
    }

    pub fn subscribe(&self, filters: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let options = SubscribeOptions::new(QoS::AtLeastOnce);
        filters.iter().for_each(|filter| SubscribeFilters::push(&mut bytes, filter, options));
        let filters = SubscribeFilters::new(&bytes).expect("filters");
        let (packet_id, user) = (NonZeroU16::MIN, UserProperties::default());
        self.packet(&Packet::Subscribe(Subscribe { packet_id, subscription_id: None, user, filters }))
    }

    pub fn disconnect(&self) -> Vec<u8> {
        self.packet(&Packet::Disconnect(Disconnect::default()))
    }

    /// A PUBLISH as it is on the wire, in a frame of its own.
    pub fn publish(&self, topic: &str, qos: QoS, packet_id: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        let header = PublishHeader {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: NonZeroU16::new(packet_id).filter(|_| qos > QoS::AtMostOnce),
            topic_alias: None,
            message_expiry: None,
            subscription_ids: &[],
            properties: &[],
            received: None,
        };
        publish_header(&mut packet, self.version, &header, payload.len());
        packet.extend_from_slice(payload);
        self.framed(&packet)
    }

    fn packet(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, self.version, packet);
        self.framed(&bytes)
    }

    fn framed(&self, packet: &[u8]) -> Vec<u8> {
        if !self.websocket {
            return packet.to_vec();
        }
        let mut frame = Vec::new();
        ws::frame(&mut frame, Opcode::Binary, packet, Some(MASK));
        frame
    }

    /// Lets the broker work until it has read everything.
    pub fn settle(&self) {
        self.runtime.block_on(async {
            tokio::task::yield_now().await;
            while self.unread.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    /// What a peer has received by now, each message of QoS 1 acknowledged.
    pub fn receive(&self, peer: &mut Peer) -> Seen {
        peer.receive(self.version)
    }
}

impl Peer {
    pub fn send(&self, bytes: &[u8]) {
        self.pipe.send(bytes);
    }

    fn receive(&mut self, version: Version) -> Seen {
        let mut bytes = std::mem::take(&mut self.pipe.lock().from_broker);
        let mut end = bytes.len();
        if let Some(frames) = &mut self.frames {
            let progress = frames.deframe(&mut bytes, 0, end, 0, &LIMITS);
            assert!(progress.event.is_none(), "the broker goes on");
            end = progress.write;
        }
        let (mut seen, mut start, mut answers) = (Seen::default(), 0, Vec::new());
        while let Some((packet, length)) = decode(&bytes[start..end], version, usize::MAX).expect("MQTT") {
            match packet {
                Packet::Publish(publish) => {
                    seen.messages += 1;
                    if let Some(packet_id) = publish.packet_id {
                        let (reason, user) = (ReasonCode::SUCCESS, UserProperties::default());
                        let mut ack = Vec::with_capacity(4);
                        encode(
                            &mut ack,
                            version,
                            &Packet::PubAck(Ack { packet_id, reason, reason_string: None, user }),
                        );
                        match self.frames {
                            Some(_) => ws::frame(&mut answers, Opcode::Binary, &ack, Some(MASK)),
                            None => answers.extend_from_slice(&ack),
                        }
                    }
                }
                _ => seen.answers += 1,
            }
            start += length;
        }
        assert_eq!(start, end, "whole packets");
        bytes.clear();
        self.pipe.lock().from_broker = bytes; // its room for the next
        if !answers.is_empty() {
            self.send(&answers);
        }
        seen
    }

    /// Ends the stream.
    pub fn hang_up(self) {
        self.pipe.hang_up();
    }
}

/// One candidate of `user`'s.
pub fn candidate(user: &str) -> Vec<u8> {
    let mut payload = format!(r#"{{"username":"{user}","candidate":{{"candidate":""#).into_bytes();
    let line = b"candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx ";
    payload.extend(line.iter().cycle().take(CANDIDATE - 3 - payload.len()));
    payload.extend_from_slice(br#""}}"#);
    payload
}

/// Both ends of a byte stream: the broker's is a stream of tokio's, the client's are plain calls.
#[derive(Clone)]
struct Pipe {
    ends: Arc<Mutex<Ends>>,
    unread: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Ends {
    to_broker: Vec<u8>,
    read: usize,
    over: bool,
    reader: Option<Waker>,
    from_broker: Vec<u8>,
}

impl Pipe {
    fn new(unread: &Arc<AtomicUsize>) -> Self {
        Self { ends: Arc::default(), unread: Arc::clone(unread) }
    }

    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, bytes: &[u8]) {
        let mut ends = self.lock();
        if ends.to_broker.is_empty() {
            self.unread.fetch_add(1, Ordering::Relaxed);
        }
        ends.to_broker.extend_from_slice(bytes);
        ends.reader.take().into_iter().for_each(Waker::wake);
    }

    fn hang_up(&self) {
        let mut ends = self.lock();
        ends.over = true;
        ends.reader.take().into_iter().for_each(Waker::wake);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.lock();
        let come = ends.to_broker.len() - ends.read;
        if come == 0 && !ends.over {
            ends.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = come.min(buf.remaining());
        let from = ends.read;
        buf.put_slice(&ends.to_broker[from..from + taken]);
        ends.read += taken;
        if ends.read == ends.to_broker.len() && taken > 0 {
            ends.to_broker.clear();
            ends.read = 0;
            self.unread.fetch_sub(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.lock().from_broker.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut ends = self.lock();
        slices.iter().for_each(|slice| ends.from_broker.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
