//! Who may do something: the words of `publish` and `subscribe` in a `[[topic]]` row.

use std::fmt;

use crate::config::value::{Kind, List, Raw, Rejected};

/// One condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// `self`: whose name is `{user}`.
    Oneself,
    /// Who has a place in `{room}`.
    Member,
    /// Who may join `{room}`; in a row without it, who may join some room.
    Join,
    /// Who was granted to listen in `{room}`.
    Listen,
    /// Who was granted to moderate `{room}`.
    Admin,
    /// Who was granted this topic.
    Grant,
    /// Who has the role `observe`.
    Observe,
    /// Who has the role `service`.
    Service,
    /// Everybody.
    Anyone,
    /// The server itself, and no client.
    Broker,
    /// No one.
    Nobody,
}

impl Word {
    const ALL: [(&str, Self); 11] = [
        ("self", Self::Oneself),
        ("member", Self::Member),
        ("join", Self::Join),
        ("listen", Self::Listen),
        ("admin", Self::Admin),
        ("grant", Self::Grant),
        ("observe", Self::Observe),
        ("service", Self::Service),
        ("anyone", Self::Anyone),
        ("broker", Self::Broker),
        ("nobody", Self::Nobody),
    ];

    /// Whether it says so much already that nothing can be joined to it.
    fn stands_alone(self) -> bool {
        matches!(self, Self::Anyone | Self::Broker | Self::Nobody)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].0)
    }
}

/// Conditions that must all hold, `self+join`; one at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Combination(u16);

impl Combination {
    /// Reads words joined with `+`, in any order. `None` if one is unknown, twice there or cannot be joined.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = 0;
        for name in text.split('+') {
            let (_, word) = Word::ALL.into_iter().find(|(known, _)| *known == name)?;
            if all & word.bit() != 0 || (word.stands_alone() && name != text) {
                return None;
            }
            all |= word.bit();
        }
        Some(Self(all))
    }

    /// Its words, in the order of [`Word`].
    pub fn words(self) -> impl Iterator<Item = Word> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let (_, word) = Word::ALL.get(left.trailing_zeros() as usize)?;
            left &= !word.bit();
            Some(*word)
        })
    }

    /// Whether the word is one of its conditions.
    pub const fn contains(self, word: Word) -> bool {
        self.0 & word.bit() != 0
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, word) in self.words().enumerate() {
            let plus = if n == 0 { "" } else { "+" };
            write!(f, "{plus}{word}")?;
        }
        Ok(())
    }
}

/// Who may: any one of the combinations is enough, none is nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience(Box<[Combination]>);

impl Audience {
    /// No one.
    pub fn nobody() -> Self {
        Self(Box::new([Combination(Word::Nobody.bit())]))
    }

    /// Reads each of `texts`; `None` if one is no combination.
    pub fn parse(texts: &[&str]) -> Option<Self> {
        texts.iter().map(|text| Combination::parse(text)).collect::<Option<_>>().map(Self)
    }

    /// In the order in which they were written.
    pub fn combinations(&self) -> &[Combination] {
        &self.0
    }

    /// Whether some combination has the word.
    pub fn mentions(&self, word: Word) -> bool {
        self.0.iter().any(|combination| combination.contains(word))
    }
}

/// How an audience is read from a configuration.
pub(super) struct AudienceList;

impl Kind for AudienceList {
    type Value = Audience;

    fn allowed(&self) -> String {
        List(Words).allowed()
    }

    fn parse(&self, raw: &Raw) -> Result<Audience, Vec<Rejected>> {
        List(Words).parse(raw).map(|combinations| Audience(combinations.into()))
    }

    fn show(&self, value: &Audience) -> String {
        List(Words).show(&value.0.to_vec())
    }
}

struct Words;

impl Kind for Words {
    type Value = Combination;

    fn allowed(&self) -> String {
        "\"self\", \"member\", \"join\", \"listen\", \"admin\", \"grant\", \"observe\", \"service\", several of them \
         like \"self+join\", \"anyone\", \"broker\" or \"nobody\""
            .into()
    }

    fn parse(&self, raw: &Raw) -> Result<Combination, Vec<Rejected>> {
        raw.text().and_then(Combination::parse).ok_or_else(|| raw.reject(self.allowed()))
    }

    fn show(&self, value: &Combination) -> String {
        crate::config::value::quote(&value.to_string())
    }
}
