//! Tokens, attacked: at CONNECT, against a server that runs. What each is worth is in `tests/auth_tokens.rs`.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use wigwag::{
    auth::Revocation,
    config::{Algorithm, KeySource, TokenKey},
};

use crate::{harness::*, people::*};

const OTHER: &str = "another HMAC secret of over 32 bytes";

fn part(json: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json.to_string())
}

/// A token with any header, signed as HS256 with any key.
fn forged(header: &Value, key: &[u8]) -> String {
    let claims = json!({ "sub": "alice", "exp": seconds() + 60, "rooms": { "demo": ["join"] } });
    let message = format!("{}.{}", part(header), part(&claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
}

/// Each is refused as a password and, where it can be, as Authentication Data; and a good one is not.
fn refused(broker: &Broker, tokens: &[String], reason: u8) {
    for token in tokens {
        for version in VERSIONS {
            for transport in TRANSPORTS {
                let connack = broker.connect_refused(with_token(version, "alice", token).over(transport));
                assert_eq!(connack.reason, connack_code(version, reason), "{token:.200}");
                let said = connack.reason_string.unwrap_or_default();
                assert!(!said.contains(token.as_str()), "{said}");
            }
        }
        let authenticating = Client::v5("alice").authentication_method("jwt").authentication_data(token.as_bytes());
        assert_eq!(broker.connect_refused(authenticating).reason, reason, "{token:.200}");
    }
    assert!(broker.metric("wigwag_connections_ended_total{how=\"panicked\"}") == 0);
}

fn admitted(broker: &Broker, token: &str) {
    for version in VERSIONS {
        let mut alice = broker.connect(with_token(version, "alice", token));
        assert_eq!(alice.subscribe("rooms/demo/signal", 1), 1);
        alice.disconnect();
    }
    let mut alice =
        broker.connect(Client::v5("alice").authentication_method("jwt").authentication_data(token.as_bytes()));
    assert_eq!(alice.subscribe("rooms/demo/signal", 1), 1);
}

fn with_public_keys(config: &mut Config) {
    with_tokens(config);
    config.auth.token.secret = None;
    let key = |algorithm, kid: &str| TokenKey {
        kid: Some(kid.into()),
        algorithm,
        source: KeySource::PublicKeyFile(key_file(&format!("{kid}.public.pem"))),
    };
    config.auth.token.keys = vec![key(Algorithm::Rs256, "rs256"), key(Algorithm::Es256, "es256")];
}

fn key_file(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

#[test]
fn abuse_18_alg_none() {
    let broker = tokens();
    let unsigned = |alg: &str| {
        let good = forged(&json!({ "alg": alg, "typ": "JWT" }), SECRET.as_bytes());
        let (message, signature) = good.rsplit_once('.').expect("three parts");
        [format!("{message}."), format!("{message}.{signature}"), format!("{message}.AAAA")]
    };
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256 ", "hs256", "HS384", "HS512"] {
        refused(&broker, &unsigned(alg), 0x86);
    }
    admitted(&broker, &token("alice", demo(&["join"])));
}

#[test]
fn abuse_19_a_public_key_used_as_a_secret() {
    let broker = Broker::shipped_with(with_public_keys);
    for (kid, alg) in [("rs256", "RS256"), ("es256", "ES256")] {
        let pem = std::fs::read(key_file(&format!("{kid}.public.pem"))).expect("a key");
        let trimmed = pem.trim_ascii_end().to_vec();
        let headers =
            [json!({ "alg": "HS256", "kid": kid }), json!({ "alg": "HS256" }), json!({ "alg": alg, "kid": kid })];
        let tokens: Vec<_> =
            headers.iter().flat_map(|header| [forged(header, &pem), forged(header, &trimmed)]).collect();
        refused(&broker, &tokens, 0x86);
    }
}

#[test]
fn abuse_20_a_key_id_that_is_a_path_or_an_injection() {
    let broker = Broker::shipped_with(with_public_keys);
    let kids = [
        "../../../../dev/null",
        "/dev/null",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:1/key",
        "' OR 1=1 --",
        "rs256\0",
        "rs256/../es256",
        "$(id)",
        "",
    ];
    // Signed with what such a file would hold: nothing.
    let tokens: Vec<_> = kids
        .iter()
        .flat_map(|kid| ["HS256", "RS256"].map(|alg| forged(&json!({ "alg": alg, "kid": kid }), b"\0")))
        .collect();
    refused(&broker, &tokens, 0x86);
}

#[test]
fn abuse_21_keys_that_the_token_brings_along() {
    let broker = tokens();
    // Somebody waits to be asked for keys.
    let trap = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    trap.set_nonblocking(true).expect("a socket");
    let url = format!("http://{}/keys", trap.local_addr().expect("bound"));
    let own = BASE64_URL_SAFE_NO_PAD.encode(OTHER);
    let brought = [
        json!({ "alg": "HS256", "jku": url }),
        json!({ "alg": "HS256", "x5u": url }),
        json!({ "alg": "HS256", "jwk": { "kty": "oct", "alg": "HS256", "k": own } }),
        json!({ "alg": "HS256", "x5c": [own] }),
        json!({ "alg": "HS256", "kid": url, "jku": url }),
    ];
    refused(&broker, &brought.each_ref().map(|header| forged(header, OTHER.as_bytes())), 0x86);
    assert!(trap.accept().is_err(), "nobody came for keys");
    admitted(&broker, &forged(&brought[2], SECRET.as_bytes()));
}

#[test]
fn abuse_22_for_somebody_else_or_for_ever() {
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        (config.auth.token.issuer, config.auth.token.audience) =
            (vec!["https://id.example".into()], vec!["wigwag".into()]);
    });
    let with = |iss: Value, aud: Value, more: Value| {
        let mut claims = json!({ "iss": iss, "aud": aud, "rooms": { "demo": ["join"] } });
        claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        token("alice", claims)
    };
    let (iss, aud) = (|| json!("https://id.example"), || json!("wigwag"));
    let bad = [
        with(json!("https://id.example.evil"), aud(), json!({})),
        with(json!(null), aud(), json!({})),
        with(iss(), json!("wigwag2"), json!({})),
        with(iss(), json!([]), json!({})),
        with(iss(), json!(null), json!({})),
        with(iss(), aud(), json!({ "exp": null })),
        with(iss(), aud(), json!({ "exp": "never" })),
        with(iss(), aud(), json!({ "sub": null })),
    ];
    refused(&broker, &bad, 0x86);
    admitted(&broker, &with(iss(), json!(["x", "wigwag"]), json!({})));
}

