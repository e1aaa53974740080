//! Properties of any bytes in any pieces.

use proptest::prelude::*;

use super::super::frame::{Header, apply_mask};
use super::{MAX, RULES, Rules, Seen, client_frame, decode_in_pieces};

/// A message as the property tests send it, in fragments with control frames between.
#[derive(Clone, Debug)]
enum Sent {
    Text(String, Vec<usize>),
    Binary(Vec<u8>, Vec<usize>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

impl Sent {
    fn write(&self, out: &mut Vec<u8>, seen: &mut Vec<Seen>) {
        match self {
            Self::Text(text, cuts) => {
                fragments(out, seen, 0x1, text.as_bytes(), cuts, Seen::Text(text.clone()));
            }
            Self::Binary(data, cuts) => fragments(out, seen, 0x2, data, cuts, Seen::Binary(data.clone())),
            Self::Ping(payload) => {
                out.extend(client_frame(0x89, payload));
                seen.push(Seen::Ping(payload.clone()));
            }
            Self::Pong(payload) => {
                out.extend(client_frame(0x8A, payload));
                seen.push(Seen::Pong(payload.clone()));
            }
        }
    }
}

fn fragments(out: &mut Vec<u8>, seen: &mut Vec<Seen>, opcode: u8, data: &[u8], cuts: &[usize], whole: Seen) {
    let mut rest = data;
    let mut opcode = opcode;
    for cut in cuts {
        let (part, later) = rest.split_at(cut % (rest.len() + 1));
        out.extend(client_frame(opcode, part));
        out.extend(client_frame(0x89, b"between"));
        seen.push(Seen::Ping(b"between".to_vec()));
        (rest, opcode) = (later, 0);
    }
    out.extend(client_frame(0x80 | opcode, rest));
    seen.push(whole);
}

fn sent() -> impl Strategy<Value = Sent> {
    let cuts = || proptest::collection::vec(any::<usize>(), 0..4);
    let control = || proptest::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![
        (".{0,300}", cuts()).prop_map(|(text, cuts)| Sent::Text(text, cuts)),
        (proptest::collection::vec(any::<u8>(), 0..70_000), cuts()).prop_map(|(data, cuts)| {
            let within = data.len().min(MAX);
            Sent::Binary(data[..within].to_vec(), cuts)
        }),
        control().prop_map(Sent::Ping),
        control().prop_map(Sent::Pong),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_a_client_sends_is_what_is_read_in_whatever_pieces_it_comes(
        messages in proptest::collection::vec(sent(), 1..6),
        pieces in proptest::collection::vec(1..5_000_usize, 1..40),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        for message in &messages {
            message.write(&mut bytes, &mut expected);
        }
        prop_assert_eq!(decode_in_pieces(&bytes, pieces.into_iter().cycle(), RULES), expected);
    }

    #[test]
    fn unmasking_is_what_rfc_6455_section_5_3_says(payload: Vec<u8>, mask: [u8; 4]) {
        let mut masked = payload.clone();
        apply_mask(&mut masked, mask);
        let expected: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
        prop_assert_eq!(masked, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_048))]

    /// Any bytes: no panic, and the pieces make no difference.
    #[test]
    fn hostile_bytes_never_panic_and_say_the_same_in_any_pieces(
        bytes in hostile(),
        pieces in proptest::collection::vec(1..20_usize, 1..20),
        max_message in 1..200_usize,
        deflate: bool,
    ) {
        let rules = Rules { max_message, deflate };
        let at_once = decode_in_pieces(&bytes, std::iter::empty(), rules);
        prop_assert_eq!(decode_in_pieces(&bytes, pieces.into_iter().cycle(), rules), at_once);
    }

    #[test]
    fn a_header_never_claims_more_than_is_allowed(bytes: [u8; 14], max in 0..100_000_usize) {
        if let Ok(Some(header)) = Header::parse(&bytes, true, |_| max) {
            prop_assert!(header.length <= max.max(125));
            prop_assert!(header.size <= 14);
        }
    }
}

/// Noise, and frames that are nearly right, so that the noise gets past the first byte.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![0..=2_u8, 8..=10_u8, any::<u8>()];
    let first = (opcode, any::<bool>()).prop_map(|(opcode, fin)| opcode | if fin { 0x80 } else { 0 });
    let payload = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..150),
        "[a-zé€😀]{0,40}".prop_map(String::into_bytes),
    ];
    let nearly = (first, payload).prop_map(|(first, payload)| client_frame(first, &payload));
    let noise = proptest::collection::vec(any::<u8>(), 0..40);
    let parts = prop_oneof![8 => nearly, 1 => noise];
    proptest::collection::vec(parts, 1..8).prop_map(|parts| parts.concat())
}
