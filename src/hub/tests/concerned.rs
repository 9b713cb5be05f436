//! Orders look at whom they concern: what is found depends on the room, not on how many others there are.

use std::sync::Arc;

use crate::{
    config::RoomsConfig,
    hub::{
        End, HubLimits, KeptLimits,
        testing::{CLEAN, KEPT, LIMITS, Peer, World},
    },
    policy::{
        Identity,
        grants::{GrantClaims, Grants},
    },
    room::{Action, Moderation},
};

fn world() -> World {
    let kept = KeptLimits { all: 1000, per_user: 1000, per_address: 1000 };
    World::shipped(HubLimits { sessions: kept, retained_messages: 1000, ..LIMITS }, RoomsConfig::default())
}

fn by(claims: &str, user: &str) -> Arc<Identity> {
    let claims: GrantClaims = serde_json::from_str(claims).unwrap();
    Arc::new(Identity::local(user, Grants::from_claims(&claims)))
}

/// A client of a user with the same name that may join every room and has these filters.
fn comes(world: &World, name: &str, filters: &[&str]) -> Peer {
    let peer = world.connect_as(name, by(r#"{"rooms":{"*":["join"]}}"#, name), KEPT).unwrap();
    assert!(filters.iter().all(|filter| world.subscribe(&peer, filter).is_ok()));
    peer
}

fn observes(world: &World, name: &str, filter: &str) -> Peer {
    let peer = world.connect_as(name, by(r#"{"roles":["observe"]}"#, name), CLEAN).unwrap();
    world.subscribe(&peer, filter).unwrap();
    peer
}

fn orders(world: &World, action: Action, user: Option<&str>) {
    let order = Moderation { action, user: user.map(Into::into), seconds: Some(60), ..Moderation::default() };
    world.hub.moderate_as_operator("demo", &order, world.now).unwrap();
}

fn names(sessions: Vec<Arc<crate::session::Session>>) -> Vec<String> {
    sessions.into_iter().map(|session| session.client_id.to_string()).collect()
}

/// Members, listeners, shares, who is away and who sleeps, and nobody else; observers of all rooms where their user is
/// meant.
fn crowd(world: &mut World) -> Vec<Peer> {
    let sleeper = comes(world, "sleeper", &["rooms/demo/signal", "rooms/demo/chat"]);
    world.disconnect(&sleeper, End::Lost);
    world.wait(10); // its stay ends with the grace
    assert_eq!(world.hub.held().asleep, 2);
    let away = comes(world, "away", &["rooms/demo/presence/+"]);
    world.disconnect(&away, End::Lost);
    vec![
        sleeper,
        away,
        comes(world, "member", &["rooms/demo/signal", "rooms/demo/signal/member", "rooms/demo/chat"]),
        comes(world, "listener", &["rooms/demo/state/#"]),
        comes(world, "elsewhere", &["rooms/demo2/signal", "rooms/dem/chat", "users/elsewhere/inbox"]),
        observes(world, "sharer", "$share/g/rooms/demo/chat"),
        observes(world, "inside", "rooms/demo/#"),
        observes(world, "all", "rooms/#"),
        observes(world, "listener~tv", "rooms/+/state/#"),
    ]
}

#[test]
fn found_are_those_who_have_something_in_the_room() {
    let mut world = world();
    let _crowd = crowd(&mut world);
    let inside = ["sleeper", "away", "member", "listener", "sharer", "inside"];
    assert_eq!(names(world.hub.sessions_in_room("demo")), inside);
    assert_eq!(names(world.hub.sessions_in_room("demo2")), ["elsewhere"]);
    assert_eq!(names(world.hub.sessions_in_room("nowhere")), [""; 0]);
    let of = |user: &'static str| {
        names(world.hub.sessions_reached_by_room("demo", |session| session.user.starts_with(user)))
    };
    assert_eq!(of("listener"), ["listener", "listener~tv"]);
    assert_eq!((of("all"), of("sleeper"), of("elsewhere")), (vec!["all".into()], vec!["sleeper".into()], vec![]));
}

#[test]
fn how_many_are_found_does_not_depend_on_how_many_there_are_elsewhere() {
    let mut world = world();
    let _crowd = crowd(&mut world);
    let before = (world.hub.sessions_in_room("demo").len(), world.hub.sessions_reached_by_room("demo", |_| true).len());
    let others: Vec<_> = (0..300)
        .map(|n| {
            let room = format!("rooms/other-{n}");
            let own = comes(&world, &format!("other-{n}"), &[&format!("{room}/signal"), &format!("{room}/chat")]);
            if n % 3 == 0 {
                world.disconnect(&own, End::Lost);
            }
            own
        })
        .collect();
    world.wait(10);
    assert_eq!(world.hub.held().sessions, 9 + others.len());
    assert_eq!(world.hub.held().asleep, 2 + 2 * 100);
    let after = (world.hub.sessions_in_room("demo").len(), world.hub.sessions_reached_by_room("demo", |_| true).len());
    assert_eq!((before, after), ((6, 8), (6, 8)));
}

/// Also who is not connected, or left the room long ago.
#[test]
fn whom_an_order_ends_something_for_stays_out_when_it_comes_back() {
    let mut world = world();
    let _crowd = crowd(&mut world);
    orders(&world, Action::Close, None);
    // An observer's wildcard is no subscription inside the room: it is looked at at each delivery.
    assert_eq!(names(world.hub.sessions_in_room("demo")), ["inside"]);
    assert_eq!(world.hub.held().asleep, 0);
    let sleeper = world.connect_as("sleeper", by(r#"{"rooms":{"*":["join"]}}"#, "sleeper"), KEPT).unwrap();
    assert!(sleeper.present && sleeper.session.lock().subscriptions.is_empty());
    assert_eq!(world.hub.held().members, 1, "demo2's");
}

#[test]
fn what_sleeps_is_found_until_it_wakes_or_ends() {
    let sleeps = || {
        let mut world = world();
        let _here = comes(&world, "member", &["rooms/demo/signal"]);
        let sleeper = comes(&world, "sleeper", &["rooms/demo/signal", "rooms/demo/chat"]);
        world.disconnect(&sleeper, End::Lost);
        world.wait(10);
        assert_eq!((world.hub.held().asleep, names(world.hub.sessions_in_room("demo")).len()), (2, 2));
        (world, _here)
    };
    let back =
        |world: &World, asks| world.connect_as("sleeper", by(r#"{"rooms":{"*":["join"]}}"#, "sleeper"), asks).unwrap();
    let (world, _here) = sleeps();
    let awake = back(&world, KEPT);
    assert_eq!((awake.present, world.hub.held().asleep, world.hub.held().members), (true, 0, 2));

    let (world, _here) = sleeps();
    let other = back(&world, CLEAN);
    assert_eq!((other.present, world.hub.held().asleep, world.hub.held().members), (false, 0, 1));

    let (mut world, _here) = sleeps();
    world.wait(60); // its session's time
    assert_eq!(world.hub.held().asleep, 0);

    let (world, _here) = sleeps();
    orders(&world, Action::Ban, Some("sleeper"));
    assert_eq!(world.hub.held().asleep, 0);
    let out = back(&world, KEPT);
    assert!(out.present && out.session.lock().subscriptions.is_empty());
}
