//! What a URL of Redis says. Pure; no password ever appears in an error.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// How the URL of a single Redis is written.
const STANDALONE: &str = "redis://[user][:password@]host[:port][/database], or rediss://… with TLS";
/// How the URL of a Redis with Sentinels is written.
const SENTINEL: &str = "redis-sentinel://[user:password@]host[:port],host[:port]/master[/database], or rediss-sentinel://… with TLS";
/// How the URL of a Redis Cluster is written.
const CLUSTER: &str =
    "redis-cluster://[user:password@]host[:port],host[:port], or rediss-cluster://… with TLS";
/// The port of a Sentinel unless another is named.
const SENTINEL_PORT: u16 = 26_379;

/// What is wrong with a URL of Redis. The URL itself is not repeated: it may hold a password.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// It does not parse, or is of another scheme; write it in the form that the text shows.
    #[error("the Redis URL is malformed ({problem}); write {form}")]
    Malformed {
        /// What is wrong.
        problem: String,
        /// How it is written.
        form: &'static str,
    },
    /// A host is missing.
    #[error("the Redis URL names no host; write {0}")]
    NoHost(&'static str),
    /// Sentinels watch many masters, and which is meant is not said.
    #[error("the Redis URL names no master that the Sentinels know; write {SENTINEL}")]
    NoMaster,
    /// The part after the host is no database number.
    #[error("`/{0}` in the Redis URL is no database number; write /0 to /15, or leave it out")]
    Database(String),
    /// A Redis Cluster has one database.
    #[error("a Redis Cluster has no database `/{0}`; leave it out")]
    ClusterDatabase(String),
    /// A query or a fragment: nothing of what it asks for would happen.
    #[error("the Redis URL takes no `{0}`; leave it out")]
    Extra(char),
}

impl ConfigError {
    /// How a URL that begins like this one is written.
    pub fn form_of(text: &str) -> &'static str {
        match text.split_once(':') {
            Some(("redis-sentinel" | "rediss-sentinel", _)) => SENTINEL,
            Some(("redis-cluster" | "rediss-cluster", _)) => CLUSTER,
            _ => STANDALONE,
        }
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in super::super) struct Server {
    pub(in super::super) host: String,
    pub(in super::super) port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // an IPv6 address
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What there is of Redis, and how its servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Shape {
    /// One server.
    Standalone(Server),
    /// A master and its replicas: the Sentinels know which it is.
    Sentinel {
        sentinels: Vec<Server>,
        /// What the Sentinels call it.
        master: String,
    },
    /// Many masters, each with a part of the slots; the seeds know all.
    Cluster { seeds: Vec<Server> },
    /// One of these masters.
    Node(Server),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, servers: &[Server]| {
            for (index, server) in servers.iter().enumerate() {
                write!(f, "{}{server}", if index > 0 { "," } else { "" })?;
            }
            Ok(())
        };
        match self {
            Self::Standalone(server) | Self::Node(server) => server.fmt(f),
            Self::Sentinel { sentinels, master } => {
                list(f, sentinels)?;
                write!(f, "/{master}")
            }
            Self::Cluster { seeds } => list(f, seeds),
        }
    }
}

/// User, password, and database are the same for all servers; last, whether TLS is spoken with them.
type Parsed = (Shape, RedisConnectionInfo, bool);

/// Takes a URL apart; user and password may be percent-encoded.
pub(super) fn parse(text: &str) -> Result<Parsed, ConfigError> {
    match text.split_once("://") {
        Some(("redis-sentinel", rest)) => sentinel(rest, false),
        Some(("rediss-sentinel", rest)) => sentinel(rest, true),
        Some(("redis-cluster", rest)) => cluster(rest, false),
        Some(("rediss-cluster", rest)) => cluster(rest, true),
        Some(("rediss", rest)) => standalone(&format!("redis://{rest}"), true),
        _ => standalone(text, false),
    }
}

fn malformed(problem: impl fmt::Display, form: &'static str) -> ConfigError {
    ConfigError::Malformed {
        problem: problem.to_string(),
        form,
    }
}

fn standalone(text: &str, tls: bool) -> Result<Parsed, ConfigError> {
    let (_, info) = connection_info(text, STANDALONE)?;
    let server = server(&info, STANDALONE)?;
    Ok((Shape::Standalone(server), info.redis_settings().clone(), tls))
}

/// One server's URL, and what the client makes of it.
fn connection_info(text: &str, form: &'static str) -> Result<(url::Url, ConnectionInfo), ConfigError> {
    let url = url::Url::parse(text).map_err(|e| malformed(e, form))?;
    if url.scheme() != "redis" {
        return Err(malformed(format_args!("scheme `{}`", url.scheme()), form));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(ConfigError::NoHost(form));
    }
    database(url.path().trim_matches('/'))?;
    if url.query().is_some() {
        return Err(ConfigError::Extra('?'));
    }
    if url.fragment().is_some() {
        return Err(ConfigError::Extra('#'));
    }
    let info = url.clone().into_connection_info();
    Ok((url, info.map_err(|e| malformed(e, form))?))
}

fn server(info: &ConnectionInfo, form: &'static str) -> Result<Server, ConfigError> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => Ok(Server {
            host: host.clone(),
            port: *port,
        }),
        _ => Err(malformed("not a host and a port", form)),
    }
}

fn database(text: &str) -> Result<i64, ConfigError> {
    match text {
        "" => Ok(0),
        number => number
            .parse::<u16>()
            .map(i64::from)
            .map_err(|_| ConfigError::Database(text.to_owned())),
    }
}

