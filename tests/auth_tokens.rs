//! Tokens that are good, and every way in which one is not.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use wigwag::auth::keys::SigningKey;
use wigwag::auth::token::{self, MAX_LENGTH, TokenError, Tokens};
use wigwag::config::{Algorithm, KeySource, Secret, TokenConfig, TokenKey};

const SECRET: &str = "an HMAC secret of more than 32 bytes";
const OTHER: &str = "another HMAC secret of over 32 bytes";

/// The moment at which all this happens, in seconds since 1970.
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    at(NOW)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn key_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys").join(name)
}

fn secret(text: &str) -> Secret {
    Secret::new(text).expect("long enough")
}

fn hs256(text: &str) -> SigningKey {
    SigningKey::from_secret(&secret(text))
}

fn private(name: &str) -> SigningKey {
    let pem = std::fs::read(key_file(&format!("{name}.private.pem"))).expect(name);
    SigningKey::from_pem(&pem).expect(name)
}

/// A server with one HS256 secret.
fn simple() -> TokenConfig {
    TokenConfig { secret: Some(secret(SECRET)), ..TokenConfig::default() }
}

/// A server with a public key of each algorithm.
fn public() -> TokenConfig {
    let key = |algorithm, kid: &str| TokenKey {
        kid: Some(kid.into()),
        algorithm,
        source: KeySource::PublicKeyFile(key_file(&format!("{kid}.public.pem"))),
    };
    let keys = [(Algorithm::Rs256, "rs256"), (Algorithm::Es256, "es256"), (Algorithm::EdDsa, "eddsa")];
    TokenConfig { keys: keys.map(|(algorithm, kid)| key(algorithm, kid)).into(), ..TokenConfig::default() }
}

fn tokens(config: &TokenConfig) -> Tokens {
    Tokens::load(config).unwrap_or_else(|error| panic!("{error}"))
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("no object") };
    map
}

/// Alice's claims, good for a minute, with `changes` (null: without that claim).
fn claims(changes: Value) -> Map<String, Value> {
    let mut claims = object(json!({ "sub": "alice", "exp": NOW + 60, "rooms": { "demo": ["join"] } }));
    claims.extend(object(changes));
    claims.retain(|_, value| !value.is_null());
    claims
}

fn signed(key: &SigningKey, kid: Option<&str>, changes: Value) -> Vec<u8> {
    key.token(kid, &claims(changes)).expect("signed").into_bytes()
}

/// What the simple server says to alice's claims with `changes`.
fn simply(changes: Value) -> Result<token::Claims, TokenError> {
    tokens(&simple()).verify(&signed(&hs256(SECRET), None, changes), now())
}

/// A token whose header is anything, signed as HS256 with `key`.
fn forged(header: Value, key: &str) -> Vec<u8> {
    let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
    let message = format!("{}.{}", part(header.to_string()), part(Value::Object(claims(json!({}))).to_string()));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}").into_bytes()
}

#[test]
fn a_good_token_says_who_and_what() {
    let changes = json!({ "jti": "t-1", "iat": NOW, "roles": ["observe"], "tenant": "acme", "level": 3, "name": "A/B",
        "ratio": 0.5, "nested": { "x": 1 } });
    let claims = simply(changes).expect("good");
    assert_eq!(
        (&*claims.subject, claims.exp, claims.iat, claims.id.as_deref()),
        ("alice", NOW + 60, Some(NOW), Some("t-1"))
    );
    assert_eq!(claims.grants.rooms["demo"], ["join"]);
    assert_eq!(claims.grants.roles, ["observe"]);
    let other: Vec<_> = claims.other.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(other, [("level", "3"), ("tenant", "acme")], "only what can be one topic level");
}

#[test]
fn every_algorithm_with_keys_of_openssl() {
    let tokens = tokens(&public());
    for name in ["rs256", "es256", "eddsa"] {
        let key = private(name);
        for kid in [Some(name), None] {
            let token = signed(&key, kid, json!({}));
            assert_eq!(tokens.verify(&token, now()).map(|claims| claims.subject), Ok("alice".into()), "{name} {kid:?}");
        }
        let mut token = signed(&key, Some(name), json!({}));
        let at = token.len() - 10;
        token[at] = if token[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(tokens.verify(&token, now()), Err(TokenError::Signature), "{name}");
    }
}

#[test]
fn the_examples_of_rfc_7515() {
    const PAYLOAD: &str =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let examples = [
        (
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            json!({ "kty": "oct", "alg": "HS256",
                "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" }),
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }),
        ),
    ];
    for (header, signature, jwk) in examples {
        let config = TokenConfig {
            jwks_file: Some(file("rfc7515.json", &json!({ "keys": [jwk] }).to_string())),
            ..TokenConfig::default()
        };
        let tokens = tokens(&config);
        let token = format!("{header}.{PAYLOAD}.{signature}");
        let parts = token::parse(token.as_bytes()).expect("a token");
        assert_eq!(tokens.verify_signature(&parts), Ok(()), "{header}");
        assert_eq!(tokens.verify(token.as_bytes(), now()), Err(TokenError::Expired));
    }
}

