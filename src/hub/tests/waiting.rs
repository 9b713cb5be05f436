//! How long what is said in a room waits for who is away.

use crate::{
    config::RoomsConfig,
    hub::{
        End,
        testing::{CLEAN, KEPT, LIMITS, World},
    },
};

#[test]
fn a_signal_waits_half_a_minute_and_chat_as_long_as_the_session() {
    for (seconds, expected) in [
        (29, &["rooms/demo/signal@1", "rooms/demo/signal/away@1", "rooms/demo/chat@1"][..]),
        (31, &["rooms/demo/chat@1"]),
    ] {
        let mut world = World::shipped(LIMITS, RoomsConfig::default());
        let speaker = world.try_connect("speaker", "speaker", CLEAN).unwrap();
        world.subscribe(&speaker, "rooms/demo/signal/speaker").unwrap();
        // One who takes no place, so that there is no stay that would end before.
        let away = world.try_connect("away", "away", KEPT).unwrap();
        world.subscribe(&away, "rooms/demo/#").unwrap();
        assert_eq!(away.received(), ["rooms/demo/presence/speaker@1 retained"]);
        world.disconnect(&away, End::Lost);
        for topic in ["rooms/demo/signal", "rooms/demo/signal/away", "rooms/demo/chat"] {
            world.publish_as(&speaker, topic, br#"{"username":"speaker"}"#, false).unwrap();
        }
        world.wait(seconds);
        let away = world.try_connect("away", "away", KEPT).unwrap();
        assert!(away.present);
        world.hub.flush(&away.session, None, world.now);
        assert_eq!(away.received(), expected, "after {seconds} s");
    }
}
