//! Floods and nonsense: what is sent in large numbers, in the wrong order or without sense costs its sender, and
//! whoever keeps to the rules gets every message meanwhile.

mod harness;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use harness::*;
use wigwag::wire::ws;

const PANICS: &str = "wigwag_connection_panics_total";

/// Runs `flood` while a publisher and a subscriber go on, and states that they lost nothing.
fn beside_a_call(broker: &Broker, transport: Transport, flood: impl FnOnce() + Send + 'static) {
    let mut subscriber = broker.connect(Client::v5("subscriber").over(transport));
    subscriber.subscribe("call", 1);
    let mut publisher = broker.connect(Client::v5("publisher").over(transport));
    let flood = thread::spawn(flood);
    let mut rounds = 0;
    while !flood.is_finished() || rounds < 10 {
        assert_eq!(publisher.publish(Message::new("call", rounds.to_string()).qos(1)), 0);
        assert_eq!(subscriber.expect_message().text(), rounds.to_string());
        rounds += 1;
    }
    flood.join().expect("the flood went as it should");
    assert_eq!(broker.metric(PANICS), 0);
}

/// Writes `bytes` and reads `answers` bytes, at the same time.
fn exchange(stream: &TcpStream, bytes: Vec<u8>, answers: usize) {
    let mut writing = stream.try_clone().expect("a socket");
    let writer = thread::spawn(move || writing.write_all(&bytes).expect("it is read"));
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let read = std::io::copy(&mut stream.take(answers as u64), &mut std::io::sink()).expect("it is answered");
    assert_eq!(read, answers as u64);
    writer.join().expect("written");
}

#[test]
fn two_hundred_thousand_pings_harm_nobody() {
    const PINGS: usize = 200_000;
    for transport in TRANSPORTS {
        let broker = Broker::start();
        let mut flooder = broker.connect(Client::v5("flooder"));
        let stream = flooder.socket.stream.try_clone().expect("a socket");
        beside_a_call(&broker, transport, move || exchange(&stream, [0xC0, 0].repeat(PINGS), 2 * PINGS));
        flooder.ping();
    }
}

#[test]
fn a_flood_of_websocket_pings_harms_nobody_before_and_after_connect() {
    const PINGS: usize = 100_000;
    let mut ping = Vec::new();
    ws::frame(&mut ping, Opcode::Ping, b"ping", Some([9, 8, 7, 6]));
    let broker = Broker::start();
    let mut connected = broker.connect(Client::v5("flooder").over(Transport::WebSocket));
    let stream = connected.socket.stream.try_clone().expect("a socket");
    let pings = ping.repeat(PINGS);
    beside_a_call(&broker, Transport::Tcp, move || exchange(&stream, pings, PINGS * (2 + 4)));
    connected.ping();

    // Before CONNECT not every ping is answered, but all are read, and CONNECT behind them is.
    let mut connection = broker.raw(Version::V5, Transport::WebSocket);
    let mut stream = connection.socket.stream.try_clone().expect("a socket");
    beside_a_call(&broker, Transport::WebSocket, move || {
        let pings = ping.repeat(PINGS);
        stream.write_all(&pings).expect("it is read");
    });
    Client::v5("late").send(&mut connection);
    assert_eq!(connection.expect_connack().reason, 0);
    assert!(connection.socket.pongs > 0);
}

#[test]
fn of_all_who_fight_for_a_client_id_one_survives() {
    const THREADS: usize = 6;
    const EACH: usize = 25;
    for version in VERSIONS {
        for clean in [true, false] {
            let broker = Broker::start();
            let fight = |transport: Transport| {
                let broker = &broker;
                move || {
                    let client = Client::new(version, "contested").clean(clean).expiry(60).over(transport);
                    let fighter = |_| {
                        // Whoever is taken over at once has its CONNACK first [MQTT-3.2.0-1].
                        let mut connection = broker.connect(client.clone());
                        connection.send_publish(Message::new("t", "m").qos(1));
                        connection
                    };
                    (0..EACH).map(fighter).collect::<Vec<_>>()
                }
            };
            let fighters: Vec<Connection> = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(fight(TRANSPORTS[n % 2]))).collect();
                threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
            });
            broker.wait_until("the others have gone", |running| running.connections() == 1);
            broker.wait_for_sessions(1);
            let survivors = fighters.into_iter().filter_map(survives).count();
            assert_eq!(survivors, 1);
            let all = (THREADS * EACH) as u64;
            assert_eq!(broker.metric("wigwag_connections_accepted_total"), all);
            assert_eq!(broker.metric("wigwag_connections_ended_total{how=\"taken over\"}"), all - 1);
            assert_eq!(broker.metric(PANICS), 0);
        }
    }
}

