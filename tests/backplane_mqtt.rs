//! A broker that runs elsewhere: mosquitto, while it is well, and while it is killed, stopped, away or unwilling.

mod harness;
mod services;

use std::{
    collections::HashSet,
    fs,
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use harness::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use services::*;
use wigwag::config::{Password, TopicRows};

fn retained_as_published(qos: u8) -> SubscribeOptions {
    SubscribeOptions { retain_as_published: true, ..options(qos) }
}

#[test]
fn qos_retain_and_properties_are_kept_both_ways() {
    let mosquitto = Mosquitto::start("kept");
    let mut service = service(mosquitto.address(), Client::v5("service"));
    service.subscribe("app/#", retained_as_published(2));
    // Known to the broker before anybody here was there.
    service.publish(Message::new("app/early", "1").qos(1).retain().content_type("a/b").user("k", "v"));
    assert_eq!(service.expect_message().text(), "1");
    let broker = remote(mosquitto.port, |_| {});
    wait_until_up(&broker);

    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/#", retained_as_published(2));
    let early = browser.expect_message();
    assert_eq!(early.gist(), ("app/early", "1", 1, true));
    assert_eq!(early.content_type.as_deref(), Some("a/b"));
    assert!(early.user.contains(&("k".into(), "v".into())));

    for qos in 0..3 {
        for retain in [false, true] {
            let topic = format!("app/{qos}/{retain}");
            let message = |text: &str| Message { retain, ..Message::new(&topic, text).qos(qos) };
            let message =
                |text: &str| message(text).correlation(b"\x01\x02").expiry(1000).user("a", "1").user("a", "2");
            assert_eq!(browser.publish(message("up")), 0);
            for connection in [&mut service, &mut browser] {
                let up = connection.expect_message();
                assert_eq!(up.gist(), (&*topic, "up", qos, retain));
                assert_eq!(up.correlation.as_deref(), Some(&b"\x01\x02"[..]));
                assert!(up.expiry.is_some_and(|left| left > 900));
                assert_eq!(up.user.iter().filter(|(key, _)| key == "a").count(), 2);
            }
            service.publish(message("down"));
            for connection in [&mut service, &mut browser] {
                let down = connection.expect_message();
                assert_eq!(down.gist(), (&*topic, "down", qos, retain));
                assert_eq!(down.user.iter().filter(|(key, _)| key == "a").count(), 2);
            }
        }
    }
    // Who comes later gets what is retained, and what was cleared is gone.
    service.publish(Message::new("app/early", "").qos(1).retain());
    assert_eq!(browser.expect_message().gist(), ("app/early", "", 1, true));
    let mut late = broker.connect(Client::v5("late"));
    late.subscribe("app/#", 2);
    let found: HashSet<_> = (0..3).map(|_| late.expect_message()).map(|message| message.topic).collect();
    assert_eq!(found, ["app/0/true", "app/1/true", "app/2/true"].map(String::from).into());
    late.expect_nothing();
    browser.expect_nothing();
    assert_eq!(broker.metric("wigwag_backplane_echoes_total"), 0, "this broker knows No Local");
}

#[test]
fn every_retained_value_gets_here_and_a_reconnect_repeats_none() {
    let mut mosquitto = Mosquitto::start("retained");
    let mut service = service(mosquitto.address(), Client::v5("service"));
    for number in 0..300 {
        service.publish(Message::new(&format!("app/value/{number}"), number.to_string()).qos(1).retain());
    }
    let broker = remote(mosquitto.port, |_| {});
    wait_until_up(&broker);
    broker.wait_until("all of them", |running| running.held().retained == 300);
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/value/+", 1);
    let found: HashSet<_> = (0..300).map(|_| browser.expect_message().topic).collect();
    assert_eq!(found.len(), 300);
    browser.expect_nothing();

    service.ping(); // all is saved
    thread::sleep(Duration::from_millis(1500));
    mosquitto.kill();
    wait_until_down(&broker);
    mosquitto.run();
    wait_until_up(&broker);
    let mut service = services::service(mosquitto.address(), Client::v5("service"));
    service.publish(Message::new("app/value/new", "x").qos(1).retain());
    assert_eq!(browser.expect_message().topic, "app/value/new", "and nothing before it");
    browser.expect_nothing();
}

#[test]
fn two_servers_at_one_broker_are_one() {
    let mosquitto = Mosquitto::start("two");
    let [one, other] = ["one", "other"].map(|node| remote(mosquitto.port, |config| config.server.node = node.into()));
    wait_until_up(&one);
    wait_until_up(&other);
    let mut here = one.connect(Client::v5("here"));
    let mut there = other.connect(Client::v5("there"));
    here.subscribe("app/two/#", 1);
    there.subscribe("app/two/#", 1);
    for number in 0..100 {
        let (from_here, from_there) = (format!("here {number}"), format!("there {number}"));
        assert_eq!(here.publish(Message::new("app/two/x", &from_here).qos(1)), 0);
        assert_eq!(there.publish(Message::new("app/two/y", &from_there).qos(1)), 0);
    }
    for connection in [&mut here, &mut there] {
        let found = connection.expect_payloads(200);
        for who in ["here", "there"] {
            let of_one: Vec<_> = found.iter().filter(|text| text.starts_with(who)).cloned().collect();
            assert_eq!(of_one, (0..100).map(|number| format!("{who} {number}")).collect::<Vec<_>>(), "in order, once");
        }
        connection.expect_nothing();
    }
}

#[test]
fn two_servers_of_one_name_are_told_so() {
    let mosquitto = Mosquitto::start("same");
    let same = || remote(mosquitto.port, |config| config.server.node = "same".into());
    let one = same();
    wait_until_up(&one);
    let _other = same();
    eventually("an error that says so", || get(&one, "/readyz").1.contains("server.node"));
    // They take the session from each other with longer and longer pauses, not as fast as they can.
    std::thread::sleep(Duration::from_secs(3));
    let before = one.metric("wigwag_backplane_connections_total");
    std::thread::sleep(Duration::from_secs(4));
    let more = one.metric("wigwag_backplane_connections_total") - before;
    assert!(more <= 8, "{more} in four seconds");
}

#[test]
fn a_broker_that_is_not_there_at_start_is_joined_later() {
    let mut mosquitto = Mosquitto::prepare("late", "allow_anonymous true\n");
    let broker = remote(mosquitto.port, |_| {});
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/#", 1);
    let (status, text) = get(&broker, "/readyz");
    assert_eq!(status, 503, "{text}");
    assert!(text.starts_with("degraded: backplane: "), "{text}");
    assert_eq!(get(&broker, "/healthz").0, 200);
    assert_eq!(browser.publish(Message::new("app/x", "waiting").qos(1)), 0);
    assert_eq!(browser.expect_message().text(), "waiting", "here it is at once");

    mosquitto.run();
    let mut service = service(mosquitto.address(), Client::v5("service"));
    service.subscribe("app/#", 1);
    wait_until_up(&broker);
    assert_eq!(get(&broker, "/readyz"), (200, "ready\n".into()));
    service.publish(Message::new("app/y", "joined").qos(1));
    let found = [browser.expect_message()];
    assert_eq!(found[0].text(), "joined");
}

#[test]
fn a_wrong_password_is_told_and_not_tried_again_and_again() {
    let passwords = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("mosquitto-passwords");
    fs::write(&passwords, "wigwag:right\n").expect("writable");
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let hash = std::process::Command::new("mosquitto_passwd").arg("-U").arg(&passwords).env("PATH", path).status();
    assert!(hash.expect("it comes with mosquitto").success());
    let lines = format!("allow_anonymous false\npassword_file {}\n", passwords.display());
    let mosquitto = Mosquitto::start_with("password", &lines);
    let log_in = |password: &str| {
        let password = Some(Password::new(password));
        remote(mosquitto.port, |config| {
            config.backplane.username = "wigwag".into();
            config.backplane.password = password;
        })
    };
    let right = log_in("right");
    wait_until_up(&right);
    drop(right);

    let attempts = |log: &str| log.matches(" disconnected, not authorised").count();
    let before = attempts(&mosquitto.log());
    let wrong = log_in("wrong");
    eventually("an error that says so", || get(&wrong, "/readyz").1.contains("refuses this user name and password"));
    let text = get(&wrong, "/readyz").1;
    assert!(text.contains("backplane.username") && !text.contains("wrong"), "{text}");
    thread::sleep(Duration::from_secs(4));
    assert!((1..=3).contains(&(attempts(&mosquitto.log()) - before)), "{}", mosquitto.log());
}

#[test]
fn a_broker_that_makes_no_sense_is_told_and_not_asked_again_and_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            // A CONNACK that says yes, and then no MQTT at all.
            let _ = stream.write_all(b"\x20\x03\0\0\0HTTP/1.1 200 OK\r\n\r\n");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let broker = remote(port, |_| {});
    eventually("an error that says so", || get(&broker, "/readyz").1.contains("what the broker says is not MQTT"));
    thread::sleep(Duration::from_secs(3));
    let attempts = attempts.load(Ordering::SeqCst);
    assert!((2..=12).contains(&attempts), "{attempts} in three seconds");
    assert_eq!(get(&broker, "/readyz").0, 503);
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("rooms/demo/chat", 1);
    browser.publish(Message::new("rooms/demo/chat", "{}").qos(1));
    assert_eq!(browser.expect_message().text(), "{}", "rooms go on");
}

