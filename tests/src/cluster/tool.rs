//! kubectl and helm, as a user calls them: where doing it by the API would not be what users do (drain, install).

use std::process::Output;

use tokio::process::Command;

use super::Cluster;

/// Why a call of kubectl or helm failed.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The program is missing: `make cluster-up` links it.
    #[error("can't run {program}: {source}")]
    Start {
        /// `kubectl` or `helm`.
        program: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program ended with an error: see what it printed.
    #[error("{command} failed:\n{output}")]
    Failed {
        /// The call.
        command: String,
        /// Standard output and error.
        output: String,
    },
}

impl Cluster {
    /// Runs kubectl with the cluster's kubeconfig, and gives what it prints on standard output.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String, ToolError> {
        self.tool("kubectl", args).await
    }

    /// Runs helm with the cluster's kubeconfig, and gives what it prints on standard output.
    pub async fn helm(&self, args: &[&str]) -> Result<String, ToolError> {
        self.tool("helm", args).await
    }

    async fn tool(&self, program: &'static str, args: &[&str]) -> Result<String, ToolError> {
        let result = Command::from(self.command(program, args))
            .kill_on_drop(true)
            .output()
            .await;
        finish(program, args, result)
    }

    /// For `Drop`, where nothing can be awaited.
    pub(super) fn tool_blocking(&self, program: &'static str, args: &[&str]) -> Result<String, ToolError> {
        finish(program, args, self.command(program, args).output())
    }

    fn command(&self, program: &str, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(self.folder().join("bin").join(program));
        command
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(std::process::Stdio::null());
        command
    }
}

/// What a program printed, or why it failed.
pub(super) fn finish(
    program: &'static str,
    args: &[&str],
    result: std::io::Result<Output>,
) -> Result<String, ToolError> {
    let output = result.map_err(|source| ToolError::Start { program, source })?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(ToolError::Failed {
        command: format!("{program} {}", args.join(" ")),
        output: format!("{printed}{errors}"),
    })
}
