//! What services may ask for on `wigwag/cmd/…`, and what they are answered.
//!
//! The topic names the command, the payload is one JSON object with what it needs; rooms and users are not in the
//! topic, so that an embedded broker, which forgets no topic, sees a dozen of them. An answer is a JSON object with a
//! `status` as the HTTP API has it. [`Command::parse`] is total: what cannot be understood is an answer, too.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    hub::{Declined, Dirty, Hub, operator},
    policy::{Identity, valid_name},
    room::{Action, Moderation},
};

/// A command that was understood.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// `send` with `room`, `topic` (below the room), `payload`, `qos`.
    SendToRoom { room: String, topic: Option<String>, payload: String, qos: Option<u64> },
    /// `send` with `user` and `payload`: to its inbox.
    SendToUser { user: String, payload: String },
    /// `kick`, `ban`, `unban`, `lock`, `unlock`, `close`, `limit` with `room` and what they need.
    Moderate { room: String, order: Moderation },
    /// `disconnect` with `user`: its connections end.
    Disconnect { user: String, reason: Option<String> },
    /// `revoke` with `user`: they end, and its tokens are good no more.
    Revoke { user: String },
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// A message waits for a user who is not connected, in a session that is kept.
    Kept,
    Declined(Declined),
}

impl Answer {
    /// As in HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::Done => 204,
            Self::Kept => 202,
            Self::Declined(declined) => declined.status,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Kept => Some("not connected; the message waits for its session"),
            Self::Declined(declined) => Some(&declined.what),
        }
    }
}

/// A command as it came, and where its answer goes.
pub struct Request {
    pub command: Result<Command, Declined>,
    /// What the service calls it, to tell answers apart where MQTT 3.1.1 has no correlation data.
    id: Option<Value>,
    /// Where it wants the answer, likewise.
    pub reply_to: Option<String>,
}

