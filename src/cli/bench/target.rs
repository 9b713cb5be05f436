//! The broker that is loaded: where it is, what is spoken to it, from which addresses, and for how long.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use clap::Args;
use hyper::Uri;
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use wigwag::wire::mqtt::Version;

use super::Failure;

/// Connections from one loopback address before the next one is used: brokers bound them for each address, and a
/// closed connection occupies its port for a minute.
const PER_ADDRESS: usize = 500;

#[derive(Args)]
pub struct TargetArgs {
    /// Broker: mqtt:// or ws://
    #[arg(long, default_value = "ws://127.0.0.1:8080/mqtt")]
    pub url: String,

    /// Protocol version: 4 is MQTT 3.1.1, 5 is MQTT 5.0
    #[arg(short = 'V', long, default_value = "4", value_name = "4|5")]
    #[arg(value_parser = clap::value_parser!(u8).range(4..=5))]
    mqtt_version: u8,

    /// Password, or token, of every client
    #[arg(short = 'P', long)]
    password: Option<String>,

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
    /// The upgrade request, where MQTT runs over WebSocket.
    pub upgrade: Option<Vec<u8>>,
}

impl TargetArgs {
    pub fn resolve(&self) -> Result<Target, Failure> {
        let wrong = |reason: &str| Failure::Usage(format!("--url {}: {reason}", self.url));
        let uri: Uri = self.url.parse().map_err(|_| wrong("not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong("a URL looks like mqtt://127.0.0.1:1883 or ws://127.0.0.1:8080/mqtt"));
        };
        let (websocket, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "ws" => (true, 80),
            _ => return Err(wrong("known are mqtt:// and ws://")),
        };
        let host = authority.host().trim_matches(['[', ']']);
        let resolved = (host, authority.port_u16().unwrap_or(default_port)).to_socket_addrs();
        let address = resolved.ok().and_then(|mut addresses| addresses.next()).ok_or_else(|| wrong("no such host"))?;
        let path = if uri.path() == "/" { "/mqtt" } else { uri.path() };
        Ok(Target {
            address,
            version: if self.mqtt_version == 5 { Version::V5 } else { Version::V311 },
            password: self.password.clone().map(String::into_bytes),
            upgrade: websocket.then(|| upgrade_request(authority.as_str(), path)),
        })
    }
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
    pub fn dial(&self, nth: usize) -> std::io::Result<TcpStream> {
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
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }
}
