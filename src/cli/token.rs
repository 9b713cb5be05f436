//! `wigwag token`: mints one, which is all that it prints, or explains one.

mod inspect;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use wigwag::auth::keys::{SigningKey, read_secret};
use wigwag::auth::{GrantClaims, valid_name};
use wigwag::config::{KeySource, Secret, TokenConfig};

use super::Failure;
use super::settings::FileArgs;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: Option<TokenCommand>,

    #[command(flatten)]
    mint: MintArgs,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Explain a token: what it says, what is wrong with it, and whether this configuration accepts it
    Inspect(inspect::InspectArgs),
}

#[derive(Args)]
struct MintArgs {
    /// Whose token it is; with `~device`, for that device alone
    #[arg(short, long, required = true, value_name = "NAME")]
    user: Option<String>,

    /// Rights in a room: join, listen, admin (which includes join), members=N; `*` in ROOM stands for anything; may be
    /// repeated
    #[arg(short, long, value_name = "ROOM:RIGHT[,RIGHT]", value_parser = room)]
    room: Vec<(String, Vec<String>)>,

    /// Filter of topics outside rooms that may be published to; may be repeated
    #[arg(long, value_name = "FILTER")]
    publish: Vec<String>,

    /// Filter outside rooms that may be subscribed to; may be repeated
    #[arg(long, value_name = "FILTER")]
    subscribe: Vec<String>,

    /// Filter of topics outside rooms that may be retained; may be repeated
    #[arg(long, value_name = "FILTER")]
    retain: Vec<String>,

    /// observe or service; may be repeated
    #[arg(long)]
    role: Vec<String>,

    /// Another claim, for `{claim:NAME}` in the topic table; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = claim)]
    claim: Vec<(String, String)>,

    /// How long it is good: 90s, 15m, 1h, 30d
    #[arg(long, default_value = "1h", value_parser = ttl)]
    ttl: Duration,

    /// The token's id (jti), by which it can be revoked [default: a random one]
    #[arg(long)]
    id: Option<String>,

    /// Private key in PEM, or file with an HS256 secret [default: the configuration's first secret]
    #[arg(short, long, value_name = "FILE", conflicts_with = "secret")]
    key_file: Option<PathBuf>,

    /// HS256 secret, for experiments: other users of this machine can see it
    #[arg(long)]
    secret: Option<String>,

    /// The key's kid [default: the configuration's, with its key]
    #[arg(long)]
    kid: Option<String>,

    #[command(flatten)]
    file: FileArgs,
}

/// As far as minting goes: whoever needs longer has a service to make new ones.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

pub fn run(args: TokenArgs) -> Result<(), Failure> {
    match args.command {
        Some(TokenCommand::Inspect(args)) => inspect::run(&args),
        None => mint(args.mint),
    }
}

fn mint(args: MintArgs) -> Result<(), Failure> {
    let config = args.file.load()?.config.auth.token;
    let (key, kid) = signing_key(&args, &config)?;
    let claims = claims(args, &config)?;
    println!("{}", key.token(kid.as_deref(), &claims).ok_or_else(no_randomness)?);
    Ok(())
}

fn no_randomness() -> Failure {
    Failure::Runtime("the system has no randomness to give".into())
}

/// The key that was named, or the first of the configuration that can sign, with its kid.
fn signing_key(args: &MintArgs, config: &TokenConfig) -> Result<(SigningKey, Option<String>), Failure> {
    let usage = |flag: &str, problem: String| Failure::Usage(format!("{flag}: {problem}"));
    if let Some(text) = &args.secret {
        let too_short = || usage("--secret", format!("a secret has at least {} bytes", Secret::MIN));
        return Ok((SigningKey::from_secret(&Secret::new(text).ok_or_else(too_short)?), args.kid.clone()));
    }
    if let Some(path) = &args.key_file {
        let flag = format!("--key-file {}", path.display());
        let bytes = std::fs::read(path).map_err(|error| usage(&flag, error.to_string()))?;
        let key = if bytes.starts_with(b"-----BEGIN ") {
            SigningKey::from_pem(&bytes)
        } else {
            read_secret(path).map(|secret| SigningKey::from_secret(&secret))
        };
        return Ok((key.map_err(|problem| usage(&flag, problem))?, args.kid.clone()));
    }
    let (secret, kid) = configured_secret(config, args.kid.as_deref())?;
    Ok((SigningKey::from_secret(&secret), kid))
}

