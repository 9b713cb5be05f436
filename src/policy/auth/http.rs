//! The operator's own service is asked who somebody is.
//!
//! `POST {"client_id", "username"?, "password"?, "remote"}` is answered by 200 and `{"user"?, "grants"?, "expires"?}`
//! (a name, grants as in a token, seconds since 1970), by 401 (who is that?) or by 403 (not under this name). Anything
//! else, and no answer within the time it has, is a failure: nobody is let in then, and after some in a row the service
//! is left alone for a while. Redirects and proxies are not followed: credentials go where the configuration says.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use ureq::Agent;

use super::{
    BUSY, Credentials, Expiry, Identity, REFUSED,
    breaker::Breaker,
    offload::{Busy, Offload},
};
use crate::{
    config::AuthHttpConfig,
    outgoing::agent,
    policy::{
        Refusal,
        grants::{GrantClaims, Grants},
        valid_name,
    },
    wire::mqtt::ReasonCode,
};

const UNAVAILABLE: Refusal =
    Refusal { reason: ReasonCode::SERVER_UNAVAILABLE, what: "logins cannot be checked at the moment; try again later" };
const NOT_THIS_NAME: Refusal =
    Refusal { reason: ReasonCode::NOT_AUTHORIZED, what: "these credentials are not for this user name" };

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// How many answers are remembered.
const MAX_CACHED: usize = 10_000;

#[derive(Serialize)]
struct Question<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    remote: IpAddr,
}

#[derive(Deserialize)]
struct Answer {
    user: Option<String>,
    #[serde(default)]
    grants: GrantClaims,
    expires: Option<u64>,
}

/// What came of a request.
enum Reply {
    Known(Answer),
    /// 401
    Unknown,
    /// 403
    Forbidden,
    Failed,
    /// It was not made.
    LeftAlone,
}

/// See the module.
pub struct Service {
    asker: Arc<Asker>,
    offload: Offload,
    cache: Option<Cache>,
}

impl Service {
    /// Nothing is asked yet.
    pub fn new(config: &AuthHttpConfig) -> Self {
        Self {
            asker: Arc::new(Asker::new(config)),
            offload: Offload::new(config.concurrency, config.queue),
            cache: config.cache.map(Cache::new),
        }
    }

    /// `None` if nothing was shown that one could be asked about.
    pub async fn authenticate(
        &self,
        shown: &Credentials<'_>,
        remote: IpAddr,
        now: SystemTime,
    ) -> Option<Result<Identity, Refusal>> {
        if shown.user_name.is_none() && shown.password.is_none() {
            return None;
        }
        // JSON is UTF-8, and so is what its author may have chosen as a password.
        let Ok(password) = shown.password.map(std::str::from_utf8).transpose() else { return Some(Err(REFUSED)) };
        let question =
            Question { client_id: shown.client_id, username: shown.user_name, password, remote: remote.to_canonical() };
        // Text and an address: nothing that JSON cannot say.
        let question = serde_json::to_vec(&question).unwrap_or_default();
        Some(self.ask(question, shown, now).await)
    }

    async fn ask(&self, question: Vec<u8>, shown: &Credentials<'_>, now: SystemTime) -> Result<Identity, Refusal> {
        let key = self.cache.as_ref().map(|cache| (cache, cache.key(&question)));
        if let Some(identity) = key.and_then(|(cache, key)| cache.get(&key, Instant::now(), now)) {
            return Ok(identity);
        }
        if self.asker.breaker.lock().is_open(Instant::now()) {
            return Err(UNAVAILABLE);
        }
        let asker = Arc::clone(&self.asker);
        let identity = match self.offload.run(move || asker.ask(&question)).await {
            Ok(Reply::Known(answer)) => answer.identity(shown, now)?,
            Ok(Reply::Unknown) => return Err(REFUSED),
            Ok(Reply::Forbidden) => return Err(NOT_THIS_NAME),
            Ok(Reply::Failed | Reply::LeftAlone) => return Err(UNAVAILABLE),
            Err(Busy) => return Err(BUSY),
        };
        if let Some((cache, key)) = key {
            cache.put(key, &identity, Instant::now());
        }
        Ok(identity)
    }
}

