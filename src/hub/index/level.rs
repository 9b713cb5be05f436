//! One level of a topic or filter as an owned key.

/// The text of one level (4.7.1): its UTF-8 bytes, up to 22 of them in place. Room names are mostly short, and
/// `signal`, `presence`, `chat` occur in every room: an allocation for each would cost more than the level itself.
///
/// Kept as bytes because it is only ever compared.
pub(super) enum Level {
    Short { len: u8, bytes: [u8; Level::IN_PLACE] },
    Long(Box<[u8]>),
}

impl Level {
    /// What fits beside the tag and the length in three words.
    const IN_PLACE: usize = 22;

    pub(super) fn new(text: &[u8]) -> Level {
        match u8::try_from(text.len()) {
            Ok(len) if text.len() <= Self::IN_PLACE => {
                let mut bytes = [0; Self::IN_PLACE];
                bytes[..text.len()].copy_from_slice(text);
                Level::Short { len, bytes }
            }
            _ => Level::Long(text.into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Level::Short { len, bytes } => &bytes[..usize::from(*len)],
            Level::Long(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Level;

    #[test]
    fn takes_three_words_and_gives_back_its_text() {
        assert_eq!(size_of::<Level>(), 24);
        for text in ["", "+", "signal", "zwei-und-zwanzig-bytes", "drei-und-zwanzig-bytes!", "ü".repeat(40).as_str()] {
            assert_eq!(Level::new(text.as_bytes()).as_bytes(), text.as_bytes());
        }
    }
}
