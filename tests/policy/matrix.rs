//! The denial matrix: the shipped table, as PROTOCOL has it, for every kind of client.
//!
//! Each table below has a line for a topic and a column for a kind of client, whose name stands for `ME`:
//!
//! | column | who | |
//! |---|---|---|
//! | member | alice | may join demo, and has |
//! | join | carol | may join demo, and has not |
//! | listen | larry | may listen in demo |
//! | admin | ada | moderates demo, and has not joined |
//! | other | oscar | may join another room, and has |
//! | nobody | nina | has a token without any grant |
//! | app | paul | publishes to `app/paul/#` and inboxes, retains `app/paul/#`, reads `app/news/#` |
//! | observe, service | olga, sam | have that role |
//! | phone | alice~phone | a device of alice's, which has joined demo |
//! | open+, open- | mia, stan | in open mode: has joined demo, has not |
//!
//! `.` is refused (0x87), `x99` refused with that code; a number is allowed, and the QoS that comes of asking for 2, or
//! with `^` that of any publish, because it is raised or the server's; `~` is taken, and nothing comes of it.
//!
//! Every line is tried with 3.1.1, 5.0 and, in the columns with tokens, a client inside the process of the same grants.
//! An observer of everything, bob, who is a member, and the same user's errors topic say what came of it.

use std::time::Duration;

use serde_json::{Value, json};
use wigwag::{ClientError, QoS, auth::GrantClaims};

use crate::{harness::*, people::*};

const PUBLISH: &str = "
                         member join listen admin other nobody app observe service phone open+ open-
rooms/demo/signal            ^1    .      .     .     .      .   .       .      ^1    ^1    ^1    ^1
rooms/demo/signal/ME         ^1    .      .     .     .      .   .       .      ^1    ^1    ^1    ^1
rooms/demo/signal/bob        ^1    .      .     .     .      .   .       .      ^1    ^1    ^1    ^1
rooms/demo/chat               1    .      .     .     .      .   .       .       1     1     1     1
rooms/demo/presence/ME       ^1    .      .     .     .      .   .       .       .    ^1    ^1     .
rooms/demo/presence/bob       .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/state/x            2    .      .     .     .      .   .       .       2     2     2     2
rooms/demo/control            .    .      .     1     .      .   .       .       1     .     1     1
users/ME/inbox                .    .      .     .     .      .   1       .       1     .     1     1
users/bob/inbox               .    .      .     .     .      .   1       .       1     .     1     1
users/ME/ice                  .    .      .     .     .      .   .       .       .     .     .     .
users/ME/errors               .    .      .     .     .      .   .       .       .     .     .     .
users/bob/errors              .    .      .     .     .      .   .       .       .     .     .     .
users/ME/more                 .    .      .     .     .      .   .       .       .     .     .     .
app/paul/x                    .    .      .     .     .      .   2       .       2     .     2     2
app/other                     .    .      .     .     .      .   .       .       2     .     2     2
events/member/joined          .    .      .     .     .      .   .       .       .     .     .     .
$SYS/x                        .    .      .     .     .      .   .       .       .     .     .     .
flat/topic                    .    .      .     .     .      .   .       .       .     .     2     2
";

/// A retained message, and its clearing.
const RETAIN: &str = "
                         member join listen admin other nobody app observe service phone open+ open-
rooms/demo/signal             .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/signal/ME          .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/chat               .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/presence/ME       ^1    .      .     .     .      .   .       .       .    ^1    ^1     .
rooms/demo/presence/bob       .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/state/x            2    .      .     .     .      .   .       .       2     2     2     2
rooms/demo/control            .    .      .     .     .      .   .       .       .     .     .     .
users/ME/inbox                .    .      .     .     .      .   .       .       .     .     .     .
users/bob/inbox               .    .      .     .     .      .   .       .       .     .     .     .
users/ME/errors               .    .      .     .     .      .   .       .       .     .     .     .
app/paul/x                    .    .      .     .     .      .   2       .       .     .     2     2
app/other                     .    .      .     .     .      .   .       .       .     .     2     2
events/member/joined          .    .      .     .     .      .   .       .       .     .     .     .
$SYS/x                        .    .      .     .     .      .   .       .       .     .     .     .
flat/topic                    .    .      .     .     .      .   .       .       .     .     2     2
";

