//! `wigwag serve`: the broker, from its configuration to its last connection.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use wigwag::config::{ApiConfig, AuthMethod, BackplaneMode, Config, LogConfig, LogFormat, Secret};
use wigwag::{Addresses, BackplaneAccess, Running, Server};

use super::settings::SettingsArgs;
use super::{Failure, block_on};

pub fn run(args: &SettingsArgs) -> Result<(), Failure> {
    let mut config = load(args)?;
    let key = key_of_this_run(&mut config)?;
    log_to_stderr(&config.log);
    raise_file_limit();
    block_on(serve(config, key, args))
}

/// The configuration of a broker that is a program of its own.
fn load(args: &SettingsArgs) -> Result<Config, Failure> {
    let mut config = args.load()?.config;
    if config.backplane.mode == BackplaneMode::Auto {
        config.backplane.mode = BackplaneMode::Embedded;
    }
    Ok(config)
}

/// Serves until a signal says to stop, then lets connections drain.
async fn serve(config: Config, key: Option<String>, args: &SettingsArgs) -> Result<(), Failure> {
    let (grace, path, interval) = (config.server.shutdown_grace, config.http.path.clone(), config.server.reload);
    let api = config.api.clone();
    let mut signals = Signals::register().map_err(|error| Failure::Runtime(format!("signals: {error}")))?;
    let running = start(config).await?;
    announce(running.addresses(), &path, running.backplane());
    if let Some(key) = key {
        // To people, not to logs, nor to whoever reads the addresses.
        let http = running.addresses().http.first().map(|address| format!(" --url http://{}", reachable(*address)));
        let url = http.unwrap_or_default();
        eprintln!("key of the API, for this run: {key}\nfor instance: WIGWAG_KEY={key} wigwag rooms{url}");
    }
    let reload = || {
        apply(&running, args, &api);
        if let Err(error) = running.reload() {
            tracing::error!(%error, "not reloaded; the server goes on as it was");
        }
    };
    tokio::select! {
        () = signals.stop_or(reload) => {}
        () = watch(args.path(), interval, || apply(&running, args, &api)) => {}
    }

    tracing::info!(?grace, "shutting down; a second signal exits at once");
    tokio::select! {
        () = running.shutdown(grace) => Ok(()),
        // Not by returning: whatever is stuck would be waited for.
        () = signals.stop_or(|| ()) => std::process::exit(1),
    }
}

/// Reads the configuration again and puts in force what can be. One that is broken changes nothing.
fn apply(running: &Running, args: &SettingsArgs, api: &ApiConfig) {
    match load(args) {
        Ok(mut config) => {
            // The key of this run stands in no file.
            if config.api.keys.is_empty() && config.api.keys_file.is_none() {
                config.api.keys.clone_from(&api.keys);
            }
            let waiting = running.apply(&config);
            tracing::info!("topic table, rates and bounds of abuse are those of the configuration now");
            if !waiting.is_empty() {
                tracing::warn!(sections = waiting.join(", "), "changed, and in effect only after a restart");
            }
        }
        Err(error) => tracing::error!(%error, "the configuration was not read again; the one before stays in effect"),
    }
}

/// Calls `changed` when the file has changed; never ends.
async fn watch(path: Option<&Path>, interval: Option<Duration>, changed: impl Fn()) {
    let (Some(path), Some(interval)) = (path, interval) else { return std::future::pending().await };
    let state = || std::fs::metadata(path).and_then(|data| Ok((data.modified()?, data.len()))).ok();
    let mut seen = state();
    loop {
        tokio::time::sleep(interval).await;
        let now = state();
        // One that is only half written will change once more.
        if now != seen && now.is_some() {
            changed();
        }
        seen = now;
    }
}

