//! Matching against a naive oracle: all filters of up to three levels with all names of up to four.

use proptest::prelude::*;

use super::*;

/// All sequences of one to `most` levels.
fn sequences(levels: &[&'static str], most: usize) -> Vec<Vec<&'static str>> {
    let mut all = Vec::new();
    let mut longest = vec![vec![]];
    for _ in 0..most {
        longest =
            longest.iter().flat_map(|head| levels.iter().map(move |level| [&head[..], &[*level]].concat())).collect();
        all.extend_from_slice(&longest);
    }
    all
}

/// 4.7.1 and 4.7.2 word by word.
fn oracle(filter: &[&str], name: &[&str]) -> bool {
    if name[0].starts_with('$') && matches!(filter[0], "+" | "#") {
        return false;
    }
    let alike = |levels: &[&str]| levels.iter().zip(name).all(|(f, n)| *f == "+" || f == n);
    match filter {
        [parent @ .., "#"] => name.len() >= parent.len() && alike(parent),
        _ => filter.len() == name.len() && alike(filter),
    }
}

#[test]
fn matches_covers_and_overlaps_as_every_name_says() {
    // No filter has a level `z`: whatever two of them differ in shows in some name.
    let names: Vec<_> = sequences(&["", "a", "b", "$x", "z"], 4).into_iter().filter(|name| name != &[""]).collect();
    let mut filters = Vec::new();
    for levels in sequences(&["", "a", "b", "$x", "+", "#"], 3) {
        let filter = levels.join("/");
        if !valid_filter(&filter) {
            continue;
        }
        let matched: Vec<bool> = names.iter().map(|name| oracle(&levels, name)).collect();
        for (name, &matched) in names.iter().zip(&matched) {
            assert_eq!(matches(&filter, &name.join("/")), matched, "{filter} {name:?}");
        }
        filters.push((filter, matched));
    }
    for (one, ours) in &filters {
        for (other, theirs) in &filters {
            let both = || ours.iter().zip(theirs);
            assert_eq!(covers(one, other), both().all(|(ours, theirs)| *ours || !theirs), "{one} {other}");
            assert_eq!(overlaps(one, other), both().any(|(ours, theirs)| *ours && *theirs), "{one} {other}");
        }
    }
}

proptest! {
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
