//! Keys of tokens, and what is signed with them.
//!
//! A key belongs to one algorithm and is never used with another, whatever a token's header asks for: an RSA public
//! key is not taken for an HMAC secret, and there is no key for `none`. Where keys are comes from the configuration
//! alone; of a token only its `kid` is looked at, and compared.
//!
//! `jsonwebtoken` reads the formats (PEM, JWK). The signatures are `ring`'s, called directly: `jsonwebtoken` has one
//! cryptography for the whole process, and a broker inside somebody else's program must not choose it for them.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use crate::config::{Algorithm, KeySource, Secret, TokenConfig, TokenKey};

/// A key that cannot be used.
#[derive(Debug)]
pub struct KeyError {
    /// The configuration key to look at.
    setting: &'static str,
    path: PathBuf,
    problem: String,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.setting, self.path.display(), self.problem)
    }
}

impl std::error::Error for KeyError {}

/// A key that checks signatures.
pub struct Key {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    Hmac(hmac::Key),
    /// PKCS#1.
    RsaDer(Vec<u8>),
    RsaComponents {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// Whether `signature` is this key's for `message`, made with the key's own algorithm.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Hmac(key) => hmac::verify(key, message, signature),
            Material::RsaDer(der) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, signature)
            }
            Material::RsaComponents { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Material::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature),
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }

    fn from_secret(kid: Option<&str>, secret: &str) -> Self {
        let material = Material::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        Self { kid: kid.map(Into::into), algorithm: Algorithm::Hs256, material }
    }

    fn from_pem(kid: Option<&str>, algorithm: Algorithm, pem: &str) -> Result<Self, String> {
        if pem.contains("PRIVATE KEY-----") {
            return Err("a private key; the server is to know the public one only".into());
        }
        let key = match algorithm {
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            Algorithm::Es256 => DecodingKey::from_ec_pem(pem.as_bytes()),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
            Algorithm::Hs256 => return Err("HS256 has a secret, not a public key".into()),
        };
        let key = key.map_err(|_| format!("no public key for {} in PEM", algorithm.name()))?;
        Ok(Self { kid: kid.map(Into::into), algorithm, material: material(algorithm, &key)? })
    }

    /// `Ok(None)`: a key for something else, of which a JWK set may have many.
    fn from_jwk(jwk: &Jwk) -> Result<Option<Self>, String> {
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return Ok(None);
        }
        let Some(algorithm) = algorithm_of(jwk) else { return Ok(None) };
        let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
        let kid = jwk.common.key_id.as_deref().map(Into::into);
        Ok(Some(Self { kid, algorithm, material: material(algorithm, &key)? }))
    }
}

/// What a JWK is for: its `alg` if that is one of ours, else the one that its type of key has here. A secret must say.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let natural = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::Rs256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::Es256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDsa, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) if jwk.common.key_algorithm.is_some() => {
            (Algorithm::Hs256, KeyAlgorithm::HS256)
        }
        _ => return None,
    };
    let (algorithm, name) = natural;
    jwk.common.key_algorithm.is_none_or(|stated| stated == name).then_some(algorithm)
}

fn material(algorithm: Algorithm, key: &DecodingKey) -> Result<Material, String> {
    /// RFC 7518, 3.3, and what `ring` takes.
    const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
    /// Tags, lengths and the exponent around the modulus.
    const DER_OVERHEAD: usize = 64;
    let rsa = |length: usize, overhead: usize| {
        let fits = (*RSA_BYTES.start()..=RSA_BYTES.end() + overhead).contains(&length);
        if fits { Ok(()) } else { Err(String::from("RSA keys have 2048 to 8192 bits")) }
    };
    let material = match (algorithm, key.kind()) {
        (Algorithm::Hs256, DecodingKeyKind::SecretOrDer(secret)) if secret.len() >= Secret::MIN => {
            Material::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret))
        }
        (Algorithm::Rs256, DecodingKeyKind::SecretOrDer(der)) => {
            rsa(der.len(), DER_OVERHEAD)?;
            Material::RsaDer(der.clone())
        }
        (Algorithm::Rs256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            // Some write the modulus with a zero in front, which ring does not take.
            let n = n.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
            rsa(n.len(), 0)?;
            Material::RsaComponents { n, e: e.clone() }
        }
        (Algorithm::Es256, DecodingKeyKind::SecretOrDer(point)) if point.len() == 65 && point[0] == 4 => {
            Material::P256(point.clone())
        }
        (Algorithm::EdDsa, DecodingKeyKind::SecretOrDer(key)) if key.len() == 32 => Material::Ed25519(key.clone()),
        (Algorithm::Hs256, _) => return Err(format!("a secret has at least {} bytes", Secret::MIN)),
        _ => return Err(format!("no key for {}", algorithm.name())),
    };
    Ok(material)
}

/// All keys that tokens are checked with.
pub struct KeySet(Vec<Key>);

/// A token without `kid` is tried with all keys of its algorithm.
const MAX_KEYS: usize = 100;

