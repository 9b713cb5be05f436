//! Where a topic or a filter meets a row, and what somebody is there.

use std::collections::BTreeMap;

use super::Audience;
use crate::{
    config::{Combination, Level, Pattern, Word},
    policy::{grants::Grants, valid_name},
};

/// Who asks.
#[derive(Clone, Copy)]
pub struct Who<'a> {
    /// The whole user name: `alice~phone` is not `alice`.
    pub user: &'a str,
    pub client_id: &'a str,
    pub grants: &'a Grants,
    /// The text of a claim of the connection's token.
    pub claim: &'a dyn Fn(&str) -> Option<&'a str>,
    /// Whether it has a place in the room of this name.
    pub is_member: &'a dyn Fn(&str) -> bool,
}

impl<'a> Who<'a> {
    /// Whether one combination of the audience holds; `granted` says whether the topic or filter was granted.
    pub(super) fn is_among(&self, audience: &Audience, place: &Place<'_>, granted: &dyn Fn() -> bool) -> bool {
        audience.combinations().iter().any(|combination| self.is_all(*combination, place, granted))
    }

    fn is_all(&self, combination: Combination, place: &Place<'_>, granted: &dyn Fn() -> bool) -> bool {
        combination.words().all(|word| self.holds(word, place, granted))
    }

    /// Whether the word is true of the connection everywhere in `place`.
    pub(super) fn holds(&self, word: Word, place: &Place<'_>, granted: &dyn Fn() -> bool) -> bool {
        let rights = || match place.room {
            Reach::One(room) => self.grants.room(room),
            Reach::Any | Reach::Absent => self.grants.every_room(),
        };
        match word {
            Word::Oneself => place.user == Reach::One(self.user),
            // A place alone is not enough: it may be another connection's of the same user, or the right may be gone.
            Word::Member => rights().join && matches!(place.room, Reach::One(room) if (self.is_member)(room)),
            Word::Join if place.room == Reach::Absent => self.grants.any_room(),
            Word::Join => rights().join,
            Word::Listen => rights().listen,
            Word::Admin => rights().admin,
            Word::Grant => granted(),
            Word::Observe => self.grants.observe(),
            Word::Service => self.grants.has_service(),
            Word::Anyone => true,
            Word::Broker | Word::Nobody => false,
        }
    }

    /// What `{client}` or `{claim:…}` stands for, if that is one level.
    pub(super) fn own(&self, level: &Level) -> Option<&'a str> {
        let own = match level {
            Level::Client => Some(self.client_id),
            Level::Claim(name) => (self.claim)(name),
            _ => None,
        };
        own.filter(|own| !own.is_empty() && !own.contains(['/', '+', '#']))
    }
}

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach<'t> {
    /// The row does not have it.
    Absent,
    /// A wildcard: every name.
    Any,
    /// This name.
    One(&'t str),
}

impl<'t> Reach<'t> {
    pub(super) fn name(self) -> Option<&'t str> {
        match self {
            Self::One(name) => Some(name),
            Self::Absent | Self::Any => None,
        }
    }

    fn of_level(level: &'t str) -> Self {
        if level == "+" { Self::Any } else { Self::One(level) }
    }
}

/// What the placeholders of a row stand for in a topic, or in what a filter has in common with the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'t> {
    pub(super) room: Reach<'t>,
    pub(super) user: Reach<'t>,
}

impl Place<'_> {
    const NOWHERE: Self = Self { room: Reach::Absent, user: Reach::Absent };

    /// Whether what should be a name is one.
    pub(super) fn has_names(&self) -> bool {
        self.room.name().is_none_or(valid_name) && self.user.name().is_none_or(valid_name)
    }
}

/// The first levels of a topic or filter, one more than any row has: what follows makes no difference.
pub(super) struct Levels<'t> {
    seen: [&'t str; Pattern::MAX_LEVELS + 1],
    len: usize,
}

impl<'t> Levels<'t> {
    pub(super) fn of_topic(topic: &'t str) -> Self {
        let mut levels = Self { seen: [""; Pattern::MAX_LEVELS + 1], len: 0 };
        let mut rest = Some(topic);
        for slot in &mut levels.seen {
            let Some(text) = rest else { break };
            let slash = text.bytes().position(|byte| byte == b'/'); // levels are short
            (*slot, rest) = slash.map_or((text, None), |slash| (&text[..slash], Some(&text[slash + 1..])));
            levels.len += 1;
        }
        levels
    }

    pub(super) fn of_filter(filter: &'t str) -> Self {
        Self::of_topic(spelt_out(filter))
    }

    fn get(&self, n: usize) -> Option<&'t str> {
        self.seen[..self.len].get(n).copied()
    }

    /// [MQTT-4.7.2-1]
    fn is_reserved(&self) -> bool {
        self.seen[0].starts_with('$')
    }
}

/// Which rows may match a topic, by its first level and by how many it has: the hot path looks at few of them.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Rows by the text that they begin with.
    by_first: Box<[(Box<str>, u64)]>,
    /// Rows that begin with a wildcard or a placeholder.
    shy: u64,
    /// Rows by number of levels, the last being "or more".
    by_len: [u64; Pattern::MAX_LEVELS + 2],
}

