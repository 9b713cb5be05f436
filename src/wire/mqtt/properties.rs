//! Properties (2.2.2): the list as it stands in a packet, and views of what may occur in it more than once.
//!
//! A view borrows bytes that were checked once, on decoding, so iterating neither fails nor allocates.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use super::encode::{Sink, put_text, put_varint};
use super::reader::{Reader, Result, Varint, varint};
use super::{DecodeError, Version};

/// Property identifiers (2.2.2.2).
pub(super) mod id {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_ID: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const ASSIGNED_CLIENT_ID: u8 = 18;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTHENTICATION_METHOD: u8 = 21;
    pub const AUTHENTICATION_DATA: u8 = 22;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 23;
    pub const WILL_DELAY: u8 = 24;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 25;
    pub const RESPONSE_INFORMATION: u8 = 26;
    pub const SERVER_REFERENCE: u8 = 28;
    pub const REASON_STRING: u8 = 31;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub const TOPIC_ALIAS: u8 = 35;
    pub const MAXIMUM_QOS: u8 = 36;
    pub const RETAIN_AVAILABLE: u8 = 37;
    pub const USER: u8 = 38;
    pub const MAXIMUM_PACKET_SIZE: u8 = 39;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 40;
    pub const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 41;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 42;
}

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
///
/// Equal to another if it yields the same pairs in the same order, whatever stands between them.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// From the first user property to the end of the last.
    bytes: &'a [u8],
    count: u32,
}

impl<'a> UserProperties<'a> {
    /// Properties to send, from bytes that [`UserProperties::push`] wrote.
    ///
    /// # Errors
    /// If the bytes are anything but well-formed user properties.
    pub fn new(bytes: &'a [u8]) -> std::result::Result<Self, DecodeError> {
        let mut list = PropertyList::new(bytes);
        match list.next()? {
            None => Ok(list.user()),
            Some(_) => Err(list.misplaced()),
        }
    }

    /// Appends one encoded pair. A key or value of more than 65,535 bytes is cut at a character boundary; U+0000 is
    /// the caller's to keep out.
    pub fn push(out: &mut Vec<u8>, key: &str, value: &str) {
        put_pair(out, key, value);
    }

    /// How many pairs; known without walking them.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keys and values in the order sent; a key may occur again.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        occurrences(self.bytes, id::USER).map(|mut pair| (text(&mut pair), text(&mut pair)))
    }

    pub(super) fn put<S: Sink>(&self, out: &mut S) {
        self.iter().for_each(|(key, value)| put_pair(out, key, value));
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

pub(super) fn put_pair<S: Sink>(out: &mut S, key: &str, value: &str) {
    out.put(&[id::USER]);
    put_text(out, key);
    put_text(out, value);
}

/// The subscription identifiers of one PUBLISH: a view of its checked property bytes.
///
/// Equal to another if it yields the same identifiers in the same order.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIds<'a> {
    /// From the first identifier to the end of the last.
    bytes: &'a [u8],
}

impl<'a> SubscriptionIds<'a> {
    /// Identifiers to send, from bytes that [`SubscriptionIds::push`] wrote.
    ///
    /// # Errors
    /// If the bytes are anything but well-formed subscription identifiers.
    pub fn new(bytes: &'a [u8]) -> std::result::Result<Self, DecodeError> {
        let mut list = PropertyList::new(bytes);
        while let Some(id) = list.next()? {
            if id != id::SUBSCRIPTION_ID {
                return Err(list.misplaced());
            }
            list.subscription_id("3.3.2.3.8")?;
        }
        if list.user().is_empty() { Ok(list.subscription_ids()) } else { Err(list.misplaced()) }
    }

    /// Appends one encoded identifier; one over 268,435,455 is cut to that.
    pub fn push(out: &mut Vec<u8>, id: NonZeroU32) {
        put_subscription_id(out, id);
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The identifiers in the order sent.
    pub fn iter(&self) -> impl Iterator<Item = NonZeroU32> + use<'a> {
        occurrences(self.bytes, id::SUBSCRIPTION_ID).filter_map(|value| match varint(value) {
            Varint::Value { value, .. } => NonZeroU32::new(value),
            _ => None,
        })
    }
}

impl PartialEq for SubscriptionIds<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIds<'_> {}

impl fmt::Debug for SubscriptionIds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

pub(super) fn put_subscription_id<S: Sink>(out: &mut S, id: NonZeroU32) {
    out.put(&[id::SUBSCRIPTION_ID]);
    put_varint(out, id.get());
}

/// The values of property `wanted` in a checked list, whatever else stands in it.
fn occurrences(mut list: &[u8], wanted: u8) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while let [id, rest @ ..] = list {
            let (value, rest) = rest.split_at_checked(value_len(*id, rest))?;
            list = rest;
            if *id == wanted {
                return Some(value);
            }
        }
        None
    })
}