fn sentinel(rest: &str, tls: bool) -> Result<Parsed, ConfigError> {
    let (sentinels, access, path) = list(rest, Some(SENTINEL_PORT), SENTINEL)?;
    let (master, number) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(ConfigError::NoMaster);
    }
    // what Sentinel allows in a name
    if !master
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
    {
        return Err(malformed(
            "a master's name has letters, digits, and `.-_`",
            SENTINEL,
        ));
    }
    let access = access.set_db(database(number)?);
    let master = master.to_owned();
    Ok((Shape::Sentinel { sentinels, master }, access, tls))
}

fn cluster(rest: &str, tls: bool) -> Result<Parsed, ConfigError> {
    let (seeds, access, path) = list(rest, None, CLUSTER)?;
    if !path.is_empty() {
        return Err(ConfigError::ClusterDatabase(path.to_owned()));
    }
    Ok((Shape::Cluster { seeds }, access, tls))
}

/// `[user:password@]host,host/path`: the servers, how they are entered, and the path without slashes around it.
fn list<'a>(
    rest: &'a str,
    port: Option<u16>,
    form: &'static str,
) -> Result<(Vec<Server>, RedisConnectionInfo, &'a str), ConfigError> {
    if let Some(extra) = rest.chars().find(|c| matches!(c, '?' | '#')) {
        return Err(ConfigError::Extra(extra));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut access = RedisConnectionInfo::default();
    let mut servers = Vec::new();
    for host in hosts.split(',') {
        if host.is_empty() {
            return Err(ConfigError::NoHost(form));
        }
        let (url, info) = connection_info(&format!("redis://{user}@{host}"), form)?;
        let mut server = server(&info, form)?;
        server.port = url.port().or(port).unwrap_or(server.port);
        servers.push(server);
        access = info.redis_settings().clone();
    }
    Ok((servers, access, path.trim_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(texts: &[(&str, u16)]) -> Vec<Server> {
        let server = |&(host, port): &(&str, u16)| Server {
            host: host.to_owned(),
            port,
        };
        texts.iter().map(server).collect()
    }

    #[test]
    fn the_sentinels_and_the_masters_name_are_understood() {
        let (shape, access, _) =
            parse("redis-sentinel://chat:s%40cret@a:1,[::1]:2,c.internal/my-master.1/3").unwrap();
        let sentinels = servers(&[("a", 1), ("::1", 2), ("c.internal", 26_379)]);
        let master = "my-master.1".to_owned();
        assert_eq!(shape.to_string(), "a:1,[::1]:2,c.internal:26379/my-master.1");
        assert_eq!(shape, Shape::Sentinel { sentinels, master });
        assert_eq!(access.username(), Some("chat"));
        assert_eq!(access.password(), Some("s@cret"));
        assert_eq!(access.db(), 3);
        let (_, access, _) = parse("redis-sentinel://:pass@a/m").unwrap();
        assert_eq!((access.username(), access.password()), (None, Some("pass")));
        assert_eq!(access.db(), 0);
    }

    #[test]
    fn one_letter_more_asks_for_tls() {
        for rest in ["://:x@h:1/2", "-sentinel://:x@h:1,i/m/2", "-cluster://:x@h:1,i"] {
            let (plain, access, tls) = parse(&format!("redis{rest}")).unwrap();
            let (same, with_tls, spoken) = parse(&format!("rediss{rest}")).unwrap();
            assert_eq!((tls, spoken), (false, true), "{rest}");
            assert_eq!(
                (plain, access.password(), access.db()),
                (same, with_tls.password(), with_tls.db())
            );
        }
        for rest in [
            "://:hunter2@h?x",
            "-sentinel://:hunter2@h/m?x",
            "-cluster://:hunter2@h?x",
        ] {
            let error = parse(&format!("rediss{rest}")).unwrap_err().to_string();
            assert!(error.contains("`?`") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_seeds_of_a_cluster_are_understood() {
        let (shape, access, _) = parse("redis-cluster://chat:x@a:7000,b,10.0.0.1:7002/").unwrap();
        let seeds = servers(&[("a", 7000), ("b", 6379), ("10.0.0.1", 7002)]);
        assert_eq!(shape, Shape::Cluster { seeds });
        assert_eq!(access.username(), Some("chat"));
    }

    #[test]
    fn each_malformed_list_is_told_what_to_write_instead_without_its_password() {
        let cases = [
            ("redis-sentinel://", "no host; write redis-sentinel://"),
            ("redis-sentinel://:hunter2@/m", "no host; write redis-sentinel://"),
            (
                "redis-sentinel://:hunter2@a,/m",
                "no host; write redis-sentinel://",
            ),
            ("redis-sentinel://:hunter2@a", "no master"),
            ("redis-sentinel://:hunter2@a:1,b:2/", "no master"),
            (
                "redis-sentinel://:hunter2@a:1x/m",
                "invalid port number); write redis-sentinel://",
            ),
            ("redis-sentinel://:hunter2@a/m%20", "letters, digits"),
            ("redis-sentinel://:hunter2@a/m/x", "`/x`"),
            ("redis-sentinel://:hunter2@a/m/1/2", "`/1/2`"),
            ("redis-sentinel://:hunter2@a/m?x", "`?`"),
            ("redis-sentinel://:hunter2@a,0.0.0.0/m", "wildcard"),
            ("redis-sentinel:a", "write redis://"),
            ("rediss-sentinel://:hunter2@a", "rediss-sentinel://… with TLS"),
            ("rediss-cluster://:hunter2@", "rediss-cluster://… with TLS"),
            ("redis-cluster://", "no host; write redis-cluster://"),
            ("redis-cluster://:hunter2@a,b/1", "no database `/1`"),
            (
                "redis-cluster://:hunter2@a:99999",
                "invalid port number); write redis-cluster://",
            ),
            ("redis-cluster://:hunter2@a#x", "`#`"),
        ];
        for (url, part) in cases {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(part), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{url}: {error}");
        }
    }
}