#[test]
fn no_signature_is_none() {
    let tokens = tokens(&simple());
    for alg in ["none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "PS256", "RS1"] {
        let mut token = forged(json!({ "alg": alg }), SECRET);
        assert_eq!(tokens.verify(&token, now()), Err(TokenError::Algorithm), "{alg}");
        let end = token.iter().rposition(|byte| *byte == b'.').expect("a dot") + 1;
        token.truncate(end);
        assert_eq!(tokens.verify(&token, now()), Err(TokenError::Algorithm), "{alg} unsigned");
    }
    let mut unsigned = signed(&hs256(SECRET), None, json!({}));
    let end = unsigned.iter().rposition(|byte| *byte == b'.').expect("a dot") + 1;
    unsigned.truncate(end);
    assert_eq!(tokens.verify(&unsigned, now()), Err(TokenError::Signature));
}

#[test]
fn a_public_key_is_no_secret() {
    let tokens = tokens(&public());
    for name in ["rs256", "es256", "eddsa"] {
        let pem = std::fs::read_to_string(key_file(&format!("{name}.public.pem"))).expect(name);
        for header in [json!({ "alg": "HS256", "kid": name }), json!({ "alg": "HS256" })] {
            for secret in [&*pem, pem.trim_end()] {
                let token = forged(header.clone(), secret);
                assert_eq!(tokens.verify(&token, now()), Err(TokenError::UnknownKey), "{header}");
            }
        }
    }
    // The right kid with another's algorithm.
    let token = signed(&private("es256"), Some("rs256"), json!({}));
    assert_eq!(tokens.verify(&token, now()), Err(TokenError::UnknownKey));
}

#[test]
fn a_kid_selects_and_is_only_compared() {
    let keys = [("a", SECRET), ("b", OTHER)].map(|(kid, text)| TokenKey {
        kid: Some(kid.into()),
        algorithm: Algorithm::Hs256,
        source: KeySource::Secret(secret(text)),
    });
    let tokens = tokens(&TokenConfig { keys: keys.into(), ..TokenConfig::default() });
    let verdict = |kid, text| tokens.verify(&signed(&hs256(text), kid, json!({})), now()).map(|_| ());
    assert_eq!(verdict(Some("a"), SECRET), Ok(()));
    assert_eq!(verdict(Some("b"), OTHER), Ok(()));
    assert_eq!(verdict(None, OTHER), Ok(()), "without kid, all keys of the algorithm are tried");
    assert_eq!(verdict(Some("a"), OTHER), Err(TokenError::Signature));
    let path = key_file("rs256.public.pem");
    let strange = [
        path.to_str().expect("UTF-8"),
        "../../../../dev/null",
        "/dev/null",
        "",
        "A",
        "a\0",
        "a' OR '1'='1",
        "$(id)",
        "http://127.0.0.1:1/keys",
        "file:///etc/passwd",
    ];
    for kid in strange {
        // The empty file as a key is what `/dev/null` is named for.
        for secret in [SECRET, ""] {
            let token = forged(json!({ "alg": "HS256", "kid": kid }), secret);
            assert_eq!(tokens.verify(&token, now()), Err(TokenError::UnknownKey), "{kid:?}");
        }
    }
}

#[test]
fn a_key_without_kid_is_for_tokens_without() {
    let tokens = tokens(&simple());
    assert_eq!(tokens.verify(&signed(&hs256(SECRET), Some("x"), json!({})), now()), Err(TokenError::UnknownKey));
}