impl Index {
    /// Of at most 64 patterns.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p Pattern>) -> Self {
        let (mut by_first, mut shy, mut by_len) = (BTreeMap::new(), 0, [0; Pattern::MAX_LEVELS + 2]);
        for (n, pattern) in patterns.enumerate() {
            let (row, len) = (1 << n, pattern.levels().len());
            match pattern.levels().first() {
                Some(Level::Literal(text)) => *by_first.entry(text.clone()).or_insert(0) |= row,
                _ => shy |= row,
            }
            let lens = if pattern.levels().last() == Some(&Level::Rest) { len - 1..by_len.len() } else { len..len + 1 };
            by_len[lens].iter_mut().for_each(|rows| *rows |= row);
        }
        Self { by_first: by_first.into_iter().collect(), shy, by_len }
    }

    /// Numbers of the rows that may match, in order.
    pub(super) fn candidates(&self, topic: &Levels<'_>) -> impl Iterator<Item = u8> + use<> {
        let first = self.by_first.iter().find(|(text, _)| **text == *topic.seen[0]).map_or(0, |(_, rows)| *rows);
        let mut left = (first | self.shy) & self.by_len[topic.len];
        std::iter::from_fn(move || {
            let next = left.trailing_zeros() as u8;
            left &= left.wrapping_sub(1);
            (next < 64).then_some(next)
        })
    }
}

/// `#` in front stands for one level at least, since no name is empty.
fn spelt_out(filter: &str) -> &str {
    if filter == "#" { "+/#" } else { filter }
}

/// What the row's placeholders stand for if it matches the topic. A row for one client matches for nobody else, and
/// never if there is no `who`.
pub(super) fn matches<'t>(pattern: &Pattern, topic: &Levels<'t>, who: Option<&Who<'_>>) -> Option<Place<'t>> {
    if pattern.is_shy() && topic.is_reserved() {
        return None;
    }
    let mut place = Place::NOWHERE;
    for (n, level) in pattern.levels().iter().enumerate() {
        if *level == Level::Rest {
            return Some(place);
        }
        let found = topic.get(n)?;
        match level {
            Level::Literal(text) if **text != *found => return None,
            Level::Client | Level::Claim(_) if who?.own(level)? != found => return None,
            Level::Room => place.room = Reach::One(found),
            Level::User => place.user = Reach::One(found),
            _ => {}
        }
    }
    (topic.len == pattern.levels().len()).then_some(place)
}

/// What a filter and a row have in common.
pub(super) struct Overlap<'f> {
    pub(super) place: Place<'f>,
    /// The row matches everything that the filter does.
    pub(super) covers: bool,
}

/// What the filter has in common with a row, as far as `who` is concerned.
pub(super) fn overlap<'f>(pattern: &Pattern, filter: &Levels<'f>, who: &Who<'_>) -> Option<Overlap<'f>> {
    let wild_first = matches!(filter.get(0), Some("+" | "#"));
    let reserved_row = matches!(pattern.levels().first(), Some(Level::Literal(text)) if text.starts_with('$'));
    if (pattern.is_shy() && filter.is_reserved()) || (wild_first && reserved_row) {
        return None;
    }
    let mut common = Overlap { place: Place::NOWHERE, covers: true };
    let mut open_ended = false;
    for (n, level) in pattern.levels().iter().enumerate() {
        if *level == Level::Rest {
            return Some(common);
        }
        if !open_ended && filter.get(n)? == "#" {
            open_ended = true;
            common.covers = false; // it may also match no level where the row wants one
        }
        let asked = if open_ended { "+" } else { filter.get(n)? };
        match level {
            Level::Room => common.place.room = Reach::of_level(asked),
            Level::User => common.place.user = Reach::of_level(asked),
            Level::One | Level::Rest => {}
            Level::Literal(_) | Level::Client | Level::Claim(_) => {
                let text = if let Level::Literal(text) = level { text } else { who.own(level)? };
                match asked {
                    "+" => common.covers = false,
                    asked if asked != text => return None,
                    _ => {}
                }
            }
        }
    }
    match filter.get(pattern.levels().len()) {
        None => Some(common),
        _ if open_ended => Some(common),
        Some("#") => Some(Overlap { covers: false, ..common }),
        Some(_) => None,
    }
}

/// The filter that matches what a filter and a row have in common; they have something.
pub(super) fn meet(pattern: &Pattern, filter: &str, who: &Who<'_>) -> String {
    let mut asked = spelt_out(filter).split('/').peekable();
    let mut both = Vec::new();
    for level in pattern.levels() {
        if *level == Level::Rest {
            break; // whatever else is asked
        }
        let ours = match level {
            Level::Literal(text) => text,
            level => who.own(level).unwrap_or("+"),
        };
        match asked.next_if(|asked| *asked != "#") {
            Some(asked) if asked != "+" => both.push(asked),
            _ => both.push(ours),
        }
    }
    if pattern.levels().last() == Some(&Level::Rest) {
        both.extend(asked);
    }
    both.join("/")
}
