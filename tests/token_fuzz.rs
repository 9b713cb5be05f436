//! Tokens against a plain reading of them: the tokens of `corpus/token`, and mutations of their bytes and of the JSON
//! in them, as they are and signed anew.
//!
//! The mutations go on for `WIGWAG_FUZZ_SECONDS` (5 if it is not set) from a fixed seed, so that a failure fails again.

#[path = "corpus/token_oracle.rs"]
mod oracle;

use std::time::{Duration, Instant};

use oracle::{agree, decode, encode};
use wigwag::{
    auth::{keys::SigningKey, token::Tokens},
    config::{Algorithm, KeySource, TokenConfig, TokenKey},
};

/// The tokens that are good, and the lines of `hostile.txt`, which are not.
fn corpus() -> [Vec<Vec<u8>>; 2] {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/token");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let good = files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "jwt"));
    let hostile = include_bytes!("corpus/token/hostile.txt");
    [
        good.map(|file| std::fs::read(file).unwrap()).collect(),
        hostile.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect(),
    ]
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

/// splitmix64
struct Random(u64);

impl Random {
    /// Below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % end as u64) as usize
    }

    fn range(&mut self, len: usize, longest: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        start..start + self.below((len - start).min(longest) + 1)
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
        let at = random.range(text.len(), 12);
        match random.below(8) {
            0 if at.start < text.len() => text[at.start] ^= 1 << random.below(8),
            1 if at.start < text.len() => text[at.start] = random.below(256) as u8,
            2 => drop(text.drain(at)),
            3 => {
                let again = text[at.clone()].to_vec();
                text.splice(at.end..at.end, again);
            }
            4 => {
                let piece = random.range(other.len(), 40);
                text.splice(at, other[piece].iter().copied());
            }
            5 => text.truncate(at.end),
            6 => drop(text.splice(at.start..at.start, WORDS[random.below(WORDS.len())].bytes())),
            _ => drop(text.splice(at, WORDS[random.below(WORDS.len())].bytes())),
        }
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
    let seconds = std::env::var("WIGWAG_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let (start, budget) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(5)));
    let corpus = corpus().concat();
    let mut random = Random(0x0DEC_0DED_70CE_4115);
    let (mut runs, mut accepted) = (0u64, 0u64);
    while start.elapsed() < budget {
        for _ in 0..100 {
            accepted += u64::from(agree(&mutated(&mut random, &corpus)));
            runs += 1;
        }
    }
    println!("{runs} tokens, {accepted} accepted");
    assert!(budget.is_zero() || accepted > runs / 100, "mutations that leave nothing whole test little");
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
