//! Random days in two rooms: users with several tabs and devices come, go, are lost, come back, moderate one another
//! and talk, in any order, and after each step the hub is what [`model`] says: the roster is the places, each stay began
//! once and ended once, who has a place is heard and nobody else is. In the end nothing is left.

mod model;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{CLIENTS, Model, ROOMS, Step};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    config::RoomsConfig,
    hub::{
        End, HubLimits, KeptLimits,
        testing::{Asks, CLEAN, KEPT, LIMITS, Peer, World},
    },
    policy::{
        Identity,
        grants::{GrantClaims, Grants},
    },
    room::{Action, Moderation},
};

/// Places that one user may have, with all devices: fewer than it may want.
const ROOMS_PER_USER: usize = 3;

fn steps() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS.len();
    let room = || 0..ROOMS.len();
    let ends = vec![End::Normal, End::WithWill, End::Lost, End::Lost, End::Lost, End::Expired, End::Removed];
    let user = || select(vec!["alice", "bob", "bob~phone"]);
    let will = prop_oneof![Just(None), room().prop_map(Some)];
    prop_oneof![
        6 => (client(), any::<bool>(), select(vec![0, 5, 60]), will)
            .prop_map(|(client, clean, expiry, will)| Step::Connect { client, clean, expiry, will }),
        8 => (client(), room(), any::<bool>()).prop_map(|(client, room, direct)| Step::Join { client, room, direct }),
        3 => (client(), room(), any::<bool>()).prop_map(|(client, room, direct)| Step::Leave { client, room, direct }),
        5 => (client(), select(ends)).prop_map(|(client, end)| Step::End { client, end }),
        4 => (client(), room()).prop_map(|(client, room)| Step::Speak { client, room }),
        2 => (client(), room()).prop_map(|(client, room)| Step::Meta { client, room }),
        4 => select(vec![1, 4, 7, 30]).prop_map(Step::Wait),
        1 => (room(), user(), select(vec![0, 6, 100])).prop_map(|(room, user, seconds)| Step::Kick { room, user, seconds }),
        1 => (room(), user(), select(vec![6, 100])).prop_map(|(room, user, seconds)| Step::Ban { room, user, seconds }),
        1 => (room(), user()).prop_map(|(room, user)| Step::Unban { room, user }),
        1 => (room(), any::<bool>()).prop_map(|(room, locked)| Step::Lock { room, locked }),
        1 => room().prop_map(|room| Step::Close { room }),
        1 => (room(), 1..4_usize).prop_map(|(room, members)| Step::Limit { room, members }),
    ]
}

/// The hub, as it is driven and looked at.
struct Day {
    world: World,
    peers: BTreeMap<usize, Peer>,
    watcher: Peer,
    /// Whether names are believed, so that strangers may speak.
    open: bool,
}

fn identity(user: &str, claims: &str, open: bool) -> Arc<Identity> {
    let claims: GrantClaims = serde_json::from_str(claims).unwrap();
    Arc::new(Identity { believed: open, ..Identity::local(user, Grants::from_claims(&claims)) })
}

const MEMBER: &str = r#"{"rooms":{"*":["join"]}}"#;
const OBSERVER: &str = r#"{"roles":["observe"]}"#;

impl Day {
    fn new(open: bool) -> Self {
        let limits = HubLimits {
            sessions: KeptLimits { all: 100, ..LIMITS.sessions },
            retained_messages: 0, // which does not concern the roster
            ..LIMITS
        };
        let rooms = RoomsConfig { members: Some(3), rooms_per_user: Some(ROOMS_PER_USER), ..RoomsConfig::default() };
        let world = World::shipped(limits, rooms);
        let watcher = world.connect_as("watcher", identity("watcher", OBSERVER, false), CLEAN).unwrap();
        for filter in ["events/#", "rooms/+/chat"] {
            world.subscribe(&watcher, filter).unwrap();
        }
        Self { world, peers: BTreeMap::new(), watcher, open }
    }

