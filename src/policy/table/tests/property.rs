//! Random tables, people and filters against the definitions, topic by topic: every topic of up to three levels.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::wire::mqtt::topic;

const LEVELS: [&str; 5] = ["a", "b", "z", "$x", "no\tname"];

fn topics() -> Vec<String> {
    let mut topics: Vec<String> = LEVELS.map(String::from).into();
    let mut longest = topics.clone();
    for _ in 0..2 {
        longest = longest.iter().flat_map(|head| LEVELS.map(|level| format!("{head}/{level}"))).collect();
        topics.extend_from_slice(&longest);
    }
    topics
}

fn filters(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
    (vec(select(levels), 1..=3), any::<bool>()).prop_map(|(levels, open_ended)| {
        let filter = levels.join("/");
        match open_ended {
            true if levels.len() == 1 && levels[0] == "+" => "#".into(),
            true => filter + "/#",
            false => filter,
        }
    })
}

fn audiences() -> impl Strategy<Value = Audience> {
    const WORDS: [&str; 12] = [
        "self",
        "member",
        "join",
        "listen",
        "admin",
        "grant",
        "observe",
        "service",
        "anyone",
        "nobody",
        "self+join",
        "member+observe",
    ];
    vec(select(&WORDS[..]), 1..=3).prop_map(|words| Audience::parse(&words).unwrap())
}

fn rows() -> impl Strategy<Value = TopicRow> {
    const LEVELS: [&str; 9] = ["a", "b", "$x", "{room}", "{user}", "{client}", "{claim:t}", "+", "a"];
    (filters(&LEVELS), audiences(), audiences()).prop_filter_map(
        "a placeholder twice",
        |(filter, publish, subscribe)| {
            Some(TopicRow { publish, subscribe, ..TopicRow::new("x", Pattern::parse(&filter).ok()?) })
        },
    )
}

