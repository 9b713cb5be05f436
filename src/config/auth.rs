//! `[auth]` and the sections below it: how a connection says who it is.

mod key;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use key::{Algorithm, KeySource, Secret, TokenKey};

use super::Config;
use super::reader::Reader;
use super::value::{Choice, DAY, HOUR, List, MINUTE, Switch, Text, count, time};
use key::KeyForm;
pub(super) use key::{SecretForm, SecretItem};

/// Section `[auth]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// How connections say who they are; the first method that knows this kind of credentials decides. List of "token"
    /// (a JWT as password), "users" (a file), "http" (a service is asked) and, last, "open" (any name is believed).
    pub methods: Vec<AuthMethod>,
    /// Whether a server that is "open" may listen beyond loopback, where anybody could be anyone. true or false.
    pub open_anywhere: bool,
    /// File of who is let in no more: a line is "user NAME" or "token ID" (its jti). Path; "" = none.
    pub revoked: Option<PathBuf>,
    /// How often the files of keys, users and revocations are looked at for a change. Duration, 100 ms to 1 day; 0 =
    /// only on SIGHUP.
    pub reload: Option<Duration>,
    /// Failed logins that an address may have at once; with more it has to wait. 1 to 10000; 0 = they are not counted.
    pub failures: Option<usize>,
    /// How long it takes until one of them is forgotten, which is what an address that has used them up waits for its
    /// next attempt. Duration, 100 ms to 1 hour.
    pub failure_wait: Duration,
    /// Section `[auth.token]`.
    pub token: TokenConfig,
    /// Section `[auth.users]`.
    pub users: UsersConfig,
    /// Section `[auth.http]`.
    pub http: AuthHttpConfig,
}

/// A way to say who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// The user name is believed.
    Open,
    /// The password is a signed token that names the user and what it may do.
    Token,
    /// User names and hashes of passwords are in a file.
    Users,
    /// The operator's own service knows.
    Http,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            methods: vec![AuthMethod::Open],
            open_anywhere: false,
            revoked: None,
            reload: Some(Duration::from_secs(1)),
            failures: Some(20),
            failure_wait: Duration::from_secs(5),
            token: TokenConfig::default(),
            users: UsersConfig::default(),
            http: AuthHttpConfig::default(),
        }
    }
}

const METHOD: Choice<AuthMethod> = Choice(&[
    ("open", AuthMethod::Open),
    ("token", AuthMethod::Token),
    ("users", AuthMethod::Users),
    ("http", AuthMethod::Http),
]);

pub(super) const FILE: Text =
    Text { allowed: "a path, or \"\" for none", accept: |path| !path.chars().any(|c| c.is_ascii_control()) };

impl AuthConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let d = Self::default();
        let mut section = reader.section("auth");
        let methods = section.read("methods", List(METHOD), d.methods);
        let open_anywhere = section.read("open_anywhere", Switch, d.open_anywhere);
        let revoked = path(section.read("revoked", FILE, String::new()));
        let reload = section.read("reload", time(100..=DAY).or_zero("only on SIGHUP"), d.reload);
        let failures = section.read("failures", count(1..=10_000).or_zero("not counted"), d.failures);
        let failure_wait = section.read("failure_wait", time(100..=HOUR), d.failure_wait);
        let token = TokenConfig::read(reader);
        let users = UsersConfig::read(reader);
        let http = AuthHttpConfig::read(reader);
        Self { methods, open_anywhere, revoked, reload, failures, failure_wait, token, users, http }
    }
}

