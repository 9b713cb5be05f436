//! Links that die without a word: nobody says FIN, and the client's keep alive is ten minutes. What notices it is
//! `presence.lost`. That it is noticed at all is the proof; the tests wait for longer than it takes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use super::*;

/// The least that can be configured.
const LOST: Duration = Duration::from_secs(5);
/// Far less than one and a half keep alives.
const NOTICED: Duration = Duration::from_secs(60);

fn broker(change: impl FnOnce(&mut Config)) -> Broker {
    Broker::shipped_with(|config| {
        config.presence.grace = Duration::ZERO;
        config.presence.lost = LOST;
        change(config);
    })
}

/// Waits until the room is empty, or says what it has come to.
#[track_caller]
fn expect_lost(broker: &Broker) {
    let deadline = Instant::now() + NOTICED;
    while broker.running().held().members > 0 {
        assert!(Instant::now() < deadline, "nobody has noticed");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(broker.metric("wigwag_room_leaves_total{reason=\"lost\"}"), 1);
}

/// A proxy that answers for its client whatever becomes of that: it can stop to pass on, and closes nothing.
struct Proxy {
    address: SocketAddr,
    stuck: Arc<AtomicBool>,
}

impl Proxy {
    fn before(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, stuck) = (listener.local_addr().expect("bound"), Arc::new(AtomicBool::new(false)));
        let stuck_there = Arc::clone(&stuck);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(broker).expect("the broker listens");
                pass_on(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&stuck_there));
                pass_on(server, client, Arc::clone(&stuck_there));
            }
        });
        Self { address, stuck }
    }

    fn stop(&self) {
        self.stuck.store(true, Ordering::SeqCst);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, stuck: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if !stuck.load(Ordering::SeqCst) && to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        // Only an end that the other side wanted is passed on.
        if !stuck.load(Ordering::SeqCst) {
            let _ = to.shutdown(std::net::Shutdown::Write);
        }
    });
}

/// A client that comes through the proxy.
fn through(proxy: &Proxy, version: Version, transport: Transport) -> (Connection, ConnAck) {
    let mut socket = Socket::open_with(proxy.address, transport, "X-Forwarded-For: 203.0.113.7\r\n");
    if transport == Transport::Tcp {
        // PROXY version 2, from 203.0.113.7.
        assert!(socket.inbox.is_empty());
    }
    let client = Client::new(version, "a").user_name("alice").keep_alive(600);
    if transport == Transport::Tcp {
        let header =
            [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0, 12, 203, 0, 113, 7, 127, 0, 0, 1, 1, 1, 2, 2]].concat();
        socket.send_raw(&header);
    }
    let mut connection = Connection::new(socket, version);
    client.send(&mut connection);
    let connack = connection.expect_connack();
    assert_eq!(connack.reason, 0);
    (connection, connack)
}

#[test]
fn a_peer_that_is_gone_behind_a_proxy_is_noticed_by_pings() {
    for trusted in [true, false] {
        let broker = broker(|config| {
            config.server.trusted_proxies = if trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        });
        let proxy = Proxy::before(broker.address(Transport::WebSocket));
        let (mut alice, connack) = through(&proxy, Version::V311, Transport::WebSocket);
        assert_eq!(connack.server_keep_alive, None);
        assert_eq!(join(&mut alice, "demo"), 1);
        // It says nothing for longer than that and answers pings, as a browser does for any page.
        alice.expect_silence(2 * LOST);
        assert_eq!(broker.running().held().members, 1);
        proxy.stop();
        expect_lost(&broker);
    }
}

#[test]
fn where_there_are_no_pings_a_client_of_5_0_is_asked_for_its_own() {
    let broker = broker(|config| config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]);
    let proxy = Proxy::before(broker.address(Transport::Tcp));
    let (mut alice, connack) = through(&proxy, Version::V5, Transport::Tcp);
    assert_eq!(connack.server_keep_alive, Some(3), "one and a half times that is within the time");
    assert_eq!(join(&mut alice, "demo"), 1);
    proxy.stop();
    expect_lost(&broker);
}

#[test]
fn who_comes_without_a_proxy_chooses_its_keep_alive_and_gets_no_pings() {
    let broker = broker(|_| {});
    let mut alice = broker.connect(Client::v5("a").over(Transport::WebSocket).user_name("alice").keep_alive(0));
    assert_eq!(alice.connack.server_keep_alive, None);
    alice.expect_silence(LOST);
    assert_eq!((alice.socket.pings, broker.running().connections()), (0, 1));
}

/// A network of its own, behind a cable that can be pulled.
struct Network {
    name: String,
    cable: String,
}

impl Network {
    /// `None` where this is not to be had.
    fn new(subnet: &str) -> Option<Self> {
        let (name, cable) = (format!("wigwag-{}", std::process::id()), format!("wwg{}", std::process::id()));
        let network = Self { name: name.clone(), cable: cable.clone() };
        let (ours, theirs) = (format!("{subnet}.1/30"), format!("{subnet}.2/30"));
        let steps: [&[&str]; 6] = [
            &["netns", "add", &name],
            &["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name],
            &["addr", "add", &ours, "dev", &cable],
            &["link", "set", &cable, "up"],
            &["-n", &name, "addr", "add", &theirs, "dev", "eth0"],
            &["-n", &name, "link", "set", "eth0", "up"],
        ];
        steps.iter().all(|step| ip(step)).then_some(network)
    }

    fn run(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_wigwag")]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ip netns exec")
    }

    /// No packet passes any more, in either direction, and neither side is told: its own end stays up.
    fn pull_the_plug(&self) -> bool {
        ip(&["-n", &self.name, "addr", "flush", "dev", "eth0"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["link", "del", &self.cable]);
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let done = Command::new("ip").args(arguments).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

#[test]
fn a_link_that_takes_no_packets_any_more_is_noticed_by_the_system() {
    let Some(network) = Network::new("10.231.77") else {
        eprintln!("skipped: no network namespaces here");
        return;
    };
    for busy in [false, true] {
        let broker = broker(|config| {
            config.mqtt.listen = vec!["10.231.77.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
            config.auth.open_anywhere = true;
            config.limits.write_timeout = Duration::from_secs(600);
        });
        let url = format!("mqtt://{}", broker.running().addresses().mqtt[0]);
        let mut alice = network.run(&["sub", "--url", &url, "-u", "alice", "-t", "rooms/demo/signal"]);
        let deadline = Instant::now() + NOTICED;
        while broker.running().held().members == 0 {
            assert!(Instant::now() < deadline && alice.try_wait().unwrap().is_none(), "she has not joined");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(network.pull_the_plug());
        if busy {
            let local = broker.running().addresses().mqtt[1];
            let mut bob = Connection::new(Socket::open(local, Transport::Tcp), Version::V5);
            Client::v5("b").user_name("bob").send(&mut bob);
            bob.expect_connack();
            bob.publish(signal("demo", "bob", "are you there?"));
        }
        expect_lost(&broker);
        alice.kill().unwrap();
        alice.wait().unwrap();
        assert!(ip(&["-n", &network.name, "addr", "add", "10.231.77.2/30", "dev", "eth0"]));
    }
}
