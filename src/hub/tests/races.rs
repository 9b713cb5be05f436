//! The same sessions on several threads. Whatever the order, index and sessions agree in the end and nothing is left.

use std::{sync::Barrier, thread, time::Duration};

use crate::{
    config::{RoomsConfig, TopicRows},
    hub::{
        End,
        testing::{Asks, CLEAN, KEPT, LIMITS, World},
    },
    wire::mqtt::{QoS, SubscribeOptions},
};

/// Runs the jobs at once.
fn together<const N: usize>(jobs: [&(dyn Fn() + Sync); N]) {
    let barrier = Barrier::new(N);
    thread::scope(|scope| {
        for job in jobs {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                job();
            });
        }
    });
}

const ROUNDS: usize = 300;

#[test]
fn a_session_that_ends_while_it_subscribes_leaves_no_subscription() {
    for round in 0..ROUNDS {
        let world = World::new();
        let peer = world.connect("client", CLEAN);
        let filter = ["a", "+/x", "$share/g/a", "#"][round % 4];
        together([
            &|| {
                let _ = world.subscribe(&peer, filter);
            },
            &|| world.disconnect(&peer, End::Lost),
        ]);
        world.assert_empty();
    }
}

#[test]
fn a_take_over_with_a_clean_start_leaves_nothing_of_the_old_session() {
    for _ in 0..ROUNDS {
        let world = World::new();
        let peer = world.connect("client", Asks { will: Some(("will", 5)), ..KEPT });
        together([
            &|| {
                let _ = world.subscribe(&peer, "a/b");
            },
            &|| world.disconnect(&peer, End::Lost),
            &|| drop(world.connect("client", CLEAN)),
        ]);
        let held = world.hub.held();
        assert_eq!((held.sessions, held.subscriptions, held.timers, world.kept()), (1, 0, 0, 0));
    }
}

#[test]
fn index_and_session_agree_when_both_end_and_begin_a_subscription() {
    for round in 0..ROUNDS {
        let world = World::new();
        let peer = world.connect("client", KEPT);
        let filter = ["a", "+"][round % 2];
        world.subscribe(&peer, filter).unwrap();
        together([
            &|| {
                world.unsubscribe(&peer, filter);
            },
            &|| {
                let _ = world.subscribe(&peer, filter);
            },
        ]);
        let remembered = peer.session.lock().find(filter).is_ok();
        assert_eq!(world.publish("a"), remembered);
        assert_eq!(world.hub.held().subscriptions, usize::from(remembered));
    }
}

#[test]
fn connections_that_fight_for_a_client_id_leave_one_session() {
    for _ in 0..ROUNDS / 4 {
        let world = World::new();
        let fight = |asks: Asks| {
            for _ in 0..5 {
                let peer = world.connect("client", asks);
                let _ = world.subscribe(&peer, "a");
                world.publish("a");
                world.disconnect(&peer, End::Lost);
            }
        };
        together([&|| fight(KEPT), &|| fight(CLEAN), &|| fight(Asks { expiry: 0, ..KEPT })]);
        let last = world.connect("client", CLEAN);
        assert_eq!(world.hub.held().sessions, 1);
        world.disconnect(&last, End::Normal);
        world.assert_empty();
    }
}

#[test]
fn retained_messages_are_counted_right_from_many_threads() {
    let world = World::with(crate::hub::HubLimits { retained_messages: 1000, retained_bytes: 1 << 20, ..LIMITS });
    let churn = |seed: usize| {
        for number in 0..500 {
            let topic = format!("a/{}", (number * seed) % 7);
            let payload = vec![b'.'; (number + seed) % 5 * 10];
            world.retain(&topic, &payload, (number % 3 == 0).then_some(1000)).unwrap();
        }
    };
    together([&|| churn(1), &|| churn(2), &|| churn(3)]);
    let (messages, _) = world.retained();
    assert!(messages <= 7);
    (0..7).for_each(|number| {
        world.retain(&format!("a/{number}"), b"", None).unwrap();
    });
    world.assert_empty();
}