/// Section `[auth.token]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    /// The secret of HS256 tokens without a kid, where one key is enough. Text of 32 bytes and more; "" = none.
    pub secret: Option<Secret>,
    /// Keys of tokens. List of { kid, alg, and one of secret, secret_file (HS256) and public_key_file (RS256, ES256,
    /// EdDSA; PEM) }; a key without kid is for tokens without.
    pub keys: Vec<TokenKey>,
    /// A JWK set (RFC 7517) with further keys. Path; "" = none.
    pub jwks_file: Option<PathBuf>,
    /// Who may have issued a token: one of these is its iss. List of text; empty = anybody who has a key.
    pub issuer: Vec<String>,
    /// Whom a token is for: one of these is in its aud. List of text; empty = only tokens that do not say.
    pub audience: Vec<String>,
    /// By how much clocks may differ: a token is good that much earlier and later. Duration in whole seconds, 0 to 10
    /// minutes.
    pub leeway: Duration,
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            secret: None,
            keys: Vec::new(),
            jwks_file: None,
            issuer: Vec::new(),
            audience: Vec::new(),
            leeway: Duration::from_secs(5),
        }
    }
}

const NAME: Text = Text { allowed: "text that is not empty", accept: |text| !text.is_empty() };

impl TokenConfig {
    fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("auth.token");
        let d = Self::default();
        Self {
            secret: section.read("secret", SecretForm, d.secret),
            keys: section.read("keys", List(KeyForm), d.keys),
            jwks_file: path(section.read("jwks_file", FILE, String::new())),
            issuer: section.read("issuer", List(NAME), d.issuer),
            audience: section.read("audience", List(NAME), d.audience),
            leeway: section.read("leeway", time(0..=10 * MINUTE).whole_seconds(), d.leeway),
        }
    }
}

/// Section `[auth.users]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsersConfig {
    /// TOML file with a table for each user: [users.NAME], password = "$argon2id$…" (from `wigwag user hash`) and, as in
    /// tokens, rooms, publish, subscribe, retain, roles. Path; "" = none.
    pub file: Option<PathBuf>,
    /// Passwords that are checked at a time, each in about 20 MiB of memory. 1 to 64.
    pub concurrency: usize,
    /// Connections that wait until theirs is checked; further ones are refused as "server busy". 0 to 100000.
    pub queue: usize,
}

impl Default for UsersConfig {
    fn default() -> Self {
        Self { file: None, concurrency: 2, queue: 256 }
    }
}

impl UsersConfig {
    fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("auth.users");
        let d = Self::default();
        Self {
            file: path(section.read("file", FILE, String::new())),
            concurrency: section.read("concurrency", count(1..=64), d.concurrency),
            queue: section.read("queue", count(0..=100_000), d.queue),
        }
    }
}

/// Section `[auth.http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthHttpConfig {
    /// The service that is asked, with a POST of JSON. http:// or https:// URL; "" = none.
    pub url: Option<String>,
    /// How long it may take to answer. Duration, 100 ms to 1 minute.
    pub timeout: Duration,
    /// How long an answer that lets somebody in is remembered. Duration, 100 ms to 1 hour; 0 = not at all.
    pub cache: Option<Duration>,
    /// Requests at a time. 1 to 256.
    pub concurrency: usize,
    /// Connections that wait for their request; further ones are refused as "server busy". 0 to 100000.
    pub queue: usize,
    /// Failures in a row after which the service is left alone. 1 to 1000.
    pub failures: usize,
    /// How long it is left alone, before one request tries it again. Duration, 100 ms to 10 minutes.
    pub pause: Duration,
}

impl Default for AuthHttpConfig {
    fn default() -> Self {
        Self {
            url: None,
            timeout: Duration::from_secs(3),
            cache: Some(Duration::from_secs(30)),
            concurrency: 16,
            queue: 256,
            failures: 5,
            pause: Duration::from_secs(10),
        }
    }
}

pub(super) const URL: Text = Text {
    allowed: "a URL like \"http://127.0.0.1:3000/mqtt\", or \"\" for none",
    accept: |url| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        url.is_empty() || rest.is_some_and(|rest| !rest.is_empty()) && url.parse::<hyper::Uri>().is_ok()
    },
};

