//! The connection to the API server.

use kube::{
    Client, Config,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// A response without data for this long is dead; watches have a shorter limit of their own.
const READ_TIMEOUT: Duration = Duration::from_secs(600);

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig can't be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        source: KubeconfigError,
    },
    /// There is no configuration.
    #[error("no configuration for the API server: run in a pod, set KUBECONFIG or name --kubeconfig ({0})")]
    Nothing(InferConfigError),
    /// The client refuses the configuration.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// Makes a client from a file, or from the environment: the service account of a pod, or KUBECONFIG. The API server
/// need not answer yet.
///
/// # Errors
/// There is no configuration, or it is invalid.
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
    // The watches retry themselves: the client's own retries would hide for minutes that the server is overloaded, or
    // that an aggregated server is away.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}
