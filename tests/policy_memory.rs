//! Deciding over a publish allocates nothing, allowed or not: counted by the allocator.

#[path = "corpus/alice.rs"]
mod alice;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    path::Path,
    time::Instant,
};

use alice::{alice, offer, policy, publish};
use wigwag::{
    auth::Identity,
    hub::SubscriberId,
    policy::{
        Asker,
        payload::{Kind, check},
    },
    wire::mqtt::QoS,
};

/// Counts what each thread allocates, so that tests do not see one another.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

fn allocations<T>(act: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATIONS.get();
    let done = act();
    (ALLOCATIONS.get() - before, done)
}

/// Grants of every kind, among them to join demo.
const GRANTS: &str = r#"{"rooms":{"demo":["join"],"standup-*":["join","admin"],"*-hall":["listen"]},
    "publish":["app/alice/#","users/+/inbox"],"retain":["app/alice/#"],"subscribe":["app/#"]}"#;

#[test]
fn a_decision_allocates_nothing() {
    let (policy, alice, in_room) = (policy(), alice(GRANTS), |room: &str| room == "demo");
    let asker = Asker { identity: &alice, client_id: "tab-1", in_room: &in_room };
    let topics = [
        "rooms/demo/signal",
        "rooms/demo/signal/bob",
        "rooms/demo/chat",
        "rooms/demo/presence/alice",
        "rooms/demo/presence/bob",
        "rooms/demo/state/a/b/c/d/e/f/g/h",
        "rooms/demo/control",
        "rooms/standup-1/control",
        "rooms/secret/signal",
        "users/bob/inbox",
        "users/bob/errors",
        "users/alice/more",
        "app/alice/x/y",
        "app/other",
        "events/x",
        "$SYS/x",
        "flat",
        "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a",
    ];
    let mut allowed = 0;
    for topic in topics {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            for retain in [false, true] {
                let publish = publish(topic, b"{}", qos, retain);
                let (count, decided) = allocations(|| policy.decide(&asker, &publish).is_ok());
                assert_eq!(count, 0, "{topic} {qos:?} retain {retain}");
                allowed += usize::from(decided);
            }
        }
    }
    assert!((20..60).contains(&allowed), "{allowed} of {}", topics.len() * 6);
}

#[test]
fn the_check_of_a_name_tag_allocates_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/payload");
    let mut good = 0;
    for file in std::fs::read_dir(folder).expect("samples") {
        let payload = std::fs::read(file.expect("a file").path()).expect("a sample");
        for sender in [Some("alice"), Some("bob"), None] {
            let (count, verdict) = allocations(|| check(&payload, Kind::Signal, sender).is_ok());
            assert_eq!(count, 0, "{}", String::from_utf8_lossy(&payload[..payload.len().min(80)]));
            good += usize::from(verdict);
        }
    }
    assert!(good > 10, "{good}");
}

/// The message is the one thing that is made: its bytes, in one piece.
#[test]
fn a_permit_is_one_allocation() {
    let (policy, offer) = (policy(), offer());
    for tagged in [true, false] {
        let alice = Identity { tagged, believed: !tagged, ..alice(GRANTS) };
        let in_room = |_: &str| true;
        let asker = Asker { identity: &alice, client_id: "tab-1", in_room: &in_room };
        let publish = publish("rooms/demo/signal", &offer, QoS::AtLeastOnce, false);
        let (count, permit) = allocations(|| policy.publish(&asker, SubscriberId(1), &publish, Instant::now()));
        assert!(permit.is_ok());
        assert_eq!(count, 1, "tagged {tagged}");
    }
}
