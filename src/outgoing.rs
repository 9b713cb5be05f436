//! HTTP requests that the server makes of the operator's services: to authenticate, and to tell of events.

use std::{sync::Arc, time::Duration};

use tokio_rustls::rustls::crypto::ring;
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

/// Whoever makes requests of `url`, each of which has that time in all; up to `idle` connections are kept for the next.
/// Redirects and proxies are not followed: what is sent goes where the configuration says.
pub(crate) fn agent(url: &str, timeout: Duration, idle: usize) -> Agent {
    Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .tls_config(tls(url.starts_with("https:")))
        .user_agent(concat!("wigwag/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections_per_host(idle)
        .build()
        .new_agent()
}

/// The system's authorities, if they are needed.
fn tls(needed: bool) -> TlsConfig {
    let found = if needed { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
    let roots = RootCerts::from(found.into_iter().map(|der| Certificate::from_der(&der).to_owned()));
    TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build()
}
