//! Reason codes (2.4), and which packet has which.

use super::Version;

/// One byte that says how it went; from 0x80 on it did not. In a 3.1.1 CONNACK or SUBACK the same type carries the
/// return code of that version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ReasonCode(pub u8);

impl ReasonCode {
    pub const SUCCESS: Self = Self(0x00);
    pub const DISCONNECT_WITH_WILL: Self = Self(0x04);
    pub const NO_MATCHING_SUBSCRIBERS: Self = Self(0x10);
    pub const NO_SUBSCRIPTION_EXISTED: Self = Self(0x11);
    pub const CONTINUE_AUTHENTICATION: Self = Self(0x18);
    pub const REAUTHENTICATE: Self = Self(0x19);
    pub const UNSPECIFIED_ERROR: Self = Self(0x80);
    pub const MALFORMED_PACKET: Self = Self(0x81);
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    pub const IMPLEMENTATION_SPECIFIC_ERROR: Self = Self(0x83);
    pub const UNSUPPORTED_PROTOCOL_VERSION: Self = Self(0x84);
    pub const CLIENT_IDENTIFIER_NOT_VALID: Self = Self(0x85);
    pub const BAD_USER_NAME_OR_PASSWORD: Self = Self(0x86);
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    pub const SERVER_UNAVAILABLE: Self = Self(0x88);
    pub const SERVER_BUSY: Self = Self(0x89);
    pub const BANNED: Self = Self(0x8A);
    pub const SERVER_SHUTTING_DOWN: Self = Self(0x8B);
    pub const BAD_AUTHENTICATION_METHOD: Self = Self(0x8C);
    pub const KEEP_ALIVE_TIMEOUT: Self = Self(0x8D);
    pub const SESSION_TAKEN_OVER: Self = Self(0x8E);
    pub const TOPIC_FILTER_INVALID: Self = Self(0x8F);
    pub const TOPIC_NAME_INVALID: Self = Self(0x90);
    pub const PACKET_IDENTIFIER_IN_USE: Self = Self(0x91);
    pub const PACKET_IDENTIFIER_NOT_FOUND: Self = Self(0x92);
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    pub const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    pub const MESSAGE_RATE_TOO_HIGH: Self = Self(0x96);
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    pub const ADMINISTRATIVE_ACTION: Self = Self(0x98);
    pub const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
    pub const RETAIN_NOT_SUPPORTED: Self = Self(0x9A);
    pub const QOS_NOT_SUPPORTED: Self = Self(0x9B);
    pub const USE_ANOTHER_SERVER: Self = Self(0x9C);
    pub const SERVER_MOVED: Self = Self(0x9D);
    pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Self = Self(0x9E);
    pub const CONNECTION_RATE_EXCEEDED: Self = Self(0x9F);
    pub const MAXIMUM_CONNECT_TIME: Self = Self(0xA0);
    pub const SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: Self = Self(0xA1);
    pub const WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: Self = Self(0xA2);

    /// A few words for metrics and logs; the specification's own where it has some (2.4).
    pub const fn name(self) -> &'static str {
        match self {
            Self::BAD_USER_NAME_OR_PASSWORD => "bad user name or password",
            Self::NOT_AUTHORIZED => "not authorized",
            Self::CLIENT_IDENTIFIER_NOT_VALID => "client identifier not valid",
            Self::SERVER_UNAVAILABLE => "server unavailable",
            Self::SERVER_BUSY => "server busy",
            Self::BANNED => "banned",
            Self::BAD_AUTHENTICATION_METHOD => "bad authentication method",
            Self::TOPIC_FILTER_INVALID => "topic filter invalid",
            Self::TOPIC_NAME_INVALID => "topic name invalid",
            Self::PACKET_TOO_LARGE => "packet too large",
            Self::MESSAGE_RATE_TOO_HIGH => "message rate too high",
            Self::QUOTA_EXCEEDED => "quota exceeded",
            Self::PAYLOAD_FORMAT_INVALID => "payload format invalid",
            Self::RETAIN_NOT_SUPPORTED => "retain not supported",
            Self::MALFORMED_PACKET => "malformed packet",
            Self::PROTOCOL_ERROR => "protocol error",
            _ => "other",
        }
    }

    /// From 0x80 on.
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Those of a CONNACK ([MQTT-3.2.2-8]); in 3.1.1 the return codes 0–5 (3.2.2.3).
    pub(super) const fn answers_connect(self, version: Version) -> bool {
        match version {
            Version::V311 => self.0 <= 5,
            Version::V5 => matches!(
                self.0,
                0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99 | 0x9A..=0x9D | 0x9F
            ),
        }
    }

    /// Those of PUBACK and PUBREC ([MQTT-3.4.2-1], [MQTT-3.5.2-1]).
    pub(super) const fn answers_publish(self) -> bool {
        matches!(self.0, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
    }

    /// Those of PUBREL and PUBCOMP ([MQTT-3.6.2-1], [MQTT-3.7.2-1]).
    pub(super) const fn answers_pubrec(self) -> bool {
        matches!(self.0, 0x00 | 0x92)
    }

    /// Those of a SUBACK ([MQTT-3.9.3-2]).
    pub(super) const fn answers_subscribe(self, version: Version) -> bool {
        match version {
            Version::V311 => matches!(self.0, 0x00..=0x02 | 0x80),
            Version::V5 => {
                matches!(self.0, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2)
            }
        }
    }

    /// Those of an UNSUBACK ([MQTT-3.11.3-2]).
    pub(super) const fn answers_unsubscribe(self) -> bool {
        matches!(self.0, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
    }

    /// Those of a DISCONNECT, from either side ([MQTT-3.14.2-1]).
    pub(super) const fn disconnects(self) -> bool {
        self.client_disconnects() || matches!(self.0, 0x87 | 0x89 | 0x8B | 0x8D..=0x8F | 0x9A..=0xA2)
    }

    /// Those of a DISCONNECT that a client sends (3.14.2.1).
    pub(super) const fn client_disconnects(self) -> bool {
        matches!(self.0, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
    }

    /// Those of an AUTH, from either side ([MQTT-3.15.2-1]).
    pub(super) const fn authenticates(self) -> bool {
        matches!(self.0, 0x00 | 0x18 | 0x19)
    }
}
