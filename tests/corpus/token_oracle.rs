//! The verdict on a token by way of serde_json's values, as plain as can be, with a base64 of its own.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use ring::hmac;
use serde_json::{Map, Value};
use wigwag::{
    auth::token::{MAX_ID, MAX_LENGTH, Tokens, looks_like_one, parse},
    config::{Secret, TokenConfig},
};

const SECRET: &str = "an HMAC secret of more than 32 bytes";
/// When all this happens, in seconds since 1970.
const NOW: u64 = 1_800_000_000;
const LEEWAY: u64 = 5;

/// A server that names no issuer and no audience, and one that names both.
static SERVERS: LazyLock<[Tokens; 2]> = LazyLock::new(|| {
    let open = TokenConfig { secret: Secret::new(SECRET), ..TokenConfig::default() };
    let exacting =
        TokenConfig { issuer: vec!["https://id.example".into()], audience: vec!["wigwag".into()], ..open.clone() };
    [open, exacting].map(|config| Tokens::load(&config).unwrap_or_else(|error| panic!("{error}")))
});

/// Asserts that the parser, and the check of signature and claims, say the same of these bytes, and of the token that
/// they are when they are signed with the server's secret. Tells whether either is accepted.
#[track_caller]
pub fn agree(token: &[u8]) -> bool {
    looks_like_one(token);
    let accepted = agree_as_it_is(token);
    let Some(dot) = token.iter().rposition(|byte| *byte == b'.') else { return accepted };
    let mut signed = token[..=dot].to_vec();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), &token[..dot]);
    signed.extend(encode(tag.as_ref()));
    agree_as_it_is(&signed) || accepted
}

#[track_caller]
fn agree_as_it_is(token: &[u8]) -> bool {
    let shown = String::from_utf8_lossy(token);
    let taken_apart = take_apart(token);
    match (parse(token), &taken_apart) {
        (Ok(parts), Some((_, header, claims, _))) => {
            assert_eq!((&parts.header, &parts.claims), (header, claims), "{shown}");
        }
        (parsed, oracle) => assert_eq!(parsed.is_ok(), oracle.is_some(), "{shown}"),
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    let mut accepted = false;
    for (server, exacting) in SERVERS.iter().zip([false, true]) {
        let user = taken_apart.as_ref().and_then(|parts| user(parts, exacting));
        let found = server.identify(token, None, now);
        assert_eq!(found.as_ref().ok().map(|identity| &*identity.user), user, "exacting {exacting}: {shown}");
        if let Ok(identity) = found {
            accepted = true;
            assert!(identity.claims.len() <= 32 && identity.claims.iter().all(|(_, value)| is_name(value)), "{shown}");
            assert!(identity.expiry.is_some_and(|expiry| expiry.at > now), "{shown}");
            assert!(identity.issued_at <= now + Duration::from_secs(LEEWAY), "{shown}");
        }
    }
    accepted
}

/// What was signed, header, claims, signature.
type Parts<'t> = (&'t [u8], Map<String, Value>, Map<String, Value>, Vec<u8>);

fn take_apart(token: &[u8]) -> Option<Parts<'_>> {
    let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
    let [header, claims, signature] = parts[..] else { return None };
    let object = |part| match serde_json::from_slice(&decode(part)?) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let message = &token[..header.len() + 1 + claims.len()];
    let short = token.len() <= MAX_LENGTH;
    Some((message, object(header)?, object(claims)?, decode(signature)?)).filter(|_| short)
}

/// The user that a token makes, if it is good.
fn user<'t>((message, header, claims, signature): &'t Parts<'_>, exacting: bool) -> Option<&'t str> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let ours = header.get("alg")? == "HS256"
        && header.get("kid").is_none_or(Value::is_null)
        && !header.contains_key("crit")
        && hmac::verify(&key, message, signature).is_ok();
    // `None` if there is none, `Some(None)` if it is no time.
    let time = |name: &str| {
        let value = claims.get(name)?;
        let seconds = value.as_f64().filter(|seconds| (0.0..253_402_300_800.0).contains(seconds));
        Some(seconds.map(|seconds| seconds as u64))
    };
    let in_time = time("exp")??.checked_add(LEEWAY)? > NOW
        && ["nbf", "iat"]
            .iter()
            .all(|name| time(name).is_none_or(|time| time.is_some_and(|time| time <= NOW + LEEWAY)));
    let for_us = match (exacting, claims.get("aud")) {
        (false, aud) => aud.is_none(),
        (true, Some(Value::Array(all))) => all.iter().any(|one| one == "wigwag"),
        (true, aud) => aud.is_some_and(|aud| aud == "wigwag"),
    };
    let from_whom = !exacting || claims.get("iss").is_some_and(|iss| iss == "https://id.example");
    let texts = |value: &Value| value.as_array().is_some_and(|all| all.iter().all(Value::is_string));
    let lists = ["publish", "subscribe", "retain", "roles"].iter().all(|name| claims.get(*name).is_none_or(texts));
    let rooms =
        claims.get("rooms").is_none_or(|rooms| rooms.as_object().is_some_and(|rooms| rooms.values().all(texts)));
    let id = claims.get("jti").is_none_or(|id| id.as_str().is_some_and(|id| id.len() <= MAX_ID));
    let all = ours && in_time && for_us && from_whom && lists && rooms && id;
    claims.get("sub")?.as_str().filter(|sub| all && is_name(sub))
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.chars().all(|c| !matches!(c, '/' | '+' | '#') && !c.is_control())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// base64url without padding (RFC 4648, 5), whose spare bits are zero.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in text {
        bits = bits << 6 | DIGITS.iter().position(|known| known == digit)? as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6 && bits == 0).then_some(bytes)
}

pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let (mut text, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 6 {
            count -= 6;
            text.push(DIGITS[(bits >> count) as usize & 63]);
        }
    }
    if count > 0 {
        text.push(DIGITS[(bits << (6 - count)) as usize & 63]);
    }
    text
}