/// At CONNECT, as if its sender had joined; a number says that it is taken.
const WILL: &str = "
                         member join listen admin other nobody app observe service phone open+ open-
rooms/demo/signal             1    1      .     1     .      .   .       .       1     1     1     1
rooms/demo/signal/bob         1    1      .     1     .      .   .       .       1     1     1     1
rooms/demo/chat               1    1      .     1     .      .   .       .       1     1     1     1
rooms/demo/presence/ME        .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/presence/bob       .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/state/x            1    1      .     1     .      .   .       .       1     1     1     1
rooms/demo/control            .    .      .     .     .      .   .       .       .     .     .     .
users/ME/inbox                .    .      .     .     .      .   1       .       1     .     1     1
users/bob/inbox               .    .      .     .     .      .   1       .       1     .     1     1
users/ME/errors               .    .      .     .     .      .   .       .       .     .     .     .
app/paul/x                    .    .      .     .     .      .   1       .       1     .     1     1
events/member/left            .    .      .     .     .      .   .       .       .     .     .     .
$SYS/x                        .    .      .     .     .      .   .       .       .     .     .     .
flat/topic                    .    .      .     .     .      .   .       .       .     .     1     1
";

const RETAINED_WILL: &str = "
                         member join listen admin other nobody app observe service phone open+ open-
rooms/demo/signal           x9A  x9A      .   x9A     .      .   .       .     x9A   x9A   x9A   x9A
rooms/demo/chat             x9A  x9A      .   x9A     .      .   .       .     x9A   x9A   x9A   x9A
rooms/demo/presence/ME        .    .      .     .     .      .   .       .       .     .     .     .
rooms/demo/state/x            1    1      .     1     .      .   .       .       1     1     1     1
users/bob/inbox               .    .      .     .     .      . x9A       .     x9A     .   x9A   x9A
app/paul/x                    .    .      .     .     .      .   1       .     x9A     .     1     1
flat/topic                    .    .      .     .     .      .   .       .       .     .     1     1
";

const SUBSCRIBE: &str = "
                         member join listen admin other nobody app observe service phone open+ open-
rooms/demo/signal             1    1      1     1     .      .   .       1       .     1     1     1
rooms/demo/signal/ME          1    1      .     1     .      .   .       1       .     1     1     1
rooms/demo/signal/bob         .    .      .     .     .      .   .       1       .     .     1     1
rooms/demo/chat               1    1      1     1     .      .   .       1       .     1     1     1
rooms/demo/presence/ME        1    1      1     1     .      .   .       1       .     1     1     1
rooms/demo/presence/bob       1    1      1     1     .      .   .       1       .     1     1     1
rooms/demo/state/x            2    2      2     2     .      .   .       2       .     2     2     2
rooms/demo/control            1    1      1     1     .      .   .       1       .     1     1     1
users/ME/inbox                1    1      1     1     1      1   1       1       1     1     1     1
users/bob/inbox               .    .      .     .     .      .   .       .       .     .     .     .
users/ME/ice                  1    1      .     1     1      .   .       .       .     1     1     1
users/bob/ice                 .    .      .     .     .      .   .       .       .     .     .     .
users/ME/errors               0    0      0     0     0      0   0       0       0     0     0     0
users/bob/errors              .    .      .     .     .      .   .       .       .     .     .     .
users/ME/more                 .    .      .     .     .      .   .       .       .     .     .     .
app/news/x                    .    .      .     .     .      .   2       .       .     .     2     2
app/other                     .    .      .     .     .      .   .       .       .     .     2     2
events/member/joined          .    .      .     .     .      .   .       1       1     .     1     1
$SYS/x                        .    .      .     .     .      .   .       1       .     .     1     1
flat/topic                    .    .      .     .     .      .   .       .       .     .     2     2
rooms/demo/presence/+         1    1      1     1     .      .   .       1       .     1     1     1
rooms/demo/state/#            2    2      2     2     .      .   .       2       .     2     2     2
rooms/demo/signal/+           .    .      .     .     .      .   .       1       .     .     1     1
rooms/demo/signal/#           .    .      .     .     .      .   .       1       .     .     2     2
rooms/demo/+                  .    .      .     .     .      .   .       2       .     .     2     2
rooms/demo/#                  .    .      .     .     .      .   .       2       .     .     2     2
rooms/+/signal                .    .      .     .     .      .   .       1       .     .     1     1
rooms/#                       .    .      .     .     .      .   .       2       .     .     2     2
users/ME/+                    .    .      .     .     .      .   .       1       .     .     1     1
users/+/inbox                 .    .      .     .     .      .   .       .       .     .     .     .
users/#                       .    .      .     .     .      .   .       .       .     .     .     .
app/news/#                    .    .      .     .     .      .   2       .       .     .     2     2
app/#                         .    .      .     .     .      .   .       .       .     .     2     2
events/#                      .    .      .     .     .      .   .       1       1     .     1     1
$SYS/#                        .    .      .     .     .      .   .       1       .     .     1     1
+/+                           .    .      .     .     .      .   .       1       .     .     2     2
#                             .    .      .     .     .      .   .       2       .     .     2     2
";

