//! The port that services know, in front of the embedded broker.
//!
//! It answers what the broker would leave unanswered (wrong credentials, one connection too many, a client id that it
//! does not take), and then passes packets on, one by one, each written anew. To the broker every service speaks MQTT
//! 5.0: rumqttd 0.20 ends the connection of a 3.1.1 service that is to get a message with a property, as all of ours
//! have. What it would not survive, a topic that begins with a non-ASCII character, ends the service's connection
//! instead. So both versions have one port, a port that is taken is found at start, port 0 works, the port is given
//! back at the end, and a broker that had to be started again is found where the old one was.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    embedded::{self, Access, Router},
    mqtt::LINK_ID,
};
use crate::wire::mqtt::{
    Ack, ConnAck, Connect, ConnectProperties, Packet, ReasonCode, UserProperties, Version, decode, encode,
};

/// See the module.
pub struct Front {
    pub access: Access,
    /// Services at a time.
    pub most: usize,
    /// The largest packet.
    pub packet_max: usize,
    /// A permit for each.
    pub places: Arc<Semaphore>,
    /// When a refusal was written to the log last.
    pub warned: Mutex<Option<Instant>>,
}

/// The largest CONNECT, with its will.
const CONNECT_MAX: usize = 64 << 10;
/// Time for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a warning about what a service does is written.
const WARN_EVERY: Duration = Duration::from_millis(500);

impl Front {
    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: std::net::TcpListener) {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    // Who is told that there is no place needs one for a moment, too.
                    Ok(_) if connections.len() >= 2 * self.most => {}
                    Ok((stream, remote)) => {
                        connections.spawn(Arc::clone(&self).connection(stream, remote));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the backplane's port cannot accept");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self: Arc<Self>, mut service: TcpStream, remote: SocketAddr) {
        let _ = service.set_nodelay(true);
        let Ok(_place) = Arc::clone(&self.places).try_acquire_owned() else {
            tracing::warn!(%remote, "one service too many: backplane.embedded.connections");
            // It is read all the same: a socket closed with bytes unread loses the answer.
            if let Ok(Some((bytes, _))) = timeout(PATIENCE, first_packet(&mut service)).await {
                refuse(&mut service, version_of(&bytes), ReasonCode::QUOTA_EXCEEDED).await;
            }
            return;
        };
        let Ok(Some((bytes, length))) = timeout(PATIENCE, first_packet(&mut service)).await else { return };
        let Ok(Some((Packet::Connect(connect), _))) = decode(&bytes, Version::V5, CONNECT_MAX) else { return };
        let refusal = match self.judge(&connect) {
            Ok(()) => match embedded::current() {
                Some(router) => {
                    let rest = bytes.get(length..).unwrap_or_default();
                    return pass_on(&router, self.packet_max, service, connect, rest).await;
                }
                None => ReasonCode::SERVER_UNAVAILABLE,
            },
            Err(refusal) => refusal,
        };
        if !self.may_warn(Instant::now()) {
            return refuse(&mut service, connect.version, refusal).await;
        }
        tracing::warn!(%remote, client = ?connect.client_id, user = ?connect.user_name, code = refusal.0,
            "a service was refused at the backplane");
        refuse(&mut service, connect.version, refusal).await;
    }

    /// Whoever may connect could fill the log otherwise.
    fn may_warn(&self, now: Instant) -> bool {
        let mut warned = self.warned.lock();
        let due = warned.is_none_or(|last| now.saturating_duration_since(last) >= WARN_EVERY);
        if due {
            *warned = Some(now);
        }
        due
    }

    fn judge(&self, connect: &Connect<'_>) -> Result<(), ReasonCode> {
        let user = connect.user_name.is_some_and(|user| same(user.as_bytes(), self.access.username.as_bytes()));
        let password = connect.password.is_some_and(|given| same(given, self.access.password.as_bytes()));
        if !(user && password) {
            return Err(ReasonCode::BAD_USER_NAME_OR_PASSWORD);
        }
        let id = connect.client_id;
        // [MQTT-3.1.3-8], of 3.1.1
        if connect.version == Version::V311 && id.is_empty() && !connect.clean_start {
            return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
        }
        if id.starts_with(LINK_ID) || id.contains(['+', '#', '$', '/']) {
            return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
        }
        match &connect.will {
            Some(will) if !begins_well(will.topic) => Err(ReasonCode::TOPIC_NAME_INVALID),
            _ => Ok(()),
        }
    }
}

