//! The files with the certificate and its key, and what is made of them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use x509_cert::der::Decode;

const CERT: &str = "tls-cert-file";
const KEY: &str = "tls-key-file";

/// Why the files cannot be served with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {}: {problem}", path.display())]
pub struct LoadError {
    /// The flag that names the file, without dashes.
    pub flag: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and what to give; never the content.
    pub problem: String,
}

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those of its issuers.
    pub cert: PathBuf,
    /// PEM: the key of the first certificate.
    pub key: PathBuf,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(…)")
    }
}

/// What handshakes are made with.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// Seconds since 1970-01-01 UTC.
    pub(super) expires: u64,
}

impl TlsFiles {
    /// Whether they can be served with.
    pub fn check(&self) -> Result<(), LoadError> {
        self.load(&self.read()?).map(drop)
    }

    pub(super) fn read(&self) -> Result<Content, LoadError> {
        let read = |flag, path: &Path| {
            std::fs::read(path).map_err(|error| LoadError {
                flag,
                path: path.to_owned(),
                problem: format!("{error}; give a PEM file that this process may read"),
            })
        };
        Ok(Content {
            cert: read(CERT, &self.cert)?,
            key: read(KEY, &self.key)?,
        })
    }

    pub(super) fn load(&self, content: &Content) -> Result<Loaded, LoadError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&content.cert)
            .collect::<Result<_, _>>()
            .map_err(|error| self.cert(&format!("{error}; {CHAIN}")))?;
        let Some(own) = chain.first() else {
            return Err(self.cert(&format!("holds no certificate; {CHAIN}")));
        };
        let parsed = x509_cert::Certificate::from_der(own)
            .map_err(|error| self.cert(&format!("is no X.509 certificate ({error}); {CHAIN}")))?;
        let ends = parsed.tbs_certificate.validity.not_after;
        let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|_| {
            self.key(
                "holds no private key; give a PEM file with one that no password protects (BEGIN PRIVATE KEY, \
                 BEGIN RSA PRIVATE KEY or BEGIN EC PRIVATE KEY)",
            )
        })?;
        let config = self.config(chain, key)?;
        Ok(Loaded {
            config: Arc::new(config),
            expires: ends.to_unix_duration().as_secs(),
        })
    }

    fn config(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig, LoadError> {
        let provider: Arc<CryptoProvider> = ring::default_provider().into();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| self.cert(&error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => self.key(&format!(
                    "is not the key of the first certificate in {}; give the two that were issued together",
                    self.cert.display()
                )),
                error => self.key(&format!(
                    "does not serve with its certificate ({error}); give an RSA, ECDSA (P-256, P-384) or Ed25519 key"
                )),
            })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // a client that comes back brings what it needs to resume; nothing is kept for it here
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new().map_err(|error| self.cert(&error.to_string()))?;
        // it comes back one connection at a time
        config.send_tls13_tickets = 1;
        Ok(config)
    }

    fn cert(&self, problem: &str) -> LoadError {
        LoadError {
            flag: CERT,
            path: self.cert.clone(),
            problem: problem.to_owned(),
        }
    }

    fn key(&self, problem: &str) -> LoadError {
        LoadError {
            flag: KEY,
            path: self.key.clone(),
            problem: problem.to_owned(),
        }
    }
}

const CHAIN: &str =
    "give a PEM file with the server's certificate first (BEGIN CERTIFICATE), then its issuers'";
