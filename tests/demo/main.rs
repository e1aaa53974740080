//! `wsfleet-demo`: takes a fleet through growth, a rollout and shrinking while its clients chat, shows it as it
//! happens, and ends with a table of what the clients noticed. Exit status 0: nothing was lost, nothing was cut;
//! 1: something was; 2: it could not be tried.

mod args;
mod console;
mod crowd;
mod fleet;
mod report;
mod resource;
mod story;
mod view;

use std::process::ExitCode;

use clap::Parser as _;

use crate::console::Console;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WSFLEET_DEMO_LOG").unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let console = Console::new();
    match story::Story::begin(args::Args::parse(), console).await {
        Ok(story) => {
            if story.run().await.tell() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            console.line(&format!("the demo could not begin: {error:#}"));
            ExitCode::from(2)
        }
    }
}
