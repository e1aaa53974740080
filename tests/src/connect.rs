//! How a client connects, and what comes of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::either::Either;

use wsfleet_gateway::protocol::Codec;

use crate::client::Client;
use crate::http::Answer;
use crate::wait::soon;

/// What came of an upgrade.
#[derive(Debug)]
pub enum Upgrade {
    /// 101.
    Open(Box<Client>),
    /// Any other status.
    Refused(Answer),
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct Connect {
    to: SocketAddr,
    path: String,
    headers: Vec<(&'static str, String)>,
    receive_buffer: Option<u32>,
    from: Option<IpAddr>,
    codec: Codec,
    tls: Option<Arc<ClientConfig>>,
}

impl Connect {
    /// To a gateway's client port, without a token.
    pub fn to(to: SocketAddr) -> Self {
        Self {
            to,
            path: "/ws".to_owned(),
            headers: Vec::new(),
            receive_buffer: None,
            from: None,
            codec: Codec::Json,
            tls: None,
        }
    }

    /// By TLS, to `localhost`.
    #[must_use]
    pub fn tls(mut self, config: &Arc<ClientConfig>) -> Self {
        self.tls = Some(Arc::clone(config));
        self
    }

    /// With `?token=`.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.path = format!("/ws?token={token}");
        self
    }

    /// With `&routing=`, behind [`Connect::token`].
    #[must_use]
    pub fn routing(mut self, token: &str) -> Self {
        self.path = format!("{}&routing={token}", self.path);
        self
    }

    /// From this address of this machine.
    #[must_use]
    pub const fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address);
        self
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With the subprotocol of this codec.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self.header("sec-websocket-protocol", codec.subprotocol())
    }

    /// With a small receive buffer, so that not reading is felt soon.
    #[must_use]
    pub const fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Connects; a refusal is an outcome, not an error.
    pub async fn upgrade(self) -> Result<Upgrade> {
        soon("an upgrade", Box::pin(self.exchange())).await?
    }

    /// Connects; a refusal is an error.
    pub async fn open(self) -> Result<Client> {
        match self.upgrade().await? {
            Upgrade::Open(client) => Ok(*client),
            Upgrade::Refused(answer) => bail!("refused: {answer:?}"),
        }
    }

    async fn exchange(self) -> Result<Upgrade> {
        let socket = if self.to.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(address) = self.from {
            socket.bind((address, 0).into())?;
        }
        let stream = socket.connect(self.to).await?;
        stream.set_nodelay(true)?;
        let stream = match self.tls {
            None => Either::Left(stream),
            Some(config) => {
                let tls = TlsConnector::from(config).connect("localhost".try_into()?, stream);
                Either::Right(Box::new(Box::pin(tls).await.context("TLS")?))
            }
        };
        let mut request = format!("ws://{}{}", self.to, self.path).into_client_request()?;
        for (name, value) in self.headers {
            request.headers_mut().insert(name, value.parse()?);
        }
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, response)) => Ok(Upgrade::Open(Box::new(Client::new(
                socket,
                response.headers().clone(),
                self.codec,
            )))),
            Err(Error::Http(response)) => {
                let (head, body) = response.into_parts();
                let body = String::from_utf8(body.unwrap_or_default())?;
                Ok(Upgrade::Refused(Answer {
                    status: head.status,
                    headers: head.headers,
                    body,
                }))
            }
            Err(error) => Err(error.into()),
        }
    }
}
