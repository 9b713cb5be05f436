//! What the server does for the operator's own software and for its users' calls: `[api]`, `[ice]`, `[webhooks]`.

use std::path::PathBuf;
use std::time::Duration;

use super::auth::{FILE, SecretForm, SecretItem, URL, path, report};
use super::reader::Reader;
use super::value::{Choice, DAY, List, MINUTE, Text, count, time};
use super::{Config, Secret};

/// Section `[api]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiConfig {
    /// Operator keys: who shows one as bearer token may use all of /api, and /metrics from elsewhere. List of text of
    /// 32 bytes and more.
    pub keys: Vec<Secret>,
    /// File with further keys, one a line; # begins a comment. It is read again on SIGHUP. Path; "" = none.
    pub keys_file: Option<PathBuf>,
}

impl ApiConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("api");
        Self {
            keys: section.read("keys", List(SecretItem), Vec::new()),
            keys_file: path(section.read("keys_file", FILE, String::new())),
        }
    }
}

/// Section `[ice]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceConfig {
    /// STUN servers. List of URLs like "stun:stun.example.org:3478".
    pub stun: Vec<String>,
    /// TURN servers, which relay what finds no direct way. List of URLs like "turn:turn.example.org:3478" or
    /// "turns:turn.example.org:443?transport=tcp".
    pub turn: Vec<String>,
    /// The secret that the TURN servers share with this one (coturn: static-auth-secret). Text of 32 bytes and more; ""
    /// = none.
    pub secret: Option<Secret>,
    /// File with that secret instead. Path; "" = none.
    pub secret_file: Option<PathBuf>,
    /// How long a credential is good; who listens gets the next one when three quarters of it are over. Duration in
    /// whole seconds, 1 minute to 1 day.
    pub ttl: Duration,
    /// Credentials that one user, devices included, may get in a minute, over HTTP and MQTT together. 1 to 10000.
    pub per_user: usize,
}

impl Default for IceConfig {
    fn default() -> Self {
        Self {
            stun: Vec::new(),
            turn: Vec::new(),
            secret: None,
            secret_file: None,
            ttl: Duration::from_secs(60 * 60),
            per_user: 30,
        }
    }
}

const STUN: Text = Text {
    allowed: "a URL like \"stun:stun.example.org:3478\" or \"stuns:…\"",
    accept: |url| ice_url(url, &["stun:", "stuns:"]),
};
const TURN: Text = Text {
    allowed: "a URL like \"turn:turn.example.org:3478\" or \"turns:turn.example.org:443?transport=tcp\"",
    accept: |url| ice_url(url, &["turn:", "turns:"]),
};

/// RFC 7064 and 7065: no `//`, no user.
fn ice_url(url: &str, schemes: &[&str]) -> bool {
    let rest = schemes.iter().find_map(|scheme| url.strip_prefix(scheme));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:[]?=".contains(c);
    rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(plain))
}

impl IceConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("ice");
        let d = Self::default();
        Self {
            stun: section.read("stun", List(STUN), d.stun),
            turn: section.read("turn", List(TURN), d.turn),
            secret: section.read("secret", SecretForm, d.secret),
            secret_file: path(section.read("secret_file", FILE, String::new())),
            ttl: section.read("ttl", time(MINUTE..=DAY).whole_seconds(), d.ttl),
            per_user: section.read("per_user", count(1..=10_000), d.per_user),
        }
    }
}

/// Section `[webhooks]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// Where events are sent to, by POST of JSON. http:// or https:// URL; "" = nowhere.
    pub url: Option<String>,
    /// The secret that they are signed with. Text of 32 bytes and more; "" = none.
    pub secret: Option<Secret>,
    /// Which events. List of "room/opened", "room/closed", "member/joined", "member/left" and "connection/refused".
    pub events: Vec<Hook>,
    /// Events that wait to be sent; further ones are dropped and counted. 1 to 1000000.
    pub queue: usize,
    /// How long the receiver may take to answer. Duration, 100 ms to 1 minute.
    pub timeout: Duration,
    /// How often a request is tried before its events are given up: after half a second, then twice as long each time,
    /// up to a minute. 1 to 100.
    pub attempts: usize,
}

/// An event that can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `events/room/opened`
    RoomOpened,
    /// `events/room/closed`
    RoomClosed,
    /// `events/member/joined`
    MemberJoined,
    /// `events/member/left`
    MemberLeft,
    /// `events/connection/refused`
    ConnectionRefused,
}

const HOOKS: [(&str, Hook); 5] = [
    ("room/opened", Hook::RoomOpened),
    ("room/closed", Hook::RoomClosed),
    ("member/joined", Hook::MemberJoined),
    ("member/left", Hook::MemberLeft),
    ("connection/refused", Hook::ConnectionRefused),
];

impl Hook {
    /// Its topic below `events/`.
    pub fn name(self) -> &'static str {
        HOOKS.iter().find(|(_, hook)| *hook == self).map_or("", |(name, _)| name)
    }
}

impl Default for WebhooksConfig {
    fn default() -> Self {
        Self {
            url: None,
            secret: None,
            events: HOOKS.map(|(_, hook)| hook).into(),
            queue: 10_000,
            timeout: Duration::from_secs(5),
            attempts: 10,
        }
    }
}

impl WebhooksConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("webhooks");
        let d = Self::default();
        Self {
            url: Some(section.read("url", URL, String::new())).filter(|url| !url.is_empty()),
            secret: section.read("secret", SecretForm, d.secret),
            events: section.read("events", List(Choice(&HOOKS)), d.events),
            queue: section.read("queue", count(1..=1_000_000), d.queue),
            timeout: section.read("timeout", time(100..=MINUTE), d.timeout),
            attempts: section.read("attempts", count(1..=100), d.attempts),
        }
    }
}

/// Reports half a configuration: TURN servers that no credential can be made for, a secret that nothing uses.
pub(super) fn check(reader: &mut Reader, config: &Config) {
    let IceConfig { turn, secret, secret_file, .. } = &config.ice;
    match (secret.is_some(), secret_file.is_some()) {
        (true, true) => report(reader, "ice.secret_file", "set beside ice.secret: one of them".into()),
        (false, false) if !turn.is_empty() && sound(reader, &["ice.secret", "ice.secret_file"]) => {
            let reason = "needs ice.secret or ice.secret_file, which coturn has as static-auth-secret".into();
            report(reader, "ice.turn", reason);
        }
        (true, _) | (_, true) if turn.is_empty() && sound(reader, &["ice.turn"]) => {
            let key = if secret.is_some() { "ice.secret" } else { "ice.secret_file" };
            report(reader, key, "set, but ice.turn has no server that would use it".into());
        }
        _ => {}
    }
    let WebhooksConfig { url, secret, .. } = &config.webhooks;
    match (url, secret) {
        (Some(_), None) if sound(reader, &["webhooks.secret"]) => {
            let reason = "needs webhooks.secret, by which the receiver knows who sent it".into();
            report(reader, "webhooks.url", reason);
        }
        (None, Some(_)) if sound(reader, &["webhooks.url"]) => {
            report(reader, "webhooks.secret", "set, but there is no webhooks.url".into());
        }
        _ => {}
    }
}

/// Whether none of these keys was refused already.
fn sound(reader: &Reader, keys: &[&str]) -> bool {
    keys.iter().all(|key| reader.origin(key).is_some())
}
