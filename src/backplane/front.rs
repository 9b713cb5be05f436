//! The port that services know, in front of the embedded broker.
//!
//! It reads one packet, CONNECT, answers what the broker would leave unanswered (wrong credentials, one connection too
//! many, a client id it does not take), and passes the rest on to the broker's port for that protocol version, byte by
//! byte. So both versions have one port, a port that is taken is found at start, port 0 works, the port is given back
//! at the end, and a broker that had to be started again is found where the old one was.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{
    embedded::{self, Access, Router},
    mqtt::LINK_ID,
};
use crate::wire::mqtt::{ConnAck, Connect, ConnectProperties, Packet, ReasonCode, Version, decode, encode};

/// See the module.
pub struct Front {
    pub access: Access,
    /// Services at a time.
    pub most: usize,
    /// A permit for each.
    pub places: Arc<Semaphore>,
}

/// The largest CONNECT, with its will.
const CONNECT_MAX: usize = 64 << 10;
/// Time for it.
const PATIENCE: Duration = Duration::from_secs(10);

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
                    return pass_on(&router, service, connect, bytes.get(length..).unwrap_or_default()).await;
                }
                None => ReasonCode::SERVER_UNAVAILABLE,
            },
            Err(refusal) => refusal,
        };
        tracing::warn!(%remote, client = ?connect.client_id, user = ?connect.user_name, code = refusal.0,
            "a service was refused at the backplane");
        refuse(&mut service, connect.version, refusal).await;
    }

    fn judge(&self, connect: &Connect<'_>) -> Result<(), ReasonCode> {
        let user = connect.user_name.is_some_and(|user| same(user.as_bytes(), self.access.username.as_bytes()));
        let password = connect.password.is_some_and(|given| same(given, self.access.password.as_bytes()));
        if !(user && password) {
            return Err(ReasonCode::BAD_USER_NAME_OR_PASSWORD);
        }
        let id = connect.client_id;
        if id.starts_with(LINK_ID) || id.contains(['+', '#', '$', '/']) {
            return Err(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID);
        }
        match &connect.will {
            Some(will) if !will.topic.starts_with(|c: char| c.is_ascii()) => Err(ReasonCode::TOPIC_NAME_INVALID),
            _ => Ok(()),
        }
    }
}

/// Opens a connection to the broker as itself, and is the wire between the two.
async fn pass_on(router: &Router, mut service: TcpStream, connect: Connect<'_>, rest: &[u8]) {
    let version = connect.version;
    let address = if version == Version::V5 { router.v5 } else { router.v311 };
    let Ok(mut broker) = TcpStream::connect(address).await else {
        return refuse(&mut service, version, ReasonCode::SERVER_UNAVAILABLE).await;
    };
    let _ = broker.set_nodelay(true);
    // The broker refuses, without an answer, who promises no sign of life.
    let keep_alive = if connect.keep_alive == 0 { u16::MAX } else { connect.keep_alive };
    let known = Connect {
        keep_alive,
        user_name: Some(&router.username),
        password: Some(router.password.as_bytes()),
        // It gives one alias to all topics of a filter.
        properties: ConnectProperties { topic_alias_maximum: 0, ..connect.properties },
        ..connect
    };
    let mut bytes = Vec::new();
    encode(&mut bytes, version, &Packet::Connect(known));
    bytes.extend_from_slice(rest);
    if broker.write_all(&bytes).await.is_ok() {
        drop(bytes);
        // It ends when either does.
        let _ = copy_bidirectional(&mut service, &mut broker).await;
    }
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
