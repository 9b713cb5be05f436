//! The index against an oracle that is too simple to be wrong, and what the oracle cannot see.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index as Pick;

use super::{Index, SubscriberId};

/// Whether `filter` matches `topic`, read off section 4.7.
pub(in crate::hub) fn filter_matches(filter: &str, topic: &str) -> bool {
    fn levels_match(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels_match(filter, topic),
            ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && levels_match(filter, topic),
            _ => false,
        }
    }
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    levels_match(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}

/// How many nodes a tree of exactly these paths has.
pub(in crate::hub) fn distinct_prefixes<'a>(paths: impl Iterator<Item = &'a str>) -> usize {
    let mut prefixes = BTreeSet::new();
    for path in paths {
        prefixes.extend(path.match_indices('/').map(|(end, _)| &path[..end]));
        prefixes.insert(path);
    }
    // An empty first level is the prefix "", which the set holds like any other.
    prefixes.len()
}

/// A level of a topic name: few enough to meet again, and numbers to make some nodes wide.
fn level() -> impl Strategy<Value = String> {
    const WORDS: [&str; 8] = ["", "a", "b", "$SYS", "$", "ü", "日本語", "a level that does not fit in place"];
    prop_oneof![3 => prop::sample::select(&WORDS[..]).prop_map(String::from), 2 => (0..30u8).prop_map(|n| n.to_string())]
}

pub(in crate::hub) fn topic() -> impl Strategy<Value = String> {
    // A topic name has at least one character [MQTT-4.7.3-1].
    prop::collection::vec(level(), 1..4).prop_map(|levels| levels.join("/")).prop_filter("empty", |t| !t.is_empty())
}

pub(in crate::hub) fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
    (prop::collection::vec(level, 0..4), prop::bool::weighted(0.2))
        .prop_map(|(levels, multi_level)| levels.into_iter().chain(multi_level.then(|| "#".to_owned())))
        .prop_map(|levels| levels.collect::<Vec<_>>().join("/"))
        .prop_filter("empty", |filter| !filter.is_empty())
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Key),
    Remove(Key),
    /// Removes one of the subscriptions that exist.
    RemoveHeld(Pick),
    Match(String),
    /// Matches a topic made from a filter that exists.
    MatchHeld(Pick),
}

#[derive(Debug, Clone, PartialEq)]
struct Key {
    group: Option<String>,
    filter: String,
    id: SubscriberId,
}

fn key() -> impl Strategy<Value = Key> {
    let group = prop::option::weighted(0.3, (0..12u8).prop_map(|n| format!("group {n}")));
    (group, filter(), 0..60u64).prop_map(|(group, filter, id)| Key { group, filter, id: SubscriberId(id) })
}

/// Keys at one filter of a few, so that sets of subscribers and of groups become large.
fn crowded_key() -> impl Strategy<Value = Key> {
    let filter = prop::sample::select(&["a/b", "#"][..]);
    (key(), filter).prop_map(|(key, filter)| Key { filter: filter.to_owned(), ..key })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => key().prop_map(Step::Insert),
        8 => crowded_key().prop_map(Step::Insert),
        1 => prop_oneof![key(), crowded_key()].prop_map(Step::Remove),
        5 => any::<Pick>().prop_map(Step::RemoveHeld),
        2 => topic().prop_map(Step::Match),
        2 => any::<Pick>().prop_map(Step::MatchHeld),
    ]
}

/// The index beside a plain list of what it should hold. A subscription's value is the number of the step that made it.
#[derive(Default)]
struct Pair {
    index: Index<usize>,
    list: Vec<(Key, usize)>,
}

impl Pair {
    fn insert(&mut self, key: &Key, value: usize) {
        let expected = match self.list.iter_mut().find(|(held, _)| held == key) {
            Some((_, held)) => Some(std::mem::replace(held, value)),
            None => {
                self.list.push((key.clone(), value));
                None
            }
        };
        let replaced = match &key.group {
            Some(group) => self.index.insert_shared(group, &key.filter, key.id, value),
            None => self.index.insert(&key.filter, key.id, value),
        };
        assert_eq!(replaced, expected);
    }

    fn remove(&mut self, key: &Key) {
        let place = self.list.iter().position(|(held, _)| held == key);
        let expected = place.map(|place| self.list.swap_remove(place).1);
        let removed = match &key.group {
            Some(group) => self.index.remove_shared(group, &key.filter, key.id),
            None => self.index.remove(&key.filter, key.id),
        };
        assert_eq!(removed, expected);
    }

