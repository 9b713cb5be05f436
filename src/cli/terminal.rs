//! What strangers wrote, made safe to show on a terminal.

use std::fmt::Write;

/// One line of text, whatever the bytes: control characters, which move cursors and retitle windows, and those that
/// turn the direction of text are escaped, and so is what is not UTF-8.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => text.extend(c.escape_unicode()),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A time in seconds, in its two largest units.
pub fn span(seconds: u64) -> String {
    let units = [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("min", seconds / 60 % 60), ("s", seconds % 60)];
    let first = units.iter().position(|(_, amount)| *amount > 0).unwrap_or(units.len() - 1);
    let largest = units[first..].iter().take(2).filter(|(unit, amount)| *amount > 0 || *unit == units[first].0);
    largest.map(|(unit, amount)| format!("{amount} {unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{escape, span};

    #[test]
    fn two_units_tell_how_long() {
        let table =
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min 59 s"), (3600, "1 h"), (90_061, "1 d 1 h")];
        for (seconds, words) in table {
            assert_eq!(span(seconds), words);
        }
    }

    #[test]
    fn text_is_left_alone() {
        assert_eq!(escape("{\"a\":\"grüß 👩‍🚀 \\n\"}".as_bytes()), "{\"a\":\"grüß 👩‍🚀 \\n\"}");
    }

    #[test]
    fn nothing_reaches_the_terminal_but_text() {
        assert_eq!(escape(b"a\x1b[31m\r\n\tb\x7f\0"), "a\\u{1b}[31m\\r\\n\\tb\\u{7f}\\u{0}");
        assert_eq!(escape("c1 \u{9b}31m \u{202e}txt".as_bytes()), "c1 \\u{9b}31m \\u{202e}txt");
        assert_eq!(escape(b"\xff\xc3("), "\\xff\\xc3(");
    }
}
