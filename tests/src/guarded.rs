//! A gateway that verifies tokens with a secret, and clients with tokens that are signed with it.

use anyhow::Result;
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::client::{Client, Connect, jwt};
use crate::gateway::Gateway;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A gateway with a secret.
#[derive(Debug)]
pub struct Guarded {
    /// It.
    pub gateway: Gateway,
    _secret: NamedTempFile,
}

impl Guarded {
    /// Starts one with more flags, and waits until it is ready.
    pub async fn start(more: &[&str]) -> Result<Self> {
        let secret = NamedTempFile::new()?;
        std::fs::write(secret.path(), SECRET)?;
        let path = secret.path().to_string_lossy().into_owned();
        let gateway = Gateway::start(&[&["--auth", "jwt", "--jwt-secret-file", &path][..], more].concat())?;
        gateway.ready().await?;
        Ok(Self {
            gateway,
            _secret: secret,
        })
    }

    /// A token with these claims.
    pub fn token(claims: &Value) -> Result<String> {
        jwt(SECRET, claims)
    }

    /// Connects with these claims, and awaits the `welcome`.
    pub async fn client(&self, claims: &Value) -> Result<Client> {
        connected(&self.gateway, &Self::token(claims)?).await
    }
}

/// Connects with a token, and awaits the `welcome`.
pub async fn connected(gateway: &Gateway, token: &str) -> Result<Client> {
    let mut client = Connect::to(gateway.ports.clients).token(token).open().await?;
    client.expect("welcome").await?;
    Ok(client)
}
