//! Settings: what is accepted, from where, and what a wrong one is told.

use std::path::PathBuf;

use super::*;
use crate::tls::test_support as tls;

/// Loads from these words, this environment, this file.
fn load(words: &[&str], environment: &[(&str, &str)], file: Option<&str>) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.yaml");
    let mut line = vec!["wsfleet-gateway".to_owned()];
    line.extend(words.iter().map(|word| (*word).to_owned()));
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
        line.push(format!("--config={}", path.display()));
    }
    let lookup = |name: &str| {
        environment
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| (*value).to_owned())
    };
    Settings::load_with(Args::from_command_line(line)?, lookup)
}

fn message(words: &[&str]) -> String {
    load(words, &[], None).map_or_else(|error| error.to_string(), |_| String::new())
}

fn secret_file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

const DEV: &str = "--auth=insecure-token";

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let settings = load(&[DEV], &[], None).unwrap();
    assert_eq!(settings.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.api_listen.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.broker, BrokerChoice::Memory);
    assert_eq!(settings.max_connections.get(), 20_000);
    assert_eq!(settings.drain_window.duration().as_secs(), 60);
    assert_eq!(settings.trusted_hops.get(), 0);
    assert!(!settings.server_id.as_str().is_empty(), "the host name");
    assert_eq!(settings.histories, Histories::default());
    assert!(settings.compression.is_on());
    assert!(settings.api_key.is_none() && settings.admin_token.is_none() && settings.tls.is_none());
    let limits: Vec<_> = settings
        .limits
        .iter()
        .map(|(key, limit)| (key, limit.as_setting()))
        .collect();
    let expected = [
        ("messageBytes", 65_536),
        ("roomNameBytes", 255),
        ("roomsPerConnection", 128),
        ("messagesPerSecond", 50),
        ("bytesPerSecond", 1_048_576),
        ("handshakesPerSecond", 0),
        ("handshakeConcurrency", 1_000),
        ("connectionsPerIp", 100),
        ("handshakesPerSecondPerIp", 20),
        ("connectionsPerUser", 16),
        ("queueBytes", 262_144),
        ("queueMessages", 1_000),
        ("announceMembers", 256),
        ("connectionAgeSeconds", 0),
    ];
    assert_eq!(limits, expected);
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let file = "serverId: file\nrevision: file\nmaxConnections: 7\nlimits: {queueMessages: 1, roomsPerConnection: 1, connectionsPerUser: 1}\n";
    let environment = [
        ("WSFLEET_SERVER_ID", "environment"),
        ("WSFLEET_REVISION", "environment"),
        ("WSFLEET_LIMIT", "queueMessages=2, roomsPerConnection=2"),
        ("WSFLEET_MAX_CONNECTIONS", ""),
        ("WSFLEET_PORT", "tcp://10.0.0.1:80"),
    ];
    let words = [DEV, "--server-id=flag", "--limit=queueMessages=3"];
    let settings = load(&words, &environment, Some(file)).unwrap();
    assert_eq!(settings.server_id.as_str(), "flag");
    assert_eq!(settings.revision.as_str(), "environment");
    assert_eq!(settings.max_connections.get(), 7, "an empty variable is none");
    let limits = settings.limits;
    assert_eq!(limits.queue_messages, Limit::new(3));
    assert_eq!(limits.rooms_per_connection, Limit::new(2));
    assert_eq!(
        limits.connections_per_user,
        Limit::new(1),
        "limits are merged key by key"
    );
}

