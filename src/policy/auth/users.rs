//! Users in a file, with Argon2 hashes of their passwords.
//!
//! Whether a user exists does not show in how long the answer takes: for one who does not, a hash that costs as much
//! as the dearest in the file is checked all the same. (`wigwag user hash` makes all alike.)

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use parking_lot::RwLock;
use serde::Deserialize;

use super::{
    BUSY, Credentials, Identity, REFUSED,
    offload::{Busy, Offload},
};
use crate::{
    config::UsersConfig,
    policy::{
        Refusal,
        grants::{GrantClaims, Grants},
        identity, valid_name,
    },
};

/// What is wrong with the file.
#[derive(Debug)]
pub struct UsersError {
    path: PathBuf,
    /// Counted from 1; none when the file as a whole, or a user by name, is meant.
    line: Option<usize>,
    problem: String,
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "auth.users.file: {}", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for UsersError {}

/// See the module.
pub struct Users {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    offload: Offload,
}

struct Table {
    users: HashMap<String, User>,
    /// Checked in place of the hash of a user who does not exist.
    decoy: Arc<str>,
}

struct User {
    hash: Arc<str>,
    grants: Arc<Grants>,
}

/// No password has this hash, made with the parameters that [`hash_password`] uses.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

impl Users {
    /// # Errors
    /// The file cannot be read, or something in it cannot be used.
    pub fn load(config: &UsersConfig) -> Result<Self, UsersError> {
        let path = config.file.clone().unwrap_or_default();
        let table = RwLock::new(Arc::new(Table::read(&path)?));
        Ok(Self { path, table, offload: Offload::new(config.concurrency, config.queue) })
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// As [`Users::load`]; the users stay as they were.
    pub fn reload(&self) -> Result<(), UsersError> {
        *self.table.write() = Arc::new(Table::read(&self.path)?);
        Ok(())
    }

    /// The file.
    pub fn file(&self) -> &PathBuf {
        &self.path
    }

    /// `None` if there is no such user.
    pub async fn authenticate(&self, shown: &Credentials<'_>, now: SystemTime) -> Option<Result<Identity, Refusal>> {
        let name = shown.user_name?;
        let table = Arc::clone(&self.table.read());
        let user = table.find(name);
        let hash = Arc::clone(user.map_or(&table.decoy, |user| &user.hash));
        let password: Box<[u8]> = shown.password.unwrap_or_default().into();
        let fits = self.offload.run(move || fits(&password, &hash)).await;
        let grants = |user: &User| Arc::clone(&user.grants);
        match (user, fits) {
            (_, Err(Busy)) => Some(Err(BUSY)),
            (Some(user), Ok(true)) => Some(Ok(Identity::new(name, grants(user), now))),
            (Some(_), Ok(false)) => Some(Err(REFUSED)),
            (None, Ok(_)) => None,
        }
    }
}

impl Table {
    /// The user of this name, or whose device it is.
    fn find(&self, name: &str) -> Option<&User> {
        let owner = || {
            let owner = identity::base(name);
            self.users.get(owner).filter(|_| identity::may_go_by(owner, name))
        };
        self.users.get(name).or_else(owner)
    }

    fn read(path: &PathBuf) -> Result<Self, UsersError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            #[serde(default)]
            users: BTreeMap<String, Entry>,
        }
        let wrong = |line, problem| UsersError { path: path.clone(), line, problem };
        let text = fs::read_to_string(path).map_err(|error| wrong(None, error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            wrong(before.map(|before| before.matches('\n').count() + 1), error.message().to_owned())
        })?;
        let mut users = HashMap::with_capacity(file.users.len());
        let mut dearest: (u64, Arc<str>) = (0, DECOY.into());
        for (name, entry) in file.users {
            let (cost, user) =
                entry.check(&name).map_err(|problem| wrong(None, format!("[users.{name:?}]: {problem}")))?;
            if cost > dearest.0 {
                dearest = (cost, Arc::clone(&user.hash));
            }
            users.insert(name, user);
        }
        Ok(Self { users, decoy: dearest.1 })
    }
}

/// A user as the file has it: a password's hash, and grants as in a token. Not a flattened [`GrantClaims`], with which
/// a misspelt key would pass.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    password: String,
    #[serde(default)]
    rooms: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    retain: Vec<String>,
    #[serde(default)]
    roles: Vec<String>,
}

impl Entry {
    /// The user, and what it costs to check the password (memory times passes).
    fn check(self, name: &str) -> Result<(u64, User), String> {
        if !valid_name(name) {
            return Err("a user name has 1 to 64 bytes and none of / + # or control characters".into());
        }
        let cost = cost(&self.password).ok_or("password: not an Argon2 hash; `wigwag user hash` makes one")?;
        let Self { password, rooms, publish, subscribe, retain, roles } = self;
        let claims = GrantClaims { rooms, publish, subscribe, retain, roles };
        match claims.problems().first() {
            Some(problem) => Err(problem.clone()),
            None => Ok((cost, User { hash: password.into(), grants: Arc::new(Grants::from_claims(&claims)) })),
        }
    }
}

fn cost(hash: &str) -> Option<u64> {
    let hash = PasswordHash::new(hash).ok().filter(|hash| hash.hash.is_some() && hash.salt.is_some())?;
    hash.algorithm.as_str().starts_with("argon2").then_some(())?;
    let params = Params::try_from(&hash).ok()?;
    Some(u64::from(params.m_cost()) * u64::from(params.t_cost()))
}

/// Takes tens of milliseconds.
fn fits(password: &[u8], hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

/// A hash for the file, with a salt of its own (Argon2id, 19 MiB, two passes). Takes tens of milliseconds.
///
/// `None` if the system has no randomness to give.
pub fn hash_password(password: &[u8]) -> Option<String> {
    Argon2::default().hash_password(password).ok().map(|hash| hash.to_string())
}
