//! A broker in the test's own process and clients that speak to it in bytes.
//!
//! [`Broker`] listens on ports that the system chose and stops when it is dropped. [`Client`] says what a CONNECT
//! contains; [`Connection`] is what comes of it: a blocking socket, TCP or WebSocket, on which a test sends packets and
//! states which packets come back. Nothing is awaited by sleeping: what has to come is read with a deadline, and that
//! nothing comes is shown by a PINGREQ whose PINGRESP is the next packet.
//!
//! The broker writes a message to its receivers before it acknowledges it to its publisher, so what follows a returned
//! [`Connection::publish`] finds it delivered.

// Every test binary compiles this module and uses a part of it.
#![allow(dead_code, unused_imports)]

mod client;
mod connection;
mod http;
mod packets;
mod socket;

use std::{
    future::Future,
    net::{Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

pub use client::{Client, Will};
pub use connection::{Connection, options};
pub use http::Answer;
pub use packets::{Ack, ConnAck, Disconnect, Message, Received, SubAck};
pub use socket::{Progress, Socket, Transport};
pub use wigwag::{
    Config, Running, Server,
    config::RateConfig,
    wire::{
        mqtt::{Packet, QoS, ReasonCode, RetainHandling, SubscribeOptions, Version},
        ws::Opcode,
    },
};

/// How long something may take that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The two versions, for tests of what both have.
pub const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
/// The two transports, likewise.
pub const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

/// Runs `test` for each version on each transport.
pub fn everywhere(test: impl Fn(Version, Transport)) {
    for version in VERSIONS {
        for transport in TRANSPORTS {
            eprintln!("--- {version:?} over {transport:?}"); // shown if the test fails
            test(version, transport);
        }
    }
}

/// A broker in this process, with two workers and no `$SYS` topics unless the test says otherwise.
pub struct Broker {
    /// Absent only while it is being stopped.
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

/// A topic table without any rule.
const ANYTHING_GOES: &str = r##"
[[topic]]
name = "all"
filter = "#"
publish = ["anyone"]
subscribe = ["anyone"]
retain = "allowed"
size = 0
rate = { messages = 0, bytes = 0 }

[[topic]]
name = "sys"
filter = "$SYS/#"
publish = ["broker"]
subscribe = ["anyone"]
"##;

impl Broker {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// Starts one that lets everybody do everything, as fast as they like, and whose configuration `change` has been
    /// over: for tests of MQTT itself.
    pub fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::shipped_with(|config| {
            config.topics = Config::from_toml_str(ANYTHING_GOES).expect("valid").topics;
            config.rate = RateConfig::unlimited();
            change(config);
        })
    }

    /// Starts one with the shipped topic table and rates, and whose configuration `change` has been over.
    pub fn shipped_with(change: impl FnOnce(&mut Config)) -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config::default();
        config.http.listen = vec![any_port];
        config.mqtt.listen = vec![any_port];
        config.server.workers = Some(2);
        config.sys.interval = None;
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let running = runtime.block_on(Server::builder().config(config).start()).expect("the broker starts");
        Self { running: Some(running), runtime }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs until it is dropped")
    }

    /// Runs `future` on the test's own runtime: for clients inside the process.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let limited = async { tokio::time::timeout(PATIENCE, future).await };
        self.runtime.block_on(limited).expect("it did not come to an end")
    }

    /// Stops it gracefully.
    pub fn shutdown(mut self, grace: Duration) {
        let running = self.running.take().expect("it runs");
        self.runtime.block_on(running.shutdown(grace));
    }

    pub fn address(&self, transport: Transport) -> SocketAddr {
        let addresses = self.running().addresses();
        match transport {
            Transport::Tcp => addresses.mqtt[0],
            Transport::WebSocket => addresses.http[0],
        }
    }

    /// A socket on which nothing was sent (after the WebSocket handshake, if there is one).
    pub fn open(&self, transport: Transport) -> Socket {
        Socket::open(self.address(transport), transport)
    }

    /// A connection on which nothing was sent yet; packets are read in `version`.
    pub fn raw(&self, version: Version, transport: Transport) -> Connection {
        Connection::new(self.open(transport), version)
    }

    /// Sends a CONNECT and expects it to be accepted.
    #[track_caller]
    pub fn connect(&self, client: Client) -> Connection {
        let (connection, connack) = self.connect_or_not(client);
        assert_eq!(connack.reason, 0, "CONNECT was refused: {connack:?}");
        connection
    }

    /// Sends a CONNECT and expects it to be refused, and the connection closed.
    #[track_caller]
    pub fn connect_refused(&self, client: Client) -> ConnAck {
        let (mut connection, connack) = self.connect_or_not(client);
        assert_ne!(connack.reason, 0, "CONNECT was accepted: {connack:?}");
        assert!(!connack.session_present, "[MQTT-3.2.2-6]");
        connection.expect_closed(); // [MQTT-3.2.2-7]
        connack
    }

    /// Sends a CONNECT and returns what it is answered.
    #[track_caller]
    pub fn connect_or_not(&self, client: Client) -> (Connection, ConnAck) {
        let mut connection = self.raw(client.version, client.transport);
        client.send(&mut connection);
        let connack = connection.expect_connack();
        connection.connack = connack.clone();
        (connection, connack)
    }

    /// Waits until `condition` holds, for what no packet announces.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&Running) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self.running()) {
            assert!(Instant::now() < deadline, "{what}: it did not come to that; held: {:?}", self.running().held());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What `/metrics` says of `name`, which has its labels behind it, or the first of them; 0 where it says nothing, and
    /// the sum where it says more.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.running().metrics();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        let named = lines.filter(|(labels, _)| labels.is_empty() || (name.contains('{') && labels.starts_with(',')));
        named.map(|(_, value)| value.parse::<u64>().expect("a whole number")).sum()
    }

    /// Waits until a metric has come to `value`, and states that it has not gone beyond.
    #[track_caller]
    pub fn wait_for_metric(&self, name: &str, value: u64) {
        self.wait_until(name, |_| self.metric(name) >= value);
        assert_eq!(self.metric(name), value, "{name}");
    }

    /// Waits until `count` connections are left, and the sessions of the others know that theirs is over.
    #[track_caller]
    pub fn wait_for_connections(&self, count: usize) {
        self.wait_until("connections", |running| running.connections() == count);
    }

    /// Waits until there are `count` sessions, connected or kept.
    #[track_caller]
    pub fn wait_for_sessions(&self, count: usize) {
        self.wait_until("sessions", |running| running.held().sessions == count);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown(Duration::ZERO));
        }
    }
}

/// Ends a socket in both directions, as a process that is killed does.
fn hang_up(stream: &std::net::TcpStream) {
    // It fails if the other side was faster.
    let _ = stream.shutdown(Shutdown::Both);
}
