//! Who a connection is.

use super::Refusal;
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
    /// The user name: one topic level.
    pub user: Box<str>,
}

impl Identity {
    /// The server itself, or the application that it is part of.
    pub(crate) fn local(name: &str) -> Self {
        Self { user: name.into() }
    }
}

/// The longest user or room name, in bytes.
pub const NAME_MAX: usize = 64;

/// Whether `name` can name a user or a room: 1 to 64 bytes, one topic level, no wildcard, no control character.
pub fn valid_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && !name.chars().any(|c| matches!(c, '/' | '+' | '#') || c.is_control())
}

/// Open mode: the user name is believed; without one, the client id is the name, and where that is no name, one is
/// made from it.
pub(super) fn open(credentials: &Credentials<'_>) -> Result<Identity, Refusal> {
    match credentials.user_name {
        Some(name) if valid_name(name) => Ok(Identity { user: name.into() }),
        Some(_) => Err(Refusal {
            reason: ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            what: "a user name has 1 to 64 bytes and none of / + # or control characters",
        }),
        None if valid_name(credentials.client_id) => Ok(Identity { user: credentials.client_id.into() }),
        None => Ok(Identity { user: assigned(credentials.client_id).into() }),
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
        open(&Credentials { client_id, user_name, password: None })
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
    fn what_is_no_topic_level_is_no_name() {
        for bad in ["", "a/b", "+", "#", "a#", "tab\u{1}", "nul\0", "line\nbreak", &"x".repeat(65), "\u{85}"] {
            assert_eq!(user("id", Some(bad)), Err(ReasonCode::BAD_USER_NAME_OR_PASSWORD), "{bad:?}");
        }
        for good in ["a", "alice~phone", "Ünï", "日本", "with space", &"x".repeat(64)] {
            assert!(valid_name(good), "{good:?}");
        }
    }
}
