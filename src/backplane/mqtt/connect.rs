//! Where the broker is, how a connection to it is made, and why that fails.

use std::{
    error::Error,
    hash::{BuildHasher, RandomState},
    io,
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::ClientConfig};

use super::{INFLIGHT, KEEP_ALIVE, READ};
use crate::{
    backplane::{
        embedded::{Router, Size},
        outbox::Terms,
    },
    config::BrokerUrl,
    wire::mqtt::{ConnAck, Connect, ConnectProperties, Packet, QoS, ReasonCode, Version, decode, encode},
};

/// Where the broker is.
pub enum Broker {
    Embedded { router: Arc<Router>, size: Size },
    Remote { url: BrokerUrl, tls: Option<Arc<ClientConfig>> },
}

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It broke, or was never made.
    Connection(String),
    /// The broker refused the connection, or a subscription.
    Unwanted(String),
    /// What the broker said made no sense, or it says that of us.
    Protocol(String),
    /// Nothing came back.
    Silence,
}

/// A byte stream to a broker.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// As whom the link connects.
pub struct Login {
    pub client_id: String,
    /// Of a broker that runs elsewhere; the embedded one has its own.
    pub credentials: Option<(String, String)>,
    /// How long the broker keeps the session.
    pub session: Duration,
    /// The largest packet that the link takes.
    pub packet_max: usize,
}

/// What the broker said to a login.
#[derive(Debug, Clone, Copy)]
pub struct Welcome {
    /// It knows the session.
    pub present: bool,
    pub terms: Terms,
    pub retain: bool,
    /// Bytes.
    pub packet_max: usize,
    /// How long neither side is silent.
    pub keep_alive: Duration,
}

impl Broker {
    pub fn name(&self) -> String {
        match self {
            Self::Embedded { .. } => "the embedded broker".into(),
            Self::Remote { url, .. } => url.to_string(),
        }
    }

    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Embedded { router, .. } => {
                let stream = TcpStream::connect(router.address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            Self::Remote { url, tls } => {
                let stream = TcpStream::connect((url.host.as_str(), url.port)).await?;
                stream.set_nodelay(true)?;
                let Some(tls) = tls else { return Ok(Box::new(stream)) };
                let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
                Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
            }
        }
    }

    fn credentials<'a>(&'a self, login: &'a Login) -> Option<(&'a str, &'a str)> {
        match self {
            Self::Embedded { router, .. } => Some((&router.username, &router.password)),
            Self::Remote { .. } => login.credentials.as_ref().map(|(user, password)| (&**user, &**password)),
        }
    }

    /// Makes a connection and logs in. What came behind the answer is left in `incoming`.
    pub async fn connect(
        &self,
        login: &Login,
        clean_start: bool,
        incoming: &mut Vec<u8>,
    ) -> Result<(Box<dyn Stream>, Welcome), Failure> {
        let mut stream = self.dial().await.map_err(|error| broken(&error))?;
        let credentials = self.credentials(login);
        let mut bytes = Vec::new();
        encode(&mut bytes, Version::V5, &Packet::Connect(login.packet(clean_start, credentials)));
        stream.write_all(&bytes).await.map_err(|error| broken(&error))?;
        stream.flush().await.map_err(|error| broken(&error))?;
        incoming.clear();
        loop {
            incoming.reserve(READ);
            if stream.read_buf(incoming).await.map_err(|error| broken(&error))? == 0 {
                return Err(Failure::Connection(
                    "the broker closed the connection instead of answering CONNECT".into(),
                ));
            }
            if let Some((welcome, length)) = welcomed(incoming, login.packet_max)? {
                incoming.drain(..length);
                return Ok((stream, welcome));
            }
        }
    }
}

impl Login {
    fn packet<'a>(&'a self, clean_start: bool, credentials: Option<(&'a str, &'a str)>) -> Connect<'a> {
        Connect {
            version: Version::V5,
            clean_start,
            keep_alive: KEEP_ALIVE.as_secs() as u16,
            client_id: &self.client_id,
            will: None,
            user_name: credentials.map(|(user, _)| user),
            password: credentials.map(|(_, password)| password.as_bytes()),
            properties: ConnectProperties {
                session_expiry: u32::try_from(self.session.as_secs()).unwrap_or(u32::MAX),
                receive_maximum: INFLIGHT,
                maximum_packet_size: u32::try_from(self.packet_max).ok().and_then(NonZeroU32::new),
                ..ConnectProperties::default()
            },
        }
    }
}

/// Reads the answer to a CONNECT, if it is there.
fn welcomed(bytes: &[u8], packet_max: usize) -> Result<Option<(Welcome, usize)>, Failure> {
    match decode(bytes, Version::V5, packet_max) {
        Ok(None) => Ok(None),
        Ok(Some((Packet::ConnAck(ack), length))) => {
            judge(ack.reason, ack.properties.reason_string)?;
            Ok(Some((welcome(&ack), length)))
        }
        Ok(Some(_)) => Err(Failure::Protocol("a broker's first packet that is no CONNACK [MQTT-3.2.0-1]".into())),
        // An answer of 3.1.1: code 1 says that it knows no other protocol.
        Err(_) if matches!(bytes, [0x20, 2, _, 1..=5, ..]) => {
            Err(Failure::Unwanted("the broker does not speak MQTT 5.0".into()))
        }
        Err(error) => Err(Failure::Protocol(error.to_string())),
    }
}

