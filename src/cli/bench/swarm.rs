//! Many clients in one thread: who is readable is read, what came is handed to a [`Script`], and every client that got
//! something to say by that is written to once.
//!
//! Clients acknowledge, answer pings and subscribe by themselves. A connection that ends without having been asked to
//! ends the run.

use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use wigwag::wire::mqtt::{
    Ack, Connect, ConnectProperties, Disconnect, Packet, Publish, QoS, ReasonCode, Subscribe, SubscribeFilters,
    SubscribeOptions, Unsubscribe, UnsubscribeFilters, UserProperties, Version, decode,
};

use super::Failure;
use super::peer::{FULL, Login, Peer, Phase};
use super::report::Progress;
use super::target::{Speaks, Target};

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;
const EVENTS: usize = 1024;
const PACKET_MAX: usize = 1 << 28;
/// Clients that may be connecting at a time while a crowd gathers.
const CONNECTING: usize = 64;
/// How long nothing may happen before what is missing counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// What a workload does when something happens to its clients.
pub trait Script {
    /// A client has its SUBACK.
    fn ready(&mut self, _swarm: &mut Swarm, _id: usize) -> Result<(), Failure> {
        Ok(())
    }
    /// A PUBLISH has arrived; it is acknowledged already.
    fn message(&mut self, _swarm: &mut Swarm, _id: usize, _publish: &Publish<'_>) -> Result<(), Failure> {
        Ok(())
    }
}

/// See the module.
pub struct Swarm {
    target: Target,
    poll: Poll,
    peers: Vec<Option<Peer>>,
    free: Vec<usize>,
    /// Numbers that are free when this turn is over: what it has yet to handle may still mean who had them.
    closed: Vec<usize>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    dialed: usize,
    ready: usize,
    /// When the messages being handled were read.
    pub now: Instant,
    /// PUBACKs that have come.
    pub acknowledged: u64,
    pub handshakes: Handshakes,
}

/// TLS handshakes of clients that became ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Handshakes {
    pub full: u64,
    pub resumed: u64,
}

impl Swarm {
    pub fn new(target: Target) -> Result<Self, Failure> {
        raise_file_limit();
        Ok(Self {
            target,
            poll: Poll::new().map_err(|error| Failure::Runtime(format!("cannot start: {error}")))?,
            peers: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            dirty: Vec::new(),
            buffer: vec![0; BUFFER],
            dialed: 0,
            ready: 0,
            now: Instant::now(),
            acknowledged: 0,
            handshakes: Handshakes::default(),
        })
    }

    /// Connections begun so far.
    pub fn dialed(&self) -> usize {
        self.dialed
    }

    /// Clients that are ready now.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Connects further clients until `total` are ready; `login` is asked for the nth's, and n is its number if none
    /// was ever closed.
    pub fn gather(
        &mut self,
        total: usize,
        script: &mut impl Script,
        progress: &mut Progress,
        login: impl Fn(usize) -> Login,
    ) -> Result<(), Failure> {
        let mut events = events();
        let (mut last_ready, mut since) = (self.ready, Instant::now());
        while self.ready < total {
            while self.dialed < total && self.dialed - self.ready < CONNECTING {
                self.open(login(self.dialed))?;
            }
            self.turn(&mut events, script, Duration::from_millis(100))?;
            let now = Instant::now();
            progress.tick(now, || format!("{} of {total} connected", self.ready));
            if self.ready > last_ready {
                (last_ready, since) = (self.ready, now);
            } else if now - since > PATIENCE {
                return Err(Failure::Runtime(format!("{last_ready} of {total} clients connected, then nothing more")));
            }
        }
        Ok(())
    }

