//! The data types of section 1.5, read strictly off the body of one packet.
//!
//! Nothing here looks past the Remaining Length: a field that would is malformed, not incomplete.

use std::num::{NonZeroU16, NonZeroU32};

use super::{DecodeError, ReasonCode, Version, topic};

pub(super) type Result<T> = std::result::Result<T, DecodeError>;

/// The largest Variable Byte Integer (1.5.5).
pub(super) const MAX_VARINT: u32 = 268_435_455;

impl DecodeError {
    pub(super) const fn malformed(clause: &'static str, what: &'static str) -> Self {
        Self { reason: ReasonCode::MALFORMED_PACKET, clause, what }
    }

    pub(super) const fn protocol(clause: &'static str, what: &'static str) -> Self {
        Self { reason: ReasonCode::PROTOCOL_ERROR, clause, what }
    }
}

impl Version {
    /// The clause that says it in this version.
    pub(super) const fn clause(self, v311: &'static str, v5: &'static str) -> &'static str {
        match self {
            Version::V311 => v311,
            Version::V5 => v5,
        }
    }
}

/// What a Variable Byte Integer at the start of some bytes is.
pub(super) enum Varint {
    Incomplete,
    /// A fifth byte would be needed.
    TooLong,
    Value {
        value: u32,
        /// Bytes it took.
        len: usize,
        /// Whether fewer bytes would have done.
        padded: bool,
    },
}

/// Reads a Variable Byte Integer (1.5.5; the Remaining Length of 3.1.1, 2.2.3).
pub(super) fn varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Varint::Value { value, len: index + 1, padded: index > 0 && byte == 0 };
        }
    }
    if bytes.len() < 4 { Varint::Incomplete } else { Varint::TooLong }
}

/// The rest of a packet's body, or of a property list.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) version: Version,
}

impl<'a> Reader<'a> {
    /// A malformed packet, with the clause of the version being read.
    pub(super) fn malformed(&self, v311: &'static str, v5: &'static str, what: &'static str) -> DecodeError {
        DecodeError::malformed(self.version.clause(v311, v5), what)
    }

    /// A protocol error, with the clause of the version being read.
    pub(super) fn protocol(&self, v311: &'static str, v5: &'static str, what: &'static str) -> DecodeError {
        DecodeError::protocol(self.version.clause(v311, v5), what)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            return Err(self.malformed("2.2.3", "2.1.4", "the packet ends inside a field"));
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.malformed("2.2.3", "2.1.4", "the packet ends inside a field"));
        };
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two Byte Integer (1.5.2).
    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four Byte Integer (1.5.3).
    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// Variable Byte Integer (1.5.5), which only 5.0 has inside a packet.
    pub(super) fn varint(&mut self) -> Result<u32> {
        match varint(self.bytes) {
            Varint::Incomplete => Err(DecodeError::malformed("2.1.4", "the packet ends inside a field")),
            Varint::TooLong => Err(DecodeError::malformed("1.5.5", "a Variable Byte Integer of more than four bytes")),
            Varint::Value { padded: true, .. } => {
                Err(DecodeError::malformed("MQTT-1.5.5-1", "a Variable Byte Integer longer than its value needs"))
            }
            Varint::Value { value, len, .. } => {
                self.bytes = &self.bytes[len..];
                Ok(value)
            }
        }
    }

    /// Binary Data (1.5.6).
    pub(super) fn data(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// UTF-8 Encoded String (1.5.4; 1.5.3 in 3.1.1).
    pub(super) fn text(&mut self) -> Result<&'a str> {
        let bytes = self.data()?;
        // Without a way out, so that many bytes are compared at once.
        if bytes.iter().fold(false, |found, &byte| found | (byte == 0)) {
            return Err(self.malformed("MQTT-1.5.3-2", "MQTT-1.5.4-2", "U+0000 in a string"));
        }
        // Surrogates, overlong forms and values past U+10FFFF are not UTF-8 to Rust either.
        std::str::from_utf8(bytes).map_err(|_| self.malformed("MQTT-1.5.3-1", "MQTT-1.5.4-1", "not UTF-8"))
    }

    /// A topic name (4.7), or nothing; the clauses are those that keep wildcards out of it.
    pub(super) fn name_or_empty(&mut self, v311: &'static str, v5: &'static str) -> Result<&'a str> {
        let name = self.text()?;
        if topic::has_wildcard(name) {
            return Err(self.malformed(v311, v5, "a wildcard in a topic name"));
        }
        Ok(name)
    }

    /// A topic name (4.7).
    pub(super) fn name(&mut self, v311: &'static str, v5: &'static str) -> Result<&'a str> {
        let name = self.name_or_empty(v311, v5)?;
        if name.is_empty() {
            return Err(DecodeError::malformed("MQTT-4.7.3-1", "an empty topic name"));
        }
        Ok(name)
    }

    /// A topic filter (4.7.1) or a shared subscription's (4.8.2).
    pub(super) fn filter(&mut self) -> Result<&'a str> {
        let filter = self.text()?;
        match topic::check_filter(filter) {
            Ok(()) => Ok(filter),
            Err(fault) => Err(DecodeError::malformed(fault.clause(self.version), fault.what())),
        }
    }

    /// A packet identifier (2.2.1; 2.3.1 in 3.1.1).
    pub(super) fn packet_id(&mut self) -> Result<NonZeroU16> {
        NonZeroU16::new(self.u16()?)
            .ok_or_else(|| self.malformed("MQTT-2.3.1-1", "MQTT-2.2.1-3", "packet identifier 0"))
    }

    pub(super) fn non_zero_u16(&mut self, clause: &'static str, what: &'static str) -> Result<NonZeroU16> {
        NonZeroU16::new(self.u16()?).ok_or(DecodeError::protocol(clause, what))
    }

    pub(super) fn non_zero_u32(&mut self, clause: &'static str, what: &'static str) -> Result<NonZeroU32> {
        NonZeroU32::new(self.u32()?).ok_or(DecodeError::protocol(clause, what))
    }

    /// A byte that 5.0 allows to be 0 or 1 only.
    pub(super) fn flag(&mut self, clause: &'static str, what: &'static str) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::protocol(clause, what)),
        }
    }

    /// The body is read: anything left was announced for nothing.
    pub(super) fn end(&self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(self.malformed("2.2.3", "2.1.4", "bytes after the last field"))
    }
}
