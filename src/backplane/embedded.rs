//! The broker in this process: rumqttd, which nothing but this file knows by name.
//!
//! rumqttd 0.20 cannot be stopped: its router and its listeners are threads that run until the process ends. It says
//! that all is well on a port that is taken, and cannot tell which port it got. It answers neither wrong credentials
//! nor one connection too many. So there is at most one in a process, started when it is first needed and used again;
//! it listens, for MQTT 5.0 alone, on a port of loopback that the system chose, with credentials that only this process
//! knows; and services reach it through [`front`](super::front), which has the port that they know.
//!
//! Its router thread ends in a panic when somebody publishes to a topic that begins with a non-ASCII character, and
//! then everything looks alive. Then another one is started beside it, on other ports. What is left of the old one is
//! the thread that listens, and its socket; what it had kept for services is lost. After a few times it stays down.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex as AsyncMutex,
    time::timeout,
};

use crate::wire::mqtt::{Connect, ConnectProperties, Packet, Version, decode, encode};

/// How services reach the embedded broker.
#[derive(Clone)]
pub struct Access {
    pub address: SocketAddr,
    pub username: String,
    pub password: String,
    /// The password was made at this start: nobody knows it who is not told.
    pub generated: bool,
}

/// What a broker is started with; the first server of a process that needs one decides.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Largest packet.
    pub packet: usize,
    pub connections: usize,
    /// Bytes kept of each filter.
    pub log: usize,
}

/// A broker that runs.
#[derive(Debug)]
pub struct Router {
    pub address: SocketAddr,
    pub username: String,
    pub password: String,
}

/// Commit logs are forgotten a segment at a time.
const SEGMENTS: usize = 8;
/// Messages for one connection that leave the router at a time.
const AT_A_TIME: u64 = 200;
/// Connections beside those of services: a link for each server, and those that are about to be replaced.
const OWN: usize = 16;
/// Times a broker is started: each that died leaves threads.
const STARTS: u32 = 8;
/// Ports that somebody else took between our choosing them and the broker's listening there.
const ATTEMPTS: u32 = 3;
/// How long a broker may take to answer its first login.
const FIRST_LOGIN: Duration = Duration::from_secs(20);

struct Running {
    current: Option<Arc<Router>>,
    starts: u32,
}

static RUNNING: AsyncMutex<Running> = AsyncMutex::const_new(Running { current: None, starts: 0 });
/// The same, for who cannot wait.
static CURRENT: Mutex<Option<Arc<Router>>> = Mutex::new(None);

/// The broker of this process, started now if there is none.
pub async fn running(size: Size) -> io::Result<Arc<Router>> {
    let mut running = RUNNING.lock().await;
    match &running.current {
        Some(router) => Ok(Arc::clone(router)),
        None => running.start(size).await,
    }
}

/// The broker at present.
pub fn current() -> Option<Arc<Router>> {
    CURRENT.lock().clone()
}

/// Starts another broker in place of `dead`, unless that has been done.
pub async fn replace(dead: &Arc<Router>, size: Size) -> io::Result<Arc<Router>> {
    let mut running = RUNNING.lock().await;
    match &running.current {
        Some(router) if !Arc::ptr_eq(router, dead) => Ok(Arc::clone(router)),
        _ => running.start(size).await,
    }
}

impl Running {
    async fn start(&mut self, size: Size) -> io::Result<Arc<Router>> {
        if self.starts >= STARTS {
            return Err(io::Error::other(format!(
                "died {STARTS} times in this process, which has to be started again"
            )));
        }
        self.starts += 1;
        let mut last = io::Error::other("not tried");
        for _ in 0..ATTEMPTS {
            match Router::start(size, self.starts).await {
                Ok(router) => {
                    let router = Arc::new(router);
                    self.current = Some(Arc::clone(&router));
                    *CURRENT.lock() = self.current.clone();
                    return Ok(router);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Router {
    async fn start(size: Size, serial: u32) -> io::Result<Self> {
        // Free a moment ago: whether it is ours now, the login shows.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let router = Self { address, username: "wigwag".into(), password: super::start::random_hex()? };
        let config = router.config(size);
        std::thread::Builder::new().name(format!("rumqttd-{serial}")).spawn(move || {
            // It returns when its listeners have failed, which the login below finds out.
            if let Err(error) = Broker::new(config).start() {
                tracing::error!(%error, "the embedded broker");
            }
        })?;
        let deadline = tokio::time::Instant::now() + FIRST_LOGIN;
        while let Err(error) = router.log_in().await {
            if tokio::time::Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(router)
    }

    fn config(&self, size: Size) -> Config {
        let connections = ConnectionSettings {
            connection_timeout_ms: 10_000,
            max_payload_size: size.packet,
            max_inflight_count: 500,
            auth: Some(HashMap::from([(self.username.clone(), self.password.clone())])),
            external_auth: None,
            dynamic_filters: false,
        };
        let name = "rumqttd".to_owned();
        let server = ServerSettings {
            name: name.clone(),
            listen: self.address,
            tls: None,
            next_connection_delay_ms: 1,
            connections,
        };
        Config {
            router: RouterConfig {
                max_connections: size.connections + OWN,
                max_outgoing_packet_count: AT_A_TIME,
                max_segment_size: (size.log / SEGMENTS).max(1024),
                max_segment_count: SEGMENTS,
                ..RouterConfig::default()
            },
            v5: Some(HashMap::from([(name, server)])),
            ..Config::default()
        }
    }

    /// Proves that it is the one that listens there, and that its router answers.
    async fn log_in(&self) -> io::Result<()> {
        let connect = Packet::Connect(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive: 10,
            client_id: "wigwag-login",
            will: None,
            user_name: Some(&self.username),
            password: Some(self.password.as_bytes()),
            properties: ConnectProperties {
                receive_maximum: NonZeroU16::MAX,
                maximum_packet_size: NonZeroU32::new(1 << 20),
                ..ConnectProperties::default()
            },
        });
        let mut bytes = Vec::new();
        encode(&mut bytes, Version::V5, &connect);
        let attempt = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(&bytes).await?;
            let mut answer = Vec::new();
            loop {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(io::Error::other("no answer to a login"));
                }
                match decode(&answer, Version::V5, 1 << 16) {
                    Ok(None) => {}
                    Ok(Some((Packet::ConnAck(ack), _))) if !ack.reason.is_error() => return Ok(()),
                    _ => return Err(io::Error::other("not the answer to a login")),
                }
            }
        };
        timeout(Duration::from_secs(2), attempt).await.map_err(io::Error::from)?
    }
}
