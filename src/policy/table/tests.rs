use super::*;
use crate::{
    config::Pattern,
    policy::grants::{GrantClaims, Grants},
};

mod property;

use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

/// Somebody with everything that the table may ask about.
#[derive(Debug)]
struct Person {
    user: &'static str,
    client_id: &'static str,
    grants: Grants,
    claims: &'static [(&'static str, &'static str)],
    rooms: &'static [&'static str],
}

impl Person {
    fn new(user: &'static str, grants: &str) -> Self {
        let claims: GrantClaims = serde_json::from_str(grants).unwrap();
        assert_eq!(claims.problems(), [""; 0]);
        Self { user, client_id: "", grants: Grants::from_claims(&claims), claims: &[], rooms: &[] }
    }

    fn ask<T>(&self, question: impl FnOnce(&Who<'_>) -> T) -> T {
        let claim = |name: &str| self.claims.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
        let is_member = |room: &str| self.rooms.contains(&room);
        question(&Who {
            user: self.user,
            client_id: self.client_id,
            grants: &self.grants,
            claim: &claim,
            is_member: &is_member,
        })
    }

    fn publish<'t>(&self, table: &TopicTable, topic: &'t str) -> Result<PublishDecision<'t>, Why> {
        self.publish_as(table, topic, AtLeastOnce, false, 1)
    }

    fn publish_as<'t>(
        &self,
        table: &TopicTable,
        topic: &'t str,
        qos: QoS,
        retain: bool,
        size: usize,
    ) -> Result<PublishDecision<'t>, Why> {
        self.ask(|who| table.publish(who, topic, qos, retain, size)).map_err(|denied| denied.why)
    }

    fn subscribe<'f>(&self, table: &TopicTable, filter: &'f str) -> Result<SubscribeDecision<'f>, Why> {
        self.ask(|who| table.subscribe(who, filter, false, ExactlyOnce)).map_err(|denied| denied.why)
    }

    fn share<'f>(&self, table: &TopicTable, filter: &'f str) -> Result<SubscribeDecision<'f>, Why> {
        self.ask(|who| table.subscribe(who, filter, true, ExactlyOnce)).map_err(|denied| denied.why)
    }
}

const DEMO: &str = r#"{"rooms":{"demo":["join"]}}"#;

fn alice() -> Person {
    Person { rooms: &["demo"], ..Person::new("alice", DEMO) }
}

fn shipped() -> TopicTable {
    TopicTable::new(&TopicRows::default(), false)
}

fn open() -> TopicTable {
    TopicTable::new(&TopicRows::default(), true)
}

/// Somebody in open mode who is in no room.
fn passer_by(user: &'static str) -> Person {
    Person { grants: Grants::open(), ..Person::new(user, "{}") }
}

fn row(name: &str, filter: &str, publish: &[&str], subscribe: &[&str]) -> TopicRow {
    TopicRow {
        publish: Audience::parse(publish).unwrap(),
        subscribe: Audience::parse(subscribe).unwrap(),
        ..TopicRow::new(name, Pattern::parse(filter).unwrap())
    }
}

fn table(rows: Vec<TopicRow>) -> TopicTable {
    TopicTable::new(&TopicRows(rows), false)
}

fn names(table: &TopicTable, set: ClassSet) -> Vec<&str> {
    table.rows().filter(|(class, _)| set.contains(*class)).map(|(_, row)| &*row.name).collect()
}

