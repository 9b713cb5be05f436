//! One message in one line. Whatever it says was written by others and is escaped, and nothing of a session description
//! is shown.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::cli::client::Message;
use crate::cli::terminal::{escape, span};

/// See the module.
pub struct Line {
    at: SystemTime,
    from: String,
    to: String,
    what: String,
    size: usize,
    qos: u8,
    retain: bool,
    age: Option<Duration>,
    /// From the broker's reading it to its being here.
    latency: Option<Duration>,
}

/// The longest word that is shown of what others wrote, in characters.
const WORD: usize = 40;

impl Line {
    pub fn of(message: &Message, now: SystemTime) -> Self {
        let topic = String::from_utf8_lossy(&message.topic);
        let mut levels = topic.splitn(4, '/').skip(2); // rooms/{room}/class/rest
        let (class, rest) = (levels.next().unwrap_or_default(), levels.next());
        let object: Option<Map<String, Value>> = serde_json::from_slice(&message.payload).ok();
        let text = |keys: &[&str]| keys.iter().find_map(|key| object.as_ref()?.get(*key)?.as_str());
        let from = match class {
            "presence" => rest, // the server writes it, of that user
            _ => message.sender.as_deref().or_else(|| text(&["username", "from"])),
        };
        let to = match class {
            "signal" => rest.or_else(|| text(&["to", "target"])),
            _ => None,
        };
        Self {
            at: now,
            from: word(from.unwrap_or("server")),
            to: word(to.unwrap_or("everyone")),
            what: what(class, rest, object.as_ref(), &message.payload),
            size: message.payload.len(),
            qos: message.qos,
            retain: message.retain,
            age: object.as_ref().and_then(|object| age(object, message.retain, now)),
            latency: message.received.as_deref().filter(|_| !message.retain).and_then(|at| latency(at, now)),
        }
    }
}

/// What kind of thing is said.
fn what(class: &str, rest: Option<&str>, object: Option<&Map<String, Value>>, payload: &[u8]) -> String {
    let field = |name: &str| object.and_then(|object| object.get(name));
    match class {
        "signal" => signal(object),
        "presence" if payload.is_empty() => "gone".into(),
        "presence" => "here".into(),
        "control" => {
            let user = field("user").and_then(Value::as_str).map(|user| format!(" {}", word(user))).unwrap_or_default();
            format!("{}{user}", word(field("action").and_then(Value::as_str).unwrap_or("control")))
        }
        "state" if payload.is_empty() => format!("cleared {}", word(rest.unwrap_or_default())),
        "state" => format!("state {}", word(rest.unwrap_or_default())),
        other => word(other),
    }
}

/// The name that a signal goes by in either of the common shapes.
fn signal(object: Option<&Map<String, Value>>) -> String {
    let Some(object) = object else { return "no JSON object".into() };
    for (name, said) in [("candidate", "candidate"), ("iceCandidate", "candidate")] {
        match object.get(name) {
            Some(Value::Null) => return "end of candidates".into(),
            Some(_) => return said.into(),
            None => {}
        }
    }
    for name in ["offer", "answer", "sealed", "hello", "bye", "full"] {
        if object.contains_key(name) {
            return name.into();
        }
    }
    match object.get("type").and_then(Value::as_str) {
        Some(kind) => word(kind),
        None => {
            object.keys().find(|key| !TAGS.contains(&key.as_str())).map_or_else(|| "signal".into(), |key| word(key))
        }
    }
}

const TAGS: [&str; 5] = ["username", "from", "to", "target", "session"];

/// How long ago the broker received a message, by this machine's clock; one that is behind makes that nothing.
fn latency(received: &str, now: SystemTime) -> Option<Duration> {
    let received = SystemTime::from(OffsetDateTime::parse(received, &Rfc3339).ok()?);
    Some(now.duration_since(received).unwrap_or_default())
}

/// How old a message says that it is: `since` in a roster that was there before, or a time in milliseconds.
fn age(object: &Map<String, Value>, retained: bool, now: SystemTime) -> Option<Duration> {
    let since = object.get("since").filter(|_| retained).and_then(Value::as_str);
    let since = since.and_then(|since| OffsetDateTime::parse(since, &Rfc3339).ok()).map(SystemTime::from);
    let millis = || ["ts", "sent", "timestamp"].iter().find_map(|key| object.get(*key)?.as_u64());
    let said = since.or_else(|| UNIX_EPOCH.checked_add(Duration::from_millis(millis()?)))?;
    now.duration_since(said).ok()
}

fn word(text: &str) -> String {
    let mut short: String = text.chars().take(WORD).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    escape(short.as_bytes())
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = OffsetDateTime::from(self.at).to_offset(UtcOffset::UTC);
        let (hour, minute, second, millisecond) = at.to_hms_milli();
        write!(f, "{hour:02}:{minute:02}:{second:02}.{millisecond:03}  ")?;
        let whom = format!("{} → {}", self.from, self.to);
        write!(f, "{whom:28} {:18} {:>9}  QoS {}", self.what, bytes(self.size), self.qos)?;
        if let Some(latency) = self.latency {
            write!(f, "  {:>9}", format!("{:.2} ms", latency.as_secs_f64() * 1000.0))?;
        }
        if self.retain {
            f.write_str("  retained")?;
        }
        match self.age {
            Some(age) if age < Duration::from_secs(10) => write!(f, "  {} ms old", age.as_millis())?,
            Some(age) => write!(f, "  {} old", span(age.as_secs()))?,
            None => {}
        }
        f.write_str("\n")
    }
}

