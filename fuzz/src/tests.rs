//! The committed inputs, each found once or made by hand, tried again.

use std::path::Path;

use super::{frames, handshake, json, msgpack, proto, token};

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("frames", frames),
    ("handshake", handshake),
    ("json", json),
    ("msgpack", msgpack),
    ("proto", proto),
    ("token", token),
];

// one test: memory is counted for the whole process
#[test]
fn every_committed_input_keeps_what_its_target_promises() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, target) in TARGETS {
        let files = std::fs::read_dir(seeds.join(name)).unwrap();
        let inputs: Vec<_> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(inputs.len() > 5, "{name} has {} inputs", inputs.len());
        for input in inputs {
            target(&input);
        }
    }
}
