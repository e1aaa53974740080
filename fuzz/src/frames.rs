//! The frame codec: what a client sends, read at once and in pieces, and what is read, written again.

use std::cell::Cell;

use wsfleet_gateway::protocol::CloseCode;
use wsfleet_gateway::websocket::{
    Decoder, Deflate, Incoming, Opcode, Rules, Violation, close_frame, frame, write_deflated_frame,
    write_frame,
};

use crate::memory;

/// Limits of a message, from the smallest that can be set to the usual one.
const SIZES: [usize; 4] = [128, 1_000, 8_192, 65_536];
/// Messages of one input that are written again, at most: compressing takes longer than reading.
const REWRITTEN: usize = 4;
/// Longest header of a frame.
const HEADER: usize = 14;

/// What was read, until a close frame or a violation ends it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Violation(Violation),
}

/// The first two bytes choose the rules and the pieces, the others are what the client sends.
pub fn frames(input: &[u8]) {
    let Some((&[choice, pieces], stream)) = input.split_first_chunk() else {
        return;
    };
    let rules = Rules {
        max_message: SIZES[usize::from(choice >> 1) % SIZES.len()],
        deflate: choice & 1 == 1,
    };
    warm_up();
    let at_once = read(stream, rules, || usize::MAX);
    let random = Cell::new(u32::from(pieces) | 0x100);
    let piece = || {
        random.set(random.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        1 + (random.get() >> 16) as usize % (1 << (pieces % 12))
    };
    assert_eq!(
        read(stream, rules, piece),
        at_once,
        "the pieces make a difference"
    );
    for seen in at_once.iter().take(REWRITTEN) {
        rewrite(seen, rules, 9 + pieces % 7);
    }
}

/// The inflater of this thread is made once, and is not what a message costs.
fn warm_up() {
    thread_local!(static WARM: Cell<bool> = const { Cell::new(false) });
    if !WARM.replace(true) {
        let rules = Rules {
            max_message: 1,
            deflate: true,
        };
        let empty = &mut [0xC1, 0x81, 0, 0, 0, 0, 0];
        assert!(Decoder::default().next(empty, rules).is_ok());
    }
}

/// Reads as a session does: what was not used is kept, nothing else.
fn read(stream: &[u8], rules: Rules, piece: impl Fn() -> usize) -> Vec<Seen> {
    let mut decoder = Decoder::default();
    let (mut kept, mut seen, mut rest) = (Vec::new(), Vec::new(), stream);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().min(rest.len()));
        rest = later;
        kept.extend_from_slice(now);
        let mut at = 0;
        while let Some(found) = next(&mut decoder, &mut kept, &mut at, rules) {
            let last = matches!(found, Seen::Close(..) | Seen::Violation(_));
            seen.push(found);
            if last {
                return seen;
            }
        }
        kept.drain(..at);
        assert!(
            kept.len() <= on_the_wire(rules).max(125) + HEADER,
            "more is kept than one frame"
        );
    }
    seen
}

/// The next message, and what holds for any message.
fn next(decoder: &mut Decoder, kept: &mut [u8], at: &mut usize, rules: Rules) -> Option<Seen> {
    let max = rules.max_message;
    // a buffer that grows is there twice: the fragments, and what they are inflated to
    let memory = 3 * on_the_wire(rules) + 2 * (max + 1) + 2_048;
    let found = match memory::within(memory, || decoder.next(&mut kept[*at..], rules)) {
        Ok(found) => found,
        Err(violation) => return Some(Seen::Violation(violation)),
    };
    *at += found.used;
    let message = found.message?;
    assert!(found.used > 0, "a message out of nothing");
    Some(match message {
        Incoming::Text(text) => {
            assert!(text.len() <= max.min(found.cost), "{} of {max}", text.len());
            Seen::Text(text.into_owned())
        }
        Incoming::Binary(bytes) => {
            assert!(bytes.len() <= max.min(found.cost), "{} of {max}", bytes.len());
            Seen::Binary(bytes.into_owned())
        }
        Incoming::Ping(payload) => Seen::Ping(control(payload)),
        Incoming::Pong(payload) => Seen::Pong(control(payload)),
        Incoming::Close(close) => {
            control(close.reason.as_bytes());
            Seen::Close(close.code.map(CloseCode::get), close.reason.to_owned())
        }
    })
}

/// Most bytes of a message on the wire: DEFLATE makes noise larger.
const fn on_the_wire(rules: Rules) -> usize {
    rules.max_message + rules.max_message / 32 + 64
}

fn control(payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= 125);
    payload.to_vec()
}

/// What was read is written as the gateway writes it, and read again as if a client had sent it.
fn rewrite(seen: &Seen, rules: Rules, window_bits: u8) {
    let (opcode, payload) = match seen {
        Seen::Text(text) => (Opcode::Text, text.as_bytes()),
        Seen::Binary(bytes) => (Opcode::Binary, &**bytes),
        Seen::Ping(payload) => return again(&frame(Opcode::Ping, payload), seen, rules),
        Seen::Pong(payload) => return again(&frame(Opcode::Pong, payload), seen, rules),
        Seen::Close(code, reason) => {
            let code = code.and_then(CloseCode::from_wire);
            return again(&close_frame(code, reason), seen, rules);
        }
        Seen::Violation(_) => return,
    };
    let mut plain = b"before".to_vec();
    write_frame(&mut plain, opcode, |out| out.extend_from_slice(payload));
    assert_eq!(&plain[6..], &frame(opcode, payload)[..]);
    again(&plain[6..], seen, rules);
    if rules.deflate {
        let offer = format!("permessage-deflate; server_max_window_bits={window_bits}");
        let agreed = Deflate::negotiate([&*offer]).unwrap().unwrap();
        let mut compressed = Vec::new();
        write_deflated_frame(&mut compressed, opcode, payload, agreed.deflate);
        again(&compressed, seen, rules);
    }
}

fn again(written: &[u8], seen: &Seen, rules: Rules) {
    let sent = from_client(written, [0x37, 0xFA, 0x21, 0x3D]);
    let read = read(&sent, rules, || usize::MAX);
    assert_eq!(
        read.as_slice(),
        std::slice::from_ref(seen),
        "written and read again"
    );
}

/// A frame of the gateway as a client would have sent it: masked.
fn from_client(written: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = match written[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let mut sent = written[..header].to_vec();
    sent[1] |= 0x80;
    sent.extend(mask);
    let masked = written[header..].iter().zip(mask.iter().cycle());
    sent.extend(masked.map(|(byte, key)| byte ^ key));
    sent
}
