//! An issuer of tokens: signs them, and serves its key set over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The committed keys of the gateway's own tests.
const JWKS: &str = include_str!("../../gateway/src/auth/testdata/jwks.json");
const RSA: &[u8] = include_bytes!("../../gateway/src/auth/testdata/rsa.der");
const P256: &[u8] = include_bytes!("../../gateway/src/auth/testdata/p256.der");

/// A key of the issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// RS256, named `rsa`.
    Rsa,
    /// ES256, named `P-256`.
    Ecdsa,
}

impl Signer {
    const fn id(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ecdsa => "P-256",
        }
    }

    /// A token with these claims.
    pub fn sign(self, claims: &Value) -> Result<String> {
        let (algorithm, key) = match self {
            Self::Rsa => (Algorithm::RS256, EncodingKey::from_rsa_der(RSA)),
            Self::Ecdsa => (Algorithm::ES256, EncodingKey::from_ec_der(P256)),
        };
        let mut header = Header::new(algorithm);
        header.kid = Some(self.id().to_owned());
        Ok(jsonwebtoken::encode(&header, claims, &key)?)
    }
}

/// Serves a key set. Dropping it ends the server: connections are refused.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    document: Arc<Mutex<String>>,
    served: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Issuer {
    /// An issuer that publishes these keys.
    pub async fn start(keys: &[Signer]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let document = Arc::new(Mutex::new(String::new()));
        let served = Arc::new(AtomicUsize::new(0));
        let (serving, counted) = (Arc::clone(&document), Arc::clone(&served));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let document = serving.lock().clone();
                counted.fetch_add(1, Ordering::Relaxed);
                // a client that went away has no use for the answer
                let _ = answer(socket, &document).await;
            }
        });
        let issuer = Self {
            address,
            document,
            served,
            task,
        };
        issuer.publish(keys)?;
        Ok(issuer)
    }

    /// Publishes these keys, and no others.
    pub fn publish(&self, keys: &[Signer]) -> Result<()> {
        let all: Value = serde_json::from_str(JWKS)?;
        let all = all["keys"].as_array().context("a list of keys")?;
        let published = |key: &&Value| keys.iter().any(|signer| key["kid"] == signer.id());
        let chosen: Vec<_> = all.iter().filter(published).collect();
        *self.document.lock() = json!({"keys": chosen}).to_string();
        Ok(())
    }

    /// Where the set is.
    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// How often the set was asked for.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut socket: TcpStream, document: &str) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && socket.read_buf(&mut request).await? > 0 {}
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", document.len());
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(document.as_bytes()).await?;
    Ok(())
}
