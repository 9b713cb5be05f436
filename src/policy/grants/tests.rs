use proptest::prelude::*;

use super::*;

fn claims(json: &str) -> GrantClaims {
    serde_json::from_str(json).unwrap()
}

fn grants(json: &str) -> Grants {
    Grants::from_claims(&claims(json))
}

/// Join, listen, admin, as letters.
fn letters(rights: RoomRights) -> String {
    [(rights.join, 'j'), (rights.listen, 'l'), (rights.admin, 'a')]
        .iter()
        .filter(|(has, _)| *has)
        .map(|(_, c)| c)
        .collect()
}

#[test]
fn rooms_by_name_and_by_pattern_add_up() {
    let grants = grants(
        r#"{"rooms":{"demo":["join"],"standup-*":["listen"],"*-monday":["admin"],"standup-monday":["unheard-of"]}}"#,
    );
    for (room, rights) in [
        ("demo", "j"),
        ("demo2", ""),
        ("dem", ""),
        ("standup-", "l"),
        ("standup-friday", "l"),
        ("standup-monday", "jla"),
        ("retro-monday", "ja"),
        ("Demo", ""),
    ] {
        assert_eq!(letters(grants.room(room)), rights, "{room}");
    }
    assert_eq!(letters(grants.every_room()), "");
    assert!(grants.any_room());
}

#[test]
fn a_star_alone_is_every_room() {
    let grants = grants(r#"{"rooms":{"*":["listen"],"demo":["join"]}}"#);
    assert_eq!(letters(grants.every_room()), "l");
    assert_eq!(letters(grants.room("anything")), "l");
    assert_eq!(letters(grants.room("demo")), "jl");
}

#[test]
fn listening_or_nothing_is_no_room_to_join() {
    for (json, expected) in [
        ("{}", false),
        (r#"{"rooms":{"*":["listen"],"a":["listen"]}}"#, false),
        (r#"{"rooms":{"a/b":["join"]}}"#, false),
        (r#"{"rooms":{"a-*":["admin"]}}"#, true),
        (r#"{"rooms":{"*":["join"]}}"#, true),
    ] {
        assert_eq!(grants(json).any_room(), expected, "{json}");
    }
}

#[test]
fn filters_cover_what_is_asked() {
    let grants = grants(
        r#"{"publish":["app/alice/#","users/+/inbox"],"subscribe":["app/news/#","app/+/status"],"retain":["app/alice/#"]}"#,
    );
    for (topic, publish, retain) in [
        ("app/alice", true, true),
        ("app/alice/x/y", true, true),
        ("app/bob", false, false),
        ("users/bob/inbox", true, false),
        ("users/bob/errors", false, false),
    ] {
        assert_eq!((grants.may_publish(topic), grants.may_retain(topic)), (publish, retain), "{topic}");
    }
    for (filter, expected) in [
        ("app/news", true),
        ("app/news/+", true),
        ("app/news/#", true),
        ("app/+/status", true),
        ("app/bob/status", true),
        ("app/+", false),
        ("app/#", false),
        ("#", false),
        ("$SYS/#", false),
    ] {
        assert_eq!(grants.may_subscribe(filter), expected, "{filter}");
    }
}

#[test]
fn a_filter_granted_stays_away_from_dollar_topics() {
    let grants = grants(r##"{"publish":["#"],"subscribe":["#","+/x"]}"##);
    assert!(grants.may_publish("a/b") && grants.may_subscribe("#"));
    assert!(!grants.may_publish("$SYS/x") && !grants.may_subscribe("$SYS/#") && !grants.may_subscribe("$SYS/x"));
}

#[test]
fn what_is_misspelt_grants_nothing_and_is_reported() {
    let claims = claims(
        r##"{"rooms":{"a/b":["join"],"":["join"],"demo":["join","jion"],"idle":[]},"publish":["a#","","$share/g/a"],
            "subscribe":["ok/#"],"roles":["observe","admin"],"unheard-of":{"x":1}}"##,
    );
    assert_eq!(
        claims.problems(),
        [
            r#"rooms: "" can be no room: 1 to 64 bytes, no / + # or control character"#,
            r#"rooms: "a/b" can be no room: 1 to 64 bytes, no / + # or control character"#,
            r#"rooms: "demo": "jion" is not join, listen, admin or members=N"#,
            r#"rooms: "idle" has no right: join, listen or admin"#,
            r##"publish: "a#" is no topic filter"##,
            r#"publish: "" is no topic filter"#,
            r#"publish: "$share/g/a" is no topic filter"#,
            r#"roles: "admin" is not observe or service"#,
        ]
    );
    let grants = Grants::from_claims(&claims);
    assert_eq!(letters(grants.room("demo")), "j");
    assert!(!grants.may_publish("a") && grants.may_subscribe("ok/x") && grants.observe() && !grants.has_service());
    assert_eq!(GrantClaims::default().problems(), [""; 0]);
}

#[test]
fn what_is_absent_is_not_written() {
    assert_eq!(serde_json::to_string(&GrantClaims::default()).unwrap(), "{}");
    let json = r#"{"rooms":{"demo":["join"]},"roles":["service"]}"#;
    assert_eq!(serde_json::to_string(&claims(json)).unwrap(), json);
}

#[test]
fn open_mode_is_everything_but_other_peoples_own() {
    let open = Grants::open();
    assert_eq!(letters(open.every_room()), "jla");
    assert_eq!(letters(open.room("demo")), "jla");
    assert!(open.any_room() && open.observe() && !open.has_service());
    assert!(open.may_publish("app/x") && open.may_subscribe("app/#") && open.may_retain("app/x"));
    assert!(open.may_publish("users/bob/inbox") && !open.may_subscribe("users/bob/inbox"));
    assert!(!open.may_publish("users/bob/errors"));
}

#[test]
fn the_service_role_alone_opens_no_room() {
    let service = Grants::service();
    assert!(service.has_service() && !service.observe() && !service.any_room());
}

/// By the definition: the shortest run for each `*`, then longer ones.
fn oracle(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|run| oracle(rest, &text[run..])),
        Some((byte, rest)) => text.first() == Some(byte) && oracle(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn glob_is_what_it_says(pattern in "[ab*]{0,7}", text in "[ab]{0,9}") {
        prop_assert_eq!(glob(&pattern, &text), oracle(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn a_filter_granted_covers_only_topics_that_it_matches(
        granted in "[ab+]{1}(/[ab+]{1}){0,2}(/#)?", asked in "[ab+]{1}(/[ab+]{1}){0,2}(/#)?", name in "[ab](/[ab]){0,3}"
    ) {
        let claims = GrantClaims { subscribe: vec![granted.clone()], ..GrantClaims::default() };
        if Grants::from_claims(&claims).may_subscribe(&asked) && topic::matches(&asked, &name) {
            prop_assert!(topic::matches(&granted, &name));
        }
    }
}

#[test]
fn a_hostile_pattern_costs_no_more_than_its_length() {
    let pattern = "*a".repeat(32);
    let text = "a".repeat(31) + &"b".repeat(33);
    let start = std::time::Instant::now();
    assert!((0..1000).all(|_| !glob(&pattern, &text)));
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
}
