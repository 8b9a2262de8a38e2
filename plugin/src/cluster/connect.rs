//! How the API server is reached.

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{path::Path, time::Duration};

/// An answer that is silent for longer is dead; watches have a limit of their own below it.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// A client by a file, or by what the environment says: the service account of a pod, or KUBECONFIG. The
/// API server need not answer yet.
///
/// # Errors
/// There is nothing that says how, or it makes no sense.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, String> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let file = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(&error))?
        }
        None => Config::infer().await.map_err(|error| {
            format!("nothing says how the API server is reached: run in a pod, set KUBECONFIG or name --kubeconfig ({error})")
        })?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    Client::try_from(config).map_err(|error| error.to_string())
}
