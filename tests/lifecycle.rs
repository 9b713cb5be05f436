//! From start to end, many times over: what a shutdown promises to clients, and that neither it nor a hundred thousand
//! rooms leave anything behind.
//!
//! Threads and descriptors are counted, so only one test runs at a time.

mod harness;

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use harness::*;
use rustix::process::{Pid, Signal, kill_process};
use wigwag::{Held, QoS as Level};

/// Longer than anything here takes.
const GRACE: Duration = Duration::from_secs(20);

fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    // A test that failed has told so already.
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[test]
fn a_shutdown_sends_what_is_queued_and_then_0x8b() {
    let _alone = alone();
    everywhere(|version, transport| {
        let broker = Broker::start_with(|config| config.limits.inflight = 5);
        let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
        subscriber.subscribe("t", 1);
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        for number in 0..50 {
            assert_eq!(publisher.publish(Message::new("t", number.to_string()).qos(1)), 0);
        }
        // Five are on the way; the others wait for their acknowledgement.
        thread::scope(|scope| {
            scope.spawn(move || {
                publisher.expect_disconnect(0x8B);
                drop(publisher); // or its socket would be waited for, for a moment
                for number in 0..50 {
                    assert_eq!(subscriber.expect_message().text(), number.to_string());
                }
                subscriber.expect_disconnect(0x8B);
                if transport == Transport::WebSocket {
                    assert_eq!(subscriber.socket.closed, Some(Some(1000)));
                }
            });
            broker.shutdown(GRACE);
        });
    });
}

#[test]
fn a_shutdown_waits_for_a_slow_reader_and_for_nobody_else() {
    let _alone = alone();
    let broker = Broker::start_with(|config| config.limits.queue_bytes = 16 << 20);
    let mut slow = broker.connect(Client::v5("slow"));
    slow.subscribe("t", 1);
    let mut publisher = broker.connect(Client::v5("p"));
    for number in 0..60_u8 {
        // More than the system takes for a client that does not read.
        assert_eq!(publisher.publish(Message::new("t", vec![number; 100_000]).qos(1)), 0);
    }
    let idle = [broker.open(Transport::Tcp), broker.open(Transport::WebSocket)];
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            publisher.expect_disconnect(0x8B);
            for number in 0..60_u8 {
                assert_eq!(slow.expect_publish().payload[0], number);
            }
            slow.expect_disconnect(0x8B);
        });
        broker.shutdown(GRACE);
    });
    assert!(started.elapsed() < GRACE / 2, "sockets that have said nothing were waited for");
    drop(idle);
}

#[test]
fn a_stuck_client_does_not_hold_a_shutdown_beyond_the_grace() {
    let _alone = alone();
    let broker = Broker::start_with(|config| config.limits.queue_bytes = 16 << 20);
    let mut deaf = broker.connect(Client::v5("does not acknowledge"));
    deaf.subscribe("t", 1);
    let mut stuck = broker.connect(Client::v5("does not read"));
    stuck.subscribe("t", 0);
    let mut publisher = broker.connect(Client::v5("p"));
    for _ in 0..100 {
        assert_eq!(publisher.publish(Message::new("t", vec![0; 100_000]).qos(1)), 0);
        if let Ok(received) = deaf.next(Duration::from_millis(1)) {
            assert!(matches!(received.packet(), Packet::Publish(_)));
        }
    }
    let reader = thread::spawn(move || {
        loop {
            let received = deaf.receive();
            match received.packet() {
                Packet::Publish(_) => {}
                Packet::Disconnect(disconnect) => break disconnect.reason,
                _ => panic!("{received:?}"),
            }
        }
    });
    let started = Instant::now();
    broker.shutdown(Duration::from_secs(2));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // Told at least why it does not get the rest.
    assert_eq!(reader.join().expect("it was told"), ReasonCode::SERVER_SHUTTING_DOWN);
}

