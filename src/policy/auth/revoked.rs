//! Who is let in no more, from a file and as told at run time.
//!
//! A name stands for all devices of that user, a name with a device for that one. A user who is in the file is kept out
//! for as long as it is; one who is revoked at run time loses everything that was issued until then, and may come back
//! with a newer token or, where passwords are checked, by logging in again.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    path::PathBuf,
    time::SystemTime,
};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Identity, token::MAX_ID};
use crate::policy::{base, valid_name};

/// How many users, and how many tokens, can be revoked at run time; what is revoked is never forgotten for another.
const CAPACITY: usize = 100_000;

/// Whom or what to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// By name.
    User(Box<str>),
    /// By `jti`.
    Token(Box<str>),
}

/// No more can be revoked at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CAPACITY} are revoked already; put lasting ones into the file of auth.revoked")
    }
}

impl std::error::Error for Full {}

/// What is wrong with the file.
#[derive(Debug)]
pub enum RevokedError {
    /// It cannot be read.
    Unreadable {
        /// As the configuration names it.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line that is none.
    Line {
        /// As the configuration names it.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
}

impl fmt::Display for RevokedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => write!(f, "auth.revoked: {}: {error}", path.display()),
            Self::Line { path, line } => {
                write!(
                    f,
                    "auth.revoked: {}:{line}: a line is \"user NAME\", \"token ID\" or a # comment",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for RevokedError {}

/// See the module.
pub struct Revocations {
    path: Option<PathBuf>,
    listed: RwLock<Listed>,
    told: RwLock<Told>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Listed {
    users: HashSet<Box<str>>,
    tokens: HashSet<Box<str>>,
}

#[derive(Default)]
struct Told {
    users: HashMap<Box<str>, SystemTime>,
    tokens: HashSet<Box<str>>,
}

impl Revocations {
    /// # Errors
    /// The file cannot be read, or has a line that is none.
    pub fn load(path: Option<PathBuf>) -> Result<Self, RevokedError> {
        let listed = Listed::read(path.as_ref())?;
        let (listed, told, changed) = (RwLock::new(listed), RwLock::default(), watch::Sender::new(()));
        Ok(Self { path, listed, told, changed })
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// As [`Revocations::load`]; what was listed before stays so.
    pub fn reload(&self) -> Result<(), RevokedError> {
        *self.listed.write() = Listed::read(self.path.as_ref())?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Revokes until the process ends.
    ///
    /// # Errors
    /// [`Full`]
    pub fn revoke(&self, what: Revocation, now: SystemTime) -> Result<(), Full> {
        let mut told = self.told.write();
        let has_room = match &what {
            Revocation::User(name) => told.users.contains_key(name) || told.users.len() < CAPACITY,
            Revocation::Token(id) => told.tokens.contains(id) || told.tokens.len() < CAPACITY,
        };
        if !has_room {
            return Err(Full);
        }
        match what {
            Revocation::User(name) => drop(told.users.insert(name, now)),
            Revocation::Token(id) => drop(told.tokens.insert(id)),
        }
        drop(told);
        self.changed.send_replace(());
        Ok(())
    }

    /// Whether this identity is good no more.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        let id = identity.token_id.as_deref();
        let listed = self.listed.read();
        let names = [&*identity.user, identity.base()];
        if names.iter().any(|name| listed.users.contains(*name)) || id.is_some_and(|id| listed.tokens.contains(id)) {
            return true;
        }
        drop(listed);
        let told = self.told.read();
        let outdated = |name: &&str| told.users.get(*name).is_some_and(|since| identity.issued_at <= *since);
        names.iter().any(outdated) || id.is_some_and(|id| told.tokens.contains(id))
    }

    /// Whether whoever has gone by that name since then is good no more, as far as the name tells.
    pub fn is_user_revoked(&self, user: &str, since: SystemTime) -> bool {
        let names = [user, base(user)];
        let listed = self.listed.read();
        if names.iter().any(|name| listed.users.contains(*name)) {
            return true;
        }
        drop(listed);
        let told = self.told.read();
        names.iter().any(|name| told.users.get(*name).is_some_and(|revoked| since <= *revoked))
    }

    /// Tells of each change, after which live connections are to be looked at again.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The file, if there is one.
    pub fn file(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }
}

impl Listed {
    fn read(path: Option<&PathBuf>) -> Result<Self, RevokedError> {
        let mut listed = Self::default();
        let Some(path) = path else { return Ok(listed) };
        let text = fs::read_to_string(path).map_err(|error| RevokedError::Unreadable { path: path.clone(), error })?;
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(' ').map(|(kind, rest)| (kind, rest.trim_start())) {
                Some(("user", name)) if valid_name(name) => drop(listed.users.insert(name.into())),
                Some(("token", id)) if id.len() <= MAX_ID => drop(listed.tokens.insert(id.into())),
                _ => return Err(RevokedError::Line { path: path.clone(), line: n + 1 }),
            }
        }
        Ok(listed)
    }
}
