//! The methods of `auth.methods`, and what stands before and after them: penalties, revocation, reload.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use serde_json::{Map, Value, json};
use wigwag::auth::keys::SigningKey;
use wigwag::auth::{Authenticator, Credentials, Identity, Refusal, Revocation, hash_password};
use wigwag::config::{AuthConfig, AuthHttpConfig, AuthMethod, Secret, TokenConfig, UsersConfig};

const SECRET: &str = "an HMAC secret of more than 32 bytes";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the test directory is writable");
    path
}

fn authenticator(config: &AuthConfig) -> Authenticator {
    Authenticator::new(config).unwrap_or_else(|error| panic!("{error}"))
}

fn shown<'a>(user_name: impl Into<Option<&'a str>>, password: &'a str) -> Credentials<'a> {
    let password = Some(password.as_bytes()).filter(|password| !password.is_empty());
    Credentials { client_id: "tab-1", user_name: user_name.into(), password }
}

/// The user name, or the reason code.
fn brief(result: Result<Identity, Refusal>) -> Result<String, u8> {
    result.map(|identity| identity.user.into()).map_err(|refusal| refusal.reason.0)
}

fn who(name: &str) -> Result<String, u8> {
    Ok(name.into())
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs()
}

fn token(changes: Value) -> String {
    let mut claims = Map::new();
    for value in [json!({ "sub": "alice", "exp": seconds() + 60, "iat": seconds() }), changes] {
        claims.extend(value.as_object().expect("an object").clone());
    }
    SigningKey::from_secret(&Secret::new(SECRET).expect("long")).token(None, &claims).expect("signed")
}

fn with_tokens(methods: &[AuthMethod]) -> AuthConfig {
    let token = TokenConfig { secret: Secret::new(SECRET), ..TokenConfig::default() };
    AuthConfig { methods: methods.into(), token, ..AuthConfig::default() }
}

/// Cheap, for tests that are not about the cost.
fn cheap_hash(password: &str) -> String {
    let params = Params::new(8, 1, 1, None).expect("small");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password.as_bytes()).expect("a hash").to_string()
}

fn with_users(name: &str, text: &str) -> AuthConfig {
    let users = UsersConfig { file: Some(file(name, text)), ..UsersConfig::default() };
    AuthConfig { methods: vec![AuthMethod::Users], users, ..AuthConfig::default() }
}

#[tokio::test]
async fn open_believes_names_and_checks_tags_of_who_gave_one() {
    let auth = authenticator(&AuthConfig::default());
    let alice = auth.authenticate(shown("alice", ""), HERE).await.expect("open");
    assert!(&*alice.user == "alice" && alice.tagged && alice.expiry.is_none());
    assert!(alice.grants.room("any").admin && alice.grants.observe());
    let nobody = auth.authenticate(shown(None, ""), HERE).await.expect("open");
    assert!(&*nobody.user == "tab-1" && !nobody.tagged);
    assert_eq!(brief(auth.authenticate(shown("a/b", ""), HERE).await), Err(0x86));
}

#[tokio::test]
async fn the_first_method_that_knows_the_kind_decides() {
    let auth = authenticator(&with_tokens(&[AuthMethod::Token, AuthMethod::Open]));
    let good = token(json!({ "rooms": { "demo": ["join"] }, "tenant": "acme" }));
    let alice = auth.authenticate(shown(None, &good), HERE).await.expect("a good token");
    assert!(alice.grants.room("demo").join && !alice.grants.room("other").any());
    assert_eq!((alice.claim("tenant"), alice.claim("rooms"), alice.claim("sub")), (Some("acme"), None, None));
    assert_eq!(brief(auth.authenticate(shown("bob", "no token"), HERE).await), who("bob"), "open is next");
    let old = token(json!({ "exp": seconds() - 60 }));
    assert_eq!(brief(auth.authenticate(shown("alice", &old), HERE).await), Err(0x86), "a bad token is not a name");
    assert_eq!(brief(auth.authenticate(shown("bob", &good), HERE).await), Err(0x87));

    let auth = authenticator(&with_tokens(&[AuthMethod::Token]));
    for credentials in [shown("alice", "password"), shown("alice", ""), shown(None, "")] {
        assert_eq!(brief(auth.authenticate(credentials, HERE).await), Err(0x86));
    }
    assert_eq!(brief(auth.bearer(&good, HERE)), who("alice"));
    assert_eq!(brief(auth.bearer("x", HERE)), Err(0x86));
    assert_eq!(brief(authenticator(&AuthConfig::default()).bearer(&good, HERE)), Err(0x86), "no tokens, no bearers");
}

