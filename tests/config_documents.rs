//! The three places that describe a key say the same: the field, `broker.toml`, `docs/configuration.md`.

use std::collections::BTreeMap;

use wigwag::config::{Config, Sources};

const BROKER: &str = include_str!("../broker.toml");
const GUIDE: &str = include_str!("../docs/configuration.md");
const SOURCES: [&str; 4] = [
    include_str!("../src/config/auth.rs"),
    include_str!("../src/config/limits.rs"),
    include_str!("../src/config/listen.rs"),
    include_str!("../src/config/process.rs"),
];

/// `section.key` → what is said of it.
type Texts = BTreeMap<String, String>;

/// Every key there is, as the parser itself lists them.
fn keys() -> Vec<String> {
    let effective = Sources::default().load().expect("the defaults are valid").to_string();
    let mut section = "";
    let mut keys = Vec::new();
    for line in effective.lines() {
        match line.strip_prefix('[') {
            Some(header) => section = header.trim_end_matches(']'),
            None => keys.extend(line.split_once(" = ").map(|(key, _)| format!("{section}.{key}"))),
        }
    }
    keys.sort();
    keys
}

/// The comment above each key, and the key's value.
fn broker_toml() -> (Texts, Texts) {
    let (mut texts, mut values) = (Texts::new(), Texts::new());
    let (mut section, mut comment) = ("", Vec::new());
    for line in BROKER.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push(text);
        } else {
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_end_matches(']');
            } else if let Some((key, value)) = line.split_once(" = ") {
                texts.insert(format!("{section}.{key}"), comment.join(" "));
                values.insert(format!("{section}.{key}"), value.into());
            }
            comment.clear();
        }
    }
    (texts, values)
}

/// The rows of the guide's tables: text and default.
fn guide() -> (Texts, Texts) {
    let (mut texts, mut values) = (Texts::new(), Texts::new());
    let mut section = "";
    for line in GUIDE.lines() {
        if let Some(header) = line.strip_prefix("### `[") {
            section = header.trim_end_matches("]`");
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
    for field in ["tls.identity", "auth.token", "auth.users", "auth.http"] {
        texts.remove(field);
    }
    texts
}

#[test]
fn broker_toml_parses_to_the_defaults() {
    assert_eq!(Config::from_toml_str(BROKER), Ok(Config::default()));
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
