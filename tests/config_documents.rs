//! The three places that describe a key say the same: the field, `broker.toml`, `docs/configuration.md`.

use std::collections::BTreeMap;

use wigwag::config::{Config, Sources};

const BROKER: &str = include_str!("../broker.toml");
const GUIDE: &str = include_str!("../docs/configuration.md");
const SOURCES: [&str; 9] = [
    include_str!("../src/config/auth.rs"),
    include_str!("../src/config/backplane.rs"),
    include_str!("../src/config/limits.rs"),
    include_str!("../src/config/listen.rs"),
    include_str!("../src/config/process.rs"),
    include_str!("../src/config/rooms.rs"),
    include_str!("../src/config/services.rs"),
    include_str!("../src/config/traffic.rs"),
    include_str!("../src/config/topic.rs"),
];

/// `section.key` → what is said of it.
type Texts = BTreeMap<String, String>;

/// Every key there is, as the parser itself lists them.
fn keys() -> Vec<String> {
    let effective = Sources::default().load().expect("the defaults are valid").to_string();
    let mut section = "";
    let mut keys = Vec::new();
    for line in effective.lines() {
        match header(line) {
            Some(name) => section = name,
            None => keys.extend(line.split_once(" = ").map(|(key, _)| format!("{section}.{key}"))),
        }
    }
    keys.sort();
    keys.dedup(); // each row of [[topic]] has them all
    keys
}

/// The name in a line that opens a section, or one of several.
fn header(line: &str) -> Option<&str> {
    line.starts_with('[').then(|| line.trim_matches(['[', ']']))
}

/// What the last lines of broker.toml are about.
const ROWS: &str = "# Who may say what, and where: ";

/// The comment above each key, and the key's value.
fn broker_toml() -> (Texts, Texts) {
    let (mut texts, mut values) = rows_of_broker_toml();
    let (mut section, mut comment) = ("", Vec::new());
    for line in BROKER.lines().take_while(|line| !line.starts_with(ROWS)) {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else {
            if let Some(name) = header(line) {
                section = name;
            } else if let Some((key, value)) = line.split_once(" = ") {
                texts.insert(format!("{section}.{key}"), comment.join(" "));
                values.insert(format!("{section}.{key}"), value.into());
            }
            comment.clear();
        }
    }
    (texts, values)
}

/// The keys of [[topic]], which are described once for all rows: `# key: what it is`, and indented whatever does not
/// fit on the line. Their values are the defaults, which the row of somebody who sets nothing has.
fn rows_of_broker_toml() -> (Texts, Texts) {
    let bare = "[[topic]]\nname = \"x\"\nfilter = \"x\"\n";
    let config = Config::from_toml_str(bare).expect("all that a row needs");
    let mut values = Texts::new();
    for line in config.topics.0[0].to_string().lines() {
        let (key, value) = line.split_once(" = ").expect(line);
        let value = if matches!(key, "name" | "filter") { "required" } else { value };
        values.insert(format!("topic.{key}"), value.into());
    }
    let mut texts = Texts::new();
    let mut last = String::new();
    for line in BROKER.lines().skip_while(|line| !line.starts_with(ROWS)).take_while(|line| *line != "[[topic]]") {
        let described = line.strip_prefix("# ").and_then(|line| line.split_once(": "));
        if let Some(more) = line.strip_prefix("#   ") {
            texts.get_mut(&last).expect("a key").extend([" ", more]);
        } else if let Some((key, text)) = described.filter(|(key, _)| values.contains_key(&format!("topic.{key}"))) {
            last = format!("topic.{key}");
            texts.insert(last.clone(), text.into());
        }
    }
    (texts, values)
}

