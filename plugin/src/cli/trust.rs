//! TLS towards a server. The names are those of the hubble command's flags.

use crate::api::{Client, ClientError, Target, Trust};
use std::path::PathBuf;

/// The trusted authority, and the client's own certificate.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct TrustArgs {
    /// PEM file with the authority of the server's certificate. Without it, the connection has no TLS.
    #[arg(long, env = "MERIDIAN_TLS_CA_CERT_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    tls_ca_cert_file: Option<PathBuf>,
    /// Name in the server's certificate. Default: the server's host.
    #[arg(long, env = "MERIDIAN_TLS_SERVER_NAME", value_name = "NAME")]
    tls_server_name: Option<String>,
    /// PEM file with a client certificate, if the server requires one.
    #[arg(
        long,
        env = "MERIDIAN_TLS_CLIENT_CERT_FILE",
        value_name = "FILE",
        requires = "tls_client_key_file",
        value_hint = clap::ValueHint::FilePath
    )]
    tls_client_cert_file: Option<PathBuf>,
    /// PEM file with the client certificate's key.
    #[arg(
        long,
        env = "MERIDIAN_TLS_CLIENT_KEY_FILE",
        value_name = "FILE",
        requires = "tls_client_cert_file",
        value_hint = clap::ValueHint::FilePath
    )]
    tls_client_key_file: Option<PathBuf>,
}

impl TrustArgs {
    /// Connects to a server.
    pub(super) async fn connect(&self, target: Target) -> Result<Client, ClientError> {
        let trust = self.tls_ca_cert_file.clone().map(|authority| Trust {
            authority,
            server_name: self.tls_server_name.clone(),
            identity: self.tls_client_cert_file.clone().zip(self.tls_client_key_file.clone()),
        });
        Client::connect_with(target, trust.as_ref()).await
    }
}
