//! One client of the generator: a socket, how far its connection has come, and the bytes that it has to send.

use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;

use wigwag::wire::mqtt::{Packet, PublishHeader, QoS, Version, encode, publish_header};
use wigwag::wire::ws::{self, Deframer, Event, Opcode, Role};

use super::outbox::Outbox;
use super::stream::Stream;

const FRAMES: ws::Limits = ws::Limits { frame: 1 << 28, message: 1 << 28 };

/// What is likely when a broker takes some connections and then no more.
pub const FULL: &str = "; brokers bound connections, in all and from one address: with Wigwag, start the broker with \
                        WIGWAG_LIMITS__CONNECTIONS_PER_ADDRESS=0";

/// Who a client is and what it wants to hear.
#[derive(Debug, Clone, Default)]
pub struct Login {
    pub client_id: String,
    pub user_name: String,
    /// Seconds; 0 = none.
    pub keep_alive: u16,
    /// Instead of what the target says for all.
    pub password: Option<Vec<u8>>,
    /// Subscribed to after CONNACK.
    pub filters: Vec<String>,
    pub qos: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Dialing,
    /// Waits for the answer to the WebSocket upgrade.
    Upgrading,
    /// Waits for the answer of a server that speaks no MQTT.
    Asking,
    /// Waits for CONNACK.
    Connecting,
    /// Waits for SUBACK.
    Subscribing,
    Ready,
}

/// See the module.
pub struct Peer {
    pub stream: Stream,
    pub phase: Phase,
    /// Until it has subscribed.
    pub login: Option<Box<Login>>,
    frames: Option<Deframer>,
    /// What came of something incomplete: the answer to the upgrade, then a packet.
    tail: Vec<u8>,
    out: Outbox,
    mask: u32,
    last_id: u16,
    /// Listed for a write.
    pub dirty: bool,
    /// How the broker ended the WebSocket, once what it said before is handled.
    pub closed: Option<String>,
}

/// What a read came to.
pub struct Received {
    /// Where MQTT bytes end in the buffer; they begin at its start.
    pub end: usize,
    /// Whether the socket has been read empty.
    pub drained: bool,
}

impl Peer {
    pub fn new(stream: Stream, login: Login, seed: u32) -> Self {
        Self {
            stream,
            phase: Phase::Dialing,
            login: Some(Box::new(login)),
            frames: None,
            tail: Vec::new(),
            out: Outbox::default(),
            mask: seed | 1,
            last_id: 0,
            dirty: false,
            closed: None,
        }
    }

    /// Reads once, behind what is left of the read before. `Ok(None)` when there is nothing to read.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, String> {
        let kept = self.tail.len();
        let room = buffer.len() - kept;
        let read = match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => return Err("the broker closed the connection".into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        buffer[..kept].copy_from_slice(&self.tail);
        self.tail.clear();
        let drained = read < room && self.stream.reads_all();
        let raw = match self.phase {
            Phase::Asking => return Ok(Some(Received { end: 0, drained })),
            Phase::Upgrading => match self.upgraded(&buffer[..kept + read])? {
                Some(head) => head..kept + read,
                None => return Ok(Some(Received { end: 0, drained })),
            },
            _ => kept..kept + read,
        };
        // Behind the answer to an upgrade nothing of MQTT has come yet.
        let start = if raw.start > kept { 0 } else { kept };
        let end = self.deframe(buffer, raw, start)?;
        Ok(Some(Received { end, drained }))
    }

    /// Looks for the end of the answer to the upgrade; keeps what came of it until then.
    fn upgraded(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            self.tail.extend_from_slice(bytes);
            return Ok(None);
        };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
            return Err(format!("no upgrade to WebSocket: {}", String::from_utf8_lossy(line)));
        }
        self.frames = Some(Deframer::new(Role::Client));
        self.phase = Phase::Connecting;
        Ok(Some(end + 4))
    }

    fn deframe(&mut self, buffer: &mut [u8], raw: std::ops::Range<usize>, mut write: usize) -> Result<usize, String> {
        let Some(frames) = &mut self.frames else { return Ok(raw.end) };
        let mut start = raw.start;
        loop {
            let progress = frames.deframe(buffer, start, raw.end, write, &FRAMES);
            (start, write) = (progress.start, progress.write);
            match progress.event {
                None => return Ok(write),
                Some(Event::Ping(payload)) => {
                    let mask = next_mask(&mut self.mask);
                    ws::frame(&mut self.out.bytes, Opcode::Pong, &payload, Some(mask));
                }
                Some(Event::Pong) => {}
                Some(Event::Close(code)) => {
                    let code = code.map_or(String::new(), |code| format!(", code {code}"));
                    self.closed = Some(format!("the broker closed the WebSocket{code}"));
                    return Ok(write);
                }
                Some(Event::Failed(error)) => return Err(error.to_string()),
            }
        }
    }

    /// Keeps an incomplete packet for the next read.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Queues bytes that are no MQTT.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.out.bytes.extend_from_slice(bytes);
    }

    /// Queues a packet, in a frame of its own as clients do.
    pub fn push(&mut self, version: Version, packet: &Packet<'_>) {
        self.framed(|out| encode(out, version, packet));
    }

    /// Queues a PUBLISH.
    pub fn publish(&mut self, version: Version, topic: &str, qos: QoS, retain: bool, payload: &[u8]) {
        let packet_id = (qos > QoS::AtMostOnce).then(|| self.next_id());
        let header = PublishHeader {
            dup: false,
            qos,
            retain,
            topic,
            packet_id,
            topic_alias: None,
            message_expiry: None,
            subscription_ids: &[],
            properties: &[],
            received: None,
        };
        self.framed(|out| {
            publish_header(out, version, &header, payload.len());
            out.extend_from_slice(payload);
        });
    }

    pub fn next_id(&mut self) -> NonZeroU16 {
        self.last_id = self.last_id.wrapping_add(1).max(1);
        NonZeroU16::new(self.last_id).unwrap_or(NonZeroU16::MIN)
    }

    fn framed(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.frames.is_none() {
            return write(&mut self.out.bytes);
        }
        let start = self.out.begin();
        write(&mut self.out.bytes);
        self.out.finish(start, Some(next_mask(&mut self.mask)));
    }

    /// Writes what the socket takes; the rest goes when it is writable again.
    pub fn flush(&mut self) -> Result<(), String> {
        let flushed = self.out.flush(&mut self.stream).and_then(|()| self.stream.flush());
        flushed.map_err(|error| error.to_string())
    }
}

/// Masks need not be secret here, but neither may they be zero: that would spare the broker its work (xorshift).
fn next_mask(state: &mut u32) -> [u8; 4] {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    state.to_ne_bytes()
}