#[test]
fn keys_that_a_token_brings_along_are_not_looked_at() {
    let tokens = tokens(&simple());
    let evil = BASE64_URL_SAFE_NO_PAD.encode(OTHER);
    let header = |more: Value| {
        let mut header = object(json!({ "alg": "HS256" }));
        header.extend(object(more));
        Value::Object(header)
    };
    let brought = [
        json!({ "jku": "http://127.0.0.1:1/jwks.json" }),
        json!({ "x5u": "http://127.0.0.1:1/chain.pem" }),
        json!({ "jwk": { "kty": "oct", "k": evil } }),
        json!({ "jwk": 3, "x5c": "x" }),
    ];
    for more in brought {
        assert_eq!(tokens.verify(&forged(header(more.clone()), OTHER), now()), Err(TokenError::Signature), "{more}");
        assert_eq!(tokens.verify(&forged(header(more.clone()), SECRET), now()).map(|_| ()), Ok(()), "{more}");
    }
    let critical = header(json!({ "crit": ["b64"], "b64": false }));
    assert_eq!(tokens.verify(&forged(critical, SECRET), now()), Err(TokenError::Critical));
}

#[test]
fn times_to_the_second() {
    let tokens = tokens(&simple()); // leeway: 5 s
    let token = signed(&hs256(SECRET), None, json!({ "exp": NOW, "nbf": NOW, "iat": NOW }));
    let verdict = |seconds| tokens.verify(&token, at(seconds)).map(|_| ());
    assert_eq!(verdict(NOW - 6), Err(TokenError::NotYet));
    assert_eq!(verdict(NOW - 5), Ok(()));
    assert_eq!(verdict(NOW + 4), Ok(()));
    assert_eq!(verdict(NOW + 5), Err(TokenError::Expired));
    let identity = tokens.identify(&token, None, now()).expect("good");
    let expiry = identity.expiry.expect("it ends");
    assert_eq!((expiry.exp, expiry.at), (NOW, at(NOW + 5)));
    assert_eq!(identity.issued_at, now());
    // Each of the two alone.
    assert_eq!(simply(json!({ "nbf": NOW + 6 })), Err(TokenError::NotYet));
    assert_eq!(simply(json!({ "iat": NOW + 6 })), Err(TokenError::NotYet));
    assert!(simply(json!({ "exp": NOW as f64 + 0.5 })).is_ok(), "a NumericDate may have a fraction");
}

#[test]
fn claims_that_are_not_what_they_must_be() {
    for exp in [json!("1900000000"), json!(-1), json!(1e300), json!(u64::MAX), json!([NOW]), json!(true)] {
        for claim in ["exp", "nbf", "iat"] {
            assert!(matches!(simply(json!({ claim: exp })), Err(TokenError::Claim(_))), "{claim} {exp}");
        }
    }
    let missing = [json!({ "exp": null }), json!({ "sub": null })];
    for changes in missing {
        assert!(matches!(simply(changes.clone()), Err(TokenError::Missing(_))), "{changes}");
    }
    let wrong = [
        json!({ "sub": 7 }),
        json!({ "jti": 7 }),
        json!({ "jti": "x".repeat(257) }),
        json!({ "rooms": ["demo"] }),
        json!({ "rooms": { "demo": "join" } }),
        json!({ "roles": "observe" }),
        json!({ "publish": [1] }),
    ];
    for changes in wrong {
        assert!(matches!(simply(changes.clone()), Err(TokenError::Claim(_))), "{changes}");
    }
    for sub in ["", "a/b", "+", "#", "a\0", "line\nbreak", &"x".repeat(65)] {
        let error = simply(json!({ "sub": sub })).expect_err(sub);
        assert_eq!((error, error.refusal().reason.0), (TokenError::Subject, 0x87));
    }
    assert!(simply(json!({ "rooms": { "demo": ["fly"] }, "roles": ["king"] })).is_ok(), "unknown names grant nothing");
}

#[test]
fn issuer_and_audience() {
    let config = TokenConfig {
        issuer: vec!["https://id.example".into(), "b".into()],
        audience: vec!["wigwag".into(), "rooms".into()],
        ..simple()
    };
    let tokens = tokens(&config);
    let verdict = |iss: Value, aud: Value| {
        tokens.verify(&signed(&hs256(SECRET), None, json!({ "iss": iss, "aud": aud })), now()).map(|_| ())
    };
    for aud in [json!("wigwag"), json!(["x", "rooms"])] {
        assert_eq!(verdict(json!("b"), aud), Ok(()));
    }
    for iss in [Value::Null, json!("c"), json!(["b"]), json!(3), json!("B")] {
        assert_eq!(verdict(iss.clone(), json!("wigwag")), Err(TokenError::Issuer), "{iss}");
    }
    for aud in [Value::Null, json!("x"), json!([]), json!({}), json!([3]), json!("wigwag ")] {
        assert_eq!(verdict(json!("b"), aud.clone()), Err(TokenError::Audience), "{aud}");
    }
    assert_eq!(simply(json!({ "aud": "somebody" })), Err(TokenError::Audience), "nobody is configured to be it");
    assert!(simply(json!({ "iss": "anybody" })).is_ok());
}

