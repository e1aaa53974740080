//! Command line and environment of the operator. Every flag can be given as an environment variable.

use std::ffi::OsString;
use std::net::SocketAddr;

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use uuid::Uuid;

use crate::simulate::SimulateArgs;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// The wsfleet operator: runs the WebSocketClusters of a Kubernetes cluster.
///
/// Uses the service account inside a cluster, and the current context of the kubeconfig outside of one.
#[derive(Clone, Debug, Parser)]
#[command(name = "wsfleet-operator", version, about)]
pub struct Args {
    /// Gateway image for clusters that name none. It is frozen in each revision: changing it moves no client.
    #[arg(long, env = "WSFLEET_GATEWAY_IMAGE")]
    pub gateway_image: String,
    /// Namespaces to serve, separated by commas; empty serves all of them.
    #[arg(long, env = "WSFLEET_WATCH_NAMESPACES", default_value = "")]
    pub watch_namespaces: String,
    /// Read nodes, to see which are cordoned, tainted or lost. Needs the right to list and watch nodes.
    #[arg(long, env = "WSFLEET_WATCH_NODES", default_value_t = true, action = clap::ArgAction::Set)]
    pub watch_nodes: bool,
    /// Name of the Lease by which the replicas agree on their leader.
    #[arg(long, env = "WSFLEET_LEASE_NAME", default_value = "wsfleet-operator")]
    pub lease_name: String,
    /// Namespace of the Lease; default: the one of the service account or of the kubeconfig's context.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: Option<String>,
    /// What this process calls itself in the Lease and in events; default: host name and a random suffix.
    #[arg(long, env = "WSFLEET_IDENTITY")]
    pub identity: Option<String>,
    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "WSFLEET_METRICS_LISTEN", default_value = "0.0.0.0:8080")]
    pub metrics_listen: SocketAddr,
    /// Format of the log.
    #[arg(long, env = "WSFLEET_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, as tracing's EnvFilter reads it, for example `info,wsfleet_operator=debug`.
    #[arg(long, env = "WSFLEET_LOG_FILTER", default_value = "info")]
    pub log_filter: String,
}

/// What the program is asked to do.
#[derive(Clone, Debug)]
pub enum Invocation {
    /// Run the operator.
    Operate(Args),
    /// `simulate`: show what a specification means for clients.
    Simulate(SimulateArgs),
}

impl Invocation {
    /// Reads a command line: flags run the operator, `simulate` does not.
    pub fn try_parse_from<T: Into<OsString> + Clone>(
        args: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut command = Args::command()
            .subcommand(SimulateArgs::command())
            .subcommand_negates_reqs(true)
            .disable_help_subcommand(true);
        let matches = command.try_get_matches_from_mut(args)?;
        match matches.subcommand() {
            Some((_, matches)) => SimulateArgs::from_arg_matches(matches).map(Self::Simulate),
            None => Args::from_arg_matches(&matches).map(Self::Operate),
        }
    }
}

impl Args {
    /// The namespaces to serve; empty means all.
    pub fn namespaces(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .watch_namespaces
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The given identity, or one that no other process has.
    pub fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "wsfleet-operator".to_owned());
            format!("{host}_{}", Uuid::new_v4().simple())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Args {
        let given = ["wsfleet-operator", "--gateway-image", "gateway:1"]
            .iter()
            .chain(args);
        Args::try_parse_from(given).unwrap()
    }

    #[test]
    fn namespaces_are_split_trimmed_and_counted_once() {
        assert_eq!(parse(&[]).namespaces(), Vec::<String>::new());
        assert_eq!(parse(&["--watch-namespaces", "b, a,,b"]).namespaces(), ["a", "b"]);
    }

    #[test]
    fn two_processes_without_a_given_identity_never_share_one() {
        let args = parse(&[]);
        assert_ne!(args.identity(), args.identity());
        assert_eq!(parse(&["--identity", "me"]).identity(), "me");
    }

    #[test]
    fn simulate_needs_no_flag_of_the_operator_and_the_operator_still_does() {
        let parse = |args: &[&str]| Invocation::try_parse_from([&["wsfleet-operator"], args].concat());
        let simulated = parse(&["simulate", "-f", "cluster.yaml", "--scenario", "node-loss"]).unwrap();
        assert!(matches!(simulated, Invocation::Simulate(args) if args.seed == 1));
        let operated = parse(&["--gateway-image", "gateway:1"]).unwrap();
        assert!(matches!(operated, Invocation::Operate(args) if args.gateway_image == "gateway:1"));
        if std::env::var_os("WSFLEET_GATEWAY_IMAGE").is_none() {
            assert!(parse(&[]).unwrap_err().to_string().contains("--gateway-image"));
        }
        let help = parse(&["--help"]).unwrap_err().to_string();
        assert!(help.contains("simulate"), "{help}");
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        let error =
            Args::try_parse_from(["x", "--gateway-image", "g", "--metrics-listen", "nowhere"]).unwrap_err();
        assert!(error.to_string().contains("--metrics-listen"), "{error}");
    }
}
