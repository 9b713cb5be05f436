//! Rooms as the protocol describes them, without a hub: maps, and the rules in the order in which they are written down.

use std::collections::{BTreeMap, BTreeSet};

use crate::{hub::End, policy::base};

pub const ROOMS: [&str; 2] = ["red", "blue"];
/// Client ids and their users: two tabs each of two users, one of whom has a phone too.
pub const CLIENTS: [(&str, &str); 5] =
    [("tab-1", "alice"), ("tab-2", "alice"), ("tab-3", "bob"), ("tab-4", "bob"), ("phone", "bob~phone")];
/// Seconds.
const GRACE: u64 = 8;
const MEMBERS: usize = 3;

#[derive(Debug, Clone)]
pub enum Step {
    Connect { client: usize, clean: bool, expiry: u32, will: Option<usize> },
    Join { client: usize, room: usize, direct: bool },
    Leave { client: usize, room: usize, direct: bool },
    End { client: usize, end: End },
    Speak { client: usize, room: usize },
    Meta { client: usize, room: usize },
    Wait(u64),
    Kick { room: usize, user: &'static str, seconds: u64 },
    Ban { room: usize, user: &'static str, seconds: u64 },
    Unban { room: usize, user: &'static str },
    Lock { room: usize, locked: bool },
    Close { room: usize },
    Limit { room: usize, members: usize },
}

/// The filter by which a client joins.
pub fn filter(client: usize, room: usize, direct: bool) -> String {
    let user = if direct { format!("/{}", CLIENTS[client].1) } else { String::new() };
    format!("rooms/{}/signal{user}", ROOMS[room])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Live,
    Asleep,
    Over,
}

#[derive(Debug, Default)]
struct Session {
    /// Which one of its client's it is.
    serial: usize,
    connected: bool,
    expiry: u32,
    /// When it ends, without a connection.
    ends: Option<u64>,
    will: Option<usize>,
    /// Room, and whether it is the direct one, in the order of the filters.
    filters: BTreeMap<(&'static str, bool), Standing>,
}

#[derive(Debug)]
struct Place {
    /// Client, and serial of its session.
    session: (usize, usize),
    meta: Option<usize>,
    /// Until when and as which in turn, why, and whether with a will.
    held: Option<((u64, usize), &'static str, bool)>,
}

#[derive(Debug, Default)]
struct Room {
    places: BTreeMap<&'static str, Place>,
    locked: bool,
    limit: Option<usize>,
    bans: BTreeMap<&'static str, u64>,
}

pub struct Model {
    open: bool,
    rooms_per_user: usize,
    now: u64,
    serial: usize,
    sessions: BTreeMap<usize, Session>,
    rooms: [Room; 2],
    told: Vec<String>,
}

fn user(client: usize) -> &'static str {
    CLIENTS[client].1
}

fn number(name: &str) -> usize {
    ROOMS.iter().position(|room| *room == name).unwrap()
}

impl Model {
    pub fn new(open: bool, rooms_per_user: usize) -> Self {
        let (sessions, told) = (BTreeMap::new(), Vec::new());
        Self { open, rooms_per_user, now: 0, serial: 0, sessions, rooms: Default::default(), told }
    }

    pub fn told(&self) -> Vec<String> {
        self.told.clone()
    }

    pub fn forget_told(&mut self) {
        self.told.clear();
    }

    pub fn places(&self) -> BTreeSet<(String, String)> {
        let of_room = |n: usize| self.rooms[n].places.keys().map(move |user| (ROOMS[n].into(), (*user).into()));
        (0..ROOMS.len()).flat_map(of_room).collect()
    }

    pub fn metas(&self) -> BTreeMap<(String, String), String> {
        let of_room = |n: usize| {
            let said = self.rooms[n].places.iter().filter_map(|(user, place)| Some((user, place.meta?)));
            said.map(move |(user, meta)| ((ROOMS[n].into(), (*user).into()), meta.to_string()))
        };
        (0..ROOMS.len()).flat_map(of_room).collect()
    }

    /// Rooms in which the present session of a client has the place.
    pub fn rooms_of(&self, client: usize) -> BTreeSet<String> {
        let own = |n: &usize| self.is_own(client, *n);
        (0..ROOMS.len()).filter(own).map(|n| ROOMS[n].into()).collect()
    }

    pub fn open_rooms(&self) -> usize {
        self.rooms.iter().filter(|room| !room.places.is_empty()).count()
    }

    pub fn users(&self) -> usize {
        let all: BTreeSet<_> = self.rooms.iter().flat_map(|room| room.places.keys().map(|user| base(user))).collect();
        all.len()
    }

    pub fn connected(&self) -> BTreeSet<usize> {
        self.sessions.iter().filter(|(_, session)| session.connected).map(|(client, _)| *client).collect()
    }

    fn is_own(&self, client: usize, room: usize) -> bool {
        let serial = self.sessions.get(&client).map(|session| session.serial);
        let place = self.rooms[room].places.get(user(client));
        place.is_some_and(|place| Some(place.session) == serial.map(|serial| (client, serial)))
    }

    fn is_banned(&self, room: usize, user: &str) -> bool {
        self.rooms[room].bans.get(base(user)).is_some_and(|until| *until > self.now)
    }

    fn admits(&self, room: usize, user: &str) -> bool {
        let Room { places, locked, limit, .. } = &self.rooms[room];
        !self.is_banned(room, user) && (places.contains_key(user) || !locked && places.len() < limit.unwrap_or(MEMBERS))
    }

    fn joined(&self, client: usize) -> Vec<usize> {
        let Some(session) = self.sessions.get(&client) else { return Vec::new() };
        let live = session.filters.iter().filter(|(_, standing)| **standing == Standing::Live);
        live.map(|((room, _), _)| number(room)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub fn does(&mut self, step: &Step) -> bool {
        let is_connected = |model: &Self, client: usize| model.sessions.get(&client).is_some_and(|it| it.connected);
        match *step {
            Step::Connect { client, clean, expiry, will } => self.connect(client, clean, expiry, will),
            Step::Join { client, .. }
            | Step::Leave { client, .. }
            | Step::End { client, .. }
            | Step::Speak { client, .. }
            | Step::Meta { client, .. }
                if !is_connected(self, client) =>
            {
                false
            }
            Step::Join { client, room, direct } => self.join(client, room, direct),
            Step::Leave { client, room, direct } => {
                let session = self.sessions.get_mut(&client).unwrap();
                let existed = session.filters.remove(&(ROOMS[room], direct)).is_some();
                if existed && !self.joined(client).contains(&room) && self.is_own(client, room) {
                    self.leave(room, user(client), "left");
                }
                existed
            }
            Step::End { client, end } => {
                self.end(client, end);
                true
            }
            Step::Speak { client, room } => self.may_speak(client, room),
            Step::Meta { client, room } => {
                let may = self.may_speak(client, room);
                let place = self.rooms[room].places.get_mut(user(client)).filter(|_| may);
                place.map(|place| place.meta = Some(client)).is_some()
            }
            Step::Wait(seconds) => {
                self.wait(seconds);
                true
            }
            Step::Kick { room, user, seconds } => {
                let is_there = self.rooms[room].places.keys().any(|member| base(member) == base(user));
                is_there && self.ban(room, base(user), seconds)
            }
            Step::Ban { room, user, seconds } => {
                !self.rooms[room].places.is_empty() && self.ban(room, base(user), seconds)
            }
            Step::Unban { room, user } => {
                let now = self.now;
                let Room { places, bans, .. } = &mut self.rooms[room];
                let is_there = !places.is_empty() || bans.values().any(|until| *until > now);
                bans.remove(base(user));
                is_there
            }
            Step::Lock { room, locked } => {
                if self.rooms[room].places.is_empty() {
                    return false;
                }
                self.rooms[room].locked = locked;
                let members: BTreeSet<_> = self.rooms[room].places.keys().copied().collect();
                let clients = (0..CLIENTS.len()).filter(|client| locked && !members.contains(user(*client)));
                clients.for_each(|client| {
                    self.take_out(client, room);
                });
                true
            }
            Step::Close { room } => {
                let members: Vec<_> = self.rooms[room].places.keys().copied().collect();
                members.iter().for_each(|member| self.leave(room, member, "closed"));
                if !members.is_empty() {
                    (0..CLIENTS.len()).for_each(|client| {
                        self.take_out(client, room);
                    });
                }
                !members.is_empty()
            }
            Step::Limit { room, members } => {
                let is_there = !self.rooms[room].places.is_empty();
                if is_there {
                    self.rooms[room].limit = Some(members);
                }
                is_there
            }
        }
    }

    fn may_speak(&self, client: usize, room: usize) -> bool {
        let place = self.rooms[room].places.get(user(client));
        self.joined(client).contains(&room)
            || place.is_some_and(|place| place.held.is_some())
            || self.open && self.admits(room, user(client))
    }

    /// Says whether a session was there.
    fn connect(&mut self, client: usize, clean: bool, expiry: u32, will: Option<usize>) -> bool {
        let old = self.sessions.get(&client);
        if old.is_none_or(|old| clean || old.expiry == 0) {
            self.end_session(client);
            self.serial += 1;
            let session = Session { serial: self.serial, connected: true, expiry, will, ..Session::default() };
            self.sessions.insert(client, session);
            return false;
        }
        for room in self.joined(client) {
            assert!(self.is_own(client, room));
            self.rooms[room].places.get_mut(user(client)).unwrap().held = None;
        }
        let session = self.sessions.get_mut(&client).unwrap();
        (session.connected, session.expiry, session.ends, session.will) = (true, expiry, None, will);
        session.filters.retain(|_, standing| *standing != Standing::Over);
        for ((room, direct), standing) in session.filters.clone() {
            if standing == Standing::Asleep {
                self.sessions.get_mut(&client).unwrap().filters.remove(&(room, direct));
                self.join(client, number(room), direct);
            }
        }
        true
    }

    fn join(&mut self, client: usize, room: usize, direct: bool) -> bool {
        let (user, session) = (user(client), (client, self.sessions[&client].serial));
        if !self.admits(room, user) {
            return false;
        }
        let places = self.rooms.iter().flat_map(|room| room.places.keys());
        let taken = places.filter(|member| base(member) == base(user)).count();
        match self.rooms[room].places.get_mut(user) {
            None if taken >= self.rooms_per_user => return false,
            None => {
                if self.rooms[room].places.is_empty() {
                    self.told.push(format!("room/opened {}", ROOMS[room]));
                }
                self.rooms[room].places.insert(user, Place { session, meta: None, held: None });
                self.told.push(format!("member/joined {} {user}", ROOMS[room]));
            }
            Some(place) => {
                place.held = None;
                let older = std::mem::replace(&mut place.session, session);
                if older != session && self.sessions.get(&older.0).is_some_and(|it| it.serial == older.1) {
                    self.take_out(older.0, room);
                }
            }
        }
        self.sessions.get_mut(&client).unwrap().filters.insert((ROOMS[room], direct), Standing::Live);
        true
    }

    fn leave(&mut self, room: usize, user: &str, reason: &str) {
        self.rooms[room].places.remove(user).unwrap();
        self.told.push(format!("member/left {} {user} {reason}", ROOMS[room]));
        if self.rooms[room].places.is_empty() {
            (self.rooms[room].locked, self.rooms[room].limit) = (false, None);
            self.told.push(format!("room/closed {}", ROOMS[room]));
        }
    }

    /// What the client has of a room is over. Says whether that was anything.
    fn take_out(&mut self, client: usize, room: usize) -> bool {
        let Some(session) = self.sessions.get_mut(&client) else { return false };
        let connected = session.connected;
        let mut found = false;
        session.filters.retain(|(name, _), standing| {
            let inside = *name == ROOMS[room];
            found |= inside;
            if inside {
                *standing = Standing::Over;
            }
            !inside || !connected
        });
        found
    }

    fn ban(&mut self, room: usize, banned: &'static str, seconds: u64) -> bool {
        self.rooms[room].bans.insert(banned, self.now + seconds);
        let all: Vec<_> = self.rooms[room].places.keys().copied().filter(|member| base(member) == banned).collect();
        all.iter().for_each(|member| self.leave(room, member, "kicked"));
        for client in (0..CLIENTS.len()).filter(|client| base(user(*client)) == banned) {
            let is_connected = self.sessions.get(&client).is_some_and(|session| session.connected);
            if self.take_out(client, room) && is_connected && self.joined(client).is_empty() {
                self.end(client, End::Removed);
            }
        }
        true
    }

    fn end(&mut self, client: usize, end: End) {
        let kept = self.sessions[&client].expiry > 0;
        let reason = match end {
            End::Normal | End::WithWill => "left",
            End::Removed => "disconnected",
            End::Lost => "lost",
            End::Expired => "expired",
        };
        let will = self.sessions.get_mut(&client).unwrap().will.take();
        for room in self.joined(client) {
            if matches!(end, End::Lost | End::Expired) {
                self.hold(client, room, reason, will);
                continue;
            }
            self.leave(room, user(client), reason);
            self.put_to_sleep(client, room);
            if end == End::WithWill && will == Some(room) {
                self.told.push(format!("will rooms/{}/chat", ROOMS[room]));
            }
        }
        if kept {
            let session = self.sessions.get_mut(&client).unwrap();
            (session.connected, session.ends) = (false, Some(self.now + u64::from(session.expiry)));
        } else {
            self.sessions.remove(&client);
        }
    }

    fn hold(&mut self, client: usize, room: usize, reason: &'static str, will: Option<usize>) {
        self.serial += 1;
        let place = self.rooms[room].places.get_mut(user(client)).unwrap();
        place.held.get_or_insert(((self.now + GRACE, self.serial), reason, will == Some(room)));
    }

    fn put_to_sleep(&mut self, client: usize, room: usize) {
        let filters = self.sessions.get_mut(&client).unwrap().filters.iter_mut();
        let live = filters.filter(|((name, _), standing)| *name == ROOMS[room] && **standing == Standing::Live);
        live.for_each(|(_, standing)| *standing = Standing::Asleep);
    }

    /// The session is over, its client is not: what it has in rooms is held.
    fn end_session(&mut self, client: usize) {
        let will = self.sessions.get_mut(&client).and_then(|session| session.will.take());
        for room in self.joined(client) {
            self.hold(client, room, "lost", will);
        }
        self.sessions.remove(&client);
    }

    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            let mut lapsed = Vec::new();
            for (room, found) in self.rooms.iter().enumerate() {
                for (user, place) in &found.places {
                    if let Some((until, reason, will)) = place.held.filter(|((until, _), ..)| *until <= self.now) {
                        lapsed.push((until, room, *user, place.session, reason, will));
                    }
                }
            }
            lapsed.sort();
            for (_, room, user, (client, serial), reason, will) in lapsed {
                self.leave(room, user, reason);
                if self.sessions.get(&client).is_some_and(|session| session.serial == serial) {
                    self.put_to_sleep(client, room);
                }
                if will {
                    self.told.push(format!("will rooms/{}/chat", ROOMS[room]));
                }
            }
            let over = self.sessions.iter().filter(|(_, session)| session.ends.is_some_and(|ends| ends <= self.now));
            for client in over.map(|(client, _)| *client).collect::<Vec<_>>() {
                self.end_session(client);
            }
        }
    }
}
