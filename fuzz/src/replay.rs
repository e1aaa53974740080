//! A target without libFuzzer: each input that is named is tried once.

use std::path::PathBuf;
use std::process::ExitCode;

/// Tries the files that the command line names.
pub fn replay(target: fn(&[u8])) -> ExitCode {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    assert!(!files.is_empty(), "name the files to try, such as fuzz/seeds/*/*");
    for file in files {
        let input = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        target(&input);
    }
    ExitCode::SUCCESS
}
