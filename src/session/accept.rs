//! From a byte stream to a connection: the first packet, who it is, whether there is room, and the answer.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    task::Waker,
    time::Instant,
};

use super::{
    Attachment, Link, Stream, Terms, WriteHalf,
    connection::Connection,
    edge::{Edge, Slot},
    inbound::{Inbound, TOKEN_METHOD},
    inlet::{FrameEnd, Handler, Inlet, InletLimits, NORMAL_CLOSE, Read, ReadError, Stop},
    link::{Probe, fits},
};
use crate::{
    hub::{self, Connected},
    policy::{Credentials, Identity, Refusal, valid_name},
    wire::{
        mqtt::{self, ConnAck, ConnAckProperties, Packet, QoS, ReasonCode, Version, connect_level, decode, encode},
        ws::{self, Opcode},
    },
};

/// Characters of a refused client id that are logged.
const SHOWN: usize = 32;
/// The longest client id, in bytes.
const CLIENT_ID_MAX: usize = 256;

const ID_REJECTED: Refusal = Refusal {
    reason: ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    what: "a client id has at most 256 bytes, and without Clean Session at least one",
};
const NO_SUCH_METHOD: Refusal =
    Refusal { reason: ReasonCode::BAD_AUTHENTICATION_METHOD, what: "no such authentication method" };
const TOO_MANY_PROPERTIES: Refusal =
    Refusal { reason: ReasonCode::QUOTA_EXCEEDED, what: "more user properties than this server takes" };

/// A stream that is to speak MQTT.
pub struct Incoming {
    pub stream: Stream,
    pub websocket: bool,
    /// Bytes behind the HTTP upgrade that were read with it.
    pub early: Vec<u8>,
    pub slot: Slot,
    /// When CONNECT must have come.
    pub deadline: Instant,
}

/// Serves one stream from its first byte on. The connection goes on in a task of its own, so that an idle one holds
/// nothing of what its beginning needed.
pub async fn accept(edge: Arc<Edge>, incoming: Incoming) {
    let (read, mut write) = incoming.stream.split();
    let mut inlet = Inlet::new(read, incoming.websocket);
    let first = first_packet(&edge, &mut inlet, &mut write, &incoming.early);
    let bytes = match tokio::time::timeout_at(incoming.deadline.into(), first).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(refused)) => {
            edge.hub.metrics.ended("refused");
            tracing::debug!(remote = %incoming.slot.remote(), "refused before CONNECT");
            return refuse(inlet, write, refused, incoming.websocket).await;
        }
        Err(_) => {
            edge.hub.metrics.ended("no CONNECT in time");
            return;
        }
    };
    // Decoded once already; what it borrows is now this task's own.
    let Ok(Some((Packet::Connect(connect), _))) = decode(&bytes, Version::V5, usize::MAX) else { return };
    let mut opening = Opening { edge: &edge, slot: incoming.slot, websocket: incoming.websocket };
    let opened = tokio::time::timeout_at(incoming.deadline.into(), opening.open(&connect, write)).await;
    let Opening { slot, .. } = opening;
    match opened {
        Ok(Ok(Opened { connected, identity, inbound })) => {
            tracing::info!(
                client = ?connected.session.client_id,
                user = ?identity.user,
                remote = %slot.remote(),
                websocket = incoming.websocket,
                version = ?connect.version,
                resumed = connected.present,
                "connected"
            );
            let connection = Connection::new(edge, connected, identity, inlet, inbound, incoming.websocket, slot);
            tokio::spawn(connection.run());
        }
        Ok(Err((refusal, write))) => {
            edge.hub.metrics.refused("connect", refusal.reason);
            let user = connect.user_name.unwrap_or_default();
            // What is no name may be a token in the wrong place, and is nobody's business.
            let user = if user.is_empty() || valid_name(user) { user } else { "(no name)" };
            let named = if user.is_empty() { connect.client_id } else { user };
            edge.hub.tell_refused(if valid_name(named) { named } else { "(no name)" }, refusal.what);
            let shown = connect.client_id.char_indices().nth(SHOWN).map_or(connect.client_id, |(end, _)| {
                &connect.client_id[..end] // it may be long, and a token in the wrong place, too
            });
            tracing::info!(
                client = ?shown,
                user = ?user,
                remote = %slot.remote(),
                what = refusal.what,
                "connection refused"
            );
            let refused =
                Refused::packet(connack_refused(connect.version, refusal, connect.properties.maximum_packet_size));
            refuse(inlet, write, refused, incoming.websocket).await;
        }
        Err(_) => edge.hub.metrics.ended("no CONNECT in time"),
    }
}

