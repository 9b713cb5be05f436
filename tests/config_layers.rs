//! Defaults, file, environment, flags: which one wins, and that the winner is named.

use std::net::SocketAddr;
use std::time::Duration;

use wigwag::config::{AuthMethod, Config, Identity, IdentityFiles, LogFormat, Secret, Sources};

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn temporary(name: &str, text: &str) -> std::path::PathBuf {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("the test directory is writable");
    path
}

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(Config::load(None, []), Ok(Config::default()));
    assert_eq!(Config::from_toml_str(""), Ok(Config::default()));
}

#[test]
fn values_in_every_notation() {
    let config = Config::from_toml_str(
        r#"
        [server]
        workers = 0x10
        shutdown_grace = 7
        [http]
        listen = []
        tls_listen = ["[::1]:443", "0.0.0.0:0"]
        path = "/ws/v1"
        [auth]
        open_anywhere = true
        [tls]
        certificate = "chain.pem"
        key = "key.pem"
        reload = "0s"
        [limits]
        connections = 1_000
        connections_per_address = 0
        connect_timeout = "250ms"
        packet = "1MiB"
        queue_bytes = 2048
        [session]
        expiry = "2d"
        keep_alive_max = "1h"
        [log]
        level = "warn,wigwag::http[span]=debug"
        format = "json"
        [metrics]
        enabled = false
        "#,
    )
    .expect("valid");
    assert_eq!(config.server.workers, Some(16));
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(7));
    assert_eq!(config.http.listen, []);
    assert_eq!(config.http.tls_listen, ["[::1]:443", "0.0.0.0:0"].map(|a| a.parse::<SocketAddr>().expect("address")));
    assert_eq!(config.http.path, "/ws/v1");
    let files = IdentityFiles { certificate: "chain.pem".into(), key: "key.pem".into() };
    assert_eq!(config.tls.identity, Identity::Files(files));
    assert_eq!(config.tls.reload, None);
    assert_eq!(config.limits.connections, Some(1000));
    assert_eq!(config.limits.connections_per_address, None);
    assert_eq!(config.limits.connect_timeout, Duration::from_millis(250));
    assert_eq!(config.limits.packet, 1 << 20);
    assert_eq!(config.limits.queue_bytes, 2048);
    assert_eq!(config.session.expiry, Duration::from_secs(2 * 24 * 3600));
    assert_eq!(config.session.keep_alive_max, Some(Duration::from_secs(3600)));
    assert_eq!(config.log.format, LogFormat::Json);
    assert!(!config.metrics.enabled);
}

#[test]
fn only_names_with_two_underscores_are_ours() {
    let injected = [("WIGWAG_PORT", "tcp://10.0.0.1:80"), ("WIGWAG_FOO", "1"), ("PATH", "/bin"), ("OTHER_A__B", "1")];
    assert_eq!(Config::load(None, environment(&injected)), Ok(Config::default()));
}

#[test]
fn the_environment_is_untyped() {
    let variables = [
        ("WIGWAG_HTTP__LISTEN", "127.0.0.1:1, [::1]:2"),
        ("WIGWAG_MQTT__LISTEN", ""),
        ("WIGWAG_SERVER__SHUTDOWN_GRACE", "3"),
        ("WIGWAG_LIMITS__CONNECT_TIMEOUT", "3m"),
        ("WIGWAG_LIMITS__PACKET", "65_536"),
        ("WIGWAG_METRICS__ENABLED", "false"),
        ("WIGWAG_LOG__FORMAT", "json"),
        ("WIGWAG_AUTH__METHODS", "token, http"),
        ("WIGWAG_AUTH__TOKEN__SECRET", "0123456789abcdef0123456789abcdef"),
        ("WIGWAG_AUTH__HTTP__URL", "https://id.example/mqtt"),
    ];
    let config = Config::load(None, environment(&variables)).expect("valid");
    assert_eq!(config.http.listen.len(), 2);
    assert_eq!(config.mqtt.listen, []);
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(3));
    assert_eq!(config.limits.connect_timeout, Duration::from_secs(180));
    assert_eq!(config.limits.packet, 65_536);
    assert!(!config.metrics.enabled);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.auth.methods, [AuthMethod::Token, AuthMethod::Http]);
    assert_eq!(config.auth.token.secret, Secret::new("0123456789abcdef0123456789abcdef"));
    assert_eq!(config.auth.http.url.as_deref(), Some("https://id.example/mqtt"));
}