/// The first secret, or the one of that kid.
fn configured_secret(config: &TokenConfig, kid: Option<&str>) -> Result<(Secret, Option<String>), Failure> {
    if let (Some(secret), None) = (&config.secret, kid) {
        return Ok((secret.clone(), None));
    }
    for key in config.keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid) {
        match &key.source {
            KeySource::Secret(secret) => return Ok((secret.clone(), key.kid.clone())),
            KeySource::SecretFile(path) => {
                let read =
                    read_secret(path).map_err(|problem| Failure::Usage(format!("{}: {problem}", path.display())));
                return Ok((read?, key.kid.clone()));
            }
            KeySource::PublicKeyFile(_) => {}
        }
    }
    if let Some(kid) = kid {
        let problem =
            format!("--kid {kid}: the configuration has no secret of that kid; --key-file has the private key");
        return Err(Failure::Usage(problem));
    }
    Err(Failure::Usage(
        "no key to sign with: --key-file FILE, or auth.token.secret in the configuration (`openssl rand -hex 32` makes \
         one)"
            .into(),
    ))
}

fn claims(args: MintArgs, config: &TokenConfig) -> Result<Map<String, Value>, Failure> {
    let user = args.user.unwrap_or_default();
    if !valid_name(&user) {
        return Err(Failure::Usage(format!("--user {user:?}: a name has 1 to 64 bytes and none of / + #")));
    }
    let mut rooms = BTreeMap::<String, Vec<String>>::new();
    for (room, rights) in args.room {
        rooms.entry(room).or_default().extend(rights);
    }
    let MintArgs { publish, subscribe, retain, role: roles, .. } = args;
    let grants = GrantClaims { rooms, publish, subscribe, retain, roles };
    if let [first, ..] = &*grants.problems() {
        return Err(Failure::Usage(first.clone()));
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let id = args.id.map_or_else(random_id, Ok)?;
    let mut claims = Map::new();
    claims.extend(args.claim.into_iter().map(|(name, text)| (name, text.into())));
    claims.extend(object(serde_json::to_value(&grants).unwrap_or_default()));
    claims.extend(object(json!({ "sub": user, "iat": now, "exp": now + args.ttl.as_secs(), "jti": id })));
    // What this configuration asks of tokens.
    claims.extend(config.issuer.first().map(|issuer| ("iss".into(), issuer.as_str().into())));
    claims.extend(config.audience.first().map(|audience| ("aud".into(), audience.as_str().into())));
    Ok(claims)
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

fn random_id() -> Result<String, Failure> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| no_randomness())?;
    Ok(format!("{:016x}", u64::from_be_bytes(random)))
}

fn room(text: &str) -> Result<(String, Vec<String>), String> {
    // The last colon: a room's name may have some.
    let (room, rights) = text.rsplit_once(':').ok_or("rights are missing: ROOM:RIGHT[,RIGHT]")?;
    Ok((room.into(), rights.split(',').map(|right| right.trim().into()).collect()))
}

fn claim(text: &str) -> Result<(String, String), String> {
    let own = ["sub", "exp", "nbf", "iat", "jti", "iss", "aud", "rooms", "publish", "subscribe", "retain", "roles"];
    match text.split_once('=') {
        Some((name, _)) if own.contains(&name) => Err(format!("{name} is not set like this")),
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("NAME=TEXT is expected".into()),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let wrong = || String::from("a duration like 90s, 15m, 1h or 30d, at most 3650d");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)?;
    let ttl = Duration::from_secs(seconds);
    if ttl.is_zero() || ttl > LONGEST { Err(wrong()) } else { Ok(ttl) }
}
