//! Who gets what of a batch, in which bytes.

use serde_json::value::RawValue;

use super::super::pending::Pending;
use super::*;
use crate::broker::{Delivery, Position};
use crate::protocol::Codec;

/// Even offsets are large enough to be compressed.
fn payload(offset: u64) -> String {
    if offset.is_multiple_of(2) {
        format!("\"{}\"", "round and round ".repeat(100))
    } else {
        "1".to_owned()
    }
}

fn delivery(offset: u64) -> Delivery {
    let position = Position {
        epoch: "e".into(),
        offset,
    };
    let event = match offset {
        0 => Event::UserJoined {
            user_id: "u".into(),
            server_id: "s".into(),
            connection: ConnId(7).text("i"),
        },
        _ => Event::RoomMessage {
            user_id: "u".into(),
            payload: RawValue::from_string(payload(offset)).unwrap(),
            timestamp: offset,
            server_id: "s".into(),
        },
    };
    Delivery {
        stream: StreamKey::Room("r".into()),
        position: (offset > 0).then_some(position),
        event: Arc::new(event),
    }
}

/// The offsets that frames carry, 0 for announcements; and how many of the frames are compressed.
fn read(frames: &[u8], codec: Codec) -> (Vec<u64>, usize) {
    let mut rest = frames;
    let (mut offsets, mut compressed) = (Vec::new(), 0);
    while let [first, short, behind @ ..] = rest {
        let (length, behind) = match (*short, behind) {
            (126, [high, low, behind @ ..]) => (u16::from_be_bytes([*high, *low]), behind),
            (short, behind) => (u16::from(short), behind),
        };
        let (payload, after) = behind.split_at(usize::from(length));
        let mut payload = payload.to_vec();
        if first & 0x40 != 0 {
            compressed += 1;
            payload = inflated(&payload);
        }
        let value: serde_json::Value = match codec {
            Codec::MsgPack => rmp_serde::from_slice(&payload).unwrap(),
            _ => serde_json::from_slice(&payload).unwrap(),
        };
        offsets.push(value["offset"].as_u64().unwrap_or_default());
        rest = after;
    }
    (offsets, compressed)
}

fn offsets(frames: &[u8], codec: Codec) -> Vec<u64> {
    read(frames, codec).0
}

fn inflated(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    let mut out = Vec::with_capacity(1 << 16);
    flate2::Decompress::new(false)
        .decompress_vec(&whole, &mut out, flate2::FlushDecompress::Sync)
        .unwrap();
    out
}

/// Compression with the largest window, and with one of 2^10 bytes.
fn windows() -> [Deflate; 2] {
    let small = Deflate::negotiate(["permessage-deflate; server_max_window_bits=10"]);
    [Deflate::WIDEST, small.unwrap().unwrap().deflate]
}

fn batch(offsets: &[u64], late: ConnId) -> Batch {
    let mut pending = Pending::default();
    for (index, offset) in offsets.iter().enumerate() {
        if index == 2 {
            pending.joins(late);
        }
        pending.push(&delivery(*offset), &Position::none(), "i");
    }
    Batch::new(StreamKey::Room("r".into()), pending.take().unwrap())
}

#[test]
fn a_batch_is_encoded_once_for_each_codec_that_is_asked_for_and_shared() {
    let batch = batch(&[1, 2, 3], ConnId(9));
    let (json, msgpack) = (Format::default(), Format::from(Codec::MsgPack));
    assert!(batch.encoded.lock().is_empty());
    let (first, second) = (batch.of(ConnId(1), json), batch.of(ConnId(2), json));
    assert_eq!((first.1, first.0.as_ptr()), (3, second.0.as_ptr()));
    assert_eq!(batch.encoded.lock().len(), 1, "nobody asked for the other");
    let other = batch.of(ConnId(3), msgpack);
    assert_eq!(offsets(&other.0, Codec::MsgPack), [1, 2, 3]);
    assert_eq!(batch.sizes().len(), 6);
    assert_eq!(batch.sizes().iter().sum::<usize>(), first.0.len() + other.0.len());
}

