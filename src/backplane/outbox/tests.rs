//! Scripts: what is put in, what the broker says, what comes out.

use super::*;
use crate::session::testing::expiring_message;

struct World {
    outbox: Outbox,
    start: Instant,
    /// What was said, in order; what was said again, with its identifier.
    sent: Vec<String>,
    expired: Vec<Outgoing>,
}

fn message(text: &str, expiry: Option<u32>, now: Instant) -> Arc<Message> {
    expiring_message("app/x", text.as_bytes(), expiry, now)
}

fn text(out: &Outgoing) -> String {
    String::from_utf8_lossy(out.message.payload()).into_owned()
}

impl World {
    fn new(messages: usize, bytes: usize) -> Self {
        let limits = Limits { messages, bytes, ttl: Duration::from_secs(5) };
        Self { outbox: Outbox::new(limits, 0), start: Instant::now(), sent: Vec::new(), expired: Vec::new() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn push(&mut self, text: &str, qos: QoS, seconds: u64) -> bool {
        let message = message(text, None, self.at(seconds));
        let place = self.outbox.reserve(message.size());
        if place {
            let now = self.at(seconds);
            self.outbox.push(message, qos, false, None, now);
        }
        place
    }

    fn pump(&mut self, seconds: u64) {
        let now = self.at(seconds);
        let sent = &mut self.sent;
        let say = |what: Say<'_>| {
            sent.push(match what {
                Say::Publish { out, packet_id, again } => {
                    assert_eq!(packet_id.is_some(), out.qos > Zero);
                    match (packet_id, again) {
                        (Some(id), true) => format!("{id}:{}", text(out)),
                        _ => text(out),
                    }
                }
                Say::Release(id) => format!("{id}:release"),
            });
            true
        };
        self.outbox.speak(now, say, &mut self.expired);
    }

    fn connect(&mut self, window: usize, known: bool, seconds: u64) {
        let now = self.at(seconds);
        let terms = Terms { window, qos_max: Two };
        let ended = self.outbox.connected(terms, known, now, |_| false);
        assert!(ended.rejected.is_empty());
        self.expired.extend(ended.expired);
    }

    fn done(&mut self, id: u16) -> bool {
        self.outbox.done(id_of(id)).is_some()
    }

    fn received(&mut self, id: u16) {
        assert!(self.outbox.received(id_of(id)));
    }

    fn expired(&self) -> Vec<String> {
        self.expired.iter().map(text).collect()
    }
}

fn id_of(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("not 0")
}

use QoS::{AtLeastOnce as One, AtMostOnce as Zero, ExactlyOnce as Two};

#[test]
fn nothing_leaves_without_a_connection_and_all_does_with_one() {
    let mut world = World::new(10, 1000);
    for name in ["a", "b", "c"] {
        assert!(world.push(name, One, 0));
    }
    world.pump(0);
    assert!(world.sent.is_empty());
    world.connect(10, false, 1);
    world.pump(1);
    assert_eq!(world.sent, ["a", "b", "c"]);
    for id in 1..=3 {
        assert!(world.done(id));
        assert!(!world.done(id), "once");
    }
    assert_eq!((world.outbox.len(), world.outbox.bytes()), (0, 0));
}

#[test]
fn it_is_bounded_in_messages_and_in_bytes_and_a_promise_counts() {
    let mut world = World::new(2, 1000);
    assert!(world.push("a", One, 0) && world.push("b", Zero, 0));
    assert!(!world.push("c", One, 0));
    let mut world = World::new(10, 20);
    assert!(world.outbox.reserve(15));
    assert!(!world.outbox.reserve(6));
    world.outbox.release(15);
    assert!(world.outbox.reserve(20));
}

#[test]
fn no_more_are_on_their_way_than_the_broker_takes() {
    let mut world = World::new(100, 10_000);
    world.connect(4, false, 0);
    for number in 0..8 {
        world.push(&number.to_string(), if number == 0 { Two } else { One }, 0);
    }
    world.pump(0);
    assert_eq!(world.sent, ["0", "1", "2", "3"]);
    assert!(world.done(2) && world.done(4), "in whatever order");
    world.pump(0);
    assert_eq!(world.sent, ["0", "1", "2", "3", "4", "5"]);
    world.received(1);
    world.pump(0);
    assert_eq!(world.sent.len(), 6, "the exchange is not over");
    assert!(world.done(1));
    world.pump(0);
    assert_eq!(world.sent.len(), 7);
}

#[test]
fn a_window_of_one_is_one_at_a_time() {
    let mut world = World::new(100, 10_000);
    world.connect(1, false, 0);
    world.push("a", One, 0);
    world.push("b", One, 0);
    world.pump(0);
    assert_eq!(world.sent, ["a"]);
    assert!(world.done(1));
    world.pump(0);
    assert_eq!(world.sent, ["a", "b"]);
}

#[test]
fn at_qos_0_it_has_left_when_it_is_said_and_nothing_overtakes() {
    let mut world = World::new(100, 10_000);
    world.connect(1, false, 0);
    for (name, qos) in [("a", Zero), ("b", One), ("c", One), ("d", Zero)] {
        world.push(name, qos, 0);
    }
    world.pump(0);
    assert_eq!(world.sent, ["a", "b"]);
    assert_eq!(world.outbox.len(), 3);
    assert!(world.done(1));
    world.pump(0);
    assert_eq!(world.sent, ["a", "b", "c", "d"]);
    assert_eq!(world.outbox.len(), 1);
}

#[test]
fn it_stops_where_there_is_no_room_and_goes_on_there() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    for name in ["a", "b", "c"] {
        world.push(name, One, 0);
    }
    let now = world.start;
    let mut said = 0;
    let mut one = |_: Say<'_>| {
        said += 1;
        false
    };
    world.outbox.speak(now, &mut one, &mut world.expired);
    world.outbox.lost();
    world.connect(10, true, 0);
    world.outbox.speak(now, &mut one, &mut world.expired);
    assert_eq!(said, 2);
    world.pump(0);
    assert_eq!(world.sent, ["b", "c"], "what was said twice is not said a third time");
}

