//! The HTTP API as the operator's software and pages see it: who may, what it does to rooms and users, and what it says
//! when it does not.

mod harness;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::{Answer, Broker, Client, Message, options};
use serde_json::{Map, Value, json};
use wigwag::{
    Config,
    auth::keys::SigningKey,
    config::{AllowedOrigin, AuthMethod, Secret},
};

const KEY: &str = "an operator key of more than 32 bytes";
const SECRET: &str = "an HMAC secret of more than 32 bytes";

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("long enough")
}

/// With tokens and a key.
fn closed(config: &mut Config) {
    config.auth.methods = vec![AuthMethod::Token];
    config.auth.token.secret = Some(secret(SECRET));
    config.auth.failures = None;
    config.api.keys = vec![secret("another key that is not the first one"), secret(KEY)];
}

fn token(claims: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut all = Map::from_iter([("exp".to_owned(), json!(now + 600)), ("iat".to_owned(), json!(now - 2))]);
    let Value::Object(claims) = claims else { panic!("claims are an object") };
    all.extend(claims);
    SigningKey::from_secret(&secret(SECRET)).token(None, &all).expect("signed")
}

fn member(user: &str, room: &str) -> String {
    token(json!({ "sub": user, "jti": format!("token-of-{user}"), "rooms": { room: ["join"] } }))
}

fn service() -> String {
    token(json!({ "sub": "backend", "roles": ["service"] }))
}

/// Asks with a credential; a body is JSON.
#[track_caller]
fn ask(broker: &Broker, credential: &str, method: &str, path: &str, body: &str) -> Answer {
    let authorization = format!("Bearer {credential}");
    broker.http(method, path, &[("Authorization", &authorization), ("Content-Type", "application/json")], body)
}

#[track_caller]
fn get(broker: &Broker, path: &str) -> Value {
    let answer = ask(broker, KEY, "GET", path, "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.json()
}

#[track_caller]
fn post(broker: &Broker, path: &str, body: Value) -> Answer {
    ask(broker, KEY, "POST", path, &body.to_string())
}

/// A member of a room who also hears what is refused.
fn enter(broker: &Broker, user: &str, room: &str) -> harness::Connection {
    let client = Client::v5(user).user_name(user).password(member(user, room).as_bytes());
    let mut connection = broker.connect(client);
    assert_eq!(connection.subscribe(&format!("rooms/{room}/signal"), 1), 1);
    assert_eq!(connection.subscribe(&format!("users/{user}/errors"), 0), 0);
    connection
}

const ENDPOINTS: [(&str, &str); 17] = [
    ("GET", "/api/rooms"),
    ("GET", "/api/rooms/demo"),
    ("POST", "/api/rooms/demo/kick"),
    ("POST", "/api/rooms/demo/ban"),
    ("POST", "/api/rooms/demo/unban"),
    ("POST", "/api/rooms/demo/lock"),
    ("POST", "/api/rooms/demo/unlock"),
    ("POST", "/api/rooms/demo/close"),
    ("POST", "/api/rooms/demo/limit"),
    ("POST", "/api/rooms/demo/send"),
    ("POST", "/api/users/alice/send"),
    ("POST", "/api/users/alice/disconnect"),
    ("POST", "/api/users/alice/revoke"),
    ("POST", "/api/tokens/x/revoke"),
    ("GET", "/api/nodes"),
    ("GET", "/api/ice"),
    ("GET", "/api/rooms?limit=1"),
];

#[test]
fn nothing_is_open_not_on_loopback_either() {
    for open in [true, false] {
        let broker = Broker::shipped_with(|config| {
            if !open {
                closed(config);
            }
            config.auth.failures = None;
        });
        let member = member("alice", "demo");
        let others = [
            format!("Bearer {}x", &KEY[..KEY.len() - 1]),
            format!("Bearer {}", &KEY[..KEY.len() - 1]),
            format!("Bearer {KEY}{KEY}"),
            "Bearer ".to_owned(),
            "Bearer".to_owned(),
            format!("Basic {KEY}"),
            format!("Bearer {}.x", service().rsplit_once('.').expect("a token").0),
        ];
        for (method, path) in ENDPOINTS {
            let answer = broker.http(method, path, &[], "");
            answer.problem(401);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"wigwag\""), "{method} {path}");
            for authorization in &others {
                let answer = broker.http(method, path, &[("Authorization", authorization)], "");
                answer.problem(401);
                assert!(answer.header("www-authenticate").is_some());
            }
            if !open && path != "/api/ice" {
                ask(&broker, &member, method, path, "").problem(403);
            }
        }
    }
}

