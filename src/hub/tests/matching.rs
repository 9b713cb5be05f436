//! Whatever shard or index a filter lies in, a topic that it matches finds it.

use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    hub::{
        is_wide,
        testing::{CLEAN, LIMITS, World},
        two_levels,
    },
    wire::mqtt::topic,
};

fn name() -> impl Strategy<Value = String> {
    vec(select(vec!["", "a", "b", "$x", "é"]), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("not empty, not ours", |name| !name.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    (vec(select(vec!["", "a", "b", "$x", "é", "+", "+"]), 1..5), any::<bool>())
        .prop_map(|(mut levels, rest)| {
            if rest {
                levels.pop();
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("valid", |filter| topic::valid_filter(filter))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_topic_reaches_exactly_who_subscribed_to_a_filter_that_matches(
        filters in vec(filter(), 1..8),
        names in vec(name(), 1..8),
        shared: bool,
    ) {
        let world = World::with(crate::hub::HubLimits { retained_bytes: 100_000, retained_messages: 1000, ..LIMITS });
        let asked = |filter: &String| if shared { format!("$share/group/{filter}") } else { filter.clone() };
        let peers: Vec<_> = filters.iter().enumerate().map(|(index, filter)| {
            let peer = world.connect(&format!("client {index}"), CLEAN);
            // A group of one each where it is shared, or only one of two equal filters would get it.
            let filter = asked(filter).replace("group", &format!("group{index}"));
            world.subscribe(&peer, &filter).unwrap();
            (peer, filter)
        }).collect();
        for name in &names {
            let expected: Vec<_> = filters.iter().map(|filter| topic::matches(filter, name)).collect();
            let found = world.publish(name);
            let got: Vec<_> = peers.iter().map(|(peer, _)| peer.received() == [format!("{name}@1")]).collect();
            prop_assert_eq!(&got, &expected, "{:?} on {:?}", name, filters);
            prop_assert_eq!(found, expected.contains(&true));
            // [MQTT-3.3.1-9] finds the same the other way round.
            world.retain(name, b"kept", None).unwrap();
            peers.iter().for_each(|(peer, _)| drop(peer.received()));
            let late = world.connect("late", CLEAN);
            for (filter, expected) in filters.iter().zip(&expected) {
                world.subscribe(&late, filter).unwrap();
                prop_assert_eq!(late.received().len(), usize::from(*expected));
                world.unsubscribe(&late, filter);
            }
            world.disconnect(&late, crate::hub::End::Normal);
            world.retain(name, b"", None).unwrap();
            peers.iter().for_each(|(peer, _)| drop(peer.received()));
        }
        for (peer, filter) in &peers {
            prop_assert!(world.unsubscribe(peer, filter));
            prop_assert!(!world.unsubscribe(peer, filter));
        }
        prop_assert_eq!(world.hub.held().index_nodes, 0);
        peers.iter().for_each(|(peer, _)| world.disconnect(peer, crate::hub::End::Normal));
        world.assert_empty();
    }

    #[test]
    fn a_filter_that_is_not_wide_lies_in_the_shard_of_every_topic_it_matches(filter in filter(), name in name()) {
        if topic::matches(&filter, &name) && !is_wide(&filter) {
            prop_assert_eq!(two_levels(&filter), two_levels(&name));
        }
    }
}

#[test]
fn the_first_two_levels_decide() {
    for (topic, levels) in [("a", "a"), ("a/b", "a/b"), ("a/b/c", "a/b"), ("/", "/"), ("//c", "/"), ("a//", "a/")] {
        assert_eq!(two_levels(topic), levels);
    }
    for (filter, wide) in [
        ("#", true),
        ("+/x", true),
        ("rooms/+/y", true),
        ("a/#", true),
        ("a/b/#", false),
        ("a/b/+", false),
        ("a", false),
    ] {
        assert_eq!(is_wide(filter), wide, "{filter}");
    }
}
