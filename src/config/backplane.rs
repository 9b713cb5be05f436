//! `[backplane]` and the section below it: the broker behind this server, where the operator's own services are.

mod forms;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use forms::{BrokerUrl, Password};

use super::Config;
use super::reader::Reader;
use super::value::{Address, Choice, DAY, GIB, HOUR, KIB, List, MINUTE, Switch, Text, count, size, time};
use crate::wire::mqtt::topic;
use forms::{BrokerUrlForm, PasswordForm, SharedFilter};

/// Section `[backplane]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackplaneConfig {
    /// What stands behind this server. "embedded" (a broker in this process), "mqtt" (one that runs elsewhere, at url),
    /// "off", or "auto" (embedded under `wigwag serve`, off where an application starts the server).
    pub mode: BackplaneMode,
    /// Where the other broker is; it has to speak MQTT 5.0. mqtt://host, mqtts://host, with or without :port; "" =
    /// nowhere.
    pub url: Option<BrokerUrl>,
    /// As whom this server connects to it. Text; "" = without a name.
    pub username: String,
    /// The password for that. Text; "" = none.
    pub password: Option<Password>,
    /// PEM file with the authorities that its certificate is trusted by. Path; "" = those of the system.
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate that this server shows to it. Path; "" = none.
    pub certificate: Option<PathBuf>,
    /// PEM file with that certificate's private key. Path; "" = none.
    pub key: Option<PathBuf>,
    /// Topics that are one here and there. List of topic filters that begin with a level of ASCII, not a wildcard,
    /// "rooms", "users", "events", "wigwag" or $.
    pub share: Vec<String>,
    /// Shared topics whose last value is kept for whoever subscribes later, retained or not. List of such filters,
    /// within those of share.
    pub keep_last: Vec<String>,
    /// Whether services may send commands, on wigwag/cmd/…. true or false.
    pub commands: bool,
    /// Messages that wait for the broker; with more, what would be shared is refused. 1 to 1000000.
    pub buffer_messages: usize,
    /// Payload and topic bytes of those. Size, 64 KiB to 16 GiB.
    pub buffer_bytes: usize,
    /// How long a message waits for the broker before it is given up, and its sender told. Duration, 100 ms to 1 hour.
    pub ttl: Duration,
    /// How often a message is sent through the broker and back, to see whether it lives; after three in a row that do
    /// not come back the connection is made anew. Duration, 100 ms to 10 minutes.
    pub probe: Duration,
    /// How long the other broker keeps what is for this server while it is away. Duration in whole seconds, 0 to 7
    /// days; 0 = not at all.
    pub session: Duration,
    /// Section `[backplane.embedded]`.
    pub embedded: EmbeddedConfig,
}

/// What stands behind the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackplaneMode {
    /// Whoever starts the server decides.
    Auto,
    /// A broker in this process.
    Embedded,
    /// A broker that runs elsewhere.
    Mqtt,
    /// Nothing.
    Off,
}

impl Default for BackplaneConfig {
    fn default() -> Self {
        Self {
            mode: BackplaneMode::Auto,
            url: None,
            username: String::new(),
            password: None,
            ca: None,
            certificate: None,
            key: None,
            share: vec!["app/#".into()],
            keep_last: Vec::new(),
            commands: true,
            buffer_messages: 10_000,
            buffer_bytes: 16 << 20,
            ttl: Duration::from_secs(5),
            probe: Duration::from_secs(2),
            session: Duration::from_secs(60 * 60),
            embedded: EmbeddedConfig::default(),
        }
    }
}

const MODE: Choice<BackplaneMode> = Choice(&[
    ("auto", BackplaneMode::Auto),
    ("embedded", BackplaneMode::Embedded),
    ("mqtt", BackplaneMode::Mqtt),
    ("off", BackplaneMode::Off),
]);

const USER: Text = Text {
    allowed: "text without control characters",
    accept: |text| text.len() <= 1024 && !text.chars().any(char::is_control),
};

const FILE: Text =
    Text { allowed: "a path, or \"\" for none", accept: |path| !path.chars().any(|c| c.is_ascii_control()) };