#[tokio::test]
async fn users_have_passwords_devices_and_grants() {
    let text = format!(
        "[users.alice]\npassword = \"{}\"\nrooms = {{ demo = [\"join\"] }}\nroles = [\"observe\"]\n\
         [users.\"bob~tv\"]\npassword = \"{}\"\n",
        cheap_hash("wonder land"),
        cheap_hash("telly"),
    );
    let auth = authenticator(&with_users("users.toml", &text));
    let alice = auth.authenticate(shown("alice", "wonder land"), HERE).await.expect("hers");
    assert!(alice.grants.room("demo").join && alice.grants.observe() && alice.tagged);
    assert!(SystemTime::now().duration_since(alice.issued_at).expect("past") < Duration::from_secs(60));
    assert_eq!(brief(auth.authenticate(shown("alice~phone", "wonder land"), HERE).await), who("alice~phone"));
    assert_eq!(brief(auth.authenticate(shown("bob~tv", "telly"), HERE).await), who("bob~tv"));

    let (wrong, unknown) =
        (auth.authenticate(shown("alice", "x"), HERE).await, auth.authenticate(shown("carol", "x"), HERE).await);
    assert_eq!(wrong, unknown, "a client cannot tell them apart");
    let refused = [
        shown("alice", ""),
        shown("alice~", "wonder land"),
        shown("Alice", "wonder land"),
        shown("bob", "telly"),
        shown("bob~tv~2", "telly"),
        shown(None, "wonder land"),
        shown("", ""),
        shown("alice/x", "wonder land"),
        shown("alice", "wonder land\0"),
    ];
    for credentials in refused {
        assert_eq!(brief(auth.authenticate(credentials, HERE).await), Err(0x86), "{credentials:?}");
    }
}

#[tokio::test]
async fn an_unknown_user_costs_what_a_known_one_does() {
    let text = format!("[users.alice]\npassword = \"{}\"\n", hash_password(b"right").expect("a hash"));
    let auth = authenticator(&with_users("timing.toml", &text));
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..3 {
        for (name, fastest) in ["alice", "nobody"].into_iter().zip(&mut fastest) {
            let start = Instant::now();
            assert_eq!(brief(auth.authenticate(shown(name, "wrong"), HERE).await), Err(0x86));
            *fastest = start.elapsed().min(*fastest);
        }
    }
    // Without the decoy it would be thousands of times less.
    assert!(fastest[1] > fastest[0] / 3 && fastest[0] > fastest[1] / 3, "{fastest:?}");
}

#[tokio::test]
async fn too_many_passwords_at_a_time_are_turned_away() {
    let mut config =
        with_users("busy.toml", &format!("[users.a]\npassword = \"{}\"\n", hash_password(b"x").expect("a hash")));
    (config.users.concurrency, config.users.queue) = (1, 1);
    let auth = Arc::new(authenticator(&config));
    let logins: Vec<_> = (0..6)
        .map(|_| {
            let auth = Arc::clone(&auth);
            tokio::spawn(async move { brief(auth.authenticate(shown("a", "x"), HERE).await) })
        })
        .collect();
    let mut results = Vec::new();
    for login in logins {
        results.push(login.await.expect("no panic"));
    }
    assert_eq!(results.iter().filter(|result| **result == who("a")).count(), 2, "{results:?}");
    assert_eq!(results.iter().filter(|result| **result == Err(0x89)).count(), 4, "{results:?}");
    assert_eq!(brief(auth.authenticate(shown("a", "x"), HERE).await), who("a"), "and that is no failed login");
}