#[test]
fn no_identifier_is_given_that_is_in_use_and_never_that_of_the_subscription() {
    let mut world = World::new(100, 10_000);
    world.connect(3, false, 0);
    world.push("oldest", Two, 0);
    world.push("old", Two, 0);
    world.pump(0);
    let mut ids = Vec::new();
    for _ in 0..2 * usize::from(u16::MAX) {
        world.push("x", One, 0);
        let say = |what: Say<'_>| {
            let Say::Publish { packet_id: Some(id), .. } = what else { panic!("{what:?}") };
            ids.push(id.get());
            true
        };
        let now = world.start;
        world.outbox.speak(now, say, &mut world.expired);
        assert!(world.done(ids[ids.len() - 1]));
    }
    assert!(!ids.contains(&1) && !ids.contains(&2) && !ids.contains(&RESERVED_ID.get()));
    assert_eq!(ids.iter().filter(|id| **id == 3).count(), 3);
}

#[test]
fn a_broker_that_knows_us_hears_again_what_it_did_not_acknowledge() {
    let mut world = World::new(100, 10_000);
    world.connect(4, false, 0);
    for (name, qos) in [("a", One), ("b", Two), ("c", Two), ("d", One), ("e", One), ("f", Zero)] {
        world.push(name, qos, 0);
    }
    world.pump(0);
    assert_eq!(world.sent, ["a", "b", "c", "d"]);
    assert!(world.done(1));
    world.received(2);
    world.outbox.lost();
    world.sent.clear();
    world.pump(0);
    assert!(world.sent.is_empty());
    // e and f were never said: they wait still, before what came later.
    world.push("g", One, 0);
    world.connect(10, true, 1);
    world.pump(1);
    assert_eq!(world.sent, ["2:release", "3:c", "4:d", "e", "f", "g"]);
    assert!(world.expired().is_empty());
}