/// Order is kept for each publisher and topic [MQTT-4.6.0-6], and nothing is left behind unsent.
#[test]
fn messages_published_at_once_all_arrive_without_anybody_asking_again() {
    let world = World::with(crate::hub::HubLimits {
        queue: crate::session::QueueLimits { messages: 10_000, own: 10_000, bytes: 1 << 24 },
        ..LIMITS
    });
    let peer = world.connect("client", CLEAN);
    world.subscribe_with(&peer, "#", SubscribeOptions::new(QoS::AtMostOnce), 0).unwrap();
    let publish = |name: &str| {
        (0..500).for_each(|number| {
            world.publish(&format!("{name}/{number}"));
        })
    };
    together([&|| publish("a"), &|| publish("b"), &|| publish("c")]);
    let received = peer.received();
    assert_eq!(received.len(), 1500);
    for name in ["a", "b", "c"] {
        let of_one: Vec<_> = received.iter().filter(|topic| topic.starts_with(name)).cloned().collect();
        assert_eq!(of_one, (0..500).map(|number| format!("{name}/{number}@0")).collect::<Vec<_>>());
    }
}

/// A retained message comes wholly before a subscription or wholly after, also where the filter concerns every shard.
#[test]
fn what_is_retained_while_somebody_subscribes_comes_once() {
    for round in 0..ROUNDS {
        let world = World::with(crate::hub::HubLimits { retained_messages: 1000, retained_bytes: 1 << 20, ..LIMITS });
        let peer = world.connect("client", CLEAN);
        let filter = ["#", "a/#", "a/b/#"][round % 3];
        together([
            &|| {
                (0..40).for_each(|number| {
                    world.retain(&format!("a/b/{number}"), b".", None).unwrap();
                })
            },
            &|| {
                world.subscribe(&peer, filter).unwrap();
            },
        ]);
        world.settle(&peer);
        let received = peer.received();
        let mut topics: Vec<_> = received.iter().map(|it| it.split('@').next().unwrap()).collect();
        topics.sort_unstable();
        topics.dedup();
        assert_eq!((topics.len(), received.len()), (40, 40), "{filter}");
    }
}

/// How many members there are, of which sessions, rooms and rosters say the same.
#[track_caller]
fn members(world: &World) -> usize {
    let joined: usize = world.hub.sessions().iter().map(|session| session.lock().joined().len()).sum();
    let held = world.hub.held();
    assert_eq!((joined, held.retained, held.rooms), (held.members, held.members, held.members.min(1)));
    joined
}

#[test]
fn a_member_that_is_back_in_the_moment_its_grace_ends_is_in_the_room() {
    for _ in 0..ROUNDS {
        let world = World::shipped(LIMITS, RoomsConfig::default());
        let lost = world.connect("client", KEPT);
        world.subscribe(&lost, "rooms/demo/signal").unwrap();
        world.subscribe(&lost, "rooms/demo/presence/+").unwrap();
        world.disconnect(&lost, End::Lost);
        let later = world.now + Duration::from_secs(8);
        together([
            &|| {
                while let Some(due) = world.hub.clock.pop_due(later) {
                    world.hub.due(due, later);
                }
            },
            &|| assert!(world.connect("client", KEPT).present),
        ]);
        assert_eq!(members(&world), 1);
        let subscribed = world.hub.held().subscriptions;
        assert_eq!(subscribed, 2, "what it has of the room is awake");
    }
}

#[test]
fn two_tabs_that_join_and_go_at_once_leave_one_member_or_none() {
    for round in 0..ROUNDS {
        let world = World::shipped(LIMITS, RoomsConfig::default());
        let tabs = ["one", "two"].map(|id| world.connect(id, if round % 2 == 0 { KEPT } else { CLEAN }));
        let joins = |tab: &crate::hub::testing::Peer| {
            let _ = world.subscribe(tab, "rooms/demo/signal");
        };
        together([&|| joins(&tabs[0]), &|| joins(&tabs[1]), &|| world.disconnect(&tabs[0], End::Normal)]);
        assert!(members(&world) <= 1);
        together([&|| world.disconnect(&tabs[1], End::Normal), &|| joins(&tabs[1])]);
        assert_eq!(members(&world), 0);
    }
}

#[test]
fn a_topic_table_may_change_while_rooms_are_busy() {
    let world = World::shipped(LIMITS, RoomsConfig::default());
    let alice = world.connect("alice", CLEAN);
    world.subscribe(&alice, "rooms/demo/signal").unwrap();
    let often = |act: &dyn Fn()| (0..ROUNDS).for_each(|_| act());
    together([
        &|| {
            often(&|| {
                world.publish_as(&alice, "rooms/demo/presence/user", b"{}", true).ok();
            });
        },
        &|| often(&|| world.hub.policy.replace_table(&TopicRows::default())),
        &|| {
            often(&|| {
                let tab = world.connect("tab", CLEAN);
                let _ = world.subscribe(&tab, "rooms/demo/signal");
                world.disconnect(&tab, End::Normal);
            });
        },
    ]);
}
