//! From the configuration to a backplane that runs.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    sync::{Arc, atomic::AtomicUsize},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::{
    Backplane, Bounds, HEAD, Health,
    embedded::{self, Access, Size},
    figures::Figures,
    front::Front,
    mqtt::{Broker, Link},
    outbox::{Limits, Outbox},
    tls,
    vocabulary::Vocabulary,
};
use crate::{
    config::{BackplaneConfig, BackplaneMode, Config, Level, Pattern},
    hub::Hub,
    wire::mqtt::topic,
    worker::Workers,
};

/// Why there is no backplane: the key, and what is wrong with it.
#[derive(Debug)]
pub struct StartError {
    pub key: &'static str,
    pub reason: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

impl std::error::Error for StartError {}

/// A backplane whose port is bound and whose broker, if it is in this process, answers; nothing of it runs on this
/// server's threads yet.
pub struct Started {
    broker: Broker,
    front: Option<(Arc<Front>, TcpListener)>,
}

/// Prepares what is configured; `None` if that is nothing. An embedding application that says nothing has none.
///
/// # Errors
/// A port that is taken, a file that cannot be used, an embedded broker that does not start.
pub async fn start(config: &Config) -> Result<Option<Started>, StartError> {
    let backplane = &config.backplane;
    match backplane.mode {
        BackplaneMode::Off | BackplaneMode::Auto => Ok(None),
        BackplaneMode::Embedded => embed(backplane, bounds(config).packet).await.map(Some),
        BackplaneMode::Mqtt => {
            let Some(url) = backplane.url.clone() else {
                return Err(StartError { key: "backplane.url", reason: "missing".into() });
            };
            let tls = if url.tls { Some(Arc::new(tls::client_config(backplane)?)) } else { None };
            Ok(Some(Started { broker: Broker::Remote { url, tls }, front: None }))
        }
    }
}

async fn embed(config: &BackplaneConfig, packet: usize) -> Result<Started, StartError> {
    const KEY: &str = "backplane.embedded.listen";
    let embedded = &config.embedded;
    let listening = |error| {
        let reason = format!("cannot listen on {}: {error}", embedded.listen);
        StartError { key: KEY, reason: format!("{reason} (backplane.mode = \"off\" does without)") }
    };
    let listener = crate::server::listen(embedded.listen).map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let size = Size { packet, connections: embedded.connections, log: embedded.log };
    let starting = |error| StartError { key: "backplane.mode", reason: format!("the embedded broker: {error}") };
    let router = embedded::running(size).await.map_err(starting)?;
    let password = embedded.password.as_ref().map(|password| password.expose().to_owned());
    let generated = password.is_none();
    let password = match password {
        Some(password) => password,
        None => random_hex().map_err(starting)?,
    };
    let access = Access { address, username: embedded.username.clone(), password, generated };
    let most = embedded.connections;
    let places = Arc::new(Semaphore::new(most));
    let front = Front { access, most, packet_max: packet, places, warned: Mutex::new(None) };
    Ok(Started { broker: Broker::Embedded { router, size }, front: Some((Arc::new(front), listener)) })
}

impl Started {
    /// Joins it to the hub, and has it run.
    pub fn join(self, config: &Config, hub: &Arc<Hub>, workers: &Workers) -> Option<Access> {
        let backplane = Arc::new(Backplane::new(config, &self.broker, hub));
        let access = self.front.as_ref().map(|(front, _)| front.access.clone());
        if let Some((front, listener)) = self.front {
            workers.spawn(front.serve(listener));
        }
        workers.spawn(Link::new(&config.backplane, self.broker, Arc::clone(&backplane), Arc::clone(hub)).run());
        // Set here and nowhere else, once.
        let _ = hub.backplane.set(backplane);
        access
    }
}

impl Backplane {
    pub(super) fn new(config: &Config, broker: &Broker, hub: &Hub) -> Self {
        let BackplaneConfig { share, keep_last, embedded, .. } = &config.backplane;
        let limits = Limits {
            messages: config.backplane.buffer_messages,
            bytes: config.backplane.buffer_bytes,
            ttl: config.backplane.ttl,
        };
        let vocabulary = match broker {
            Broker::Embedded { .. } => Some(Vocabulary::new(embedded.topics_max, embedded.topics_per_user)),
            Broker::Remote { .. } => None,
        };
        let boxed = |filters: &[String]| filters.iter().map(|filter| filter.as_str().into()).collect();
        Self {
            node: hub.node.clone(),
            share: boxed(share),
            keep_last: boxed(keep_last),
            commands: config.backplane.commands,
            bounds: bounds(config),
            broker_packet: AtomicUsize::new(usize::MAX),
            outbox: Mutex::new(Outbox::new(limits, RandomState::new().hash_one(0) as u16)),
            more: Notify::new(),
            vocabulary: vocabulary.map(Mutex::new),
            health: Mutex::new(Health::Down("not connected yet".into())),
            figures: Figures::new(&hub.metrics),
        }
    }
}

/// What is shared may be as large as the rows of the topic table that concern it allow.
fn bounds(config: &Config) -> Bounds {
    let concerns = |filter: &Pattern| {
        let filter = as_filter(filter);
        config.backplane.share.iter().any(|share| topic::overlaps(share, &filter))
    };
    let rows = config.topics.0.iter().filter(|row| concerns(&row.filter));
    let largest = rows.map(|row| row.size.unwrap_or(config.limits.packet)).max();
    let payload = largest.unwrap_or(config.limits.packet).min(config.limits.packet);
    Bounds {
        payload,
        packet: payload + HEAD,
        topic_length: config.limits.topic_length,
        topic_levels: config.limits.topic_levels,
        user_properties: config.limits.user_properties,
    }
}

/// A row's filter with a wildcard for each placeholder.
fn as_filter(pattern: &Pattern) -> String {
    let level = |level: &Level| match level {
        Level::Literal(text) => text.to_string(),
        Level::Rest => "#".to_owned(),
        Level::One | Level::Room | Level::User | Level::Client | Level::Claim(_) => "+".to_owned(),
    };
    pattern.levels().iter().map(level).collect::<Vec<_>>().join("/")
}

/// 128 bits that nobody can guess.
pub fn random_hex() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::{Config, bounds};

    #[test]
    fn the_topic_table_says_how_large_what_is_shared_may_be() {
        let shipped = bounds(&Config::default());
        assert_eq!(shipped.payload, 64 << 10);
        assert!(shipped.packet > shipped.payload);
        let row = "[[topic]]\nname = \"x\"\nfilter = \"app/{user}/x\"\nsize = \"1KiB\"\n";
        let config = Config::from_toml_str(row).expect("a row");
        assert_eq!(bounds(&config).payload, 1 << 10);
        let config = Config::from_toml_str(&format!("[limits]\npacket = \"2KiB\"\n{row}")).expect("a row");
        assert_eq!(bounds(&config).payload, 1 << 10);
        let config = Config::from_toml_str("topic = []").expect("no row");
        assert_eq!(bounds(&config).payload, config.limits.packet);
    }
}
