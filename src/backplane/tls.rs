//! Whom the link trusts, and as whom it shows itself.

use std::{fmt::Display, path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::StartError;
use crate::config::BackplaneConfig;

/// The TLS of a client of the configured broker.
pub fn client_config(config: &BackplaneConfig) -> Result<ClientConfig, StartError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| StartError { key: "backplane.url", reason: format!("TLS: {error}") })?;
    let roots = match &config.ca {
        Some(path) => authorities(path)?,
        None => {
            let mut roots = RootCertStore::empty();
            // Those that cannot be read are left out: if one was needed, the handshake says so.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let builder = builder.with_root_certificates(roots);
    let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("backplane.certificate", certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("backplane.key", key, &error))?;
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|error| unreadable("backplane.certificate", certificate, &error))
}

fn authorities(path: &Path) -> Result<RootCertStore, StartError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("backplane.ca", path)? {
        roots.add(certificate).map_err(|error| unreadable("backplane.ca", path, &error))?;
    }
    Ok(roots)
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, StartError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(unreadable(key, path, &"no certificate in it")),
        found => found.map_err(|error| unreadable(key, path, &error)),
    }
}

fn unreadable(key: &'static str, path: &Path, reason: &dyn Display) -> StartError {
    StartError { key, reason: format!("{}: {reason}", path.display()) }
}
