//! A client of the HTTP API, for the commands that ask it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use tokio_rustls::rustls::crypto::ring;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Failure;
use super::terminal::escape;

/// The longest answer that is read, in bytes.
const MOST: u64 = 64 << 20;

#[derive(Args)]
pub struct ApiArgs {
    /// Server: http:// or https://
    #[arg(long, env = "WIGWAG_URL", default_value = "http://127.0.0.1:8080")]
    url: String,

    /// Operator key (`api.keys`; a server in open mode prints one); better in the environment, where other users of this
    /// machine do not see it
    #[arg(long, env = "WIGWAG_KEY", hide_env_values = true)]
    key: Option<String>,

    /// Token with the role service, instead of a key
    #[arg(long, env = "WIGWAG_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// PEM file of the authorities to trust [default: the system's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    cafile: Option<PathBuf>,

    /// Trust any certificate, such as that of `wigwag serve --dev-tls`
    #[arg(long)]
    insecure: bool,
}

/// See the module.
pub struct Api {
    agent: Agent,
    url: String,
    credential: String,
}

/// A name as a level of a path.
pub fn level(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

impl Api {
    pub fn new(args: &ApiArgs) -> Result<Self, Failure> {
        let url = args.url.trim_end_matches('/');
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Failure::Usage(format!("--url {}: known are http:// and https://", args.url)));
        }
        let Some(credential) = args.key.as_ref().or(args.token.as_ref()) else {
            return Err(Failure::Usage("a credential is needed: --key or --token, WIGWAG_KEY or WIGWAG_TOKEN".into()));
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(tls(args, url.starts_with("https:"))?)
            .user_agent(concat!("wigwag/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, url: url.into(), credential: format!("Bearer {credential}") })
    }

    /// What is at that path, below `/api`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let failed = |reason: &str| Failure::Runtime(format!("{}: {}", self.url, escape(reason.as_bytes())));
        let request = self.agent.get(format!("{}/api{path}", self.url)).header("authorization", &self.credential);
        let mut response = request.call().map_err(|error| failed(&error.to_string()))?;
        let body = response.body_mut().with_config().limit(MOST).read_to_vec();
        let body = body.map_err(|error| failed(&error.to_string()))?;
        if response.status() != 200 {
            let detail = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let detail =
                detail.as_ref().and_then(|problem| problem["detail"].as_str()).unwrap_or("it does not say why");
            return Err(failed(&format!("{}: {detail}", response.status())));
        }
        serde_json::from_slice(&body).map_err(|error| failed(&format!("no answer of Wigwag's: {error}")))
    }
}

fn tls(args: &ApiArgs, needed: bool) -> Result<TlsConfig, Failure> {
    let roots = match &args.cafile {
        _ if !needed => Vec::new(),
        Some(path) => {
            let wrong = |error| Failure::Usage(format!("{}: {error}", path.display()));
            let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect();
            all.map_err(wrong)?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let roots = RootCerts::from(roots.into_iter().map(|der| Certificate::from_der(&der).to_owned()));
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .disable_verification(args.insecure)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build())
}
