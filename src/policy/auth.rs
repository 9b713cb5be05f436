//! Who a connection is: tokens, their keys, and what there is besides.

pub mod keys;
pub mod token;

pub use super::identity::{Credentials, Expiry, Identity};
