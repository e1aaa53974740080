//! Plain HTTP/1.1 requests to a gateway's ports.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::wait::soon;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The body as JSON of a kind.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body).with_context(|| format!("{}: {}", self.status, self.body))
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    method: Method,
    path: &'a str,
    bearer: Option<&'a str>,
    header: Option<(&'static str, &'a str)>,
    body: Option<String>,
}

impl<'a> Ask<'a> {
    /// `GET path`.
    pub const fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            bearer: None,
            header: None,
            body: None,
        }
    }

    /// `method path` with a JSON body.
    pub fn json(method: Method, path: &'a str, body: &impl serde::Serialize) -> Result<Self> {
        Ok(Self {
            method,
            path,
            bearer: None,
            header: None,
            body: Some(serde_json::to_string(body)?),
        })
    }

    /// With a bearer token.
    #[must_use]
    pub const fn bearer(mut self, token: &'a str) -> Self {
        self.bearer = Some(token);
        self
    }

    /// With this header in place of the one that was given before, or of the `Content-Type`.
    #[must_use]
    pub const fn header(mut self, name: &'static str, value: &'a str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// Sends it on a connection of its own.
    pub async fn send(self, to: SocketAddr) -> Result<Answer> {
        let what = format!("{} {} at {to}", self.method, self.path);
        soon(&what, self.exchange(to))
            .await?
            .with_context(|| what.clone())
    }

    async fn exchange(self, to: SocketAddr) -> Result<Answer> {
        let stream = TcpStream::connect(to).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header("host", to.to_string());
        if let Some(token) = self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some((name, value)) = self.header {
            request = request.header(name, value);
        }
        if self.body.is_some() && self.header.is_none_or(|(name, _)| name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        let body = Full::new(Bytes::from(self.body.unwrap_or_default()));
        let (head, body) = sender.send_request(request.body(body)?).await?.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        driver.abort();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }
}
