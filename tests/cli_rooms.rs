//! `wigwag rooms`, `wigwag room` and `wigwag watch`: what an operator sees in a terminal, and nothing worse.

mod harness;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use harness::{Broker, Client, Connection, Message, QoS, Transport};
use wigwag::config::Secret;

const KEY: &str = "an operator key of more than 32 bytes";

fn broker() -> Broker {
    Broker::shipped_with(|config| config.api.keys = vec![Secret::new(KEY).expect("long enough")])
}

fn enter(broker: &Broker, user: &str, room: &str) -> Connection {
    let mut connection = broker.connect(Client::v5(user).user_name(user));
    assert_eq!(connection.subscribe(&format!("rooms/{room}/signal"), 1), 1);
    connection
}

fn wigwag(broker: &Broker, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wigwag"));
    command.args(arguments).env("WIGWAG_URL", format!("http://{}/", broker.address(Transport::WebSocket)));
    command.env_remove("WIGWAG_KEY").env_remove("WIGWAG_TOKEN").stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn run(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn rooms_and_one_room() {
    let broker = broker();
    let mut alice = enter(&broker, "alice", "demo");
    let _bob = enter(&broker, "bob", "demo");
    let _carol = enter(&broker, "carol", "zzz & co");
    alice.publish(Message::new("rooms/demo/presence/alice", r#"{"nick":"\u001b[2J"}"#).qos(1));
    let with_key = |arguments: &[&str]| {
        let mut command = wigwag(&broker, arguments);
        command.env("WIGWAG_KEY", KEY);
        run(command)
    };
    let (code, text, errors) = with_key(&["rooms"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines: Vec<_> = text.lines().map(|line| line.split("  ").map(str::trim).collect::<Vec<_>>()).collect();
    let cells =
        |row: &Vec<&str>| row.iter().filter(|cell| !cell.is_empty()).take(2).map(|c| c.to_string()).collect::<Vec<_>>();
    assert_eq!(cells(&lines[0]), ["ROOM", "MEMBERS"]);
    assert_eq!(cells(&lines[1]), ["demo", "2 of 1000"]);
    assert_eq!(cells(&lines[2]), ["zzz & co", "1 of 1000"]);

    let (code, text, _) = with_key(&["room", "demo"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("demo: 2 of 1000 members, open for "), "{text}");
    assert!(text.contains("\nalice ") && text.contains("\nbob ") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(with_key(&["room", "zzz & co"]).0, Some(0));

    let (code, _, errors) = with_key(&["room", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("nobody is in this room"), "{errors}");
    let (code, _, errors) = run(wigwag(&broker, &["rooms"]));
    assert_eq!(code, Some(2), "{errors}");
    let (code, _, errors) = run(wigwag(&broker, &["rooms", "--token", "x"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("401"), "{errors}");
    let (code, _, errors) = run(wigwag(&broker, &["rooms", "--key", KEY, "--url", "mqtt://x"]));
    assert_eq!(code, Some(2), "{errors}");
}

/// More of them than are asked for at a time.
#[test]
fn all_rooms_are_listed_however_many() {
    let broker = Broker::shipped_with(|config| {
        config.api.keys = vec![Secret::new(KEY).expect("long enough")];
        config.limits.subscriptions = 2000;
        config.rooms.rooms_per_user = None;
    });
    let alice = broker.running().client("alice").expect("a name");
    let names: Vec<_> = (0..1234).map(|n| format!("room & {n:04}")).collect();
    for name in &names {
        alice.subscribe(&format!("rooms/{name}/signal"), QoS::AtLeastOnce).expect("granted");
    }
    let mut command = wigwag(&broker, &["rooms"]);
    command.env("WIGWAG_KEY", KEY);
    let (code, text, errors) = run(command);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let listed: Vec<_> = text.lines().skip(1).map(|line| line.split("  ").next().expect("a cell")).collect();
    assert_eq!(listed, names);
}

#[test]
fn a_room_is_watched() {
    let broker = broker();
    let mut alice = enter(&broker, "alice", "demo");
    let url = format!("mqtt://{}", broker.address(Transport::Tcp));
    for payload in [false, true] {
        let flags: &[&str] = if payload { &["--payload"] } else { &[] };
        let mut command = wigwag(&broker, &[&["watch", "demo", "--url", &url, "-C", "3", "-W", "20"], flags].concat());
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let mut next = || lines.next().expect("a line").expect("UTF-8");
        let first = next();
        assert!(first.contains("alice → everyone") && first.contains("here") && first.contains("retained"), "{first}");
        if payload {
            assert!(next().contains("\"instance\""));
        }
        let offer = r#"{"username":"alice","offer":{"type":"offer","sdp":"v=0 the-sdp"},"x":"\u001b"}"#;
        assert_eq!(alice.publish(Message::new("rooms/demo/signal", offer).qos(1)), 0);
        assert_eq!(alice.publish(Message::new("rooms/demo/state/x", "\x1b[2J").qos(1)), 0);
        let said = next();
        assert!(said.contains("alice → everyone") && said.contains("offer") && said.contains("QoS 1"), "{said}");
        let shown = if payload { next() } else { String::new() };
        assert_eq!(shown.contains("the-sdp"), payload, "{shown}");
        assert!(!said.contains("the-sdp"));
        let state = next();
        assert!(state.contains("state x") && state.contains("4 B"), "{state}");
        if payload {
            let text = next();
            assert!(text.contains("\\u{1b}[2J") && !text.contains('\u{1b}'), "{text}");
        }
        assert!(process.wait().expect("it ends").success());
    }
    assert_eq!(alice.connack.reason, 0);
    let (code, _, errors) = run(wigwag(&broker, &["watch", "a/b"]));
    assert_eq!(code, Some(2), "{errors}");
}