#[test]
fn abuse_23_too_late_and_too_early() {
    let broker = tokens(); // leeway: 5 s
    let bad = [
        token("alice", json!({ "exp": seconds() - 6 })),
        token("alice", json!({ "exp": 0 })),
        token("alice", json!({ "nbf": seconds() + 30 })),
        token("alice", json!({ "iat": seconds() + 30 })),
    ];
    refused(&broker, &bad, 0x86);
    for claims in [json!({ "exp": seconds() + 1 }), json!({ "nbf": seconds() + 3 }), json!({ "iat": seconds() + 3 })] {
        broker.connect(client(Version::V5, "alice", claims)).disconnect();
    }
    // One that has just run out is good for the leeway; how long is left of that depends on when this runs.
    let late = client(Version::V5, "alice", json!({ "exp": seconds() - 1 }));
    broker.connect(late);
}

#[test]
fn abuse_27_a_token_of_64_kib_is_not_read() {
    let broker = tokens();
    let huge = token("alice", json!({ "x": "x".repeat(64 << 10) }));
    let connack = broker.connect_refused(with_token(Version::V5, "alice", &huge));
    assert_eq!(connack.reason, 0x95);
    // Nothing is answered in 3.1.1 to what is no CONNECT it takes.
    let mut alice = broker.raw(Version::V311, Transport::Tcp);
    with_token(Version::V311, "alice", &huge).send(&mut alice);
    alice.expect_closed();
    for transport in TRANSPORTS {
        let connack = broker.connect_refused(with_token(Version::V5, "alice", &huge).over(transport));
        assert_eq!(connack.reason, 0x95);
    }
    // Where the operator takes larger packets, it is too long for a token.
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        config.limits.packet_before_connect = 1 << 20;
        config.limits.packet = 1 << 20;
    });
    let longest = token("alice", json!({ "x": "x".repeat(45 << 10) }));
    refused(&broker, &[longest, forged(&json!({ "alg": "none", "x": "x".repeat(20_000) }), b"")], 0x86);
}

