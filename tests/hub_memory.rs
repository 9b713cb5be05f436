//! What the hub's structures cost, and that they give it back: counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use wigwag::hub::index::{Index, SubscriberId};
use wigwag::hub::retained::Retained;

/// Counts the bytes that each thread holds, so that tests do not see one another.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + layout.size() as isize);
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as isize);
        unsafe { System.dealloc(block, layout) }
    }
}

const ROOMS: usize = 100_000;
/// What the index may keep when it is empty.
const LEFT: isize = 1_024;

/// A subscription of a realistic size.
type Subscription = [u64; 4];

/// The filters of one member of a room, as a client of the signaling protocol subscribes to them.
fn filters(room: usize, user: &str) -> [String; 4] {
    let room = format!("rooms/room-{room:06}");
    [format!("{room}/signal"), format!("{room}/signal/{user}"), format!("{room}/presence/+"), format!("{room}/chat")]
}

fn members(room: usize) -> [(SubscriberId, &'static str); 2] {
    let first = 2 * room as u64;
    [(SubscriberId(first), "alice"), (SubscriberId(first + 1), "bob")]
}

fn enter(index: &mut Index<Subscription>, room: usize) {
    for (id, user) in members(room) {
        for filter in filters(room, user) {
            assert!(index.insert(&filter, id, [id.0; 4]).is_none());
        }
    }
}

fn leave(index: &mut Index<Subscription>, room: usize) {
    for (id, user) in members(room) {
        for filter in filters(room, user) {
            assert!(index.remove(&filter, id).is_some());
        }
    }
}

#[test]
fn a_room_costs_what_its_documentation_says_and_leaves_nothing() {
    let start = HELD.get();
    let mut index = Index::new();
    (0..ROOMS).for_each(|room| enter(&mut index, room));
    assert_eq!((index.len(), index.node_count()), (8 * ROOMS, 7 * ROOMS + 1));
    let per_room = (HELD.get() - start) / ROOMS as isize;
    println!("{per_room} bytes for each of {ROOMS} rooms");
    assert!(per_room <= 790, "{per_room} bytes for each room");

    // What is left when most rooms are gone is what the others need.
    let live = ROOMS / 100;
    (live..ROOMS).for_each(|room| leave(&mut index, room));
    let per_live_room = (HELD.get() - start) / live as isize;
    println!("{per_live_room} bytes for each of {live} rooms left");
    assert!(per_live_room <= 890, "{per_live_room} bytes for each room left");

    (0..live).for_each(|room| leave(&mut index, room));
    assert_eq!((index.len(), index.node_count()), (0, 0));
    assert!(HELD.get() - start <= LEFT, "{} bytes left", HELD.get() - start);
}

#[test]
fn a_crowd_at_one_filter_leaves_nothing() {
    let start = HELD.get();
    let mut index = Index::new();
    for id in 0..ROOMS as u64 {
        index.insert("app/news", SubscriberId(id), [0; 4]);
        index.insert_shared("workers", "app/jobs", SubscriberId(id), [0; 4]);
        index.insert_shared(&format!("group {id}"), "app/jobs", SubscriberId(id), [0; 4]);
    }
    for id in 0..ROOMS as u64 {
        index.remove("app/news", SubscriberId(id));
        index.remove_shared("workers", "app/jobs", SubscriberId(id));
        index.remove_shared(&format!("group {id}"), "app/jobs", SubscriberId(id));
    }
    assert_eq!((index.len(), index.node_count()), (0, 0));
    assert!(HELD.get() - start <= LEFT, "{} bytes left", HELD.get() - start);
}

#[test]
fn an_index_that_is_dropped_gives_everything_back() {
    let start = HELD.get();
    let mut index = Index::new();
    (0..1_000).for_each(|room| enter(&mut index, room));
    drop(index);
    assert_eq!(HELD.get(), start);
}

#[test]
fn matching_allocates_nothing() {
    let mut index = Index::new();
    (0..1_000).for_each(|room| enter(&mut index, room));
    index.insert("rooms/+/signal", SubscriberId(1), [0; 4]);
    index.insert("#", SubscriberId(2), [0; 4]);
    index.insert_shared("group", "rooms/#", SubscriberId(3), [0; 4]);
    let before = ALLOCATIONS.get();
    let mut met = 0;
    index.matches("rooms/room-000007/signal", &mut |node| {
        met += node.subscribers().len() + node.shared_groups().map(|group| group.members().len()).sum::<usize>();
    });
    assert_eq!(ALLOCATIONS.get(), before);
    assert_eq!(met, 5);
}

#[test]
fn retained_messages_leave_nothing() {
    let topic = |room: usize, user: &str| format!("rooms/room-{room:06}/presence/{user}");
    let start = HELD.get();
    let mut store = Retained::new();
    for room in 0..ROOMS {
        assert_eq!(store.set(&topic(room, "alice"), room), None);
        assert_eq!(store.set(&topic(room, "bob"), room), None);
    }
    println!("{} bytes for each of {ROOMS} rooms", (HELD.get() - start) / ROOMS as isize);
    for room in 0..ROOMS {
        assert_eq!(store.clear(&topic(room, "alice")), Some(room));
    }
    assert_eq!(store.sweep(|_| true), ROOMS);
    assert_eq!((store.len(), store.node_count()), (0, 0));
    assert!(HELD.get() - start <= LEFT, "{} bytes left", HELD.get() - start);
}

/// `limits.retained_bytes` counts 128 bytes for each level of a deep topic beside its text.
#[test]
fn a_level_of_a_topic_takes_no_more_than_it_is_counted_for() {
    const LEVELS: usize = 32;
    let long = "a-level-longer-than-is-kept-in-place";
    for (width, level) in [(1, "x"), (1, long), (9, "x"), (1000, "x")] {
        // A tree of that many children at each of its last two levels, or one long branch for each message.
        let start = HELD.get();
        let mut store = Retained::new();
        let mut text = 0;
        for first in 0..1000 {
            for last in 0..if width == 9 { 9 } else { 1 } {
                let branch = if width == 1000 { 0 } else { first };
                let at_the_end = if width == 1000 { first } else { last };
                let topic = format!("{branch}/{}{at_the_end}", format!("{level}/").repeat(LEVELS - 2));
                text += topic.len();
                store.set(&topic, 1_u64);
            }
        }
        let levels = store.node_count();
        let held = (HELD.get() - start) as usize;
        println!("{} bytes for each of {levels} levels, {width} wide, {}", held / levels, level.len());
        assert!(held <= 128 * levels + text, "{held} bytes for {levels} levels, {width} wide, and {text} of text");
    }
}
