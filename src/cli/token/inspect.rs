//! `wigwag token inspect`: a token in words. Whatever it says was written by others and is escaped.

use std::fmt::Write as _;
use std::io::{Read, stdin};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};
use wigwag::auth::GrantClaims;
use wigwag::auth::token::{MAX_LENGTH, Parts, Tokens, parse};
use wigwag::config::TokenConfig;

use crate::cli::Failure;
use crate::cli::settings::FileArgs;
use crate::cli::terminal::{escape, span};

#[derive(Args)]
pub struct InspectArgs {
    /// The token; `-` or nothing: from standard input, where no other user of this machine sees it
    token: Option<String>,

    #[command(flatten)]
    file: FileArgs,
}

pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    let config = args.file.load()?.config.auth.token;
    let text = match args.token.as_deref() {
        None | Some("-") => from_stdin()?,
        Some(token) => token.into(),
    };
    let token = text.trim();
    let parts = parse(token.as_bytes()).map_err(|error| Failure::Runtime(format!("not a token: {error}")))?;
    let now = SystemTime::now();
    print!("{}", explain(&parts, now));
    let verdict = verdict(&config, token, now);
    let (Ok(text) | Err(text)) = &verdict;
    println!("verdict    {text}");
    verdict.map(|_| ()).map_err(|_| Failure::Runtime("this configuration does not accept the token".into()))
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    // A little more than a token, so that one that is too long is seen to be.
    let limit = MAX_LENGTH as u64 + 1024;
    let read = stdin().take(limit).read_to_string(&mut text);
    read.map_err(|error| Failure::Runtime(format!("standard input: {error}")))?;
    Ok(text)
}

/// Whether the server would accept it; `Ok` too if there is nothing to check it with.
fn verdict(config: &TokenConfig, token: &str, now: SystemTime) -> Result<String, String> {
    if config.secret.is_none() && config.keys.is_empty() && config.jwks_file.is_none() {
        return Ok("not checked: no keys in the configuration".into());
    }
    let tokens = Tokens::load(config).map_err(|error| error.to_string())?;
    match tokens.verify(token.as_bytes(), now) {
        Ok(_) => Ok("good: signed by a key of the configuration, in time, for this server".into()),
        Err(error) => Err(format!("not accepted: {error}")),
    }
}

fn explain(parts: &Parts<'_>, now: SystemTime) -> String {
    let mut text = String::new();
    let mut line = |name: &str, words: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:10} {words}");
    };
    let header = parts.header.iter().map(|(name, value)| format!("{} {}", escape(name.as_bytes()), shown(value)));
    line("header", header.collect::<Vec<_>>().join(", "));
    for (name, words) in WORDS {
        if let Some(value) = parts.claims.get(*name) {
            line(words, shown(value));
        }
    }
    for (name, words) in [("iat", "issued"), ("nbf", "not before"), ("exp", "expires")] {
        match parts.claims.get(name) {
            Some(value) => line(words, moment(value, now)),
            None if name == "exp" => line(words, "never, which no server accepts".into()),
            None => {}
        }
    }
    match GrantClaims::deserialize(Value::Object(parts.claims.clone())) {
        Ok(grants) => grants_in_words(&grants).into_iter().for_each(|(name, words)| line(name, words)),
        Err(_) => {
            line("problem", "rooms is an object of lists; publish, subscribe, retain, roles are lists of text".into())
        }
    }
    for (name, value) in others(&parts.claims) {
        line("also", format!("{} = {}", escape(name.as_bytes()), shown(value)));
    }
    text
}

/// Claims that are shown as they are.
const WORDS: &[(&str, &str)] = &[("sub", "user"), ("jti", "id"), ("iss", "issuer"), ("aud", "audience")];

fn grants_in_words(grants: &GrantClaims) -> Vec<(&'static str, String)> {
    let list = |texts: &[String]| texts.iter().map(|text| escape(text.as_bytes())).collect::<Vec<_>>().join(", ");
    let mut lines = Vec::new();
    for (room, rights) in &grants.rooms {
        let which = if room == "*" { "every room".into() } else { escape(room.as_bytes()) };
        lines.push(("room", format!("{which}: {}", list(rights))));
    }
    let filters = [
        ("publishes", &grants.publish),
        ("subscribes", &grants.subscribe),
        ("retains", &grants.retain),
        ("roles", &grants.roles),
    ];
    lines.extend(filters.iter().filter(|(_, texts)| !texts.is_empty()).map(|(name, texts)| (*name, list(texts))));
    if lines.is_empty() {
        lines.push(("grants", "none".into()));
    }
    lines.extend(
        grants.problems().iter().map(|problem| ("problem", format!("grants nothing: {}", escape(problem.as_bytes())))),
    );
    lines
}

fn others(claims: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let known = ["exp", "nbf", "iat", "rooms", "publish", "subscribe", "retain", "roles"];
    let is_known = move |name: &str| known.contains(&name) || WORDS.iter().any(|(word, _)| *word == name);
    claims.iter().filter(move |(name, _)| !is_known(name))
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text.as_bytes()),
        other => escape(other.to_string().as_bytes()),
    }
}

/// `in 59 min 3 s (Sat, 21 Nov 2026 04:00:00 GMT)`
fn moment(value: &Value, now: SystemTime) -> String {
    /// The year 9999, after which there are no dates.
    const END: f64 = 253_402_300_799.0;
    let Some(seconds) = value.as_f64().filter(|seconds| (0.0..=END).contains(seconds)) else {
        return format!("{}, which is no time in seconds since 1970", shown(value));
    };
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds.floor());
    let relative = match moment.duration_since(now) {
        Ok(ahead) => format!("in {}", span(ahead.as_secs())),
        Err(ago) => format!("{} ago", span(ago.duration().as_secs())),
    };
    format!("{relative} ({})", httpdate::fmt_http_date(moment))
}