/// Opens a connection to the broker as the server itself, and passes on what either side says until one ends.
async fn pass_on(router: &Router, packet_max: usize, mut service: TcpStream, connect: Connect<'_>, rest: &[u8]) {
    let version = connect.version;
    let Ok(mut broker) = TcpStream::connect(router.address).await else {
        return refuse(&mut service, version, ReasonCode::SERVER_UNAVAILABLE).await;
    };
    let _ = broker.set_nodelay(true);
    // A session of 3.1.1 has no end of its own.
    let session_expiry = if version == Version::V311 { u32::MAX } else { connect.properties.session_expiry };
    let known = Connect {
        version: Version::V5,
        // The broker refuses, without an answer, who promises no sign of life.
        keep_alive: if connect.keep_alive == 0 { u16::MAX } else { connect.keep_alive },
        user_name: Some(&router.username),
        password: Some(router.password.as_bytes()),
        // It gives one alias to all topics of a filter.
        properties: ConnectProperties { session_expiry, topic_alias_maximum: 0, ..connect.properties },
        ..connect
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, Version::V5, &Packet::Connect(known));
    if broker.write_all(&bytes).await.is_err() {
        return;
    }
    let (from_service, to_service) = service.split();
    let (from_broker, to_broker) = broker.split();
    let up = Way { from: version, to: Version::V5, check: survivable, packet_max };
    let down = Way { from: Version::V5, to: version, check: sayable, packet_max };
    tokio::select! {
        () = up.follow(from_service, to_broker, rest.to_vec()) => {}
        () = down.follow(from_broker, to_service, Vec::new()) => {}
    }
}

/// One direction.
struct Way {
    from: Version,
    to: Version,
    /// Whether a packet may go this way.
    check: fn(&Packet<'_>, Version) -> bool,
    packet_max: usize,
}

impl Way {
    /// Passes packets on until one cannot be, or a side has gone.
    async fn follow(self, mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut bytes: Vec<u8>) {
        let mut out = Vec::new();
        loop {
            let whole = self.translate(&bytes, &mut out);
            if !out.is_empty() && to.write_all(&out).await.is_err() {
                return;
            }
            let Some(whole) = whole else { return };
            bytes.drain(..whole);
            out.clear();
            if !matches!(from.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
        }
    }

    /// Writes every whole packet of `bytes` anew; how many bytes those had, unless one of them may not pass.
    fn translate(&self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut done = 0;
        while let Some((packet, length)) = decode(bytes.get(done..)?, self.from, self.packet_max).ok()? {
            if !(self.check)(&packet, self.to) {
                return None;
            }
            encode(out, self.to, &plain(packet));
            done += length;
        }
        Some(done)
    }
}

/// Without what the broker overlooks a whole packet for.
fn plain(packet: Packet<'_>) -> Packet<'_> {
    match packet {
        Packet::PubRel(ack) => Packet::PubRel(Ack { reason_string: None, user: UserProperties::default(), ..ack }),
        packet => packet,
    }
}

/// Whether the broker survives it.
fn survivable(packet: &Packet<'_>, _: Version) -> bool {
    match packet {
        Packet::Publish(publish) if !begins_well(publish.topic) => {
            tracing::warn!(topic = ?publish.topic, "a service's topic begins with a non-ASCII character, which the \
                embedded broker would not survive: the service was disconnected");
            false
        }
        _ => true,
    }
}

/// Whether it can be said in that version: a server of 3.1.1 ends a connection without a word.
fn sayable(packet: &Packet<'_>, version: Version) -> bool {
    version == Version::V5 || !matches!(packet, Packet::Disconnect(_) | Packet::Auth(_))
}

/// A topic may be empty where it has an alias.
fn begins_well(topic: &str) -> bool {
    topic.chars().next().is_none_or(|first| first.is_ascii())
}

/// A whole CONNECT, how long it is, and what came with it; `None` if what comes is none.
async fn first_packet(stream: &mut TcpStream) -> Option<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    loop {
        match decode(&bytes, Version::V5, CONNECT_MAX) {
            Ok(Some((Packet::Connect(_), length))) => return Some((bytes, length)),
            Ok(None) if bytes.len() < CONNECT_MAX => {}
            _ => return None,
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

fn version_of(bytes: &[u8]) -> Version {
    match decode(bytes, Version::V5, CONNECT_MAX) {
        Ok(Some((Packet::Connect(connect), _))) => connect.version,
        _ => Version::V5,
    }
}

async fn refuse(stream: &mut TcpStream, version: Version, reason: ReasonCode) {
    let code = match (version, reason) {
        (Version::V5, reason) => reason,
        (_, ReasonCode::BAD_USER_NAME_OR_PASSWORD) => ReasonCode(4),
        (_, ReasonCode::CLIENT_IDENTIFIER_NOT_VALID) => ReasonCode(2),
        (_, ReasonCode::TOPIC_NAME_INVALID) => ReasonCode(5),
        _ => ReasonCode(3),
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, version, &Packet::ConnAck(ConnAck { reason: code, ..ConnAck::default() }));
    // Whoever has gone needs no answer.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

/// Whether they are the same, in a time that depends on their lengths alone.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_do_not_fill_the_log() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let access = Access { address, username: String::new(), password: String::new(), generated: false };
        let places = Arc::new(Semaphore::new(1));
        let front = Front { access, most: 1, packet_max: 1000, places, warned: Mutex::new(None) };
        let start = Instant::now();
        let warnings = (0..5000).filter(|number| front.may_warn(start + Duration::from_millis(*number)));
        assert_eq!(warnings.count(), 10);
    }
}
