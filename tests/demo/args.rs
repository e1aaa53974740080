//! Flags of the demo.

use clap::Parser;

/// Drives a fleet through growth, a rollout and shrinking while its clients chat, and tells what they noticed.
///
/// Expects the resource to be applied already: `tests/demo/demo.sh` does that.
#[derive(Clone, Debug, Parser)]
#[command(name = "wsfleet-demo", version)]
pub(crate) struct Args {
    /// Namespace of the WebSocketCluster.
    #[arg(long, default_value = "wsfleet-demo")]
    pub(crate) namespace: String,

    /// Name of the WebSocketCluster.
    #[arg(long, default_value = "chat")]
    pub(crate) name: String,

    /// Where its Service can be reached, for example ws://127.0.0.1:31234/ws.
    /// Default: the NodePort, on 127.0.0.1 or, with --node-address, there.
    #[arg(long)]
    pub(crate) url: Option<String>,

    /// Address for the NodePort.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) node_address: String,

    /// Sockets opened.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(10..=15_000))]
    pub(crate) sockets: u32,

    /// Sockets that stay when the others leave.
    #[arg(long, default_value_t = 300)]
    pub(crate) stay: u32,

    /// Sockets opened in a second.
    #[arg(long, default_value_t = 40)]
    pub(crate) connect_rate: u32,

    /// The image that is rolled out under load. Without it, an annotation of the pod template changes.
    #[arg(long)]
    pub(crate) next_image: Option<String>,
}
