//! Where the broker listens and as whom: `[http]`, `[mqtt]`, `[tls]`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::Origin;
use super::reader::Reader;
use super::value::{Address, DAY, List, PageOrigin, Switch, Text, time};

/// Section `[http]`: the page, the API, health, metrics and MQTT over WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where to listen without TLS. List of address:port; port 0 = any free one.
    pub listen: Vec<SocketAddr>,
    /// Where to listen with TLS. List of address:port; needs `[tls]`.
    pub tls_listen: Vec<SocketAddr>,
    /// Path of the WebSocket. Letters, digits and -._~/ after a leading "/"; not "/", "/api", "/healthz", "/readyz" or
    /// "/metrics".
    pub path: String,
    /// Origins whose pages may open the WebSocket. List of "same-host" (any port; all loopback names are one host),
    /// "scheme://host" or "scheme://host:port", and "*" for all.
    pub origins: Vec<AllowedOrigin>,
    /// Whether a WebSocket client must send an Origin; only browsers do. true or false.
    pub origin_required: bool,
}

/// Pages that may open the WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// `"same-host"`: of the host that the request names, on any port.
    SameHost,
    /// `"*"`.
    Any,
    /// `"https://app.example"`, with its port where that is not the scheme's own.
    Exact(String),
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: vec![loopback(8080)],
            tls_listen: Vec::new(),
            path: "/mqtt".into(),
            origins: vec![AllowedOrigin::SameHost],
            origin_required: false,
        }
    }
}

impl HttpConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("http");
        let d = Self::default();
        Self {
            listen: section.read("listen", List(Address), d.listen),
            tls_listen: section.read("tls_listen", List(Address), d.tls_listen),
            path: section.read("path", WEBSOCKET_PATH, d.path),
            origins: section.read("origins", List(PageOrigin), d.origins),
            origin_required: section.read("origin_required", Switch, d.origin_required),
        }
    }
}

const WEBSOCKET_PATH: Text = Text {
    allowed: "a path like \"/mqtt\" of letters, digits and -._~/, and not \"/\", \"/api\", \"/healthz\", \"/readyz\" \
              or \"/metrics\"",
    accept: |path| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
        let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
        path.starts_with('/')
            && path.chars().all(plain)
            && !["", "api", "healthz", "readyz", "metrics"].contains(&first)
    },
};

/// Section `[mqtt]`: MQTT over TCP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttConfig {
    /// Where to listen without TLS. List of address:port; port 0 = any free one.
    pub listen: Vec<SocketAddr>,
    /// Where to listen with TLS. List of address:port; needs `[tls]`.
    pub tls_listen: Vec<SocketAddr>,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self { listen: vec![loopback(1883)], tls_listen: Vec::new() }
    }
}

impl MqttConfig {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let mut section = reader.section("mqtt");
        let d = Self::default();
        Self {
            listen: section.read("listen", List(Address), d.listen),
            tls_listen: section.read("tls_listen", List(Address), d.tls_listen),
        }
    }
}

/// Section `[tls]`: the certificate for every `tls_listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Keys `certificate` and `key`.
    pub identity: Identity,
    /// How often the two files are looked at for a change. Duration, 100 ms to 1 day; 0 = only on SIGHUP.
    pub reload: Option<Duration>,
}

/// Whose certificate the server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody's: no listener uses TLS.
    None,
    /// The operator's.
    Files(IdentityFiles),
    /// One made at start, which browsers warn of (`--dev-tls`).
    SelfSigned,
}

/// The operator's certificate. Relative paths are from the working directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// PEM file with the certificate and its chain, the server's own first. Path; "" = none.
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key. Path; "" = none.
    pub key: PathBuf,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { identity: Identity::None, reload: Some(Duration::from_secs(30)) }
    }
}

impl TlsConfig {
    pub(super) fn read(reader: &mut Reader, self_signed: bool) -> Self {
        let mut section = reader.section("tls");
        let certificate = section.read("certificate", FILE, String::new());
        let key = section.read("key", FILE, String::new());
        let reload = section.read("reload", time(100..=DAY).or_zero("only on SIGHUP"), Self::default().reload);
        let identity = match (self_signed, certificate.as_str(), key.as_str()) {
            (true, ..) => Identity::SelfSigned,
            (false, "", "") => Identity::None,
            _ => Identity::Files(IdentityFiles { certificate: certificate.into(), key: key.into() }),
        };
        Self { identity, reload }
    }
}

const FILE: Text =
    Text { allowed: "a path, or \"\" for none", accept: |path| !path.chars().any(|c| c.is_ascii_control()) };

/// Reports what is wrong between the three sections: one address twice, half a certificate, TLS without any.
pub(super) fn check(reader: &mut Reader, http: &HttpConfig, mqtt: &MqttConfig, tls: &TlsConfig) {
    let lists = [
        ("http.listen", &http.listen),
        ("http.tls_listen", &http.tls_listen),
        ("mqtt.listen", &mqtt.listen),
        ("mqtt.tls_listen", &mqtt.tls_listen),
    ];
    let mut taken: Vec<(SocketAddr, &'static str, Origin)> = Vec::new();
    for (key, addresses) in lists {
        let Some(origin) = reader.origin(key).cloned() else { continue };
        for address in addresses.iter().filter(|address| address.port() != 0) {
            match taken.iter().find(|(other, ..)| other == address) {
                // Whichever was set is to blame, not a default.
                Some((_, other, theirs)) if *theirs > origin => {
                    reader.conflict(theirs.clone(), other, format!("{address} is also in {key}"));
                }
                Some((_, other, _)) => {
                    reader.conflict(origin.clone(), key, format!("{address} is also in {other}"));
                }
                None => taken.push((*address, key, origin.clone())),
            }
        }
    }

    let (Some(certificate), Some(key)) = (reader.origin("tls.certificate"), reader.origin("tls.key")) else { return };
    let (certificate, key) = (certificate.clone(), key.clone());
    match &tls.identity {
        Identity::Files(files) if files.key.as_os_str().is_empty() => {
            reader.conflict(certificate, "tls.certificate", "set without tls.key, which must name its private key");
        }
        Identity::Files(files) if files.certificate.as_os_str().is_empty() => {
            reader.conflict(key, "tls.key", "set without tls.certificate, which must name the certificate");
        }
        Identity::None => {
            for (key, _) in lists.iter().filter(|(key, list)| key.ends_with("tls_listen") && !list.is_empty()) {
                let reason = "needs tls.certificate and tls.key, or --dev-tls for a self-signed certificate";
                let Some(origin) = reader.origin(key).cloned() else { continue };
                reader.conflict(origin, key, reason);
            }
        }
        Identity::Files(_) | Identity::SelfSigned => {}
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
