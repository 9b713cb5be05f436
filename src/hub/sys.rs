//! The server's own figures as retained messages below `$SYS/broker`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Dirty, Hub, Message, Parts, SubscriberId};
use crate::{
    policy::PublishPermit,
    wire::mqtt::{PublishProperties, QoS},
};

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
        let now = Instant::now();
        let message = Message::new(
            &Parts {
                topic,
                payload: value.as_bytes(),
                qos: QoS::AtMostOnce,
                retain: true,
                raise: false,
                properties: &PublishProperties::default(),
                publisher: SubscriberId::SERVER,
            },
            now,
        );
        let mut dirty = Dirty::default();
        // With the retained store full these values are not kept; the next round tries again.
        let _ = self.publish(PublishPermit::server(message), now, &mut dirty);
        dirty.flush(self, now);
    }
}
