//! Who a connection is.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use super::Refusal;
use super::grants::Grants;
use crate::wire::mqtt::ReasonCode;

/// What a client shows at CONNECT.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// Never empty: assigned by the server if the client sent none.
    pub client_id: &'a str,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
}

/// Who a connection is, for as long as it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user name: one topic level; `alice`, or `alice~phone` for a device of hers.
    pub user: Box<str>,
    /// What it may do beyond what everybody may.
    pub grants: Arc<Grants>,
    /// When it ends; `None`: with the connection.
    pub expiry: Option<Expiry>,
    /// Since when it has been known: when its token was issued, or its password was checked. A token that does not say
    /// is older than everything.
    pub issued_at: SystemTime,
    /// The `jti` of its token.
    pub token_id: Option<Box<str>>,
    /// What else its token says, for the placeholders of the topic table: see [`Identity::claim`].
    pub claims: Box<[(Box<str>, Box<str>)]>,
    /// Whether the name tags in its payloads are checked: always, but for who gave no name in open mode.
    pub tagged: bool,
    /// Whether the name was believed: in open mode.
    pub believed: bool,
}

/// The end of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// As the token has it, in seconds since 1970.
    pub exp: u64,
    /// When it is acted upon: later by the leeway.
    pub at: SystemTime,
}

impl Identity {
    /// The application that the server is part of.
    pub(crate) fn local(name: &str, grants: Grants) -> Self {
        Self::new(name, Arc::new(grants), SystemTime::now())
    }

    /// Somebody whose name and grants are known and who has no token.
    pub(super) fn new(user: &str, grants: Arc<Grants>, now: SystemTime) -> Self {
        Self {
            user: user.into(),
            grants,
            expiry: None,
            issued_at: now,
            token_id: None,
            claims: Box::default(),
            tagged: true,
            believed: false,
        }
    }

    /// The user whose device this is: bans, revocation and limits count the part before `~`.
    pub fn base(&self) -> &str {
        base(&self.user)
    }

    /// A top-level claim of the token, if it is text or a whole number that can be one topic level.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

/// The part of a user name before `~`; all of it if there is nothing before.
pub fn base(user: &str) -> &str {
    match user.split_once('~') {
        Some((base, _)) if !base.is_empty() => base,
        _ => user,
    }
}

/// Whether somebody known as `owner` may go by `name`: exactly that, or that with a device. Who is known as a device
/// goes by that alone.
pub(super) fn may_go_by(owner: &str, name: &str) -> bool {
    let device = || name.strip_prefix(owner)?.strip_prefix('~');
    name == owner || !owner.contains('~') && device().is_some_and(|device| !device.is_empty()) && valid_name(name)
}

/// The longest user or room name, in bytes.
pub const NAME_MAX: usize = 64;

/// Whether `name` can name a user or a room: 1 to 64 bytes, one topic level, no wildcard, no control character.
pub fn valid_name(name: &str) -> bool {
    // Nearly all are ASCII, for which bytes will do, many at once.
    let printable = |byte| matches!(byte, b' '..=b'~') & !matches!(byte, b'/' | b'+' | b'#');
    (1..=NAME_MAX).contains(&name.len())
        && (name.bytes().fold(true, |all, byte| all & printable(byte))
            || !name.chars().any(|c| matches!(c, '/' | '+' | '#') || c.is_control()))
}

/// Open mode: the user name is believed; without one, the client id is the name, and where that is no name, one is
/// made from it.
pub(super) fn open(credentials: &Credentials<'_>, now: SystemTime) -> Result<Identity, Refusal> {
    static GRANTS: LazyLock<Arc<Grants>> = LazyLock::new(|| Arc::new(Grants::open()));
    let identity = |name: &str| Identity { believed: true, ..Identity::new(name, Arc::clone(&GRANTS), now) };
    let untagged = |name: &str| Identity { tagged: false, ..identity(name) };
    match credentials.user_name {
        Some(name) if valid_name(name) => Ok(identity(name)),
        Some(_) => Err(Refusal {
            reason: ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            what: "a user name has 1 to 64 bytes and none of / + # or control characters",
        }),
        None if valid_name(credentials.client_id) => Ok(untagged(credentials.client_id)),
        None => Ok(untagged(&assigned(credentials.client_id))),
    }
}

/// A valid name for a client id that is none, the same each time.
fn assigned(client_id: &str) -> String {
    use sha1::{Digest, Sha1};
    let digest = Sha1::digest(client_id.as_bytes());
    digest.iter().take(8).fold(String::from("anonymous-"), |name, byte| name + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(client_id: &str, user_name: Option<&str>) -> Result<String, ReasonCode> {
        open(&Credentials { client_id, user_name, password: None }, SystemTime::UNIX_EPOCH)
            .map(|identity| identity.user.into())
            .map_err(|refusal| refusal.reason)
    }

    #[test]
    fn the_user_name_is_believed_and_the_client_id_stands_in_for_it() {
        assert_eq!(user("tab-1", Some("alice")), Ok("alice".into()));
        assert_eq!(user("tab-1", None), Ok("tab-1".into()));
        let assigned = user("a/b", None).unwrap();
        assert!(valid_name(&assigned) && assigned.starts_with("anonymous-"), "{assigned}");
        assert_eq!(user("a/b", None).unwrap(), assigned, "the same client id keeps its name");
    }

    #[test]
    fn only_who_gave_a_name_has_its_tags_checked() {
        let tagged = |user_name| {
            let credentials = Credentials { client_id: "tab", user_name, password: None };
            open(&credentials, SystemTime::UNIX_EPOCH).unwrap().tagged
        };
        assert!(tagged(Some("alice")));
        assert!(!tagged(None));
    }

    #[test]
    fn a_device_is_its_owners() {
        for (user, owner) in [("alice", "alice"), ("alice~phone", "alice"), ("a~b~c", "a"), ("~x", "~x"), ("a~", "a")] {
            assert_eq!(base(user), owner);
        }
        for name in ["alice", "alice~phone", "alice~a~b"] {
            assert!(may_go_by("alice", name), "{name}");
        }
        let long = format!("alice~{}", "x".repeat(64));
        for name in ["alic", "alice~", "alicephone", "bob", "Alice", "alice~a/b", "alice~+", "", &long] {
            assert!(!may_go_by("alice", name), "{name}");
        }
        assert!(may_go_by("alice~phone", "alice~phone"));
        assert!(!may_go_by("alice~phone", "alice") && !may_go_by("alice~phone", "alice~phone~2"));
    }

    #[test]
    fn what_is_no_topic_level_is_no_name() {
        for bad in ["", "a/b", "+", "#", "a#", "tab\u{1}", "nul\0", "line\nbreak", &"x".repeat(65), "\u{85}"] {
            assert_eq!(user("id", Some(bad)), Err(ReasonCode::BAD_USER_NAME_OR_PASSWORD), "{bad:?}");
        }
        for good in ["a", "alice~phone", "Ünï", "日本", "with space", &"x".repeat(64)] {
            assert!(valid_name(good), "{good:?}");
        }
    }
}
