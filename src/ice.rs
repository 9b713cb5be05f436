//! STUN and TURN servers for users, and the credentials with which a TURN server lets them in.
//!
//! A credential is made of nothing but the time, the user and a secret that the TURN servers share ("A REST API For
//! Access To TURN Services", draft-uberti-behave-turn-rest-00, which coturn calls `use-auth-secret`): the user name is
//! `expiry:user`, the password the HMAC-SHA1 of that. Nothing is kept of it. What is bounded is how many a user (devices
//! included) may have in a minute.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use parking_lot::{Mutex, RwLock};
use ring::hmac;
use serde::Serialize;

use crate::{
    auth::keys::read_secret,
    config::{IceConfig, Secret},
    policy::base,
};

/// See the module.
pub struct Ice {
    config: IceConfig,
    key: RwLock<Option<hmac::Key>>,
    budget: Budget,
}

/// `{"iceServers":[…],"ttl":3600}`, of which the list is what `RTCPeerConnection` takes.
#[derive(Debug, Serialize)]
pub struct Servers {
    #[serde(rename = "iceServers")]
    servers: Vec<Server>,
    /// Seconds for which the credential is good.
    ttl: u64,
}

#[derive(Debug, Serialize)]
struct Server {
    urls: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

/// The user has had as many as it may: so long until there is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub Duration);

impl Default for Ice {
    /// No servers.
    fn default() -> Self {
        let config = IceConfig::default();
        Self { budget: Budget::new(config.per_user), key: RwLock::default(), config }
    }
}

impl Ice {
    /// Reads the secret.
    ///
    /// # Errors
    /// What is wrong with its file.
    pub fn new(config: &IceConfig) -> Result<Self, String> {
        let ice = Self { config: config.clone(), key: RwLock::default(), budget: Budget::new(config.per_user) };
        ice.reload().map(|()| ice)
    }

    /// Reads the secret again.
    ///
    /// # Errors
    /// What is wrong with its file; the old secret stays in use.
    pub fn reload(&self) -> Result<(), String> {
        let IceConfig { secret, secret_file, .. } = &self.config;
        let secret = match secret_file {
            Some(path) => Some(read_secret(path).map_err(|problem| format!("{}: {problem}", path.display()))?),
            None => secret.clone(),
        };
        let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
        *self.key.write() = secret.as_ref().map(key);
        Ok(())
    }

    /// When the next credential is to be had by who listens: well before the last one runs out.
    pub fn renewal(&self) -> Duration {
        self.config.ttl * 3 / 4
    }

    /// The servers, with a credential for `user` that is good from `today` on.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn servers(&self, user: &str, today: SystemTime, now: Instant) -> Result<Servers, TooMany> {
        let IceConfig { stun, turn, ttl, .. } = &self.config;
        self.budget.take(base(user), now)?;
        let mut servers = Vec::new();
        if !stun.is_empty() {
            servers.push(Server { urls: stun.clone(), username: None, credential: None });
        }
        if let Some(key) = self.key.read().as_ref().filter(|_| !turn.is_empty()) {
            let expiry = (today + *ttl).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let username = format!("{expiry}:{user}");
            let credential = BASE64_STANDARD.encode(hmac::sign(key, username.as_bytes()));
            servers.push(Server { urls: turn.clone(), username: Some(username), credential: Some(credential) });
        }
        Ok(Servers { servers, ttl: ttl.as_secs() })
    }
}

/// How many are remembered before those are looked for who have their whole minute again.
const USERS: usize = 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// So many in a minute for each user: all at once, and then one whenever its part of the minute has passed.
struct Budget {
    price: Duration,
    /// Until when each user has spent. Who is not here has spent nothing.
    spent: Mutex<Spent>,
}

#[derive(Default)]
struct Spent {
    until: HashMap<Box<str>, Instant>,
    sweep_at: usize,
}

impl Budget {
    fn new(per_minute: usize) -> Self {
        let price = MINUTE / u32::try_from(per_minute.max(1)).unwrap_or(u32::MAX);
        Self { price, spent: Mutex::default() }
    }

    fn take(&self, user: &str, now: Instant) -> Result<(), TooMany> {
        let mut spent = self.spent.lock();
        if spent.until.len() >= spent.sweep_at.max(USERS) {
            spent.until.retain(|_, until| *until > now);
            spent.until.shrink_to_fit();
            spent.sweep_at = 2 * spent.until.len();
        }
        let until = spent.until.get(user).copied().unwrap_or(now).max(now) + self.price;
        match (until - now).checked_sub(MINUTE) {
            Some(wait) if !wait.is_zero() => Err(TooMany(wait)),
            _ => {
                spent.until.insert(user.into(), until);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret that coturn has as well, 32+";

    fn config() -> IceConfig {
        IceConfig {
            stun: vec!["stun:stun.example.org".into()],
            turn: vec!["turn:turn.example.org".into(), "turns:turn.example.org:443?transport=tcp".into()],
            secret: Secret::new(SECRET),
            ..IceConfig::default()
        }
    }

    /// The credential is what `printf 1790003600:alice | openssl dgst -sha1 -hmac "$secret" -binary | base64` prints.
    #[test]
    fn a_credential_is_what_coturn_expects() {
        let ice = Ice::new(&config()).expect("a secret");
        let today = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let servers = ice.servers("alice", today, Instant::now()).expect("the first");
        let expected = serde_json::json!({
            "iceServers": [
                { "urls": ["stun:stun.example.org"] },
                {
                    "urls": ["turn:turn.example.org", "turns:turn.example.org:443?transport=tcp"],
                    "username": "1790003600:alice",
                    "credential": "P86jJ8TP9xEqJsamNUkAX6t8aXQ=",
                },
            ],
            "ttl": 3600,
        });
        assert_eq!(serde_json::to_value(&servers).expect("JSON"), expected);
    }

    #[test]
    fn without_servers_the_list_is_empty() {
        let ice = Ice::new(&IceConfig::default()).expect("nothing to read");
        let servers = ice.servers("alice", UNIX_EPOCH, Instant::now()).expect("the first");
        assert_eq!(serde_json::to_string(&servers).expect("JSON"), r#"{"iceServers":[],"ttl":3600}"#);
    }

    #[test]
    fn a_user_has_so_many_in_a_minute_with_all_devices() {
        let ice = Ice::new(&IceConfig { per_user: 3, ..config() }).expect("a secret");
        let start = Instant::now();
        let at = |user: &str, seconds| {
            ice.servers(user, UNIX_EPOCH, start + Duration::from_secs(seconds))
                .map(|_| ())
                .map_err(|TooMany(wait)| wait)
        };
        for user in ["alice", "alice~phone", "alice"] {
            assert_eq!(at(user, 0), Ok(()));
        }
        assert_eq!(at("alice~laptop", 0), Err(Duration::from_secs(20)));
        assert_eq!(at("bob", 0), Ok(()), "somebody else");
        assert_eq!(at("alice", 20), Ok(()));
        assert_eq!(at("alice", 20), Err(Duration::from_secs(20)));
    }

    #[test]
    fn who_has_not_asked_for_a_minute_is_forgotten() {
        let budget = Budget::new(30);
        let start = Instant::now();
        for n in 0..10 * USERS {
            assert_eq!(budget.take(&format!("user-{n}"), start + Duration::from_secs(n as u64)), Ok(()));
        }
        assert!(budget.spent.lock().until.len() <= USERS);
    }
}