/// Waits for the first packet and returns its bytes if it is a CONNECT [MQTT-3.1.0-1], and otherwise what to answer.
async fn first_packet(edge: &Edge, inlet: &mut Inlet, write: &mut WriteHalf, early: &[u8]) -> Result<Vec<u8>, Refused> {
    let limits = InletLimits { packet: edge.limits.packet_before_connect, ..edge.limits.inlet };
    let mut first = First::default();
    let mut read = inlet.feed(early, limits, &mut first);
    loop {
        if !first.answers.is_empty() {
            let answers = std::mem::take(&mut first.answers);
            // A client that does not read answers to its own pings does without them.
            let _ = write.write(&[std::io::IoSlice::new(&answers)], Waker::noop());
        }
        if read.is_err() {
            break;
        }
        read = std::future::poll_fn(|cx| inlet.poll_read(cx, limits, &mut first)).await.and_then(|read| match read {
            Read::More => Ok(()),
            Read::End => Err(ReadError::Io(std::io::ErrorKind::UnexpectedEof.into())),
        });
    }
    match read {
        Err(ReadError::Handled(Stop::Taken)) => Ok(first.bytes),
        Err(ReadError::Packet(error)) => Err(Refused::packet(refused_before_connect(first.level, error))),
        Err(ReadError::Frame(frames)) => Err(Refused { packet: Vec::new(), frames }),
        _ => Err(Refused::packet(Vec::new())),
    }
}

/// Takes one packet.
#[derive(Default)]
struct First {
    bytes: Vec<u8>,
    /// Protocol level of a CONNECT that could not be read.
    level: Option<u8>,
    answers: Vec<u8>,
}

impl Handler for First {
    fn version(&self) -> Version {
        Version::V5 // a CONNECT says its version itself
    }

    fn packet(&mut self, packet: Packet<'_>, bytes: &[u8]) -> Result<(), Stop> {
        if !matches!(packet, Packet::Connect(_)) {
            return Err(Stop::Goodbye);
        }
        self.bytes = bytes.to_vec();
        Err(Stop::Taken)
    }

    fn malformed(&mut self, bytes: &[u8]) {
        self.level = connect_level(bytes);
    }

    fn ping(&mut self, payload: &ws::ControlPayload) {
        // A peer that has not said who it is gets no more than this for its pings.
        if self.answers.len() < 1024 {
            ws::pong_frame(&mut self.answers, payload);
        }
    }
}

/// Set in the protocol level by Mosquitto's bridges, which try again without it once return code 1 of 3.1.1 tells
/// them that it is not understood here.
const BRIDGE: u8 = 0x80;

/// What to answer a CONNECT that cannot be read: in 3.1.1 only an unknown protocol level has an answer
/// [MQTT-3.1.2-2], in 5.0 every reason has one.
fn refused_before_connect(level: Option<u8>, error: mqtt::DecodeError) -> Vec<u8> {
    match level.map(|level| level & !BRIDGE) {
        Some(..5) if error.reason == ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => {
            connack_refused(Version::V311, Refusal { reason: error.reason, what: error.what }, None)
        }
        Some(5..) => connack_refused(Version::V5, Refusal { reason: error.reason, what: error.what }, None),
        _ => Vec::new(),
    }
}

/// A CONNACK that says no, and why if a packet of `maximum` bytes has room for that [MQTT-3.2.2-19].
fn connack_refused(version: Version, refusal: Refusal, maximum: Option<NonZeroU32>) -> Vec<u8> {
    let reason = match version {
        Version::V5 => refusal.reason,
        Version::V311 => return_code(refusal.reason),
    };
    // Fixed header 2, flags 1, reason 1, property length 1, and 3 in front of the string.
    let reason_string = Some(refusal.what).filter(|what| fits(maximum, what.len() + 8));
    let properties = ConnAckProperties { reason_string, ..ConnAckProperties::default() };
    let mut bytes = Vec::new();
    encode(&mut bytes, version, &Packet::ConnAck(ConnAck { session_present: false, reason, properties }));
    bytes
}

/// The return code of 3.1.1 (3.2.2.3) that is nearest to a reason.
fn return_code(reason: ReasonCode) -> ReasonCode {
    ReasonCode(match reason {
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 2,
        ReasonCode::SERVER_UNAVAILABLE | ReasonCode::SERVER_BUSY | ReasonCode::QUOTA_EXCEEDED => 3,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => 4,
        _ => 5,
    })
}

