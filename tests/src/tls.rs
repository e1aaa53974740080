//! Certificates as Kubernetes mounts them, and clients that speak TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A certificate, for `localhost` unless another host is named, that vouches for itself, and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    cert: String,
    key: String,
    der: CertificateDer<'static>,
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

impl Certificate {
    /// A new one; the name is its subject.
    pub fn new(name: &str) -> Result<Self> {
        Self::of(name, "localhost")
    }

    /// A new one for this host, a name or an address.
    pub fn of(name: &str, host: &str) -> Result<Self> {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let der = params.self_signed(&key)?.der().clone();
        Ok(Self {
            cert: pem("CERTIFICATE", &der),
            key: pem("PRIVATE KEY", &key.serialize_der()),
            der,
        })
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.cert
    }

    /// Its key as PEM.
    pub fn key_pem(&self) -> &str {
        &self.key
    }

    /// A client that trusts only this one, and speaks only these versions.
    pub fn trusting(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A mounted Secret of the type `kubernetes.io/tls`: the files are links into the folder that the link `..data` names.
#[derive(Debug)]
pub struct MountedSecret {
    folder: TempDir,
    version: usize,
}

impl MountedSecret {
    /// Mounts a certificate.
    pub fn new(certificate: &Certificate) -> Result<Self> {
        let mut secret = Self {
            folder: tempfile::tempdir()?,
            version: 0,
        };
        secret.replace(certificate)?;
        for name in ["tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), secret.file(name))?;
        }
        Ok(secret)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another certificate, in one step, as the kubelet does it.
    pub fn replace(&mut self, certificate: &Certificate) -> Result<()> {
        self.put(&certificate.cert, &certificate.key)
    }

    /// A certificate with the key of another.
    pub fn break_with(&mut self, certificate: &Certificate, key: &Certificate) -> Result<()> {
        self.put(&certificate.cert, &key.key)
    }

    fn put(&mut self, cert: &str, key: &str) -> Result<()> {
        self.version += 1;
        let name = format!("..version-{}", self.version);
        let folder = self.file(&name);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("tls.crt"), cert)?;
        std::fs::write(folder.join("tls.key"), key)?;
        std::os::unix::fs::symlink(&name, self.file("..data-new"))?;
        std::fs::rename(self.file("..data-new"), self.file("..data"))?;
        Ok(())
    }

    /// The gateway's flags.
    pub fn flags(&self) -> Result<[String; 4]> {
        let path = |name| -> Result<String> { Ok(self.file(name).to_str().context("a text")?.to_owned()) };
        Ok([
            "--tls-cert-file".to_owned(),
            path("tls.crt")?,
            "--tls-key-file".to_owned(),
            path("tls.key")?,
        ])
    }
}