#[test]
fn later_layers_win_and_are_named() {
    let file = temporary("layers.toml", "[server]\nworkers = 1\nshutdown_grace = \"1s\"\n[sys]\ninterval = 1\n");
    let variables = environment(&[("WIGWAG_SERVER__WORKERS", "2"), ("WIGWAG_SERVER__SHUTDOWN_GRACE", "2s")]);
    let mut sources = Sources::new(Some(&file), variables).expect("readable");
    sources.flag("server.workers", "--workers", "3".into());
    let effective = sources.load().expect("valid");
    assert_eq!(effective.config.server.workers, Some(3));
    assert_eq!(effective.config.server.shutdown_grace, Duration::from_secs(2));

    let text = effective.to_string();
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).expect(key);
    assert_eq!(line("workers"), "workers = 3  # --workers");
    assert_eq!(line("shutdown_grace"), "shutdown_grace = \"2s\"  # WIGWAG_SERVER__SHUTDOWN_GRACE");
    assert_eq!(line("interval"), format!("interval = \"1s\"  # {}:5", file.display()));
    assert_eq!(line("enabled"), "enabled = true");
    assert_eq!(Config::from_toml_str(&text), Ok(effective.config), "what is shown is what is in effect");
}

#[test]
fn a_hidden_mistake_is_still_a_mistake() {
    let file = temporary("hidden.toml", "[server]\nworkers = -1\n");
    let errors = Config::load(Some(&file), environment(&[("WIGWAG_SERVER__WORKERS", "2")])).expect_err("wrong");
    assert!(errors.to_string().contains("hidden.toml:2: server.workers: found -1"), "{errors}");
}

#[test]
fn a_self_signed_certificate_brings_its_listener_and_yields_to_a_chosen_one() {
    let mut sources = Sources::default();
    sources.flag("auth.open_anywhere", "--open-anywhere", "true".into());
    sources.self_signed("--dev-tls", "0.0.0.0:8443");
    let effective = sources.load().expect("valid");
    assert_eq!(effective.config.tls.identity, Identity::SelfSigned);
    assert_eq!(effective.config.http.tls_listen, [SocketAddr::from(([0, 0, 0, 0], 8443))]);
    assert!(effective.to_string().contains("tls_listen = [\"0.0.0.0:8443\"]  # --dev-tls"));

    let variables = environment(&[("WIGWAG_HTTP__TLS_LISTEN", "127.0.0.1:1")]);
    let mut sources = Sources::new(None, variables).expect("no file");
    sources.self_signed("--dev-tls", "0.0.0.0:8443");
    let config = sources.load().expect("valid").config;
    assert_eq!(config.http.tls_listen, [SocketAddr::from(([127, 0, 0, 1], 1))]);
}

/// A row by its name and filter.
fn rows(config: &Config) -> Vec<(&str, String)> {
    config.topics.0.iter().map(|row| (&*row.name, row.filter.to_string())).collect()
}

#[test]
fn a_file_with_topics_replaces_the_whole_table_and_shows_where_each_stands() {
    let text = r##"[[topic]]
name = "a"
filter = "a/{room}"
publish = ["join", "service"]
qos.max = 1
rate = { messages = 0 }

[[topic]]
name = "b"
filter = "#"
"##;
    let file = temporary("topics.toml", text);
    let effective = Sources::new(Some(&file), []).expect("readable").load().expect("valid");
    assert_eq!(rows(&effective.config), [("a", "a/{room}".into()), ("b", "#".into())]);
    let row = &effective.config.topics.0[0];
    assert_eq!(row.publish, wigwag::config::Audience::parse(&["join", "service"]).expect("words"));
    assert_eq!((row.qos.max as u8, row.qos.raise, row.rate.messages), (1, false, None));
    assert_eq!(row.rate.bytes, Some(256 << 10), "a key that is left out of a table keeps its default");

    let shown = effective.to_string();
    for line in [1, 8] {
        assert!(shown.contains(&format!("\n[[topic]]  # {}:{line}\n", file.display())), "{shown}");
    }
    assert_eq!(Config::from_toml_str(&shown), Ok(effective.config), "what is shown is what is in effect");
}

#[test]
fn an_empty_table_is_empty() {
    let effective = Sources::default().load().expect("valid");
    assert_eq!(effective.config.topics.0.len(), 13);
    let file = temporary("no_topics.toml", "topic = []\n[sys]\ninterval = 1\n");
    let effective = Sources::new(Some(&file), []).expect("readable").load().expect("valid");
    assert!(effective.config.topics.0.is_empty());
    assert_eq!(Config::from_toml_str(&effective.to_string()), Ok(effective.config));
}
