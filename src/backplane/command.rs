//! What services may ask for on `wigwag/cmd/…`, and what they are answered.
//!
//! The topic names the command, the payload is one JSON object with what it needs; rooms and users are not in the
//! topic, so that an embedded broker, which forgets no topic, sees a dozen of them. An answer is a JSON object with a
//! `status` as the HTTP API has it. [`Command::parse`] is total: what cannot be understood is an answer, too.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Source;
use crate::{
    hub::{Dirty, Hub},
    policy::valid_name,
    wire::mqtt::{QoS, topic},
};

/// A command that was understood.
#[derive(Debug, PartialEq)]
pub enum Command {
    /// `send` with `room`, `topic` (below the room), `payload`, `qos`.
    SendToRoom { room: String, topic: String, payload: Value, qos: QoS },
    /// `send` with `user` and `payload`: to its inbox.
    SendToUser { user: String, payload: Value },
    /// What room admins do.
    Moderate(Moderation),
    /// `disconnect` with `user`: its connections end.
    Disconnect { user: String, reason: Option<String> },
    /// `revoke` with `user`: they end, and its tokens are good no more.
    Revoke { user: String, reason: Option<String> },
}

/// `kick`, `ban`, `unban`, `lock`, `unlock`, `close`, `limit` with `room` and what they need.
#[derive(Debug, PartialEq)]
pub struct Moderation {
    pub action: Action,
    pub room: String,
    /// Of `kick`, `ban`, `unban`.
    pub user: Option<String>,
    /// Of `kick`, `ban`.
    pub seconds: Option<u64>,
    /// Of `limit`.
    pub members: Option<usize>,
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Kick,
    Ban,
    Unban,
    Lock,
    Unlock,
    Close,
    Limit,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// A message waits for a user who is not connected, in a session that is kept.
    Kept,
    /// The room or the user is not there.
    NotFound(String),
    /// It makes no sense.
    Invalid(String),
    /// The server may not or cannot.
    Refused(String),
    /// This server does not do that.
    Unavailable,
}

impl Answer {
    /// As in HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::Done => 204,
            Self::Kept => 202,
            Self::Invalid(_) => 400,
            Self::NotFound(_) => 404,
            Self::Refused(_) => 409,
            Self::Unavailable => 501,
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Kept => Some("not connected; the message waits for its session"),
            Self::Unavailable => Some("not available"),
            Self::NotFound(reason) | Self::Invalid(reason) | Self::Refused(reason) => Some(reason),
        }
    }
}

/// A command as it came, and where its answer goes.
pub struct Request {
    pub command: Result<Command, Answer>,
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
    payload: Option<Value>,
    qos: Option<u8>,
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
                let command = Err(Answer::Invalid(format!("not the JSON that is asked for: {error}")));
                return Request { command, id: loose.get("id").cloned(), reply_to };
            }
        };
        let (id, reply_to) = (body.id.clone(), body.reply_to.clone());
        Request { command: Self::from_body(name, body), id, reply_to }
    }

    fn from_body(name: &str, body: Body) -> Result<Self, Answer> {
        let action = match name {
            "send" => return Self::send(body),
            "disconnect" => return Ok(Self::Disconnect { user: named("user", body.user)?, reason: body.reason }),
            "revoke" => return Ok(Self::Revoke { user: named("user", body.user)?, reason: body.reason }),
            "kick" => Action::Kick,
            "ban" => Action::Ban,
            "unban" => Action::Unban,
            "lock" => Action::Lock,
            "unlock" => Action::Unlock,
            "close" => Action::Close,
            "limit" => Action::Limit,
            _ => return Err(Answer::Invalid("no such command".into())),
        };
        let user = match action {
            Action::Kick | Action::Ban | Action::Unban => Some(named("user", body.user)?),
            _ => None,
        };
        if action == Action::Limit && body.members.is_none() {
            return Err(missing("members"));
        }
        let room = named("room", body.room)?;
        let Body { seconds, members, reason, .. } = body;
        Ok(Self::Moderate(Moderation { action, room, user, seconds, members, reason }))
    }

    fn send(body: Body) -> Result<Self, Answer> {
        let payload = body.payload.ok_or_else(|| missing("payload"))?;
        match (body.room, body.user) {
            (Some(room), None) => {
                let room = named("room", Some(room))?;
                let below = body.topic.ok_or_else(|| missing("topic"))?;
                if !topic::valid_name(&below) || below.starts_with("presence") {
                    return Err(Answer::Invalid(format!("{below:?} is no topic of a room that a service may write")));
                }
                let qos = QoS::from_bits(body.qos.unwrap_or(1));
                let qos = qos.ok_or_else(|| Answer::Invalid("qos is 0, 1 or 2".into()))?;
                Ok(Self::SendToRoom { room, topic: below, payload, qos })
            }
            (None, Some(user)) => Ok(Self::SendToUser { user: named("user", Some(user))?, payload }),
            _ => Err(Answer::Invalid("either a room or a user".into())),
        }
    }

    /// Does it.
    pub fn execute(self, hub: &Hub, now: Instant, dirty: &mut Dirty) -> Answer {
        match self {
            Self::SendToRoom { room, topic, payload, qos } => {
                let topic_in_room = format!("rooms/{room}/{topic}");
                let permit = hub.policy.server_message(&topic_in_room, &bytes(&payload), qos, false);
                match hub.publish(Source::Server, permit, now, dirty) {
                    Ok(true) => Answer::Done,
                    Ok(false) => Answer::NotFound(format!("nobody listens to {topic} in room {room}")),
                    Err(refusal) => Answer::Refused(refusal.what.into()),
                }
            }
            Self::SendToUser { user, payload } => {
                let inbox = format!("users/{user}/inbox");
                let permit = hub.policy.server_message(&inbox, &bytes(&payload), QoS::AtLeastOnce, false);
                match hub.publish(Source::Server, permit, now, dirty) {
                    Ok(true) if hub.is_connected(&user) => Answer::Done,
                    Ok(true) => Answer::Kept,
                    Ok(false) if hub.is_connected(&user) => {
                        Answer::NotFound(format!("{user} is connected and does not listen to its inbox"))
                    }
                    Ok(false) => Answer::NotFound(format!("{user} is not connected")),
                    Err(refusal) => Answer::Refused(refusal.what.into()),
                }
            }
            // Rooms as such, and the ends of connections, are not known here.
            Self::Moderate(_) | Self::Disconnect { .. } | Self::Revoke { .. } => Answer::Unavailable,
        }
    }
}

