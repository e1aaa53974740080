//! Where to connect to: a `ws://` address, and the socket addresses behind its name.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng as _;
use url::{Host, Url};

/// How long a resolved name is used: long enough not to ask for every socket, short enough to follow a Service.
const NAME_AGE: Duration = Duration::from_secs(5);

/// One `ws://` address. Cheap to clone; clones share what its name resolved to.
#[derive(Clone, Debug)]
pub struct Target(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    host: Host<String>,
    port: u16,
    /// Path and query as they go into the request line.
    path: String,
    resolved: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let url = Url::parse(text).map_err(|error| TargetError::NotAUrl(text.into(), error))?;
        if url.scheme() != "ws" {
            return Err(TargetError::Scheme(url.scheme().into()));
        }
        let host = url.host().ok_or(TargetError::NoHost)?.to_owned();
        let path = url.query().map_or_else(
            || url.path().to_owned(),
            |query| format!("{}?{query}", url.path()),
        );
        let port = url.port().unwrap_or(80);
        Ok(Self(Arc::new(Inner {
            host,
            port,
            path,
            resolved: Mutex::new(None),
        })))
    }
}

impl Target {
    /// The `Host` header (RFC 9110 §7.2).
    pub(crate) fn host(&self) -> String {
        format!("{}:{}", self.0.host, self.0.port)
    }

    /// The request target, with `token` added to the query.
    pub(crate) fn path_with(&self, token: Option<&str>) -> String {
        let path = &self.0.path;
        match token {
            None => path.clone(),
            Some(token) => format!(
                "{path}{}token={token}",
                if path.contains('?') { '&' } else { '?' }
            ),
        }
    }

    /// Whether this is a clone of the other.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// One of the addresses behind the name, at random. Cancel-safe.
    pub(crate) async fn resolve(&self) -> std::io::Result<SocketAddr> {
        match &self.0.host {
            Host::Ipv4(ip) => return Ok((*ip, self.0.port).into()),
            Host::Ipv6(ip) => return Ok((*ip, self.0.port).into()),
            Host::Domain(_) => {}
        }
        if let Some((at, addresses)) = &*self.0.resolved.lock()
            && at.elapsed() < NAME_AGE
        {
            return Ok(pick(addresses));
        }
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(self.host()).await?.collect();
        if addresses.is_empty() {
            return Err(std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "the name has no address",
            ));
        }
        let one = pick(&addresses);
        *self.0.resolved.lock() = Some((Instant::now(), addresses));
        Ok(one)
    }
}

/// `addresses` is never empty here.
fn pick(addresses: &[SocketAddr]) -> SocketAddr {
    addresses[rand::rng().random_range(0..addresses.len())]
}

/// Not an address this tool can connect to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a URL at all.
    #[error("'{0}' is not a URL ({1}); give one such as ws://127.0.0.1:8080/ws")]
    NotAUrl(String, url::ParseError),
    /// Only plain WebSockets are spoken.
    #[error("scheme '{0}' is not supported; only ws:// is")]
    Scheme(String),
    /// No host in it.
    #[error("the URL has no host; give one such as ws://127.0.0.1:8080/ws")]
    NoHost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_added_to_the_query_that_is_there() {
        let plain: Target = "ws://127.0.0.1:8080/ws".parse().unwrap();
        assert_eq!(plain.path_with(Some("abc")), "/ws?token=abc");
        assert_eq!(plain.path_with(None), "/ws");
        let query: Target = "ws://gateway/ws?routing=r1".parse().unwrap();
        assert_eq!(query.path_with(Some("abc")), "/ws?routing=r1&token=abc");
        assert_eq!(query.host(), "gateway:80");
        assert_eq!("ws://[::1]:99/ws".parse::<Target>().unwrap().host(), "[::1]:99");
    }

    #[test]
    fn other_schemes_and_texts_are_refused_with_an_example() {
        assert!(
            "wss://host/ws"
                .parse::<Target>()
                .unwrap_err()
                .to_string()
                .contains("only ws://")
        );
        assert!(
            "127.0.0.1"
                .parse::<Target>()
                .unwrap_err()
                .to_string()
                .contains("ws://127.0.0.1:8080/ws")
        );
    }

    #[tokio::test]
    async fn an_address_resolves_to_itself_and_a_name_to_one_of_its_addresses() {
        let target: Target = "ws://127.0.0.1:8080/ws".parse().unwrap();
        assert_eq!(
            target.resolve().await.unwrap(),
            SocketAddr::from(([127, 0, 0, 1], 8080))
        );
        let name: Target = "ws://localhost:8080/ws".parse().unwrap();
        assert_eq!(name.resolve().await.unwrap().port(), 8080);
        assert_eq!(name.resolve().await.unwrap().port(), 8080);
    }
}