impl KeySet {
    /// Reads every key that the configuration names.
    ///
    /// # Errors
    /// The first that cannot be read or is none.
    pub fn load(config: &TokenConfig) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = config.secret.iter().map(|secret| Key::from_secret(None, secret.expose())).collect();
        for key in &config.keys {
            keys.push(load_key(key)?);
        }
        if let Some(path) = &config.jwks_file {
            let wrong = |problem| KeyError { setting: "auth.token.jwks_file", path: path.clone(), problem };
            let text = read(path).map_err(wrong)?;
            keys.extend(parse_jwks(&text).map_err(wrong)?);
        }
        Ok(Self(keys))
    }

    /// The keys that a token with this header may be signed with.
    pub fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        let is_it = move |key: &&Key| key.algorithm == algorithm && (kid.is_none() || key.kid.as_deref() == kid);
        self.0.iter().filter(is_it)
    }
}

fn load_key(key: &TokenKey) -> Result<Key, KeyError> {
    let kid = key.kid.as_deref();
    let (path, loaded) = match &key.source {
        KeySource::Secret(secret) => return Ok(Key::from_secret(kid, secret.expose())),
        KeySource::SecretFile(path) => (path, read_secret(path).map(|secret| Key::from_secret(kid, secret.expose()))),
        KeySource::PublicKeyFile(path) => (path, read(path).and_then(|pem| Key::from_pem(kid, key.algorithm, &pem))),
    };
    loaded.map_err(|problem| KeyError { setting: "auth.token.keys", path: path.clone(), problem })
}

fn parse_jwks(text: &str) -> Result<Vec<Key>, String> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_str(text).map_err(|_| String::from("no JWK set: {\"keys\":[…]} is expected"))?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("more than {MAX_KEYS} keys"));
    }
    let mut keys = Vec::new();
    for (n, value) in set.keys.into_iter().enumerate() {
        // What is no JWK that we know is for somebody else.
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
        keys.extend(Key::from_jwk(&jwk).map_err(|problem| format!("key {}: {problem}", n + 1))?);
    }
    if keys.is_empty() { Err("no key for RS256, ES256, EdDSA or HS256 in it".into()) } else { Ok(keys) }
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The secret in a file: all of it but for a newline at its end, which editors add.
///
/// # Errors
/// The file cannot be read, or the secret is too short.
pub fn read_secret(path: &Path) -> Result<Secret, String> {
    let text = read(path)?;
    Secret::new(text.trim_end_matches(['\r', '\n']))
        .ok_or_else(|| format!("a secret has at least {} bytes", Secret::MIN))
}

/// A key that makes signatures.
pub struct SigningKey(Signer);

enum Signer {
    Hmac(hmac::Key),
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// HS256.
    pub fn from_secret(secret: &Secret) -> Self {
        Self(Signer::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())))
    }

    /// A private key in PEM (PKCS#8, or PKCS#1 for RSA); which algorithm it is for shows in the key.
    ///
    /// # Errors
    /// None of the kinds of keys that there are here.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| String::from("no private key in PEM"))?;
        let signer = match &der {
            PrivateKeyDer::Pkcs8(der) => from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => {
                RsaKeyPair::from_der(der.secret_pkcs1_der()).ok().map(|key| Signer::Rsa(key.into()))
            }
            _ => None,
        };
        let kinds = "no private key for EdDSA (Ed25519), ES256 (P-256) or RS256 (RSA) in PKCS#8 (`openssl pkcs8 -topk8 -nocrypt`)";
        signer.map(Self).ok_or_else(|| kinds.into())
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Signer::Hmac(_) => Algorithm::Hs256,
            Signer::Rsa(_) => Algorithm::Rs256,
            Signer::P256(_) => Algorithm::Es256,
            Signer::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// `None` if the system has no randomness to give.
    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.0 {
            Signer::Hmac(key) => Some(hmac::sign(key, message).as_ref().into()),
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Signer::P256(key) => key.sign(&random, message).ok().map(as_vec),
            Signer::Ed25519(key) => Some(as_vec(key.sign(message))),
        }
    }

    /// A token with these claims. `None` if the system has no randomness to give.
    pub fn token(&self, kid: Option<&str>, claims: &serde_json::Map<String, serde_json::Value>) -> Option<String> {
        let mut header = serde_json::json!({ "typ": "JWT", "alg": self.algorithm().name() });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let message = format!("{}.{}", part(header.to_string()), part(serde_json::to_string(claims).ok()?));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.sign(message.as_bytes())?);
        Some(message + "." + &signature)
    }
}

fn from_pkcs8(der: &[u8]) -> Option<Signer> {
    let p256 = || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new()).ok();
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
        .ok()
        .map(Signer::Ed25519)
        .or_else(|| p256().map(|key| Signer::P256(key.into())))
        .or_else(|| RsaKeyPair::from_pkcs8(der).ok().map(|key| Signer::Rsa(key.into())))
}

fn as_vec(signature: signature::Signature) -> Vec<u8> {
    signature.as_ref().into()
}