/// What a peer is told that does not become a connection.
struct Refused {
    packet: Vec<u8>,
    frames: FrameEnd,
}

impl Refused {
    fn packet(packet: Vec<u8>) -> Self {
        Self { packet, frames: FrameEnd { code: NORMAL_CLOSE, what: "" } }
    }
}

/// Sends the last words and ends the stream in a way that lets them arrive.
async fn refuse(inlet: Inlet, mut write: WriteHalf, refused: Refused, websocket: bool) {
    let mut bytes = refused.packet;
    if websocket {
        let packet = std::mem::take(&mut bytes);
        if !packet.is_empty() {
            ws::frame(&mut bytes, Opcode::Binary, &packet, None);
        }
        ws::close_frame(&mut bytes, refused.frames.code, refused.frames.what);
    }
    // A few bytes always fit into a fresh socket; who has filled it up with pings does without them.
    let _ = write.write(&[std::io::IoSlice::new(&bytes)], Waker::noop());
    write.shutdown(Waker::noop());
    inlet.linger().await;
}

/// A CONNECT being answered.
struct Opening<'a> {
    edge: &'a Edge,
    slot: Slot,
    websocket: bool,
}

/// A CONNECT that was accepted.
struct Opened {
    connected: Connected,
    identity: Arc<Identity>,
    inbound: Inbound,
}