#[test]
fn clients_in_the_process_take_what_was_queued_and_find_the_end() {
    let _alone = alone();
    let broker = Broker::start();
    let mut inside = broker.running().client("inside").expect("a name");
    inside.subscribe("t", Level::AtLeastOnce).expect("open");
    inside.publish("t", b"last words", Level::AtLeastOnce).expect("open");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    broker.shutdown(GRACE);
    runtime.block_on(async {
        assert_eq!(inside.recv().await.expect("it was queued").payload(), b"last words");
        assert!(inside.recv().await.is_none());
    });
}

/// Threads of the broker and of runtimes.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("wigwag") || name.starts_with("tokio")).collect()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}

/// Waits for what ends on its own, soon.
#[track_caller]
fn soon(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: it did not come to that");
        thread::sleep(Duration::from_millis(2));
    }
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

#[test]
fn a_hundred_starts_and_stops_leave_no_thread_no_descriptor_and_no_port() {
    let _alone = alone();
    let round = |number: usize| {
        let broker = Broker::start_with(|config| config.sys.interval = Some(Duration::from_millis(100)));
        let addresses = TRANSPORTS.map(|transport| broker.address(transport));
        let connect = |it: Transport| broker.connect(Client::v5(&format!("{it:?}")).over(it));
        let mut clients = TRANSPORTS.map(connect).into_iter().collect::<Vec<_>>();
        let silent = broker.open(Transport::Tcp);
        clients[1].subscribe("t", 1);
        match number % 3 {
            0 => broker.shutdown(Duration::ZERO),
            1 => thread::scope(|scope| {
                scope.spawn(|| clients.drain(..).for_each(|mut client| _ = client.expect_disconnect(0x8B)));
                broker.shutdown(GRACE);
            }),
            _ => drop(broker),
        }
        drop((clients, silent));
        for address in addresses {
            assert!(is_free(address), "{address} after round {number}");
        }
    };
    round(0);
    soon("threads of the first round", || threads().is_empty());
    let before = descriptors();
    for number in 0..100 {
        round(number);
    }
    soon("no thread is left", || threads().is_empty());
    soon("no descriptor is left", || descriptors() <= before);
}

#[test]
fn a_server_that_is_dropped_frees_its_ports_and_threads() {
    let _alone = alone();
    drop(Broker::start()); // what the first one opens for the whole process stays open
    soon("earlier ones have ended", || threads().is_empty());
    let before = descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.http.listen = vec![any_port];
    config.mqtt.listen = vec![any_port];
    let running = runtime.block_on(Server::builder().config(config).start()).expect("it starts");
    let address = running.addresses().mqtt[0];
    let mut connection = Connection::new(Socket::open(address, Transport::Tcp), Version::V5);
    Client::v5("c").send(&mut connection);
    assert_eq!(connection.expect_connack().reason, 0);
    drop(running);
    while connection.next(PATIENCE).is_ok() {}
    soon("the port is free", || is_free(address));
    soon("its threads have ended", || threads().is_empty());
    drop((connection, runtime));
    soon("its descriptors are closed", || descriptors() <= before);
}

