//! TLS of a server of flows.

use super::super::{Failure, usage};
use crate::link::Files;
use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf};

/// TLS of a server of flows. The names are those of cilium-agent's flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in super::super) struct TlsArgs {
    /// The certificate that Hubble's clients are shown, as PEM; it is read again when it changes.
    #[arg(long, env = "MERIDIAN_HUBBLE_TLS_CERT_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    hubble_tls_cert_file: Option<PathBuf>,
    /// The key of the certificate, as PEM.
    #[arg(long, env = "MERIDIAN_HUBBLE_TLS_KEY_FILE", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    hubble_tls_key_file: Option<PathBuf>,
    /// The authorities of which Hubble's clients must show a certificate, as PEM; without one they need none.
    #[arg(
        long,
        env = "MERIDIAN_HUBBLE_TLS_CLIENT_CA_FILES",
        value_name = "FILE",
        value_delimiter = ',',
        value_hint = clap::ValueHint::FilePath
    )]
    hubble_tls_client_ca_files: Vec<PathBuf>,
    /// Serves Hubble's clients in the clear, also beyond this machine.
    #[arg(long, env = "MERIDIAN_HUBBLE_DISABLE_TLS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    hubble_disable_tls: Option<bool>,
}

/// The same in a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in super::super) struct TlsKeys {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    client_ca_files: Vec<PathBuf>,
    disable: Option<bool>,
}

impl TlsArgs {
    /// The flags, or else the keys.
    pub(in super::super) fn or(self, keys: TlsKeys) -> Self {
        let flags = self.hubble_tls_client_ca_files;
        Self {
            hubble_tls_cert_file: self.hubble_tls_cert_file.or(keys.cert_file),
            hubble_tls_key_file: self.hubble_tls_key_file.or(keys.key_file),
            hubble_tls_client_ca_files: if flags.is_empty() { keys.client_ca_files } else { flags },
            hubble_disable_tls: self.hubble_disable_tls.or(keys.disable),
        }
    }

    /// Where the certificate is, if one is shown at this address. Beyond this machine nothing is served in the
    /// clear unless that is asked for.
    pub(in super::super) fn files(&self, at: SocketAddr, flag: &str) -> Result<Option<Files>, Failure> {
        let disabled = self.hubble_disable_tls.unwrap_or(false);
        match (&self.hubble_tls_cert_file, &self.hubble_tls_key_file) {
            (Some(certificate), Some(key)) if !disabled => Ok(Some(Files {
                certificate: certificate.clone(),
                key: key.clone(),
                client_authorities: self.hubble_tls_client_ca_files.clone(),
            })),
            (Some(_), None) | (None, Some(_)) if !disabled => {
                Err(usage("--hubble-tls-cert-file and --hubble-tls-key-file: name both"))
            }
            _ if !self.hubble_tls_client_ca_files.is_empty() && !disabled => {
                Err(usage("--hubble-tls-client-ca-files: there is no TLS without --hubble-tls-cert-file"))
            }
            _ if at.ip().is_loopback() => Ok(None),
            _ if disabled => Ok(None),
            _ => Err(usage(format!(
                "{flag} {at}: clients beyond this machine need TLS: name --hubble-tls-cert-file and \
                 --hubble-tls-key-file, or ask for none with --hubble-disable-tls"
            ))),
        }
    }
}