#[test]
fn two_credentials_are_none() {
    let broker = Broker::shipped_with(closed);
    let bearer = format!("Bearer {KEY}");
    let answer = broker.http("GET", "/api/rooms", &[("Authorization", &bearer), ("Authorization", &bearer)], "");
    answer.problem(401);
}

#[test]
fn who_guesses_has_to_wait_and_keys_go_on() {
    let broker = Broker::shipped_with(|config| {
        closed(config);
        config.auth.failures = Some(3);
        config.auth.failure_wait = Duration::from_secs(600);
    });
    let guess = || ask(&broker, "x.y.z", "GET", "/api/rooms", "");
    for _ in 0..3 {
        guess().problem(401);
    }
    let answer = guess();
    answer.problem(429);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(ask(&broker, KEY, "GET", "/api/rooms", "").status, 200);
}

#[test]
fn rooms_are_listed_page_by_page() {
    let broker = Broker::shipped_with(closed);
    assert_eq!(get(&broker, "/api/rooms"), json!({ "rooms": [], "total": 0 }));
    let names = ["alpha", "beta", "gamma ü", "delta"];
    let _members: Vec<_> = names.iter().map(|room| enter(&broker, &format!("of-{}", room.len()), room)).collect();
    let first = get(&broker, "/api/rooms?limit=2");
    assert_eq!(first["total"], 4);
    assert_eq!(first["next"], "beta");
    let listed: Vec<_> = first["rooms"].as_array().expect("a list").iter().map(|room| &room["name"]).collect();
    assert_eq!(listed, ["alpha", "beta"]);
    assert_eq!(first["rooms"][0]["members"], 1);
    assert_eq!(first["rooms"][0]["limit"], 1000);
    let rest = get(&broker, "/api/rooms?limit=2&after=beta");
    let listed: Vec<_> = rest["rooms"].as_array().expect("a list").iter().map(|room| &room["name"]).collect();
    assert_eq!(listed, ["delta", "gamma ü"]);
    assert_eq!(rest["next"], Value::Null);
    for wrong in ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=", "limit=1&limit=2", "after=%FF"] {
        let answer = ask(&broker, KEY, "GET", &format!("/api/rooms?{wrong}"), "");
        if answer.status != 200 || wrong != "after=%FF" {
            answer.problem(400);
        }
    }
}