/// Behind `$share/group/`.
const SHARED: &str = "
                         member join listen admin other nobody app observe service phone open+ open-
rooms/demo/signal             .    .      .     .     .      .   .       1       .     .     1     1
rooms/demo/signal/ME          .    .      .     .     .      .   .       1       .     .     1     1
rooms/demo/chat               .    .      .     .     .      .   .       1       .     .     1     1
rooms/demo/presence/+         .    .      .     .     .      .   .       1       .     .     1     1
rooms/demo/state/#            .    .      .     .     .      .   .       2       .     .     2     2
users/ME/inbox                .    .      .     .     .      .   .       .       .     .     .     .
users/ME/errors               .    .      .     .     .      .   .       .       .     .     .     .
app/news/x                    .    .      .     .     .      .   2       .       .     .     2     2
app/news/#                    .    .      .     .     .      .   2       .       .     .     2     2
events/#                      .    .      .     .     .      .   .       1       1     .     1     1
flat/topic                    .    .      .     .     .      .   .       .       .     .     2     2
rooms/#                       .    .      .     .     .      .   .       2       .     .     2     2
#                             .    .      .     .     .      .   .       2       .     .     2     2
";

/// What becomes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Refused(u8),
    Allowed { qos: u8, raised: bool },
    Nothing,
}

impl Cell {
    fn parse(text: &str) -> Self {
        match text {
            "." => Self::Refused(0x87),
            "~" => Self::Nothing,
            text => match (text.strip_prefix('x'), text.strip_prefix('^')) {
                (Some(code), _) => Self::Refused(u8::from_str_radix(code, 16).expect("a code")),
                (_, Some(qos)) => Self::Allowed { qos: qos.parse().expect("a QoS"), raised: true },
                _ => Self::Allowed { qos: text.parse().expect("a QoS"), raised: false },
            },
        }
    }

    /// The code of an answer, if a version has it.
    fn code(self, version: Version) -> u8 {
        match self {
            Self::Refused(code) if version == Version::V5 => code,
            _ => 0,
        }
    }
}

/// A column.
struct Kind {
    name: &'static str,
    user: &'static str,
    grants: Value,
    joined: Option<&'static str>,
    open: bool,
}

