//! The grammar of RFC 8259, from the first bracket to the last, with a loop and a bit for each open bracket.

use super::{
    DEPTH_MAX, Key, PayloadError, Tags,
    text::{self, Survey, Text},
};

/// Walks through a payload and brings back its tags.
pub(super) fn walk(payload: &[u8]) -> Result<Tags<'_>, PayloadError> {
    let survey = Survey::of(payload);
    if !survey.ascii && std::str::from_utf8(payload).is_err() {
        return Err(PayloadError::NotUtf8);
    }
    let mut walk = Walk { payload, at: 0, survey, open: Nesting::default(), tags: Tags::default() };
    if walk.token() != Some(b'{') {
        return Err(PayloadError::NotAnObject);
    }
    let mut due = walk.bracket(b'{')?;
    while walk.open.depth > 0 {
        due = match due {
            Due::Value => walk.value()?,
            Due::Separator => walk.separator()?,
        };
    }
    match walk.token() {
        None => Ok(walk.tags),
        Some(_) => Err(PayloadError::Malformed),
    }
}

/// What comes next.
enum Due {
    /// A value, behind a colon or inside an array.
    Value,
    /// What stands behind a value: a comma, or a closing bracket.
    Separator,
}

/// The brackets that are open.
#[derive(Default)]
struct Nesting {
    depth: u32,
    /// A bit for each, the innermost lowest; set where it is that of an object.
    objects: u64,
}

const _: () = assert!(DEPTH_MAX == u64::BITS, "a bit for each open bracket");

impl Nesting {
    fn open(&mut self, object: bool) -> Result<(), PayloadError> {
        if self.depth == DEPTH_MAX {
            return Err(PayloadError::TooDeep);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u64::from(object);
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

struct Walk<'p> {
    payload: &'p [u8],
    /// Where to go on.
    at: usize,
    survey: Survey,
    open: Nesting,
    tags: Tags<'p>,
}

impl<'p> Walk<'p> {
    fn value(&mut self) -> Result<Due, PayloadError> {
        match self.token() {
            Some(b'"') => drop(self.string()?),
            Some(bracket @ (b'{' | b'[')) => return self.bracket(bracket),
            Some(first @ (b'-' | b'0'..=b'9')) => self.number(first)?,
            Some(b't') => self.literal(b"rue")?,
            Some(b'f') => self.literal(b"alse")?,
            Some(b'n') => self.literal(b"ull")?,
            _ => return Err(PayloadError::Malformed),
        }
        Ok(Due::Separator)
    }

    fn separator(&mut self) -> Result<Due, PayloadError> {
        match (self.token(), self.open.in_object()) {
            (Some(b','), true) => self.member(),
            (Some(b','), false) => Ok(Due::Value),
            (Some(b'}'), true) | (Some(b']'), false) => {
                self.open.close();
                Ok(Due::Separator)
            }
            _ => Err(PayloadError::Malformed),
        }
    }

    /// Goes on behind an opening bracket.
    fn bracket(&mut self, bracket: u8) -> Result<Due, PayloadError> {
        let object = bracket == b'{';
        self.open.open(object)?;
        self.space();
        if self.takes(if object { b'}' } else { b']' }) {
            self.open.close();
            return Ok(Due::Separator);
        }
        if object { self.member() } else { Ok(Due::Value) }
    }

    /// Takes a key and its colon, and, if it is that of a tag, the tag.
    fn member(&mut self) -> Result<Due, PayloadError> {
        self.expect(b'"')?;
        let key = self.string()?;
        self.expect(b':')?;
        if self.open.depth > 1 {
            return Ok(Due::Value);
        }
        let key = Key::of(key)?;
        if key == Key::Other {
            return Ok(Due::Value);
        }
        self.expect(b'"').map_err(|_| PayloadError::TagNotText)?;
        let name = self.string()?;
        self.tags.add(key, name)?;
        Ok(Due::Separator)
    }

    /// Goes on behind an opening quote.
    fn string(&mut self) -> Result<Text<'p>, PayloadError> {
        let (text, len) = text::string(self.rest(), self.survey).ok_or(PayloadError::Malformed)?;
        self.at += len;
        Ok(text)
    }

    fn number(&mut self, first: u8) -> Result<(), PayloadError> {
        let first = if first == b'-' { self.next() } else { Some(first) };
        match first {
            Some(b'0') => {}
            Some(b'1'..=b'9') => drop(self.digits()),
            _ => return Err(PayloadError::Malformed),
        }
        if self.takes(b'.') && self.digits() == 0 {
            return Err(PayloadError::Malformed);
        }
        if self.takes(b'e') || self.takes(b'E') {
            let _sign = self.takes(b'+') || self.takes(b'-');
            if self.digits() == 0 {
                return Err(PayloadError::Malformed);
            }
        }
        Ok(())
    }

    /// Takes digits, and tells how many.
    fn digits(&mut self) -> usize {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn literal(&mut self, tail: &[u8]) -> Result<(), PayloadError> {
        if !self.rest().starts_with(tail) {
            return Err(PayloadError::Malformed);
        }
        self.at += tail.len();
        Ok(())
    }

    fn expect(&mut self, byte: u8) -> Result<(), PayloadError> {
        if self.token() == Some(byte) { Ok(()) } else { Err(PayloadError::Malformed) }
    }

    /// Takes white space and the byte behind it.
    fn token(&mut self) -> Option<u8> {
        self.space();
        self.next()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.payload.get(self.at).copied()
    }

    fn rest(&self) -> &'p [u8] {
        self.payload.get(self.at..).unwrap_or_default()
    }
}
