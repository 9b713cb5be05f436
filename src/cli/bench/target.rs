//! The broker that is loaded: where it is, what is spoken to it, from which addresses, and for how long.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use hyper::Uri;
use mio::net::TcpStream;
use rustls_pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned, client::Resumption};
use wigwag::wire::mqtt::Version;

use super::Failure;
use super::stream::{Sessions, Stream};
use crate::cli::tls::client_config;

/// Connections from one loopback address before the next one is used: brokers bound them for each address, and a
/// closed connection occupies its port for a minute.
const PER_ADDRESS: usize = 500;

#[derive(Args)]
pub struct TargetArgs {
    /// Broker: mqtt://, mqtts://, ws:// or wss://
    #[arg(long, default_value = "ws://127.0.0.1:8080/mqtt")]
    pub url: String,

    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(short = 'V', long, default_value = "4", value_name = "4|5")]
    #[arg(value_parser = clap::value_parser!(u8).range(4..=5))]
    mqtt_version: u8,

    /// Password, or token, of every client
    #[arg(short = 'P', long)]
    password: Option<String>,

    /// Certificate authorities to trust, PEM [default: the system's]
    #[arg(long, value_name = "FILE")]
    cafile: Option<PathBuf>,

    /// Trust whoever answers
    #[arg(long, conflicts_with = "cafile")]
    insecure: bool,

    /// A full TLS handshake for every connection, where clients usually resume an earlier session
    #[arg(long)]
    pub no_resumption: bool,

    /// Process of the broker on this machine: its CPU time and memory are reported
    #[arg(long)]
    pub pid: Option<u32>,

    /// Print one line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// For how long a load goes on.
#[derive(Args)]
pub struct TimesArgs {
    /// Seconds that are measured
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,

    /// Seconds of the same before that
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    warmup: u64,
}

impl TimesArgs {
    pub fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    pub fn warmup(&self) -> Duration {
        Duration::from_secs(self.warmup)
    }
}

/// See the module.
pub struct Target {
    pub address: SocketAddr,
    pub version: Version,
    pub password: Option<Vec<u8>>,
    /// Tokens and whose they are, in place of a password.
    pub tokens: Vec<Token>,
    /// What is sent first where MQTT does not come first: the upgrade request, or all there is to ask of an HTTP server.
    pub request: Option<Vec<u8>>,
    pub speaks: Speaks,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Mqtt,
    WebSocket,
    /// No MQTT: a client is served when its first answer has come.
    Http,
}

pub struct Token {
    pub user: String,
    pub token: Vec<u8>,
}

impl TargetArgs {
    pub fn resolve(&self) -> Result<Target, Failure> {
        let target = self.resolve_any()?;
        if target.speaks == Speaks::Http {
            let why = "only `connect` has something to ask of a server without MQTT";
            return Err(Failure::Usage(format!("--url {}: {why}", self.url)));
        }
        Ok(target)
    }

    /// Also a server that speaks no MQTT.
    pub fn resolve_any(&self) -> Result<Target, Failure> {
        let wrong = |reason: &str| Failure::Usage(format!("--url {}: {reason}", self.url));
        let uri: Uri = self.url.parse().map_err(|_| wrong("not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("a URL looks like mqtt://127.0.0.1:1883 or ws://127.0.0.1:8080/mqtt"));
        };
        let (speaks, secure, default_port) = match scheme {
            "mqtt" => (Speaks::Mqtt, false, 1883),
            "mqtts" => (Speaks::Mqtt, true, 8883),
            "ws" => (Speaks::WebSocket, false, 80),
            "wss" => (Speaks::WebSocket, true, 443),
            "http" => (Speaks::Http, false, 80),
            "https" => (Speaks::Http, true, 443),
            _ => return Err(wrong("known are mqtt://, mqtts://, ws:// and wss://")),
        };
        let host = authority.host().trim_matches(['[', ']']);
        let resolved = (host, authority.port_u16().unwrap_or(default_port)).to_socket_addrs();
        let address = resolved.ok().and_then(|mut addresses| addresses.next()).ok_or_else(|| wrong("no such host"))?;
        let request = match speaks {
            Speaks::Mqtt => None,
            Speaks::WebSocket => {
                let path = if uri.path() == "/" { "/mqtt" } else { uri.path() };
                Some(upgrade_request(authority.as_str(), path))
            }
            Speaks::Http => Some(format!("GET {} HTTP/1.1\r\nHost: {authority}\r\n\r\n", uri.path()).into_bytes()),
        };
        let tls = secure.then(|| self.tls(host)).transpose()?;
        Ok(Target {
            address,
            version: if self.mqtt_version == 5 { Version::V5 } else { Version::V311 },
            password: self.password.clone().map(String::into_bytes),
            tokens: Vec::new(),
            request,
            speaks,
            tls,
        })
    }

    fn tls(&self, host: &str) -> Result<(Arc<ClientConfig>, ServerName<'static>), Failure> {
        let mut config = client_config(self.cafile.as_deref(), self.insecure)?;
        config.resumption = match self.no_resumption {
            true => Resumption::disabled(),
            false => Resumption::store(Arc::new(Sessions::default())),
        };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| Failure::Usage(format!("--url {}: {host} has no certificate", self.url)))?;
        Ok((Arc::new(config), name))
    }
}

/// Reads tokens and whom they are for, which is not checked here.
pub fn tokens(path: &Path) -> Result<Vec<Token>, Failure> {
    let wrong = |reason: &dyn std::fmt::Display| Failure::Usage(format!("--tokens {}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let user = |token: &str| {
        let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
        claims.get("sub")?.as_str().map(str::to_owned)
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate();
    let tokens = lines.map(|(nth, token)| match user(token) {
        Some(user) => Ok(Token { user, token: token.into() }),
        None => Err(wrong(&format_args!("the {}th is no token with a sub", nth + 1))),
    });
    let tokens: Vec<Token> = tokens.collect::<Result<_, _>>()?;
    if tokens.is_empty() { Err(wrong(&"no token in it")) } else { Ok(tokens) }
}

/// The key is a nonce by which a client tells a server from a cache; between a generator and its broker stands none.
fn upgrade_request(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2lnd2FnIGJlbmNobWFyaw==\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n\r\n"
    )
    .into_bytes()
}

impl Target {
    /// Begins the `nth` connection of this run.
    pub fn dial(&self, nth: usize) -> std::io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            // All of 127.0.0.0/8 is this machine's.
            let [third, fourth] = ((nth / PER_ADDRESS % 60_000 + 2) as u16).to_be_bytes();
            socket.bind(&SocketAddr::from(([127, 0, third, fourth], 0)).into())?;
        }
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => self.secured(TcpStream::from_std(socket.into())),
        }
    }

    /// The same through TLS where the URL says so; the handshake begins with the first bytes.
    fn secured(&self, socket: TcpStream) -> std::io::Result<Stream> {
        let Some((config, name)) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let connection = ClientConnection::new(Arc::clone(config), name.clone()).map_err(std::io::Error::other)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(connection, socket))))
    }
}
