//! The files, their renewal, and TLS without sockets: any cut, either version, any damage.

use std::io::{Read, Write};
use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::ring;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::engine::{Engine, RECORD};
use super::test_support::{Pair, pair, pem, write};
use super::*;

#[test]
fn files_that_cannot_be_served_with_say_what_to_give() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (pair("one"), pair("other"));
    let refused = |cert: &str, key: &str| {
        let files = write(
            folder.path(),
            &Pair {
                cert: cert.to_owned(),
                key: key.to_owned(),
                ..one.clone()
            },
        );
        files.check().unwrap_err().to_string()
    };
    let table = [
        (
            refused("", &one.key),
            "tls-cert-file",
            "holds no certificate; give a PEM file",
        ),
        (
            refused(&one.key, &one.key),
            "tls-cert-file",
            "holds no certificate",
        ),
        (
            refused(&pem("CERTIFICATE", b"x"), &one.key),
            "tls-cert-file",
            "is no X.509 certificate",
        ),
        (
            refused("-----BEGIN CERTIFICATE-----\n", &one.key),
            "tls-cert-file",
            "give a PEM file",
        ),
        (
            refused(&one.cert, ""),
            "tls-key-file",
            "holds no private key; give a PEM file",
        ),
        (
            refused(&one.cert, &other.key),
            "tls-key-file",
            "tls.crt; give the two that were issued together",
        ),
        (
            refused(&one.cert, &pem("PRIVATE KEY", b"x")),
            "tls-key-file",
            "give an RSA, ECDSA",
        ),
    ];
    for (message, flag, words) in table {
        assert!(
            message.starts_with(&format!("--{flag}: /")) && message.contains(words),
            "{message}"
        );
        assert!(
            !message.contains(one.key.lines().nth(1).unwrap()),
            "never the content"
        );
    }
    let files = write(folder.path(), &one);
    assert_eq!(files.check(), Ok(()));
    std::fs::remove_file(&files.key).unwrap();
    let message = files.check().unwrap_err().to_string();
    assert!(
        message.starts_with("--tls-key-file: /") && message.contains("No such file"),
        "{message}"
    );
}

#[test]
fn a_change_is_taken_when_seen_twice_and_a_wrong_one_counts_once_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &pair("one"));
    let tls = Tls::start(files.clone()).unwrap();
    let metric = |name: &str| {
        let all = tls.collectors();
        let families = all.iter().flat_map(|collector| collector.collect());
        let family = families.into_iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    };
    let first = tls.config();
    tls.look(files.read());
    tls.look(files.read());
    assert!(Arc::ptr_eq(&first, &tls.config()), "nothing has changed");

    write(folder.path(), &pair("two"));
    tls.look(files.read());
    assert!(Arc::ptr_eq(&first, &tls.config()), "it may be half written");
    tls.look(files.read());
    let second = tls.config();
    assert!(!Arc::ptr_eq(&first, &second));

    std::fs::write(&files.cert, "broken").unwrap();
    for _ in 0..5 {
        tls.look(files.read());
    }
    std::fs::remove_file(&files.cert).unwrap();
    for _ in 0..5 {
        tls.look(files.read());
    }
    assert!(Arc::ptr_eq(&second, &tls.config()));
    assert_eq!(metric("ws_tls_reload_failures_total").to_string(), "2");
    // 2099-01-01T00:00:00Z
    assert_eq!(
        metric("ws_tls_certificate_expiry_seconds").to_string(),
        "4070908800"
    );

    write(folder.path(), &pair("three"));
    tls.look(files.read());
    tls.look(files.read());
    assert!(!Arc::ptr_eq(&second, &tls.config()), "it recovers by itself");
}

/// A client and a gateway's end, with what is on its way between them.
struct Link {
    client: ClientConnection,
    engine: Engine,
    received: Vec<u8>,
}

impl Link {
    fn new(version: &'static SupportedProtocolVersion, fragment: Option<usize>) -> Self {
        let (folder, pair) = (tempfile::tempdir().unwrap(), pair("one"));
        let tls = Tls::start(write(folder.path(), &pair)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pair.der).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.max_fragment_size = fragment;
        Self {
            client: ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap(),
            engine: Engine::new(tls.config()).unwrap(),
            received: Vec::new(),
        }
    }

    /// What the client has to send.
    fn client_sends(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// As the stream does it: what is not complete comes before what is new.
    fn feed_engine(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        let mut records = std::mem::take(&mut self.engine.partial);
        records.extend_from_slice(bytes);
        let received = &mut self.received;
        self.engine
            .receive(&mut records, &mut |bytes| received.extend_from_slice(bytes))
    }

    /// What waits at the engine goes to the client; gives its plaintext.
    fn feed_client(&mut self) -> Vec<u8> {
        let waiting = self.engine.waiting.clone();
        self.engine.written(waiting.len());
        let (mut rest, mut plain) = (&waiting[..], Vec::new());
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            self.client.process_new_packets().unwrap();
            let _ = self.client.reader().read_to_end(&mut plain);
        }
        plain
    }

