//! The server's certificate: read from PEM files or made at start, and read again when the files change, without a
//! restart and without a moment in which there is none.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::config::{Identity, IdentityFiles};

/// What is wrong with a certificate or its key.
#[derive(Debug)]
pub struct TlsError {
    /// The configuration key to look at.
    key: &'static str,
    path: PathBuf,
    problem: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.key, self.path.display(), self.problem)
    }
}

impl std::error::Error for TlsError {}

/// See the module. A cheap handle.
#[derive(Clone)]
pub struct Certificate {
    files: Option<IdentityFiles>,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

/// Gives each new connection the certificate of that moment.
#[derive(Clone)]
pub struct Acceptor(Arc<RwLock<Arc<ServerConfig>>>);

impl Acceptor {
    pub fn current(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.read()))
    }
}

impl Certificate {
    /// `None` if there is to be no TLS.
    pub fn load(identity: &Identity) -> Result<Option<Self>, TlsError> {
        let (files, config) = match identity {
            Identity::None => return Ok(None),
            Identity::Files(files) => (Some(files.clone()), from_files(files)?),
            Identity::SelfSigned => (None, self_signed()?),
        };
        Ok(Some(Self { files, config: Arc::new(RwLock::new(config)) }))
    }

    pub fn acceptor(&self) -> Acceptor {
        Acceptor(Arc::clone(&self.config))
    }

    /// Reads the files again; on an error the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        if let Some(files) = &self.files {
            *self.config.write() = from_files(files)?;
            tracing::info!(certificate = %files.certificate.display(), "certificate read again");
        }
        Ok(())
    }

    /// Looks at the files every `interval` and reads them when they have changed; runs until it is dropped.
    pub async fn watch(self, interval: Duration) {
        let Some(files) = self.files.clone() else { return };
        let mut seen = modified(&files);
        loop {
            tokio::time::sleep(interval).await;
            let now = modified(&files);
            if now == seen {
                continue;
            }
            match self.reload() {
                Ok(()) => seen = now,
                // Perhaps only one of the two has been replaced so far: look again.
                Err(error) => tracing::error!(%error, "the certificate was not replaced"),
            }
        }
    }
}

fn modified(files: &IdentityFiles) -> [Option<SystemTime>; 2] {
    let time = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    [time(&files.certificate), time(&files.key)]
}

fn from_files(files: &IdentityFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |key: &'static str, path: &Path, problem: String| TlsError { key, path: path.into(), problem };
    let bad_chain = |problem: String| wrong("tls.certificate", &files.certificate, problem);
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad_chain(error.to_string()))?;
    if chain.is_empty() {
        return Err(bad_chain("no certificate in this file; PEM is expected".into()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong("tls.key", &files.key, error.to_string()))?;
    config(chain, key).map_err(|error| wrong("tls.key", &files.key, error.to_string()))
}

fn self_signed() -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |problem: String| TlsError { key: "--dev-tls", path: PathBuf::new(), problem };
    let names = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(error.to_string()))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|error| failed(error.into()))?;
    config(vec![made.cert.der().clone()], key).map_err(|error| failed(error.to_string()))
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"mqtt".to_vec()];
    // Sessions are resumed by tickets that the clients keep: a store of ours would have a size, and a crowd that comes
    // back at once is larger. Their key changes every six hours, and one is good for twelve.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}
