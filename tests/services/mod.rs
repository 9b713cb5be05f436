//! The other side of the backplane: services, and a mosquitto that can be killed, stopped and started again.

// Every test binary compiles this module and uses a part of it.
#![allow(dead_code)]

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Deref,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::harness::*;
use wigwag::config::{BackplaneMode, BrokerUrl, Password};

/// How long something may take that has to happen, where processes start and connections are made anew.
pub const LONG: Duration = Duration::from_secs(60);

/// Waits for what no packet announces.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: it did not come to that");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server with the embedded broker, which all servers of a process have in common: one at a time.
pub struct Alone {
    pub broker: Broker,
    pub _guard: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}

/// A server whose services are at an embedded broker, and that is connected to it.
pub fn embedded(change: impl FnOnce(&mut Config)) -> Alone {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed has told so already.
    let guard = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let broker = Broker::start_with(|config| {
        config.backplane.mode = BackplaneMode::Embedded;
        config.backplane.embedded.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.backplane.embedded.password = Some(Password::new("secret"));
        config.backplane.ttl = LONG;
        change(config);
    });
    wait_until_up(&broker);
    Alone { broker, _guard: guard }
}

/// A server that is to connect to the broker on that port.
pub fn remote(port: u16, change: impl FnOnce(&mut Config)) -> Broker {
    Broker::start_with(|config| {
        config.backplane.mode = BackplaneMode::Mqtt;
        config.backplane.url = Some(BrokerUrl { tls: false, host: "127.0.0.1".into(), port });
        config.backplane.ttl = LONG;
        config.backplane.probe = Duration::from_millis(500);
        change(config);
    })
}

#[track_caller]
pub fn wait_until_up(broker: &Broker) {
    eventually("a link that is up", || broker.metric("wigwag_backplane_up") == 1);
}

#[track_caller]
pub fn wait_until_down(broker: &Broker) {
    eventually("a link that is down", || broker.metric("wigwag_backplane_up") == 0);
}

/// Status and text of a page.
pub fn get(broker: &Broker, path: &str) -> (u16, String) {
    let address = broker.address(Transport::WebSocket);
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.into())
}

/// A service at that address, connected.
#[track_caller]
pub fn service(address: SocketAddr, client: Client) -> Connection {
    let (connection, ack) = service_or_not(address, client);
    assert_eq!(ack.reason, 0, "{ack:?}");
    connection
}

#[track_caller]
pub fn service_or_not(address: SocketAddr, client: Client) -> (Connection, ConnAck) {
    let mut connection = Connection::new(Socket::open(address, Transport::Tcp), client.version);
    client.send(&mut connection);
    let ack = connection.expect_connack();
    connection.connack = ack.clone();
    (connection, ack)
}

/// Where services of that server connect, and with what.
pub fn embedded_service(broker: &Broker, client: Client) -> Connection {
    let access = broker.running().backplane().expect("it has an embedded broker");
    service(access.address, client.user_name(&access.username).password(access.password.as_bytes()))
}

/// A mosquitto of the test's own, with its data in a directory of its own.
pub struct Mosquitto {
    pub port: u16,
    directory: PathBuf,
    process: Option<Child>,
}

impl Mosquitto {
    pub fn start(name: &str) -> Self {
        Self::start_with(name, "allow_anonymous true\n")
    }

    /// With these lines in its configuration.
    pub fn start_with(name: &str, lines: &str) -> Self {
        let mut mosquitto = Self::prepare(name, lines);
        mosquitto.run();
        mosquitto
    }

    /// One that is to be started later.
    pub fn prepare(name: &str, lines: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("mosquitto-{name}"));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("the test directory is writable");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let config = format!(
            "user root\nlistener {port} 127.0.0.1\nmax_queued_messages 0\nmax_inflight_bytes 0\n{lines}\
             persistence true\npersistence_location {}/\nautosave_on_changes true\nautosave_interval 1\n",
            directory.display()
        );
        fs::write(directory.join("mosquitto.conf"), config).expect("writable");
        Self { port, directory, process: None }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Starts it, again or for the first time, and waits until it listens.
    pub fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.log_file()).expect("writable");
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("mosquitto");
        command.args(["-v", "-c"]).arg(self.directory.join("mosquitto.conf")).env("PATH", path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("mosquitto is installed: scripts/setup"));
        eventually("mosquitto listens", || TcpStream::connect(self.address()).is_ok());
    }

    /// As a power cut does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).expect("it runs");
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A way to a broker that can be cut.
pub struct Proxy {
    pub port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    pub fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let open = Arc::new(Mutex::new(Vec::new()));
        let streams = Arc::clone(&open);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(broker) else { continue };
                let copy = |from: &TcpStream, to: &TcpStream| {
                    let (mut from, mut to) = (from.try_clone().expect("open"), to.try_clone().expect("open"));
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                        let _ = from.shutdown(std::net::Shutdown::Both);
                    });
                };
                copy(&near, &far);
                copy(&far, &near);
                streams.lock().expect("nobody panics").extend([near, far]);
            }
        });
        Self { port, open }
    }

    /// Ends every connection, in the middle of whatever it says.
    pub fn cut(&self) {
        for stream in self.open.lock().expect("nobody panics").drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}