/// Text goes as JSON, too: topics of rooms and inboxes are JSON.
fn bytes(payload: &Value) -> Vec<u8> {
    payload.to_string().into_bytes()
}

fn named(key: &str, name: Option<String>) -> Result<String, Answer> {
    let name = name.ok_or_else(|| missing(key))?;
    if valid_name(&name) { Ok(name) } else { Err(Answer::Invalid(format!("{name:?} cannot be a {key}"))) }
}

fn missing(key: &str) -> Answer {
    Answer::Invalid(format!("{key} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, body: Value) -> Result<Command, Answer> {
        Command::parse(name, body.to_string().as_bytes()).command
    }

    #[test]
    fn commands_are_read_with_all_they_need() {
        let send = parse("send", json!({"room": "demo", "topic": "chat", "payload": {"text": "hi"}}));
        let payload = json!({"text": "hi"});
        let (room, topic) = ("demo".into(), "chat".into());
        assert_eq!(send, Ok(Command::SendToRoom { room, topic, payload, qos: QoS::AtLeastOnce }));
        let send = parse("send", json!({"user": "alice~phone", "payload": 1}));
        assert_eq!(send, Ok(Command::SendToUser { user: "alice~phone".into(), payload: json!(1) }));
        let kick = parse("kick", json!({"room": "demo", "user": "bob", "seconds": 60, "reason": "spam"}));
        let expected = Moderation {
            action: Action::Kick,
            room: "demo".into(),
            user: Some("bob".into()),
            seconds: Some(60),
            members: None,
            reason: Some("spam".into()),
        };
        assert_eq!(kick, Ok(Command::Moderate(expected)));
        for name in ["lock", "unlock", "close"] {
            assert!(matches!(parse(name, json!({"room": "demo"})), Ok(Command::Moderate(_))), "{name}");
        }
        assert!(parse("limit", json!({"room": "demo", "members": 8})).is_ok());
        assert!(parse("disconnect", json!({"user": "bob"})).is_ok() && parse("revoke", json!({"user": "bob"})).is_ok());
    }

    #[test]
    fn what_cannot_be_understood_is_an_answer() {
        for (name, body) in [
            ("send", json!({"room": "demo", "topic": "chat"})),
            ("send", json!({"room": "demo", "payload": 1})),
            ("send", json!({"room": "demo", "user": "bob", "topic": "chat", "payload": 1})),
            ("send", json!({"room": "a/b", "topic": "chat", "payload": 1})),
            ("send", json!({"room": "demo", "topic": "#", "payload": 1})),
            ("send", json!({"room": "demo", "topic": "presence/bob", "payload": 1})),
            ("send", json!({"room": "demo", "topic": "chat", "payload": 1, "qos": 3})),
            ("send", json!({"user": "+", "payload": 1})),
            ("kick", json!({"room": "demo"})),
            ("limit", json!({"room": "demo"})),
            ("lock", json!({})),
            ("lock", json!({"room": "demo", "rooom": 1})),
            ("explode", json!({"room": "demo"})),
            ("send", json!([])),
        ] {
            assert_eq!(parse(name, body.clone()).map_err(|answer| answer.status()), Err(400), "{name} {body}");
        }
        assert_eq!(Command::parse("lock", b"{").command.map_err(|answer| answer.status()), Err(400));
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