#[test]
fn abuse_27_a_header_of_1_mib() {
    let broker = tokens();
    let mut stream = TcpStream::connect(broker.address(Transport::WebSocket)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let head = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ";
    let mut sending = stream.try_clone().expect("a socket");
    let writer = thread::spawn(move || {
        // It may be refused before it has come whole.
        let _ = sending.write_all(format!("{head}{}\r\n\r\n", "x".repeat(1 << 20)).as_bytes());
    });
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 431");
    drop(stream);
    writer.join().expect("no panic");
    admitted(&broker, &token("alice", demo(&["join"])));
}

#[test]
fn abuse_29_the_old_key_is_good_until_it_is_removed() {
    let key = |kid: &str, text: &str| json!({ "kty": "oct", "alg": "HS256", "kid": kid, "k": BASE64_URL_SAFE_NO_PAD.encode(text) });
    let publish = |keys: &[Value]| file("rotation.json", &json!({ "keys": keys }).to_string());
    let (old, new) = (key("2025", SECRET), key("2026", OTHER));
    let path = publish(std::slice::from_ref(&old));
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        config.auth.token.secret = None;
        config.auth.token.jwks_file = Some(path);
        config.auth.reload = None;
    });
    let with = |kid: &str, secret: &str| forged(&json!({ "alg": "HS256", "kid": kid }), secret.as_bytes());
    let (with_old, with_new) = (with("2025", SECRET), with("2026", OTHER));
    admitted(&broker, &with_old);
    refused(&broker, std::slice::from_ref(&with_new), 0x86);
    publish(&[old, new.clone()]);
    broker.running().reload().expect("two keys");
    admitted(&broker, &with_old);
    admitted(&broker, &with_new);
    let connected = Client { id: "old".into(), ..with_token(Version::V5, "alice", &with_old) };
    let mut connected = broker.connect(connected);
    publish(&[new]);
    broker.running().reload().expect("one key");
    refused(&broker, &[with_old, with("2026", SECRET), with("2025", OTHER)], 0x86);
    admitted(&broker, &with_new);
    // It was let in with a key that was good then; the connection lasts as long as its token.
    connected.ping();
}

