//! Pages that may not connect.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use wigwag::config::AllowedOrigin;

use crate::harness::*;

/// The status of a WebSocket handshake from this machine, with these headers beside.
fn status(broker: &Broker, host: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(broker.address(Transport::WebSocket)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let request = format!(
        "GET /mqtt HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: mqtt\r\n{headers}\r\n"
    );
    let _ = stream.write_all(request.as_bytes()); // which fails if it was refused before its end
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    String::from_utf8_lossy(&head[9..]).into_owned()
}

#[test]
fn abuse_30_a_foreign_origin() {
    let broker = Broker::shipped_with(|_| {});
    let from = |origin: &str| status(&broker, "localhost:8080", &format!("Origin: {origin}\r\n"));
    let foreign = [
        "https://evil.example",
        "null",
        "http://localhost.evil",
        "http://evil-localhost",
        "http://localhost@evil.example",
        "http://evil.example/localhost",
        "http://evil.example#localhost",
        "localhost",
        "file://",
        "http://",
        "",
        "*",
        "http://localhost:80:80",
    ];
    for origin in foreign {
        assert_eq!(from(origin), "403", "{origin}");
    }
    for two in
        ["Origin: http://localhost\r\nOrigin: https://evil.example\r\n", "Origin: null\r\nOrigin: http://localhost\r\n"]
    {
        assert_eq!(status(&broker, "localhost", two), "403", "{two}");
    }
    assert!(["403", "431"].contains(&&*from(&format!("http://{}", "x".repeat(10 << 10)))));
    // Of the same host at any port, and on loopback by any of its names.
    for origin in [
        "http://localhost:8080",
        "http://localhost:5173",
        "https://localhost",
        "http://127.0.0.1:3000",
        "http://[::1]:1",
    ] {
        assert_eq!(from(origin), "101", "{origin}");
    }
    // A name that somebody has pointed at this machine.
    assert_eq!(status(&broker, "evil.example", "Origin: http://evil.example\r\n"), "403");
    broker.connect(Client::v5("healthy").over(Transport::WebSocket)).ping();
}

#[test]
fn abuse_30_origins_that_are_allowed_are_allowed_exactly() {
    let broker = Broker::shipped_with(|config| {
        config.http.origins = vec![AllowedOrigin::Exact("https://call.example".into())];
    });
    let from = |origin: &str| status(&broker, "localhost", &format!("Origin: {origin}\r\n"));
    assert_eq!(from("https://call.example"), "101");
    for origin in [
        "http://call.example",
        "https://call.example.evil",
        "https://call.example:8443",
        "https://x.call.example",
        "http://localhost",
        "null",
    ] {
        assert_eq!(from(origin), "403", "{origin}");
    }
}

#[test]
fn abuse_31_no_origin() {
    let broker = Broker::shipped_with(|_| {});
    assert_eq!(status(&broker, "localhost", ""), "101", "not a browser");
    let broker = Broker::shipped_with(|config| config.http.origin_required = true);
    assert_eq!(status(&broker, "localhost", ""), "403");
    assert_eq!(status(&broker, "localhost", "Origin: http://localhost\r\n"), "101");
}
