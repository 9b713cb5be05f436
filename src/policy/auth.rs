//! Who a connection is.
//!
//! The methods of `auth.methods` are asked in order. The first that knows this *kind* of credentials decides, for good
//! or bad: a token that has expired is not tried as a password. What no method knows is refused. An address that keeps
//! failing is made to wait, and whoever was revoked is refused whatever was shown.
//!
//! Nothing here says, to a client or to a log, what was shown; nor, before it was found good, in what respect it was
//! bad. What takes long (Argon2, HTTP) is done off the workers, bounded.

mod breaker;
mod http;
pub mod keys;
mod offload;
mod penalty;
mod revoked;
pub mod token;
mod users;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

pub use self::revoked::{Full, Revocation, Revocations, RevokedError};
pub use self::users::{UsersError, hash_password};
pub use super::{
    Refusal,
    grants::{GrantClaims, Grants, RoomRights},
    identity::{Credentials, Expiry, Identity, valid_name},
};

use self::{http::Service, keys::KeyError, penalty::Penalties, token::Tokens, users::Users};
use super::identity;
use crate::{
    config::{AuthConfig, AuthMethod},
    wire::mqtt::ReasonCode,
};

/// For a name that does not exist as for a password that does not fit.
const REFUSED: Refusal = Refusal {
    reason: ReasonCode::BAD_USER_NAME_OR_PASSWORD,
    what: "the user name and password, or the token, are not known here",
};
const REVOKED: Refusal = Refusal { reason: ReasonCode::BAD_USER_NAME_OR_PASSWORD, what: "this login was revoked" };
const BUSY: Refusal =
    Refusal { reason: ReasonCode::SERVER_BUSY, what: "too many logins at the moment; try again later" };

/// Why an [`Authenticator`] cannot be made, or goes on with what it had.
#[derive(Debug)]
pub enum AuthError {
    /// A key of tokens.
    Key(KeyError),
    /// The file of users.
    Users(UsersError),
    /// The file of who was revoked.
    Revoked(RevokedError),
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(error) => write!(f, "{error}"),
            Self::Users(error) => write!(f, "{error}"),
            Self::Revoked(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for AuthError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Key(error) => Some(error),
            Self::Users(error) => Some(error),
            Self::Revoked(error) => Some(error),
        }
    }
}

/// See the module.
pub struct Authenticator {
    methods: Vec<Method>,
    penalties: Option<Penalties>,
    revocations: Revocations,
}

enum Method {
    Open,
    Token(Tokens),
    Users(Users),
    Http(Service),
}

impl Authenticator {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(config: &AuthConfig) -> Result<Self, AuthError> {
        let method = |method: &AuthMethod| match method {
            AuthMethod::Open => Ok(Method::Open),
            AuthMethod::Token => Tokens::load(&config.token).map(Method::Token).map_err(AuthError::Key),
            AuthMethod::Users => Users::load(&config.users).map(Method::Users).map_err(AuthError::Users),
            AuthMethod::Http => Ok(Method::Http(Service::new(&config.http))),
        };
        Ok(Self {
            methods: config.methods.iter().map(method).collect::<Result<_, _>>()?,
            penalties: config.failures.map(|failures| Penalties::new(failures, config.failure_wait)),
            revocations: Revocations::load(config.revoked.clone()).map_err(AuthError::Revoked)?,
        })
    }

    /// Whether some method believes every name.
    pub fn is_open(&self) -> bool {
        self.methods.iter().any(|method| matches!(method, Method::Open))
    }

    /// Who shows these credentials from that address.
    ///
    /// # Errors
    /// For CONNACK: 0x86 if they are wrong, 0x87 if they are good for another name, 0x8A if the address has to wait,
    /// 0x88 and 0x89 if it cannot be told at the moment.
    pub async fn authenticate(&self, credentials: Credentials<'_>, remote: IpAddr) -> Result<Identity, Refusal> {
        self.admit(remote)?;
        let shown = self.ask_methods(&credentials, remote).await.unwrap_or(Err(REFUSED));
        self.conclude(shown, remote)
    }

    /// Who shows this token alone, as in an HTTP `Authorization: Bearer`.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`]; where there are no tokens, none is good.
    pub fn bearer(&self, token: &str, remote: IpAddr) -> Result<Identity, Refusal> {
        self.admit(remote)?;
        let identify = |tokens: &Tokens| tokens.identify(token.as_bytes(), None, SystemTime::now());
        let shown = self.tokens().map(identify).map_or(Err(REFUSED), |shown| shown.map_err(|error| error.refusal()));
        self.conclude(shown, remote)
    }