    /// Begins a connection and returns the number by which its client is known.
    pub fn open(&mut self, mut login: Login) -> Result<usize, Failure> {
        if let Some(token) = self.target.tokens.get(self.dialed % self.target.tokens.len().max(1)) {
            (login.user_name, login.password) = (token.user.clone(), Some(token.token.clone()));
        }
        let failed = |error| Failure::Runtime(format!("connection {}: {error}", self.dialed));
        let mut stream = self.target.dial(self.dialed).map_err(failed)?;
        let id = self.free.pop().unwrap_or(self.peers.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream.socket(), Token(id), interest).map_err(failed)?;
        self.dialed += 1;
        let peer = Peer::new(stream, login, (self.dialed as u32).wrapping_mul(0x9E37_79B9));
        if id == self.peers.len() {
            self.peers.push(Some(peer));
        } else {
            self.peers[id] = Some(peer);
        }
        Ok(id)
    }

    /// Says goodbye and closes.
    pub fn close(&mut self, id: usize) {
        if let Some(mut peer) = self.peers[id].take() {
            if peer.phase == Phase::Ready {
                self.ready -= 1;
                if self.target.speaks != Speaks::Http {
                    peer.push(self.target.version, &Packet::Disconnect(Disconnect::default()));
                }
            }
            // Whether the goodbye arrives or not, this client is gone.
            let _ = peer.flush();
            self.closed.push(id);
        }
    }

    pub fn publish(&mut self, id: usize, topic: &str, qos: QoS, payload: &[u8]) {
        let version = self.target.version;
        self.say(id, |peer| peer.publish(version, topic, qos, false, payload));
    }

    pub fn retain(&mut self, id: usize, topic: &str, qos: QoS, payload: &[u8]) {
        let version = self.target.version;
        self.say(id, |peer| peer.publish(version, topic, qos, true, payload));
    }

    /// Subscribes a client that is ready to one more filter; it is ready again when that is granted.
    pub fn subscribe(&mut self, id: usize, filter: String, qos: u8) {
        if let Some(peer) = &mut self.peers[id] {
            self.ready -= usize::from(peer.phase == Phase::Ready);
            peer.login = Some(Box::new(Login { filters: vec![filter], qos, ..Login::default() }));
        }
        let version = self.target.version;
        self.say(id, |peer| subscribe(peer, version));
    }

    pub fn unsubscribe(&mut self, id: usize, filter: &str) {
        let mut filters = Vec::new();
        UnsubscribeFilters::push(&mut filters, filter);
        let version = self.target.version;
        self.say(id, |peer| {
            let packet_id = peer.next_id();
            if let Ok(filters) = UnsubscribeFilters::new(&filters) {
                let unsubscribe = Unsubscribe { packet_id, user: UserProperties::default(), filters };
                peer.push(version, &Packet::Unsubscribe(unsubscribe));
            }
        });
    }

    pub fn ping(&mut self, id: usize) {
        let version = self.target.version;
        self.say(id, |peer| peer.push(version, &Packet::PingReq));
    }

    fn say(&mut self, id: usize, what: impl FnOnce(&mut Peer)) {
        if let Some(peer) = &mut self.peers[id] {
            what(peer);
            if !peer.dirty {
                peer.dirty = true;
                self.dirty.push(id);
            }
        }
    }