#[test]
fn whoever_joined_late_and_whoever_is_announced_miss_the_same_in_every_format() {
    // the third is the announcement of connection 7, and connection 9 came before it
    let batch = batch(&[1, 2, 0, 3], ConnId(9));
    let [wide, small] = windows().map(Some);
    let forms = [Codec::Json, Codec::MsgPack]
        .map(|codec| [None, wide, small].map(|deflate| Format { codec, deflate }));
    for format in forms.into_iter().flatten() {
        let codec = format.codec;
        for (id, expected) in [(1, &[1, 2, 0, 3][..]), (7, &[1, 2, 3]), (9, &[0, 3])] {
            let (frames, messages) = batch.of(ConnId(id), format);
            assert_eq!(offsets(&frames, codec), expected, "{format:?} {id}");
            assert_eq!(messages as usize, expected.len());
        }
    }
}

#[test]
fn who_asks_for_one_member_after_the_other_gets_what_each_of_them_gets() {
    let (json, msgpack) = (Format::default(), Format::from(Codec::MsgPack));
    let alike = batch(&[1, 2], ConnId(9));
    // 9 came late, 7 is announced
    let apart = batch(&[1, 2, 0, 3], ConnId(9));
    for (batch, ids) in [(alike, [1, 2, 3, 4, 5]), (apart, [1, 7, 2, 9, 3])] {
        let mut shares = batch.shares();
        for (id, format) in ids.into_iter().zip([json, json, msgpack, msgpack, json]) {
            assert_eq!(
                *shares.of(ConnId(id), format),
                batch.of(ConnId(id), format),
                "{format:?} {id}"
            );
        }
    }
}

#[test]
fn a_batch_is_compressed_once_for_all_who_negotiated_the_same_window() {
    let batch = batch(&[1, 2, 3, 4], ConnId(9));
    let formats = windows().map(|deflate| Format {
        deflate: Some(deflate),
        ..Format::default()
    });
    let plain = batch.of(ConnId(1), Format::default()).0;
    assert_eq!(
        batch.encoded.lock().len(),
        1,
        "nobody asked for the compressed form"
    );
    let mut seen = vec![plain.as_ptr()];
    for format in formats {
        let (first, second) = (batch.of(ConnId(2), format), batch.of(ConnId(3), format));
        assert_eq!(first.0.as_ptr(), second.0.as_ptr());
        assert_eq!(read(&first.0, Codec::Json), (vec![1, 2, 3, 4], 2));
        assert!(first.0.len() < plain.len() / 4);
        seen.push(first.0.as_ptr());
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(
        seen.len(),
        3,
        "one form for each window, and one that is not compressed"
    );
    assert_eq!(batch.sizes().iter().sum::<usize>(), plain.len());
}

#[test]
fn a_batch_of_small_messages_is_the_same_bytes_whether_compression_was_negotiated_or_not() {
    let batch = batch(&[1, 3, 5], ConnId(9));
    let format = Format {
        deflate: Some(Deflate::WIDEST),
        ..Format::default()
    };
    let (plain, small) = (
        batch.of(ConnId(1), Format::default()),
        batch.of(ConnId(2), format),
    );
    assert_eq!(plain.0.as_ptr(), small.0.as_ptr());
}

#[test]
fn message_by_message_it_is_the_same_bytes_in_every_format() {
    let batch = batch(&[1, 2, 0, 3, 4], ConnId(9));
    let [wide, _] = windows().map(Some);
    for deflate in [None, wide] {
        let format = Format {
            deflate,
            ..Format::default()
        };
        for id in [1, 7, 9] {
            let (frames, messages) = batch.of(ConnId(id), format);
            let each = batch.each(ConnId(id), format, SlowPolicy::DropOldest);
            assert_eq!(each.len(), messages as usize);
            let joined: Vec<u8> = each.iter().flat_map(|message| message.frame.to_vec()).collect();
            assert_eq!(joined, frames, "{format:?} {id}");
        }
    }
}
