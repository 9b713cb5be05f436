//! QoS 0, 1 and 2, both ways (4.3).

use crate::harness::*;

/// [MQTT-4.3.1-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8], [MQTT-3.8.4-8]
#[test]
fn the_lower_of_both_qos_is_delivered() {
    everywhere(|version, transport| {
        let broker = Broker::start();
        let mut publisher = broker.connect(Client::new(version, "p").over(transport));
        for granted in 0..=2 {
            let mut subscriber = broker.connect(Client::new(version, "s").over(transport));
            assert_eq!(subscriber.subscribe("t", granted), granted);
            for sent in 0..=2 {
                assert_eq!(publisher.publish(Message::new("t", "m").qos(sent)), 0);
                assert_eq!(subscriber.expect_message().gist(), ("t", "m", sent.min(granted), false));
            }
            subscriber.expect_nothing();
        }
    });
}