    /// Handles what has happened, having waited for it no longer than `timeout`.
    pub fn turn(&mut self, events: &mut Events, script: &mut impl Script, timeout: Duration) -> Result<(), Failure> {
        self.flush()?;
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            polled => polled.map_err(|error| Failure::Runtime(format!("cannot wait: {error}")))?,
        }
        for event in events.iter() {
            let Token(id) = event.token();
            if event.is_writable() {
                self.writable(id).map_err(|error| self.lost(id, &error))?;
            }
            if event.is_readable() {
                self.readable(id, event.is_read_closed(), script)?;
            }
            self.flush()?;
        }
        self.free.append(&mut self.closed);
        Ok(())
    }

    fn writable(&mut self, id: usize) -> Result<(), String> {
        let Some(peer) = &mut self.peers[id] else { return Ok(()) };
        if peer.phase != Phase::Dialing {
            return peer.flush();
        }
        if let Some(error) = peer.stream.socket().take_error().unwrap_or_else(Some) {
            return Err(error.to_string());
        }
        if peer.stream.socket().peer_addr().is_err() {
            return Ok(()); // an event of the client that had this number before
        }
        match &self.target.request {
            Some(request) => {
                peer.phase = if self.target.speaks == Speaks::Http { Phase::Asking } else { Phase::Upgrading };
                peer.push_raw(request);
            }
            None => {
                peer.phase = Phase::Connecting;
                connect(peer, &self.target);
            }
        }
        peer.flush()
    }

    fn readable(&mut self, id: usize, read_closed: bool, script: &mut impl Script) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(false);
        // What is closed is read to its end, which no further event would tell of.
        while let Ok(false) = result {
            result = self.read_once(id, &mut buffer, script).map(|drained| drained && !read_closed);
        }
        self.buffer = buffer;
        result.map(|_| ())
    }

    /// Says whether there is nothing more to read.
    fn read_once(&mut self, id: usize, buffer: &mut [u8], script: &mut impl Script) -> Result<bool, Failure> {
        let Some(peer) = &mut self.peers[id] else { return Ok(true) };
        if peer.phase == Phase::Dialing {
            return Ok(true);
        }
        let before = peer.phase;
        let received = match peer.receive(buffer) {
            Ok(Some(received)) => received,
            // What has come may have been TLS's own, for which there is an answer to send.
            Ok(None) => return peer.flush().map(|()| true).map_err(|error| self.lost(id, &error)),
            Err(error) => return Err(self.lost(id, &error)),
        };
        self.now = Instant::now();
        if before == Phase::Asking {
            return self.became_ready(id, script).map(|()| true);
        }
        if before == Phase::Upgrading && peer.phase == Phase::Connecting {
            connect(peer, &self.target);
            peer.flush().map_err(|error| self.lost(id, &error))?;
        }
        let mut start = 0;
        while start < received.end {
            match decode(&buffer[start..received.end], self.target.version, PACKET_MAX) {
                Ok(Some((packet, length))) => {
                    start += length;
                    self.packet(id, &packet, script)?;
                }
                Ok(None) => break,
                Err(error) => return Err(ended(id, &error.to_string())),
            }
        }
        if let Some(peer) = &mut self.peers[id] {
            peer.keep(&buffer[start..received.end]);
            if let Some(closed) = peer.closed.take() {
                return Err(self.lost(id, &closed));
            }
        }
        Ok(received.drained)
    }

    fn packet(&mut self, id: usize, packet: &Packet<'_>, script: &mut impl Script) -> Result<(), Failure> {
        let failed = |what: String| Err(ended(id, &what));
        match packet {
            Packet::Publish(publish) => {
                if let Some(packet_id) = publish.packet_id {
                    let version = self.target.version;
                    self.say(id, |peer| peer.push(version, &Packet::PubAck(success(packet_id))));
                }
                script.message(self, id, publish)?;
            }
            Packet::PubAck(ack) if ack.reason.is_error() => {
                return failed(format!("PUBLISH refused: {:?}", ack.reason));
            }
            Packet::PubAck(_) => self.acknowledged += 1,
            Packet::ConnAck(ack) if ack.reason != ReasonCode::SUCCESS => {
                return failed(refusal(self.target.version, ack.reason, ack.properties.reason_string));
            }
            Packet::ConnAck(_) => {
                let version = self.target.version;
                self.say(id, |peer| subscribe(peer, version));
            }
            Packet::SubAck(ack) => {
                if let Some(code) = ack.codes.iter().find(|&&code| code >= 0x80) {
                    return failed(format!("SUBSCRIBE refused: {code:#04x}"));
                }
                return self.became_ready(id, script);
            }
            Packet::Disconnect(disconnect) => return failed(format!("DISCONNECT: {:?}", disconnect.reason)),
            _ => {}
        }
        Ok(())
    }

    fn became_ready(&mut self, id: usize, script: &mut impl Script) -> Result<(), Failure> {
        if let Some(peer) = &mut self.peers[id] {
            peer.phase = Phase::Ready;
            self.ready += 1;
            match peer.stream.resumed() {
                Some(true) => self.handshakes.resumed += 1,
                Some(false) => self.handshakes.full += 1,
                None => {}
            }
        }
        script.ready(self, id)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        while let Some(id) = self.dirty.pop() {
            if let Some(peer) = &mut self.peers[id] {
                peer.dirty = false;
                peer.flush().map_err(|error| self.lost(id, &error))?;
            }
        }
        Ok(())
    }

    /// A connection that ended without a word; before CONNACK that is what a broker does that has no room left.
    fn lost(&self, id: usize, why: &str) -> Failure {
        let Some(peer) = &self.peers[id] else { return ended(id, why) };
        match peer.phase {
            Phase::Dialing => Failure::Runtime(format!("{} cannot be reached: {why}", self.target.address)),
            _ if !peer.stream.is_open() => {
                let hint = if why.contains("certificate") {
                    "; --cafile says whom to trust, --insecure trusts all"
                } else {
                    ""
                };
                Failure::Runtime(format!("{}: no TLS: {why}{hint}", self.target.address))
            }
            Phase::Upgrading | Phase::Connecting => ended(id, &format!("{why}{FULL}")),
            _ => ended(id, why),
        }
    }
}