#[test]
fn a_file_may_hold_every_setting() {
    let (_folder, secret) = secret_file("0123456789abcdef0123456789abcdef\n");
    let secret = secret.display();
    let folder = tempfile::tempdir().unwrap();
    let tls = tls::write(folder.path(), &tls::pair("a"));
    let (cert, key) = (tls.cert.display(), tls.key.display());
    let file = format!(
        "listen: 127.0.0.1:1\napiListen: 127.0.0.1:2\nadminListen: 127.0.0.1:3\nbroker: redis://h:1/2\ndurability: replicated\nauth: jwt\n\
         jwtSecretFile: {secret}\njwtAudience: a\njwtIssuer: i\njwksUrl: https://login.example/keys\njwtLeeway: 0\n\
         roomsClaim: required\ntokenGrace: 3\nhandshakeTimeout: 2\napiKeyFile: {secret}\nadminTokenFile: {secret}\n\
         maxConnections: 9\ndrainWindow: 0\nserverId: 17\nrevision: abc\nlimits:\n  messageBytes: 1024\n\
         allowedOrigins: [https://a.example]\ntrustedHops: 2\ncompression: off\nlogFormat: json\nlogFilter: warn\n\
         tlsCertFile: {cert}\ntlsKeyFile: {key}\n"
    );
    let settings = load(&[], &[], Some(&file)).unwrap();
    assert_eq!(settings.server_id.as_str(), "17");
    assert_eq!(settings.drain_window.get(), 0);
    assert_eq!(settings.tls, Some(tls));
    assert!(!settings.compression.is_on());
    assert_eq!(
        (settings.token_grace.get(), settings.handshake_timeout.get()),
        (3, 2)
    );
    assert!(matches!(&settings.auth, AuthSettings::Jwt(jwt)
        if jwt.secret.as_ref().is_some_and(|secret| secret.matches(b"0123456789abcdef0123456789abcdef"))
        && jwt.jwks_url.as_ref().is_some_and(|url| url.url().as_str() == "https://login.example/keys")
        && jwt.leeway.get() == 0 && jwt.rooms_claim == RoomsClaim::Required
        && jwt.audience.as_deref() == Some("a") && jwt.issuer.as_deref() == Some("i")));
    assert!(matches!(&settings.broker, BrokerChoice::Redis(url) if url.expose() == "redis://h:1/2"));
    assert_eq!(settings.durability, Durability::Replicated);
    assert!(settings.allowed_origins.allow(Some("https://a.example")));
    assert!(!settings.allowed_origins.allow(Some("https://b.example")));
}

