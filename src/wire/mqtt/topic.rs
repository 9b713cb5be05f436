//! Topic names and filters (4.7): what is valid, what matches what.
//!
//! Every function takes its levels as they are written: a level may be empty (`a//b` has three), nothing is trimmed
//! or folded, and bytes are compared as bytes ([MQTT-4.7.3-4]). Only [`check_filter`], [`valid_filter`] and
//! [`split_share`] know shared subscriptions; the others want the filter inside.

use super::Version;

/// Bytes of the longest name or filter ([MQTT-4.7.3-3]).
pub const MAX_LEN: usize = 65_535;

/// Why a string is no topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterError {
    /// No character at all.
    Empty,
    /// Over [`MAX_LEN`] bytes.
    TooLong,
    /// U+0000.
    Nul,
    /// `#` that is not the whole last level.
    MultiLevel,
    /// `+` that is not a whole level.
    SingleLevel,
    /// `$share/` without a group, or with a wildcard in it.
    ShareName,
    /// `$share/group` without a filter behind it.
    ShareFilter,
}

impl FilterError {
    /// The clause of `version` that was broken; 3.1.1 has no shared subscriptions, so there it is that of 5.0.
    pub const fn clause(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Empty, _) => "MQTT-4.7.3-1",
            (Self::TooLong, _) => "MQTT-4.7.3-3",
            (Self::Nul, _) => "MQTT-4.7.3-2",
            (Self::MultiLevel, Version::V311) => "MQTT-4.7.1-2",
            (Self::MultiLevel, Version::V5) => "MQTT-4.7.1-1",
            (Self::SingleLevel, Version::V311) => "MQTT-4.7.1-3",
            (Self::SingleLevel, Version::V5) => "MQTT-4.7.1-2",
            (Self::ShareName, _) => "MQTT-4.8.2-1",
            (Self::ShareFilter, _) => "MQTT-4.8.2-2",
        }
    }

    /// One line for a human.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Empty => "an empty topic filter",
            Self::TooLong => "a topic filter of more than 65,535 bytes",
            Self::Nul => "U+0000 in a topic filter",
            Self::MultiLevel => "# that is not the whole last level of a topic filter",
            Self::SingleLevel => "+ that is not a whole level of a topic filter",
            Self::ShareName => "a shared subscription without a proper share name",
            Self::ShareFilter => "a shared subscription without a topic filter",
        }
    }
}

/// Whether a PUBLISH may carry it: not empty, at most [`MAX_LEN`] bytes, no wildcard, no U+0000.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_LEN && !name.as_bytes().contains(&0) && !has_wildcard(name)
}

/// Whether a SUBSCRIBE may carry it; see [`check_filter`].
pub fn valid_filter(filter: &str) -> bool {
    check_filter(filter).is_ok()
}

/// Whether a SUBSCRIBE may carry it, shared subscriptions included, and why not.
pub fn check_filter(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    if filter.len() > MAX_LEN {
        return Err(FilterError::TooLong);
    }
    if filter.as_bytes().contains(&0) {
        return Err(FilterError::Nul);
    }
    check_levels(inside_share(filter)?)
}

/// The group and the filter inside of `$share/group/filter`; `None` if it is no (valid) shared subscription.
pub fn split_share(filter: &str) -> Option<(&str, &str)> {
    check_filter(filter).ok()?;
    filter.strip_prefix("$share/")?.split_once('/')
}

/// Whether `+` or `#` is anywhere in it.
pub(super) fn has_wildcard(name: &str) -> bool {
    // Without a way out, so that many bytes are compared at once.
    name.bytes().fold(false, |found, byte| found | matches!(byte, b'+' | b'#'))
}

fn inside_share(filter: &str) -> Result<&str, FilterError> {
    let Some(shared) = filter.strip_prefix("$share/") else { return Ok(filter) };
    let (group, inner) = shared.split_once('/').unwrap_or((shared, ""));
    if group.is_empty() || has_wildcard(group) {
        return Err(FilterError::ShareName); // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    }
    if inner.is_empty() {
        return Err(FilterError::ShareFilter); // [MQTT-4.8.2-2]
    }
    Ok(inner)
}

fn check_levels(filter: &str) -> Result<(), FilterError> {
    let bytes = filter.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        if !matches!(byte, b'+' | b'#') {
            continue;
        }
        let starts = at == 0 || bytes[at - 1] == b'/';
        let next = bytes.get(at + 1);
        if byte == b'#' && (!starts || next.is_some()) {
            return Err(FilterError::MultiLevel); // [MQTT-4.7.1-1]
        }
        if byte == b'+' && (!starts || next.is_some_and(|&next| next != b'/')) {
            return Err(FilterError::SingleLevel); // [MQTT-4.7.1-2]
        }
    }
    Ok(())
}

/// Whether a message on `name` is for a subscription to `filter`; both are valid.
pub fn matches(filter: &str, name: &str) -> bool {
    if shy(filter, name) {
        return false; // [MQTT-4.7.2-1]
    }
    let mut rest = levels(name);
    for wanted in levels(filter) {
        if wanted == b"#" {
            return true; // also where `rest` is used up: `a/#` matches `a` (4.7.1.2)
        }
        match rest.next() {
            Some(level) if wanted == b"+" || wanted == level => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

/// Whether `outer` matches every name that `inner` matches; both are valid.
///
/// ```
/// use wigwag::wire::mqtt::topic::covers;
/// assert!(covers("a/#", "a/+/c") && covers("a/#", "a") && covers("+/#", "#"));
/// assert!(!covers("a/+", "a/#") && !covers("#", "$SYS/#"));
/// ```
pub fn covers(outer: &str, inner: &str) -> bool {
    if shy(outer, inner) {
        return false;
    }
    let mut rest = levels(spelt_out(inner));
    for wanted in levels(outer) {
        if wanted == b"#" {
            return true;
        }
        match rest.next() {
            // Inside a filter, `#` also stands for no level at all: only `#` does as much.
            Some(b"#") | None => return false,
            Some(level) if wanted == b"+" || wanted == level => {}
            Some(_) => return false,
        }
    }
    rest.next().is_none()
}

/// Whether some name is matched by both filters; both are valid.
pub fn overlaps(one: &str, other: &str) -> bool {
    if shy(one, other) || shy(other, one) {
        return false;
    }
    let (mut ours, mut theirs) = (levels(spelt_out(one)), levels(spelt_out(other)));
    loop {
        match (ours.next(), theirs.next()) {
            (Some(b"#"), _) | (_, Some(b"#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == b"+" || b == b"+" => {}
            _ => return false,
        }
    }
}

/// The levels as they are written; bytes split faster than characters do.
fn levels(topic: &str) -> impl Iterator<Item = &[u8]> {
    topic.as_bytes().split(|&byte| byte == b'/')
}

/// The same filter without the chance that `#` stands for no level, where that would leave an empty name
/// ([MQTT-4.7.3-1]).
fn spelt_out(filter: &str) -> &str {
    match filter {
        "#" => "+/#",
        "/#" => "/+/#",
        filter => filter,
    }
}

/// Whether `filter` begins with a wildcard, which never stands for a first level that begins with `$`, and `topic`
/// has such a one ([MQTT-4.7.2-1]).
fn shy(filter: &str, topic: &str) -> bool {
    topic.starts_with('$') && filter.starts_with(['+', '#'])
}

#[cfg(test)]
mod tests;
