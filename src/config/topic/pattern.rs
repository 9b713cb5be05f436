//! The filter of a `[[topic]]` row: an MQTT topic filter with placeholders.

use std::fmt;

use crate::config::value::{Kind, Raw, Rejected};
use crate::wire::mqtt::topic;

/// A topic filter in which a level may also be `{room}`, `{user}`, `{client}` or `{claim:NAME}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    levels: Box<[Level]>,
}

/// One level of a [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// This text.
    Literal(Box<str>),
    /// `{room}`: any one level, which names a room.
    Room,
    /// `{user}`: any one level, which names a user.
    User,
    /// `{client}`: the client id of whoever publishes or subscribes.
    Client,
    /// `{claim:NAME}`: that claim of the token of whoever publishes or subscribes.
    Claim(Box<str>),
    /// `+`: any one level.
    One,
    /// `#`: any levels that follow, or none.
    Rest,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The level that is wrong, or the whole.
    pub found: String,
    /// What could stand there.
    pub allowed: &'static str,
}

const FILTER: &str = "a topic filter: not empty, + and # as whole levels, # only as the last";
const PLACEHOLDER: &str = "{room}, {user}, {client} or {claim:NAME} as a whole level";
const ONCE: &str = "{room} and {user} at most once in a filter";
const SHORT: &str = "a topic filter of at most 16 levels";

impl Pattern {
    /// Levels of the longest pattern.
    pub const MAX_LEVELS: usize = 16;

    /// Reads a filter.
    ///
    /// # Errors
    /// It is no topic filter, has more than [`MAX_LEVELS`](Self::MAX_LEVELS), an unknown placeholder or one twice.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |found: &str, allowed| PatternError { found: found.into(), allowed };
        if !topic::valid_filter(text) {
            return Err(error(text, FILTER));
        }
        let levels = text.split('/').map(|level| Level::parse(level).ok_or_else(|| error(level, PLACEHOLDER)));
        let pattern = Self { levels: levels.collect::<Result<_, _>>()? };
        let twice = |placeholder| pattern.levels.iter().filter(|level| **level == placeholder).count() > 1;
        match () {
            () if twice(Level::Room) || twice(Level::User) => Err(error(text, ONCE)),
            () if pattern.levels.len() > Self::MAX_LEVELS => Err(error(text, SHORT)),
            () => Ok(pattern),
        }
    }

    /// From the first to the last.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Whether it has `{room}`.
    pub fn has_room(&self) -> bool {
        self.levels.contains(&Level::Room)
    }

    /// Whether it has `{user}`.
    pub fn has_user(&self) -> bool {
        self.levels.contains(&Level::User)
    }

    /// Whether it matches different topics for different connections.
    pub fn is_bound(&self) -> bool {
        self.levels.iter().any(|level| matches!(level, Level::Client | Level::Claim(_)))
    }

    /// Whether it begins with a wildcard or a placeholder, none of which stands for a level that begins with `$`
    /// ([MQTT-4.7.2-1]).
    pub fn is_shy(&self) -> bool {
        !matches!(self.levels.first(), Some(Level::Literal(_)))
    }

    /// Whether it matches every topic that `inner` matches, for every connection.
    pub fn covers(&self, inner: &Self) -> bool {
        if self.is_shy() && inner.levels.first().is_some_and(Level::is_reserved) {
            return false;
        }
        // A name has one level at least: `#` is `+/#`.
        let spelt_out: &[Level] =
            if *inner.levels == [Level::Rest] { &[Level::One, Level::Rest] } else { &inner.levels };
        let mut levels = spelt_out.iter();
        for ours in &self.levels {
            if *ours == Level::Rest {
                return true;
            }
            match levels.next() {
                Some(theirs) if ours.covers(theirs) => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl Level {
    fn parse(level: &str) -> Option<Self> {
        let placeholder = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        Some(match (level, placeholder) {
            ("+", _) => Self::One,
            ("#", _) => Self::Rest,
            (_, Some("room")) => Self::Room,
            (_, Some("user")) => Self::User,
            (_, Some("client")) => Self::Client,
            (_, Some(other)) => Self::Claim(other.strip_prefix("claim:").filter(|name| plain(name))?.into()),
            (_, None) if level.contains(['{', '}']) => return None,
            (_, None) => Self::Literal(level.into()),
        })
    }

    /// For single levels; `#` is the caller's business.
    fn covers(&self, inner: &Self) -> bool {
        match (self, inner) {
            (_, Self::Rest) => false,
            (Self::One | Self::Room | Self::User, _) => true,
            (ours, theirs) => ours == theirs,
        }
    }

    fn is_reserved(&self) -> bool {
        matches!(self, Self::Literal(text) if text.starts_with('$'))
    }
}

/// A claim's name: not empty and no braces in it, which are a mistake in every other place too.
fn plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['{', '}'])
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, level) in self.levels.iter().enumerate() {
            let slash = if n == 0 { "" } else { "/" };
            write!(f, "{slash}{level}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Room => f.write_str("{room}"),
            Self::User => f.write_str("{user}"),
            Self::Client => f.write_str("{client}"),
            Self::Claim(name) => write!(f, "{{claim:{name}}}"),
            Self::One => f.write_str("+"),
            Self::Rest => f.write_str("#"),
        }
    }
}

/// How a pattern is read from a configuration.
pub(super) struct PatternText;

impl Kind for PatternText {
    type Value = Pattern;

    fn allowed(&self) -> String {
        FILTER.into()
    }

    fn parse(&self, raw: &Raw) -> Result<Pattern, Vec<Rejected>> {
        let text = raw.text().ok_or_else(|| raw.reject(self.allowed()))?;
        Pattern::parse(text).map_err(|PatternError { found, allowed }| {
            vec![Rejected { origin: raw.origin.clone(), found: format!("{found:?}"), allowed: allowed.into() }]
        })
    }

    fn show(&self, value: &Pattern) -> String {
        crate::config::value::quote(&value.to_string())
    }
}