#[test]
fn what_is_said_again_is_within_the_window_too() {
    let mut world = World::new(100, 10_000);
    world.connect(4, false, 0);
    for name in ["a", "b", "c", "d", "e"] {
        world.push(name, One, 0);
    }
    world.push("f", Zero, 0);
    world.pump(0);
    world.outbox.lost();
    world.sent.clear();
    world.connect(2, true, 1);
    world.pump(1);
    assert_eq!(world.sent, ["1:a", "2:b"]);
    assert!(world.done(1));
    world.pump(1);
    assert_eq!(world.sent, ["1:a", "2:b", "3:c"]);
    assert!(world.done(2) && world.done(3) && world.done(4));
    world.pump(1);
    assert_eq!(world.sent[3..], ["e", "f"]);
}

#[test]
fn a_broker_that_does_not_know_us_hears_all_but_what_it_had() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    for (name, qos) in [("a", One), ("b", Two), ("c", Two)] {
        world.push(name, qos, 0);
    }
    world.pump(0);
    world.received(2);
    world.outbox.lost();
    world.sent.clear();
    world.connect(10, false, 1);
    world.pump(1);
    assert_eq!(world.sent, ["a", "c"]);
    assert_eq!(world.outbox.len(), 2);
}

#[test]
fn nothing_is_late() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    world.push("flying", One, 0);
    world.push("exact", Two, 0);
    world.pump(0);
    world.outbox.lost();
    world.push("waiting", One, 1);
    world.push("later", One, 3);
    let now = world.at(6);
    world.outbox.expire(now, &mut world.expired);
    // What is late and in flight is not said again either.
    assert_eq!(world.expired(), ["flying", "exact", "waiting"]);
    world.connect(10, true, 7);
    world.sent.clear();
    world.pump(9);
    assert!(world.sent.is_empty());
    assert_eq!(world.expired(), ["flying", "exact", "waiting", "later"]);
    assert_eq!((world.outbox.len(), world.outbox.bytes()), (0, 0));
}

#[test]
fn a_messages_own_expiry_counts_too() {
    let mut world = World::new(100, 10_000);
    let short = message("short", Some(1), world.start);
    assert!(world.outbox.reserve(short.size()));
    world.outbox.push(short, One, false, None, world.start);
    world.connect(10, false, 2);
    world.pump(2);
    assert!(world.sent.is_empty());
    assert_eq!(world.expired(), ["short"]);
    assert_eq!(world.outbox.bytes(), 0);
}

#[test]
fn what_a_broker_is_too_small_for_is_taken_out() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    world.push("a large one that flies", One, 0);
    world.pump(0);
    world.outbox.lost();
    world.sent.clear();
    world.push("small", One, 0);
    world.push("a large one", One, 0);
    let terms = Terms { window: 10, qos_max: Two };
    let ended = world.outbox.connected(terms, true, world.start, |out| out.message.payload().len() > 5);
    assert_eq!(ended.rejected.iter().map(text).collect::<Vec<_>>(), ["a large one that flies", "a large one"]);
    world.pump(0);
    assert_eq!(world.sent, ["small"]);
    assert!(world.done(2));
    assert_eq!((world.outbox.len(), world.outbox.bytes()), (0, 0));
}

#[test]
fn what_the_broker_does_not_know_of_is_said_at_what_it_knows() {
    let mut world = World::new(100, 10_000);
    let terms = Terms { window: 10, qos_max: Zero };
    world.outbox.connected(terms, false, world.start, |_| false);
    world.push("a", Two, 0);
    world.push("b", One, 0);
    world.pump(0);
    assert_eq!(world.sent, ["a", "b"]);
    assert_eq!((world.outbox.len(), world.outbox.bytes()), (0, 0));
}