#[test]
fn what_waits_too_long_is_counted_and_its_sender_told() {
    let mosquitto = Mosquitto::prepare("expiry", "");
    let broker = remote(mosquitto.port, |config| {
        config.topics = TopicRows::default();
        config.backplane.ttl = Duration::from_millis(200);
    });
    let mut alice = broker.connect(Client::v5("alice").user_name("alice"));
    alice.subscribe("users/alice/errors", 0);
    assert_eq!(alice.publish(Message::new("app/late", "x").qos(1)), 0);
    let line = alice.expect_message();
    assert_eq!((&*line.topic, line.qos), ("users/alice/errors", 0));
    let line: Value = serde_json::from_str(line.text()).expect("JSON");
    let reason = "not taken by the backplane in time";
    assert_eq!(line, json!({"topic": "app/late", "action": "publish", "code": 131, "reason": reason}));
    broker.wait_for_metric("wigwag_backplane_expired_total", 1);
    eventually("nothing waits", || broker.metric("wigwag_backplane_buffered_messages") == 0);
}

#[test]
fn a_full_buffer_refuses() {
    let mosquitto = Mosquitto::prepare("full", "");
    let broker = remote(mosquitto.port, |config| config.backplane.buffer_messages = 3);
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/#", 1);
    (0..3).for_each(|_| assert_eq!(browser.publish(Message::new("app/x", "fits").qos(1)), 0));
    browser.expect_payloads(3);
    for qos in 0..3 {
        let expected = if qos == 0 { 0 } else { 0x97 };
        assert_eq!(browser.publish(Message::new("app/x", "too much").qos(qos)), expected);
    }
    broker.wait_for_metric("wigwag_backplane_dropped_total{reason=\"buffer full\"}", 3);
    browser.expect_nothing();
    assert_eq!(browser.publish(Message::new("rooms/demo/chat", "{}").qos(1)), 0x10, "rooms go on");
    // A message that nobody here hears, and that the backplane has, was not in vain.
    let broker = remote(mosquitto.port, |_| {});
    let mut alone = broker.connect(Client::v5("alone"));
    assert_eq!(alone.publish(Message::new("app/x", "x").qos(1)), 0);
}

