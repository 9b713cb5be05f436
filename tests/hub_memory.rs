//! What the hub's structures cost, and that they give it back: counted by the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use wigwag::hub::index::{Index, SubscriberId};
use wigwag::hub::retained::Retained;
use wigwag::{Client, Config, QoS, Running, Server, hub::Held};

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

/// A server without sockets and without the limits that are not what these tests are about.
fn server() -> (tokio::runtime::Runtime, Running) {
    let mut config = Config::default();
    (config.http.listen, config.mqtt.listen) = (Vec::new(), Vec::new());
    config.server.workers = Some(1);
    config.sys.interval = None;
    config.limits.subscriptions = 100_000;
    (config.rooms.rooms, config.rooms.members, config.rooms.rooms_per_user) = (None, None, None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let running = runtime.block_on(Server::builder().config(config).start()).expect("it starts");
    (runtime, running)
}

/// Takes what has come.
fn drain(client: &mut Client) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    std::iter::from_fn(|| matches!(client.poll_recv(&mut cx), Poll::Ready(Some(_))).then_some(())).count()
}

const MEMBERS_OF: usize = 20;

/// Clients of that name, which join twenty rooms each, with the filters of the protocol; and what a room costs more
/// for that.
fn enter_rooms(running: &Running, name: &str, rooms: usize) -> (Vec<Client>, isize) {
    let client = |n: usize| running.client(&format!("{name}-{n:04}")).expect("a name");
    let mut clients: Vec<_> = (0..rooms / MEMBERS_OF).map(client).collect();
    let start = HELD.get();
    for (n, client) in clients.iter_mut().enumerate() {
        for room in n * MEMBERS_OF..(n + 1) * MEMBERS_OF {
            for filter in filters(room, &format!("{name}-{n:04}")) {
                client.subscribe(&filter, QoS::AtLeastOnce).expect("granted");
            }
        }
        drain(client);
    }
    (clients, (HELD.get() - start) / rooms as isize)
}

#[test]
fn a_room_with_members_costs_what_the_documentation_says_and_leaves_nothing() {
    const ROOMS: usize = 4_000;
    let (runtime, running) = server();
    let (mut alices, first) = enter_rooms(&running, "alice", ROOMS);
    assert_eq!((running.held().rooms, running.held().members), (ROOMS, ROOMS));
    let (bobs, second) = enter_rooms(&running, "bob", ROOMS);
    let heard: usize = alices.iter_mut().map(drain).sum();
    assert_eq!((running.held().members, heard), (2 * ROOMS, ROOMS));
    println!("{first} bytes for a room and its first member, {second} for the next");
    assert!(first <= 1_800, "{first} bytes for a room and its first member");
    assert!(second <= 1_200, "{second} bytes for another member");
    drop((alices, bobs));
    assert_eq!(running.held(), Held::default());
    runtime.block_on(running.shutdown(Duration::ZERO));
}

