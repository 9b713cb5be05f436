//! The real binary as the system treats it: stopped and continued, filled and emptied.

mod harness;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use harness::*;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// A broker in a process of its own, which ends with it.
struct Process {
    child: Child,
    mqtt: SocketAddr,
}

impl Process {
    fn start(environment: &[(&str, &str)]) -> Self {
        Self::start_in(Path::new(env!("CARGO_TARGET_TMPDIR")), environment)
    }

    fn start_in(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wigwag"))
            .args(["serve", "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"])
            .current_dir(directory)
            .env("WIGWAG_BACKPLANE__MODE", "off")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let lines: Vec<String> = lines.take(3).map(|line| line.expect("three addresses")).collect();
        let mqtt = lines.iter().find_map(|line| line.strip_prefix("mqtt://")).expect("its address");
        Self { mqtt: mqtt.parse().expect("an address"), child }
    }

    fn connect(&self, client: &Client) -> Connection {
        let mut connection = Connection::new(Socket::open(self.mqtt, Transport::Tcp), client.version);
        client.send(&mut connection);
        assert_eq!(connection.expect_connack().reason, 0);
        connection
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Bytes that are resident.
    fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs, on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("kilobytes") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// [MQTT-3.1.2-22] is about clients that say nothing, not about a server that does not listen: a machine that sleeps,
/// a virtual one that is paused.
#[test]
fn a_process_that_was_stopped_closes_nobody_who_has_spoken() {
    const KEEP_ALIVE: u16 = 2;
    let process = Process::start(&[("WIGWAG_SERVER__WORKERS", "4")]);
    let connect = |n: usize| process.connect(&Client::v5(&format!("client {n}")).keep_alive(KEEP_ALIVE));
    let mut silent = connect(1000);
    let mut clients: Vec<_> = (0..300).map(connect).collect();
    let ping = |clients: &mut Vec<Connection>| {
        clients.iter_mut().for_each(|client| client.send(&Packet::PingReq));
        // A DISCONNECT instead would be what came.
        clients.iter_mut().for_each(Connection::expect_pingresp);
    };
    for _ in 0..3 {
        ping(&mut clients);
        process.signal(Signal::STOP);
        clients.iter_mut().for_each(|client| client.send(&Packet::PingReq));
        thread::sleep(Duration::from_secs(u64::from(KEEP_ALIVE) * 3 / 2 + 1));
        process.signal(Signal::CONT);
        clients.iter_mut().for_each(Connection::expect_pingresp);
    }
    ping(&mut clients);
    silent.expect_disconnect(0x8D);
}

/// The topic table is that of the file, for who is connected too: as soon as that has changed, or at once on SIGHUP. One
/// that is broken changes nothing.
#[test]
fn the_topic_table_follows_the_file() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("process-reload");
    std::fs::create_dir_all(&directory).expect("writable");
    let write = |reload: &str, rows: &[&str]| {
        let row = |name: &&str| {
            format!(
                "[[topic]]\nname = \"{name}\"\nfilter = \"{name}/#\"\npublish = [\"anyone\"]\nsubscribe = [\"anyone\"]\n"
            )
        };
        let errors = "[[topic]]\nname = \"errors\"\nfilter = \"users/{user}/errors\"\nsubscribe = [\"self\"]\n";
        let other = "[[topic]]\nname = \"rest\"\nfilter = \"#\"\n";
        let rows: String = rows.iter().map(row).collect();
        let text = format!("[server]\nreload = {reload}\n{errors}{rows}{other}");
        std::fs::write(directory.join("broker.toml"), text).expect("writable");
    };
    for (reload, sighup) in [("\"100ms\"", false), ("0", true)] {
        write(reload, &["first", "second"]);
        let process = Process::start_in(&directory, &[]);
        let changed = || {
            if sighup {
                process.signal(Signal::HUP);
            }
        };
        let mut client = process.connect(&Client::v5("alice").keep_alive(0));
        assert_eq!((client.subscribe("first/a", 1), client.subscribe("second/a", 1)), (1, 1));
        assert_eq!(client.subscribe("users/alice/errors", 0), 0);
        assert_eq!(client.subscribe("third/a", 1), 0x87);
        client.expect_message(); // of that refusal

        write(reload, &["second", "third"]);
        changed();
        let told = client.expect_message();
        assert!(told.text().contains("\"first/a\"") && told.text().contains("135"), "{}", told.text());
        assert_eq!(client.publish(Message::new("first/a", "m").qos(1)), 0x87);
        client.expect_message();
        assert_eq!(client.subscribe("third/a", 1), 1);
        assert_eq!(client.publish(Message::new("second/a", "m").qos(1)), 0);
        assert_eq!(client.expect_message().topic, "second/a");

        std::fs::write(directory.join("broker.toml"), "[[topic]]\nname = \"broken\"\n").expect("writable");
        changed();
        thread::sleep(Duration::from_millis(500)); // for something that is not to happen
        assert_eq!(client.publish(Message::new("third/a", "m").qos(1)), 0);
    }
}

/// A crowd that comes, has much waiting for it, and goes, as at the end of a conference: what it needed is the system's
/// again within seconds, although some of it stays.
#[test]
fn memory_comes_back_when_a_crowd_has_gone() {
    const CROWD: usize = 1000;
    const STAY: usize = 10;
    const MESSAGES: u8 = 8;
    const MIB: usize = 1 << 20;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raising it is allowed");
    let process = Process::start(&[("WIGWAG_LIMITS__CONNECTIONS_PER_ADDRESS", "0"), ("WIGWAG_LOG__LEVEL", "error")]);
    let mut publisher = process.connect(&Client::v5("publisher"));
    let crowd = |size: usize, publisher: &mut Connection| -> Vec<Connection> {
        let mut crowd: Vec<_> = (0..size)
            .map(|n| {
                let client = Client::v5(&format!("member {n}")).receive_maximum(1).keep_alive(0).expiry(600);
                let mut member = process.connect(&client);
                member.subscribe(&format!("to/{n}"), 1);
                member
            })
            .collect();
        // One is on its way to each, which it does not acknowledge; the others wait.
        for number in 0..MESSAGES {
            for some in (0..size).collect::<Vec<_>>().chunks(50) {
                let publish = |n: &usize| Message::new(&format!("to/{n}"), vec![number; 4000]).qos(1);
                let ids: Vec<_> = some.iter().map(|n| publisher.send_publish(publish(n))).collect();
                ids.into_iter().for_each(|id| assert_eq!(publisher.expect_puback(id).reason, 0));
            }
        }
        crowd.iter_mut().for_each(|member| assert_eq!(member.expect_publish().payload.len(), 4000));
        crowd
    };
    let leave = |crowd: Vec<Connection>| {
        for (n, mut member) in crowd.into_iter().enumerate() {
            let stays = n % (CROWD / STAY) == 0;
            member.send_disconnect(0, Some(if stays { 600 } else { 0 }));
            member.expect_closed();
        }
    };
    leave(crowd(100, &mut publisher));
    let before = process.resident();
    let members = crowd(CROWD, &mut publisher);
    let full = process.resident();
    leave(members);
    let bound = before + (full - before) / 4;
    let (started, mut now) = (Instant::now(), process.resident());
    eprintln!("{} MiB before, {} with the crowd, {} when it has gone", before / MIB, full / MIB, now / MIB);
    while now > bound {
        assert!(started.elapsed() < Duration::from_secs(60), "{} MiB stay, {} were allowed", now / MIB, bound / MIB);
        thread::sleep(Duration::from_millis(100));
        now = process.resident();
    }
    eprintln!("{} MiB after {:?}", now / MIB, started.elapsed());
    publisher.ping();
}