#[test]
fn what_is_no_token() {
    let tokens = tokens(&simple());
    let good = String::from_utf8(signed(&hs256(SECRET), None, json!({}))).expect("ASCII");
    let broken = [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        good.replace('.', ""),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}="),
        format!(" {good}"),
        format!("{good}\n"),
        good.replacen('.', "..", 1),
        format!("W10.{}", good.split_once('.').expect("a dot").1),
    ];
    for token in broken {
        assert_eq!(tokens.verify(token.as_bytes(), now()), Err(TokenError::Malformed), "{token:?}");
    }
    assert_eq!(tokens.verify(b"\xff.\xfe.\xfd", now()), Err(TokenError::Malformed));
    for header in [json!({}), json!({ "alg": 3 }), json!({ "alg": "HS256", "kid": 3 }), json!({ "alg": null })] {
        assert_eq!(tokens.verify(&forged(header.clone(), SECRET), now()), Err(TokenError::Malformed), "{header}");
    }
}

#[test]
fn a_huge_token_is_not_read() {
    let huge = signed(&hs256(SECRET), None, json!({ "x": "x".repeat(MAX_LENGTH) }));
    assert_eq!(tokens(&simple()).verify(&huge, now()), Err(TokenError::TooLong));
    assert!(token::looks_like_one(&huge));
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep = format!("{{\"exp\":1,\"x\":{deep}}}");
    let token = format!("eyJhbGciOiJIUzI1NiJ9.{}.AAAA", BASE64_URL_SAFE_NO_PAD.encode(deep));
    assert_eq!(tokens(&simple()).verify(token.as_bytes(), now()), Err(TokenError::Malformed));
}

#[test]
fn a_password_is_no_token() {
    for password in ["", "secret", "ey", "eyes.wide", "a.b.c", "x.eyJ.y", "eyJ.a.b.c"] {
        assert!(!token::looks_like_one(password.as_bytes()), "{password}");
    }
    for token in ["eyJhbGciOiJub25lIn0.e30.", "eyAiYSI6MX0.x.y"] {
        assert!(token::looks_like_one(token.as_bytes()), "{token}");
    }
}

#[test]
fn the_user_name_is_the_subject_or_a_device_of_it() {
    let tokens = tokens(&simple());
    let identify = |sub: &str, user_name| {
        let token = signed(&hs256(SECRET), None, json!({ "sub": sub }));
        tokens
            .identify(&token, user_name, now())
            .map(|identity| (identity.user.to_string(), identity.base().to_string()))
    };
    let who = |user: &str, base: &str| Ok((user.to_owned(), base.to_owned()));
    assert_eq!(identify("alice", None), who("alice", "alice"));
    assert_eq!(identify("alice", Some("alice")), who("alice", "alice"));
    assert_eq!(identify("alice", Some("alice~phone")), who("alice~phone", "alice"));
    assert_eq!(identify("alice~phone", None), who("alice~phone", "alice"));
    for (sub, name) in
        [("alice", "bob"), ("alice", "alice~"), ("alice", ""), ("alice~phone", "alice"), ("alice~a", "alice~a~b")]
    {
        let error = identify(sub, Some(name)).expect_err(name);
        assert_eq!((error, error.refusal().reason.0), (TokenError::UserName, 0x87));
    }
}

#[test]
fn refusals_before_the_signature_are_all_alike() {
    let tokens = tokens(&public());
    let forgeries = [
        forged(json!({ "alg": "none" }), SECRET),
        forged(json!({ "alg": "HS256", "kid": "x" }), SECRET),
        signed(&private("es256"), Some("rs256"), json!({})),
    ];
    let said = forgeries.map(|token| tokens.verify(&token, now()).expect_err("forged").refusal());
    assert!(said.iter().all(|refusal| *refusal == said[0] && refusal.reason.0 == 0x86), "{said:?}");
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the test directory is writable");
    path
}