/// The connection, unless it was told that another one took over (3.1.1: unless it was closed).
fn survives(mut connection: Connection) -> Option<Connection> {
    connection.send(&Packet::PingReq);
    loop {
        match connection.next(PATIENCE) {
            Ok(received) => match received.packet() {
                Packet::PingResp => return Some(connection),
                Packet::PubAck(_) => {}
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, ReasonCode::SESSION_TAKEN_OVER),
                other => panic!("{other:?}"),
            },
            Err(_) => return None,
        }
    }
}

/// [MQTT-3.1.0-1]
#[test]
fn nothing_but_connect_comes_first() {
    let broker = Broker::start();
    let packets: [&[u8]; 14] = [
        &[0x20, 2, 0, 0],                   // CONNACK
        &[0x30, 3, 0, 1, b't'],             // PUBLISH
        &[0x40, 2, 0, 1],                   // PUBACK
        &[0x50, 2, 0, 1],                   // PUBREC
        &[0x62, 2, 0, 1],                   // PUBREL
        &[0x70, 2, 0, 1],                   // PUBCOMP
        &[0x82, 7, 0, 1, 0, 0, 1, b't', 0], // SUBSCRIBE
        &[0x90, 3, 0, 1, 0],                // SUBACK
        &[0xA2, 6, 0, 1, 0, 0, 1, b't'],    // UNSUBSCRIBE
        &[0xB0, 2, 0, 1],                   // UNSUBACK
        &[0xC0, 0],                         // PINGREQ
        &[0xD0, 0],                         // PINGRESP
        &[0xE0, 0],                         // DISCONNECT
        &[0xF0, 2, 0x18, 0],                // AUTH
    ];
    for packet in packets {
        for transport in TRANSPORTS {
            let mut connection = broker.raw(Version::V5, transport);
            connection.send_bytes(packet);
            connection.send_bytes(&Client::v5("c").encode());
            connection.expect_closed();
        }
    }
    assert_eq!(broker.metric("wigwag_connections_accepted_total"), 0);
    assert_eq!(broker.running().held(), wigwag::Held::default());
}

/// Bytes that look like nothing, the same in each run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.next() % 600).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn garbage_on_every_port_harms_nobody() {
    let broker = Broker::start();
    let addresses = TRANSPORTS.map(|transport| broker.address(transport));
    let websocket = broker.address(Transport::WebSocket);
    beside_a_call(&broker, Transport::WebSocket, move || {
        let mut noise = Noise(0x1234_5678_9ABC_DEF0);
        for round in 0..300 {
            for address in addresses {
                let mut stream = TcpStream::connect(address).expect("it listens");
                let _ = stream.write_all(&noise.bytes());
                if round % 2 == 0 {
                    // A reset instead of an end.
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
                }
            }
            // In a frame and raw, behind the upgrade and behind CONNECT.
            let mut socket = Socket::open(websocket, Transport::WebSocket);
            if round % 2 == 0 {
                socket.send(&Client::v5("noise").encode());
            }
            let bytes = noise.bytes();
            if round % 3 == 0 { socket.send_raw(&bytes) } else { socket.send(&bytes) }
        }
    });
    // The publisher and the subscriber of the call have hung up, too.
    broker.wait_until("all of it is closed", |running| running.connections() == 0);
    broker.wait_for_sessions(0);
}

/// The built binary, with as many file descriptors as it is given.
struct Process {
    child: Child,
    mqtt: SocketAddr,
    http: SocketAddr,
}

