//! The payloads of SUBSCRIBE and UNSUBSCRIBE as views of checked bytes.

use std::fmt;

use super::encode::put_text;
use super::properties::text;
use super::reader::{Reader, Result};
use super::{DecodeError, QoS, RetainHandling, SubscribeOptions, Version};

/// The checked payload of a SUBSCRIBE: at least one filter, all of them valid; iterating cannot fail.
///
/// Equal to another if it yields the same filters and options in the same order.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a> {
    version: Version,
    bytes: &'a [u8],
}

impl<'a> SubscribeFilters<'a> {
    /// Filters to send, from bytes that [`SubscribeFilters::push`] wrote.
    ///
    /// # Errors
    /// If a filter is not valid, an option has no place there, or there is no filter at all.
    pub fn new(bytes: &'a [u8]) -> std::result::Result<Self, DecodeError> {
        Self::read(&mut Reader { bytes, version: Version::V5 })
    }

    /// Appends one filter with its options.
    pub fn push(out: &mut Vec<u8>, filter: &str, options: SubscribeOptions) {
        put_text(out, filter);
        out.push(options.byte(Version::V5));
    }

    /// Reads the rest of a SUBSCRIBE (3.8.3).
    pub(super) fn read(body: &mut Reader<'a>) -> Result<Self> {
        let Reader { bytes, version } = *body;
        if bytes.is_empty() {
            return Err(body.protocol("MQTT-3.8.3-3", "MQTT-3.8.3-2", "a SUBSCRIBE without a topic filter"));
        }
        while !body.bytes.is_empty() {
            let filter = body.filter()?; // [MQTT-3.8.3-1]
            let options = SubscribeOptions::read(body)?;
            if options.no_local && filter.starts_with("$share/") {
                return Err(DecodeError::protocol("MQTT-3.8.3-4", "No Local on a shared subscription"));
            }
        }
        Ok(Self { version, bytes })
    }

    /// The filters in the order sent, shared subscriptions with their `$share/group/`.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, SubscribeOptions)> + use<'a> {
        let Self { version, mut bytes } = *self;
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let filter = text(&mut bytes);
            let options = SubscribeOptions::read(&mut Reader { bytes: bytes.split_off(..1)?, version }).ok()?;
            Some((filter, options))
        })
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscribeFilters<'_> {}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl SubscribeOptions {
    /// Reads the byte of 3.8.3.1, the Requested QoS of 3.1.1.
    fn read(body: &mut Reader<'_>) -> Result<Self> {
        let byte = body.u8()?;
        let qos = QoS::from_bits(byte & 3);
        if body.version == Version::V311 {
            return match qos {
                Some(qos) if byte <= 2 => Ok(Self::new(qos)),
                _ => Err(DecodeError::malformed("MQTT-3.8.3-4", "a Requested QoS other than 0, 1 and 2")),
            };
        }
        if byte & 0xC0 != 0 {
            return Err(DecodeError::malformed("MQTT-3.8.3-5", "reserved Subscription Options are set"));
        }
        let Some(qos) = qos else { return Err(DecodeError::protocol("3.8.3.1", "a subscription with QoS 3")) };
        let retain_handling = match byte >> 4 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::protocol("3.8.3.1", "Retain Handling 3")),
        };
        Ok(Self { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
    }

    pub(super) fn byte(self, version: Version) -> u8 {
        match version {
            Version::V311 => self.qos as u8,
            Version::V5 => {
                self.qos as u8
                    | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }
}

/// The checked payload of an UNSUBSCRIBE: at least one filter, all of them valid; iterating cannot fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UnsubscribeFilters<'a> {
    bytes: &'a [u8],
}

impl<'a> UnsubscribeFilters<'a> {
    /// Filters to send, from bytes that [`UnsubscribeFilters::push`] wrote.
    ///
    /// # Errors
    /// If a filter is not valid, or there is none at all.
    pub fn new(bytes: &'a [u8]) -> std::result::Result<Self, DecodeError> {
        Self::read(&mut Reader { bytes, version: Version::V5 })
    }

    /// Appends one filter.
    pub fn push(out: &mut Vec<u8>, filter: &str) {
        put_text(out, filter);
    }

    /// Reads the rest of an UNSUBSCRIBE (3.10.3).
    pub(super) fn read(body: &mut Reader<'a>) -> Result<Self> {
        let bytes = body.bytes;
        if bytes.is_empty() {
            return Err(body.protocol("MQTT-3.10.3-2", "MQTT-3.10.3-2", "an UNSUBSCRIBE without a topic filter"));
        }
        while !body.bytes.is_empty() {
            body.filter()?; // [MQTT-3.10.3-1]
        }
        Ok(Self { bytes })
    }

    /// The filters in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut bytes = self.bytes;
        std::iter::from_fn(move || (!bytes.is_empty()).then(|| text(&mut bytes)))
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