#[test]
fn a_file_of_users_that_cannot_be_used() {
    let hash = cheap_hash("x");
    let complaint = |text: &str| {
        let error = Authenticator::new(&with_users("wrong.toml", text)).err().expect(text).to_string();
        error.split_once("wrong.toml").map(|(_, rest)| rest.to_owned()).expect("the file is named")
    };
    let table = [
        ("[users.alice]\npasword = \"x\"".into(), ":2: unknown field `pasword`"),
        ("[users.alice]\n".into(), ":1: missing field `password`"),
        ("[user.alice]\n".into(), ":1: unknown field `user`"),
        ("[users.alice]\npassword = x".into(), ":2: "),
        ("[users.alice]\npassword = \"secret\"".into(), ": [users.\"alice\"]: password: not an Argon2 hash"),
        ("[users.alice]\npassword = \"$2b$10$abcdefghijklmnopqrstuv\"".into(), ": [users.\"alice\"]: password: not"),
        (format!("[users.\"a/b\"]\npassword = \"{hash}\""), ": [users.\"a/b\"]: a user name has"),
        (
            format!("[users.alice]\npassword = \"{hash}\"\nroles = [\"king\"]"),
            ": [users.\"alice\"]: roles: \"king\" is not",
        ),
    ];
    for (text, expected) in table {
        let found = complaint(&text);
        assert!(found.starts_with(expected), "{found} for\n{text}");
        assert!(!found.contains("secret") && !found.contains("$argon2"), "{found}");
    }
}

#[tokio::test]
async fn who_fails_too_often_has_to_wait() {
    let mut config = with_tokens(&[AuthMethod::Token]);
    (config.failures, config.failure_wait) = (Some(3), Duration::from_secs(600));
    let auth = authenticator(&config);
    let good = token(json!({}));
    for _ in 0..3 {
        assert_eq!(brief(auth.authenticate(shown("bob", &good), HERE).await), Err(0x87));
    }
    assert_eq!(brief(auth.authenticate(shown(None, &good), HERE).await), Err(0x8A), "also with a good one");
    assert_eq!(brief(auth.bearer(&good, HERE)), Err(0x8A));
    let elsewhere = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(brief(auth.authenticate(shown(None, &good), elsewhere).await), who("alice"));
}

