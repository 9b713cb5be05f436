//! Tokens against a plain reading of them: the tokens of `corpus/token`, and mutations of their bytes and of the JSON
//! in them, as they are and signed anew.
//!
//! The mutations go on for `WIGWAG_FUZZ_SECONDS` (5 if it is not set).

#[path = "corpus/mutation.rs"]
mod mutation;
#[path = "corpus/token_oracle.rs"]
mod oracle;

use std::time::Duration;

use mutation::{Random, Steps, fuzz, samples};
use oracle::{agree, decode, encode};
use wigwag::{
    auth::{keys::SigningKey, token::Tokens},
    config::{Algorithm, KeySource, TokenConfig, TokenKey},
};

/// The tokens that are good, and the lines of `hostile.txt`, which are not.
fn corpus() -> [Vec<Vec<u8>>; 2] {
    samples("token", "jwt")
}

#[test]
fn good_ones_are_good_and_hostile_ones_agreed_upon() {
    let [good, hostile] = corpus();
    for token in &good {
        assert!(agree(token), "{}", String::from_utf8_lossy(token));
    }
    for token in &hostile {
        agree(token);
    }
}

/// What headers and claims are made of, and what only looks so.
#[rustfmt::skip]
const WORDS: [&str; 64] = [
    "{", "}", "[", "]", ":", ",", "\"", "\\", " ", "\n", "\0", "\u{feff}", "é", "null", "true", "0", "-1", "1.5", "1e9", "1e300",
    "\"alg\":", "\"HS256\"", "\"none\"", "\"RS256\"", "\"kid\":", "\"crit\":", "\"jwk\":{\"kty\":\"oct\"},", "\"typ\":\"JWT\",",
    "\"sub\":", "\"alice\"", "\"alice~phone\"", "\"a/b\"", "\"\"", "\"+\"", "\"a\\u0000\"", "\"\\ud83d\"", "\"\\u0061lg\":",
    "\"exp\":", "\"nbf\":", "\"iat\":", "1800000060", "1799999994", "1799999995", "1800000005", "1800000006", "253402300799", "253402300800",
    "18446744073709551615", "\"iss\":", "\"https://id.example\"", "\"aud\":", "\"wigwag\"", "[\"wigwag\"]", "\"jti\":", "\"rooms\":", "{\"demo\":[\"join\"]}",
    "\"publish\":", "[\"app/#\"]", "\"roles\":", "[\"observe\"]", "[1]", "[[[[[[[[[[[[[[[[", "{\"\":{\"\":{\"\":", "\"x\":1,",
];

fn mutate(random: &mut Random, text: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(3) {
        let near = text.len();
        Steps { words: &WORDS, longest: 40 }.step(random, text, near, other);
    }
}

/// Mutates the bytes of a token, or the JSON of one of its parts.
fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut token = corpus[random.below(corpus.len())].clone();
    let other = &corpus[random.below(corpus.len())];
    let mut parts: Vec<Vec<u8>> = token.split(|byte| *byte == b'.').map(<[u8]>::to_vec).collect();
    let part = [0, 1, 1, 1, 2][random.below(5)];
    match parts.get(part).and_then(|part| decode(part)) {
        Some(mut inside) if random.below(8) > 0 => {
            let inside_other = other.split(|byte| *byte == b'.').nth(part).and_then(decode).unwrap_or_default();
            mutate(random, &mut inside, &inside_other);
            parts[part] = encode(&inside);
            parts.join(&b'.')
        }
        _ => {
            mutate(random, &mut token, other);
            token
        }
    }
}

#[test]
fn mutations() {
    let corpus = corpus().concat();
    fuzz("tokens", 0x0DEC_0DED_70CE_4115, |random, _| agree(&mutated(random, &corpus)));
}

/// With the public keys of a server nobody makes a token: one bit of a signed one is enough to spoil it.
#[test]
fn every_bit_of_what_is_signed_counts() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
    let claims = serde_json::json!({ "sub": "alice", "exp": 1_800_000_060 });
    let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for (algorithm, name) in [(Algorithm::Es256, "es256"), (Algorithm::EdDsa, "eddsa")] {
        let source = KeySource::PublicKeyFile(folder.join(format!("{name}.public.pem")));
        let keys = vec![TokenKey { kid: None, algorithm, source }];
        let tokens = Tokens::load(&TokenConfig { keys, ..TokenConfig::default() }).map_err(|error| error.to_string());
        let tokens = tokens.expect("a key");
        let pem = std::fs::read(folder.join(format!("{name}.private.pem"))).expect("a key");
        let key = SigningKey::from_pem(&pem).expect("a key");
        let token = key.token(None, claims.as_object().expect("an object")).expect("signed").into_bytes();
        assert!(tokens.verify(&token, now).is_ok());
        for at in 0..token.len() {
            let mut spoilt = token.clone();
            spoilt[at] ^= 1;
            assert!(tokens.verify(&spoilt, now).is_err(), "{name} at {at}");
        }
    }
}
