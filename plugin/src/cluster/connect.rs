//! How the API server is reached.

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// An answer that is silent for longer is dead; watches have a limit of their own below it.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// Why it is not known how the API server is reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// Nothing else says how.
    #[error("nothing says how the API server is reached: run in a pod, set KUBECONFIG or name --kubeconfig ({0})")]
    Nothing(InferConfigError),
    /// The client refuses what they say.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// A client by a file, or by what the environment says: the service account of a pod, or KUBECONFIG. The
/// API server need not answer yet.
///
/// # Errors
/// There is nothing that says how, or it makes no sense.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| ConnectError::File { path: path.to_owned(), source };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
        }
        None => Config::infer().await.map_err(ConnectError::Nothing)?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    // Who asks tries again by itself: it would not see for minutes that the server is overloaded, or that an
    // aggregated one is away.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
