//! What the backplane asks the hub.

use super::{Hub, two_levels};

impl Hub {
    /// Whether that is what is retained on `topic` already.
    pub(crate) fn retains(&self, topic: &str, payload: &[u8]) -> bool {
        let shard = self.shard(two_levels(topic)).lock();
        shard.retained.get(topic).is_some_and(|retained| retained.message.payload() == payload)
    }

    /// Whether some connection is that user's. Walks all sessions.
    pub(crate) fn is_connected(&self, user: &str) -> bool {
        self.sessions().iter().any(|session| *session.user == *user && session.lock().connected())
    }
}
