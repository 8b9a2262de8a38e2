//! `meridian unload-nodes`: the chart's hook before its uninstallation.

use super::{Failure, print, usage, values::Seconds};
use crate::cluster::{self, unload_nodes};
use std::path::PathBuf;

/// Flags of `meridian unload-nodes`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Namespace of the agents.
    #[arg(long, value_name = "NAME", default_value = "meridian")]
    namespace: String,
    /// DaemonSet of the agents.
    #[arg(long, value_name = "NAME", default_value = "meridian-agent")]
    daemon_set: String,
    /// Time limit for all nodes together.
    #[arg(long, value_name = "TIME", default_value = "4m")]
    timeout: Seconds,
    /// Kubeconfig file for the API server. Default: the pod's service account, or KUBECONFIG.
    #[arg(long, env = "MERIDIAN_KUBECONFIG", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    kubeconfig: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
    runtime.block_on(async {
        let client = cluster::connect(args.kubeconfig.as_deref()).await.map_err(usage)?;
        let report = |progress: &cluster::Progress| {
            let (nodes, left) = (progress.nodes.len(), progress.left.len());
            tracing::info!(done = nodes - left, nodes, "removing the remains of agents");
        };
        let done = unload_nodes(client, &args.namespace, &args.daemon_set, args.timeout.0, report).await;
        match done.map_err(Failure::failed)? {
            Some(nodes) => print(&format!("nothing is left on {nodes} nodes\n")),
            None => print(&format!("there is no DaemonSet {} in {}\n", args.daemon_set, args.namespace)),
        }
    })
}
