//! The server's own figures as retained messages below `$SYS/broker`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Dirty, Hub};
use crate::wire::mqtt::QoS;

impl Hub {
    /// Publishes the `$SYS` topics every `interval`; runs until it is dropped.
    pub async fn publish_sys(self: Arc<Self>, interval: Duration, connections: impl Fn() -> usize) {
        self.publish_value("$SYS/broker/version", concat!("wigwag ", env!("CARGO_PKG_VERSION")));
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let held = self.held();
            let figures = [
                ("$SYS/broker/uptime", self.started.elapsed().as_secs() as usize),
                ("$SYS/broker/clients/connected", connections()),
                ("$SYS/broker/clients/total", held.sessions),
                ("$SYS/broker/subscriptions/count", held.subscriptions),
                ("$SYS/broker/retained messages/count", held.retained),
            ];
            for (topic, value) in figures {
                self.publish_value(topic, &value.to_string());
            }
        }
    }

    fn publish_value(&self, topic: &str, value: &str) {
        let mut dirty = Dirty::default();
        self.publish_own(topic, value.as_bytes(), QoS::AtMostOnce, true, &mut dirty);
        dirty.flush(self, Instant::now());
    }
}
