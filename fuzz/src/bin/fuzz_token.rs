//! Tokens, their claims, key sets, and where tokens stand.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|input: &[u8]| wsfleet_fuzz::token(input));

#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::process::ExitCode {
    wsfleet_fuzz::replay(wsfleet_fuzz::token)
}
