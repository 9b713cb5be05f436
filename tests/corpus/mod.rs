//! The table of packets, legal and not; its format is described in `packets.txt`.

#![allow(dead_code, reason = "each test that includes it needs another part")]

use wigwag::wire::mqtt::{ReasonCode, Version};

/// No packet of the table may be larger, in bytes.
pub const MAX_PACKET: usize = 1_000_000;

/// A row of the table.
pub struct Row {
    pub version: Version,
    /// What it is refused with, or `None` for a legal packet.
    pub refusal: Option<ReasonCode>,
    pub clause: &'static str,
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// The whole table.
///
/// # Panics
/// If a row cannot be read, with its line.
pub fn rows() -> Vec<Row> {
    include_str!("packets.txt")
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| row(line).unwrap_or_else(|| panic!("packets.txt:{}: {line}", index + 1)))
        .collect()
}

fn row(line: &'static str) -> Option<Row> {
    let (line, name) = line.rsplit_once(" ; ")?;
    let (version, rest) = line.split_once(' ')?;
    let (verdict, rest) = rest.trim_start().split_once(' ')?;
    let (clause, bytes) = rest.trim_start().split_once(' ')?;
    let mut tokens = bytes.trim();
    let bytes = group(&mut tokens, None)?;
    Some(Row {
        version: match version {
            "311" => Version::V311,
            "5" => Version::V5,
            _ => return None,
        },
        refusal: match verdict {
            "ok" => None,
            code => Some(ReasonCode(u8::from_str_radix(code, 16).ok()?)),
        },
        clause,
        name,
        bytes,
    })
}

/// Reads tokens up to `close`, or to the end.
fn group(text: &mut &str, close: Option<char>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        *text = text.trim_start();
        let Some(first) = text.chars().next() else { return close.is_none().then_some(bytes) };
        let rest = &text[first.len_utf8()..];
        match first {
            '[' | '<' | '"' | '\'' => *text = rest,
            _ if Some(first) == close => {
                *text = rest;
                return Some(bytes);
            }
            _ => {}
        }
        match first {
            '[' => {
                let inner = group(text, Some(']'))?;
                bytes.extend(varint(inner.len()));
                bytes.extend(inner);
            }
            '<' => prefixed(&mut bytes, &group(text, Some('>'))?),
            '"' => prefixed(&mut bytes, quoted(text, '"')?.as_bytes()),
            '\'' => bytes.extend(quoted(text, '\'')?.as_bytes()),
            _ => bytes.extend(hexadecimal(text)?),
        }
    }
}

fn quoted<'t>(text: &mut &'t str, quote: char) -> Option<&'t str> {
    let (inner, rest) = text.split_once(quote)?;
    *text = rest;
    Some(inner)
}

/// `0aff`, or `3*0a`.
fn hexadecimal(text: &mut &str) -> Option<Vec<u8>> {
    let end = text.find([' ', ']', '>']).unwrap_or(text.len());
    let (token, rest) = text.split_at(end);
    *text = rest;
    let (count, digits) = match token.split_once('*') {
        Some((count, digits)) => (count.parse().ok()?, digits),
        None => (1, token),
    };
    let bytes: Option<Vec<u8>> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect();
    Some(bytes?.repeat(count))
}

fn prefixed(out: &mut Vec<u8>, inner: &[u8]) {
    out.extend((inner.len() as u16).to_be_bytes());
    out.extend(inner);
}

/// Variable Byte Integer, by the algorithm of 1.5.5.
pub fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
