//! The examples of docs/backplane.md run, and do what they say.

mod harness;
mod services;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use harness::*;
use services::*;
use wigwag::config::TopicRows;

/// A process that prints what it does.
struct Example {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Example {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it is installed");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Self { process, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("it goes on").expect("UTF-8")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo puts examples beside the tests, and builds them with them.
fn built_example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("it has a path");
    let path = test.parent().and_then(Path::parent).expect("target/debug").join("examples").join(name);
    assert!(path.exists(), "cargo build --example {name}");
    path
}

#[test]
fn a_service_in_python_greets_a_newcomer() {
    let python = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let python = python.join("python/bin/python");
    assert!(python.exists(), "scripts/setup installs Python's MQTT clients");
    let broker = embedded(|config| config.topics = TopicRows::default());
    let access = broker.running().backplane().expect("embedded");
    let mut greeter = Command::new(python);
    greeter.arg(root().join("examples/greeter.py")).args(["--port", &access.address.port().to_string()]);
    let mut greeter = Example::start(greeter.args(["--user", &access.username, "--password", &access.password]));
    assert_eq!(greeter.line(), "ready");

    let mut alice = broker.connect(Client::v5("alice").user_name("alice"));
    alice.subscribe("rooms/demo/chat", 1);
    assert_eq!(alice.subscribe("rooms/demo/signal", 1), 1, "she joins");
    let greeting = alice.expect_message();
    assert_eq!(greeting.topic, "rooms/demo/chat");
    let greeting: serde_json::Value = serde_json::from_str(greeting.text()).expect("JSON");
    assert_eq!(greeting, serde_json::json!({"username": "greeter", "text": "Welcome, alice!"}));
    assert_eq!(greeter.line(), "demo/alice: 204");

    // Somebody whose room has ended meanwhile; any service may say so.
    let mut other = embedded_service(&broker, Client::v5("other"));
    other.publish(Message::new("events/member/joined", r#"{"room":"empty","user":"bob"}"#).qos(1));
    assert_eq!(greeter.line(), "empty/bob: 404 nobody is in this room");
}

#[test]
fn an_axum_application_reaches_browsers_and_hears_them() {
    let broker = embedded(|_| {});
    let access = broker.running().backplane().expect("embedded");
    let url = format!("mqtt://{}:{}@{}", access.username, access.password, access.address);
    let mut app = Example::start(Command::new(built_example("backplane_axum")).args([&url, "127.0.0.1:0"]));
    let mut said = [app.line(), app.line()];
    said.sort();
    assert_eq!(said[0], "connected");
    let address = said[1].strip_prefix("http://").expect("its address").trim_end_matches('/').to_owned();
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(&address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };

    let mut page = broker.connect(Client::v5("page"));
    page.subscribe("app/news", 1);
    let text = "the soup is ready";
    let length = text.len();
    let post =
        format!("POST /news HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}");
    assert!(ask(&post).starts_with("HTTP/1.1 202 "));
    assert_eq!(page.expect_message().gist(), ("app/news", text, 1, false));

    assert_eq!(page.publish(Message::new("app/orders/7", "one soup").qos(1)), 0);
    eventually("the order is there", || {
        ask("GET /orders HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").ends_with("app/orders/7: one soup")
    });
}
