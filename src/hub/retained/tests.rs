//! The store against a plain map and the matcher that the index is tested with.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index as Pick;

use super::Retained;
use crate::hub::index::tests::{distinct_prefixes, filter, filter_matches, topic};

#[derive(Debug, Clone)]
enum Step {
    Set(String),
    Clear(String),
    /// Clears one of the topics that have a message.
    ClearHeld(Pick),
    Search(String),
    /// Forgets every message whose number leaves this remainder by three.
    Sweep(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => topic().prop_map(Step::Set),
        2 => topic().prop_map(Step::Clear),
        8 => any::<Pick>().prop_map(Step::ClearHeld),
        10 => filter().prop_map(Step::Search),
        1 => (0..3usize).prop_map(Step::Sweep),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_map_of_topics(steps in prop::collection::vec(step(), 0..200)) {
        let mut store = Retained::new();
        let mut map = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set(topic) => {
                    let message = (topic.clone(), number);
                    prop_assert_eq!(store.set(&topic, message.clone()), map.insert(topic, message));
                }
                Step::Clear(topic) => prop_assert_eq!(store.clear(&topic), map.remove(&topic)),
                Step::ClearHeld(_) if map.is_empty() => {}
                Step::ClearHeld(pick) => {
                    let topic = map.keys().nth(pick.index(map.len())).cloned().unwrap_or_default();
                    prop_assert_eq!(store.get(&topic), map.get(&topic));
                    prop_assert_eq!(store.clear(&topic), map.remove(&topic));
                }
                Step::Search(filter) => {
                    let mut found = Vec::new();
                    store.matching(&filter, &mut |message| found.push(message));
                    found.sort();
                    let expected: Vec<_> = map.values().filter(|(topic, _)| filter_matches(&filter, topic)).collect();
                    prop_assert_eq!(found, expected);
                }
                Step::Sweep(remainder) => {
                    let before = map.len();
                    map.retain(|_, (_, number)| *number % 3 != remainder);
                    prop_assert_eq!(store.sweep(|(_, number)| number % 3 == remainder), before - map.len());
                }
            }
            prop_assert_eq!(store.len(), map.len());
            prop_assert_eq!(store.node_count(), distinct_prefixes(map.keys().map(String::as_str)));
        }
        for (topic, message) in map {
            prop_assert_eq!(store.clear(&topic), Some(message));
        }
        prop_assert!(store.is_empty());
        prop_assert_eq!(store.node_count(), 0);
    }
}

#[test]
fn finds_what_a_filter_matches_among_many() {
    let mut store = Retained::new();
    for room in 0..1_000 {
        for user in ["ada", "bob"] {
            let topic = format!("rooms/{room}/presence/{user}");
            store.set(&topic, topic.clone());
        }
    }
    store.set("$SYS/broker/uptime", "$SYS/broker/uptime".to_owned());
    let count = |filter: &str| {
        let mut found = 0;
        store.matching(filter, &mut |topic| {
            assert!(filter_matches(filter, topic), "{topic} is not what {filter} matches");
            found += 1;
        });
        found
    };
    assert_eq!(count("rooms/7/presence/+"), 2);
    assert_eq!(count("rooms/+/presence/ada"), 1_000);
    assert_eq!(count("rooms/7/#"), 2);
    assert_eq!(count("rooms/7/presence/ada/#"), 1);
    assert_eq!(count("#"), 2_000);
    assert_eq!(count("+/broker/uptime"), 0);
    assert_eq!(count("$SYS/#"), 1);
    assert_eq!(count("rooms/7"), 0);
}

#[test]
fn a_swept_store_keeps_what_has_not_expired() {
    let mut store = Retained::new();
    for room in 0..1_000 {
        store.set(&format!("rooms/{room}/state/slide"), room);
    }
    assert_eq!(store.sweep(|room| room % 100 != 0), 990);
    assert_eq!(store.len(), 10);
    assert_eq!(store.get("rooms/300/state/slide"), Some(&300));
    assert_eq!(store.get("rooms/301/state/slide"), None);
    assert_eq!(store.node_count(), 1 + 10 * 3);
    assert_eq!(store.sweep(|_| true), 10);
    assert_eq!(store.node_count(), 0);
}

#[test]
fn the_deepest_topic_there_is_overflows_no_stack() {
    let deepest = "/".repeat(65_535);
    let mut store = Retained::new();
    store.set(&deepest, ());
    let mut found = 0;
    store.matching("#", &mut |()| found += 1);
    store.matching(&deepest, &mut |()| found += 1);
    assert_eq!(found, 2);
    assert_eq!(store.clear(&deepest), Some(()));
    store.set(&deepest, ());
    drop(store);
}

#[test]
fn a_sweep_goes_a_thousand_levels_deep() {
    let mut store = Retained::new();
    store.set(&"/".repeat(1_000), ());
    assert_eq!(store.sweep(|()| true), 1);
    assert_eq!(store.node_count(), 0);
}