fn kinds() -> Vec<Kind> {
    let kind = |name, user, grants, joined| Kind { name, user, grants, joined, open: false };
    let app =
        json!({ "publish": ["app/paul/#", "users/+/inbox"], "retain": ["app/paul/#"], "subscribe": ["app/news/#"] });
    let open = |name, user, joined| Kind { open: true, ..kind(name, user, json!({}), joined) };
    vec![
        kind("member", "alice", demo(&["join"]), Some("demo")),
        kind("join", "carol", demo(&["join"]), None),
        kind("listen", "larry", demo(&["listen"]), None),
        kind("admin", "ada", demo(&["admin"]), None),
        kind("other", "oscar", json!({ "rooms": { "else": ["join", "admin"] } }), Some("else")),
        kind("nobody", "nina", json!({}), None),
        kind("app", "paul", app, None),
        kind("observe", "olga", json!({ "roles": ["observe"] }), None),
        kind("service", "sam", json!({ "roles": ["service"] }), None),
        kind("phone", "alice~phone", demo(&["join"]), Some("demo")),
        open("open+", "mia", Some("demo")),
        open("open-", "stan", None),
    ]
}

/// The lines of a table: a topic, and a cell for each kind.
fn lines(table: &'static str) -> Vec<(&'static str, Vec<Cell>)> {
    let mut lines = table.lines().filter(|line| !line.is_empty());
    let names: Vec<_> = lines.next().expect("a head").split_whitespace().collect();
    assert_eq!(names, kinds().iter().map(|kind| kind.name).collect::<Vec<_>>());
    let line = |line: &'static str| {
        let mut words = line.split_whitespace();
        let topic = words.next().expect("a topic");
        let cells: Vec<_> = words.map(Cell::parse).collect();
        assert_eq!(cells.len(), names.len(), "{topic}");
        (topic, cells)
    };
    lines.map(line).collect()
}

/// Two brokers, one with tokens and one in open mode, and in both who watches.
struct Stage {
    tokens: Theatre,
    open: Theatre,
}

struct Theatre {
    broker: Broker,
    /// Sees everything that can be seen.
    eye: Connection,
    /// A member of demo.
    bob: Connection,
    /// May write almost everywhere.
    root: wigwag::Client,
}

impl Stage {
    fn new() -> Self {
        // Those who have gone keep their places: that they leave is not what came of what another did.
        let broker = |change: fn(&mut Config)| {
            Broker::shipped_with(|config| {
                change(config);
                config.presence.grace = Duration::from_secs(600);
            })
        };
        let (of_tokens, of_open) = (broker(with_tokens), broker(without_bounds));
        let eye = json!({ "roles": ["observe", "service"], "subscribe": ["#"] });
        let tokens =
            Theatre::new(of_tokens, client(Version::V5, "eye", eye), client(Version::V5, "bob", demo(&["join"])));
        let open = Theatre::new(of_open, Client::v5("eye").user_name("eye"), Client::v5("bob").user_name("bob"));
        Self { tokens, open }
    }

    /// Runs `act` for every kind with every version.
    fn each(&mut self, mut act: impl FnMut(&mut Theatre, usize, &Kind, Version)) {
        for (column, kind) in kinds().iter().enumerate() {
            let theatre = if kind.open { &mut self.open } else { &mut self.tokens };
            for version in VERSIONS {
                act(theatre, column, kind, version);
                theatre.settle();
            }
        }
    }
}

impl Theatre {
    fn new(broker: Broker, eye: Client, bob: Client) -> Self {
        let (mut eye, mut bob) = (broker.connect(eye), broker.connect(bob));
        assert_eq!(eye.subscribe("#", 2), 2);
        let own = ["rooms/demo/signal/bob", "users/bob/inbox", "users/bob/errors"].map(|topic| (topic, options(1)));
        assert_eq!(bob.subscribe_all(&own, None), [1, 1, 0]);
        let root = broker.running().client("root").expect("a name");
        let mut theatre = Self { broker, eye, bob, root };
        theatre.settle();
        theatre
    }

    fn settle(&mut self) {
        drain(&mut self.eye);
        drain(&mut self.bob);
    }

    fn client(&self, kind: &Kind, version: Version) -> Client {
        match kind.open {
            true => Client::new(version, kind.user).user_name(kind.user),
            false => client(version, kind.user, kind.grants.clone()),
        }
    }