impl Opening<'_> {
    async fn open(&mut self, connect: &mqtt::Connect<'_>, write: WriteHalf) -> Result<Opened, (Refusal, WriteHalf)> {
        let assigned;
        let client_id = match self.client_id(connect) {
            Ok("") => {
                assigned = random_client_id();
                &assigned
            }
            Ok(client_id) => client_id,
            Err(refusal) => return Err((refusal, write)),
        };
        match self.judge(connect, client_id).await {
            Ok((identity, will)) => self.attach(connect, client_id, identity, will, write),
            Err(refusal) => Err((refusal, write)),
        }
    }

    fn client_id<'c>(&self, connect: &mqtt::Connect<'c>) -> Result<&'c str, Refusal> {
        let persistent = connect.version == Version::V311 && !connect.clean_start;
        match connect.client_id {
            "" if persistent => Err(ID_REJECTED), // [MQTT-3.1.3-8]
            id if id.len() > CLIENT_ID_MAX => Err(ID_REJECTED),
            id => Ok(id),
        }
    }

    async fn judge(
        &mut self,
        connect: &mqtt::Connect<'_>,
        client_id: &str,
    ) -> Result<(Arc<Identity>, Option<hub::Will>), Refusal> {
        let (method, data) = (connect.properties.authentication_method, connect.properties.authentication_data);
        let policy = &self.edge.hub.policy;
        if method.is_some_and(|method| method != TOKEN_METHOD || policy.auth.tokens().is_none()) {
            return Err(NO_SUCH_METHOD); // 4.12
        }
        let will_properties = connect.will.as_ref().map_or(0, |will| will.properties.user.len());
        if connect.properties.user.len().max(will_properties) > self.edge.limits.user_properties {
            return Err(TOO_MANY_PROPERTIES);
        }
        let password = if method.is_some() { data } else { connect.password };
        let credentials = Credentials { client_id, user_name: connect.user_name, password };
        let identity = Arc::new(policy.authenticate(credentials, self.slot.remote().ip()).await?);
        let now = Instant::now();
        self.edge.strikes.check(identity.base(), self.slot.address(), now)?;
        self.slot.promote()?;
        let will = connect.will.as_ref().map(|will| policy.will(&identity, client_id, will, now)).transpose()?;
        Ok((identity, will))
    }

    fn attach(
        &self,
        connect: &mqtt::Connect<'_>,
        client_id: &str,
        identity: Arc<Identity>,
        will: Option<hub::Will>,
        write: WriteHalf,
    ) -> Result<Opened, (Refusal, WriteHalf)> {
        let (edge, now) = (self.edge, Instant::now());
        let limits = &edge.limits;
        let properties = &connect.properties;
        let terms = Terms {
            version: connect.version,
            window: properties.receive_maximum.get().min(limits.inflight),
            maximum_packet: properties.maximum_packet_size,
            topic_aliases: properties.topic_alias_maximum.min(limits.topic_aliases),
            problem_information: properties.request_problem_information,
        };
        let expiry = match connect.version {
            Version::V5 => limits.expiry(properties.session_expiry),
            Version::V311 if connect.clean_start => 0,
            Version::V311 => limits.expiry_v311,
        };
        let keep_alive = self.keep_alive(connect);
        let mut link = Link::new(terms, self.websocket, write, Waker::noop().clone());
        link.address = self.slot.address();
        link.probe = (self.slot.is_distant() && self.websocket).then(|| Box::new(Probe::new(limits.lost)));
        link.silence = NonZeroU32::new(u32::from(keep_alive) * 1500);
        let greeting = |present| {
            let mut connack = Vec::new();
            let answer = self.connack(connect, present, client_id, expiry, keep_alive);
            encode(&mut connack, connect.version, &Packet::ConnAck(answer));
            connack
        };
        let request = hub::Connect {
            client_id,
            identity: &identity,
            clean_start: connect.clean_start,
            expiry,
            attachment: Attachment::Link(Box::new(link)),
            will,
            greeting: &greeting,
        };
        let connected = edge.hub.connect(request, now).map_err(|(refusal, attachment)| match attachment {
            Attachment::Link(link) => (refusal, link.stream),
            Attachment::None | Attachment::Local(_) => unreachable!("a link was handed in"),
        })?;
        edge.hub.flush(&connected.session, None, now);
        edge.hub.identify(&connected.session, connected.epoch, &identity, now);
        edge.hub.watch_silence(&connected.session, connected.epoch, now);
        edge.hub.metrics.connects.increment(1);
        let asked = properties.session_expiry;
        let inbound = Inbound::new(
            connect.version,
            limits.topic_aliases,
            edge.hub.policy.topic_length(),
            limits.user_properties,
            asked,
        )
        .authenticating(properties.authentication_method.is_some());
        Ok(Opened { connected, identity, inbound })
    }

    /// Seconds; 0 = none. A 5.0 client is told if it is not what it asked for [MQTT-3.1.2-21], a 3.1.1 client cannot be.
    /// Where neither the system nor a WebSocket ping can tell whether it is there, its own pings have to.
    fn keep_alive(&self, connect: &mqtt::Connect<'_>) -> u16 {
        let limits = &self.edge.limits;
        let by_pings = (self.slot.is_distant() && !self.websocket)
            .then(|| u16::try_from(limits.lost.as_secs() * 2 / 3).unwrap_or(u16::MAX)); // one and a half times that
        match limits.keep_alive_max.into_iter().chain(by_pings).min() {
            Some(max) if connect.version == Version::V5 && (connect.keep_alive == 0 || connect.keep_alive > max) => max,
            _ => connect.keep_alive,
        }
    }

    fn connack<'c>(
        &self,
        connect: &mqtt::Connect<'c>,
        present: bool,
        client_id: &'c str,
        expiry: u32,
        keep_alive: u16,
    ) -> ConnAck<'c> {
        let limits = &self.edge.limits;
        let max_qos = self.edge.hub.policy.rules().table.max_qos();
        let differs = |given, asked| (given != asked).then_some(given);
        ConnAck {
            session_present: present,
            reason: ReasonCode::SUCCESS,
            properties: ConnAckProperties {
                session_expiry: differs(expiry, connect.properties.session_expiry),
                receive_maximum: NonZeroU16::new(limits.inflight),
                maximum_qos: (max_qos < QoS::ExactlyOnce).then_some(max_qos), // [MQTT-3.2.2-9]
                maximum_packet_size: u32::try_from(limits.inlet.packet).ok().and_then(NonZeroU32::new),
                assigned_client_id: connect.client_id.is_empty().then_some(client_id),
                topic_alias_maximum: (limits.topic_aliases > 0).then_some(limits.topic_aliases),
                authentication_method: connect.properties.authentication_method,
                server_keep_alive: differs(u32::from(keep_alive), u32::from(connect.keep_alive)).map(|_| keep_alive),
                ..ConnAckProperties::default()
            },
        }
    }
}

/// A client id that nobody can guess, for a client that sent none [MQTT-3.1.3-6].
fn random_client_id() -> String {
    let mut bytes = [0; 12];
    // Without randomness from the system nothing here would be safe.
    getrandom::fill(&mut bytes).expect("the system has no randomness");
    bytes.iter().fold(String::from("auto-"), |id, byte| id + &format!("{byte:02x}"))
}
