//! Who asks: an operator key, or a token.

use std::net::IpAddr;

use axum::{extract::Request, http::header};
use parking_lot::RwLock;
use ring::hmac;

use super::Problem;
use crate::{
    config::{ApiConfig, Secret},
    hub,
    policy::{Identity, Refusal},
    server::Shared,
    wire::mqtt::ReasonCode,
};

/// The operator keys. They are compared by a keyed hash, which takes the same time whatever is shown, and tells neither
/// how much of it was right nor how long a key is.
pub struct Operators {
    config: ApiConfig,
    key: hmac::Key,
    known: RwLock<Vec<hmac::Tag>>,
}

/// Who asks.
pub struct Caller {
    pub identity: Identity,
    /// By an operator key.
    pub operator: bool,
}

impl Operators {
    /// Reads the keys.
    ///
    /// # Errors
    /// What is wrong with their file.
    pub fn new(config: &ApiConfig) -> Result<Self, String> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| format!("the system has no randomness: {error}"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random);
        let operators = Self { config: config.clone(), key, known: RwLock::default() };
        operators.reload().map(|()| operators)
    }

    /// Reads the keys again.
    ///
    /// # Errors
    /// What is wrong with their file; the old ones stay in use.
    pub fn reload(&self) -> Result<(), String> {
        let mut keys = self.config.keys.clone();
        if let Some(path) = &self.config.keys_file {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            for (n, line) in text.lines().map(str::trim).enumerate() {
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let too_short = || format!("{}:{}: a key has at least {} bytes", path.display(), n + 1, Secret::MIN);
                keys.push(Secret::new(line).ok_or_else(too_short)?);
            }
        }
        *self.known.write() = keys.iter().map(|key| hmac::sign(&self.key, key.expose().as_bytes())).collect();
        Ok(())
    }

    fn knows(&self, shown: &str) -> bool {
        let known = self.known.read();
        // All of them, so that the time does not tell which.
        known.iter().fold(false, |found, tag| found | hmac::verify(&self.key, shown.as_bytes(), tag.as_ref()).is_ok())
    }
}

/// Finds out who asks.
///
/// # Errors
/// Nobody who is known.
pub fn identify(shared: &Shared, request: &Request) -> Result<Caller, Problem> {
    let mut shown = request.headers().get_all(header::AUTHORIZATION).iter();
    let Some(authorization) = shown.next() else {
        return Err(Problem::unauthorized("an operator key or a token is needed: Authorization: Bearer …", false));
    };
    let token = authorization.to_str().ok().filter(|_| shown.next().is_none()).and_then(bearer);
    let Some(token) = token else {
        return Err(Problem::unauthorized("credentials look like Authorization: Bearer …", false));
    };
    if shared.operators.knows(token) {
        return Ok(Caller { identity: hub::operator(), operator: true });
    }
    let remote: IpAddr = crate::http::client_address(shared, request);
    match shared.hub.policy.auth.bearer(token, remote) {
        Ok(identity) => Ok(Caller { identity, operator: false }),
        Err(Refusal { reason: ReasonCode::BANNED, what }) => {
            Err(Problem::too_many(what, shared.config.auth.failure_wait))
        }
        Err(refusal) => {
            shared.hub.metrics.refused("api", refusal.reason);
            // What looks like no token was meant to be a key.
            let no_key = "neither an operator key of this server nor a token";
            Err(Problem::unauthorized(if token.contains('.') { refusal.what } else { no_key }, true))
        }
    }
}

/// The token of `Bearer …` (RFC 6750 2.1), whose scheme may be in any case.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

impl Caller {
    /// # Errors
    /// It is somebody, and not one who may.
    pub fn require_service(&self) -> Result<(), Problem> {
        match self.identity.grants.has_service() {
            true => Ok(()),
            false => Err(Problem::forbidden("this takes an operator key, or a token with the role service")),
        }
    }

    /// In whose name a room is moderated: a key is nobody's.
    pub fn name(&self) -> Option<String> {
        (!self.operator).then(|| self.identity.user.to_string())
    }
}