fn bytes(size: usize) -> String {
    if size < 10_000 { format!("{size} B") } else { format!("{:.1} kB", size as f64 / 1000.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(topic: &str, payload: &str, sender: Option<&str>) -> String {
        shown(topic, payload, sender, false)
    }

    fn retained_line(topic: &str, payload: &str) -> String {
        shown(topic, payload, None, true)
    }

    fn shown(topic: &str, payload: &str, sender: Option<&str>, retain: bool) -> String {
        let message = Message {
            topic: topic.to_owned().into(),
            payload: payload.to_owned().into(),
            qos: 1,
            retain,
            sender: sender.map(Into::into),
            received: None,
        };
        let text = Line::of(&message, UNIX_EPOCH + Duration::from_millis(1_790_000_000_250)).to_string();
        let words = text.strip_prefix("14:13:20.250  ").unwrap_or_else(|| panic!("{text}"));
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_says_what_to_whom() {
        let signal = "rooms/demo/signal";
        let table = [
            (
                signal,
                r#"{"username":"alice","offer":{"type":"offer","sdp":"v=0"}}"#,
                "alice → everyone offer 57 B QoS 1",
            ),
            (signal, r#"{"from":"alice","target":"bob","type":"answer","sdp":"v=0"}"#, "alice → bob answer 59 B QoS 1"),
            (
                signal,
                r#"{"from":"a","type":"ice","iceCandidate":{"candidate":"x"}}"#,
                "a → everyone candidate 58 B QoS 1",
            ),
            (signal, r#"{"username":"a","to":"s1","candidate":null}"#, "a → s1 end of candidates 43 B QoS 1"),
            (signal, r#"{"username":"a","sealed":"x"}"#, "a → everyone sealed 29 B QoS 1"),
            (signal, r#"{"username":"a","session":"s","wave":1}"#, "a → everyone wave 39 B QoS 1"),
            (signal, "hm", "server → everyone no JSON object 2 B QoS 1"),
            ("rooms/demo/signal/bob", r#"{"username":"a","bye":true}"#, "a → bob bye 27 B QoS 1"),
            (
                "rooms/demo/chat",
                r#"{"username":"a","text":"hi","ts":1790000000000}"#,
                "a → everyone chat 47 B QoS 1 250 ms old",
            ),
            ("rooms/demo/presence/bob", "", "bob → everyone gone 0 B QoS 1"),
            (
                "rooms/demo/presence/bob",
                r#"{"username":"bob","since":"2026-09-21T14:12:00Z"}"#,
                "bob → everyone here 49 B QoS 1",
            ),
            ("rooms/demo/control", r#"{"action":"kick","user":"bob"}"#, "server → everyone kick bob 30 B QoS 1"),
            ("rooms/demo/state/board/1", "x", "server → everyone state board/1 1 B QoS 1"),
        ];
        for (topic, payload, expected) in table {
            assert_eq!(line(topic, payload, None), expected, "{topic} {payload}");
        }
        let there_before = r#"{"username":"bob","since":"2026-09-21T14:12:00Z"}"#;
        let roster = retained_line("rooms/demo/presence/bob", there_before);
        assert_eq!(roster, "bob → everyone here 49 B QoS 1 retained 1 min 20 s old");
        let forged = line(signal, r#"{"username":"bob","hello":true}"#, Some("alice"));
        assert!(forged.starts_with("alice → everyone hello"), "the broker's word counts: {forged}");
    }

    #[test]
    fn how_long_a_live_message_took_since_the_broker_had_it() {
        let line = |received: &str, retain| {
            let (topic, payload) = ("rooms/demo/chat".to_owned().into(), r#"{"username":"a"}"#.to_owned().into());
            let received = Some(received.to_owned());
            let message = Message { topic, payload, qos: 1, retain, sender: None, received };
            Line::of(&message, UNIX_EPOCH + Duration::from_micros(1_790_000_000_250_120)).to_string()
        };
        assert!(line("2026-09-21T14:13:20.249Z", false).ends_with("QoS 1    1.12 ms\n"));
        assert!(line("2026-09-21T14:13:21Z", false).ends_with("QoS 1    0.00 ms\n"), "a clock that is behind");
        for (received, retain) in [("2026-09-21T14:13:20.249Z", true), ("yesterday", false)] {
            assert!(!line(received, retain).contains("ms"), "{received}");
        }
    }

    #[test]
    fn nothing_of_a_description_and_no_control_character_is_shown() {
        let sdp = r#"{"username":"a\u001b[2J","type":"\u001b]0;x\u0007offer","sdp":"v=0 secret-ufrag"}"#;
        let shown = line("rooms/demo/signal", sdp, None);
        assert!(!shown.contains("secret-ufrag") && !shown.contains('\u{1b}') && !shown.contains('\u{7}'), "{shown}");
        let long = format!(r#"{{"username":"a","type":"{}"}}"#, "x".repeat(5000));
        assert!(line("rooms/demo/signal", &long, None).len() < 120);
    }
}