/// What a CONNACK says that is none, and what is likely to be the reason.
fn refusal(version: Version, reason: ReasonCode, why: Option<&str>) -> String {
    let full = match version {
        Version::V311 => reason == ReasonCode(3), // server unavailable (3.2.2.3)
        Version::V5 => matches!(reason, ReasonCode::QUOTA_EXCEEDED | ReasonCode::SERVER_BUSY),
    };
    let why = why.map_or(String::new(), |why| format!(" ({why})"));
    format!("CONNECT refused, code {:#04x}{why}{}", reason.0, if full { FULL } else { "" })
}

/// Room for what one turn handles.
pub fn events() -> Events {
    Events::with_capacity(EVENTS)
}

fn connect(peer: &mut Peer, target: &Target) {
    let Some(login) = peer.login.take() else { return };
    let packet = Packet::Connect(Connect {
        version: target.version,
        clean_start: true,
        keep_alive: login.keep_alive,
        client_id: &login.client_id,
        will: None,
        user_name: Some(&login.user_name),
        password: login.password.as_deref().or(target.password.as_deref()),
        properties: ConnectProperties::default(),
    });
    peer.push(target.version, &packet);
    peer.login = Some(login);
}

/// Asks for what the login wants to hear, after which the login is not needed any more.
fn subscribe(peer: &mut Peer, version: Version) {
    let Some(login) = peer.login.take() else { return };
    let qos = QoS::from_bits(login.qos).unwrap_or(QoS::AtLeastOnce);
    // 3.1.1 knows no No Local, and leaves it out when the packet is written.
    let options = SubscribeOptions { no_local: version == Version::V5, ..SubscribeOptions::new(qos) };
    let mut filters = Vec::new();
    login.filters.iter().for_each(|filter| SubscribeFilters::push(&mut filters, filter, options));
    // The workloads make no filter that is not one.
    let Ok(filters) = SubscribeFilters::new(&filters) else { return };
    let packet_id = peer.next_id();
    let subscribe = Subscribe { packet_id, subscription_id: None, user: UserProperties::default(), filters };
    peer.push(version, &Packet::Subscribe(subscribe));
    peer.phase = Phase::Subscribing;
}

fn success(packet_id: std::num::NonZeroU16) -> Ack<'static> {
    Ack { packet_id, reason: ReasonCode::SUCCESS, reason_string: None, user: UserProperties::default() }
}

fn ended(id: usize, why: &str) -> Failure {
    Failure::Runtime(format!("client {id}: {why}"))
}

/// Each client is a file descriptor; where the limit cannot be raised, opening one too many says so.
pub fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
