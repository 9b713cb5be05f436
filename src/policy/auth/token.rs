//! Tokens: a JWT (RFC 7519) in compact form, signed, that names a user and what it may do.
//!
//! A token is parsed once, and trusted in nothing before its signature has been checked with one of the server's own
//! keys: `alg` and `kid` choose among those, and whatever else a header offers (`jku`, `x5u`, `jwk`) is not looked at,
//! but for `crit`, which asks to be understood and is not. Time is an argument.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::{KeyError, KeySet};
use crate::{
    config::{Algorithm, TokenConfig},
    policy::{
        Expiry, Identity, Refusal,
        grants::{GrantClaims, Grants},
        identity, valid_name,
    },
    wire::mqtt::ReasonCode,
};

/// The longest token, in bytes; a longer one is not even looked at.
pub const MAX_LENGTH: usize = 16 << 10;

/// The longest `jti`, in bytes: it is kept as long as the connection.
pub const MAX_ID: usize = 256;

/// How many other claims are kept with a connection.
const MAX_CLAIMS: usize = 32;

/// The last second that is a time: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// More than [`MAX_LENGTH`] bytes.
    TooLong,
    /// Not three parts in base64url, of which the first two are JSON objects.
    Malformed,
    /// `alg` is none of ours, `none` least of all.
    Algorithm,
    /// `crit` names extensions (RFC 7515, 4.1.11).
    Critical,
    /// No key with this `alg` and `kid`.
    UnknownKey,
    /// Nobody signed it who has one of the keys.
    Signature,
    /// A claim that is there is not what it has to be.
    Claim(&'static str),
    /// A claim that has to be there is not.
    Missing(&'static str),
    /// `exp` and the leeway are over.
    Expired,
    /// `nbf` or `iat` is still to come.
    NotYet,
    /// `iss` is not one that is configured.
    Issuer,
    /// `aud` has none that is configured.
    Audience,
    /// `sub` cannot be a user name.
    Subject,
    /// The MQTT user name is neither `sub` nor a device of it.
    UserName,
}

impl TokenError {
    /// One line for the client. Before the signature has been checked it does not tell what was wrong, since that is
    /// of use only to who makes tokens up.
    pub fn what(self) -> &'static str {
        match self {
            Self::TooLong => "the token is longer than 16 KiB",
            Self::Malformed => "the password is no token that can be read",
            Self::Algorithm | Self::Critical | Self::UnknownKey | Self::Signature => {
                "the token is not signed by a known key"
            }
            Self::Claim(what) | Self::Missing(what) => what,
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not valid yet",
            Self::Issuer => "the token is from another issuer",
            Self::Audience => "the token is for another audience",
            Self::Subject => "the token's sub is no user name: 1 to 64 bytes, none of / + # or control characters",
            Self::UserName => "the user name must be the token's sub, or sub~device",
        }
    }

    /// For the connection that showed the token.
    pub fn refusal(self) -> Refusal {
        let reason = match self {
            Self::Subject | Self::UserName => ReasonCode::NOT_AUTHORIZED,
            _ => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        };
        Refusal { reason, what: self.what() }
    }
}

impl fmt::Display for TokenError {
    /// For the operator: what exactly was wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Algorithm => "alg is not HS256, RS256, ES256 or EdDSA",
            Self::Critical => "crit asks for extensions that are not known here",
            Self::UnknownKey => "no configured key has this alg and kid",
            Self::Signature => "the signature is of none of the configured keys",
            Self::Malformed => "not three parts in base64url with JSON objects in the first two",
            other => other.what(),
        })
    }
}

impl std::error::Error for TokenError {}

const NO_EXP: TokenError = TokenError::Missing("the token has no exp, so it would be good for ever");
const NO_SUB: TokenError = TokenError::Missing("the token has no sub");
const BAD_TIME: TokenError = TokenError::Claim("exp, nbf and iat are seconds since 1970");
const BAD_SUB: TokenError = TokenError::Claim("sub is text");
const BAD_ID: TokenError = TokenError::Claim("jti is text of at most 256 bytes");
const BAD_GRANTS: TokenError =
    TokenError::Claim("rooms is an object of lists; publish, subscribe, retain and roles are lists of text");

