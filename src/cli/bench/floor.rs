//! `wigwag bench floor`: a relay that does what no broker can avoid, and nothing else.
//!
//! One thread, one epoll, MQTT over TCP and WebSocket on one port. Who subscribes to a topic, by its exact name, gets
//! what is published there; QoS 0 and 1 are acknowledged. Nobody is checked, nothing is kept or sent again, and a
//! client that does not read is never told to. Each read's packets are handled together: one write to each receiver,
//! with its acknowledgements. What a broker costs beyond this is what its features cost.

use std::io::{ErrorKind, Read, Write, stdout};
use std::net::SocketAddr;
use std::num::NonZeroU16;

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use hashbrown::HashMap;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use sha1::{Digest, Sha1};
use wigwag::wire::mqtt::{
    Ack, ConnAck, Packet, Publish, PublishHeader, QoS, ReasonCode, SubAck, Subscribe, SubscribeOptions, UserProperties,
    Version, decode, encode, publish_header,
};
use wigwag::wire::ws::{self, Deframer, Role};

use super::Failure;
use super::outbox::Outbox;

const LISTENER: Token = Token(usize::MAX);
const BUFFER: usize = 256 * 1024;
const PACKET_MAX: usize = 1 << 20;
const FRAMES: ws::Limits = ws::Limits { frame: 1 << 20, message: 1 << 20 };