#[test]
fn a_hundred_thousand_rooms_and_clients_leave_nothing() {
    const ROOMS: usize = 100_000;
    const PER_CONNECTION: usize = 500;
    let _alone = alone();
    let broker = Broker::start_with(|config| config.limits.subscriptions = PER_CONNECTION);
    let running = broker.running();
    let mut room = 0;
    let mut peak = Held::default();
    // Rooms: most through clients in the process, some through sockets.
    while room < ROOMS {
        let member = running.client("member").expect("a name");
        for _ in 0..PER_CONNECTION {
            let topic = format!("rooms/room-{room}/signal");
            member.subscribe(&topic, Level::AtLeastOnce).expect("open");
            member.publish(&topic, b"offer", Level::AtMostOnce).expect("open");
            if room.is_multiple_of(50) {
                member.publish_retained(&format!("rooms/room-{room}/state"), b"s", Level::AtMostOnce).expect("open");
            }
            room += 1;
        }
        let held = running.held();
        peak = if held.index_nodes > peak.index_nodes { held } else { peak };
        for cleared in (room - PER_CONNECTION..room).step_by(50) {
            member.publish_retained(&format!("rooms/room-{cleared}/state"), b"", Level::AtMostOnce).expect("open");
        }
    }
    assert!(peak.subscriptions >= PER_CONNECTION && peak.index_nodes > PER_CONNECTION && peak.retained > 0, "{peak:?}");
    assert_eq!(running.held(), Held::default());

    // Client ids: each of them a session of its own.
    for _ in 0..ROOMS {
        running.client("guest").expect("a name").subscribe("lobby", Level::AtLeastOnce).expect("open");
    }
    assert_eq!(running.held(), Held::default());

    // The same in bytes: clients with rooms, wills and kept sessions.
    let one = SubscribeOptions::new(Level::AtLeastOnce);
    for batch in 0..20 {
        let mut clients: Vec<_> = (0..50)
            .map(|n| {
                let id = format!("client-{batch}-{n}");
                let will = Message::new(&format!("rooms/{id}/gone"), "gone");
                let client = Client::v5(&id).over(TRANSPORTS[n % 2]).will(will).expiry((n % 3) as u32 * 60);
                let mut connection = broker.connect(client);
                let filters: Vec<_> = (0..20).map(|room| format!("rooms/{id}-{room}/+")).collect();
                let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), one)).collect();
                connection.send_subscribe(&filters, None);
                connection
            })
            .collect();
        clients.iter_mut().for_each(Connection::ping);
        assert_eq!(running.held().subscriptions, 50 * 20);
        for (n, mut client) in clients.into_iter().enumerate() {
            match n % 3 {
                0 => client.hang_up(),
                1 => {
                    // As if its process had been killed: a reset and no end.
                    let socket = socket2::SockRef::from(&client.socket.stream);
                    socket.set_linger(Some(Duration::ZERO)).expect("a TCP socket");
                }
                _ => client.send_disconnect(0, Some(0)),
            }
        }
        // Those that asked to be kept come back to end it.
        broker.wait_until("all are away", |running| running.connections() == 0);
        for n in (0..50).filter(|n| n % 3 == 1) {
            broker.connect(Client::v5(&format!("client-{batch}-{n}"))).send_disconnect(0, None);
        }
        broker.wait_for_sessions(0);
    }
    broker.wait_until("nothing is held", |running| running.held() == Held::default());
    assert_eq!(broker.metric("wigwag_connection_panics_total"), 0);
}

/// Sets a flag when it goes out of scope, also because an assertion failed.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn sigterm_in_a_storm_of_connections_ends_it_in_order() {
    let _alone = alone();
    let mut child = Command::new(env!("CARGO_BIN_EXE_wigwag"))
        .args(["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"])
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env("WIGWAG_SERVER__SHUTDOWN_GRACE", "10s")
        .env("WIGWAG_BACKPLANE__MODE", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let lines: Vec<String> = lines.take(3).map(|line| line.expect("three addresses")).collect();
    let mqtt: SocketAddr =
        lines.iter().find_map(|line| line.strip_prefix("mqtt://")).expect("its address").parse().expect("an address");
    let over = AtomicBool::new(false);
    let joined = AtomicUsize::new(0);
    let status = thread::scope(|scope| {
        let _end = AtEnd(&over);
        for thread in 0..4 {
            let (over, joined) = (&over, &joined);
            scope.spawn(move || {
                let mut joined_here = Vec::new();
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let Ok(mut stream) = TcpStream::connect(mqtt) else { break };
                    let client = Client::v5(&format!("{thread}-{n}")).expiry(60);
                    let _ = std::io::Write::write_all(&mut stream, &client.encode());
                    joined_here.push(stream);
                    joined_here.truncate(100);
                    joined.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        soon("the storm", || joined.load(Ordering::Relaxed) > 200);
        let started = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
        let status = child.wait().expect("it ends");
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        status
    });
    assert_eq!(status.code(), Some(0));
}