fn welcome(ack: &ConnAck<'_>) -> Welcome {
    let said = &ack.properties;
    let window = said.receive_maximum.map_or(INFLIGHT, |most| most.min(INFLIGHT));
    Welcome {
        present: ack.session_present,
        terms: Terms { window: usize::from(window.get()), qos_max: said.maximum_qos.unwrap_or(QoS::ExactlyOnce) },
        retain: said.retain_available != Some(false),
        packet_max: said.maximum_packet_size.map_or(usize::MAX, |most| most.get() as usize),
        // [MQTT-3.2.2-21]; 0 is no reason to be silent for ever.
        keep_alive: match said.server_keep_alive {
            Some(seconds @ 1..) => KEEP_ALIVE.min(Duration::from_secs(seconds.into())),
            _ => KEEP_ALIVE,
        },
    }
}

/// What a CONNACK or a DISCONNECT of the broker's means.
pub fn judge(reason: ReasonCode, why: Option<&str>) -> Result<(), Failure> {
    let said = explained(reason, why);
    match reason {
        reason if !reason.is_error() => Ok(()),
        ReasonCode::BAD_USER_NAME_OR_PASSWORD | ReasonCode::NOT_AUTHORIZED => Err(Failure::Unwanted(format!(
            "the broker refuses this user name and password ({said}): backplane.username, backplane.password"
        ))),
        ReasonCode::SESSION_TAKEN_OVER => {
            Err(Failure::Unwanted("another server at this broker has the same name: server.node has to differ".into()))
        }
        ReasonCode::MALFORMED_PACKET | ReasonCode::PROTOCOL_ERROR | ReasonCode::PACKET_TOO_LARGE => {
            Err(Failure::Protocol(format!("the broker ends the connection: {said}")))
        }
        ReasonCode::UNSPECIFIED_ERROR
        | ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::SERVER_BUSY
        | ReasonCode::SERVER_SHUTTING_DOWN
        | ReasonCode::KEEP_ALIVE_TIMEOUT => Err(Failure::Connection(format!("the broker ends the connection: {said}"))),
        _ => Err(Failure::Unwanted(format!("the broker refuses the connection: {said}"))),
    }
}

/// A reason as people read it.
pub fn explained(reason: ReasonCode, why: Option<&str>) -> String {
    let why = why.map_or(String::new(), |why| format!(": {}", one_line(why)));
    format!("0x{:02X}, {}{why}", reason.0, reason.name())
}

/// A connection that broke.
pub fn broken(error: &io::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    Failure::Connection(one_line(&text))
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// From half of it to all of it, so that servers that lost the same broker do not come back at once.
pub fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) as u32;
    pause / 2 + pause.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;

    fn answer(ack: &ConnAck<'_>) -> Result<Option<(Welcome, usize)>, Failure> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Version::V5, &Packet::ConnAck(ack.clone()));
        for short in 0..bytes.len() {
            assert!(matches!(welcomed(&bytes[..short], 1 << 16), Ok(None)), "{short} of {bytes:?}");
        }
        welcomed(&bytes, 1 << 16)
    }

    #[test]
    fn the_terms_are_the_brokers_within_our_own() {
        let (plain, _) = answer(&ConnAck::default()).expect("a welcome").expect("all of it");
        assert_eq!((plain.terms.window, plain.terms.qos_max), (usize::from(INFLIGHT.get()), QoS::ExactlyOnce));
        assert_eq!(
            (plain.present, plain.retain, plain.packet_max, plain.keep_alive),
            (false, true, usize::MAX, KEEP_ALIVE)
        );
        let mut ack = ConnAck { session_present: true, ..ConnAck::default() };
        ack.properties.receive_maximum = NonZeroU16::new(3);
        ack.properties.maximum_qos = Some(QoS::AtLeastOnce);
        ack.properties.retain_available = Some(false);
        ack.properties.maximum_packet_size = NonZeroU32::new(1000);
        ack.properties.server_keep_alive = Some(7);
        let (small, _) = answer(&ack).expect("a welcome").expect("all of it");
        assert_eq!((small.terms.window, small.terms.qos_max), (3, QoS::AtLeastOnce));
        let seven = Duration::from_secs(7);
        assert_eq!((small.present, small.retain, small.packet_max, small.keep_alive), (true, false, 1000, seven));
    }

    #[test]
    fn a_refusal_says_what_to_do_about_it() {
        let refused = |reason, why| {
            let mut ack = ConnAck { reason, ..ConnAck::default() };
            ack.properties.reason_string = why;
            answer(&ack).expect_err("a refusal")
        };
        let Failure::Unwanted(why) = refused(ReasonCode::NOT_AUTHORIZED, Some("no\nentry")) else { panic!() };
        assert!(why.contains("backplane.password") && why.contains("0x87, not authorized: no entry"), "{why}");
        assert!(matches!(refused(ReasonCode::BANNED, None), Failure::Unwanted(_)));
        assert!(matches!(refused(ReasonCode::SERVER_BUSY, None), Failure::Connection(_)));
        let old = welcomed(&[0x20, 2, 0, 1], 1 << 16).expect_err("3.1.1");
        assert_eq!(old, Failure::Unwanted("the broker does not speak MQTT 5.0".into()));
        assert!(matches!(welcomed(b"HTTP/1.1 400", 1 << 16), Err(Failure::Protocol(_))));
        assert!(matches!(welcomed(&[0xD0, 0], 1 << 16), Err(Failure::Protocol(_))));
    }
}