impl Process {
    fn start(files: usize) -> Self {
        let limited = format!("ulimit -n {files} && exec \"$0\" serve --http 127.0.0.1:0 --mqtt 127.0.0.1:0");
        let mut child = Command::new("sh")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_wigwag")])
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .env("WIGWAG_LIMITS__CONNECTIONS", "1000000")
            .env("WIGWAG_SERVER__WORKERS", "2")
            .env("WIGWAG_BACKPLANE__MODE", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let lines: Vec<String> = lines.take(3).map(|line| line.expect("three addresses")).collect();
        let address = |scheme: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(scheme)).expect("its address");
            line.trim_end_matches('/').parse().expect("an address")
        };
        Self { mqtt: address("mqtt://"), http: address("http://"), child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connected(address: SocketAddr, id: &str) -> Connection {
    let mut connection = Connection::new(Socket::open(address, Transport::Tcp), Version::V5);
    Client::v5(id).send(&mut connection);
    assert_eq!(connection.expect_connack().reason, 0);
    connection
}

#[test]
fn out_of_file_descriptors_it_serves_who_is_there_and_accepts_again() {
    let process = Process::start(100);
    let mut early = connected(process.mqtt, "early");
    early.subscribe("t", 1);
    let mut publisher = connected(process.mqtt, "publisher");
    // The system completes these whether they are accepted or not.
    let many: Vec<_> =
        (0..300).map(|n| TcpStream::connect([process.mqtt, process.http][n % 2]).expect("it listens")).collect();
    let mut waiting = Connection::new(Socket::open(process.mqtt, Transport::Tcp), Version::V5);
    Client::v5("waiting").send(&mut waiting);
    for number in 0..100 {
        assert_eq!(publisher.publish(Message::new("t", number.to_string()).qos(1)), 0);
        assert_eq!(early.expect_message().text(), number.to_string());
    }
    assert!(waiting.next(std::time::Duration::from_millis(200)).is_err(), "there is no descriptor for it");
    drop(many);
    assert_eq!(waiting.expect_connack().reason, 0);
    connected(process.mqtt, "late").ping();
    let metrics = metrics(process.http);
    let errors = metrics.lines().find_map(|line| line.strip_prefix("wigwag_accept_errors_total "));
    assert!(errors.expect("counted").parse::<u64>().expect("a number") > 0);
}

fn metrics(http: SocketAddr) -> String {
    let mut stream = TcpStream::connect(http).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

/// Sets a flag when it goes out of scope, also because an assertion failed.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Everybody at once, again and again, some of them without an end: nobody who keeps to the rules is refused.
#[test]
fn a_storm_of_connections_and_resets() {
    let broker = Broker::start();
    let mqtt = broker.address(Transport::Tcp);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = AtEnd(&over);
        for id in 0..3 {
            let over = &over;
            scope.spawn(move || {
                for round in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut connection = Connection::new(Socket::open(mqtt, Transport::Tcp), Version::V5);
                    Client::v5(&format!("reset {id}")).expiry(60).send(&mut connection);
                    // Now and then they wait, or the system's own queue would be full, which is none of ours.
                    if round % 4 == 0 {
                        let _ = connection.next(PATIENCE);
                    }
                    socket2::SockRef::from(&connection.socket.stream)
                        .set_linger(Some(std::time::Duration::ZERO))
                        .expect("a TCP socket");
                }
            });
        }
        for round in 0..200 {
            let mut client = broker.connect(Client::v5(&format!("honest {round}")).over(TRANSPORTS[round % 2]));
            client.subscribe("t", 1);
            assert_eq!(client.publish(Message::new("t", "m").qos(1)), 0);
            assert_eq!(client.expect_message().text(), "m");
            client.disconnect();
        }
        drop(end);
    });
    broker.wait_until("all of it is over", |running| running.connections() == 0);
    // Three sessions at most are kept, for those who asked for it.
    let held = broker.running().held();
    assert!(held.sessions <= 3 && held.timers == held.sessions && held.subscriptions == 0, "{held:?}");
    assert_eq!(broker.metric(PANICS), 0);
}