impl Request {
    /// The answer's payload; `node` is who gives it.
    pub fn answer(&self, name: &str, node: &str, answer: &Answer) -> String {
        let mut object = json!({ "command": name, "status": answer.status(), "node": node });
        if let Some(reason) = answer.reason() {
            object["reason"] = reason.into();
        }
        if let Some(id) = &self.id {
            object["id"] = id.clone();
        }
        object.to_string()
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Body {
    room: Option<String>,
    user: Option<String>,
    topic: Option<String>,
    payload: Option<Box<RawValue>>,
    qos: Option<u64>,
    seconds: Option<u64>,
    members: Option<usize>,
    reason: Option<String>,
    id: Option<Value>,
    reply_to: Option<String>,
}

impl Command {
    /// Reads the payload of a message on `wigwag/cmd/{name}`.
    pub fn parse(name: &str, payload: &[u8]) -> Request {
        let body: Body = match serde_json::from_slice(payload) {
            Ok(body) => body,
            Err(error) => {
                // Where the answer goes may be readable still.
                let loose: Value = serde_json::from_slice(payload).unwrap_or_default();
                let reply_to = loose.get("reply_to").and_then(Value::as_str).map(Into::into);
                let command = Err(invalid(format!("not the JSON that is asked for: {error}")));
                return Request { command, id: loose.get("id").cloned(), reply_to };
            }
        };
        let (id, reply_to) = (body.id.clone(), body.reply_to.clone());
        Request { command: Self::from_body(name, body), id, reply_to }
    }

    fn from_body(name: &str, body: Body) -> Result<Self, Declined> {
        let Body { user, seconds, members, reason, .. } = body;
        match name {
            "send" => {
                let payload = body.payload.ok_or_else(|| missing("payload"))?.get().to_owned();
                match (body.room, user) {
                    (Some(room), None) => {
                        let room = named("room", Some(room))?;
                        Ok(Self::SendToRoom { room, topic: body.topic, payload, qos: body.qos })
                    }
                    (None, Some(user)) => Ok(Self::SendToUser { user: named("user", Some(user))?, payload }),
                    _ => Err(invalid("either a room or a user".into())),
                }
            }
            "disconnect" => Ok(Self::Disconnect { user: named("user", user)?, reason }),
            "revoke" => Ok(Self::Revoke { user: named("user", user)? }),
            name => {
                let action = Action::named(name).ok_or_else(|| invalid("no such command".into()))?;
                let order = Moderation { username: None, action, user, seconds, members, reason };
                Ok(Self::Moderate { room: named("room", body.room)?, order })
            }
        }
    }

    /// Does it, as the HTTP API does.
    pub fn execute(self, hub: &Hub, now: Instant, dirty: &mut Dirty) -> Result<Answer, Declined> {
        // A service speaks for whom it likes.
        let service = || Identity { tagged: false, ..operator() };
        match self {
            Self::SendToRoom { room, topic, payload, qos } => {
                hub.send_to_room(&service(), (&room, topic.as_deref()), payload.as_bytes(), qos, dirty)?;
            }
            Self::SendToUser { user, payload } => {
                hub.send_to_user(&service(), &user, payload.as_bytes(), dirty)?;
                if !hub.is_connected(&user) {
                    return Ok(Answer::Kept);
                }
            }
            Self::Moderate { room, order } => hub.order(&room, &order, now)?,
            Self::Disconnect { user, reason } => hub.disconnect_by_order(&user, reason.as_deref(), now)?,
            Self::Revoke { user } => hub.revoke_user(&user)?,
        }
        Ok(Answer::Done)
    }
}

fn named(key: &str, name: Option<String>) -> Result<String, Declined> {
    let name = name.ok_or_else(|| missing(key))?;
    if valid_name(&name) { Ok(name) } else { Err(invalid(format!("{name:?} cannot be a {key}"))) }
}

fn missing(key: &str) -> Declined {
    invalid(format!("{key} is missing"))
}

fn invalid(what: String) -> Declined {
    Declined::new(400, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, body: &str) -> Result<Command, Declined> {
        Command::parse(name, body.as_bytes()).command
    }

    #[test]
    fn commands_are_read_with_all_they_need() {
        let send = parse("send", r#"{"room": "demo", "topic": "chat", "payload": {"b": 1, "a": 2}}"#);
        let (room, topic, payload) = ("demo".into(), Some("chat".into()), r#"{"b": 1, "a": 2}"#.into());
        assert_eq!(send, Ok(Command::SendToRoom { room, topic, payload, qos: None }), "as it came");
        let send = parse("send", r#"{"user": "alice~phone", "payload": {}}"#);
        assert_eq!(send, Ok(Command::SendToUser { user: "alice~phone".into(), payload: "{}".into() }));
        let kick = parse("kick", r#"{"room": "demo", "user": "bob", "seconds": 60, "reason": "spam"}"#);
        let order = Moderation {
            action: Action::Kick,
            user: Some("bob".into()),
            seconds: Some(60),
            reason: Some("spam".into()),
            ..Moderation::default()
        };
        assert_eq!(kick, Ok(Command::Moderate { room: "demo".into(), order }));
        for name in ["lock", "unlock", "close", "limit", "ban", "unban"] {
            assert!(matches!(parse(name, r#"{"room": "demo"}"#), Ok(Command::Moderate { .. })), "{name}");
        }
        let (user, reason) = ("bob".to_owned(), None);
        let disconnect = parse("disconnect", r#"{"user": "bob"}"#);
        assert_eq!(disconnect, Ok(Command::Disconnect { user: user.clone(), reason }));
        assert_eq!(parse("revoke", r#"{"user": "bob"}"#), Ok(Command::Revoke { user }));
    }

    #[test]
    fn what_cannot_be_understood_is_an_answer() {
        for (name, body) in [
            ("send", r#"{"room": "demo", "topic": "chat"}"#),
            ("send", r#"{"payload": {}}"#),
            ("send", r#"{"room": "demo", "user": "bob", "topic": "chat", "payload": {}}"#),
            ("send", r#"{"room": "a/b", "topic": "chat", "payload": {}}"#),
            ("send", r#"{"room": "demo", "topic": "chat", "payload": {}, "qos": -1}"#),
            ("send", r#"{"user": "+", "payload": {}}"#),
            ("lock", "{}"),
            ("lock", r#"{"room": "demo", "rooom": 1}"#),
            ("explode", r#"{"room": "demo"}"#),
            ("send", "[]"),
            ("lock", "{"),
        ] {
            assert_eq!(parse(name, body).map_err(|declined| declined.status), Err(400), "{name} {body}");
        }
    }

    #[test]
    fn an_answer_says_who_gives_it_and_to_what() {
        let request = Command::parse("lock", br#"{"room":"demo","x":1,"id":7,"reply_to":"app/answers"}"#);
        assert_eq!(request.reply_to.as_deref(), Some("app/answers"));
        let answer: Value = serde_json::from_str(&request.answer("lock", "node-1", &Answer::Kept)).expect("JSON");
        let reason = "not connected; the message waits for its session";
        let expected = json!({"command": "lock", "status": 202, "node": "node-1", "reason": reason, "id": 7});
        assert_eq!(answer, expected);
    }
}