#[test]
fn each_class_is_for_whom_it_is() {
    let table = shipped();
    let people = [
        ('a', alice()),
        ('b', Person::new("bob", DEMO)), // may join, and has not
        ('l', Person::new("lin", r#"{"rooms":{"demo":["listen"]}}"#)),
        ('m', Person::new("mod", r#"{"rooms":{"demo":["admin"]}}"#)),
        ('x', Person { rooms: &["other"], ..Person::new("xeno", r#"{"rooms":{"other":["admin"]}}"#) }),
        ('n', Person::new("nil", "{}")),
        ('o', Person::new("obs", r#"{"roles":["observe"]}"#)),
        ('s', Person::new("srv", r#"{"roles":["service"]}"#)),
        (
            'g',
            Person::new("gil", r#"{"publish":["app/alice/#","users/+/inbox"],"subscribe":["app/news/#","users/#"]}"#),
        ),
        ('t', Person { rooms: &["demo"], ..Person::new("alice~tab", DEMO) }),
    ];
    let everybody = |may: &dyn Fn(&Person) -> bool| -> String {
        people.iter().filter(|(_, person)| may(person)).map(|(letter, _)| letter).collect()
    };
    for (topic, publish, subscribe, join) in [
        ("rooms/demo/signal", "ast", "ablmot", "abmt"),
        ("rooms/demo/signal/alice", "ast", "ao", "a"),
        ("rooms/demo/signal/alice~tab", "ast", "ot", "t"),
        ("rooms/demo/signal/bob", "ast", "bo", "b"),
        ("rooms/demo/signal/lin", "ast", "o", ""),
        ("rooms/demo/signal/alice/x", "", "", ""),
        ("rooms/demo/chat", "ast", "ablmot", ""),
        ("rooms/demo/presence/alice", "a", "ablmot", ""),
        ("rooms/demo/presence/bob", "", "ablmot", ""),
        ("rooms/demo/state", "ast", "ablmot", ""),
        ("rooms/demo/state/board/1", "ast", "ablmot", ""),
        ("rooms/demo/control", "ms", "ablmot", ""),
        ("rooms/demo/other", "", "", ""),
        ("rooms/demo", "", "", ""),
        ("rooms", "", "", ""),
        ("rooms/other/signal", "xs", "xo", "x"),
        ("rooms/secret/signal/alice", "s", "o", ""),
        ("users/alice/inbox", "sg", "a", ""),
        ("users/alice/ice", "", "a", ""),
        ("users/nil/ice", "", "", ""),
        ("users/lin/ice", "", "", ""),
        ("users/alice/errors", "", "a", ""),
        ("users/gil/errors", "", "g", ""),
        ("users/alice/other", "", "", ""),
        ("users/alice", "", "", ""),
        ("users", "", "", ""),
        ("app", "s", "", ""),
        ("app/alice/x", "sg", "", ""),
        ("app/news/x", "s", "g", ""),
        ("events/room/opened", "", "os", ""),
        ("$SYS/uptime", "", "o", ""),
        ("$other", "", "", ""),
        ("anything", "", "", ""),
        ("", "", "", ""),
    ] {
        assert_eq!(everybody(&|person| person.publish(&table, topic).is_ok()), publish, "publish to {topic}");
        assert_eq!(everybody(&|person| person.subscribe(&table, topic).is_ok()), subscribe, "subscribe to {topic}");
        let joins = |person: &Person| person.subscribe(&table, topic).is_ok_and(|granted| granted.joins.is_some());
        assert_eq!(everybody(&joins), join, "join by {topic}");
    }
}

#[test]
fn each_class_has_its_qos_its_retain_and_its_size() {
    let table = shipped();
    let ada = Person {
        rooms: &["demo"],
        ..Person::new(
            "ada",
            r#"{"rooms":{"demo":["admin"]},"publish":["app/#","users/+/inbox"],"subscribe":["app/#"],"retain":["app/ada/#"]}"#,
        )
    };
    for (topic, cap, raise, retain, size) in [
        ("rooms/demo/signal", 1, true, Err(Why::Retain), Some(64 << 10)),
        ("rooms/demo/signal/bob", 1, true, Err(Why::Retain), Some(64 << 10)),
        ("rooms/demo/chat", 1, false, Err(Why::Retain), Some(8 << 10)),
        ("rooms/demo/presence/ada", 1, false, Ok(false), Some(4 << 10)),
        ("rooms/demo/state/x", 2, false, Ok(true), Some(64 << 10)),
        ("rooms/demo/control", 1, false, Err(Why::Retain), Some(4 << 10)),
        ("users/bob/inbox", 1, false, Err(Why::Retain), Some(64 << 10)),
        ("app/ada/x", 2, false, Ok(true), Some(64 << 10)),
        ("app/bob/x", 2, false, Err(Why::Retain), Some(64 << 10)),
    ] {
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let decision = ada.publish_as(&table, topic, qos, false, size.unwrap_or(usize::MAX)).unwrap();
            assert_eq!(decision.qos as u8, (qos as u8).min(cap), "{topic}");
            assert_eq!((decision.raise, decision.retain), (raise, false), "{topic}");
        }
        let retained = ada.publish_as(&table, topic, AtLeastOnce, true, 0);
        assert_eq!(retained.map(|decision| decision.retain), retain, "{topic}");
        if let Some(size) = size {
            assert_eq!(ada.publish_as(&table, topic, AtMostOnce, false, size + 1), Err(Why::Size), "{topic}");
        }
    }
    for (filter, cap) in [
        ("rooms/demo/signal", 1),
        ("rooms/demo/presence/+", 1),
        ("rooms/demo/state/#", 2),
        ("users/ada/errors", 0),
        ("app/#", 2),
    ] {
        assert_eq!(ada.subscribe(&table, filter).map(|granted| granted.qos as u8), Ok(cap), "{filter}");
    }
}

#[test]
fn payloads_are_what_the_class_asks_for() {
    let table = shipped();
    let kind = |topic: &str| table.row(table.class_of(topic).unwrap().id).payload;
    assert_eq!(kind("rooms/demo/signal/bob"), PayloadKind::Signal);
    assert_eq!(kind("rooms/demo/chat"), PayloadKind::Json);
    assert_eq!(kind("rooms/demo/state/x"), PayloadKind::Any);
    assert_eq!(alice().publish(&table, "rooms/demo/signal").map(|decision| decision.payload), Ok(PayloadKind::Signal));
}

#[test]
fn a_row_may_have_a_floor() {
    let mut precious = row("precious", "p", &["anyone"], &["anyone"]);
    precious.qos.min = AtLeastOnce;
    let table = table(vec![precious]);
    let refused = alice().ask(|who| table.publish(who, "p", AtMostOnce, false, 1)).unwrap_err();
    assert_eq!((refused.why, refused.why.reason()), (Why::Floor, ReasonCode::NOT_AUTHORIZED));
    assert!(alice().publish_as(&table, "p", AtLeastOnce, false, 1).is_ok());
    assert!(alice().subscribe(&table, "p").is_ok(), "a floor is for publishers");
}

#[test]
fn refusals_have_the_codes_of_the_protocol() {
    for (why, code) in [
        (Why::NoRow, 0x87),
        (Why::Publish, 0x87),
        (Why::NotJoined, 0x87),
        (Why::Retain, 0x87),
        (Why::Floor, 0x87),
        (Why::Subscribe, 0x87),
        (Why::Reach, 0x87),
        (Why::Shared, 0x87),
        (Why::Size, 0x97),
        (Why::TopicName, 0x90),
        (Why::FilterName, 0x8F),
    ] {
        assert_eq!(Refusal::from(Denied { class: None, why }).reason.0, code, "{why:?}");
    }
}

#[test]
fn who_may_join_and_has_not_is_told_so() {
    let table = shipped();
    let bob = Person::new("bob", DEMO);
    assert_eq!(bob.publish(&table, "rooms/demo/signal"), Err(Why::NotJoined));
    assert_eq!(bob.publish(&table, "rooms/demo/presence/bob"), Err(Why::NotJoined));
    assert_eq!(bob.publish(&table, "rooms/demo/presence/alice"), Err(Why::Publish));
    assert_eq!(bob.publish(&table, "rooms/demo/control"), Err(Why::Publish));
    assert_eq!(bob.publish(&table, "rooms/other/signal"), Err(Why::Publish));
    assert_eq!(alice().publish(&table, "rooms/demo/presence/bob"), Err(Why::Publish));
}

#[test]
fn what_is_no_name_is_refused_and_falls_through_to_no_other_row() {
    let table = open();
    let long = "x".repeat(65);
    for bad in ["", &long, "tab\t", "\u{7f}"] {
        for topic in [format!("rooms/{bad}/signal"), format!("rooms/demo/signal/{bad}"), format!("users/{bad}/inbox")] {
            assert_eq!(passer_by("eve").publish(&table, &topic), Err(Why::TopicName), "{topic:?}");
            assert_eq!(passer_by("eve").subscribe(&table, &topic), Err(Why::FilterName), "{topic:?}");
            assert_eq!(table.class_of(&topic), None, "{topic:?}");
        }
    }
    for odd in ["demo*", ".", "$x", "a b", "日本", "\u{202e}x"] {
        assert!(passer_by("eve").subscribe(&table, &format!("rooms/{odd}/signal")).is_ok(), "{odd:?}");
    }
}

#[test]
fn topics_know_their_class_and_their_names() {
    let table = open();
    let class = |topic| table.class_of(topic).map(|class| (&*table.row(class.id).name, class.room, class.user));
    assert_eq!(class("rooms/demo/signal"), Some(("signal", Some("demo"), None)));
    assert_eq!(class("rooms/demo/signal/bob"), Some(("signal-direct", Some("demo"), Some("bob"))));
    assert_eq!(class("users/bob/ice"), Some(("ice", None, Some("bob"))));
    assert_eq!(class("users/bob"), Some(("users", None, None)));
    assert_eq!(class("$SYS/x"), Some(("sys", None, None)));
    assert_eq!(class("flat"), Some(("open", None, None)));
    assert_eq!(class("$other/x"), None, "no wildcard stands for $ in front");
    assert_eq!(shipped().class_of("flat"), None);
}

#[test]
fn a_members_wildcard_is_granted_if_all_of_it_may_be_read() {
    let table = shipped();
    for filter in ["rooms/demo/presence/+", "rooms/demo/state/#", "rooms/demo/state/+", "rooms/demo/state/+/x/#"] {
        let granted = alice().subscribe(&table, filter).unwrap();
        assert_eq!((granted.joins, granted.visible), (None, ClassSet::ALL), "{filter}");
    }
    for filter in [
        "#",
        "+/+",
        "+/#",
        "rooms/#",
        "rooms/demo/#",
        "rooms/demo/+", // beside signal, chat and control, topics of no class
        "rooms/+/signal",
        "rooms/demo/presence/#",
        "rooms/demo/signal/+",
        "rooms/demo/signal/#",
        "rooms/+/signal/alice",
        "users/alice/#",
        "users/+/inbox",
        "+/alice/inbox",
        "$SYS/#",
        "events/#",
        "app/#",
    ] {
        assert_eq!(alice().subscribe(&table, filter), Err(Why::Reach), "{filter}");
    }
}

#[test]
fn rights_in_every_room_open_a_wildcard_for_rooms() {
    let table = shipped();
    let everywhere = Person::new("eve", r#"{"rooms":{"*":["join"]}}"#);
    assert_eq!(everywhere.subscribe(&table, "rooms/+/signal").map(|granted| granted.joins), Ok(None));
    assert!(everywhere.subscribe(&table, "rooms/+/presence/+").is_ok());
    assert!(everywhere.subscribe(&table, "rooms/+/state/#").is_ok());
    assert_eq!(everywhere.subscribe(&table, "rooms/+/signal/eve").map(|granted| granted.joins), Ok(None));
    assert_eq!(everywhere.subscribe(&table, "rooms/+/signal/+"), Err(Why::Reach));
    assert_eq!(everywhere.subscribe(&table, "rooms/#"), Err(Why::Reach));
    let many = Person::new("eve", r#"{"rooms":{"a*":["join"],"demo":["admin"]}}"#);
    assert_eq!(many.subscribe(&table, "rooms/+/signal"), Err(Why::Reach), "a pattern is not every room");
}

#[test]
fn an_observers_wildcard_is_granted_whole_and_shows_what_it_may_read() {
    let table = shipped();
    let observer = Person::new("obs", r#"{"roles":["observe"]}"#);
    let rooms = ["signal", "signal-direct", "chat", "presence", "state", "control"];
    for (filter, shown) in [
        ("#", [&rooms[..], &["events"]].concat()),
        ("rooms/#", rooms.to_vec()),
        ("rooms/demo/+", vec!["signal", "chat", "state", "control"]),
        ("+/demo/signal", vec!["signal", "events"]),
        ("users/+/inbox", vec![]),
        ("users/#", vec![]),
        ("app/#", vec![]),
        ("+", vec!["events"]), // `events/#` is also `events`
    ] {
        let granted = observer.subscribe(&table, filter);
        if shown.is_empty() {
            assert_eq!(granted, Err(Why::Reach), "{filter}");
        } else {
            assert_eq!(granted.map(|g| (g.joins, names(&table, g.visible))), Ok((None, shown)), "{filter}");
        }
    }
    for filter in ["$SYS/#", "events/#", "rooms/demo/signal/+"] {
        assert_eq!(observer.subscribe(&table, filter).map(|g| g.visible), Ok(ClassSet::ALL), "{filter}");
    }
    assert_eq!(
        observer.subscribe(&table, "users/obs/#").map(|g| names(&table, g.visible)),
        Ok(vec!["inbox", "errors"])
    );
}

#[test]
fn shared_subscriptions_are_judged_by_the_filter_inside() {
    let table = shipped();
    let observer = Person::new("obs", r#"{"roles":["observe"]}"#);
    let service = Person::new("srv", r#"{"roles":["service"],"rooms":{"*":["admin"]}}"#);
    let reader = Person::new("rea", r#"{"subscribe":["app/#"]}"#);
    assert_eq!(alice().share(&table, "rooms/demo/signal"), Err(Why::Shared));
    assert_eq!(alice().share(&table, "rooms/demo/presence/+"), Err(Why::Shared));
    assert_eq!(alice().share(&table, "users/alice/inbox"), Err(Why::Shared));
    assert_eq!(alice().share(&table, "#"), Err(Why::Reach));
    assert_eq!(observer.share(&table, "users/obs/inbox"), Err(Why::Shared));
    assert!(observer.share(&table, "rooms/#").is_ok());
    assert_eq!(observer.share(&table, "users/obs/#"), Err(Why::Reach));
    assert!(reader.share(&table, "app/x/#").is_ok());
    for person in [&service, &passer_by("eve")] {
        assert_eq!(person.share(&table, "rooms/demo/signal").map(|granted| granted.joins), Ok(None));
        assert_eq!(person.subscribe(&table, "rooms/demo/signal").map(|granted| granted.joins), Ok(Some("demo")));
    }
}

#[test]
fn grants_open_only_what_a_row_leaves_to_them() {
    let table = shipped();
    let greedy = Person::new("eve", r##"{"publish":["#"],"subscribe":["#","$SYS/#"],"retain":["#"]}"##);
    for topic in ["rooms/demo/signal", "users/bob/errors", "events/x", "$SYS/x", "flat"] {
        assert!(greedy.publish(&table, topic).is_err() && greedy.subscribe(&table, topic).is_err(), "{topic}");
    }
    assert!(greedy.publish(&table, "app/x").is_ok() && greedy.publish(&table, "users/bob/inbox").is_ok());
    assert!(greedy.subscribe(&table, "app/#").is_ok() && greedy.subscribe(&table, "users/bob/inbox").is_err());

    let narrow = Person::new("ned", r#"{"subscribe":["app/news"]}"#);
    let two =
        TopicTable::new(&TopicRows(vec![row("app", "app/#", &[], &["grant"]), row("x", "#", &[], &["anyone"])]), false);
    assert!(narrow.subscribe(&two, "+/news").is_ok(), "the grant covers what `+/news` has in `app/#`");
    assert_eq!(narrow.subscribe(&two, "+/other"), Err(Why::Reach));
}

#[test]
fn in_open_mode_everything_works_but_reading_what_is_somebodys_own() {
    let table = open();
    let eve = passer_by("eve");
    let all = eve.subscribe(&table, "#").unwrap();
    let shown = ["signal", "signal-direct", "chat", "presence", "state", "control", "app", "events", "open"];
    assert_eq!((names(&table, all.visible), all.qos, all.joins), (shown.to_vec(), ExactlyOnce, None));
    assert_eq!(eve.subscribe(&table, "$SYS/#").map(|granted| granted.visible), Ok(ClassSet::ALL));
    for filter in [
        "rooms/#",
        "rooms/demo/#",
        "+/+",
        "tutorial/#",
        "tutorial",
        "users/eve/#",
        "users/eve/errors",
        "rooms/demo/signal/bob",
    ] {
        assert!(eve.subscribe(&table, filter).is_ok(), "{filter}");
    }
    for filter in ["users/bob/inbox", "users/bob/#", "users/+/inbox", "users/#", "users/bob/other", "users/+/+"] {
        let granted = eve.subscribe(&table, filter).map(|granted| names(&table, granted.visible));
        assert!(granted.is_err(), "{filter}: {granted:?}");
    }
    assert_eq!(eve.subscribe(&table, "rooms/demo/signal").map(|granted| granted.joins), Ok(Some("demo")));
    assert_eq!(eve.subscribe(&table, "rooms/demo/signal/eve").map(|granted| granted.joins), Ok(Some("demo")));
    assert_eq!(eve.subscribe(&table, "rooms/demo/signal/bob").map(|granted| granted.joins), Ok(None));
    for (topic, size) in [("tutorial", 1 << 20), ("rooms/demo/of/my/own", 1 << 20), ("app/x", 64 << 10)] {
        let decision = eve.publish_as(&table, topic, ExactlyOnce, true, size).unwrap();
        assert_eq!((decision.qos, decision.retain), (ExactlyOnce, true), "{topic}");
    }
    for topic in ["users/bob/errors", "users/bob/other", "events/x", "$SYS/x", "$other"] {
        assert!(eve.publish(&table, topic).is_err(), "{topic}");
    }
    assert!(eve.publish(&table, "users/bob/inbox").is_ok());
}

#[test]
fn no_rows_deny_everything_in_every_mode() {
    for open in [false, true] {
        let table = TopicTable::new(&TopicRows(Vec::new()), open);
        let eve = passer_by("eve");
        for topic in ["rooms/demo/signal", "x", "users/eve/errors", "$SYS/x"] {
            assert_eq!(eve.publish(&table, topic), Err(Why::NoRow));
            assert_eq!(eve.subscribe(&table, topic), Err(Why::NoRow));
        }
        assert_eq!(eve.subscribe(&table, "#"), Err(Why::Reach));
        assert_eq!(table.max_qos(), AtMostOnce);
    }
}

#[test]
fn client_ids_and_claims_choose_the_row() {
    let table = table(vec![
        row("own", "devices/{client}/#", &["anyone"], &["anyone"]),
        row("tenant", "tenants/{claim:tenant}/+", &["service"], &["anyone"]),
        row("devices", "devices/#", &["nobody"], &["service", "observe"]),
        row("tenants", "tenants/#", &["nobody"], &["nobody"]),
    ]);
    let device = Person { client_id: "d1", claims: &[("tenant", "acme")], ..Person::new("dev", "{}") };
    let published = device.publish(&table, "devices/d1/x").unwrap();
    assert_eq!((published.class, published.shown_as), (ClassId(0), Some(ClassId(2))));
    assert_eq!(device.publish(&table, "devices/d2/x"), Err(Why::Publish));
    assert!(device.subscribe(&table, "devices/d1/#").is_ok() && device.subscribe(&table, "devices/d1").is_ok());
    assert_eq!(device.subscribe(&table, "devices/+/x"), Err(Why::Reach));
    assert_eq!(device.subscribe(&table, "devices/d2/x"), Err(Why::Subscribe));
    assert!(device.subscribe(&table, "tenants/acme/+").is_ok());
    assert_eq!(device.subscribe(&table, "tenants/umbrella/news"), Err(Why::Subscribe));
    assert_eq!(device.subscribe(&table, "tenants/+/news"), Err(Why::Reach));

    let observer = Person { client_id: "o1", ..Person::new("obs", r#"{"roles":["observe"]}"#) };
    assert_eq!(observer.subscribe(&table, "devices/#").map(|granted| granted.visible), Ok(ClassSet::ALL));
    assert_eq!(observer.subscribe(&table, "#").map(|granted| names(&table, granted.visible)), Ok(vec!["devices"]));
    assert_eq!(observer.subscribe(&table, "tenants/acme/news"), Err(Why::Subscribe), "it has no such claim");

    for odd in ["", "+", "#", "a/b", "$SYS"] {
        let odd = Person { client_id: odd, ..Person::new("odd", "{}") };
        assert_eq!(odd.subscribe(&table, "devices/+/#"), Err(Why::Reach), "{}", odd.client_id);
        assert_eq!(odd.publish(&table, "devices//x"), Err(Why::Publish), "{}", odd.client_id);
    }
}

#[test]
fn what_is_one_clients_own_is_not_shown_by_way_of_a_wider_row() {
    let table = table(vec![
        row("own", "devices/{client}/#", &["anyone"], &["nobody"]),
        row("devices", "devices/#", &["nobody"], &["observe"]),
    ]);
    let observer = Person { client_id: "o1", ..Person::new("obs", r#"{"roles":["observe"]}"#) };
    assert_eq!(observer.subscribe(&table, "#"), Err(Why::Reach));
    assert!(observer.subscribe(&table, "devices/o2/#").is_ok());
}

#[test]
fn the_highest_qos_is_that_of_the_table() {
    let mut calm = row("calm", "#", &["anyone"], &["anyone"]);
    calm.qos.max = AtLeastOnce;
    assert_eq!(table(vec![calm]).max_qos(), AtLeastOnce);
    assert_eq!(shipped().max_qos(), ExactlyOnce);
}

#[test]
fn a_decision_can_be_explained() {
    let table = shipped();
    let bob = Person::new("bob", DEMO);
    let publish = bob.ask(|who| table.explain_publish(who, "rooms/demo/signal/alice", AtLeastOnce, false, 1));
    assert_eq!(
        publish.to_string(),
        r#"publish to "rooms/demo/signal/alice": refused with 0x87, join the room first, by a subscription to its signal topic
   1. signal         rooms/{room}/signal         does not match
   2. signal-direct  rooms/{room}/signal/{user}  matches; publish: member no, service no
"#
    );
    let subscribe = bob.ask(|who| table.explain_subscribe(who, "rooms/secret/signal/bob", false, AtLeastOnce));
    assert_eq!(
        subscribe.to_string(),
        r#"subscribe to "rooms/secret/signal/bob": refused with 0x87, not allowed to subscribe to this topic
   1. signal         rooms/{room}/signal         does not match
   2. signal-direct  rooms/{room}/signal/{user}  matches all of it; subscribe: self+join no (not join), observe no
"#
    );
    let joins = bob.ask(|who| table.explain_subscribe(who, "rooms/demo/signal", false, ExactlyOnce));
    assert_eq!(
        joins.to_string(),
        r#"subscribe to "rooms/demo/signal": allowed, at QoS 1, joins "demo"
   1. signal  rooms/{room}/signal  matches all of it; subscribe: join yes, listen no, observe no
"#
    );
    let shared = bob.ask(|who| table.explain_subscribe(who, "rooms/demo/signal", true, ExactlyOnce));
    assert!(shared.to_string().ends_with("listen no, observe no; not shared\n"), "{shared}");
    let odd = bob.ask(|who| table.explain_publish(who, "rooms//signal", AtLeastOnce, false, 1));
    assert!(odd.to_string().ends_with("matches; what should name a room or a user is no name\n"), "{odd}");
    let nowhere = bob.ask(|who| table.explain_publish(who, "flat", AtLeastOnce, false, 1));
    assert!(nowhere.to_string().ends_with("      no row matches\n"), "{nowhere}");
    let wide = bob.ask(|who| table.explain_subscribe(who, "rooms/demo/+", false, AtLeastOnce));
    assert!(wide.to_string().ends_with("      no row allows the rest\n"), "{wide}");
    let observer = Person::new("obs", r#"{"roles":["observe"]}"#);
    let part = observer.ask(|who| table.explain_subscribe(who, "+/demo/chat", false, ExactlyOnce)).to_string();
    assert!(part.starts_with("subscribe to \"+/demo/chat\": allowed, at QoS 1, shows chat, events alone\n"), "{part}");
    let published =
        alice().ask(|who| table.explain_publish(who, "rooms/demo/signal", ExactlyOnce, false, 1)).to_string();
    let how = "allowed, as signal, delivered at QoS 1, raised to the subscription's\n";
    assert!(published.starts_with(&format!("publish to \"rooms/demo/signal\": {how}")), "{published}");
}

#[test]
fn depth_makes_no_difference() {
    let fifteen = "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o";
    let table = table(vec![
        row("sixteen", &format!("{fifteen}/p"), &["anyone"], &["anyone"]),
        row("below", &format!("{fifteen}/#"), &["anyone"], &["anyone"]),
        row("one", "one", &["anyone"], &["anyone"]),
    ]);
    let class = |topic: &str| table.class_of(topic).map(|class| class.id.0);
    assert_eq!(class(&format!("{fifteen}/p")), Some(0));
    for below in ["", "/q", "/p/q", "/p/q/r", "/p/q/r/s/t/u/v/w"] {
        assert_eq!(class(&format!("{fifteen}{below}")), Some(1), "{below}");
        assert!(alice().subscribe(&table, &format!("{fifteen}{below}/#")).is_ok(), "{below}");
    }
    assert_eq!(class("a/b"), None);
    assert_eq!(class("one/#"), None);
    assert_eq!(class(&"/x".repeat(10_000)), None);
    assert_eq!(alice().subscribe(&table, &"+/".repeat(10_000)), Err(Why::Reach));
    assert_eq!(alice().subscribe(&table, &format!("{}#", "+/".repeat(16))), Err(Why::Reach));
}