#[test]
#[rustfmt::skip]
fn a_wrong_value_names_its_flag_and_says_what_is_allowed() {
    let long = "x".repeat(254);
    let long_id = format!("--server-id={long}");
    let table: &[(&[&str], &[&str])] = &[
        (&["--listen=8080"], &["--listen", "\"8080\"", "0.0.0.0:8080"]),
        (&["--api-listen=localhost:1"], &["--api-listen", "an IP address and a port"]),
        (&["--admin-listen=1.2.3.4:99999"], &["--admin-listen", "an IP address and a port"]),
        (&["--broker=kafka://x"], &["--broker", "memory, redis://", "redis-sentinel://"]),
        (&["--broker=redis://"], &["--broker", "give redis://"]),
        (&["--broker=redis://h?protocol=resp3"], &["--broker", "give redis://"]),
        (&["--broker=redis-sentinel://h"], &["--broker", "give redis-sentinel://", "/master[/database]"]),
        (&["--broker=nats://h?replicas=9"], &["--broker", "give nats://"]),
        (&["--broker=tls://h?handshake_first=1"], &["--broker", "give nats://", "tls://… with TLS"]),
        (&["--broker=nats://h", "--broker-ca-file=Cargo.toml"], &["--broker-ca-file", "holds no certificate"]),
        (&["--broker=tls://h", "--broker-ca-file=/nowhere"], &["--broker-ca-file", "/nowhere", "No such file"]),
        (&["--broker=nats://h", "--durability=replicated"], &["--durability", "?replicas=3"]),
        (&["--broker=nats://h", "--event-stream=e"], &["--event-stream", "<prefix>-events"]),
        (&["--broker=redis://h/zero"], &["--broker", "[/database]"]),
        (&["--durability=disk"], &["--durability", "\"disk\"", "primary or replicated"]),
        (&["--broker=redis://h", "--broker-ca-file=/nowhere"], &["--broker-ca-file", "/nowhere", "No such file"]),
        (&["--durability=replicated"], &["--durability", "memory has no replica", "--broker"]),
        (&["--auth=none"], &["--auth", "\"none\"", "jwt, insecure-token or anonymous"]),
        (&["--max-connections=0"], &["--max-connections", "from 1 to 10000000"]),
        (&["--max-connections=many"], &["--max-connections", "\"many\""]),
        (&["--drain-window=60s"], &["--drain-window", "seconds, a number from 0 to 86400"]),
        (&["--server-id=a b"], &["--server-id", "1 to 253 bytes without white space"]),
        (&[&long_id], &["--server-id", "1 to 253 bytes"]),
        (&["--revision=ä"], &["--revision", "at most 63 letters"]),
        (&["--trusted-hops=-1"], &["--trusted-hops", "from 0 to 16"]),
        (&["--compression=gzip"], &["--compression", "\"gzip\"", "on or off"]),
        (&["--log-format=xml"], &["--log-format", "text or json"]),
        (&["--log-filter=a=b=c"], &["--log-filter", "off, error, warn, info"]),
        (&["--allowed-origin=chat.example.com"], &["--allowed-origin", "such as https://chat.example.com"]),
        (&["--allowed-origin=https://a.example/path"], &["--allowed-origin", "scheme, host and port"]),
        (&["--allowed-origin=*"], &["--allowed-origin", "scheme, host and port"]),
        (&["--limit=rooms=3"], &["--limit", "\"rooms=3\"", "messageBytes, roomNameBytes", "announceMembers"]),
        (&["--limit=messageBytes"], &["--limit", "messageBytes=NUMBER from 128 to 16777216, or 0 to switch it off"]),
        (&["--limit=messageBytes=64k"], &["--limit", "messageBytes=NUMBER from 128"]),
        (&["--limit=messagesPerSecond=-5"], &["--limit", "messagesPerSecond=NUMBER from 1 to 1000000"]),
        (&["--limit=queueBytes=2048"], &["--limit", "queueBytes must not be less than messageBytes"]),
        (&["--limit=bytesPerSecond=1000"], &["--limit", "twice bytesPerSecond"]),
        (&["--jwt-issuer=me"], &["--jwt-issuer", "--auth jwt only"]),
        (&["--jwks-url=https://h/k"], &["--jwks-url", "--auth jwt only"]),
        (&["--auth=jwt", "--jwks-url=h/k"], &["--jwks-url", "such as https://login.example.com/"]),
        (&["--auth=jwt", "--jwks-url=file:///k"], &["--jwks-url", "such as https://"]),
        (&["--auth=jwt", "--jwks-url=https://a:b@h/k"], &["--jwks-url", "without user and password"]),
        (&["--auth=jwt", "--jwks-url=https://h/k", "--jwt-leeway=1m"], &["--jwt-leeway", "from 0 to 600"]),
        (&["--auth=jwt", "--jwks-url=https://h/k", "--rooms-claim=yes"], &["--rooms-claim", "optional or required"]),
        (&["--token-grace=-1"], &["--token-grace", "from 0 to 86400"]),
        (&["--handshake-timeout=0"], &["--handshake-timeout", "from 1 to 600"]),
        (&["--jwt-secret-file=/x"], &["--jwt-secret-file", "--auth jwt only"]),
        (&["--auth=jwt", "--jwks-url=https://h/k", "--jwt-audience="], &["--jwt-audience", "not empty"]),
        (&["--api-key-file=/does/not/exist"], &["--api-key-file", "/does/not/exist", "No such file"]),
        (&["--tls-cert-file=/x"], &["--tls-key-file is missing", "give both, or neither"]),
        (&["--tls-key-file=/x"], &["--tls-cert-file is missing", "give both, or neither"]),
        (&["--tls-cert-file=/x", "--tls-key-file=/x"], &["--tls-cert-file: /x", "give a PEM file that this process may read"]),
        (&["--listen=0.0.0.0:9090"], &["--admin-listen", "ports of their own"]),
        (&["--api-listen=127.0.0.1:8080"], &["--api-listen", "ports of their own"]),
        (&["--config=/does/not/exist"], &["--config", "/does/not/exist", "No such file"]),
        (&["--nonsense"], &["--nonsense", "allowed flags: --listen, --api-listen", "--log-filter", "--config"]),
        (&["--listen"], &["--listen", "ADDRESS:PORT"]),
        (&["surplus"], &["surplus"]),
    ];
    for (words, expected) in table {
        let mut line = vec![DEV];
        if words[0].starts_with("--auth=") {
            line.clear();
        }
        line.extend_from_slice(words);
        let message = message(&line);
        for part in *expected {
            assert!(message.contains(part), "{words:?}: no {part:?} in {message:?}");
        }
    }
}

#[test]
fn a_message_says_whether_the_environment_or_the_file_is_wrong() {
    let error = load(&[DEV], &[("WSFLEET_LISTEN", "x")], None)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("--listen (from the environment): \"x\""),
        "{error}"
    );
    let error = load(&[DEV], &[], Some("listen: x")).unwrap_err().to_string();
    assert!(
        error.starts_with("--listen (from the configuration file): \"x\""),
        "{error}"
    );
    let error = load(&[DEV], &[], Some("limits: {a: 1}")).unwrap_err().to_string();
    assert!(
        error.starts_with("--limit (from the configuration file): \"a=1\""),
        "{error}"
    );
}

