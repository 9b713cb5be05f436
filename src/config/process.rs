//! How the process runs and what it tells: `[server]`, `[session]`, `[sys]`, `[log]`, `[metrics]`.

use std::time::Duration;

use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::reader::Reader;
use super::value::{Choice, DAY, HOUR, List, Network, SECOND, Switch, Text, count, time};

/// Section `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Worker threads, each with connections of its own. 0 to 256; 0 = one per core.
    pub workers: Option<usize>,
    /// How long a shutdown waits for connections to take what was queued for them. Duration, 0 to 1 hour.
    pub shutdown_grace: Duration,
    /// Proxies that are believed when they say whom they speak for (PROXY protocol version 2, X-Forwarded-For). List
    /// of networks or addresses.
    pub trusted_proxies: Vec<IpNet>,
    /// What this server calls itself in events, in answers to services and at the broker behind it: the same after a
    /// restart, and different for each server at one broker. 1 to 64 of A-Z, a-z, 0-9 and -._; "" = the host's name and
    /// the first port that is listened on.
    pub node: String,
    /// How often the configuration file is looked at for a change: its topic table, rates and bounds of abuse take
    /// effect at once, the rest at the next start. Duration, 100 ms to 1 day; 0 = only on SIGHUP.
    pub reload: Option<Duration>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            workers: None,
            shutdown_grace: Duration::from_secs(5),
            trusted_proxies: Vec::new(),
            node: String::new(),
            reload: Some(Duration::from_secs(1)),
        }
    }
}

// It is part of a client id and of a topic.
const NODE: Text = Text {
    allowed: "1 to 64 letters of ASCII, digits and -._, or \"\" for one that is made",
    accept: |text| text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
};

impl ServerConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("server");
        let d = Self::default();
        Self {
            workers: section.read("workers", count(1..=256).or_zero("one per core"), d.workers),
            shutdown_grace: section.read("shutdown_grace", time(0..=HOUR), d.shutdown_grace),
            trusted_proxies: section.read("trusted_proxies", List(Network), d.trusted_proxies),
            node: section.read("node", NODE, d.node),
            reload: section.read("reload", time(100..=DAY).or_zero("only on SIGHUP"), d.reload),
        }
    }
}

/// Section `[session]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// How long an MQTT 3.1.1 session without Clean Session is kept while its client is away. Duration, 0 to 365 days;
    /// 0 = it ends with the connection.
    pub expiry: Duration,
    /// Longest Session Expiry Interval an MQTT 5.0 client gets. Duration in whole seconds, 0 to 365 days; 0 = sessions
    /// end with the connection.
    pub expiry_max: Duration,
    /// Longest Keep Alive; MQTT 5.0 clients that ask for more or for none get it as Server Keep Alive. Duration in
    /// whole seconds, 1 second to 18 hours; 0 = no cap.
    pub keep_alive_max: Option<Duration>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            expiry: Duration::from_secs(5 * 60),
            expiry_max: Duration::from_secs(24 * 60 * 60),
            keep_alive_max: None,
        }
    }
}

impl SessionConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("session");
        let d = Self::default();
        let keep_alive = time(SECOND..=18 * HOUR).whole_seconds().or_zero("no cap");
        Self {
            expiry: section.read("expiry", time(0..=365 * DAY), d.expiry),
            expiry_max: section.read("expiry_max", time(0..=365 * DAY).whole_seconds(), d.expiry_max),
            keep_alive_max: section.read("keep_alive_max", keep_alive, d.keep_alive_max),
        }
    }
}

/// Section `[sys]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysConfig {
    /// How often the topics below $SYS are published. Duration, 100 ms to 1 day; 0 = there are none.
    pub interval: Option<Duration>,
}

impl Default for SysConfig {
    fn default() -> Self {
        Self { interval: Some(Duration::from_secs(10)) }
    }
}

impl SysConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let interval = time(100..=DAY).or_zero("no $SYS topics");
        Self { interval: reader.section("sys").read("interval", interval, Self::default().interval) }
    }
}

/// Section `[log]`. Logs go to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// What is logged. A level (off, error, warn, info, debug, trace), or several directives as in
    /// "info,wigwag::http=debug".
    pub level: String,
    /// How a line looks. "text" or "json".
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Stricter than tracing, for which a lone word that is no level is a target to trace: `inof` would silence the rest.
const DIRECTIVES: Text = Text {
    allowed: "\"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or directives \
              like \"info,wigwag::http=debug\"",
    accept: |text| {
        let known = |directive: &str| directive.contains(['=', '[']) || LEVELS.contains(&directive.trim());
        text.split(',').all(known) && EnvFilter::try_new(text).is_ok()
    },
};

const FORMAT: Choice<LogFormat> = Choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);

impl LogConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("log");
        let d = Self::default();
        Self { level: section.read("level", DIRECTIVES, d.level), format: section.read("format", FORMAT, d.format) }
    }
}

/// Section `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether /metrics answers, in Prometheus' text format. true or false.
    pub enabled: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl MetricsConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self { enabled: reader.section("metrics").read("enabled", Switch, Self::default().enabled) }
    }
}