    /// Does it, and says what is to be seen of it at once: whether it was accepted.
    fn does(&mut self, step: &Step) -> bool {
        let moderate = |world: &World, room: usize, order: Moderation| {
            world.hub.moderate_as_operator(ROOMS[room], &order, world.now).is_ok()
        };
        let by = |action, user: &str, seconds| Moderation {
            action,
            user: Some(user.into()),
            seconds: Some(seconds),
            ..Moderation::default()
        };
        let world = &mut self.world;
        let done = match *step {
            Step::Connect { client, clean, expiry, will } => {
                let (client_id, user) = CLIENTS[client];
                let will = will.map(|room| (["rooms/red/chat", "rooms/blue/chat"][room], 3));
                let asks = Asks { clean_start: clean, expiry, will, ..KEPT };
                let peer = world.connect_as(client_id, identity(user, MEMBER, self.open), asks).unwrap();
                let present = peer.present;
                self.peers.insert(client, peer);
                present
            }
            Step::Join { client, room, direct } => {
                let Some(peer) = self.peers.get(&client) else { return false };
                world.subscribe(peer, &model::filter(client, room, direct)).is_ok()
            }
            Step::Leave { client, room, direct } => {
                let Some(peer) = self.peers.get(&client) else { return false };
                world.unsubscribe(peer, &model::filter(client, room, direct))
            }
            Step::End { client, end } => {
                let Some(peer) = self.peers.remove(&client) else { return false };
                world.disconnect(&peer, end);
                true
            }
            Step::Speak { client, room } => {
                let Some(peer) = self.peers.get(&client) else { return false };
                let payload = format!(r#"{{"username":"{}"}}"#, CLIENTS[client].1);
                world.publish_as(peer, &format!("rooms/{}/signal", ROOMS[room]), payload.as_bytes(), false).is_ok()
            }
            Step::Meta { client, room } => {
                let Some(peer) = self.peers.get(&client) else { return false };
                let topic = format!("rooms/{}/presence/{}", ROOMS[room], CLIENTS[client].1);
                world.publish_as(peer, &topic, format!(r#"{{"by":{client}}}"#).as_bytes(), true).is_ok()
            }
            Step::Wait(seconds) => {
                world.wait(seconds);
                true
            }
            Step::Kick { room, user, seconds } => moderate(world, room, by(Action::Kick, user, seconds)),
            Step::Ban { room, user, seconds } => moderate(world, room, by(Action::Ban, user, seconds)),
            Step::Unban { room, user } => moderate(world, room, by(Action::Unban, user, 0)),
            Step::Lock { room, locked } => {
                let action = if locked { Action::Lock } else { Action::Unlock };
                moderate(world, room, Moderation { action, ..Moderation::default() })
            }
            Step::Close { room } => {
                moderate(world, room, Moderation { action: Action::Close, ..Moderation::default() })
            }
            Step::Limit { room, members } => {
                let members = Some(members);
                moderate(world, room, Moderation { action: Action::Limit, members, ..Moderation::default() })
            }
        };
        // What the tasks of connections do that are to end.
        let ending: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.closing().is_some()).map(|(at, _)| *at).collect();
        for client in ending {
            let peer = self.peers.remove(&client).unwrap();
            self.world.disconnect(&peer, End::Removed);
        }
        done
    }

    /// What services and observers have been told since the last call, without times.
    fn told(&self) -> Vec<String> {
        let line = |(topic, payload, _): (String, String, bool)| {
            let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
            let field = |name: &str| match &payload[name] {
                serde_json::Value::Null => String::new(),
                serde_json::Value::String(text) => format!(" {text}"),
                other => format!(" {other}"),
            };
            match topic.strip_prefix("events/") {
                Some(event) => format!("{event}{}{}{}", field("room"), field("user"), field("reason")),
                None => format!("will {topic}"),
            }
        };
        self.watcher.messages().into_iter().map(line).collect()
    }

    /// The roster, as a newcomer would get it: room and user, whose instance it is, and what it says of itself.
    fn roster(&self) -> BTreeMap<(String, String), (String, Option<String>)> {
        let newcomer = self.world.connect_as("newcomer", identity("newcomer", OBSERVER, false), CLEAN).unwrap();
        self.world.subscribe(&newcomer, "rooms/+/presence/+").unwrap();
        let messages = newcomer.messages();
        let count = messages.len();
        let entries = messages.into_iter().map(|(topic, payload, retained)| {
            assert!(retained);
            let entry: serde_json::Value = serde_json::from_str(&payload).unwrap();
            let mut levels = topic.split('/');
            let (room, user) = (levels.nth(1).unwrap().to_owned(), levels.nth(1).unwrap().to_owned());
            assert_eq!((entry["username"].as_str(), entry["status"].as_str()), (Some(&*user), Some("online")));
            let meta = entry.get("meta").map(|meta| meta["by"].to_string());
            ((room, user), (entry["instance"].as_str().unwrap().to_owned(), meta))
        });
        let roster: BTreeMap<_, _> = entries.collect();
        assert_eq!(roster.len(), count, "each member once");
        self.world.disconnect(&newcomer, End::Normal);
        roster
    }

    fn check(&self, model: &Model, step: &Step) {
        // Rooms know nothing of one another: the order is that of each.
        let by_room = |lines: Vec<String>| {
            let names = |line: &str, room| line.split([' ', '/']).any(|word| word == room);
            ROOMS.map(|room| lines.iter().filter(|line| names(line, room)).cloned().collect::<Vec<_>>())
        };
        assert_eq!(by_room(self.told()), by_room(model.told()), "{step:?}");
        let roster = self.roster();
        let places: BTreeSet<_> = roster.keys().cloned().collect();
        assert_eq!(places, model.places(), "{step:?}");
        for (client, peer) in &self.peers {
            let instance = self.world.hub.instance(peer.session.id);
            let shown =
                |(at, (shown, _)): (&(String, String), &(String, _))| (*shown == instance).then(|| at.0.clone());
            let in_rooms: BTreeSet<_> = roster.iter().filter_map(shown).collect();
            assert_eq!(in_rooms, model.rooms_of(*client), "{step:?}: what {} is in", CLIENTS[*client].0);
            assert_eq!(peer.session.lock().joined().into_iter().map(String::from).collect::<BTreeSet<_>>(), in_rooms);
        }
        let metas: BTreeMap<_, _> = roster.into_iter().filter_map(|(at, (_, meta))| Some((at, meta?))).collect();
        assert_eq!(metas, model.metas(), "{step:?}");
        let held = self.world.hub.held();
        let overview = self.world.hub.overview();
        assert_eq!((overview.rooms, held.members), (model.open_rooms(), places.len()), "{step:?}");
        assert_eq!(held.retained, places.len(), "{step:?}");
        assert_eq!(held.users, model.users(), "{step:?}");
        assert_eq!(self.peers.keys().copied().collect::<BTreeSet<_>>(), model.connected(), "{step:?}");
    }

    /// Everybody goes, time passes.
    fn end(mut self) {
        for (_, peer) in std::mem::take(&mut self.peers) {
            self.world.disconnect(&peer, End::Lost);
        }
        self.world.disconnect(&self.watcher, End::Normal);
        self.world.wait(1000);
        self.world.assert_empty();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn whatever_happens_in_whatever_order_a_stay_begins_once_and_ends_once(
        steps in vec(steps(), 1..60),
        open in any::<bool>(),
    ) {
        let (mut day, mut model) = (Day::new(open), Model::new(open, ROOMS_PER_USER));
        for step in &steps {
            prop_assert_eq!(day.does(step), model.does(step), "{:?}", step);
            day.check(&model, step);
            model.forget_told();
        }
        day.end();
    }
}