#[test]
fn a_wrong_file_says_what_it_may_hold() {
    for (file, expected) in [
        (
            "listne: x",
            "unknown field `listne`, expected one of `listen`, `apiListen`",
        ),
        ("config: x", "unknown field `config`"),
        ("limits: [1]", "a map of limits"),
        ("listen: [1]", "a text or a number"),
        ("allowedOrigins: https://a.example", "expected a sequence"),
        ("- a", "expected struct"),
        ("listen: \"x", "line"),
    ] {
        let error = load(&[DEV], &[], Some(file)).unwrap_err().to_string();
        assert!(
            error.starts_with("--config: ") && error.contains(expected),
            "{file}: {error}"
        );
    }
    assert!(load(&[DEV], &[], Some("# nothing set\n")).is_ok());
}

#[test]
fn jwt_needs_its_secret_and_the_secret_its_length() {
    assert!(
        message(&[])
            .contains("--jwt-secret-file is missing: --auth jwt, the default, needs it or --jwks-url")
    );
    let (_folder, short) = secret_file("short\n");
    let message = message(&["--jwt-secret-file", &short.display().to_string()]);
    assert!(message.contains("holds 5 bytes; give at least 32"), "{message}");
    assert!(!message.contains("short\n"), "never the content");
}

#[test]
fn passwords_are_not_shown() {
    let message = message(&[DEV, "--broker=redis://user:hunter2@"]);
    assert!(
        message.contains("--broker") && !message.contains("hunter2"),
        "{message}"
    );
    let settings = load(&[DEV, "--broker=redis://user:hunter2@h"], &[], None).unwrap();
    let shown = format!("{settings:?}");
    assert!(
        !shown.contains("hunter2") && shown.contains("redis://h:6379"),
        "{shown}"
    );
    let sentinel = "--broker=redis-sentinel://user:hunter2@a,b:1/m/2";
    let shown = format!("{:?}", load(&[DEV, sentinel], &[], None).unwrap());
    assert!(
        !shown.contains("hunter2") && shown.contains("redis-sentinel://a:26379,b:1/m"),
        "{shown}"
    );
}

#[test]
fn help_is_not_an_error_and_names_every_flag() {
    let error = Args::from_command_line(["wsfleet-gateway", "--help"]).unwrap_err();
    assert!(error.is_help());
    let help = error.to_string();
    for flag in Args::flags() {
        assert!(help.contains(&format!("--{flag}")), "{flag}");
    }
    assert!(help.contains("queueBytes=262144"), "{help}");
    assert!(
        !Args::from_command_line(["wsfleet-gateway", "--nonsense"])
            .unwrap_err()
            .is_help()
    );
}

#[test]
fn a_limit_of_zero_is_off_but_buffers_keep_an_end() {
    let words = [
        DEV,
        "--limit=messageBytes=0",
        "--limit=queueBytes=0",
        "--limit=queueMessages=0",
        "--limit=bytesPerSecond=0",
    ];
    let limits = load(&words, &[], None).unwrap().limits;
    assert!(limits.message_bytes.allows(usize::MAX));
    assert_eq!(limits.max_message_bytes(), 16 << 20);
    assert_eq!(limits.max_queue_bytes(), 64 << 20);
    assert_eq!(limits.max_queue_messages(), 1 << 20);
}

#[test]
fn announcements_stop_beyond_their_limit_and_zero_is_never() {
    let announce = |words: &[&str]| load(words, &[], None).unwrap().limits.announce_members;
    assert!(announce(&[DEV]).allows(256) && !announce(&[DEV]).allows(257));
    assert!(!announce(&[DEV, "--limit=announceMembers=0"]).allows(1));
}

#[test]
fn origins_are_compared_as_browsers_send_them() {
    let origins = AllowedOrigins::new(vec!["https://Chat.example:443".parse().unwrap()]);
    assert!(origins.allow(Some("https://chat.example")));
    assert!(origins.allow(None), "not a browser");
    for other in [
        "http://chat.example",
        "https://chat.example:8443",
        "https://chat.example.evil",
        "null",
        "",
    ] {
        assert!(!origins.allow(Some(other)), "{other}");
    }
    assert!(AllowedOrigins::default().allow(Some("https://anything.example")));
}

#[test]
fn a_secret_matches_itself_only() {
    let secret = Secret::new(b"0123456789abcdef");
    assert!(secret.matches(b"0123456789abcdef"));
    for other in [
        &b""[..],
        b"0123456789abcdeF",
        b"0123456789abcde",
        b"0123456789abcdef0",
    ] {
        assert!(!secret.matches(other));
    }
}