#[derive(Args)]
pub struct FloorArgs {
    /// Serve both MQTT and MQTT over WebSocket here
    #[arg(long, default_value = "127.0.0.1:1880", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

pub fn run(args: &FloorArgs) -> Result<(), Failure> {
    let failed = |error| Failure::Runtime(format!("{}: {error}", args.listen));
    let mut listener = TcpListener::bind(args.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let poll = Poll::new().map_err(failed)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(failed)?;
    // Whether anybody reads it or not, it serves.
    let _ = writeln!(stdout(), "ws://{address}/mqtt\nmqtt://{address}");
    super::swarm::raise_file_limit();
    let relay = Relay { listener, clients: Vec::new(), free: Vec::new(), topics: HashMap::new(), dirty: Vec::new() };
    relay.serve(poll).map_err(failed)
}

struct Relay {
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    topics: HashMap<Box<str>, Vec<(usize, SubscribeOptions)>>,
    /// Who has something to be written.
    dirty: Vec<usize>,
}

struct Client {
    stream: TcpStream,
    version: Version,
    /// Until the first bytes have shown what is spoken.
    fresh: bool,
    frames: Option<Deframer>,
    tail: Vec<u8>,
    out: Outbox,
    /// Where the frame begins that this read's packets go into.
    frame: Option<usize>,
    last_id: u16,
    topics: Vec<Box<str>>,
}

/// The connection is over, for whatever reason.
struct Gone;

impl Relay {
    fn serve(mut self, mut poll: Poll) -> std::io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        loop {
            match poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in events.iter() {
                let id = event.token().0;
                if event.token() == LISTENER {
                    self.accept(&poll)?;
                } else if event.is_readable() {
                    while let Ok(false) = self.read(id, &mut buffer) {}
                    self.flush();
                } else {
                    self.dirty.push(id);
                    self.flush();
                }
            }
        }
    }

    fn accept(&mut self, poll: &Poll) -> std::io::Result<()> {
        while let Ok((mut stream, _)) = self.listener.accept() {
            stream.set_nodelay(true)?;
            let id = self.free.pop().unwrap_or(self.clients.len());
            poll.registry().register(&mut stream, Token(id), Interest::READABLE | Interest::WRITABLE)?;
            self.clients.resize_with(self.clients.len().max(id + 1), || None);
            self.clients[id] = Some(Client {
                stream,
                version: Version::V311,
                fresh: true,
                frames: None,
                tail: Vec::new(),
                out: Outbox::default(),
                frame: None,
                last_id: 0,
                topics: Vec::new(),
            });
        }
        Ok(())
    }

    /// Reads once and says whether that was all.
    fn read(&mut self, id: usize, buffer: &mut [u8]) -> Result<bool, Gone> {
        let Some(client) = &mut self.clients[id] else { return Ok(true) };
        let result = client.receive(buffer).and_then(|(end, drained)| {
            let mut start = 0;
            while start < end {
                let Some(client) = &mut self.clients[id] else { return Ok(true) };
                match decode(&buffer[start..end], client.version, PACKET_MAX).map_err(|_| Gone)? {
                    Some((packet, length)) => {
                        self.packet(id, &packet)?;
                        start += length;
                    }
                    None => {
                        client.tail.extend_from_slice(&buffer[start..end]);
                        break;
                    }
                }
            }
            Ok(drained)
        });
        if result.is_err() {
            self.remove(id);
        }
        result
    }

    fn packet(&mut self, id: usize, packet: &Packet<'_>) -> Result<(), Gone> {
        match packet {
            Packet::Publish(publish) => self.publish(id, publish),
            Packet::Connect(connect) => {
                if let Some(client) = &mut self.clients[id] {
                    client.version = connect.version;
                }
                self.answer(id, &Packet::ConnAck(ConnAck::default()));
            }
            Packet::Subscribe(subscribe) => self.subscribe(id, subscribe),
            Packet::PingReq => self.answer(id, &Packet::PingResp),
            Packet::PubAck(_) => {}
            _ => return Err(Gone),
        }
        Ok(())
    }

    fn publish(&mut self, id: usize, publish: &Publish<'_>) {
        let Self { clients, topics, dirty, .. } = self;
        for (receiver, options) in topics.get(publish.topic).into_iter().flatten() {
            let Some(client) = &mut clients[*receiver] else { continue };
            if options.no_local && *receiver == id {
                continue;
            }
            let qos = publish.qos.min(options.qos);
            client.last_id = client.last_id.wrapping_add(1).max(1);
            let header = PublishHeader {
                dup: false,
                qos,
                retain: false,
                topic: publish.topic,
                packet_id: NonZeroU16::new(client.last_id).filter(|_| qos > QoS::AtMostOnce),
                topic_alias: None,
                message_expiry: None,
                subscription_ids: &[],
                properties: &[],
                received: None,
            };
            let version = client.version;
            client.say(*receiver, dirty, |out| {
                publish_header(out, version, &header, publish.payload.len());
                out.extend_from_slice(publish.payload);
            });
        }
        if let Some(packet_id) = publish.packet_id {
            let (reason, user) = (ReasonCode::SUCCESS, UserProperties::default());
            self.answer(id, &Packet::PubAck(Ack { packet_id, reason, reason_string: None, user }));
        }
    }

    fn subscribe(&mut self, id: usize, subscribe: &Subscribe<'_>) {
        let Some(client) = &mut self.clients[id] else { return };
        let mut codes = Vec::new();
        for (filter, options) in subscribe.filters.iter() {
            client.topics.push(filter.into());
            self.topics.entry(filter.into()).or_default().push((id, options));
            codes.push(options.qos as u8);
        }
        let (packet_id, user) = (subscribe.packet_id, UserProperties::default());
        self.answer(id, &Packet::SubAck(SubAck { packet_id, reason_string: None, user, codes: &codes }));
    }

    fn answer(&mut self, id: usize, packet: &Packet<'_>) {
        if let Some(client) = &mut self.clients[id] {
            let version = client.version;
            client.say(id, &mut self.dirty, |out| encode(out, version, packet));
        }
    }

    fn flush(&mut self) {
        while let Some(id) = self.dirty.pop() {
            let Some(client) = &mut self.clients[id] else { continue };
            if let Some(start) = client.frame.take()
                && client.frames.is_some()
            {
                client.out.finish(start, None);
            }
            if client.out.flush(&mut client.stream).is_err() {
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: usize) {
        let Some(client) = self.clients[id].take() else { return };
        for topic in client.topics {
            if let Some(receivers) = self.topics.get_mut(&topic) {
                receivers.retain(|(receiver, _)| *receiver != id);
                if receivers.is_empty() {
                    self.topics.remove(&topic);
                }
            }
        }
        self.free.push(id);
    }
}

impl Client {
    /// Reads once; says where the MQTT bytes at the start of `buffer` end, and whether the socket is empty.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Gone> {
        let kept = self.tail.len();
        let room = buffer.len() - kept;
        let read = match self.stream.read(&mut buffer[kept..]) {
            Ok(1..) if room == 0 => return Err(Gone),
            Ok(read @ 1..) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((0, true)),
            _ => return Err(Gone),
        };
        buffer[..kept].copy_from_slice(&self.tail);
        self.tail.clear();
        let (end, drained) = (kept + read, read < room);
        if self.fresh && buffer[0] == b'G' {
            self.upgrade(&buffer[..end])?;
            return Ok((0, drained));
        }
        self.fresh = false;
        let Some(frames) = &mut self.frames else { return Ok((end, drained)) };
        let progress = frames.deframe(buffer, kept, end, kept, &FRAMES);
        if progress.event.is_some() { Err(Gone) } else { Ok((progress.write, drained)) }
    }

    /// Answers the request to speak WebSocket (RFC 6455 4.2.2), behind which nothing comes before the answer.
    fn upgrade(&mut self, head: &[u8]) -> Result<(), Gone> {
        if !head.ends_with(b"\r\n\r\n") {
            self.tail.extend_from_slice(head);
            return Ok(());
        }
        let head = str::from_utf8(head).map_err(|_| Gone)?;
        let headers = head.lines().filter_map(|line| line.split_once(": "));
        let key = headers.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, key)| key);
        let digest = Sha1::digest(key.chain(["258EAFA5-E914-47DA-95CA-C5AB0DC85B11"]).collect::<String>());
        let accept = BASE64_STANDARD.encode(digest);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.out.bytes.extend_from_slice(answer.as_bytes());
        self.frames = Some(Deframer::new(Role::Server));
        self.fresh = false;
        self.out.flush(&mut self.stream).map_err(|_| Gone)
    }

    /// Adds to what this read brings the client.
    fn say(&mut self, id: usize, dirty: &mut Vec<usize>, write: impl FnOnce(&mut Vec<u8>)) {
        if self.frame.is_none() {
            self.frame = Some(if self.frames.is_some() { self.out.begin() } else { 0 });
            dirty.push(id);
        }
        write(&mut self.out.bytes);
    }
}