#[test]
fn a_room_has_a_roster() {
    let broker = Broker::shipped_with(closed);
    let mut alice = enter(&broker, "alice", "demo");
    let _bob = enter(&broker, "bob", "demo");
    assert_eq!(alice.publish(Message::new("rooms/demo/presence/alice", r#"{"nick":"Al"}"#).qos(1)), 0);
    let room = get(&broker, "/api/rooms/demo");
    assert_eq!((&room["name"], &room["members"], &room["locked"]), (&json!("demo"), &json!(2), &json!(false)));
    let roster = room["roster"].as_array().expect("a list");
    assert_eq!((&roster[0]["username"], &roster[0]["meta"]), (&json!("alice"), &json!({ "nick": "Al" })));
    assert_eq!((&roster[1]["username"], &roster[1]["status"]), (&json!("bob"), &json!("online")));
    for room in ["nobody", "a%2Fb", "%00", "x%20"] {
        ask(&broker, KEY, "GET", &format!("/api/rooms/{room}"), "").problem(404);
    }
}

#[test]
fn a_room_is_moderated() {
    let broker = Broker::shipped_with(closed);
    let mut alice = enter(&broker, "alice", "demo");
    assert_eq!(alice.subscribe("rooms/demo/control", 1), 1);
    let mut bob = enter(&broker, "bob", "demo");

    let kick = post(&broker, "/api/rooms/demo/kick", json!({ "user": "bob", "seconds": 60, "reason": "\u{1b}[31m\n" }));
    assert_eq!((kick.status, kick.body.as_str()), (204, ""));
    let told = alice.expect_message();
    let order: Value = serde_json::from_slice(&told.payload).expect("JSON");
    assert_eq!(order, json!({ "action": "kick", "user": "bob", "seconds": 60, "reason": "\u{1b}[31m\n" }));
    assert!(bob.expect_message().text().contains("kicked"));
    bob.expect_disconnect(0x98);
    let mut again = broker.connect(Client::v5("b2").user_name("bob").password(member("bob", "demo").as_bytes()));
    assert_eq!(again.subscribe("rooms/demo/signal", 1), 0x87);
    post(&broker, "/api/rooms/demo/kick", json!({ "user": "bob" })).problem(404);
    assert_eq!(post(&broker, "/api/rooms/demo/unban", json!({ "user": "bob" })).status, 204);
    assert_eq!(again.subscribe("rooms/demo/signal", 1), 1);
    assert_eq!(post(&broker, "/api/rooms/demo/ban", json!({ "user": "absent", "seconds": 5 })).status, 204);

    assert_eq!(ask(&broker, KEY, "POST", "/api/rooms/demo/lock", "").status, 204, "no body is needed");
    assert_eq!(get(&broker, "/api/rooms/demo")["locked"], true);
    let mut carol = broker.connect(Client::v5("c").user_name("carol").password(member("carol", "demo").as_bytes()));
    assert_eq!(carol.subscribe("rooms/demo/signal", 1), 0x87);
    assert_eq!(ask(&broker, &service(), "POST", "/api/rooms/demo/unlock", "{}").status, 204);
    assert_eq!(post(&broker, "/api/rooms/demo/limit", json!({ "members": 2 })).status, 204);
    assert_eq!(get(&broker, "/api/rooms/demo")["limit"], 2);
    assert_eq!(carol.subscribe("rooms/demo/signal", 1), 0x97, "full");
    assert_eq!(post(&broker, "/api/rooms/demo/close", json!({ "reason": "over" })).status, 204);
    ask(&broker, KEY, "GET", "/api/rooms/demo", "").problem(404);

    for action in ["kick", "ban", "unban", "lock", "unlock", "close", "limit", "send"] {
        let all = json!({ "user": "x", "seconds": 1, "members": 1 });
        let body = if action == "send" { json!({ "payload": {} }) } else { all };
        post(&broker, &format!("/api/rooms/nobody/{action}"), body).problem(404);
    }
}

#[test]
fn an_order_in_a_services_name_says_whose_it_is() {
    let broker = Broker::shipped_with(closed);
    let mut alice = enter(&broker, "alice", "demo");
    assert_eq!(alice.subscribe("rooms/demo/control", 1), 1);
    assert_eq!(ask(&broker, &service(), "POST", "/api/rooms/demo/lock", "").status, 204);
    assert_eq!(alice.expect_message().text(), r#"{"username":"backend","action":"lock"}"#);
}

#[test]
fn a_message_to_a_room() {
    let broker = Broker::shipped_with(closed);
    let mut alice = enter(&broker, "alice", "demo");
    assert_eq!(alice.subscribe("rooms/demo/chat", 1), 1);
    let send = |body: Value| post(&broker, "/api/rooms/demo/send", body);
    assert_eq!(send(json!({ "topic": "chat", "payload": { "text": "over at five" }, "qos": 1 })).status, 204);
    let said = alice.expect_message();
    assert_eq!((said.topic.as_str(), said.text(), said.qos), ("rooms/demo/chat", r#"{"text":"over at five"}"#, 1));
    assert_eq!(send(json!({ "topic": "signal", "payload": { "username": "operator", "x": 1 } })).status, 204);
    assert_eq!(alice.expect_message().topic, "rooms/demo/signal");
    assert_eq!(send(json!({ "topic": "state/a/b", "payload": {} })).status, 204);

    send(json!({ "topic": "signal", "payload": { "x": 1 } })).problem(422);
    send(json!({ "topic": "chat", "payload": { "username": "alice" } })).problem(403);
    send(json!({ "topic": "presence/alice", "payload": {} })).problem(403);
    send(json!({ "topic": "control", "payload": { "action": "close" } })).problem(403);
    send(json!({ "topic": "chat", "payload": { "text": "x".repeat(9000) } })).problem(413);
    for topic in ["", "+", "#", "x\u{0}", "../other/chat", "nothing"] {
        send(json!({ "topic": topic, "payload": {} })).problem(422);
    }
    for body in [
        json!({}),
        json!({ "topic": "chat" }),
        json!({ "payload": {}, "qos": 3 }),
        json!({ "payload": {}, "x": 1 }),
        json!({ "payload": null }),
        json!({ "payload": [1] }),
    ] {
        send(body).problem(422);
    }
    assert_eq!(get(&broker, "/api/rooms/demo")["members"], 1, "and all that closed nothing");
    alice.expect_nothing();
}

#[test]
fn a_message_to_a_user() {
    let broker = Broker::shipped_with(closed);
    let send = |user: &str| post(&broker, &format!("/api/users/{user}/send"), json!({ "payload": { "hi": 1 } }));
    send("alice").problem(404);
    let mut alice = enter(&broker, "alice", "demo");
    send("alice").problem(404);
    assert_eq!(alice.subscribe("users/alice/inbox", 1), 1);
    assert_eq!(send("alice").status, 204);
    let got = alice.expect_message();
    assert_eq!((got.topic.as_str(), got.text(), got.qos), ("users/alice/inbox", r#"{"hi":1}"#, 1));
    for other in ["alice~phone", "bob", "a%2Fb", "%2B", "%23"] {
        send(other).problem(404);
    }
}

#[test]
fn who_is_disconnected_may_come_back() {
    let broker = Broker::shipped_with(closed);
    let mut alice = enter(&broker, "alice", "demo");
    let mut phone =
        broker.connect(Client::v5("phone").user_name("alice~phone").password(member("alice", "demo").as_bytes()));
    let mut tab = broker.connect(Client::v5("tab").user_name("alice").password(member("alice", "demo").as_bytes()));
    assert_eq!(tab.subscribe("users/alice/errors", 0), 0);
    assert_eq!(post(&broker, "/api/users/alice/disconnect", json!({ "reason": "go to bed" })).status, 204);
    for connection in [&mut alice, &mut tab] {
        // Each is told once, whatever else its user has.
        assert!(connection.expect_message().text().contains("go to bed"));
        connection.expect_disconnect(0x98);
    }
    phone.expect_disconnect(0x98);
    broker.wait_for_connections(0);
    broker.wait_for_sessions(0);
    ask(&broker, KEY, "GET", "/api/rooms/demo", "").problem(404);
    post(&broker, "/api/users/alice/disconnect", json!({})).problem(404);
    enter(&broker, "alice", "demo");
}

#[test]
fn a_place_that_is_held_for_somebody_ends_too() {
    for order in ["disconnect", "revoke"] {
        let broker = Broker::shipped_with(closed);
        let _bob = enter(&broker, "bob", "demo");
        let alice = enter(&broker, "alice", "demo");
        alice.hang_up();
        broker.wait_for_connections(1);
        let members = || ask(&broker, KEY, "GET", "/api/rooms/demo", "").json()["members"].clone();
        assert_eq!(members(), 2, "it is held");
        assert_eq!(post(&broker, &format!("/api/users/alice/{order}"), json!({})).status, 204);
        broker.wait_for_metric("wigwag_room_leaves_total{reason=\"disconnected\"}", 1);
        assert_eq!(members(), 1);
    }
}

#[test]
fn who_is_revoked_may_not() {
    let broker = Broker::shipped_with(closed);
    let mut alice = enter(&broker, "alice", "demo");
    assert_eq!(ask(&broker, KEY, "POST", "/api/users/alice/revoke", "").status, 204);
    alice.expect_disconnect(0x98);
    broker.connect_refused(Client::v5("again").user_name("alice").password(member("alice", "demo").as_bytes()));
    assert_eq!(ask(&broker, KEY, "POST", "/api/users/nobody/revoke", "").status, 204, "who is absent, too");
    ask(&broker, KEY, "POST", "/api/users/a%2Fb/revoke", "").problem(422);

    let mut bob = enter(&broker, "bob", "demo");
    let mut carol = enter(&broker, "carol", "demo");
    assert_eq!(ask(&broker, &service(), "POST", "/api/tokens/token-of-bob/revoke", "").status, 204);
    bob.expect_disconnect(0x98);
    carol.ping();
    ask(&broker, KEY, "POST", &format!("/api/tokens/{}/revoke", "x".repeat(257)), "").problem(422);
    // And over HTTP it is no good either.
    ask(&broker, &member("bob", "demo"), "GET", "/api/ice", "").problem(401);
}

#[test]
fn this_node_is_known() {
    let broker = Broker::shipped_with(|config| {
        closed(config);
        config.server.node = "here".into();
    });
    let _alice = enter(&broker, "alice", "demo");
    let nodes = get(&broker, "/api/nodes");
    let node = &nodes["nodes"][0];
    assert_eq!((&node["name"], &node["connections"], &node["rooms"]), (&json!("here"), &json!(1), &json!(1)));
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    assert!(node["uptime"].is_u64());
}

#[test]
fn what_is_wrong_is_said_in_a_problem_document() {
    let broker = Broker::shipped_with(closed);
    let _alice = enter(&broker, "alice", "demo");
    let bearer = format!("Bearer {KEY}");
    let key = ("Authorization", bearer.as_str());
    let kick = "/api/rooms/demo/kick";
    for path in
        ["/api", "/api/", "/api/room", "/api/rooms/", "/api/rooms/demo/", "/api/rooms/demo/kick/x", "/api//rooms"]
    {
        broker.http("GET", path, &[key], "").problem(404);
    }
    broker.http("GET", "/api/rooms/%FF", &[key], "").problem(400);
    for (method, path, allowed) in [
        ("DELETE", "/api/rooms", "GET, HEAD, OPTIONS"),
        ("POST", "/api/ice", "GET, HEAD, OPTIONS"),
        ("GET", kick, "POST, OPTIONS"),
        ("OPTIONS", kick, "POST, OPTIONS"),
    ] {
        let answer = broker.http(method, path, &[], "");
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
    let json = ("Content-Type", "application/json; charset=utf-8");
    broker.http("POST", kick, &[key], r#"{"user":"bob"}"#).problem(415);
    broker.http("POST", kick, &[key, ("Content-Type", "text/plain")], "{}").problem(415);
    for body in ["{", "x", "{\"user\":\"bob\"} x", "\u{0}"] {
        broker.http("POST", kick, &[key, json], body).problem(400);
    }
    for body in [
        "[]",
        "null",
        "3",
        "{}",
        r#"{"user":3}"#,
        r#"{"usr":"bob"}"#,
        r#"{"user":"a/b"}"#,
        r#"{"user":"bob","seconds":-1}"#,
        r#"{"user":"bob","seconds":99999999999}"#,
    ] {
        broker.http("POST", kick, &[key, json], body).problem(422);
    }
    broker.http("POST", "/api/rooms/demo/ban", &[key, json], r#"{"user":"bob"}"#).problem(422);
    broker.http("POST", "/api/rooms/demo/limit", &[key, json], r#"{"members":0}"#).problem(422);
    let long = format!(r#"{{"user":"bob","reason":"{}"}}"#, "x".repeat(2000));
    broker.http("POST", kick, &[key, json], &long).problem(422);

    let head = format!(
        "POST {kick} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: {bearer}\r\n\
                        Content-Type: application/json\r\n"
    );
    broker.http_raw(format!("{head}Content-Length: 99999999\r\n\r\n{{").as_bytes()).problem(413);
    let chunk = format!("40000\r\n{}\r\n", " ".repeat(0x40000));
    broker
        .http_raw(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\n \r\n0\r\n\r\n").as_bytes())
        .problem(413);
}

#[test]
fn a_body_that_does_not_come_is_not_waited_for() {
    let broker = Broker::shipped_with(|config| {
        closed(config);
        config.limits.connect_timeout = Duration::from_millis(100);
    });
    let request = format!(
        "POST /api/rooms/demo/kick HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                           Authorization: Bearer {KEY}\r\nContent-Length: 10\r\n\r\n{{"
    );
    broker.http_raw(request.as_bytes()).problem(408);
}

#[test]
fn pages_may_ask_whose_origin_may_open_the_websocket() {
    let broker = Broker::shipped_with(|config| {
        closed(config);
        config.http.origins = vec![AllowedOrigin::Exact("https://app.example".into())];
    });
    let bearer = format!("Bearer {KEY}");
    let from = |origin: &str, method: &str, more: &[(&str, &str)]| {
        broker.http(method, "/api/rooms", &[&[("Origin", origin)], more].concat(), "")
    };
    let preflight =
        [("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "authorization,content-type")];
    let answer = from("https://app.example", "OPTIONS", &preflight);
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("Authorization, Content-Type"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let answer = from("https://app.example", "GET", &[("Authorization", &bearer)]);
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://app.example")));
    assert_eq!(answer.header("vary"), Some("Origin"));
    let answer = from("https://app.example", "GET", &[]);
    answer.problem(401);
    assert!(answer.header("access-control-allow-origin").is_some(), "the page sees why not");
    for origin in ["https://evil.example", "null", "http://localhost"] {
        for method in ["GET", "OPTIONS"] {
            let answer = from(origin, method, &[("Authorization", &bearer), preflight[0]]);
            answer.problem(403);
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
}

#[test]
fn metrics_are_for_this_machine_or_for_a_credential() {
    let broker = Broker::shipped_with(closed);
    assert_eq!(broker.http("GET", "/metrics", &[], "").status, 200);
    let bearer = format!("Bearer {KEY}");
    let (member, service) = (format!("Bearer {}", member("alice", "demo")), format!("Bearer {}", service()));
    for forwarded in ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"] {
        let by = (forwarded, "192.0.2.1");
        broker.http("GET", "/metrics", &[by], "").problem(401);
        broker.http("GET", "/metrics", &[by, ("Authorization", "Bearer x")], "").problem(401);
        broker.http("GET", "/metrics", &[by, ("Authorization", &member)], "").problem(403);
        assert_eq!(broker.http("GET", "/metrics", &[by, ("Authorization", &bearer)], "").status, 200);
        assert_eq!(broker.http("GET", "/metrics", &[by, ("Authorization", &service)], "").status, 200);
    }
}

#[test]
fn messages_and_their_latency_are_counted_by_class_and_no_name_is_a_label() {
    let broker = Broker::shipped_with(closed);
    let mut alice = enter(&broker, "alice", "secret-room");
    alice.publish(Message::new("rooms/secret-room/chat", r#"{"text":"hi"}"#).qos(1));
    alice.publish(Message::new("rooms/secret-room/signal", r#"{"username":"alice"}"#).qos(1));
    alice.publish(Message::new("rooms/secret-room/signal", r#"{"username":"alice"}"#).qos(1));
    alice.publish(Message::new("rooms/secret-room/signal", "no signal").qos(1));
    let text = broker.http("GET", "/metrics", &[], "").body;
    for (class, count) in [("chat", 1), ("signal", 2), ("app", 0)] {
        assert!(text.contains(&format!("wigwag_messages_total{{class=\"{class}\"}} {count}\n")), "{class}: {text}");
    }
    // Nobody but herself was there to get them, and she reads no chat.
    assert!(text.contains("wigwag_delivery_seconds_count{class=\"signal\"} 2\n"), "{text}");
    assert!(text.contains("wigwag_delivery_seconds_bucket{class=\"signal\",le=\"+Inf\"} 2\n"), "{text}");
    assert!(!text.contains("wigwag_delivery_seconds_count{class=\"chat\"}"), "{text}");
    assert!(!text.contains("secret-room") && !text.contains("alice"), "{text}");
}

#[test]
fn keys_in_a_file_are_read_again() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("keys-{}", std::process::id()));
    std::fs::write(&path, format!("# ours\n\n{KEY}\n")).expect("written");
    let broker = Broker::shipped_with(|config| config.api.keys_file = Some(path.clone()));
    assert_eq!(ask(&broker, KEY, "GET", "/api/rooms", "").status, 200);
    std::fs::write(&path, "too short\n").expect("written");
    let error = broker.running().reload().expect_err("a short key").to_string();
    assert!(error.starts_with("api.keys_file: ") && error.contains(":1: a key has at least 32 bytes"), "{error}");
    assert_eq!(ask(&broker, KEY, "GET", "/api/rooms", "").status, 200, "the old one stays");
    let other = "quite another key of more than 32 bytes";
    std::fs::write(&path, other).expect("written");
    broker.running().reload().expect("fine");
    ask(&broker, KEY, "GET", "/api/rooms", "").problem(401);
    assert_eq!(ask(&broker, other, "GET", "/api/rooms", "").status, 200);
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn the_description_names_every_endpoint_and_is_for_everybody() {
    let broker = Broker::shipped_with(closed);
    let answer = broker.http("GET", "/api/openapi.json", &[], "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let paths = &answer.json()["paths"];
    for (method, path) in ENDPOINTS {
        let path = path.split('?').next().expect("a path");
        let path = path.replace("/demo", "/{room}").replace("/alice", "/{user}").replace("/x/", "/{id}/");
        assert!(paths[&path][method.to_lowercase()].is_object(), "{method} {path}");
    }
}

#[test]
fn messages_reach_who_is_away_and_listens() {
    let broker = Broker::shipped_with(closed);
    let alice = || Client::kept(harness::Version::V5, "a").user_name("alice");
    let password = member("alice", "demo");
    let mut first = broker.connect(alice().password(password.as_bytes()));
    assert_eq!(first.subscribe("users/alice/inbox", options(1)), 1);
    first.hang_up();
    broker.wait_for_connections(0);
    assert_eq!(post(&broker, "/api/users/alice/send", json!({ "payload": { "n": 1 } })).status, 204);
    let mut again = broker.connect(alice().password(password.as_bytes()));
    assert_eq!(again.expect_message().text(), r#"{"n":1}"#);
    again.expect_nothing();
}
