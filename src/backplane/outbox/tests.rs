//! Scripts: what is put in, what the broker says, what comes out.

use super::*;
use crate::session::testing::expiring_message;

struct World {
    outbox: Outbox,
    start: Instant,
    /// What was handed over, in order.
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
        Self { outbox: Outbox::new(limits), start: Instant::now(), sent: Vec::new(), expired: Vec::new() }
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
        let send = |out: &Outgoing| {
            sent.push(text(out));
            true
        };
        self.outbox.hand_over(now, send, &mut self.expired);
    }

    fn connect(&mut self, window: u16, known: bool, seconds: u64) -> Vec<String> {
        let now = self.at(seconds);
        let again = self.outbox.connected(window, known, now, &mut self.expired);
        let say = |again: &Again| match again {
            Again::Publish(id, out) => format!("{id}:{}", text(out)),
            Again::Release(id) => format!("{id}:release"),
        };
        again.iter().map(say).collect()
    }

    fn expired(&self) -> Vec<String> {
        self.expired.iter().map(text).collect()
    }
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
    assert!(world.connect(10, false, 1).is_empty());
    world.pump(1);
    assert_eq!(world.sent, ["a", "b", "c"]);
    for id in 1..=3 {
        world.outbox.written(id);
        assert!(world.outbox.done(id).is_some());
        assert!(world.outbox.done(id).is_none(), "once");
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
fn the_window_holds_and_the_oldest_unacknowledged_message_holds_it_up() {
    let mut world = World::new(100, 10_000);
    world.connect(4, false, 0);
    for number in 0..8 {
        world.push(&number.to_string(), if number == 0 { Two } else { One }, 0);
    }
    world.pump(0);
    assert_eq!(world.sent, ["0", "1", "2", "3"]);
    (1..=4).for_each(|id| world.outbox.written(id));
    (2..=4).for_each(|id| assert!(world.outbox.done(id).is_some()));
    world.pump(0);
    assert_eq!(world.sent.len(), 4, "the next would get the identifier of the first");
    world.outbox.received(1);
    world.pump(0);
    assert_eq!(world.sent.len(), 4);
    assert!(world.outbox.done(1).is_some());
    world.pump(0);
    assert_eq!(world.sent.len(), 8);
}

#[test]
fn a_window_of_one_is_one_at_a_time() {
    let mut world = World::new(100, 10_000);
    world.connect(1, false, 0);
    world.push("a", One, 0);
    world.push("b", One, 0);
    world.pump(0);
    assert_eq!(world.sent, ["a"]);
    world.outbox.written(1);
    world.outbox.done(1);
    world.pump(0);
    assert_eq!(world.sent, ["a", "b"]);
}

#[test]
fn a_broker_that_knows_us_hears_again_what_it_did_not_acknowledge() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    for (name, qos) in [("a", One), ("b", Two), ("c", Two), ("d", One), ("e", One), ("f", Zero)] {
        world.push(name, qos, 0);
    }
    world.pump(0);
    (1..=4).for_each(|id| world.outbox.written(id));
    assert!(world.outbox.done(1).is_some());
    world.outbox.received(2);
    world.outbox.lost();
    world.sent.clear();
    world.pump(0);
    assert!(world.sent.is_empty());
    // e and f were handed over and never written: they wait again, before what came later.
    world.push("g", One, 0);
    assert_eq!(world.connect(10, true, 1), ["2:release", "3:c", "4:d"]);
    assert!(world.outbox.knows(3) && world.outbox.knows(4) && !world.outbox.knows(5));
    world.pump(1);
    assert_eq!(world.sent, ["e", "f", "g"]);
    assert!(world.expired().is_empty());
}

#[test]
fn a_broker_that_does_not_know_us_hears_all_but_what_it_had() {
    let mut world = World::new(100, 10_000);
    world.connect(10, false, 0);
    for (name, qos) in [("a", One), ("b", Two), ("c", Two)] {
        world.push(name, qos, 0);
    }
    world.pump(0);
    (1..=3).for_each(|id| world.outbox.written(id));
    world.outbox.received(2);
    world.outbox.lost();
    world.sent.clear();
    assert!(world.connect(10, false, 1).is_empty());
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
    (1..=2).for_each(|id| world.outbox.written(id));
    world.outbox.lost();
    world.push("waiting", One, 1);
    world.push("later", One, 3);
    let now = world.at(6);
    world.outbox.expire(now, &mut world.expired);
    assert_eq!(world.expired(), ["waiting"]);
    // What is late and in flight is not said again, but an exchange of QoS 2 is finished.
    assert_eq!(world.connect(10, true, 7), ["2:exact"]);
    assert_eq!(world.expired(), ["waiting", "flying"]);
    world.sent.clear();
    world.pump(9);
    assert!(world.sent.is_empty());
    assert_eq!(world.expired(), ["waiting", "flying", "later"]);
    assert_eq!(world.outbox.len(), 1);
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
    world.push("small", One, 0);
    world.push("a large one", One, 0);
    let mut rejected = Vec::new();
    world.outbox.reject(|out| out.message.payload().len() > 5, &mut rejected);
    assert_eq!(rejected.iter().map(text).collect::<Vec<_>>(), ["a large one"]);
    world.connect(10, false, 0);
    world.pump(0);
    assert_eq!(world.sent, ["small"]);
}

#[test]
fn what_a_reconnect_takes_of_the_identifiers_counts() {
    let mut world = World::new(100, 10_000);
    world.connect(4, false, 0);
    world.push("oldest", Two, 0);
    world.pump(0);
    world.outbox.written(1);
    for seconds in 1..4 {
        world.outbox.lost();
        assert_eq!(world.connect(4, true, seconds), ["1:oldest"]);
    }
    world.push("next", One, 3);
    world.pump(3);
    assert_eq!(world.sent, ["oldest"], "it would get the identifier of the oldest");
    world.outbox.done(1);
    world.pump(3);
    assert_eq!(world.sent, ["oldest", "next"]);
}
