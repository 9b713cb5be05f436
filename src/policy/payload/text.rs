//! What stands between the quotes of a JSON string.

use std::str::Chars;

use memchr::{memchr, memchr2};

/// The inside of a string, as written; it is UTF-8, and its escapes are valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'p>(&'p [u8]);

impl<'p> Text<'p> {
    pub(super) fn raw(self) -> &'p [u8] {
        self.0
    }

    /// Whether it is ASCII that means what is written.
    pub(super) fn is_plain(self) -> bool {
        self.0.iter().all(|byte| *byte != b'\\' && byte.is_ascii())
    }

    /// The characters that it stands for; `None` for each half of a surrogate pair without the other.
    pub(super) fn chars(self) -> impl Iterator<Item = Option<char>> + 'p {
        // The payload was found to be UTF-8, and this ends where a quote does.
        Unescaped(std::str::from_utf8(self.0).unwrap_or_default().chars())
    }

    /// Whether it stands for characters only.
    pub(super) fn is_unicode(self) -> bool {
        !self.is_escaped() || self.chars().all(|char| char.is_some())
    }

    /// Whether it stands for `name`, which is not escaped.
    pub(super) fn is(self, name: &str) -> bool {
        if self.is_escaped() { self.chars().eq(name.chars().map(Some)) } else { self.0 == name.as_bytes() }
    }

    /// Whether both stand for the same.
    pub(super) fn same(self, other: Self) -> bool {
        self.chars().eq(other.chars())
    }

    fn is_escaped(self) -> bool {
        self.0.contains(&b'\\')
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
    /// Every byte is ASCII, and so all of it UTF-8.
    pub(super) ascii: bool,
    /// There is no control character, in a string or elsewhere.
    no_control: bool,
    /// There is no backslash but in front of `r` and `n`: SDP as `JSON.stringify` writes it. So every escape is valid,
    /// and no quote is escaped.
    line_ends_only: bool,
}

impl Survey {
    /// Passes without a branch, which the compiler turns into vector instructions. What is said of escapes leaves out the
    /// last byte of the payload, which is in no string that ends.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let (mut lowest, mut any) = (u8::MAX, 0);
        for &byte in bytes {
            lowest = lowest.min(byte);
            any |= byte;
        }
        // Most payloads have no escape at all, which takes less time to find out.
        let escapes = &bytes[memchr(b'\\', bytes).unwrap_or(bytes.len())..];
        let mut other_escape = false;
        for (&byte, &next) in escapes.iter().zip(escapes.get(1..).unwrap_or_default()) {
            other_escape |= (byte == b'\\') & (next != b'r') & (next != b'n');
        }
        Self { ascii: any.is_ascii(), no_control: lowest >= b' ', line_ends_only: !other_escape }
    }
}

/// The text at the beginning of `bytes`, which is behind an opening quote, and the length that it takes with its
/// closing quote.
///
/// `None` if it does not end, contains a control character, or an escape that is none.
pub(super) fn string(bytes: &[u8], survey: Survey) -> Option<(Text<'_>, usize)> {
    let end = if survey.line_ends_only { next_quote(bytes)? } else { closing_quote(bytes)? };
    let text = bytes.get(..end)?;
    let valid = survey.no_control || !text.iter().fold(false, |any, byte| any | (*byte < b' '));
    valid.then_some((Text(text), end + 1))
}

/// Where the next quote is. Keys and names are short, and looking for a quote in eight bytes at once takes less time than
/// calling what is fastest for many.
fn next_quote(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let mut rest = bytes;
    for _ in 0..3 {
        let Some((eight, behind)) = rest.split_first_chunk() else { break };
        // A byte of it is zero where the quote is; the lowest byte that gets its highest bit set here is the first zero.
        let differs = u64::from_le_bytes(*eight) ^ (ONES * b'"' as u64);
        let zeros = differs.wrapping_sub(ONES) & !differs & HIGHEST;
        if zeros != 0 {
            return Some(bytes.len() - rest.len() + zeros.trailing_zeros() as usize / 8);
        }
        rest = behind;
    }
    memchr(b'"', rest).map(|at| bytes.len() - rest.len() + at)
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
