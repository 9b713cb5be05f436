//! MQTT 3.1.1 and 5.0 control packets: bytes in, borrowed packet or error with its clause out, and back.

mod decode;
mod direction;
mod encode;
mod filters;
mod packet;
mod properties;
mod reader;
mod reason;
pub mod topic;

pub use decode::{DecodeError, connect_level, decode};
pub use direction::check_from_client;
pub use encode::{PublishHeader, RECEIVED, SENDER, encode, publish_header};
pub use filters::{SubscribeFilters, UnsubscribeFilters};
pub use packet::*;
pub use properties::{PublishProperties, SubscriptionIds, UserProperties};
pub use reason::ReasonCode;

#[cfg(test)]
mod tests;
