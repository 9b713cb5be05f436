//! MQTT 3.1.1 and 5.0 control packets: bytes in, borrowed packet or error with its clause out, and back.

mod decode;
mod encode;
mod packet;
mod properties;
mod reason;
pub mod topic;

pub use decode::{DecodeError, decode};
pub use encode::{PublishHeader, encode, publish_header};
pub use packet::*;
pub use properties::{PublishProperties, SubscriptionIds, UserProperties};
pub use reason::ReasonCode;
