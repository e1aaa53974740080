//! The chat page in a real browser goes through a rollout on the real cluster. The page, the browser and what is looked at are in
//! `clients/js/test/cluster`; here is the fleet.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are not seen as tests"
)]

use std::path::Path;

use serde_json::json;
use tokio::process::Command;
use wsfleet_tests::cluster::Cluster;
use wsfleet_tests::scenario::{Failure, Fleet, NAME};

#[tokio::test]
async fn the_chat_page_goes_through_a_rollout_and_misses_and_doubles_nothing() -> Result<(), Failure> {
    let cluster = Cluster::connect().await?;
    let spec = json!({
        "auth": {"jwt": null, "insecureToken": {}},
        "rollout": {"maxSurge": "100%"},
        "drain": {"maxDisconnectPermille": 100},
    });
    let fleet = Fleet::start(&cluster, "browser", spec).await?;
    let address = fleet.namespace.node_port(NAME).await?;
    let screenshot = cluster.folder().join("logs/chat.png");

    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/js");
    let output = Command::new("npm")
        .args(["run", "--silent", "test:cluster"])
        .current_dir(client)
        .env("WSFLEET_URL", format!("ws://{address}/ws"))
        .env("WSFLEET_NAMESPACE", fleet.namespace.name())
        .env("KUBECTL", cluster.folder().join("bin/kubectl"))
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("SCREENSHOT", &screenshot)
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success(),
        "the page's test ended with {}",
        output.status
    );
    assert!(said.contains("pass 1"), "exactly one test passes");
    println!("what the page showed at last: {}", screenshot.display());
    Ok(())
}
