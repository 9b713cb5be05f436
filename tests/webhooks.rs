//! Events over HTTP: what is sent, how it is signed, and what becomes of it while nobody takes it.

mod harness;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use harness::{Broker, Client, PATIENCE};
use serde_json::{Value, json};
use wigwag::{
    Config,
    config::{Hook, Secret},
};

const SECRET: &str = "a secret that the receiver has as well";

/// A request that came.
struct Request {
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: "))).expect(name);
        line.split_once(": ").expect(name).1
    }

    /// The events in it, having checked that they are signed.
    #[track_caller]
    fn events(&self) -> Vec<Value> {
        let (time, signature) = self.header("wigwag-signature").split_once(",v1=").expect("a signature");
        let time = time.strip_prefix("t=").expect("a time");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
        let expected = ring::hmac::sign(&key, format!("{time}.{}", self.body).as_bytes());
        let expected: String = expected.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(signature, expected);
        assert_eq!(self.header("content-type"), "application/json");
        let body: Value = serde_json::from_str(&self.body).expect("JSON");
        body["events"].as_array().expect("a list").clone()
    }
}

/// A server that answers with these statuses, one after the other, and then with 204.
fn receiver(statuses: &'static [u16]) -> (SocketAddr, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (sender, requests) = channel();
    thread::spawn(move || {
        let mut statuses = statuses.iter();
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut bytes = Vec::new();
            let mut buffer = [0; 4096];
            loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head
                        .lines()
                        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                    if body.len() >= length.unwrap_or(0) {
                        let status = statuses.next().copied().unwrap_or(204);
                        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                        let _ = stream.write_all(answer.as_bytes());
                        if sender.send(Request { head: head.into(), body: body.into() }).is_err() {
                            return;
                        }
                        break;
                    }
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(read) => bytes.extend(&buffer[..read]),
                }
            }
        }
    });
    (address, requests)
}

fn hooked(address: SocketAddr) -> impl Fn(&mut Config) {
    move |config| {
        config.webhooks.url = Some(format!("http://{address}/events"));
        config.webhooks.secret = Secret::new(SECRET);
    }
}

const LONG: Duration = Duration::from_secs(30);

fn metric(result: &str) -> String {
    format!("wigwag_webhook_events_total{{result=\"{result}\"}}")
}

#[test]
fn what_happens_is_told_in_order_and_signed() {
    let (address, requests) = receiver(&[]);
    let broker = Broker::shipped_with(|config| {
        hooked(address)(config);
        config.server.node = "here".into();
    });
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    alice.subscribe("rooms/demo/signal", 1);
    alice.disconnect();
    let mut events = Vec::new();
    while events.len() < 4 {
        let request = requests.recv_timeout(LONG).expect("a request");
        assert!(request.head.starts_with("POST /events HTTP/1.1"));
        events.extend(request.events());
    }
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["room/opened", "member/joined", "member/left", "room/closed"]);
    assert_eq!((&events[2]["user"], &events[2]["room"]), (&json!("alice"), &json!("demo")));
    assert_eq!((&events[2]["reason"], &events[2]["node"]), (&json!("left"), &json!("here")));
    assert!(events[2]["at"].is_string() && events[2]["seconds"].is_u64());
    broker.wait_for_metric(&metric("delivered"), 4);
}

#[test]
fn what_is_not_taken_is_sent_again_and_nothing_is_lost() {
    let (address, requests) = receiver(&[500, 302]);
    let broker = Broker::shipped_with(hooked(address));
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    alice.subscribe("rooms/demo/signal", 1);
    let attempts: Vec<_> = (0..3).map(|_| requests.recv_timeout(LONG).expect("a request")).collect();
    for again in &attempts[1..] {
        assert_eq!(again.body, attempts[0].body);
        assert_eq!(again.header("wigwag-delivery"), attempts[0].header("wigwag-delivery"));
        again.events();
    }
    let mut events = attempts[2].events();
    while events.len() < 2 {
        events.extend(requests.recv_timeout(LONG).expect("a request").events());
    }
    assert_eq!((&events[0]["event"], &events[1]["event"]), (&json!("room/opened"), &json!("member/joined")));
    broker.wait_for_metric(&metric("delivered"), 2);
    assert_eq!(broker.metric(&metric("given up")), 0);
}

#[test]
fn after_so_many_attempts_it_goes_on_with_what_came_since() {
    let (address, requests) = receiver(&[500, 500]);
    let broker = Broker::shipped_with(|config| {
        hooked(address)(config);
        config.webhooks.events = vec![Hook::MemberJoined];
        config.webhooks.attempts = 2;
    });
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    alice.subscribe("rooms/first/signal", 1);
    let attempts: Vec<_> = (0..2).map(|_| requests.recv_timeout(LONG).expect("a request")).collect();
    assert_eq!(attempts[0].body, attempts[1].body);
    broker.wait_for_metric(&metric("given up"), 1);
    alice.subscribe("rooms/second/signal", 1);
    let next = requests.recv_timeout(LONG).expect("a request");
    assert_ne!(next.header("wigwag-delivery"), attempts[0].header("wigwag-delivery"));
    let events = next.events();
    assert_eq!((events.len(), &events[0]["room"]), (1, &json!("second")));
    broker.wait_for_metric(&metric("delivered"), 1);
}

#[test]
fn only_what_is_wanted_is_told() {
    let (address, requests) = receiver(&[]);
    let broker = Broker::shipped_with(|config| {
        hooked(address)(config);
        config.webhooks.events = vec![Hook::MemberLeft];
    });
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    alice.subscribe("rooms/demo/signal", 1);
    alice.disconnect();
    let events = requests.recv_timeout(LONG).expect("a request").events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event"], "member/left");
}

#[test]
fn what_is_given_up_and_what_finds_no_room_is_counted() {
    // Nobody listens there: the port was given back.
    let nowhere = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let broker = Broker::shipped_with(|config| {
        hooked(nowhere)(config);
        config.webhooks.queue = 3;
        config.webhooks.attempts = 1;
    });
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    alice.subscribe("rooms/demo/signal", 1);
    broker.wait_for_metric(&metric("given up"), 2);
    drop(broker);

    let broker = Broker::shipped_with(|config| {
        hooked(nowhere)(config);
        config.webhooks.queue = 3;
        config.webhooks.attempts = 100;
    });
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    for room in 0..10 {
        alice.subscribe(&format!("rooms/room-{room}/signal"), 1);
    }
    // Twenty events, of which one request's and three more were kept at most.
    broker.wait_until("drops", |_| broker.metric(&metric("queue full")) > 0);
    assert!(broker.metric("wigwag_webhook_events_waiting") <= 3);
}

#[test]
fn a_shutdown_sends_what_waits_and_is_not_held_up() {
    let (address, requests) = receiver(&[]);
    let broker = Broker::shipped_with(hooked(address));
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    alice.subscribe("rooms/demo/signal", 1);
    broker.shutdown(PATIENCE);
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(requests.recv_timeout(LONG).expect("a request").events());
    }
    assert_eq!(events[1]["event"], "member/joined");

    // One that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let broker = Broker::shipped_with(hooked(address));
    let mut alice = broker.connect(Client::v5("tab").user_name("alice"));
    alice.subscribe("rooms/demo/signal", 1);
    let (done, ended) = channel();
    thread::spawn(move || {
        broker.shutdown(Duration::from_millis(200));
        done.send(()).expect("somebody waits");
    });
    ended.recv_timeout(LONG).expect("the shutdown ends");
}