#[test]
fn what_is_too_large_for_the_broker_is_refused_and_the_link_stays_up() {
    let mosquitto = Mosquitto::start_with("small", "allow_anonymous true\nmax_packet_size 2000\n");
    let broker = remote(mosquitto.port, |_| {});
    wait_until_up(&broker);
    let mut service = service(mosquitto.address(), Client::v5("service"));
    service.subscribe("app/#", 1);
    let mut alice = broker.connect(Client::v5("alice").user_name("alice"));
    assert_eq!(alice.publish(Message::new("app/x", vec![b'x'; 4000]).qos(1)), 0x97);
    assert_eq!(alice.publish(Message::new("app/x", "small").qos(1)), 0);
    assert_eq!(service.expect_message().text(), "small");
    assert_eq!(broker.metric("wigwag_backplane_connections_total"), 1);
}

#[test]
fn the_session_is_kept_while_the_server_is_away() {
    let mosquitto = Mosquitto::start("session");
    let start = || {
        let broker = remote(mosquitto.port, |config| {
            config.server.node = "the-same".into();
            config.backplane.keep_last = vec!["app/kept".into()];
        });
        wait_until_up(&broker);
        broker
    };
    start().shutdown(Duration::from_secs(5));
    let mut service = service(mosquitto.address(), Client::v5("service"));
    service.subscribe("answers", 1);
    for number in 0..50 {
        service.publish(Message::new("app/kept", number.to_string()).qos(1));
        let body = json!({"user": "nobody", "payload": number}).to_string();
        service.publish(Message::new("wigwag/cmd/send", body).qos(1).response_topic("answers"));
    }
    let broker = start();
    for _ in 0..50 {
        let answer: Value = serde_json::from_str(service.expect_message().text()).expect("JSON");
        assert_eq!((answer["status"].as_u64(), answer["node"].as_str()), (Some(404), Some("the-same")));
    }
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/kept", 1);
    assert_eq!(browser.expect_message().text(), "49");
    assert_eq!(broker.metric("wigwag_backplane_received_total"), 50);
}