/// The rows of the guide's tables: text and default.
fn guide() -> (Texts, Texts) {
    let (mut texts, mut values) = (Texts::new(), Texts::new());
    let mut section = "";
    for line in GUIDE.lines() {
        if let Some(title) = line.strip_prefix("### `") {
            section = header(title.trim_end_matches('`')).expect(title);
        } else if let Some((key, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | `")) {
            let (value, text) = rest.split_once("` | ").expect(line);
            values.insert(format!("{section}.{key}"), value.into());
            texts.insert(format!("{section}.{key}"), text.trim_end_matches(" |").into());
        }
    }
    (texts, values)
}

/// The documentation of the fields; a struct belongs to the section whose reader makes it.
fn fields() -> Texts {
    let sections = [
        ("ServerConfig", "server"),
        ("HttpConfig", "http"),
        ("MqttConfig", "mqtt"),
        ("TlsConfig", "tls"),
        ("IdentityFiles", "tls"),
        ("AuthConfig", "auth"),
        ("TokenConfig", "auth.token"),
        ("UsersConfig", "auth.users"),
        ("AuthHttpConfig", "auth.http"),
        ("Limits", "limits"),
        ("SessionConfig", "session"),
        ("SysConfig", "sys"),
        ("LogConfig", "log"),
        ("MetricsConfig", "metrics"),
        ("BackplaneConfig", "backplane"),
        ("EmbeddedConfig", "backplane.embedded"),
        ("TopicRow", "topic"),
        ("QosRule", "qos"),
        ("Rate", "any rate"),
        ("RateConfig", "rate"),
        ("AbuseConfig", "abuse"),
        ("PresenceConfig", "presence"),
        ("RoomsConfig", "rooms"),
        ("ApiConfig", "api"),
        ("IceConfig", "ice"),
        ("WebhooksConfig", "webhooks"),
    ];
    let mut texts = Texts::new();
    let (mut section, mut comment) = ("", Vec::new());
    for line in SOURCES.iter().flat_map(|source| source.lines()) {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("/// ") {
            comment.push(text);
        } else {
            if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
                section = sections.iter().find(|(known, _)| *known == name).expect(name).1;
            } else if let Some((key, _)) = line.strip_prefix("pub ").and_then(|rest| rest.split_once(": ")) {
                texts.insert(format!("{section}.{key}"), comment.join(" "));
            }
            comment.clear();
        }
    }
    // One field for two keys, and one for each section below [auth].
    for field in ["tls.identity", "auth.token", "auth.users", "auth.http", "backplane.embedded"] {
        texts.remove(field);
    }
    for level in ["rate.connection", "rate.user", "rate.address"] {
        texts.remove(level);
        for key in ["messages", "bytes", "burst"] {
            texts.insert(format!("{level}.{key}"), texts[&format!("any rate.{key}")].clone());
        }
    }
    // One key for several fields, described with the row.
    texts.retain(|key, _| !key.starts_with("qos.") && !key.starts_with("any rate."));
    texts
}

#[test]
fn broker_toml_parses_to_the_defaults() {
    assert_eq!(Config::from_toml_str(BROKER), Ok(Config::default()));
}

#[test]
fn broker_toml_says_what_a_row_leaves_out() {
    let (_, defaults) = rows_of_broker_toml();
    let said = BROKER.split_once("What a row leaves out is ").and_then(|(_, rest)| rest.split_once(". That rate"));
    let said = said.expect("the list of defaults").0.replace("\n# ", " ");
    let listed = ["publish", "subscribe", "joins", "qos", "retain", "retain_per_room", "payload", "size", "rate"];
    let expected = listed.map(|key| format!("{key} = {}", defaults[&format!("topic.{key}")]));
    assert_eq!(said, expected.join(", "));
}

#[test]
fn broker_toml_has_every_key() {
    assert_eq!(broker_toml().0.into_keys().collect::<Vec<_>>(), keys());
}

#[test]
fn field_and_broker_toml_say_the_same() {
    assert_eq!(fields(), broker_toml().0);
}

#[test]
fn guide_and_broker_toml_say_the_same() {
    assert_eq!(guide(), broker_toml());
}