#[test]
fn two_hundred_thousand_rooms_leave_nothing() {
    const ROOMS: usize = 200_000;
    const AT_A_TIME: usize = 100;
    let (runtime, running) = server();
    let day = |from: usize| {
        let mut alice = running.client("alice").expect("a name");
        let bob = running.client("bob").expect("a name");
        for n in from..from + AT_A_TIME {
            let topic = |below: &str| format!("rooms/room-{n:06}/{below}");
            alice.subscribe(&topic("signal"), QoS::AtLeastOnce).expect("granted");
            if n % 10 > 0 {
                continue;
            }
            bob.subscribe(&topic("signal/bob"), QoS::AtLeastOnce).expect("granted");
            bob.publish(&topic("signal"), br#"{"username":"bob"}"#, QoS::AtLeastOnce).expect("a member");
            alice.publish(&topic("presence/alice"), br#"{"muted":true}"#, QoS::AtLeastOnce).expect("a member");
            alice.publish_retained(&topic("state/board"), b"x", QoS::AtLeastOnce).expect("a member");
            assert_eq!(drain(&mut alice), 1);
        }
        assert_eq!(running.held().rooms, AT_A_TIME);
    };
    day(0); // what the thread itself keeps for its work
    let start = HELD.get();
    (1..ROOMS / AT_A_TIME).for_each(|n| day(n * AT_A_TIME));
    assert_eq!(running.held(), Held::default());
    // Tables in which a few rooms had place stay for the next few.
    let left = HELD.get() - start;
    println!("{left} bytes left");
    assert!(left <= 128 * 1024, "{left} bytes left");
    runtime.block_on(running.shutdown(Duration::ZERO));
}

#[test]
fn a_join_costs_in_proportion_to_who_is_told() {
    let (runtime, running) = server();
    let joined_among = |listeners: usize| {
        let room = format!("rooms/of-{listeners}");
        let mut all = Vec::new();
        for n in 0..listeners {
            let listener = running.client(&format!("listener-{n}")).expect("a name");
            listener.subscribe(&format!("{room}/presence/+"), QoS::AtLeastOnce).expect("granted");
            all.push(listener);
        }
        let member = running.client("member").expect("a name");
        let before = ALLOCATIONS.get();
        member.subscribe(&format!("{room}/signal"), QoS::AtLeastOnce).expect("granted");
        let cost = ALLOCATIONS.get() - before;
        assert!(all.iter_mut().all(|listener| drain(listener) == 1));
        cost
    };
    let (few, many) = (joined_among(100), joined_among(1_000));
    println!("{few} allocations for a join that 100 are told of, {many} for one that 1,000 are");
    assert!(many <= 10 * few.max(100), "{few} and {many} allocations");
    runtime.block_on(running.shutdown(Duration::ZERO));
}

/// Nor does it cost anything that there are others, in the room or elsewhere, who do not listen for it.
#[test]
fn a_join_costs_nothing_for_who_is_not_told() {
    let (runtime, running) = server();
    let joined_among = |members: usize| {
        let room = format!("rooms/quiet-{members}");
        let all: Vec<_> = (0..members)
            .map(|n| {
                let member = running.client(&format!("member-{n:04}")).expect("a name");
                for filter in ["signal", "chat", "state/#"] {
                    member.subscribe(&format!("{room}/{filter}"), QoS::AtLeastOnce).expect("granted");
                }
                member
            })
            .collect();
        // The first of some makes place for them.
        (0..2)
            .map(|n| {
                let next = running.client(&format!("next-{n}")).expect("a name");
                let before = ALLOCATIONS.get();
                next.subscribe(&format!("{room}/signal"), QoS::AtLeastOnce).expect("granted");
                (ALLOCATIONS.get() - before, next)
            })
            .map(|(cost, next)| {
                drop(next);
                cost
            })
            .min()
            .map(|cost| (cost, all.len()))
            .expect("two")
    };
    let (few, many) = (joined_among(20), joined_among(1_000));
    println!("{} allocations for a join among {} who are not told, {} among {}", few.0, few.1, many.0, many.1);
    assert!(many.0 <= few.0 + 2, "{few:?} and {many:?}");
    runtime.block_on(running.shutdown(Duration::ZERO));
}

/// What an order allocates is what it does in its room: whoever else there is was not listed for it.
#[test]
fn an_order_to_moderate_costs_the_same_however_many_are_elsewhere() {
    let (runtime, running) = server();
    let mut ada = running.client("ada").expect("a name");
    for filter in ["rooms/demo/signal", "rooms/demo/control"] {
        ada.subscribe(filter, QoS::AtLeastOnce).expect("granted");
    }
    let listener = running.client("bob").expect("a name");
    listener.subscribe("rooms/demo/chat", QoS::AtLeastOnce).expect("granted");
    let mut orders = |what: &[&str]| {
        let before = ALLOCATIONS.get();
        for what in what {
            let order = format!(r#"{{"username":"ada","action":{what}}}"#);
            ada.publish("rooms/demo/control", order.as_bytes(), QoS::AtLeastOnce).expect("a moderator");
        }
        let cost = ALLOCATIONS.get() - before;
        assert_eq!(drain(&mut ada), what.len());
        cost
    };
    let all = [
        r#""ban","user":"eve","seconds":60"#,
        r#""unban","user":"eve""#,
        r#""limit","members":9"#,
        r#""lock""#,
        r#""unlock""#,
    ];
    orders(&all); // what is kept for the next
    let few = orders(&all);
    let (elsewhere, _) = enter_rooms(&running, "carol", 2_000);
    let others: Vec<_> = (0..1_000).map(|n| running.client(&format!("idle-{n}")).expect("a name")).collect();
    let many = orders(&all);
    println!("{few} allocations for five orders among 2 sessions, {many} among {}", running.held().sessions);
    assert_eq!(few, many);
    drop((elsewhere, others, listener));
    runtime.block_on(running.shutdown(Duration::ZERO));
}
