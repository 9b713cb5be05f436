//! The check of JSON payloads: structure, not meaning.
//!
//! What passes, every JSON parser reads alike as far as the sender's name goes. So all of the following holds for it:
//!
//! - It is UTF-8 without a byte order mark, and one JSON object by the whole grammar of RFC 8259, numbers, literals
//!   and escapes included; around the object there is white space or nothing. A parser that forgives comments,
//!   trailing commas, a second document or raw control characters finds nothing to forgive.
//! - At most [`DEPTH_MAX`] brackets are open at once, the object's own included.
//! - A *tag* is a member of the object itself, not of one inside it, whose key is `username` or `from`, however
//!   escaped. Each of the two is there at most once, since of two equal keys some parsers take the first, others the
//!   last. Tags are strings, and all of them name the same.
//! - So does a member whose key differs from a tag's by case alone (which, in Unicode, is how `ſ` differs from `s`):
//!   encoding/json, cJSON and Json.NET match keys so. It is no tag for those who ask for one: JavaScript does not see
//!   it.
//! - No key of the object itself contains U+0000 or half a surrogate pair, where some parsers cut a key short; no tag
//!   contains the latter.
//!
//! Not judged is what the values are. Numbers may be beyond any float, other keys may come twice, and strings that are
//! no tags may contain the escapes of halves of surrogate pairs, which JavaScript both writes and reads.
//!
//! The check allocates nothing, does not recurse, and takes time in proportion to the length of the payload.

mod text;
mod walk;

#[cfg(test)]
mod tests;

use crate::{policy::Refusal, wire::mqtt::ReasonCode};

pub use crate::config::PayloadKind as Kind;
use text::Text;

/// How many brackets may be open at once.
pub const DEPTH_MAX: u32 = 64;

/// Why a payload was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadError {
    NotUtf8,
    /// Empty, or it begins like something else.
    NotAnObject,
    /// Begins as an object and is no JSON, or goes on after its end.
    Malformed,
    /// More than [`DEPTH_MAX`] open brackets.
    TooDeep,
    /// A key of the object itself that parsers may cut short.
    AmbiguousKey,
    /// A tag that is no string, or one with half a surrogate pair.
    TagNotText,
    /// The same tag a second time.
    TagTwice,
    /// Tags that name different senders.
    TagsDiffer,
    /// No tag where one is required.
    TagMissing,
    /// All is well, but for the name, which is not the sender's.
    Spoofed,
}

impl PayloadError {
    /// The code for a 5.0 client: 0x87 for a spoofed name, 0x99 for everything else.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::Spoofed => ReasonCode::NOT_AUTHORIZED,
            _ => ReasonCode::PAYLOAD_FORMAT_INVALID,
        }
    }

    /// One line for a human.
    pub const fn what(self) -> &'static str {
        match self {
            Self::NotUtf8 => "the payload is not UTF-8, and this topic asks for a JSON object",
            Self::NotAnObject => "this topic asks for a JSON object",
            Self::Malformed => "the payload is not valid JSON, or more than one object",
            Self::TooDeep => "JSON nested more than 64 deep",
            Self::AmbiguousKey => "a key with U+0000 or half a surrogate pair",
            Self::TagNotText => "the name tag (username or from) is not a proper string",
            Self::TagTwice => "the same name tag (username or from) twice",
            Self::TagsDiffer => "name tags (username, from) that differ",
            Self::TagMissing => "this topic asks for your user name in a member username (or from)",
            Self::Spoofed => "the name tag (username or from) is not your user name",
        }
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Self {
        Self { reason: error.reason(), what: error.what() }
    }
}

/// Judges a payload that `sender` publishes; without a sender, tags may name anybody.
///
/// # Errors
/// If several things are wrong, [`PayloadError::NotUtf8`] goes first, [`PayloadError::Spoofed`] last, and the others in
/// the order of the payload.
pub fn check(payload: &[u8], kind: Kind, sender: Option<&str>) -> Result<(), PayloadError> {
    if kind == Kind::Any {
        return Ok(());
    }
    let tags = walk::walk(payload)?;
    if kind == Kind::Signal && !(tags.username || tags.from) {
        return Err(PayloadError::TagMissing);
    }
    match (tags.name, sender) {
        (Some(name), Some(sender)) if !name.is(sender) => Err(PayloadError::Spoofed),
        _ => Ok(()),
    }
}

/// The tags met so far.
#[derive(Debug, Default)]
struct Tags<'p> {
    /// What they say.
    name: Option<Text<'p>>,
    username: bool,
    from: bool,
}

impl<'p> Tags<'p> {
    fn add(&mut self, key: Key, name: Text<'p>) -> Result<(), PayloadError> {
        let again = match key {
            Key::Username => std::mem::replace(&mut self.username, true),
            Key::From => std::mem::replace(&mut self.from, true),
            Key::Alike | Key::Other => false,
        };
        if again {
            return Err(PayloadError::TagTwice);
        }
        if !name.is_unicode() {
            return Err(PayloadError::TagNotText);
        }
        match self.name.replace(name) {
            Some(other) if !other.same(name) => Err(PayloadError::TagsDiffer),
            _ => Ok(()),
        }
    }
}

/// A key of the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Username,
    From,
    /// A tag's, but for the case of its letters.
    Alike,
    Other,
}

impl Key {
    fn of(text: Text<'_>) -> Result<Self, PayloadError> {
        match text.raw() {
            b"username" => return Ok(Self::Username),
            b"from" => return Ok(Self::From),
            other if other.eq_ignore_ascii_case(b"username") || other.eq_ignore_ascii_case(b"from") => {
                return Ok(Self::Alike);
            }
            _ if text.is_plain() => return Ok(Self::Other),
            _ => {}
        }
        if text.chars().any(|char| matches!(char, None | Some('\0'))) {
            return Err(PayloadError::AmbiguousKey);
        }
        let folded = || text.chars().flatten().map(|char| if char == 'ſ' { 's' } else { char.to_ascii_lowercase() });
        Ok(if text.is("username") {
            Self::Username
        } else if text.is("from") {
            Self::From
        } else if folded().eq("username".chars()) || folded().eq("from".chars()) {
            Self::Alike
        } else {
            Self::Other
        })
    }
}