#[test]
fn it_is_reached_with_tls_and_a_certificate_of_our_own() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("backplane-tls");
    fs::create_dir_all(&directory).expect("writable");
    let file = |name: &str| directory.join(name);
    let authority = rcgen_authority(&file("ca.pem"));
    authority.issue("localhost", &file("server.pem"), &file("server.key"));
    authority.issue("wigwag", &file("client.pem"), &file("client.key"));
    let lines = format!(
        "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
        file("ca.pem").display(),
        file("server.pem").display(),
        file("server.key").display()
    );
    let mosquitto = Mosquitto::start_with("tls", &lines);
    let broker = remote(mosquitto.port, |config| {
        let backplane = &mut config.backplane;
        backplane.url.as_mut().expect("a URL").tls = true;
        backplane.url.as_mut().expect("a URL").host = "localhost".into();
        backplane.ca = Some(file("ca.pem"));
        backplane.certificate = Some(file("client.pem"));
        backplane.key = Some(file("client.key"));
    });
    wait_until_up(&broker);
}

// The faults.

const MESSAGES: usize = 10_000;

/// Numbers that were received, and how often one came again.
#[derive(Default)]
struct Tally {
    seen: HashSet<usize>,
    again: usize,
}

impl Tally {
    fn take(&mut self, message: &Message) {
        let new = self.seen.insert(message.text().parse().expect("a number"));
        self.again += usize::from(!new);
    }

    fn missing(&self) -> Vec<usize> {
        (0..MESSAGES).filter(|number| !self.seen.contains(number)).collect()
    }
}

