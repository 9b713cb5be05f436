//! What the operator asks of rooms and users: over HTTP, or from a service behind the backplane.

use std::{borrow::Cow, time::Instant};

use super::{Dirty, Hub, SubscriberId};
use crate::{
    backplane::Source,
    policy::{
        Asker, Identity, Meaning, Refusal,
        auth::{Full, Revocation},
        grants::Grants,
        table::Why,
        valid_name,
    },
    room::{Moderation, Problem},
    wire::mqtt::{Publish, PublishProperties, QoS, ReasonCode, topic},
};

/// What messages of the operator's own are tagged with.
const OPERATOR: &str = "operator";
/// The longest reason that is passed on, in bytes.
const REASON: usize = 1024;
/// The topic of a room that is meant where none is said.
const CHAT: &str = "chat";

/// Why something was not done: a status as in HTTP, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    pub status: u16,
    pub what: Cow<'static, str>,
}

impl Declined {
    pub fn new(status: u16, what: impl Into<Cow<'static, str>>) -> Self {
        Self { status, what: what.into() }
    }

    fn not_found(what: &'static str) -> Self {
        Self::new(404, what)
    }

    /// It can be read, and asks for what cannot be.
    fn unprocessable(what: &'static str) -> Self {
        Self::new(422, what)
    }
}

/// A publish that the policy refuses.
impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.reason {
            ReasonCode::NOT_AUTHORIZED => 403,
            ReasonCode::QUOTA_EXCEEDED if refusal.what == Why::Size.what() => 413,
            ReasonCode::QUOTA_EXCEEDED => 429,
            _ => 422,
        };
        Self::new(status, refusal.what)
    }
}

impl From<Problem> for Declined {
    fn from(problem: Problem) -> Self {
        let status = match problem {
            Problem::NoRoom | Problem::NoUser => 404,
            Problem::Invalid(_) => 422,
            Problem::TooManyBans => 409,
        };
        Self::new(status, problem.what())
    }
}

impl From<Full> for Declined {
    fn from(full: Full) -> Self {
        Self::new(507, full.to_string())
    }
}

/// Whether a reason may be passed on to whom it concerns.
fn check_reason(reason: Option<&str>) -> Result<(), Declined> {
    match reason {
        Some(reason) if reason.len() > REASON => {
            Err(Declined::new(422, format!("a reason has at most {REASON} bytes")))
        }
        _ => Ok(()),
    }
}

/// Who asks where it is the operator itself.
pub fn operator() -> Identity {
    Identity::local(OPERATOR, Grants::service())
}

impl Hub {
    /// Says something in a room, whether anybody listens to it there or not: on the topic of the class that is called
    /// `below`, or on `rooms/{room}/{below}`.
    ///
    /// # Errors
    /// There is no such room or topic, or it may not be written there.
    pub fn send_to_room(
        &self,
        by: &Identity,
        (room, below): (&str, Option<&str>),
        payload: &[u8],
        qos: Option<u64>,
        dirty: &mut Dirty,
    ) -> Result<(), Declined> {
        let qos = u8::try_from(qos.unwrap_or(1)).ok().and_then(QoS::from_bits);
        let qos = qos.ok_or_else(|| Declined::unprocessable("qos is 0, 1 or 2"))?;
        if !self.is_open(room) {
            return Err(Problem::NoRoom.into());
        }
        let name = self.topic_in_room(room, below.unwrap_or(CHAT))?;
        self.send_as(by, &name, payload, qos, dirty).map(|_| ())
    }

    /// Puts something into a user's inbox, if the user listens there or has a session that does.
    ///
    /// # Errors
    /// It does not, or that may not be written there.
    pub fn send_to_user(&self, by: &Identity, user: &str, payload: &[u8], dirty: &mut Dirty) -> Result<(), Declined> {
        let absent = || Declined::not_found("this user does not listen to its inbox");
        let inbox = Some(user).filter(|user| valid_name(user)).and_then(|user| self.policy.rules().inbox_topic(user));
        let found = self.send_as(by, &inbox.ok_or_else(absent)?, payload, QoS::AtLeastOnce, dirty)?;
        if found { Ok(()) } else { Err(absent()) }
    }

    /// The topic must belong to the room.
    fn topic_in_room(&self, room: &str, below: &str) -> Result<String, Declined> {
        let rules = self.policy.rules();
        let of_class = rules.table.named(below).and_then(|class| rules.table.topic(class, room, ""));
        let name = of_class
            .filter(|name| rules.room_of(name) == Some(room))
            .unwrap_or_else(|| format!("rooms/{room}/{below}"));
        match topic::valid_name(&name) && rules.room_of(&name) == Some(room) {
            true => Ok(name),
            false => Err(Declined::unprocessable("topic: there is no such topic in a room")),
        }
    }

    /// Publishes by the rules that hold for a client. Says whether anybody got it.
    fn send_as(
        &self,
        by: &Identity,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        dirty: &mut Dirty,
    ) -> Result<bool, Declined> {
        let (now, properties) = (Instant::now(), PublishProperties::default());
        let publish = Publish { dup: false, qos, retain: false, topic, packet_id: None, properties, payload };
        let asker = Asker { identity: by, client_id: "", in_room: &|_| true };
        let permit = self.policy.publish(&asker, SubscriberId::SERVER, &publish, now)?;
        if permit.meaning() != Meaning::Message {
            return Err(Declined::new(403, "rooms are moderated by orders of their own"));
        }
        Ok(self.publish(Source::Server, permit, now, dirty)?)
    }

    /// Carries out an order of the operator's.
    ///
    /// # Errors
    /// It cannot be.
    pub fn order(&self, room: &str, order: &Moderation, now: Instant) -> Result<(), Declined> {
        check_reason(order.reason.as_deref())?;
        Ok(self.moderate_as_operator(room, order, now)?)
    }

    /// Ends what a user has at the moment. It may come back.
    ///
    /// # Errors
    /// It has nothing, or the reason is too long.
    pub fn disconnect_by_order(&self, user: &str, why: Option<&str>, now: Instant) -> Result<(), Declined> {
        check_reason(why)?;
        match self.disconnect_user(user, why, now) {
            true => Ok(()),
            false => Err(Declined::not_found("this user is not connected")),
        }
    }

    /// Keeps a user out with everything that was issued until now. Whoever is connected is looked at again within a
    /// second.
    ///
    /// # Errors
    /// No user can have that name, or so many are revoked that no more can be.
    pub fn revoke_user(&self, user: &str) -> Result<(), Declined> {
        if !valid_name(user) {
            return Err(Declined::unprocessable("no user can have this name"));
        }
        Ok(self.revoke(Revocation::User(user.into()))?)
    }

    /// Keeps what was let in as this user, or with this token, out.
    ///
    /// # Errors
    /// So many are revoked already that no more can be.
    pub fn revoke(&self, what: Revocation) -> Result<(), Full> {
        self.policy.auth.revocations().revoke(what, std::time::SystemTime::now())
    }
}