impl Answer {
    fn identity(self, shown: &Credentials<'_>, now: SystemTime) -> Result<Identity, Refusal> {
        let named_by_service = self.user.is_some();
        let user = self.user.as_deref().or(shown.user_name).unwrap_or(shown.client_id);
        if !valid_name(user) {
            if named_by_service {
                tracing::error!("auth.http: the service named a user that cannot be one");
                return Err(UNAVAILABLE);
            }
            return Err(NOT_THIS_NAME);
        }
        let expiry = self.expires.map(|exp| Expiry { exp, at: end(exp) });
        if expiry.is_some_and(|expiry| expiry.at <= now) {
            return Err(REFUSED);
        }
        Ok(Identity { expiry, ..Identity::new(user, Arc::new(Grants::from_claims(&self.grants)), now) })
    }
}

/// The service's own clock counts, so there is no leeway; a time that this machine cannot express is far away.
fn end(exp: u64) -> SystemTime {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(exp)).unwrap_or_else(|| SystemTime::now() + CENTURY)
}

/// Makes the requests, on whatever thread.
struct Asker {
    url: String,
    agent: Agent,
    breaker: Mutex<Breaker>,
}

impl Asker {
    fn new(config: &AuthHttpConfig) -> Self {
        let url = config.url.clone().unwrap_or_default();
        let agent = agent(&url, config.timeout, config.concurrency);
        Self { url, agent, breaker: Mutex::new(Breaker::new(config.failures, config.pause)) }
    }

    fn ask(&self, question: &[u8]) -> Reply {
        if !self.breaker.lock().admits(Instant::now()) {
            return Reply::LeftAlone;
        }
        match self.request(question) {
            Ok(reply) => {
                self.breaker.lock().succeeded();
                reply
            }
            Err(problem) => {
                tracing::warn!(%problem, "auth.http: the service failed");
                if self.breaker.lock().failed(Instant::now()) {
                    tracing::error!("auth.http: the service is left alone for a while; nobody new is let in");
                }
                Reply::Failed
            }
        }
    }

    fn request(&self, question: &[u8]) -> Result<Reply, String> {
        let json = "application/json";
        let request = self.agent.post(&self.url).header("content-type", json).header("accept", json);
        let mut response = request.send(question).map_err(|error| error.to_string())?;
        match response.status().as_u16() {
            200 => {
                let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
                let body = body.map_err(|error| error.to_string())?;
                // Not serde's message, which may quote the answer.
                let answer =
                    serde_json::from_slice(&body).map_err(|_| "answered 200 with something else than grants")?;
                Ok(Reply::Known(answer))
            }
            401 => Ok(Reply::Unknown),
            403 => Ok(Reply::Forbidden),
            other => Err(format!("answered {other}")),
        }
    }
}

/// Who was let in lately. What was shown is not kept, only its hash under a key that dies with the process.
struct Cache {
    life: Duration,
    key: hmac::Key,
    known: Mutex<HashMap<Fingerprint, (Instant, Identity)>>,
}

type Fingerprint = [u8; 32];

impl Cache {
    fn new(life: Duration) -> Self {
        let mut random = [0; 32];
        // Without randomness the key is known, and so is what a hash protects from who can read this memory: no more.
        let _ = SystemRandom::new().fill(&mut random);
        Self { life, key: hmac::Key::new(hmac::HMAC_SHA256, &random), known: Mutex::default() }
    }

    fn key(&self, question: &[u8]) -> Fingerprint {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hmac::sign(&self.key, question).as_ref());
        fingerprint
    }

    fn get(&self, key: &Fingerprint, at: Instant, now: SystemTime) -> Option<Identity> {
        let known = self.known.lock();
        let (until, identity) = known.get(key)?;
        let good = *until > at && identity.expiry.is_none_or(|expiry| expiry.at > now);
        good.then(|| identity.clone())
    }

    fn put(&self, key: Fingerprint, identity: &Identity, at: Instant) {
        let mut known = self.known.lock();
        if known.len() >= MAX_CACHED {
            known.retain(|_, (until, _)| *until > at);
        }
        if known.len() < MAX_CACHED {
            known.insert(key, (at + self.life, identity.clone()));
        }
    }
}