    /// One of this kind, joined if it is to be, and another connection of the same user to what is the user's own.
    fn enter(&self, kind: &Kind, version: Version) -> (Connection, Connection) {
        let mut actor = self.broker.connect(self.client(kind, version));
        if let Some(room) = kind.joined {
            assert_eq!(actor.subscribe(&format!("rooms/{room}/signal/{}", kind.user), 1), 1);
        }
        let mut twin = self.client(kind, Version::V5);
        twin.id = format!("twin of {}", kind.user);
        let mut twin = self.broker.connect(twin);
        let own = ["inbox", "errors"].map(|own| format!("users/{}/{own}", kind.user));
        let own = [(&*own[0], options(1)), (&*own[1], options(1))];
        assert_eq!(twin.subscribe_all(&own, None), [1, 0]);
        (actor, twin)
    }

    /// What came of something: deliveries on `topic`, whoever saw them.
    fn seen(&mut self, topic: &str, twin: &mut Connection) -> (Vec<Message>, Vec<Value>) {
        let mut seen = drain(&mut self.eye);
        let bob = drain(&mut self.bob);
        let (own, mut lines) = (drain(twin), Vec::new());
        for message in own {
            // The server's lines are about a topic; what somebody else wrote there would not be.
            if message.topic.ends_with("/errors") && line(&message)["topic"].is_string() {
                lines.push(line(&message));
            } else {
                seen.push(message);
            }
        }
        seen.extend(bob.into_iter().filter(|message| message.topic.starts_with("users/")));
        assert!(seen.iter().all(|message| message.topic == topic), "{seen:?} came of {topic}");
        (seen, lines)
    }
}

/// What has come, acknowledged.
fn drain(connection: &mut Connection) -> Vec<Message> {
    connection.send(&Packet::PingReq);
    let mut messages = Vec::new();
    loop {
        let received = connection.receive();
        match received.packet() {
            Packet::PingResp => return messages,
            Packet::Publish(publish) => messages.push(Message::from(&publish)),
            Packet::PubRel(ack) => connection.send_pubcomp(ack.packet_id.get()),
            _ => panic!("{received:?}"),
        }
        match received.packet() {
            Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => {
                connection.send_puback(publish.packet_id.expect("one").get());
            }
            Packet::Publish(publish) if publish.qos == QoS::ExactlyOnce => {
                connection.send_pubrec(publish.packet_id.expect("one").get());
            }
            _ => {}
        }
    }
}

fn payload(topic: &str, user: &str) -> String {
    match topic.ends_with("/control") {
        true => json!({ "username": user, "action": "unlock" }).to_string(),
        false => json!({ "username": user, "n": 1 }).to_string(),
    }
}

/// States what came of one publish.
#[track_caller]
fn check(case: &str, cell: Cell, qos: u8, user: &str, message: &Message, (seen, lines): (Vec<Message>, Vec<Value>)) {
    match cell {
        Cell::Allowed { qos: most, raised } => {
            assert_eq!(seen.len(), 1, "{case}: {seen:?}");
            assert_eq!(seen[0].qos, if raised { most } else { qos.min(most) }, "{case}: {seen:?}");
            let of_the_server = message.topic.contains("/presence/");
            let name = ("username".to_owned(), user.to_owned());
            if of_the_server {
                assert_eq!(line(&seen[0])["username"], user, "{case}");
            } else {
                assert_eq!(seen[0].payload, message.payload, "{case}");
                let [first, ..] = &seen[0].user[..] else { panic!("{case}: {seen:?}") };
                assert_eq!(*first, name, "{case}");
                // Whoever looks on where classes meet is told when it came, too.
                let others: Vec<_> = seen[0].user[1..].iter().map(|(key, _)| key.as_str()).collect();
                assert!(matches!(others[..], [] | ["received"]), "{case}: {seen:?}");
            }
        }
        _ => assert!(seen.is_empty(), "{case}: {seen:?}"),
    }
    let told: Vec<_> = lines.iter().map(|line| (&line["topic"], &line["action"], &line["code"])).collect();
    match cell {
        Cell::Refused(code) => {
            assert_eq!(told, [(&json!(message.topic), &json!("publish"), &json!(code))], "{case}");
        }
        _ => assert!(told.is_empty(), "{case}: {told:?}"),
    }
}

