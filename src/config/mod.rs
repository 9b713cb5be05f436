//! Configuration: parse, don't validate. A [`Config`] that was loaded is a valid one; what is wrong with a
//! configuration is reported whole, each complaint with its place, what was found there and what is allowed.
//!
//! Layers, each overriding the one before: defaults, the file (`broker.toml`), environment variables
//! (`WIGWAG_SECTION__KEY`), command line flags. Where 0 stands for "none" or "automatic" in the file, the field is an
//! [`Option`] and 0 is `None`. Who changes fields of a `Config` by hand keeps the ranges that they document.
//!
//! The layers are read by a few lines of our own over the `toml` crate's spanned values, without serde and the
//! `config` crate: a derived `Deserialize` stops at the first error, and `config` drops line numbers where it merges.
//!
//! The first paragraph of a field's documentation, the comment above its key in `broker.toml` and its row in
//! `docs/configuration.md` are one text in three places; a test compares them. A section is a struct with `Default`
//! and a `read` that names each key, its kind and its range once.

mod auth;
mod backplane;
mod error;
mod limits;
mod listen;
mod process;
mod reader;
mod rooms;
mod services;
mod topic;
mod traffic;
mod value;

use std::fmt;
use std::path::Path;

pub use auth::{
    Algorithm, AuthConfig, AuthHttpConfig, AuthMethod, KeySource, Secret, TokenConfig, TokenKey, UsersConfig,
};
pub use backplane::{BackplaneConfig, BackplaneMode, BrokerUrl, EmbeddedConfig, Password};
pub use error::{ConfigError, ConfigErrors, Origin, Problem};
pub use limits::Limits;
pub use listen::{AllowedOrigin, HttpConfig, Identity, IdentityFiles, MqttConfig, TlsConfig};
pub use process::{LogConfig, LogFormat, MetricsConfig, ServerConfig, SessionConfig, SysConfig};
use reader::{Entry, Reader};
pub use rooms::{PresenceConfig, RoomsConfig};
pub use services::{ApiConfig, Hook, IceConfig, WebhooksConfig};
pub use topic::{
    Audience, Combination, Level, Pattern, PatternError, PayloadKind, QosRule, Rate, RetainRule, TopicRow, TopicRows,
    Word,
};
pub use traffic::{AbuseConfig, RateConfig};

/// Everything that can be configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Threads and shutdown.
    pub server: ServerConfig,
    /// HTTP and WebSocket listeners.
    pub http: HttpConfig,
    /// TCP listeners.
    pub mqtt: MqttConfig,
    /// Certificate.
    pub tls: TlsConfig,
    /// Who is let in.
    pub auth: AuthConfig,
    /// Bounds.
    pub limits: Limits,
    /// How fast clients may go.
    pub rate: RateConfig,
    /// How often they may be refused.
    pub abuse: AbuseConfig,
    /// How long sessions and silent connections live.
    pub session: SessionConfig,
    /// How long a place in a room is kept.
    pub presence: PresenceConfig,
    /// How many rooms and members there may be.
    pub rooms: RoomsConfig,
    /// Who may use the API.
    pub api: ApiConfig,
    /// STUN and TURN servers.
    pub ice: IceConfig,
    /// Events over HTTP.
    pub webhooks: WebhooksConfig,
    /// `$SYS` topics.
    pub sys: SysConfig,
    /// Logs.
    pub log: LogConfig,
    /// Prometheus metrics.
    pub metrics: MetricsConfig,
    /// The broker for services.
    pub backplane: BackplaneConfig,
    /// Who may say what, and where.
    pub topics: TopicRows,
}

impl Config {
    /// Defaults, overridden by the file if one is named, overridden by the environment.
    ///
    /// `environment` is usually [`std::env::vars`]; names that do not begin with `WIGWAG_` or have no `__` are ignored.
    ///
    /// # Errors
    /// Everything that is wrong in any layer.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        Ok(Sources::new(file, environment)?.load()?.config)
    }

    /// Defaults, overridden by the text of a configuration file; errors call it `broker.toml`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_toml_str(text: &str) -> Result<Self, ConfigErrors> {
        let mut sources = Sources::default();
        sources.reader.file(Path::new("broker.toml"), text);
        Ok(sources.load()?.config)
    }
}

