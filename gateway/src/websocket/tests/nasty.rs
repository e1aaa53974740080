//! Frames that must fail the connection, each with the violation that it is.

use super::super::Violation::{self, *};
use super::{RULES, Seen, client_frame, decode, decode_in_pieces};

type Nasty = Vec<(&'static str, Vec<u8>, Violation)>;

fn check(nasty: Nasty) {
    for (name, bytes, expected) in nasty {
        assert_eq!(decode(&bytes).pop(), Some(Seen::Violation(expected)), "{name}");
        let one_by_one = decode_in_pieces(&bytes, std::iter::repeat(1), RULES).pop();
        assert_eq!(
            one_by_one,
            Some(Seen::Violation(expected)),
            "{name}, byte by byte"
        );
    }
}

#[test]
#[rustfmt::skip]
fn reserved_bits_and_opcodes_and_missing_masks_are_refused() {
    check(vec![
        ("RSV1 without an extension", client_frame(0xC1, b"x"), ReservedBits),
        ("RSV2", client_frame(0xA1, b"x"), ReservedBits),
        ("RSV3", client_frame(0x91, b"x"), ReservedBits),
        ("RSV on a control frame", client_frame(0xC9, b""), ReservedBits),
        ("reserved data opcode 3", client_frame(0x83, b""), ReservedOpcode),
        ("reserved data opcode 7", client_frame(0x87, b""), ReservedOpcode),
        ("reserved control opcode B", client_frame(0x8B, b""), ReservedOpcode),
        ("reserved control opcode F", client_frame(0x8F, b""), ReservedOpcode),
        ("no mask", vec![0x81, 0x01, b'x'], Unmasked),
        ("no mask and no payload", vec![0x81, 0x00], Unmasked),
    ]);
}

#[test]
#[rustfmt::skip]
fn lengths_that_lie_or_are_too_much_are_refused() {
    let creeping = [client_frame(0x02, &vec![0; 40_000]), client_frame(0x80, &vec![0; 25_537])].concat();
    check(vec![
        ("ping of 126 bytes", client_frame(0x89, &[0; 126]), LongControl),
        ("close of 70,000 bytes, header only", vec![0x88, 0xFF], LongControl),
        ("length 2^63", vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], LengthSign),
        ("length 2^64 - 1", vec![0x82, 0xFF, 255, 255, 255, 255, 255, 255, 255, 255], LengthSign),
        ("length 2^63 - 1", vec![0x82, 0xFF, 127, 255, 255, 255, 255, 255, 255, 255], TooBig),
        ("length 2^32", vec![0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0], TooBig),
        ("one byte too many, header only", vec![0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 1], TooBig),
        ("fragments that add up to one byte too many", creeping, TooBig),
        ("125 in two bytes", vec![0x82, 0xFE, 0, 125], LengthEncoding),
        ("65,535 in eight bytes", vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255], LengthEncoding),
        ("0 in eight bytes", vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0], LengthEncoding),
    ]);
}

#[test]
#[rustfmt::skip]
fn fragments_out_of_order_are_refused() {
    check(vec![
        ("ping without FIN", client_frame(0x09, b""), FragmentedControl),
        ("close without FIN", client_frame(0x08, b""), FragmentedControl),
        ("continuation of nothing", client_frame(0x80, b"x"), StrayContinuation),
        ("unfinished continuation of nothing", client_frame(0x00, b""), StrayContinuation),
        ("continuation of what was whole", [client_frame(0x81, b"a"), client_frame(0x80, b"b")].concat(), StrayContinuation),
        ("text in the middle of text", [client_frame(0x01, b"a"), client_frame(0x81, b"b")].concat(), Interleaved),
        ("binary in the middle of binary", [client_frame(0x02, b"a"), client_frame(0x02, b"b")].concat(), Interleaved),
    ]);
}

#[test]
#[rustfmt::skip]
fn text_that_is_not_utf8_is_refused_as_soon_as_a_fragment_shows_it() {
    let never_completed = [client_frame(0x01, b"\xE2\x82"), client_frame(0x80, b"")].concat();
    let wrongly_completed = [client_frame(0x01, b"\xE2\x82"), client_frame(0x80, b"x")].concat();
    check(vec![
        ("Latin-1", client_frame(0x81, b"caf\xE9"), InvalidUtf8),
        ("a surrogate", client_frame(0x81, b"\xED\xA0\x80"), InvalidUtf8),
        ("an overlong slash", client_frame(0x81, b"\xC0\xAF"), InvalidUtf8),
        ("above U+10FFFF", client_frame(0x81, b"\xF4\x90\x80\x80"), InvalidUtf8),
        ("a character cut by the end", client_frame(0x81, b"\xE2\x82"), InvalidUtf8),
        ("a character that the next fragment does not complete", wrongly_completed, InvalidUtf8),
        ("a character that no fragment completes", never_completed, InvalidUtf8),
        ("a fragment that can never become text", client_frame(0x01, b"\xFF"), InvalidUtf8),
    ]);
}

#[test]
#[rustfmt::skip]
fn close_frames_with_a_code_or_reason_that_must_not_be_are_refused() {
    check(vec![
        ("one byte", client_frame(0x88, b"\x03"), ClosePayload),
        ("a reason that is no text", client_frame(0x88, b"\x03\xE8\xFF"), InvalidUtf8),
    ]);
    check([0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535].map(|code: u16| {
        ("code", client_frame(0x88, &code.to_be_bytes()), CloseCode(code))
    }).into());
}