#[test]
fn what_connections_end_at_is_given_up_one_by_one() {
    let mut world = World::new(100, 10_000);
    let connection = |world: &mut World, known: bool, ack: Option<u16>| {
        let terms = Terms { window: 10, qos_max: Two };
        let ended = world.outbox.connected(terms, known, world.start, |_| false);
        world.pump(0);
        ack.into_iter().for_each(|id| assert!(world.done(id)));
        world.outbox.lost();
        ended.hopeless.as_ref().map(text)
    };
    for (name, qos) in [("a", Two), ("b", One), ("c", One), ("d", One)] {
        world.push(name, qos, 0);
    }
    // Said once, and again three times, the last one anew.
    for known in [true, true, true, false] {
        assert_eq!(connection(&mut world, known, None), None);
    }
    // Where nothing is said, nothing is to blame, and no more than one is given up for each that is.
    assert_eq!(connection(&mut world, true, None).as_deref(), Some("a"));
    assert_eq!(connection(&mut world, true, Some(7)).as_deref(), Some("b"));
    for _ in 0..3 {
        assert_eq!(connection(&mut world, true, None), None, "one was acknowledged: it begins anew");
    }
    assert_eq!(connection(&mut world, true, None).as_deref(), Some("d"));
    assert_eq!((world.outbox.len(), world.outbox.bytes()), (0, 0));
    assert!(!world.outbox.is_flying());
    world.push("e", One, 0);
    for _ in 0..4 {
        assert_eq!(connection(&mut world, true, None), None);
    }
}

#[test]
fn a_broker_that_takes_less_than_before_is_not_told_more() {
    let mut world = World::new(100, 10_000);
    world.connect(10, true, 0);
    for (name, qos) in [("a", Two), ("b", Two), ("c", One)] {
        world.push(name, qos, 0);
    }
    world.pump(0);
    world.received(1);
    world.outbox.lost();
    world.sent.clear();
    let terms = Terms { window: 10, qos_max: One };
    world.outbox.connected(terms, true, world.start, |_| false);
    let mut levels = Vec::new();
    let say = |what: Say<'_>| {
        levels.push(match what {
            Say::Publish { out, packet_id: Some(id), again } => format!("{id}:{} {:?} {again}", text(out), out.qos),
            other => format!("{other:?}"),
        });
        true
    };
    world.outbox.speak(world.start, say, &mut world.expired);
    assert_eq!(levels, ["Release(1)", "3:c AtLeastOnce true", "4:b AtLeastOnce false"]);
}

#[test]
fn what_is_late_is_not_said_again_unless_the_broker_has_it() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    for (name, qos) in [("a", One), ("b", Two), ("had", Two), ("d", One)] {
        world.push(name, qos, if name == "d" { 3 } else { 0 });
    }
    world.pump(0);
    world.received(3);
    let look = |world: &mut World, seconds| world.outbox.expire(world.at(seconds), &mut world.expired);
    // While the broker may still answer, it is waited for.
    assert_eq!(look(&mut world, 6), 0);
    assert!(world.expired.is_empty());
    world.outbox.lost();
    world.sent.clear();
    world.connect(10, true, 6);
    assert_eq!(world.expired(), ["a", "b"]);
    world.pump(6);
    assert_eq!(world.sent, ["3:release", "4:d"]);
    assert!(!world.done(1) && !world.done(2), "late answers are of no consequence");
    world.push("e", One, 6);
    world.pump(6);
    assert!(world.done(5), "and no identifier is given again at once");
    assert!(world.done(4));
    // The end of an exchange is asked for for a while.
    assert_eq!(look(&mut world, 60), 0);
    assert_eq!(look(&mut world, 70), 1);
    assert_eq!((world.outbox.len(), world.outbox.bytes()), (0, 0));
    assert_eq!(world.expired.len(), 2);
}

#[test]
fn a_broker_that_does_not_acknowledge_is_noticed() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    assert!(!world.outbox.is_overdue(world.at(100)), "there is nothing to acknowledge");
    world.push("a", One, 0);
    world.pump(3);
    assert!(!world.outbox.is_overdue(world.at(13)));
    assert!(world.outbox.is_overdue(world.at(14)));
    world.outbox.lost();
    assert!(!world.outbox.is_overdue(world.at(14)));
    world.connect(10, true, 4);
    world.pump(4);
    assert!(!world.outbox.is_overdue(world.at(14)), "it was said again since");
    assert!(world.done(1) && !world.outbox.is_overdue(world.at(20)));
}
