//! What stands between the quotes of a JSON string.

use std::str::Chars;

use memchr::{memchr, memchr2};

/// The inside of a string, as written; its escapes are valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'p>(&'p str);

impl<'p> Text<'p> {
    pub(super) fn raw(self) -> &'p str {
        self.0
    }

    /// Whether it is ASCII that means what is written.
    pub(super) fn is_plain(self) -> bool {
        self.0.bytes().all(|byte| byte != b'\\' && byte.is_ascii())
    }

    /// The characters that it stands for; `None` for each half of a surrogate pair without the other.
    pub(super) fn chars(self) -> impl Iterator<Item = Option<char>> + 'p {
        Unescaped(self.0.chars())
    }

    /// Whether it stands for characters only.
    pub(super) fn is_unicode(self) -> bool {
        !self.is_escaped() || self.chars().all(|char| char.is_some())
    }

    /// Whether it stands for `name`, which is not escaped.
    pub(super) fn is(self, name: &str) -> bool {
        if self.is_escaped() { self.chars().eq(name.chars().map(Some)) } else { self.0 == name }
    }

    /// Whether both stand for the same.
    pub(super) fn same(self, other: Self) -> bool {
        self.chars().eq(other.chars())
    }

    fn is_escaped(self) -> bool {
        self.0.contains('\\')
    }
}

struct Unescaped<'p>(Chars<'p>);

impl Iterator for Unescaped<'_> {
    type Item = Option<char>;

    fn next(&mut self) -> Option<Self::Item> {
        let char = match self.0.next()? {
            '\\' => self.0.next()?,
            char => return Some(Some(char)),
        };
        Some(Some(match char {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return Some(self.unit().and_then(|unit| self.character(unit))),
            itself => itself,
        }))
    }
}

impl Unescaped<'_> {
    /// The four digits behind `\u`.
    fn unit(&mut self) -> Option<u16> {
        let (digits, rest) = self.0.as_str().split_at_checked(4)?;
        self.0 = rest.chars();
        u16::from_str_radix(digits, 16).ok()
    }

    /// The character that begins with `unit`, and maybe goes on in the next escape.
    fn character(&mut self, unit: u16) -> Option<char> {
        if let Some(char) = char::from_u32(unit.into()) {
            return Some(char);
        }
        let mut ahead = Self(self.0.as_str().strip_prefix("\\u")?.chars());
        let char = char::decode_utf16([unit, ahead.unit()?]).next()?.ok()?;
        self.0 = ahead.0;
        Some(char)
    }
}

/// What is known of all strings of a payload at once, which is cheaper to find out than of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey {
    /// There is no control character, in a string or elsewhere.
    no_control: bool,
    /// There is no backslash but in front of `r` and `n`: SDP as `JSON.stringify` writes it. So every escape is valid,
    /// and no quote is escaped.
    line_ends_only: bool,
}

impl Survey {
    /// One pass without a branch, which the compiler turns into vector instructions. The last byte of the payload is
    /// left out; it is in no string that ends.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (mut lowest, mut other_escape) = (u8::MAX, false);
        for (&byte, &next) in bytes.iter().zip(bytes.get(1..).unwrap_or_default()) {
            lowest = lowest.min(byte);
            other_escape |= (byte == b'\\') & (next != b'r') & (next != b'n');
        }
        Self { no_control: lowest >= b' ', line_ends_only: !other_escape }
    }
}

/// The text at the beginning of `rest`, which is behind an opening quote, and the length that it takes with its
/// closing quote.
///
/// `None` if it does not end, contains a control character, or an escape that is none.
pub(super) fn string(rest: &str, survey: Survey) -> Option<(Text<'_>, usize)> {
    let bytes = rest.as_bytes();
    let end = if survey.line_ends_only { memchr(b'"', bytes)? } else { closing_quote(bytes)? };
    let text = rest.get(..end)?;
    let valid = survey.no_control || !text.bytes().fold(false, |any, byte| any | (byte < b' '));
    valid.then_some((Text(text), end + 1))
}

/// Where the string ends, if its escapes are valid.
fn closing_quote(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at);
        }
        while let Some([b'\\', escape @ ..]) = bytes.get(at..) {
            at += match escape {
                [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
                [b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) => 6,
                _ => return None,
            };
        }
    }
}