#[test]
fn publishing() {
    let lines = lines(PUBLISH);
    Stage::new().each(|theatre, column, kind, version| {
        let (mut actor, mut twin) = theatre.enter(kind, version);
        theatre.settle();
        for (topic, cells) in &lines {
            let topic = topic.replace("ME", kind.user);
            for qos in 0..=2 {
                let case = format!("{} publishes to {topic} at QoS {qos} in {version:?}", kind.name);
                // What the sender writes there itself is not passed on.
                let message = Message::new(&topic, payload(&topic, kind.user)).qos(qos).user("username", "mallory");
                let code = actor.publish(message.clone());
                let expected = if qos == 0 { 0 } else { cells[column].code(version) };
                // 0x10 says that nobody was subscribed.
                assert_eq!(if code == 0x10 { 0 } else { code }, expected, "{case}");
                check(&case, cells[column], qos, kind.user, &message, theatre.seen(&topic, &mut twin));
            }
        }
    });
}

#[test]
fn retaining_and_clearing() {
    let lines = lines(RETAIN);
    Stage::new().each(|theatre, column, kind, version| {
        let (mut actor, mut twin) = theatre.enter(kind, version);
        for (topic, cells) in &lines {
            let topic = topic.replace("ME", kind.user);
            let cell = cells[column];
            let before = theatre.broker.running().held().retained;
            theatre.settle();
            let message = Message::new(&topic, payload(&topic, kind.user)).qos(2).retain();
            let case = format!("{} retains {topic} in {version:?}", kind.name);
            let code = actor.publish(message.clone());
            assert_eq!(if code == 0x10 { 0 } else { code }, cell.code(version), "{case}");
            check(&case, cell, 2, kind.user, &message, theatre.seen(&topic, &mut twin));
            let stored = matches!(cell, Cell::Allowed { raised: false, .. });
            assert_eq!(theatre.broker.running().held().retained, before + usize::from(stored), "{case}");

            // Somebody who may has set one.
            let set = stored || theatre.root.publish_retained(&topic, b"{}", QoS::AtMostOnce).is_ok();
            let set = set && !topic.contains("/presence/");
            theatre.settle();
            drain(&mut twin);
            let case = format!("{} clears {topic} in {version:?}", kind.name);
            let message = Message::new(&topic, "").qos(2).retain();
            let code = actor.publish(message.clone());
            assert_eq!(if code == 0x10 { 0 } else { code }, cell.code(version), "{case}");
            check(&case, cell, 2, kind.user, &message, theatre.seen(&topic, &mut twin));
            let left = before + usize::from(set && !stored);
            assert_eq!(theatre.broker.running().held().retained, left, "{case}");
            if set && !stored {
                theatre.root.publish_retained(&topic, b"", QoS::AtMostOnce).expect("root may");
            }
        }
    });
}

fn wills(table: &'static str, retain: bool) {
    let lines = lines(table);
    Stage::new().each(|theatre, column, kind, version| {
        for (topic, cells) in &lines {
            let topic = topic.replace("ME", kind.user);
            for qos in 0..=2 {
                let case = format!("{} with a will on {topic} at QoS {qos} in {version:?}", kind.name);
                let message = Message { retain, ..Message::new(&topic, payload(&topic, kind.user)).qos(qos) };
                let (connection, connack) = theatre.broker.connect_or_not(theatre.client(kind, version).will(message));
                let expected = if let Cell::Refused(code) = cells[column] { code } else { 0 };
                assert_eq!(connack.reason, connack_code(version, expected), "{case}");
                match expected {
                    0 => connection.disconnect(),
                    _ => connection.hang_up(),
                }
            }
        }
        theatre.broker.wait_for_connections(2);
        let seen = drain(&mut theatre.eye);
        assert!(seen.iter().all(|message| message.topic == "events/connection/refused"), "{seen:?}");
        assert_eq!(drain(&mut theatre.bob), []);
    });
}

