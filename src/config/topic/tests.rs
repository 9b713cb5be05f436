use super::*;

#[test]
fn patterns_are_read_and_written_back() {
    for text in
        ["#", "+", "a", "/", "//a", "rooms/{room}/signal/{user}", "{room}", "d/{client}/+/{claim:tenant}/#", "$SYS/#"]
    {
        assert_eq!(Pattern::parse(text).map(|pattern| pattern.to_string()), Ok(text.into()));
    }
}

#[test]
fn what_is_no_pattern_says_what_is_wrong() {
    let table = [
        ("", "", "a topic filter"),
        ("a/#/b", "a/#/b", "a topic filter"),
        ("a+", "a+", "a topic filter"),
        ("rooms/{rom}", "{rom}", "{room}, {user}"),
        ("rooms/x{room}", "x{room}", "{room}, {user}"),
        ("rooms/{room", "{room", "{room}, {user}"),
        ("rooms/}", "}", "{room}, {user}"),
        ("{claim:}", "{claim:}", "{room}, {user}"),
        ("{claim:{a}}", "{claim:{a}}", "{room}, {user}"),
        ("{Room}", "{Room}", "{room}, {user}"),
        ("{room}/{room}", "{room}/{room}", "{room} and {user} at most once"),
        (
            "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/#",
            "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/#",
            "a topic filter of at most 16 levels",
        ),
    ];
    for (text, found, allowed) in table {
        let error = Pattern::parse(text).expect_err(text);
        assert_eq!(error.found, found, "{text}");
        assert!(error.allowed.starts_with(allowed), "{text}: {}", error.allowed);
    }
}

#[test]
fn a_pattern_covers_what_it_always_matches() {
    let covers = |outer, inner| shipped::pattern(outer).covers(&shipped::pattern(inner));
    for (outer, inner) in [
        ("#", "#"),
        ("#", "rooms/{room}"),
        ("+/#", "#"),
        ("{room}/#", "#"),
        ("{room}", "+"),
        ("+", "{user}"),
        ("{user}/a", "{room}/a"),
        ("a/#", "a"),
        ("a/#", "a/#"),
        ("a/#", "a/+/{client}"),
        ("{client}", "{client}"),
        ("+", "{client}"),
        ("{claim:a}/x", "{claim:a}/x"),
        ("$SYS/#", "$SYS/a"),
    ] {
        assert!(covers(outer, inner), "{outer} {inner}");
    }
    for (outer, inner) in [
        ("a", "b"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/+", "a/#"),
        ("a/+", "a"),
        ("+", "#"),
        ("a", "+"),
        ("a", "{room}"),
        ("{client}", "+"),
        ("{client}", "a"),
        ("{claim:a}", "{claim:b}"),
        ("{client}", "{claim:a}"),
        ("#", "$SYS/a"),
        ("+/a", "$SYS/a"),
        ("{room}/a", "$SYS/a"),
    ] {
        assert!(!covers(outer, inner), "{outer} {inner}");
    }
}

#[test]
fn words_combine_in_any_order() {
    assert_eq!(Combination::parse("join+self"), Combination::parse("self+join"));
    assert_eq!(Combination::parse("join+self").map(|both| both.to_string()), Some("self+join".into()));
    let words = "self member join listen admin grant observe service anyone broker nobody";
    for word in words.split(' ') {
        assert_eq!(Combination::parse(word).map(|alone| alone.to_string()), Some(word.into()));
    }
    for bad in ["", "+", "self+", "self+self", "Self", "member+anyone", "nobody+self", "broker+service", "self join"] {
        assert_eq!(Combination::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_row_is_shown_as_it_would_be_written() {
    let row = TopicRow { size: None, ..TopicRow::new("x", shipped::pattern("app/{user}/#")) };
    assert_eq!(
        row.to_string(),
        "name = \"x\"\n\
         filter = \"app/{user}/#\"\n\
         publish = [\"nobody\"]\n\
         subscribe = [\"nobody\"]\n\
         joins = false\n\
         qos = { max = 2, min = 0, raise = false }\n\
         retain = \"never\"\n\
         retain_per_room = 0\n\
         payload = \"any\"\n\
         size = 0\n\
         rate = { messages = 100, bytes = \"256KiB\", burst = \"6s\" }\n"
    );
}
