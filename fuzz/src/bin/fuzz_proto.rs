//! A client's message as Protocol Buffers.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|input: &[u8]| wsfleet_fuzz::proto(input));

#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::process::ExitCode {
    wsfleet_fuzz::replay(wsfleet_fuzz::proto)
}