impl Config {
    /// The sections in which `other` differs in what only a start puts in force.
    pub(crate) fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let sections = [
            ("server", self.server != other.server),
            ("http", self.http != other.http),
            ("mqtt", self.mqtt != other.mqtt),
            ("tls", self.tls != other.tls),
            ("auth", self.auth != other.auth),
            ("limits", self.limits != other.limits),
            ("session", self.session != other.session),
            ("presence", self.presence != other.presence),
            ("rooms", self.rooms != other.rooms),
            ("api", self.api != other.api),
            ("ice", self.ice != other.ice),
            ("webhooks", self.webhooks != other.webhooks),
            ("sys", self.sys != other.sys),
            ("log", self.log != other.log),
            ("metrics", self.metrics != other.metrics),
            ("backplane", self.backplane != other.backplane),
        ];
        sections.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}

/// The layers of a configuration, for who wants more than [`Config::load`]: flags, and where each value came from.
#[derive(Default)]
pub struct Sources {
    reader: Reader,
    self_signed: bool,
}

impl Sources {
    /// The file, if one is named, and the environment.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn new(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let mut sources = Self::default();
        if let Some(path) = file {
            sources.reader.file(path, &error::read_file(path)?);
        }
        sources.reader.environment(environment.into_iter());
        Ok(sources)
    }

    /// Sets `key` (`section.key`) from a flag of that name, as an environment variable would; lists comma separated.
    pub fn flag(&mut self, key: &'static str, flag: &'static str, value: String) {
        self.reader.flag(key, flag, value);
    }

    /// Serves TLS with a certificate made at start, instead of the files of `[tls]`; on `listen` if no
    /// `http.tls_listen` is set.
    pub fn self_signed(&mut self, flag: &'static str, listen: &str) {
        self.self_signed = true;
        if !self.reader.is_set("http", "tls_listen") {
            self.reader.flag("http.tls_listen", flag, listen.into());
        }
    }

    /// Reads all layers.
    ///
    /// # Errors
    /// Everything that is wrong in any layer. If the file is not TOML at all, then just where it is not.
    pub fn load(self) -> Result<Effective, ConfigErrors> {
        let Self { mut reader, self_signed } = self;
        reader.require_syntax()?;
        let (topics, topic_origins) = TopicRows::read(&mut reader);
        let config = Config {
            server: ServerConfig::read(&mut reader),
            http: HttpConfig::read(&mut reader),
            mqtt: MqttConfig::read(&mut reader),
            tls: TlsConfig::read(&mut reader, self_signed),
            auth: AuthConfig::read(&mut reader),
            limits: Limits::read(&mut reader),
            rate: RateConfig::read(&mut reader),
            abuse: AbuseConfig::read(&mut reader),
            session: SessionConfig::read(&mut reader),
            presence: PresenceConfig::read(&mut reader),
            rooms: RoomsConfig::read(&mut reader),
            api: ApiConfig::read(&mut reader),
            ice: IceConfig::read(&mut reader),
            webhooks: WebhooksConfig::read(&mut reader),
            sys: SysConfig::read(&mut reader),
            log: LogConfig::read(&mut reader),
            metrics: MetricsConfig::read(&mut reader),
            backplane: BackplaneConfig::read(&mut reader),
            topics,
        };
        listen::check(&mut reader, &config.http, &config.mqtt, &config.tls);
        auth::check(&mut reader, &config);
        backplane::check(&mut reader, &config);
        services::check(&mut reader, &config);
        Ok(Effective { entries: reader.finish()?, topic_origins, config })
    }
}

/// A configuration that knows where it came from. Displays as a `broker.toml` with every key, and the origin of each
/// value that is not the default as a comment.
#[derive(Debug, Clone)]
pub struct Effective {
    /// What is in effect.
    pub config: Config,
    entries: Vec<Entry>,
    /// Where each row of [`Config::topics`] stands; empty if they are the shipped ones.
    topic_origins: Vec<Origin>,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics = &self.config.topics.0;
        if topics.is_empty() {
            writeln!(f, "topic = []\n")?; // a key of no section stands before all sections
        }
        let mut section = "";
        for entry in &self.entries {
            if entry.section != section {
                let gap = if section.is_empty() { "" } else { "\n" };
                writeln!(f, "{gap}[{}]", entry.section)?;
                section = entry.section;
            }
            write!(f, "{} = {}", entry.key, entry.value)?;
            match &entry.origin {
                Origin::Default => writeln!(f)?,
                origin => writeln!(f, "  # {origin}")?,
            }
        }
        for (n, row) in topics.iter().enumerate() {
            let origin = self.topic_origins.get(n).map(|origin| format!("  # {origin}")).unwrap_or_default();
            write!(f, "\n[[topic]]{origin}\n{row}")?;
        }
        Ok(())
    }
}