    /// Compares subscribers one by one, and of each group the members that take turns.
    fn check_match(&self, topic: &str) {
        let mut met = Vec::new();
        let mut groups_met = Vec::new();
        self.index.matches(topic, &mut |node| {
            met.extend(node.subscribers().iter().copied());
            for group in node.shared_groups() {
                let mut members = group.members().to_vec();
                assert!(group.next_start() < members.len());
                members.sort();
                groups_met.push(members);
            }
        });

        let mut expected = Vec::new();
        let mut groups = std::collections::BTreeMap::<_, Vec<_>>::new();
        for (key, value) in self.list.iter().filter(|(key, _)| filter_matches(&key.filter, topic)) {
            match &key.group {
                Some(group) => groups.entry((group, &key.filter)).or_default().push((key.id, *value)),
                None => expected.push((key.id, *value)),
            }
        }
        let mut groups_expected: Vec<_> = groups.into_values().collect();
        groups_expected.iter_mut().for_each(|members| members.sort());

        met.sort();
        expected.sort();
        groups_met.sort();
        groups_expected.sort();
        assert_eq!(met, expected, "subscribers of {topic:?}");
        assert_eq!(groups_met, groups_expected, "shared subscriptions of {topic:?}");
    }

    fn check_size(&self) {
        assert_eq!(self.index.len(), self.list.len());
        assert_eq!(self.index.is_empty(), self.list.is_empty());
        let filters = self.list.iter().map(|(key, _)| key.filter.as_str());
        assert_eq!(self.index.node_count(), distinct_prefixes(filters));
    }
}

proptest! {
    #[test]
    fn behaves_as_a_list_of_filters(steps in prop::collection::vec(step(), 0..300)) {
        let mut pair = Pair::default();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(key) => pair.insert(&key, number),
                Step::Remove(key) => pair.remove(&key),
                Step::Match(topic) => pair.check_match(&topic),
                Step::RemoveHeld(pick) if !pair.list.is_empty() => {
                    let key = pick.get(&pair.list).0.clone();
                    pair.remove(&key);
                }
                Step::MatchHeld(pick) if !pair.list.is_empty() => {
                    let topic = pick.get(&pair.list).0.filter.replace('+', "b").replace('#', "c/d");
                    pair.check_match(&topic);
                }
                Step::RemoveHeld(_) | Step::MatchHeld(_) => {}
            }
            pair.check_size();
        }
        while let Some((key, _)) = pair.list.first().cloned() {
            pair.remove(&key);
            pair.check_size();
        }
        prop_assert_eq!(pair.index.node_count(), 0);
    }
}

/// Whether `filter` can match a topic that begins with the levels of `path`, and, if that is asked, names one of them.
fn filter_reaches(filter: &str, path: &str, named: Option<usize>) -> bool {
    fn levels_meet(filter: &[&str], path: &[&str]) -> bool {
        match (filter, path) {
            (["#"], _) | (_, []) => true,
            ([], _) => false,
            ([level, filter @ ..], [wanted, path @ ..]) => {
                (level == wanted || *level == "+" || *wanted == "+") && levels_meet(filter, path)
            }
        }
    }
    let (levels, path): (Vec<_>, Vec<_>) = (filter.split('/').collect(), path.split('/').collect());
    levels_meet(&levels, &path) && named.is_none_or(|named| levels.get(named) == path.get(named))
}

proptest! {
    #[test]
    fn what_reaches_below_a_path_is_what_a_list_says(
        filters in prop::collection::vec(prop_oneof![filter(), filter().prop_map(|below| format!("a/b/{below}"))], 0..60),
        path in prop::collection::vec(prop_oneof![4 => level(), 1 => Just("+".to_owned())], 1..4),
        named in any::<Option<Pick>>(),
    ) {
        let (named, path) = (named.map(|pick| pick.index(path.len())), path.join("/"));
        // A level that is to be named is one.
        let named = named.filter(|named| path.split('/').nth(*named) != Some("+"));
        let mut index = Index::new();
        for filter in &filters {
            index.insert(filter, SubscriberId(1), filter.as_str());
        }
        for path in [path.as_str(), "a/b", "a/+"] {
            let named = named.filter(|named| path.split('/').nth(*named).is_some_and(|level| level != "+"));
            let mut met = Vec::new();
            index.reaching(path, named, &mut |node| met.extend(node.subscribers().iter().map(|(_, filter)| *filter)));
            met.sort_unstable();
            let mut expected: Vec<_> =
                filters.iter().map(String::as_str).filter(|filter| filter_reaches(filter, path, named)).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(met, expected, "below {:?}, of which {:?} is named", path, named);
        }
    }
}

#[test]
fn what_names_a_room_is_told_from_what_spans_rooms() {
    let all = ["#", "+/r/x", "rooms/#", "rooms/+/x", "rooms/r", "rooms/r/#", "rooms/r/x", "rooms/s/x", "other/r/x"];
    let mut index = Index::new();
    for filter in all {
        index.insert(filter, SubscriberId(1), filter);
    }
    let reaching = |named| {
        let mut met = Vec::new();
        index.reaching("rooms/r", named, &mut |node| met.extend(node.subscribers().iter().map(|(_, filter)| *filter)));
        met.sort_unstable();
        met
    };
    assert_eq!(reaching(Some(1)), ["+/r/x", "rooms/r", "rooms/r/#", "rooms/r/x"]);
    assert_eq!(reaching(None), ["#", "+/r/x", "rooms/#", "rooms/+/x", "rooms/r", "rooms/r/#", "rooms/r/x"]);
}