fn people() -> impl Strategy<Value = Person> {
    let rooms =
        select(&[r#""a":["join"]"#, r#""*":["listen"]"#, r#""b":["admin"],"a":["join"]"#, r#""*":["admin"]"#, ""][..]);
    let roles = select(&["", r#""observe""#, r#""service""#, r#""observe","service""#][..]);
    const MEMBERS: [&[&str]; 4] = [&["a"], &["b"], &["a", "b"], &[]];
    let members = select(&MEMBERS[..]);
    let grants = vec(filters(&["a", "b", "$x", "+"]), 0..3);
    (rooms, roles, members, grants, select(&["a", "b", "$x"][..])).prop_map(
        |(rooms, roles, members, filters, client_id)| {
            let filters = serde_json::to_string(&filters).unwrap();
            let grants =
                format!(r#"{{"rooms":{{{rooms}}},"roles":[{roles}],"subscribe":{filters},"publish":{filters}}}"#);
            Person { rooms: members, client_id, claims: &[("t", "b")], ..Person::new("a", &grants) }
        },
    )
}

/// What a person may do with one topic, by the words of the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Yes,
    No,
    /// A level that should be a name is none.
    Nameless,
}

fn verdict(rows: &[TopicRow], person: &Person, name: &str, subscribe: bool) -> Verdict {
    for row in rows {
        let written = row.filter.to_string();
        let (mut filter, mut room, mut user) = (Vec::new(), None, None);
        for (n, level) in written.split('/').enumerate() {
            let here = name.split('/').nth(n);
            match level {
                "{room}" => (room, _) = (here, filter.push("+")),
                "{user}" => (user, _) = (here, filter.push("+")),
                "{client}" => filter.push(person.client_id),
                "{claim:t}" => filter.push("b"),
                level => filter.push(level),
            }
        }
        let first_is_a_placeholder = written.starts_with('{');
        if !topic::matches(&filter.join("/"), name) || (first_is_a_placeholder && name.starts_with('$')) {
            continue;
        }
        if [room, user].into_iter().flatten().any(|name| name.contains('\t')) {
            return Verdict::Nameless;
        }
        let rights = room.map(|room| person.grants.room(room));
        let holds = |word: Word| match word {
            Word::Oneself => user == Some("a"),
            Word::Member => room.is_some_and(|room| person.grants.room(room).join && person.rooms.contains(&room)),
            Word::Join => rights.map_or(person.grants.any_room(), |rights| rights.join),
            // Without {room} the reader of the configuration takes neither; here they mean every room.
            Word::Listen => rights.unwrap_or(person.grants.every_room()).listen,
            Word::Admin => rights.unwrap_or(person.grants.every_room()).admin,
            Word::Grant if subscribe => person.grants.may_subscribe(name),
            Word::Grant => person.grants.may_publish(name),
            Word::Observe => person.grants.observe(),
            Word::Service => person.grants.has_service(),
            Word::Anyone => true,
            Word::Broker | Word::Nobody => false,
        };
        let audience = if subscribe { &row.subscribe } else { &row.publish };
        let among = audience.combinations().iter().any(|combination| combination.words().all(holds));
        return if among { Verdict::Yes } else { Verdict::No };
    }
    Verdict::No
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_filter_granted_shows_a_topic_that_is_denied(
        rows in vec(rows(), 1..6), person in people(), filter in filters(&["a", "b", "z", "$x", "+", "no\tname"]), shared: bool
    ) {
        let table = TopicTable::new(&TopicRows(rows.clone()), false);
        let granted = if shared { person.share(&table, &filter) } else { person.subscribe(&table, &filter) };
        let Ok(granted) = granted else { return Ok(()) };
        for name in topics().iter().filter(|name| topic::matches(&filter, name)) {
            let shown = granted.visible == ClassSet::ALL
                || table.class_of(name).is_some_and(|class| granted.visible.contains(class.id));
            if shown {
                prop_assert_ne!(verdict(&rows, &person, name, true), Verdict::No, "{} shows {}", filter, name);
            }
        }
    }

    #[test]
    fn a_wildcard_is_refused_for_a_reason(
        rows in vec(rows(), 1..4), person in people(), filter in filters(&["a", "b", "+"])
    ) {
        // Where every row is for everybody, nothing but an uncovered rest is a reason.
        let rows: Vec<_> = rows
            .into_iter()
            .map(|row| TopicRow { subscribe: Audience::parse(&["anyone"]).unwrap(), ..row })
            .collect();
        let table = TopicTable::new(&TopicRows(rows.clone()), false);
        let covered = rows.iter().any(|row| !row.filter.is_bound() && row.filter.covers(&Pattern::parse(&filter).unwrap()));
        if covered {
            prop_assert!(person.subscribe(&table, &filter).is_ok(), "{}", filter);
        }
    }

    #[test]
    fn what_filter_and_row_have_in_common_is_what_both_match(row in rows(), filter in filters(&["a", "b", "$x", "+"])) {
        let person = Person { client_id: "a", claims: &[("t", "b")], ..Person::new("a", "{}") };
        person.ask(|who| {
            let common = place::overlap(&row.filter, &Levels::of_filter(&filter), who);
            let both = |name: &str| {
                topic::matches(&filter, name) && place::matches(&row.filter, &Levels::of_topic(name), Some(who)).is_some()
            };
            prop_assert_eq!(common.is_some(), topics().iter().any(|name| both(name)), "{} {}", &row.filter, &filter);
            let Some(common) = common else { return Ok(()) };
            let met = place::meet(&row.filter, &filter, who);
            for name in topics() {
                let placeholder_first = row.filter.is_shy() && name.starts_with('$');
                prop_assert_eq!(topic::matches(&met, &name), both(&name), "{} {} {} {}", &row.filter, &filter, &met, &name);
                if common.covers && topic::matches(&filter, &name) && !placeholder_first {
                    prop_assert!(both(&name), "{} {} {}", &row.filter, &filter, &name);
                }
            }
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn one_topic_is_granted_to_whom_it_is_for_and_to_nobody_else(rows in vec(rows(), 1..6), person in people()) {
        let table = TopicTable::new(&TopicRows(rows.clone()), false);
        for name in topics() {
            let expected = verdict(&rows, &person, &name, true);
            let found = match person.subscribe(&table, &name) {
                Ok(granted) => {
                    prop_assert_eq!(granted.visible, ClassSet::ALL);
                    Verdict::Yes
                }
                Err(Why::FilterName) => Verdict::Nameless,
                Err(_) => Verdict::No,
            };
            prop_assert_eq!(found, expected, "subscribe to {}", &name);
            let expected = verdict(&rows, &person, &name, false);
            let found = match person.publish(&table, &name) {
                Ok(_) => Verdict::Yes,
                Err(Why::TopicName) => Verdict::Nameless,
                Err(_) => Verdict::No,
            };
            prop_assert_eq!(found, expected, "publish to {}", &name);
            let explained = person.ask(|who| table.explain_publish(who, &name, AtLeastOnce, false, 1));
            prop_assert_eq!(explained.verdict.is_ok(), expected == Verdict::Yes, "{}", explained);
        }
    }
}
