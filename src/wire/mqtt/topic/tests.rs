//! Matching against a naive oracle: every name of up to five levels over an alphabet that leaves a level for `+` to
//! match alone.

use proptest::prelude::*;

use super::*;
use std::sync::LazyLock;

const LEVELS: [&str; 5] = ["", "a", "b", "$x", "z"];

/// All names of one to five levels; `z` is never in a filter, so whatever two filters differ in shows in some name.
static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut all: Vec<String> = Vec::new();
    let mut longest: Vec<String> = LEVELS.map(String::from).to_vec();
    for _ in 0..5 {
        let longer = longest.iter().flat_map(|name| LEVELS.map(|level| format!("{name}/{level}"))).collect();
        all.append(&mut std::mem::replace(&mut longest, longer));
    }
    all.retain(|name| valid_name(name));
    all
});

/// 4.7.1 and 4.7.2 word by word.
fn oracle(filter: &str, name: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    if name[0].starts_with('$') && matches!(filter[0], "+" | "#") {
        return false;
    }
    let parent = filter.len() - 1;
    if filter[parent] == "#" {
        return name.len() >= parent && filter[..parent].iter().zip(&name).all(|(f, n)| *f == "+" || f == n);
    }
    filter.len() == name.len() && filter.iter().zip(&name).all(|(f, n)| *f == "+" || f == n)
}

fn filters() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["", "a", "b", "$x", "+", "+"]);
    (prop::collection::vec(level, 1..4), any::<bool>())
        .prop_map(|(mut levels, all)| {
            if all {
                *levels.last_mut().unwrap() = "#";
            }
            levels.join("/")
        })
        .prop_filter("an empty filter", |filter| valid_filter(filter))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn matches_as_the_specification_says(filter in filters()) {
        for name in NAMES.iter() {
            prop_assert_eq!(matches(&filter, name), oracle(&filter, name), "{} {}", filter, name);
        }
    }

    #[test]
    fn covers_exactly_what_every_name_says(outer in filters(), inner in filters()) {
        let all = NAMES.iter().filter(|name| oracle(&inner, name)).all(|name| oracle(&outer, name));
        prop_assert_eq!(covers(&outer, &inner), all, "{} {}", outer, inner);
    }

    #[test]
    fn overlaps_exactly_where_some_name_does(one in filters(), other in filters()) {
        let any = NAMES.iter().any(|name| oracle(&one, name) && oracle(&other, name));
        prop_assert_eq!(overlaps(&one, &other), any, "{} {}", one, other);
        prop_assert_eq!(overlaps(&other, &one), any);
    }

    #[test]
    fn a_filter_without_wildcards_is_a_name(text in "[ab$+#/]{0,6}") {
        prop_assume!(!text.starts_with("$share/"));
        prop_assert_eq!(valid_name(&text), valid_filter(&text) && !text.contains(['+', '#']));
    }

    #[test]
    fn nothing_panics(one in "[ab$+#/\0é]{0,8}", other in "[ab$+#/\0é]{0,8}") {
        matches(&one, &other);
        covers(&one, &other);
        overlaps(&one, &other);
        split_share(&format!("$share/{one}"));
    }
}

#[test]
fn filters_valid_and_not() {
    for filter in ["#", "+", "/", "//", "+/+", "/+", "a/#", "+/#", "$SYS/#", "a b", "$share", "$shared/a", "é/+/ü"] {
        assert_eq!(check_filter(filter), Ok(()), "{filter}");
    }
    for filter in ["$share/g/a", "$share/g/#", "$share/g//", "$share/g/+/a", "$share/g/$share/h/a"] {
        assert_eq!(check_filter(filter), Ok(()), "{filter}");
    }
    use FilterError::*;
    for (filter, fault) in [
        ("", Empty),
        ("a\0", Nul),
        ("a#", MultiLevel),
        ("#/a", MultiLevel),
        ("a/#/b", MultiLevel),
        ("##", MultiLevel),
        ("a/b#", MultiLevel),
        ("+#", SingleLevel),
        ("a+", SingleLevel),
        ("+a", SingleLevel),
        ("a/+b/c", SingleLevel),
        ("++", SingleLevel),
        ("$share/", ShareName),
        ("$share//a", ShareName),
        ("$share/+/a", ShareName),
        ("$share/a#/a", ShareName),
        ("$share/g", ShareFilter),
        ("$share/g/", ShareFilter),
        ("$share/g/a#", MultiLevel),
        ("$share/g/a+/b", SingleLevel),
    ] {
        assert_eq!(check_filter(filter), Err(fault), "{filter}");
    }
    assert_eq!(check_filter(&"a".repeat(MAX_LEN + 1)), Err(TooLong));
    assert!(valid_filter(&"a".repeat(MAX_LEN)));
}

#[test]
fn names_valid_and_not() {
    for name in ["a", "/", "//", " ", "a//b", "$SYS/x", "$share/g/a", "é"] {
        assert!(valid_name(name), "{name}");
    }
    for name in ["", "+", "#", "a/#", "a+b", "a\0"] {
        assert!(!valid_name(name), "{name}");
    }
}

#[test]
fn shared_subscriptions_are_split_at_the_group() {
    assert_eq!(split_share("$share/g/a/#"), Some(("g", "a/#")));
    assert_eq!(split_share("$share/g//"), Some(("g", "/")));
    for filter in ["a", "$share", "$share/g", "$share/g/", "$share//a", "$share/g/a#", "$shared/g/a"] {
        assert_eq!(split_share(filter), None, "{filter}");
    }
}

#[test]
fn wildcards_as_in_the_specification() {
    // 4.7.1.2, 4.7.1.3
    for name in ["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"] {
        assert!(matches("sport/tennis/player1/#", name));
    }
    assert!(matches("sport/#", "sport") && matches("sport/tennis/+", "sport/tennis/player1"));
    assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking") && !matches("sport/+", "sport"));
    assert!(matches("sport/+", "sport/") && matches("+/+", "/finance") && matches("/+", "/finance"));
    assert!(!matches("+", "/finance"));
    // [MQTT-4.7.2-1]
    assert!(!matches("#", "$SYS/a") && !matches("+/monitor/Clients", "$SYS/monitor/Clients"));
    assert!(matches("$SYS/#", "$SYS/a") && matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
    // [MQTT-4.7.3-4]
    assert!(!matches("ACCOUNTS", "Accounts"));
}