#[test]
fn leaving_a_will() {
    wills(WILL, false);
}

#[test]
fn leaving_a_retained_will() {
    wills(RETAINED_WILL, true);
}

fn subscriptions(table: &'static str, prefix: &str) {
    let lines = lines(table);
    Stage::new().each(|theatre, column, kind, version| {
        let mut actor = theatre.broker.connect(theatre.client(kind, version));
        for (filter, cells) in &lines {
            let filter = format!("{prefix}{}", filter.replace("ME", kind.user));
            let case = format!("{} subscribes to {filter} in {version:?}", kind.name);
            let granted = actor.subscribe(&filter, 2);
            match cells[column] {
                Cell::Allowed { qos, .. } => {
                    assert_eq!(granted, qos, "{case}");
                    actor.unsubscribe(&[&filter]);
                }
                Cell::Refused(code) => {
                    assert_eq!(granted, if version == Version::V5 { code } else { 0x80 }, "{case}");
                }
                Cell::Nothing => panic!("{case}"),
            }
            // Retained messages and the roster have come.
            drain(&mut actor);
        }
    });
}

#[test]
fn subscribing() {
    subscriptions(SUBSCRIBE, "");
}

#[test]
fn sharing_a_subscription() {
    subscriptions(SHARED, "$share/group/");
}

/// The same grants without a socket: the same verdicts.
#[test]
fn inside_the_process() {
    let mut stage = Stage::new();
    let theatre = &mut stage.tokens;
    let refused = |error: Option<ClientError>| match error {
        None => None,
        Some(ClientError::Refused(refusal)) => Some(refusal.reason.0),
        Some(error) => panic!("{error}"),
    };
    let expected = |cell: Cell| if let Cell::Refused(code) = cell { Some(code) } else { None };
    for (column, kind) in kinds().iter().enumerate().filter(|(_, kind)| !kind.open) {
        let claims: GrantClaims = serde_json::from_value(kind.grants.clone()).expect("grants");
        let client = theatre.broker.running().client_with(kind.user, &claims).expect("a name");
        if let Some(room) = kind.joined {
            client.subscribe(&format!("rooms/{room}/signal/{}", kind.user), QoS::AtLeastOnce).expect("it may join");
        }
        theatre.settle();
        let qos = |qos: u8| QoS::from_bits(qos).expect("a QoS");
        for (topic, cells) in lines(PUBLISH) {
            let topic = topic.replace("ME", kind.user);
            for n in 0..=2 {
                let case = format!("{} publishes to {topic} at QoS {n}", kind.name);
                let said = client.publish(&topic, payload(&topic, kind.user).as_bytes(), qos(n));
                assert_eq!(refused(said.err()), expected(cells[column]), "{case}");
            }
            let seen = drain(&mut theatre.eye).len();
            let count = if expected(cells[column]).is_none() && !topic.starts_with("users/") { 3 } else { 0 };
            assert_eq!(seen, count, "{} on {topic}", kind.name);
        }
        for (topic, cells) in lines(RETAIN) {
            let topic = topic.replace("ME", kind.user);
            for payload in [payload(&topic, kind.user).as_bytes(), b""] {
                let said = client.publish_retained(&topic, payload, QoS::AtLeastOnce);
                assert_eq!(refused(said.err()), expected(cells[column]), "{} retains {topic}", kind.name);
            }
        }
        for (table, prefix) in [(SUBSCRIBE, ""), (SHARED, "$share/group/")] {
            for (filter, cells) in lines(table) {
                let filter = format!("{prefix}{}", filter.replace("ME", kind.user));
                let said = client.subscribe(&filter, QoS::ExactlyOnce);
                assert_eq!(refused(said.err()), expected(cells[column]), "{} subscribes to {filter}", kind.name);
                client.unsubscribe(&filter);
            }
        }
        drop(client);
        theatre.settle();
    }
}
