//! The flags that make up a configuration, shared by the commands that need one.

use std::path::{Path, PathBuf};

use clap::Args;
use wigwag::config::{ConfigErrors, Effective, Sources};

use super::Failure;

const DEFAULT_FILE: &str = "broker.toml";

/// Where `--dev-tls` listens if nothing else is said: everywhere, since it is for the phone on the same network.
const DEV_TLS_LISTEN: &str = "0.0.0.0:8443";

/// Which configuration, for commands that only look something up in it.
#[derive(Args)]
pub struct FileArgs {
    /// Configuration file [default: broker.toml in the working directory, if there is one]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl FileArgs {
    /// The configuration that the environment and the file make together.
    pub fn load(&self) -> Result<Effective, Failure> {
        let loaded = self.sources().and_then(Sources::load);
        loaded.map_err(|errors| Failure::Usage(errors.to_string()))
    }

    /// The file that is read, if there is one.
    fn path(&self) -> Option<&Path> {
        let default = Path::new(DEFAULT_FILE);
        self.config.as_deref().or_else(|| default.exists().then_some(default))
    }

    fn sources(&self) -> Result<Sources, ConfigErrors> {
        let file = self.path();
        // A name that is not UTF-8 is none of ours; a value that is not cannot be one that is allowed.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Sources::new(file, std::env::vars_os().filter_map(text))
    }
}

#[derive(Args)]
pub struct SettingsArgs {
    #[command(flatten)]
    file: FileArgs,

    /// Serve the page, the API and MQTT over WebSocket here; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Vec<String>,

    /// Serve MQTT over TCP here; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT")]
    mqtt: Vec<String>,

    /// Worker threads; 0 = one per core
    #[arg(long, value_name = "N")]
    workers: Option<String>,

    /// Serve https and wss as well, with a self-signed certificate made at start; unless configured on port 8443 of
    /// every interface, which in open mode takes --open-anywhere
    #[arg(long)]
    dev_tls: bool,

    /// Listen beyond loopback even though any name is believed
    #[arg(long)]
    open_anywhere: bool,
}

impl SettingsArgs {
    /// The configuration file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.file.path()
    }

    /// The configuration that these flags, the environment and the file make together.
    pub fn load(&self) -> Result<Effective, Failure> {
        self.layers().map_err(|errors| Failure::Usage(errors.to_string()))
    }

    fn layers(&self) -> Result<Effective, ConfigErrors> {
        let mut sources = self.file.sources()?;
        if !self.http.is_empty() {
            sources.flag("http.listen", "--http", self.http.join(","));
        }
        if !self.mqtt.is_empty() {
            sources.flag("mqtt.listen", "--mqtt", self.mqtt.join(","));
        }
        if let Some(workers) = &self.workers {
            sources.flag("server.workers", "--workers", workers.clone());
        }
        if self.dev_tls {
            sources.self_signed("--dev-tls", DEV_TLS_LISTEN);
        }
        if self.open_anywhere {
            sources.flag("auth.open_anywhere", "--open-anywhere", "true".into());
        }
        sources.load()
    }
}