/// A key for the API where nobody could have a credential for it: names are believed, and there are no tokens.
fn key_of_this_run(config: &mut Config) -> Result<Option<String>, Failure> {
    let methods = &config.auth.methods;
    let closed = !methods.contains(&AuthMethod::Open) || methods.contains(&AuthMethod::Token);
    let no_api = config.http.listen.is_empty() && config.http.tls_listen.is_empty();
    if closed || no_api || !config.api.keys.is_empty() || config.api.keys_file.is_some() {
        return Ok(None);
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Runtime(format!("the system has no randomness: {error}")))?;
    let key = bytes.iter().fold(String::new(), |key, byte| key + &format!("{byte:02x}"));
    config.api.keys.extend(Secret::new(&key));
    Ok(Some(key))
}

async fn start(config: Config) -> Result<Running, Failure> {
    Server::builder().config(config).start().await.map_err(|error| Failure::Runtime(error.to_string()))
}

/// What operators and supervisors send.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ends with SIGINT or SIGTERM; calls `reload` at each SIGHUP before that.
    async fn stop_or(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}

/// The crate that is the embedded broker.
const EMBEDDED: &str = "rumqttd";

fn log_to_stderr(log: &LogConfig) {
    // The embedded broker tells of everything that everybody does, and writes what they sent as it came.
    let directives = if log.level.contains(EMBEDDED) { String::new() } else { format!(",{EMBEDDED}=off") };
    let filter = EnvFilter::new(format!("{}{directives}", log.level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match log.format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// Each connection is a file descriptor, and the usual soft limit of 1024 is a relic of `select`, which nothing here
/// uses.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(?current, ?maximum, "raised the limit of open files"),
        Err(error) => tracing::warn!(?current, ?maximum, %error, "cannot raise the limit of open files"),
    }
}

/// Prints where to find what, for people and for scripts that asked for port 0.
fn announce(addresses: &Addresses, path: &str, backplane: Option<&BackplaneAccess>) {
    let table = [
        ("http", "/", &addresses.http),
        ("ws", path, &addresses.http),
        ("mqtt", "", &addresses.mqtt),
        ("https", "/", &addresses.https),
        ("wss", path, &addresses.https),
        ("mqtts", "", &addresses.mqtts),
    ];
    let mut text = String::new();
    for (scheme, path, addresses) in table {
        for address in addresses {
            text += &format!("{scheme}://{}{path}\n", reachable(*address));
        }
    }
    if let Some(access) = backplane {
        // The only place where a password that was made for this run is ever shown.
        let password = if access.generated { format!(":{}", access.password) } else { String::new() };
        text += &format!("backplane mqtt://{}{password}@{}\n", access.username, reachable(access.address));
    }
    // A broker whose standard output was closed is still a broker.
    let _ = stdout().write_all(text.as_bytes());
}

/// An address that others can type, for one that stands for all of this machine's.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let (any, elsewhere, loopback): (IpAddr, IpAddr, IpAddr) = match address {
        // Addresses reserved for documentation: connecting a UDP socket only asks for the route, nothing is sent.
        SocketAddr::V4(_) => {
            (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::LOCALHOST.into())
        }
        SocketAddr::V6(_) => {
            let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            (Ipv6Addr::UNSPECIFIED.into(), documentation.into(), Ipv6Addr::LOCALHOST.into())
        }
    };
    let outgoing = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((elsewhere, 9))?;
        socket.local_addr()
    });
    SocketAddr::new(outgoing.map_or(loopback, |local| local.ip()), address.port())
}

#[cfg(test)]
mod tests {
    use super::{Resource, Rlimit, getrlimit, raise_file_limit, reachable, setrlimit};

    #[test]
    fn an_address_that_can_be_typed() {
        let chosen = "127.0.0.1:8080".parse().expect("an address");
        assert_eq!(reachable(chosen), chosen);
        for everywhere in ["0.0.0.0:8443", "[::]:8443"] {
            let found = reachable(everywhere.parse().expect("an address"));
            assert!(!found.ip().is_unspecified() && found.port() == 8443, "{found}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..before }).expect("lower is always allowed");
        raise_file_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}