    fn shake_hands(&mut self, piece: usize) {
        while self.client.is_handshaking() || self.engine.is_handshaking() {
            for piece in self.client_sends().chunks(piece) {
                self.feed_engine(piece).unwrap();
            }
            self.feed_client();
        }
    }
}

fn versions() -> [&'static SupportedProtocolVersion; 2] {
    [&TLS12, &TLS13]
}

#[test]
fn whatever_the_pieces_are_both_sides_read_what_the_other_has_written() {
    let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for version in versions() {
        for (piece, fragment) in [(1, None), (7, Some(64)), (1_000, Some(300)), (usize::MAX, None)] {
            let mut link = Link::new(version, fragment);
            link.shake_hands(piece);
            for part in text.chunks(50_000) {
                link.client.writer().write_all(part).unwrap();
                for piece in link.client_sends().chunks(piece.max(1_000)) {
                    link.feed_engine(piece).unwrap();
                }
            }
            assert_eq!(link.received, text);
            let mut heard = Vec::new();
            for part in text.chunks(RECORD) {
                link.engine.encrypt(part).unwrap();
                assert!(link.engine.waiting.len() <= RECORD + 64);
                heard.extend(link.feed_client());
            }
            assert!(heard == text);
            assert!(
                link.engine.partial.capacity() + link.engine.waiting.capacity() == 0,
                "an idle one has no buffer"
            );
        }
    }
}

#[test]
fn keys_are_renewed_when_the_client_asks_in_the_middle_of_everything() {
    let mut link = Link::new(&TLS13, None);
    link.shake_hands(usize::MAX);
    for round in 0..20_u8 {
        link.client.refresh_traffic_keys().unwrap();
        link.client.writer().write_all(&[round; 100]).unwrap();
        for piece in link.client_sends().chunks(11) {
            link.feed_engine(piece).unwrap();
            link.engine.encrypt(&[round]).unwrap();
        }
        assert!(link.feed_client().iter().all(|byte| *byte == round));
    }
    assert_eq!(link.received.len(), 2_000);
}

#[test]
fn the_end_is_told_once_and_nothing_follows_it() {
    for version in versions() {
        let mut link = Link::new(version, None);
        link.shake_hands(usize::MAX);
        link.engine.encrypt(b"last words").unwrap();
        link.engine.close();
        link.engine.close();
        assert!(link.engine.encrypt(b"more").is_err());
        let mut waiting = &link.engine.waiting[..];
        link.client.read_tls(&mut waiting).unwrap();
        assert!(link.client.process_new_packets().unwrap().peer_has_closed());

        let mut link = Link::new(version, None);
        link.shake_hands(usize::MAX);
        link.client.send_close_notify();
        let bytes = link.client_sends();
        link.feed_engine(&bytes).unwrap();
        assert!(
            link.engine.has_ended() && !link.engine.waiting.is_empty(),
            "it is answered"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Damage ends the connection at worst, whatever is done with it then.
    #[test]
    fn damaged_records_never_panic(
        at in 0..2_000_usize, flip in 1..=255_u8, piece in 1..400_usize, tls12: bool, fragment in proptest::option::of(32..200_usize),
    ) {
        let mut link = Link::new(if tls12 { &TLS12 } else { &TLS13 }, fragment);
        let mut sent = 0;
        for _ in 0..4 {
            link.client.writer().write_all(b"hello").unwrap();
            let mut bytes = link.client_sends();
            if (sent..sent + bytes.len()).contains(&at) {
                bytes[at - sent] ^= flip;
            }
            sent += bytes.len();
            for piece in bytes.chunks(piece) {
                if !link.engine.has_ended() {
                    let _ = link.feed_engine(piece);
                }
                let _ = link.engine.encrypt(b"hello");
            }
            let waiting = link.engine.waiting.clone();
            link.engine.written(waiting.len());
            let mut rest = &waiting[..];
            while !rest.is_empty() && link.client.read_tls(&mut rest).is_ok() {
                if link.client.process_new_packets().is_err() {
                    return Ok(());
                }
            }
        }
        link.engine.close();
    }

    #[test]
    fn nonsense_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), piece in 1..100_usize) {
        let mut link = Link::new(&TLS13, None);
        // the beginning of a record of the handshake, so that the rest is looked at
        let mut records = vec![22, 3, 1];
        records.extend(bytes);
        for piece in records.chunks(piece) {
            if !link.engine.has_ended() {
                let _ = link.feed_engine(piece);
            }
        }
        link.engine.close();
    }
}