#[tokio::test]
async fn what_is_revoked_is_refused_and_seen_to_be() {
    let listed = file("revoked", "# gone\nuser mallory\n\ntoken t-1\n");
    let auth = authenticator(&AuthConfig { revoked: Some(listed.clone()), ..with_tokens(&[AuthMethod::Token]) });
    let login = |changes: Value| auth.bearer(&token(changes), HERE);
    for changes in [json!({ "sub": "mallory" }), json!({ "sub": "mallory~tv" }), json!({ "jti": "t-1" })] {
        assert_eq!(brief(login(changes.clone())), Err(0x86), "{changes}");
    }

    let (alice, phone) =
        (login(json!({ "jti": "t-2" })).expect("good"), login(json!({ "sub": "alice~phone" })).expect("good"));
    let undated = login(json!({ "iat": seconds() - 3600 })).expect("good");
    let bob = login(json!({ "sub": "bob", "jti": "t-3" })).expect("good");
    let mut changes = auth.revocations().changes();
    auth.revocations().revoke(Revocation::Token("t-2".into()), SystemTime::now()).expect("room");
    assert!(changes.has_changed().expect("open"));
    changes.mark_unchanged();
    assert_eq!([&alice, &phone, &bob].map(|identity| auth.is_revoked(identity)), [true, false, false]);
    auth.revocations().revoke(Revocation::User("alice".into()), SystemTime::now()).expect("room");
    assert!(changes.has_changed().expect("open"));
    assert_eq!([&alice, &phone, &undated, &bob].map(|identity| auth.is_revoked(identity)), [true, true, true, false]);
    assert_eq!(brief(login(json!({ "iat": seconds() - 1 }))), Err(0x86), "issued before");
    assert_eq!(brief(login(json!({ "iat": seconds() + 2 }))), who("alice"), "a newer token");

    std::fs::write(&listed, "user bob\n").expect("writable");
    auth.reload().expect("a good file");
    assert!(auth.is_revoked(&bob) && auth.is_revoked(&alice), "what was told at run time stays");
    assert_eq!(brief(login(json!({ "sub": "mallory" }))), who("mallory"));
    std::fs::write(&listed, "users bob\n").expect("writable");
    let error = auth.reload().expect_err("a bad line").to_string();
    assert!(error.ends_with("revoked:1: a line is \"user NAME\", \"token ID\" or a # comment"), "{error}");
    assert!(auth.is_revoked(&bob), "as before");
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let config = with_users("watched.toml", "");
    let path = config.users.file.clone().expect("a file");
    let auth = Arc::new(authenticator(&AuthConfig { failures: None, ..config }));
    let watch = tokio::spawn(Arc::clone(&auth).watch(Duration::from_millis(10)));
    let outcome = |expected: Result<String, u8>| {
        let auth = Arc::clone(&auth);
        async move {
            let deadline = Instant::now() + Duration::from_secs(30);
            while brief(auth.authenticate(shown("alice", "x"), HERE).await) != expected {
                assert!(Instant::now() < deadline, "never {expected:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    outcome(Err(0x86)).await;
    tokio::time::sleep(Duration::from_millis(50)).await; // the watch has seen the file as it was
    std::fs::write(&path, format!("[users.alice]\npassword = \"{}\"\n", cheap_hash("x"))).expect("writable");
    outcome(who("alice")).await;
    std::fs::write(&path, "[users.alice\n").expect("writable");
    tokio::time::sleep(Duration::from_millis(50)).await;
    outcome(who("alice")).await;
    std::fs::write(&path, "# nobody\n").expect("writable");
    outcome(Err(0x86)).await;
    watch.abort();
}

/// A service, and what it was asked.
struct Fake {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Fake {
    /// Answers with a status and a body.
    fn start(answer: impl Fn(&Value) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/who", listener.local_addr().expect("bound"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let questions = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream);
                let (mut length, mut line) = (0, String::new());
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    let header = line.to_ascii_lowercase();
                    if let Some(value) = header.strip_prefix("content-length:") {
                        length = value.trim().parse().expect("a length");
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).expect("a body");
                let question = serde_json::from_slice(&body).expect("JSON");
                let (status, body) = answer(&question);
                questions.lock().expect("no panic").push(question);
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
                // Who has stopped waiting does not read it.
                let _ = reader.get_mut().write_all(format!("{head}location: /elsewhere\r\n\r\n{body}").as_bytes());
            }
        });
        Self { url, asked }
    }

    fn config(&self) -> AuthConfig {
        with_service(&self.url)
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }
}

fn with_service(url: &str) -> AuthConfig {
    let http = AuthHttpConfig { url: Some(url.into()), ..AuthHttpConfig::default() };
    AuthConfig { methods: vec![AuthMethod::Http], http, failures: None, ..AuthConfig::default() }
}

#[tokio::test]
async fn a_service_is_asked_and_remembered() {
    let fake = Fake::start(|question| {
        let expires = seconds() + 60;
        match question["password"].as_str() {
            Some("right") => {
                (200, json!({ "grants": { "rooms": { "demo": ["join"] } }, "expires": expires }).to_string())
            }
            Some("map") => (200, json!({ "user": "somebody" }).to_string()),
            Some("over") => (200, json!({ "expires": 1000 }).to_string()),
            _ => (401, String::new()),
        }
    });
    let auth = authenticator(&fake.config());
    let alice = auth.authenticate(shown("alice", "right"), HERE).await.expect("known");
    assert!(&*alice.user == "alice" && alice.grants.room("demo").join && alice.tagged);
    assert!(alice.expiry.is_some_and(|expiry| expiry.exp > seconds() && expiry.at > SystemTime::now()));
    let question = json!({ "client_id": "tab-1", "username": "alice", "password": "right", "remote": "127.0.0.1" });
    assert_eq!(*fake.asked.lock().expect("no panic"), [question]);

    assert_eq!(auth.authenticate(shown("alice", "right"), HERE).await.expect("known"), alice);
    assert_eq!(fake.asked(), 1, "remembered");
    for (credentials, remote, expected) in [
        (shown("alice", "wrong"), HERE, Err(0x86)),
        (shown("alice", "wrong"), HERE, Err(0x86)),
        (shown("alice", "right"), IpAddr::from([192, 0, 2, 1]), who("alice")),
        (shown("alice", "map"), HERE, who("somebody")),
        (shown(None, "right"), HERE, who("tab-1")),
        (shown("alice", "over"), HERE, Err(0x86)),
    ] {
        let before = fake.asked();
        assert_eq!(brief(auth.authenticate(credentials, remote).await), expected, "{credentials:?}");
        assert_eq!(fake.asked(), before + 1, "each is a question of its own: {credentials:?}");
    }
    let before = fake.asked();
    assert_eq!(brief(auth.authenticate(shown(None, ""), HERE).await), Err(0x86));
    let binary = Credentials { password: Some(b"\xff"), ..shown("alice", "") };
    assert_eq!(brief(auth.authenticate(binary, HERE).await), Err(0x86));
    assert_eq!(fake.asked(), before, "there is nothing to ask");
    // Revoking outdates what is remembered as well.
    auth.revocations().revoke(Revocation::User("alice".into()), SystemTime::now()).expect("room");
    assert_eq!(brief(auth.authenticate(shown("alice", "right"), HERE).await), Err(0x86));
}

#[tokio::test]
async fn what_a_service_may_answer() {
    let answers = [
        (401, "", 0x86),
        (403, "", 0x87),
        (500, "", 0x88),
        (302, "", 0x88),
        (307, "", 0x88),
        (204, "", 0x88),
        (404, "", 0x88),
        (200, "", 0x88),
        (200, "[]x", 0x88),
        (200, "{\"grants\":3}", 0x88),
        (200, "{\"user\":\"a/b\"}", 0x88),
    ];
    for (status, body, expected) in answers {
        let fake = Fake::start(move |_| (status, body.into()));
        let auth = authenticator(&fake.config());
        assert_eq!(brief(auth.authenticate(shown("alice", "x"), HERE).await), Err(expected), "{status} {body}");
        assert_eq!(fake.asked(), 1, "{status} {body}");
    }
    let huge = Fake::start(|_| (200, format!("{{\"x\":\"{}\"}}", "x".repeat(1 << 20))));
    assert_eq!(brief(authenticator(&huge.config()).authenticate(shown("alice", "x"), HERE).await), Err(0x88));
}

#[tokio::test]
async fn a_service_that_fails_is_left_alone_until_it_answers() {
    let broken = Arc::new(Mutex::new(true));
    let state = Arc::clone(&broken);
    let fake =
        Fake::start(move |_| if *state.lock().expect("no panic") { (503, String::new()) } else { (200, "{}".into()) });
    let mut config = fake.config();
    (config.http.failures, config.http.pause) = (2, Duration::from_millis(500));
    // Nobody is to blame for a service that is down.
    config.failures = Some(1);
    let auth = authenticator(&config);
    for _ in 0..5 {
        assert_eq!(brief(auth.authenticate(shown("alice", "x"), HERE).await), Err(0x88));
    }
    assert_eq!(fake.asked(), 2);
    *broken.lock().expect("no panic") = false;
    tokio::time::sleep(Duration::from_millis(550)).await;
    assert_eq!(brief(auth.authenticate(shown("alice", "x"), HERE).await), who("alice"));
    assert_eq!(brief(auth.authenticate(shown("bob", "x"), HERE).await), who("bob"));
}

#[tokio::test]
async fn a_service_that_is_slow_or_not_there() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut config = with_service(&format!("http://{}/", silent.local_addr().expect("bound")));
    config.http.timeout = Duration::from_millis(200);
    let start = Instant::now();
    assert_eq!(brief(authenticator(&config).authenticate(shown("alice", "x"), HERE).await), Err(0x88));
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_secs(20));
    drop(silent);
    assert_eq!(brief(authenticator(&config).authenticate(shown("alice", "x"), HERE).await), Err(0x88));
}
