//! Keys of tokens as they are written: never shown, neither by an error, nor by `wigwag check`, nor by `Debug`.

use std::fmt;
use std::path::PathBuf;

use crate::config::value::{Form, Kind, Raw, Rejected, quote};

/// How a token is signed. There is no "none", and a key has exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256: who can check a token can also make one.
    Hs256,
    /// RSA (PKCS#1 v1.5) with SHA-256; 2048 to 8192 bits.
    Rs256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];

    /// As a token's header has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name, letter by letter.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// What must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// The shortest secret in bytes: as long as the hash (RFC 7518, 3.2), lest it be guessed from one token.
    pub const MIN: usize = 32;

    /// `None` if it is too short.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() >= Self::MIN).then(|| Self(text.into()))
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// A key of `auth.token.keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The kid of the tokens that it is for; none: of those that have none.
    pub kid: Option<String>,
    /// How those are signed.
    pub algorithm: Algorithm,
    /// Where the key is.
    pub source: KeySource,
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// Here; HS256 only.
    Secret(Secret),
    /// The whole file, but for a newline at its end; HS256 only.
    SecretFile(PathBuf),
    /// A public key in PEM; RS256, ES256 and EdDSA.
    PublicKeyFile(PathBuf),
}

/// What stands for a secret where it would be shown. Too short to be one: what is shown does not start a server with
/// a secret that everybody knows.
const HIDDEN: &str = "(hidden)";

/// A [`Secret`], or none.
pub(in crate::config) struct SecretForm;

impl Kind for SecretForm {
    type Value = Option<Secret>;

    fn allowed(&self) -> String {
        format!("text of at least {} bytes, or \"\" for none", Secret::MIN)
    }

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<Rejected>> {
        match raw.text() {
            Some("") => Ok(None),
            Some(text) => match Secret::new(text) {
                Some(secret) => Ok(Some(secret)),
                None => Err(vec![too_short(raw, text, self.allowed())]),
            },
            None => Err(raw.reject(self.allowed())),
        }
    }

    fn show(&self, value: &Self::Value) -> String {
        quote(value.as_ref().map_or("", |_| HIDDEN))
    }
}

/// A [`Secret`] in a list.
pub(in crate::config) struct SecretItem;

impl Kind for SecretItem {
    type Value = Secret;

    fn allowed(&self) -> String {
        format!("text of at least {} bytes", Secret::MIN)
    }

    fn parse(&self, raw: &Raw) -> Result<Secret, Vec<Rejected>> {
        let Some(text) = raw.text() else { return Err(raw.reject(self.allowed())) };
        Secret::new(text).ok_or_else(|| vec![too_short(raw, text, self.allowed())])
    }

    fn show(&self, _: &Secret) -> String {
        quote(HIDDEN)
    }
}

fn too_short(raw: &Raw, text: &str, allowed: String) -> Rejected {
    Rejected { origin: raw.origin.clone(), found: format!("text of {} bytes", text.len()), allowed }
}

/// A [`TokenKey`].
pub(super) struct KeyForm;

const FIELDS: &str = "kid, alg, secret, secret_file, public_key_file";
const SOURCES: &str = "one of secret, secret_file (for HS256) and public_key_file (for RS256, ES256, EdDSA)";

impl Kind for KeyForm {
    type Value = TokenKey;

    fn allowed(&self) -> String {
        "keys like { kid = \"2026\", alg = \"ES256\", public_key_file = \"es256.pem\" } (not from the environment)"
            .into()
    }

    fn parse(&self, raw: &Raw) -> Result<TokenKey, Vec<Rejected>> {
        let Form::Table(fields) = &raw.form else { return Err(raw.reject(self.allowed())) };
        let mut found = Fields::default();
        for (name, value) in fields {
            found.take(name, value).map_err(|rejected| vec![rejected])?;
        }
        let reject = |found: String, allowed: &str| {
            vec![Rejected { origin: raw.origin.clone(), found, allowed: allowed.into() }]
        };
        let Some(algorithm) = found.algorithm else { return Err(reject("a key without alg".into(), ALGORITHMS)) };
        match found.sources.pop() {
            Some(source) if found.sources.is_empty() => match (&source, algorithm) {
                (KeySource::Secret(_) | KeySource::SecretFile(_), Algorithm::Hs256)
                | (KeySource::PublicKeyFile(_), Algorithm::Rs256 | Algorithm::Es256 | Algorithm::EdDsa) => {
                    Ok(TokenKey { kid: found.kid, algorithm, source })
                }
                (KeySource::PublicKeyFile(_), _) => Err(reject("HS256 with a public_key_file".into(), SOURCES)),
                _ => Err(reject(format!("{} with a secret", algorithm.name()), SOURCES)),
            },
            Some(_) => Err(reject("several sources of one key".into(), SOURCES)),
            None => Err(reject("a key that is nowhere".into(), SOURCES)),
        }
    }

    fn show(&self, key: &TokenKey) -> String {
        let kid = key.kid.as_ref().map(|kid| format!("kid = {}, ", quote(kid))).unwrap_or_default();
        let source = match &key.source {
            KeySource::Secret(_) => format!("secret = {}", quote(HIDDEN)),
            KeySource::SecretFile(path) => format!("secret_file = {}", quote(&path.to_string_lossy())),
            KeySource::PublicKeyFile(path) => format!("public_key_file = {}", quote(&path.to_string_lossy())),
        };
        format!("{{ {kid}alg = {}, {source} }}", quote(key.algorithm.name()))
    }
}

const ALGORITHMS: &str = "alg = \"HS256\", \"RS256\", \"ES256\" or \"EdDSA\"";

/// What was found of a key so far.
#[derive(Default)]
struct Fields {
    kid: Option<String>,
    algorithm: Option<Algorithm>,
    sources: Vec<KeySource>,
}

impl Fields {
    fn take(&mut self, name: &str, value: &Raw) -> Result<(), Rejected> {
        let reject =
            |found: String, allowed: &str| Rejected { origin: value.origin.clone(), found, allowed: allowed.into() };
        let text = || {
            let allowed = format!("{name} = text that is not empty");
            value.text().filter(|text| !text.is_empty()).ok_or_else(|| reject(format!("another {name}"), &allowed))
        };
        match name {
            "kid" => self.kid = Some(text()?.into()),
            "alg" => {
                let algorithm = Algorithm::named(text()?);
                self.algorithm = Some(algorithm.ok_or_else(|| reject(value.found(), ALGORITHMS))?);
            }
            "secret" => {
                let allowed = format!("secret = text of at least {} bytes", Secret::MIN);
                let secret = Secret::new(text()?).ok_or_else(|| too_short(value, text().unwrap_or(""), allowed))?;
                self.sources.push(KeySource::Secret(secret));
            }
            "secret_file" => self.sources.push(KeySource::SecretFile(text()?.into())),
            "public_key_file" => self.sources.push(KeySource::PublicKeyFile(text()?.into())),
            other => return Err(reject(format!("{other:?} in a key"), FIELDS)),
        }
        Ok(())
    }
}