/// Bytes of the value of property `id` at the start of checked `bytes`.
fn value_len(id: u8, bytes: &[u8]) -> usize {
    let field = |bytes: &[u8]| match bytes {
        [high, low, ..] => 2 + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 2,
    };
    match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_SUBSCRIPTION_AVAILABLE
        | id::SUBSCRIPTION_IDENTIFIERS_AVAILABLE
        | id::SHARED_SUBSCRIPTION_AVAILABLE => 1,
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => 2,
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => 4,
        id::SUBSCRIPTION_ID => bytes.iter().take_while(|&byte| byte & 0x80 != 0).count() + 1,
        id::USER => {
            let key = field(bytes);
            key + field(bytes.get(key..).unwrap_or_default())
        }
        _ => field(bytes),
    }
}

/// The next string of checked bytes.
pub(super) fn text<'a>(bytes: &mut &'a [u8]) -> &'a str {
    let Some((&len, rest)) = bytes.split_first_chunk() else { return "" };
    let Some((text, rest)) = rest.split_at_checked(u16::from_be_bytes(len).into()) else { return "" };
    *bytes = rest;
    std::str::from_utf8(text).unwrap_or_default()
}

/// The property list of a packet, read once from front to back.
///
/// [`next`](Self::next) yields the identifiers and keeps the user properties to itself; which of the others a packet
/// may have is what its decoder matches on, everything else is [`misplaced`](Self::misplaced).
pub(super) struct PropertyList<'a> {
    pub(super) rest: Reader<'a>,
    whole: &'a [u8],
    /// One bit for each identifier.
    seen: u64,
    user: Span,
    subscription_ids: Span,
}

/// Where in a list the properties of one kind are.
#[derive(Default)]
struct Span {
    start: usize,
    end: usize,
    count: u32,
}

impl Span {
    fn add(&mut self, start: usize, end: usize) {
        if self.count == 0 {
            self.start = start;
        }
        self.end = end;
        self.count += 1;
    }
}

impl<'a> PropertyList<'a> {
    /// Splits a list and its length (2.2.2.1) off a packet's body.
    pub(super) fn open(body: &mut Reader<'a>) -> Result<Self> {
        let len = body.varint()?;
        Ok(Self::new(body.take(len as usize)?))
    }

    pub(super) fn new(whole: &'a [u8]) -> Self {
        let rest = Reader { bytes: whole, version: Version::V5 };
        Self { rest, whole, seen: 0, user: Span::default(), subscription_ids: Span::default() }
    }

    /// The identifier of the next property that is no user property; its value is to be read from `rest`.
    pub(super) fn next(&mut self) -> Result<Option<u8>> {
        while !self.rest.bytes.is_empty() {
            let start = self.at();
            let id = self.rest.varint()?;
            if id == u32::from(id::USER) {
                self.rest.text()?; // [MQTT-1.5.7-1]
                self.rest.text()?; // [MQTT-1.5.7-1]
                self.user.add(start, self.at());
                continue;
            }
            let Some(bit) = 1u64.checked_shl(id) else { return Err(self.misplaced()) };
            if self.seen & bit != 0 && id != u32::from(id::SUBSCRIPTION_ID) {
                return Err(self.repeated());
            }
            self.seen |= bit;
            return Ok(Some(id as u8));
        }
        Ok(None)
    }

    fn at(&self) -> usize {
        self.whole.len() - self.rest.bytes.len()
    }

    /// The value of a subscription identifier, which a PUBLISH may have more than once.
    pub(super) fn subscription_id(&mut self, clause: &'static str) -> Result<NonZeroU32> {
        let start = self.at() - 1;
        let value = self.rest.varint()?;
        let value = NonZeroU32::new(value).ok_or(DecodeError::protocol(clause, "subscription identifier 0"))?;
        self.subscription_ids.add(start, self.at());
        Ok(value)
    }

    /// The user properties, once `next` has come to the end.
    pub(super) fn user(&self) -> UserProperties<'a> {
        let Span { start, end, count } = self.user;
        UserProperties { bytes: &self.whole[start..end], count }
    }

    /// The subscription identifiers, once `next` has come to the end.
    pub(super) fn subscription_ids(&self) -> SubscriptionIds<'a> {
        let Span { start, end, .. } = self.subscription_ids;
        SubscriptionIds { bytes: &self.whole[start..end] }
    }

    /// An identifier that this packet cannot have.
    pub(super) fn misplaced(&self) -> DecodeError {
        DecodeError::malformed("2.2.2.2", "a property that does not exist or has no place in this packet")
    }

    /// An identifier that occurs again but may not.
    pub(super) fn repeated(&self) -> DecodeError {
        DecodeError::protocol("2.2.2.2", "a property more than once")
    }
}
