//! TLS with NATS: whom the gateway trusts, and the handshake. No certificate of the gateway's own is shown.

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// TLS with the servers.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// Who vouches for them, as PEM; unless there is one, those that the system trusts.
    authorities: Option<Arc<[u8]>>,
    /// It is spoken from the first byte on, as servers with `handshake_first` want it.
    pub(super) first: bool,
    /// What all connections have in common, sessions to resume among it.
    client: Arc<OnceLock<Arc<ClientConfig>>>,
}

/// Why there is no TLS with a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// There is nobody to trust, or what was given is of no use: give other certificates.
    #[error("{0}; give the certificates (PEM) of those who vouch for NATS with --broker-ca-file")]
    Nobody(String),
    /// The host in the URL is no name that a certificate could have.
    #[error("no certificate can name `{0}`; write the name of the server in --broker tls://…")]
    Host(String),
    /// The handshake failed.
    #[error(
        "TLS with `{host}` failed: {error}; its certificate has to name that host, and one of --broker-ca-file, or without \
         that of those that the system trusts, has to vouch for it"
    )]
    Handshake {
        /// As it is in the URL.
        host: String,
        /// What is wrong.
        error: io::Error,
    },
}

impl Tls {
    /// The same, but only these are trusted.
    pub(super) fn trusting(self, authorities: Arc<[u8]>) -> Self {
        Self {
            authorities: Some(authorities),
            first: self.first,
            client: Arc::default(),
        }
    }

    /// Makes the handshake with a server, `host:port` as it is in the URL. Not cancel-safe: the connection is lost.
    pub(super) async fn connect(
        &self,
        server: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsError> {
        let host = host(server);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Host(host.to_owned()))?;
        let connector = TlsConnector::from(self.client()?);
        let connected = connector.connect(name, stream).await;
        connected.map_err(|error| TlsError::Handshake {
            host: host.to_owned(),
            error,
        })
    }

    fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        if let Some(client) = self.client.get() {
            return Ok(Arc::clone(client));
        }
        let roots = match &self.authorities {
            Some(pem) => given(pem),
            None => system(),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Nobody(error.to_string()))?
            .with_root_certificates(roots?)
            .with_no_client_auth();
        Ok(Arc::clone(self.client.get_or_init(|| Arc::new(config))))
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(server: &str) -> &str {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host)
}

fn given(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TlsError::Nobody(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| TlsError::Nobody(error.to_string()))?;
    }
    Ok(roots)
}

fn system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(": {error}"));
    Err(TlsError::Nobody(format!(
        "the system names no authority to trust{}",
        why.unwrap_or_default()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_a_certificate_has_to_name() {
        for (server, expected) in [
            ("nats.internal:4222", "nats.internal"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:4222", "::1"),
        ] {
            assert_eq!(host(server), expected);
            assert!(ServerName::try_from(expected).is_ok(), "{expected}");
        }
    }

    #[test]
    fn authorities_of_no_use_are_told_what_to_give() {
        let error = Tls::default()
            .trusting(Arc::from(
                &b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"[..],
            ))
            .client()
            .unwrap_err();
        assert!(error.to_string().contains("--broker-ca-file"), "{error}");
    }
}