/// A token taken apart, and trusted in nothing.
pub struct Parts<'a> {
    /// What the signature is for.
    message: &'a [u8],
    signature: Vec<u8>,
    /// The whole header.
    pub header: Map<String, Value>,
    /// The whole payload.
    pub claims: Map<String, Value>,
}

/// Takes a token apart.
///
/// # Errors
/// [`TokenError::TooLong`], [`TokenError::Malformed`].
pub fn parse(token: &[u8]) -> Result<Parts<'_>, TokenError> {
    if token.len() > MAX_LENGTH {
        return Err(TokenError::TooLong);
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let decode = |part| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let object = |part| serde_json::from_slice(&decode(part)?).map_err(|_| TokenError::Malformed);
    Ok(Parts {
        message: &token[..header.len() + 1 + payload.len()],
        signature: decode(signature)?,
        header: object(header)?,
        claims: object(payload)?,
    })
}

/// Whether a password is meant as a token, good or bad: what is not may be a password of another method.
pub fn looks_like_one(password: &[u8]) -> bool {
    // How a JSON object begins in base64: `{"` or `{ `; `{` and other white space; `{}`.
    let begins = [&b"ey"[..], b"ew", b"e3"].iter().any(|begin| password.starts_with(begin));
    begins && (password.len() > MAX_LENGTH || password.iter().filter(|byte| **byte == b'.').count() == 2)
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: a valid user name.
    pub subject: String,
    /// Seconds since 1970.
    pub exp: u64,
    /// Seconds since 1970.
    pub iat: Option<u64>,
    /// `jti`, at most [`MAX_ID`] bytes.
    pub id: Option<String>,
    /// As written.
    pub grants: GrantClaims,
    /// Other top-level claims that can be one topic level.
    pub other: Box<[(Box<str>, Box<str>)]>,
}

/// What tokens are checked against.
pub struct Tokens {
    config: TokenConfig,
    keys: RwLock<Arc<KeySet>>,
}

impl Tokens {
    /// # Errors
    /// A key cannot be read, or is none.
    pub fn load(config: &TokenConfig) -> Result<Self, KeyError> {
        let keys = KeySet::load(config)?;
        Ok(Self { config: config.clone(), keys: RwLock::new(Arc::new(keys)) })
    }

