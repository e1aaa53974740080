//! Clients that break RFC 6455 or RFC 7692, on real sockets against the real program: each is closed with the code that
//! says why, and takes no memory.

use anyhow::{Result, ensure};
use wsfleet_tests::gateway::{OPEN, UNLIMITED};
use wsfleet_tests::process::Process;
use wsfleet_tests::raw::{Raw, deflated, frame};

/// Connections that attack at the same time.
const ATTACKERS: usize = 64;
/// What the program may grow by under all of them. What each of them tries to make it keep is far more.
const GROWTH: u64 = 16 << 20;

const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// Sends `bytes` on many connections at once; each must be closed with `code`, and the program must not have grown.
async fn attack(bytes: &[u8], code: u16) -> Result<()> {
    let gateway = Process::start(&[OPEN, UNLIMITED].concat()).await?;
    let to = gateway.ports.clients;
    let mut attackers = Vec::new();
    for number in 0..ATTACKERS {
        let mut client = Raw::open(to, &format!("attacker{number}"), Some(OFFER)).await?;
        client.expect("welcome").await?;
        // all buffers that a served message needs are there before it is counted
        client.send_deflated(r#"{"type":"ping"}"#).await?;
        client.expect("pong").await?;
        attackers.push(client);
    }
    let before = gateway.peak_memory()?;
    let attacks = attackers.iter_mut().map(|client| async {
        client.write(bytes).await?;
        client.closed().await
    });
    for closed in futures::future::join_all(attacks).await {
        assert_eq!(closed?, code);
    }
    let grown = gateway.peak_memory()? - before;
    ensure!(grown <= GROWTH, "{grown} bytes more than before");
    let mut other = Raw::open(to, "other", Some(OFFER)).await?;
    other.expect("welcome").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deflate_bomb_is_closed_with_1009_and_never_inflated() -> Result<()> {
    // 32 MiB in one frame that is smaller than the largest message: 2 GiB for all of them
    let bomb = deflated(&vec![b' '; 32 << 20])?;
    ensure!(bomb.len() < 65_536, "{} bytes", bomb.len());
    attack(&frame(0xC1, &bomb), 1009).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deflate_bomb_in_fragments_is_closed_with_1009_and_never_inflated() -> Result<()> {
    let bomb = deflated(&vec![b' '; 32 << 20])?;
    let (first, rest) = bomb.split_at(bomb.len() / 3);
    attack(&[frame(0x42, first), frame(0x80, rest)].concat(), 1009).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_empty_fragments_are_closed_with_1008() -> Result<()> {
    let mut bytes = frame(0x01, b"");
    bytes.extend(frame(0x00, b"").repeat(100_000));
    attack(&bytes, 1008).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_an_end_are_closed_with_1009_at_the_largest_message() -> Result<()> {
    let fragment = [frame(0x02, &[7; 1_000]), frame(0x00, &[7; 1_000]).repeat(2_000)].concat();
    attack(&fragment, 1009).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_of_two_to_the_63_is_closed_with_1002_before_anything_is_kept() -> Result<()> {
    attack(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], 1002).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_length_that_rfc_6455_allows_is_closed_with_1009_before_anything_is_kept() -> Result<()> {
    attack(&[0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255], 1009).await
}

/// One client that sends `frames` and is closed with `code`, by a gateway that goes on serving.
async fn refused(frames: &[Vec<u8>], code: u16) -> Result<()> {
    let gateway = Process::start(&[OPEN, UNLIMITED].concat()).await?;
    let mut client = Raw::open(gateway.ports.clients, "odd", Some(OFFER)).await?;
    client.expect("welcome").await?;
    for frame in frames {
        client.write(frame).await?;
    }
    assert_eq!(client.closed().await?, code);
    let mut other = Raw::open(gateway.ports.clients, "other", None).await?;
    other.expect("welcome").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_not_masked_is_closed_with_1002() -> Result<()> {
    refused(&[b"\x81\x0f{\"type\":\"ping\"}".to_vec()], 1002).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_masked_with_another_key_than_it_names_is_read_as_what_it_says_and_refused() -> Result<()> {
    // every byte is flipped: a mask cannot be told from a wrong one, but what comes of it is no text
    let mut wrong = frame(0x81, br#"{"type":"ping"}"#);
    for byte in &mut wrong[6..] {
        *byte ^= 0xFF;
    }
    refused(&[wrong], 1007).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fragmented_control_frame_is_closed_with_1002() -> Result<()> {
    refused(&[frame(0x09, b"pi"), frame(0x80, b"ng")], 1002).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_can_never_be_utf8_is_closed_with_1007_before_its_message_ends() -> Result<()> {
    // the first bytes of a character in one frame, no continuation of it in the next: no third frame is waited for
    refused(&[frame(0x01, b"\xE2\x82"), frame(0x00, b"\x28")], 1007).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_character_that_the_last_frame_leaves_open_is_closed_with_1007() -> Result<()> {
    refused(&[frame(0x01, b"caf\xC3"), frame(0x80, b"")], 1007).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_text_that_is_not_utf8_is_closed_with_1007() -> Result<()> {
    refused(&[frame(0xC1, &deflated(b"\xC3\x28")?)], 1007).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_marked_as_compressed_but_is_no_deflate_stream_is_closed_with_1007() -> Result<()> {
    refused(&[frame(0xC1, &[0x07, 0xFF, 0xFF])], 1007).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_control_frame_is_closed_with_1002() -> Result<()> {
    refused(&[frame(0xC9, b"")], 1002).await
}