    /// Who shows a new token for the user that the connection is.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`].
    pub fn refresh(&self, token: &[u8], user: &str, remote: Option<IpAddr>) -> Result<Identity, Refusal> {
        // Not kept waiting for its neighbours' failures: one that fails here ends the connection, and counts.
        let identify = |tokens: &Tokens| tokens.identify(token, Some(user), SystemTime::now());
        let shown = self.tokens().map(identify).map_or(Err(REFUSED), |shown| shown.map_err(|error| error.refusal()));
        match remote {
            Some(remote) => self.conclude(shown, remote),
            None => shown,
        }
    }

    fn admit(&self, remote: IpAddr) -> Result<(), Refusal> {
        self.penalties.as_ref().map_or(Ok(()), |penalties| penalties.check(remote, Instant::now()))
    }

    /// `None`: no method knows such credentials.
    async fn ask_methods(&self, shown: &Credentials<'_>, remote: IpAddr) -> Option<Result<Identity, Refusal>> {
        let now = SystemTime::now();
        for method in &self.methods {
            let decided = match method {
                Method::Open => Some(identity::open(shown, now)),
                Method::Token(tokens) => by_token(tokens, shown, now),
                Method::Users(users) => users.authenticate(shown, now).await,
                Method::Http(service) => service.authenticate(shown, remote, now).await,
            };
            if decided.is_some() {
                return decided;
            }
        }
        None
    }

    fn conclude(&self, shown: Result<Identity, Refusal>, remote: IpAddr) -> Result<Identity, Refusal> {
        let decided = shown.and_then(|identity| if self.is_revoked(&identity) { Err(REVOKED) } else { Ok(identity) });
        let wrong = |refusal: &Refusal| {
            matches!(refusal.reason, ReasonCode::BAD_USER_NAME_OR_PASSWORD | ReasonCode::NOT_AUTHORIZED)
        };
        if let (Err(refusal), Some(penalties)) = (&decided, &self.penalties)
            && wrong(refusal)
        {
            penalties.failed(remote, Instant::now());
        }
        decided
    }

    /// What tokens are checked against, if there are any.
    pub fn tokens(&self) -> Option<&Tokens> {
        self.methods.iter().find_map(|method| if let Method::Token(tokens) = method { Some(tokens) } else { None })
    }

    /// Who was revoked, and the way to revoke.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// Whether somebody who was let in should be no longer. It costs two look-ups.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.revocations.is_revoked(identity)
    }

    /// Reads all files again: keys, users, revocations. Blocks while it reads.
    ///
    /// # Errors
    /// The first file that cannot be used. What it had before stays in effect; the others are replaced all the same.
    pub fn reload(&self) -> Result<(), AuthError> {
        let reload = |method: &Method| match method {
            Method::Token(tokens) => tokens.reload().map_err(AuthError::Key),
            Method::Users(users) => users.reload().map_err(AuthError::Users),
            Method::Open | Method::Http(_) => Ok(()),
        };
        let methods = self.methods.iter().map(reload).fold(Ok(()), Result::and);
        methods.and(self.revocations.reload().map_err(AuthError::Revoked))
    }

    fn files(&self) -> Vec<PathBuf> {
        let of_method = |method: &Method| match method {
            Method::Token(tokens) => tokens.files(),
            Method::Users(users) => vec![users.file().clone()],
            Method::Open | Method::Http(_) => Vec::new(),
        };
        self.methods.iter().flat_map(of_method).chain(self.revocations.file().cloned()).collect()
    }

    /// Looks at the files every `interval` and reads them when one has changed; runs until it is dropped.
    pub async fn watch(self: Arc<Self>, interval: Duration) {
        let files = self.files();
        if files.is_empty() {
            return;
        }
        let mut seen = state(&files);
        loop {
            tokio::time::sleep(interval).await;
            let now = state(&files);
            if now == seen {
                continue;
            }
            // A file that is only half written will change once more.
            seen = now;
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(())) => tracing::info!("keys, users and revocations read again"),
                Ok(Err(error)) => tracing::error!(%error, "not read again; the old one stays in effect"),
                Err(_) => return, // the runtime is going down
            }
        }
    }
}

/// `None`: it is no token.
fn by_token(tokens: &Tokens, shown: &Credentials<'_>, now: SystemTime) -> Option<Result<Identity, Refusal>> {
    let password = shown.password.filter(|password| token::looks_like_one(password))?;
    Some(tokens.identify(password, shown.user_name, now).map_err(|error| error.refusal()))
}

/// What tells that a file was changed.
fn state(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let of_one = |path: &Path| {
        let data = std::fs::metadata(path).ok()?;
        Some((data.modified().ok()?, data.len()))
    };
    files.iter().map(|path| of_one(path)).collect()
}