#[test]
fn keys_are_rotated_without_a_gap() {
    let jwk = |kid: &str, text: &str| json!({ "kty": "oct", "alg": "HS256", "kid": kid, "k": BASE64_URL_SAFE_NO_PAD.encode(text) });
    let publish = |keys: &[Value]| file("rotation.json", &json!({ "keys": keys }).to_string());
    let (old, new) = (jwk("2025", SECRET), jwk("2026", OTHER));

    let path = publish(std::slice::from_ref(&old));
    let tokens = tokens(&TokenConfig { jwks_file: Some(path.clone()), ..TokenConfig::default() });
    assert_eq!(tokens.files(), std::slice::from_ref(&path));
    let (with_old, with_new) =
        (signed(&hs256(SECRET), Some("2025"), json!({})), signed(&hs256(OTHER), Some("2026"), json!({})));
    let good = |tokens: &Tokens| [&with_old, &with_new].map(|token| tokens.verify(token, now()).is_ok());

    assert_eq!(good(&tokens), [true, false]);
    publish(&[old, new.clone()]);
    tokens.reload().expect("both");
    assert_eq!(good(&tokens), [true, true]);
    std::fs::write(&path, "{").expect("writable");
    let error = tokens.reload().expect_err("half written").to_string();
    assert!(
        error.starts_with("auth.token.jwks_file: ") && error.ends_with("no JWK set: {\"keys\":[…]} is expected"),
        "{error}"
    );
    assert_eq!(good(&tokens), [true, true], "the old keys stay");
    publish(&[new]);
    tokens.reload().expect("the new one");
    assert_eq!(good(&tokens), [false, true]);
}

#[test]
fn a_key_set_may_have_keys_for_others() {
    let x = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
    let others = json!([
        { "kty": "OKP", "crv": "Ed25519", "x": x, "use": "enc" },
        { "kty": "EC", "crv": "P-384", "x": x, "y": x },
        { "kty": "EC", "crv": "secp256k1", "x": x, "y": x },
        { "kty": "RSA", "alg": "RS512", "n": x, "e": "AQAB" },
        { "kty": "oct", "k": x },
        { "kty": "new" }, 3,
    ]);
    let load = |keys: &Value| {
        let path = file("others.json", &json!({ "keys": keys }).to_string());
        Tokens::load(&TokenConfig { jwks_file: Some(path), ..TokenConfig::default() })
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert!(load(&others).expect_err("none of ours").ends_with("no key for RS256, ES256, EdDSA or HS256 in it"));
    let mut with_one = others;
    with_one.as_array_mut().expect("a list").push(json!({ "kty": "OKP", "crv": "Ed25519", "x": x }));
    assert_eq!(load(&with_one), Ok(()));
    let weak = json!([{ "kty": "RSA", "n": BASE64_URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB" }]);
    assert!(load(&weak).expect_err("1024 bits").ends_with("key 1: RSA keys have 2048 to 8192 bits"));
}

#[test]
fn keys_that_are_none() {
    let load = |algorithm, source| {
        let keys = vec![TokenKey { kid: None, algorithm, source }];
        Tokens::load(&TokenConfig { keys, ..TokenConfig::default() }).map(|_| ()).expect_err("no key").to_string()
    };
    let public = |name: &str| KeySource::PublicKeyFile(key_file(name));
    let table = [
        (
            load(Algorithm::Rs256, public("rs256.private.pem")),
            "a private key; the server is to know the public one only",
        ),
        (load(Algorithm::Es256, public("rs256.public.pem")), "no public key for ES256 in PEM"),
        (load(Algorithm::Rs256, public("rs256.small.public.pem")), "RSA keys have 2048 to 8192 bits"),
        (load(Algorithm::EdDsa, public("README.md")), "no public key for EdDSA in PEM"),
        (load(Algorithm::Hs256, KeySource::SecretFile(file("short", "short\n"))), "a secret has at least 32 bytes"),
        (load(Algorithm::Hs256, KeySource::SecretFile("no/such".into())), "No such file or directory (os error 2)"),
    ];
    for (error, expected) in table {
        assert!(error.starts_with("auth.token.keys: ") && error.ends_with(expected), "{error}");
    }
    let source = KeySource::SecretFile(file("secret", &format!("{SECRET}\n")));
    let keys = vec![TokenKey { kid: None, algorithm: Algorithm::Hs256, source }];
    let tokens = tokens(&TokenConfig { keys, ..TokenConfig::default() });
    assert!(tokens.verify(&signed(&hs256(SECRET), None, json!({})), now()).is_ok(), "without the newline at the end");
}
