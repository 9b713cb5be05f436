//! The state machine of a room, edge by edge: what happens, and what comes of it. The time is an argument.

use super::*;

/// A room whose sessions are numbers, and the seconds that have passed in it.
struct Script {
    room: Room<u32, &'static str>,
    start: Instant,
    now: Instant,
    most: Option<usize>,
}

/// What a join comes to, in a word.
type Outcome = Result<&'static str, Refused>;

impl Script {
    fn new(most: Option<usize>) -> Self {
        let start = Instant::now();
        Self { room: Room::new(None, start), start, now: start, most }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn joins(&mut self, user: &str, session: u32) -> Outcome {
        let today = SystemTime::UNIX_EPOCH + self.now.duration_since(self.start);
        Ok(match self.room.join(user, &session, self.most, self.now, today)? {
            Join::Joined => "joined",
            Join::Already => "already",
            Join::Resumed(_) => "resumed",
            Join::Moved { held: None, .. } => "moved from a live session",
            Join::Moved { held: Some(_), .. } => "moved from a held place",
        })
    }

    fn loses(&mut self, user: &str, session: u32) -> bool {
        self.loses_for(user, session, Reason::Lost)
    }

    fn loses_for(&mut self, user: &str, session: u32, reason: Reason) -> bool {
        self.room.hold(user, &session, Held { reason, with: "will" }).is_ok()
    }

    fn is_back(&mut self, user: &str, session: u32) -> Option<Reason> {
        self.room.resume(user, &session).map(|held| held.reason)
    }

    fn leaves(&mut self, user: &str) -> Option<Duration> {
        self.room.leave(user).map(|gone| gone.stayed(self.now))
    }

    fn bans(&mut self, user: &str, seconds: u64) -> bool {
        self.room.ban(user, self.now + Duration::from_secs(seconds), self.now)
    }

    fn members(&self) -> Vec<&str> {
        self.room.members().iter().map(|member| &*member.user).collect()
    }
}

#[test]
fn a_stay_begins_once_and_ends_once() {
    let mut script = Script::new(None);
    assert!(script.room.is_empty() && script.room.is_over(script.now));
    assert_eq!(script.joins("bob", 2), Ok("joined"));
    script.wait(5);
    assert_eq!(script.joins("alice", 1), Ok("joined"));
    assert_eq!(script.joins("alice", 1), Ok("already"));
    assert_eq!(script.members(), ["alice", "bob"]);
    assert!(script.room.has("alice", &1) && !script.room.has("alice", &2) && !script.room.has("eve", &1));
    script.wait(10);
    assert_eq!(script.leaves("alice"), Some(Duration::from_secs(10)));
    assert_eq!(script.leaves("alice"), None);
    assert_eq!(script.leaves("bob"), Some(Duration::from_secs(15)));
    assert!(script.room.is_over(script.now));
}

#[test]
fn a_place_is_held_for_who_was_lost_and_is_its_own_again() {
    let mut script = Script::new(None);
    script.joins("alice", 1).unwrap();
    assert_eq!(script.is_back("alice", 1), None, "it was not away");
    assert!(script.loses("alice", 1));
    assert!(!script.loses("alice", 1), "held once");
    assert_eq!(script.members(), ["alice"], "the roster does not change");
    assert_eq!(script.is_back("alice", 2), None, "another session joins for it");
    assert_eq!(script.is_back("alice", 1), Some(Reason::Lost));
    assert_eq!(script.is_back("alice", 1), None, "back once");
    assert!(script.loses_for("alice", 1, Reason::Expired));
    assert_eq!(script.joins("alice", 1), Ok("resumed"), "a subscription is as good as a resumption");
    assert!(script.room.member("alice").unwrap().held.is_none());
    assert!(!script.loses("bob", 3) && !script.loses("alice", 3), "nothing is held for who has no place");
}

#[test]
fn the_same_user_takes_its_place_over_and_the_stay_goes_on() {
    let mut script = Script::new(None);
    script.joins("alice", 1).unwrap();
    script.room.member_mut("alice").unwrap().meta = Some(b"{}".to_vec().into());
    let since = script.room.member("alice").unwrap().since;
    script.wait(3);
    assert_eq!(script.joins("alice", 2), Ok("moved from a live session"));
    assert!(!script.loses("alice", 1), "the older session has nothing to lose any more");
    assert!(script.loses("alice", 2));
    script.wait(3);
    assert_eq!(script.joins("alice", 3), Ok("moved from a held place"));
    let member = script.room.member("alice").unwrap();
    assert_eq!((member.session, member.since, member.held.is_none()), (3, since, true));
    assert_eq!(member.meta.as_deref(), Some(&b"{}"[..]));
    assert_eq!(script.leaves("alice"), Some(Duration::from_secs(6)));
    assert_eq!(script.joins("alice", 3), Ok("joined"));
    assert!(script.room.member("alice").unwrap().meta.is_none(), "it ended with the stay");
}

#[test]
fn a_full_room_keeps_the_place_of_who_was_lost() {
    let mut script = Script::new(Some(2));
    script.joins("alice", 1).unwrap();
    script.joins("bob", 2).unwrap();
    assert_eq!(script.joins("carol", 3), Err(Refused::Full));
    assert!(script.loses("bob", 2));
    assert_eq!(script.joins("carol", 3), Err(Refused::Full), "a held place is taken");
    assert_eq!(script.joins("bob", 4), Ok("moved from a held place"));
    script.leaves("bob");
    assert_eq!(script.joins("carol", 3), Ok("joined"));
    script.room.set_limit(3);
    assert_eq!(script.joins("dave", 5), Ok("joined"), "a moderator's limit goes before the default");
    script.room.set_limit(1);
    assert_eq!(script.members(), ["alice", "carol", "dave"], "who is in stays in");
    assert_eq!(script.joins("eve", 6), Err(Refused::Full));
}

#[test]
fn a_locked_room_takes_nobody_but_its_members() {
    let mut script = Script::new(None);
    script.joins("alice", 1).unwrap();
    script.joins("bob", 2).unwrap();
    script.loses("bob", 2);
    script.room.set_locked(true);
    assert_eq!(script.joins("carol", 3), Err(Refused::Locked));
    assert_eq!(script.joins("bob", 4), Ok("moved from a held place"));
    assert_eq!(script.joins("alice", 5), Ok("moved from a live session"));
    let closed = script.room.closed().expect("a lock");
    let admits = |user, observes| closed.admits(user, || observes, script.now);
    assert!(admits("alice", false) && admits("bob", false) && !admits("carol", false) && admits("carol", true));
    script.leaves("bob");
    assert_eq!(script.joins("bob", 4), Err(Refused::Locked));
    script.room.set_locked(false);
    assert_eq!((script.joins("bob", 4), script.room.closed()), (Ok("joined"), None));
}

#[test]
fn a_ban_is_for_a_user_with_all_devices_and_for_a_time() {
    let mut script = Script::new(None);
    script.joins("ada", 1).unwrap();
    script.joins("bob", 2).unwrap();
    script.joins("bob~phone", 3).unwrap();
    assert_eq!(script.room.devices_of("bob"), ["bob".into(), Box::from("bob~phone")]);
    assert!(script.bans("bob~tablet", 60), "it does not matter by which device");
    for device in ["bob", "bob~phone", "bob~other"] {
        assert_eq!(script.joins(device, 4), Err(Refused::Banned), "{device}");
    }
    assert_eq!(script.joins("bobby", 5), Ok("joined"));
    let closed = script.room.closed().expect("a ban");
    assert!(!closed.admits("bob~phone", || true, script.now), "nor does it observe");
    assert!(closed.admits("bob", || false, script.at(60)) && closed.admits("eve", || false, script.now));
    for user in ["ada", "bob", "bob~phone", "bobby"] {
        script.leaves(user).unwrap();
    }
    assert!(script.room.is_empty() && !script.room.is_over(script.now), "somebody is kept out");
    assert_eq!(script.room.banned_until(), Some(script.at(60)));
    script.wait(60);
    assert!(script.room.is_over(script.now) && !script.room.is_banned("bob", script.now));
    assert_eq!(script.joins("bob", 2), Ok("joined"));
    script.bans("bob", 60);
    script.room.unban("bob~phone");
    assert_eq!(script.joins("bob", 2), Ok("already"));
    assert!(script.bans("bob", 60) && script.bans("bob", 0), "the later word counts");
    assert!(!script.room.is_banned("bob", script.now));
}

#[test]
fn so_many_users_are_kept_out_and_no_more() {
    let mut script = Script::new(None);
    for n in 0..BANS {
        assert!(script.bans(&format!("user-{n}"), 10));
    }
    assert!(!script.bans("one too many", 10));
    assert!(script.bans("user-7", 20), "who is kept out already may be kept out for longer");
    script.wait(10);
    assert!(script.bans("one too many", 10), "those whose time is up do not count");
}

#[test]
fn a_room_that_opens_again_knows_nothing_of_the_last_time_but_its_bans() {
    let mut script = Script::new(None);
    script.joins("alice", 1).unwrap();
    script.bans("bob", 60);
    script.room.set_limit(1);
    script.room.set_locked(true);
    script.leaves("alice");
    script.wait(5);
    script.room.reopen(Some(4), script.now);
    assert_eq!((script.room.limit(), script.room.locked(), script.room.opened()), (Some(4), false, script.at(5)));
    assert_eq!(script.joins("bob", 2), Err(Refused::Banned));
}

#[test]
fn places_that_were_given_back_take_no_memory() {
    let mut script = Script::new(None);
    for n in 0..1000 {
        script.joins(&format!("user-{n}"), n).unwrap();
    }
    for n in 0..999 {
        script.leaves(&format!("user-{n}")).unwrap();
    }
    assert!(script.room.places.capacity() <= 8, "{}", script.room.places.capacity());
    let mut pair = Script::new(None);
    pair.joins("alice", 1).unwrap();
    pair.joins("bob", 2).unwrap();
    assert_eq!(pair.room.places.capacity(), 2, "most rooms are for two");
}