impl BackplaneConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("backplane");
        let d = Self::default();
        Self {
            mode: section.read("mode", MODE, d.mode),
            url: section.read("url", BrokerUrlForm, d.url),
            username: section.read("username", USER, d.username),
            password: section.read("password", PasswordForm, d.password),
            ca: path(section.read("ca", FILE, String::new())),
            certificate: path(section.read("certificate", FILE, String::new())),
            key: path(section.read("key", FILE, String::new())),
            share: section.read("share", List(SharedFilter), d.share),
            keep_last: section.read("keep_last", List(SharedFilter), d.keep_last),
            commands: section.read("commands", Switch, d.commands),
            buffer_messages: section.read("buffer_messages", count(1..=1_000_000), d.buffer_messages),
            buffer_bytes: section.read("buffer_bytes", size(64 * KIB..=16 * GIB), d.buffer_bytes),
            ttl: section.read("ttl", time(100..=HOUR), d.ttl),
            probe: section.read("probe", time(100..=10 * MINUTE), d.probe),
            session: section.read("session", time(0..=7 * DAY).whole_seconds(), d.session),
            embedded: EmbeddedConfig::read(reader),
        }
    }
}

/// Section `[backplane.embedded]`: the broker in this process, for the operator's services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// Where services connect, with MQTT 3.1.1 or 5.0. Address:port; port 0 = any free one.
    pub listen: SocketAddr,
    /// The user name that they all use. Text.
    pub username: String,
    /// The password that they all use. Text; "" = one that is made, and printed, at each start.
    pub password: Option<Password>,
    /// Services at a time. 1 to 1000.
    pub connections: usize,
    /// Different shared topics that clients may publish to before the process is started again, since this broker never
    /// forgets one. 1 to 1000000.
    pub topics_max: usize,
    /// How many of them one user may. 1 to 1000000.
    pub topics_per_user: usize,
    /// What is kept, of each filter that services subscribe to, for a service that is away or slow. Size, 64 KiB to 1
    /// GiB.
    pub log: usize,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 1884)),
            username: "wigwag".into(),
            password: None,
            connections: 64,
            topics_max: 10_000,
            topics_per_user: 100,
            log: 8 << 20,
        }
    }
}

impl EmbeddedConfig {
    fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("backplane.embedded");
        let d = Self::default();
        Self {
            listen: section.read("listen", Address, d.listen),
            username: section.read("username", USER, d.username),
            password: section.read("password", PasswordForm, d.password),
            connections: section.read("connections", count(1..=1000), d.connections),
            topics_max: section.read("topics_max", count(1..=1_000_000), d.topics_max),
            topics_per_user: section.read("topics_per_user", count(1..=1_000_000), d.topics_per_user),
            log: section.read("log", size(64 * KIB..=GIB), d.log),
        }
    }
}

fn path(text: String) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

/// Reports what does not go together.
pub(super) fn check(reader: &mut Reader, config: &Config) {
    let backplane = &config.backplane;
    if backplane.mode == BackplaneMode::Mqtt && backplane.url.is_none() && reader.origin("backplane.url").is_some() {
        report(reader, "backplane.mode", "\"mqtt\" needs backplane.url".into());
    }
    if backplane.mode != BackplaneMode::Mqtt && backplane.url.is_some() {
        report(reader, "backplane.url", "set, but backplane.mode is not \"mqtt\", which would use it".into());
    }
    match (&backplane.certificate, &backplane.key) {
        (Some(_), None) => report(reader, "backplane.certificate", "needs backplane.key".into()),
        (None, Some(_)) => report(reader, "backplane.key", "needs backplane.certificate".into()),
        _ => {}
    }
    let overlap = |at: usize| backplane.share[..at].iter().any(|other| topic::overlaps(other, &backplane.share[at]));
    if let Some(at) = (1..backplane.share.len()).find(|at| overlap(*at)) {
        let reason =
            format!("{:?} matches topics that another one matches: they would come twice", backplane.share[at]);
        report(reader, "backplane.share", reason);
    }
    let shared = |kept: &String| backplane.share.iter().any(|share| topic::covers(share, kept));
    if let Some(kept) = backplane.keep_last.iter().find(|kept| !shared(kept)) {
        report(reader, "backplane.keep_last", format!("{kept:?} is not within backplane.share"));
    }
}

/// Reports at the place of `key`, unless its value was refused and reported already.
fn report(reader: &mut Reader, key: &'static str, reason: String) {
    if let Some(origin) = reader.origin(key).cloned() {
        reader.conflict(origin, key, reason);
    }
}
