//! What happens between the connections of this process.

pub mod index;
pub mod retained;
pub mod timers;