/// The filters that match `topic`, of those given.
fn matching<'a>(filters: &[&'a str], topic: &str) -> Vec<&'a str> {
    let mut index = Index::new();
    for filter in filters {
        index.insert(filter, SubscriberId(1), *filter);
    }
    let mut met = Vec::new();
    index.matches(topic, &mut |node| met.extend(node.subscribers().iter().map(|(_, filter)| *filter)));
    met.sort();
    met
}

#[test]
fn matches_the_examples_of_section_4_7() {
    let tennis = "sport/tennis/player1";
    assert_eq!(
        matching(&["sport/tennis/player1/#", "sport/#", "#"], tennis),
        ["#", "sport/#", "sport/tennis/player1/#"]
    );
    assert_eq!(
        matching(&["sport/tennis/player1/#"], "sport/tennis/player1/score/wimbledon"),
        ["sport/tennis/player1/#"]
    );
    assert_eq!(matching(&["sport/#", "sport/+", "sport/+/#"], "sport"), ["sport/#"]);
    assert_eq!(matching(&["sport/+", "sport/#"], "sport/"), ["sport/#", "sport/+"]);
    assert_eq!(matching(&["+", "/+", "+/+"], "/finance"), ["+/+", "/+"]);
    assert_eq!(matching(&["ACCOUNTS", "Accounts"], "Accounts"), ["Accounts"]);
    assert_eq!(matching(&["/a//b/", "/a/+/b/+", "/a/b"], "/a//b/"), ["/a/+/b/+", "/a//b/"]);
}

#[test]
fn wildcards_do_not_match_a_leading_dollar() {
    // [MQTT-4.7.2-1]
    let filters = ["#", "+/#", "+/monitor/Clients", "$SYS/#", "$SYS/monitor/+"];
    assert_eq!(matching(&filters, "$SYS/monitor/Clients"), ["$SYS/#", "$SYS/monitor/+"]);
    assert_eq!(matching(&["a/+", "a/#"], "a/$b"), ["a/#", "a/+"]);
}

#[test]
fn members_of_a_group_take_turns() {
    let mut index = Index::new();
    for id in 0..3 {
        assert_eq!(index.insert_shared("workers", "jobs/+", SubscriberId(id), ()), None);
    }
    let mut chosen = Vec::new();
    for _ in 0..6 {
        index.matches("jobs/1", &mut |node| {
            assert!(node.subscribers().is_empty());
            chosen.extend(node.shared_groups().map(|group| group.members()[group.next_start()].0.0));
        });
    }
    assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_shared_and_a_plain_subscription_are_two() {
    let (mut index, me) = (Index::new(), SubscriberId(1));
    assert_eq!(index.insert("a", me, 1), None);
    assert_eq!(index.insert_shared("g", "a", me, 2), None);
    assert_eq!(index.insert_shared("h", "a", me, 3), None);
    assert_eq!((index.len(), index.node_count()), (3, 1));
    assert_eq!(index.remove_shared("g", "a", me), Some(2));
    assert_eq!(index.remove_shared("g", "a", me), None);
    assert_eq!(index.remove("a", me), Some(1));
    assert_eq!(index.remove_shared("h", "a", me), Some(3));
    assert_eq!((index.len(), index.node_count()), (0, 0));
}

#[test]
fn ten_thousand_subscribers_of_one_filter_come_and_go() {
    let mut index = Index::new();
    for id in 0..10_000 {
        assert_eq!(index.insert("news", SubscriberId(id), id), None);
    }
    assert_eq!(index.insert("news", SubscriberId(77), 77), Some(77));
    assert_eq!((index.len(), index.node_count()), (10_000, 1));
    for id in (0..10_000).rev().filter(|id| id % 3 != 0) {
        assert_eq!(index.remove("news", SubscriberId(id)), Some(id));
    }
    let mut left = Vec::new();
    index.matches("news", &mut |node| left.extend(node.subscribers().iter().map(|(_, id)| *id)));
    left.sort();
    assert_eq!(left, (0..10_000).step_by(3).collect::<Vec<_>>());
    for id in left {
        assert_eq!(index.remove("news", SubscriberId(id)), Some(id));
    }
    assert_eq!((index.len(), index.node_count()), (0, 0));
}

#[test]
fn the_deepest_filter_there_is_overflows_no_stack() {
    let (deepest, me) = ("/".repeat(65_535), SubscriberId(1));
    let mut index = Index::new();
    index.insert(&deepest, me, ());
    assert_eq!(index.node_count(), 65_536);
    let mut met = 0;
    index.matches(&deepest, &mut |_| met += 1);
    assert_eq!(met, 1);
    assert_eq!(index.remove(&deepest, me), Some(()));
    assert_eq!(index.node_count(), 0);
    index.insert(&deepest, me, ());
    drop(index);
}

#[test]
fn matching_branches_a_thousand_levels_deep() {
    let mut index = Index::new();
    for depth in 0..1_000 {
        index.insert(&format!("{}a", "+/".repeat(depth)), SubscriberId(1), depth);
    }
    let mut met = Vec::new();
    index.matches(&vec!["a"; 1_000].join("/"), &mut |node| {
        met.extend(node.subscribers().iter().map(|(_, depth)| *depth))
    });
    assert_eq!(met, [999]);
}