    /// Reads the files again. A key that is still there stays valid throughout; one that is gone is so at once.
    ///
    /// # Errors
    /// As [`Tokens::load`]; the old keys stay.
    pub fn reload(&self) -> Result<(), KeyError> {
        let keys = KeySet::load(&self.config)?;
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    /// The files that keys are in.
    pub fn files(&self) -> Vec<PathBuf> {
        use crate::config::KeySource::{PublicKeyFile, Secret, SecretFile};
        let keys = self.config.keys.iter().filter_map(|key| match &key.source {
            Secret(_) => None,
            SecretFile(path) | PublicKeyFile(path) => Some(path.clone()),
        });
        keys.chain(self.config.jwks_file.clone()).collect()
    }

    /// What a token says, if it is good at `now`.
    ///
    /// # Errors
    /// The first thing that is wrong with it; the signature comes before everything that it covers.
    pub fn verify(&self, token: &[u8], now: SystemTime) -> Result<Claims, TokenError> {
        let parts = parse(token)?;
        self.verify_signature(&parts)?;
        let now = seconds(now);
        self.check_times(&parts.claims, now)?;
        self.check_parties(&parts.claims)?;
        read(parts.claims)
    }

    /// Whether one of the keys signed it.
    ///
    /// # Errors
    /// Why not.
    pub fn verify_signature(&self, parts: &Parts<'_>) -> Result<(), TokenError> {
        let header = Header::deserialize(&parts.header).map_err(|_| TokenError::Malformed)?;
        let algorithm = Algorithm::named(header.alg).ok_or(TokenError::Algorithm)?;
        if parts.header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        let keys = Arc::clone(&self.keys.read());
        let mut candidates = keys.candidates(algorithm, header.kid).peekable();
        candidates.peek().ok_or(TokenError::UnknownKey)?;
        let signed = candidates.any(|key| key.verifies(parts.message, &parts.signature));
        if signed { Ok(()) } else { Err(TokenError::Signature) }
    }

    fn check_times(&self, claims: &Map<String, Value>, now: u64) -> Result<(), TokenError> {
        let leeway = self.config.leeway.as_secs();
        // RFC 7519, 4.1.4: the current time is before exp.
        if now >= time(claims, "exp")?.ok_or(NO_EXP)? + leeway {
            return Err(TokenError::Expired);
        }
        let to_come = |claim: Option<u64>| claim.is_some_and(|time| time > now + leeway);
        // A token issued in the future would outlive the revocation of its user.
        if to_come(time(claims, "nbf")?) || to_come(time(claims, "iat")?) {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let TokenConfig { issuer, audience, .. } = &self.config;
        let among = |accepted: &[String], value: &Value| {
            value.as_str().is_some_and(|value| accepted.iter().any(|accepted| accepted == value))
        };
        if !issuer.is_empty() && !claims.get("iss").is_some_and(|value| among(issuer, value)) {
            return Err(TokenError::Issuer);
        }
        let for_us = match claims.get("aud") {
            // RFC 7519, 4.1.3: who does not find himself in aud refuses the token, also who has no name.
            Some(Value::Array(values)) => values.iter().any(|value| among(audience, value)),
            Some(value) => among(audience, value),
            None => audience.is_empty(),
        };
        if for_us { Ok(()) } else { Err(TokenError::Audience) }
    }

    /// Who a token makes of a connection that gave `user_name`.
    ///
    /// # Errors
    /// As [`Tokens::verify`], and [`TokenError::UserName`].
    pub fn identify(&self, token: &[u8], user_name: Option<&str>, now: SystemTime) -> Result<Identity, TokenError> {
        let claims = self.verify(token, now)?;
        let user = user_name.unwrap_or(&claims.subject);
        if !identity::may_go_by(&claims.subject, user) {
            return Err(TokenError::UserName);
        }
        let since_1970 = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Ok(Identity {
            user: user.into(),
            grants: Arc::new(Grants::from_claims(&claims.grants)),
            expiry: Some(Expiry { exp: claims.exp, at: since_1970(claims.exp) + self.config.leeway }),
            issued_at: since_1970(claims.iat.unwrap_or(0)),
            token_id: claims.id.map(Into::into),
            claims: claims.other,
            tagged: true,
            believed: false,
        })
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    alg: &'a str,
    kid: Option<&'a str>,
}

/// Reads claims whose signature, times and parties are good.
fn read(claims: Map<String, Value>) -> Result<Claims, TokenError> {
    let subject = claims.get("sub").ok_or(NO_SUB)?.as_str().ok_or(BAD_SUB)?;
    if !valid_name(subject) {
        return Err(TokenError::Subject);
    }
    let id = match claims.get("jti") {
        None => None,
        Some(Value::String(id)) if id.len() <= MAX_ID => Some(id.clone()),
        Some(_) => return Err(BAD_ID),
    };
    Ok(Claims {
        subject: subject.into(),
        exp: time(&claims, "exp")?.ok_or(NO_EXP)?,
        iat: time(&claims, "iat")?,
        id,
        other: others(&claims),
        grants: GrantClaims::deserialize(Value::Object(claims)).map_err(|_| BAD_GRANTS)?,
    })
}

/// A claim that is a NumericDate, which may have a fraction.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..=LAST_SECOND as f64).contains(seconds))?;
        Some(seconds as u64)
    });
    seconds.filter(|seconds| *seconds <= LAST_SECOND).map(Some).ok_or(BAD_TIME)
}

/// The claims that a placeholder may stand for. What is no topic level is left out, so that a name with a `/` or a `#`
/// in it cannot reach beyond the level it is put in.
fn others(claims: &Map<String, Value>) -> Box<[(Box<str>, Box<str>)]> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    };
    let own = |name: &str| matches!(name, "exp" | "nbf" | "iat" | "jti" | "sub");
    let kept = claims.iter().filter(|(name, _)| !own(name)).filter_map(|(name, value)| {
        let value = text(value).filter(|value| valid_name(value))?;
        (name.len() <= MAX_ID).then(|| (name.as_str().into(), value.into()))
    });
    kept.take(MAX_CLAIMS).collect()
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