/// Whoever reads the log cannot log in with it.
#[test]
fn abuse_28_no_token_and_no_secret_is_in_a_log() {
    let broker = format!(
        "[auth]\nmethods = [\"token\"]\n[auth.token]\nsecret = \"{SECRET}\"\n[log]\nlevel = \"trace\"\n\
         [http]\nlisten = [\"127.0.0.1:0\"]\n[mqtt]\nlisten = [\"127.0.0.1:0\"]\n\
         [backplane]\nmode = \"off\"\n"
    );
    let path = file("logged.toml", &broker);
    let mut child = Command::new(env!("CARGO_BIN_EXE_wigwag"))
        .args(["serve", "--config", path.to_str().expect("UTF-8")])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut log = child.stderr.take().expect("piped");
    let logged = thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).expect("UTF-8");
        text
    });
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let lines: Vec<String> = lines.map_while(Result::ok).take(3).collect();
    let address = |scheme: &str| -> SocketAddr {
        let rest = lines.iter().find_map(|line| line.strip_prefix(scheme)).expect("its address");
        rest.split('/').next().expect("an address").parse().expect("an address")
    };
    let (mqtt, http) = (address("mqtt://"), address("http://"));

    let good = token("alice", demo(&["join"]));
    let bad = signed(OTHER, "alice", demo(&["join"]));
    for token in [&good, &bad] {
        for client in [
            with_token(Version::V5, "alice", token),
            with_token(Version::V311, "alice", token),
            with_token(Version::V5, "carol", token),
            Client::v5("alice").authentication_method("jwt").authentication_data(token.as_bytes()),
            // As misguided clients do.
            Client::v5("alice").user_name(token),
        ] {
            let mut connection = Connection::new(Socket::open(mqtt, Transport::Tcp), client.version);
            client.send(&mut connection);
            let connack = connection.expect_connack();
            if connack.reason == 0 {
                connection.publish(Message::new("rooms/x/signal", token).qos(1));
                connection.disconnect();
            }
        }
        for request in [
            format!("GET /mqtt?access_token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!("GET /?token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            format!("GET /api/rooms HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"),
            format!("GET /mqtt HTTP/1.1\r\nHost: localhost\r\nCookie: token={token}\r\n\r\n"),
            format!("{token} / HTTP/9.9\r\n\r\n"),
        ] {
            let mut stream = TcpStream::connect(http).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
            stream.write_all(request.as_bytes()).expect("it reads");
            let mut status = [0; 9];
            stream.read_exact(&mut status).expect("an answer");
        }
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert!(child.wait().expect("it ends").success());
    let logged = logged.join().expect("no panic");
    assert!(logged.contains("connection refused") && logged.contains("connected"), "{logged}");
    let signature = |token: &str| token.rsplit('.').next().expect("a part").to_owned();
    for secret in [SECRET.to_owned(), signature(&good), signature(&bad)] {
        let found = logged.lines().find(|line| line.contains(&secret));
        assert_eq!(found, None, "{secret} is in the log");
    }
}

/// Of a live connection, by a file and by the API, within a second.
#[test]
fn abuse_25_revoked() {
    let listed = file("revoked", "# nobody yet\n");
    let broker = Broker::shipped_with(|config| {
        with_tokens(config);
        config.auth.revoked = Some(listed.clone());
        config.auth.reload = Some(Duration::from_millis(100));
    });
    for version in VERSIONS {
        let connect = |name: &str, id: &str| {
            broker.connect(client(version, name, json!({ "jti": id, "rooms": { "demo": ["join"] } })))
        };
        let mut bob = connect("bob", "bobs");
        bob.subscribe("rooms/demo/signal/bob", 1);
        // By the file, with all devices.
        let (alice, phone) = (connect("alice", "t-1"), connect("alice~phone", "t-2"));
        file("revoked", &format!("# {version:?}\nuser alice\n"));
        for mut gone in [alice, phone] {
            gone.expect_disconnect(0x98);
        }
        let again = client(version, "alice", demo(&["join"]));
        assert_eq!(broker.connect_refused(again.clone()).reason, connack_code(version, 0x86));
        file("revoked", &format!("# {version:?}\ntoken carols\n"));
        broker.wait_until("alice is back", |_| broker.connect_or_not(again.clone()).1.reason == 0);
        // By the API: one token of two.
        let (mut one, mut other) = (connect("dave", "d-1"), connect("dave~tv", "d-2"));
        let id = format!("d-1-{version:?}");
        let mut third = connect("dave~car", &id);
        broker.running().revoke(Revocation::Token(id.as_str().into())).expect("room");
        third.expect_disconnect(0x98);
        one.ping();
        other.ping();
        // And a user; a newer token is good.
        let name = format!("erin{version:?}");
        let mut erin = broker.connect(client(version, &name, json!({ "iat": seconds() - 10 })));
        let kept = Client { clean: false, expiry: 60, ..client(version, &name, json!({ "iat": seconds() - 10 })) };
        let kept = Client { id: format!("kept {name}"), ..kept };
        broker.connect(kept.clone()).hang_up();
        broker.running().revoke(Revocation::User(name.as_str().into())).expect("room");
        erin.expect_disconnect(0x98);
        assert_eq!(broker.connect_refused(kept.clone()).reason, connack_code(version, 0x86));
        let newer = client(version, &name, json!({ "iat": seconds() + 3 }));
        let back = broker.connect(Client { clean: false, expiry: 60, id: kept.id, ..newer });
        assert!(!back.present(), "what was kept for it is gone");
        bob.expect_nothing();
        back.disconnect();
    }
}

/// Its places are given up at once, and its will is not sent.
#[test]
fn abuse_25_revoked_in_a_room() {
    let broker = tokens();
    let mut bob = broker.connect(client(Version::V5, "bob", demo(&["join"])));
    let topics = ["rooms/demo/signal", "rooms/demo/presence/+"].map(|topic| (topic, options(1)));
    assert_eq!(bob.subscribe_all(&topics, None), [1, 1]);
    bob.expect_message();
    let will = signal("rooms/demo/chat", "alice");
    let mut alice = broker.connect(client(Version::V5, "alice", demo(&["join"])).will(will));
    alice.subscribe("rooms/demo/signal", 1);
    assert_eq!(line(&bob.expect_message())["username"], "alice");
    broker.running().revoke(Revocation::User("alice".into())).expect("room");
    alice.expect_disconnect(0x98);
    let gone = bob.expect_message();
    assert_eq!((gone.topic.as_str(), gone.payload.len()), ("rooms/demo/presence/alice", 0));
    bob.expect_nothing();
}
