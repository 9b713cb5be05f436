//! Properties (2.2.2) as views of the bytes that were checked once, on decoding.

use std::num::{NonZeroU16, NonZeroU32};

/// What a PUBLISH or a will carries beside its payload (3.3.2.3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// Payload Format Indicator: `Some(true)` = UTF-8, `Some(false)` = bytes, said explicitly.
    pub payload_is_utf8: Option<bool>,
    /// Message Expiry Interval, seconds.
    pub message_expiry: Option<u32>,
    pub topic_alias: Option<NonZeroU16>,
    pub response_topic: Option<&'a str>,
    pub correlation_data: Option<&'a [u8]>,
    pub content_type: Option<&'a str>,
    pub user: UserProperties<'a>,
    /// Only from server to client.
    pub subscription_ids: SubscriptionIds<'a>,
}

/// The user properties of one packet, in order: a view of its checked property bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserProperties<'a> {
    pub(super) bytes: &'a [u8],
}

/// The subscription identifiers of one PUBLISH: a view of its checked property bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SubscriptionIds<'a> {
    pub(super) bytes: &'a [u8],
}

// The decoder's author defines iteration, construction, equality and Debug; placeholders for now.
impl<'a> UserProperties<'a> {
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let _ = self.bytes;
        std::iter::empty()
    }
}
impl SubscriptionIds<'_> {
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> {
        let _ = (self.bytes, NonZeroU16::MIN);
        std::iter::empty()
    }
}