/// Receives until `over` and nothing has come for a while; a service comes back when its broker does.
fn receive(mut connect: impl FnMut() -> Option<Connection>, over: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut quiet = 0;
    let mut connection = None;
    while quiet < 10 && tally.seen.len() < MESSAGES {
        let Some(open) = &mut connection else {
            connection = connect();
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        match open.next(Duration::from_millis(500)) {
            Ok(received) => {
                quiet = 0;
                if let Packet::Publish(publish) = received.packet() {
                    let message = Message::from(&publish);
                    open.send_puback(message.id);
                    tally.take(&message);
                }
            }
            Err(Progress::Silence) => quiet += usize::from(over.load(Ordering::SeqCst)),
            Err(_) => connection = None,
        }
    }
    tally
}

/// Publishes all numbers at QoS 1, several at a time, and again what was not acknowledged when a connection broke.
/// Calls `after` with how many are acknowledged. Those that were acknowledged on a connection that broke are returned.
fn publish(mut connect: impl FnMut() -> Option<Connection>, topic: &str, mut after: impl FnMut(usize)) -> usize {
    let mut done = 0;
    let mut done_before_a_break = 0;
    let mut connection = None;
    while done < MESSAGES {
        let Some(open) = &mut connection else {
            connection = connect();
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let together = 20.min(MESSAGES - done);
        let ids: Vec<u16> = (0..together)
            .map(|number| open.send_publish(Message::new(topic, (done + number).to_string()).qos(1)))
            .collect();
        let mut acknowledged = 0;
        while acknowledged < together {
            match open.next(Duration::from_secs(30)) {
                Ok(received) => {
                    if let Packet::PubAck(ack) = received.packet() {
                        assert_eq!(ack.packet_id.get(), ids[acknowledged], "in order");
                        assert!(!ack.reason.is_error(), "{ack:?}");
                        acknowledged += 1;
                    }
                }
                Err(_) => {
                    connection = None;
                    done_before_a_break = done + acknowledged;
                    break;
                }
            }
        }
        done += acknowledged;
        after(done);
    }
    done_before_a_break
}

fn try_service(address: std::net::SocketAddr, client: Client) -> Option<Connection> {
    std::net::TcpStream::connect(address).ok()?;
    let mut connection = Connection::new(Socket::open(address, Transport::Tcp), client.version);
    client.send(&mut connection);
    let received = connection.next(Duration::from_secs(30)).ok()?;
    matches!(received.packet(), Packet::ConnAck(ack) if !ack.reason.is_error()).then_some(connection)
}

fn subscribed(mut connection: Connection, topic: &str) -> Connection {
    connection.subscribe(topic, 1);
    connection
}

/// A disturbance in the middle of 10,000 messages each way. Returns what became of them: received by the service, of
/// those that clients here had published; received here, of the service's; how many of the first the broker had
/// acknowledged to this server when it was disturbed, and of the second to the service.
fn in_the_middle(
    mosquitto: &mut Mosquitto,
    disturb: impl FnOnce(&mut Mosquitto, &Broker),
) -> (Tally, Tally, u64, usize) {
    let broker = remote(mosquitto.port, |config| {
        config.backplane.buffer_messages = 2 * MESSAGES;
        // How long a busy machine takes, with a mosquitto that saves at each change, is not what is looked at.
        config.backplane.ttl = Duration::from_secs(3600);
        config.server.node = "disturbed".into();
        config.limits.queue_messages = 2 * MESSAGES;
        config.topics.0.iter_mut().for_each(|row| row.rate.messages = None);
    });
    wait_until_up(&broker);
    let address = mosquitto.address();
    let sink = || Client::kept(Version::V5, "sink").expiry(3600);
    drop(subscribed(service(address, sink()), "app/up"));
    let over = AtomicBool::new(false);
    let mut here = Some(subscribed(broker.connect(Client::v5("here")), "app/down"));
    let half = std::sync::Barrier::new(3);
    let at_half = |done: usize, reached: &mut bool| {
        if done >= MESSAGES / 2 && !*reached {
            *reached = true;
            half.wait();
        }
    };
    let mut acknowledged_here = 0;
    let (up, down, acknowledged_there) = thread::scope(|scope| {
        let up = scope.spawn(|| receive(|| try_service(address, sink()), &over));
        let down = scope.spawn(|| receive(|| here.take(), &over));
        let (half, at_half) = (&half, &at_half);
        let browser = broker.connect(Client::v5("source"));
        let publisher = scope.spawn(move || {
            let (mut browser, mut reached) = (Some(browser), false);
            publish(|| browser.take(), "app/up", |done| at_half(done, &mut reached))
        });
        let source = scope.spawn(move || {
            let mut reached = false;
            publish(|| try_service(address, Client::v5("source")), "app/down", |done| at_half(done, &mut reached))
        });
        half.wait();
        disturb(mosquitto, &broker);
        acknowledged_here = broker.metric("wigwag_backplane_sent_total");
        publisher.join().expect("it published");
        let acknowledged_there = source.join().expect("it published");
        eventually("all is acknowledged", || broker.metric("wigwag_backplane_buffered_messages") == 0);
        over.store(true, Ordering::SeqCst);
        (up.join().expect("it received"), down.join().expect("it received"), acknowledged_there)
    });
    assert_eq!(broker.metric("wigwag_backplane_expired_total"), 0);
    let came = broker.metric("wigwag_backplane_received_total");
    assert_eq!(came as usize, down.seen.len() + down.again, "what came from the broker is here, and nothing else");
    (up, down, acknowledged_here, acknowledged_there)
}

#[test]
fn a_broker_that_is_killed_and_started_again_loses_nothing_that_it_had_not_acknowledged() {
    let mut mosquitto = Mosquitto::start("killed");
    let start = Instant::now();
    let (up, down, acknowledged_here, acknowledged_there) = in_the_middle(&mut mosquitto, |mosquitto, broker| {
        mosquitto.kill();
        wait_until_down(broker);
        mosquitto.run();
    });
    // It acknowledges before it saves; what it loses in between is not ours to keep.
    let (lost_up, lost_down) = (up.missing(), down.missing());
    eprintln!(
        "up: {} lost by the broker, {} again; down: {} lost by the broker, {} again; {:?}",
        lost_up.len(),
        up.again,
        lost_down.len(),
        down.again,
        start.elapsed()
    );
    let beyond: Vec<_> = lost_up.iter().filter(|number| **number as u64 >= acknowledged_here).collect();
    assert!(beyond.is_empty(), "of those not acknowledged: {beyond:?}, acknowledged: {acknowledged_here}");
    let beyond: Vec<_> = lost_down.iter().filter(|number| **number >= acknowledged_there).collect();
    assert!(beyond.is_empty(), "of those not acknowledged: {beyond:?}, acknowledged: {acknowledged_there}");
}

#[test]
fn a_broker_that_stands_still_for_ten_seconds_loses_nothing() {
    let mut mosquitto = Mosquitto::start("still");
    let (up, down, ..) = in_the_middle(&mut mosquitto, |mosquitto, broker| {
        mosquitto.signal(Signal::STOP);
        thread::sleep(Duration::from_secs(10));
        assert_eq!(broker.metric("wigwag_backplane_up"), 0, "it was noticed");
        mosquitto.signal(Signal::CONT);
    });
    eprintln!("again: {} up, {} down", up.again, down.again);
    assert_eq!((up.missing(), down.missing()), (vec![], vec![]));
}

#[test]
fn qos_2_is_exactly_once_however_often_the_connection_breaks() {
    const ROUNDS: usize = 40;
    const EACH: usize = 25;
    let mosquitto = Mosquitto::start("exactly");
    let proxy = Proxy::to(mosquitto.address());
    let broker = remote(proxy.port, |config| config.server.node = "cut".into());
    wait_until_up(&broker);
    let mut service = service(mosquitto.address(), Client::v5("service"));
    service.subscribe("app/up", 2);
    let mut browser = broker.connect(Client::v5("browser"));
    browser.subscribe("app/down", 2);
    for round in 0..ROUNDS {
        let texts = || (round * EACH..(round + 1) * EACH).map(|number| number.to_string());
        for text in texts() {
            assert_eq!(browser.publish(Message::new("app/up", &text).qos(2)), 0);
            assert_eq!(service.publish(Message::new("app/down", &text).qos(2)), 0);
        }
        proxy.cut();
        if round % 2 == 1 {
            continue; // the next ones are published while there is no connection, or a new one is being made
        }
        wait_until_up(&broker);
    }
    let expected = ROUNDS * EACH;
    let in_order = |texts: Vec<String>| {
        let wrong = (0..).zip(&texts).find(|(number, text)| number.to_string() != **text);
        assert_eq!(wrong, None, "the first that is not where it should be");
    };
    eventually("all is acknowledged", || broker.metric("wigwag_backplane_buffered_messages") == 0);
    in_order(service.expect_payloads(expected));
    eventually("all has come", || broker.metric("wigwag_backplane_received_total") >= expected as u64);
    in_order(browser.expect_payloads(expected));
    service.expect_nothing();
    browser.expect_nothing();
    assert!(broker.metric("wigwag_backplane_connections_total") > ROUNDS as u64 / 4);
}

/// A certificate authority, whose certificate is in a file.
fn rcgen_authority(path: &std::path::Path) -> Authority {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    fs::write(path, certificate.pem()).expect("writable");
    Authority { issuer: rcgen::Issuer::new(parameters, key) }
}

struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn issue(&self, name: &str, certificate: &std::path::Path, key: &std::path::Path) {
        let own = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(vec![name.into()]).expect("a name");
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let signed = parameters.signed_by(&own, &self.issuer).expect("a certificate");
        fs::write(certificate, signed.pem()).expect("writable");
        fs::write(key, own.serialize_pem()).expect("writable");
    }
}