impl AuthHttpConfig {
    fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("auth.http");
        let d = Self::default();
        Self {
            url: Some(section.read("url", URL, String::new())).filter(|url| !url.is_empty()),
            timeout: section.read("timeout", time(100..=MINUTE), d.timeout),
            cache: section.read("cache", time(100..=HOUR).or_zero("not remembered"), d.cache),
            concurrency: section.read("concurrency", count(1..=256), d.concurrency),
            queue: section.read("queue", count(0..=100_000), d.queue),
            failures: section.read("failures", count(1..=1000), d.failures),
            pause: section.read("pause", time(100..=10 * MINUTE), d.pause),
        }
    }
}

pub(super) fn path(text: String) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

impl Config {
    /// The first address, with its key, at which a server that believes every name would be within others' reach,
    /// although [`AuthConfig::open_anywhere`] does not allow it.
    pub fn open_beyond_loopback(&self) -> Option<(&'static str, SocketAddr)> {
        if !self.auth.methods.contains(&AuthMethod::Open) || self.auth.open_anywhere {
            return None;
        }
        let lists = [
            ("http.listen", &self.http.listen),
            ("http.tls_listen", &self.http.tls_listen),
            ("mqtt.listen", &self.mqtt.listen),
            ("mqtt.tls_listen", &self.mqtt.tls_listen),
        ];
        let mut addresses = lists.iter().flat_map(|(key, list)| list.iter().map(|address| (*key, *address)));
        addresses.find(|(_, address)| !address.ip().to_canonical().is_loopback())
    }
}

/// Reports what is wrong between the methods and what they need, and an open server that others can reach.
pub(super) fn check(reader: &mut Reader, config: &Config) {
    check_methods(reader, &config.auth.methods);
    let AuthConfig { methods, token, users, http, .. } = &config.auth;
    let keys = [
        ("auth.token.secret", token.secret.is_some()),
        ("auth.token.keys", !token.keys.is_empty()),
        ("auth.token.jwks_file", token.jwks_file.is_some()),
    ];
    let key = "a key: auth.token.secret, auth.token.keys or auth.token.jwks_file";
    check_need(reader, methods.contains(&AuthMethod::Token), "token", key, &keys);
    let file = [("auth.users.file", users.file.is_some())];
    check_need(reader, methods.contains(&AuthMethod::Users), "users", "auth.users.file", &file);
    let url = [("auth.http.url", http.url.is_some())];
    check_need(reader, methods.contains(&AuthMethod::Http), "http", "auth.http.url", &url);
    if let Some((key, address)) = config.open_beyond_loopback() {
        let reason = format!(
            "{address} is within reach of other machines, where with auth.methods = [\"open\"] anybody could be \
             anyone: use \"token\", \"users\" or \"http\", or say auth.open_anywhere = true (--open-anywhere)"
        );
        report(reader, key, reason);
    }
}

/// A method without what it cannot do without, and that without the method.
fn check_need(reader: &mut Reader, used: bool, word: &str, needs: &str, keys: &[(&'static str, bool)]) {
    match keys.iter().find(|(_, set)| *set) {
        Some((key, _)) if !used => {
            report(reader, key, format!("set, but auth.methods has no \"{word}\" that would use it"));
        }
        // One that was refused was meant to be there.
        None if used && keys.iter().all(|(key, _)| reader.origin(key).is_some()) => {
            report(reader, "auth.methods", format!("\"{word}\" needs {needs}"));
        }
        _ => {}
    }
}

fn check_methods(reader: &mut Reader, methods: &[AuthMethod]) {
    if methods.is_empty() {
        report(reader, "auth.methods", "empty: nobody could connect".into());
    }
    if methods.iter().rev().skip(1).any(|method| *method == AuthMethod::Open) {
        report(reader, "auth.methods", "\"open\" lets everybody in, so what stands after it is never asked".into());
    }
}

/// Reports at the place of `key`, unless its value was refused and reported already.
pub(super) fn report(reader: &mut Reader, key: &'static str, reason: String) {
    if let Some(origin) = reader.origin(key).cloned() {
        reader.conflict(origin, key, reason);
    }
}
