//! TLS of a server of flows.

use super::super::{Failure, usage};
use crate::link::Files;
use clap::{ArgAction, ValueHint, builder::BoolishValueParser};
use std::{net::SocketAddr, path::PathBuf};

/// TLS of a server of flows. The names of the flags are those of cilium-agent's.
#[derive(Clone, Debug, clap::Args)]
pub(in super::super) struct TlsArgs {
    /// PEM file with the certificate of the server for Hubble's clients, read again when it changes.
    #[arg(
        id = "hubble.tls.cert_file",
        long = "hubble-tls-cert-file",
        env = "MERIDIAN_HUBBLE_TLS_CERT_FILE",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    cert: Option<PathBuf>,
    /// PEM file with the certificate's key.
    #[arg(
        id = "hubble.tls.key_file",
        long = "hubble-tls-key-file",
        env = "MERIDIAN_HUBBLE_TLS_KEY_FILE",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    key: Option<PathBuf>,
    /// PEM files with the authorities of client certificates. Without any, Hubble's clients need no certificate.
    #[arg(
        id = "hubble.tls.client_ca_files",
        long = "hubble-tls-client-ca-files",
        env = "MERIDIAN_HUBBLE_TLS_CLIENT_CA_FILES",
        value_name = "FILE",
        value_delimiter = ',',
        value_hint = ValueHint::FilePath
    )]
    client_authorities: Vec<PathBuf>,
    /// Serve Hubble's clients without TLS, even beyond this machine.
    #[arg(
        id = "hubble.tls.disable",
        long = "hubble-disable-tls",
        env = "MERIDIAN_HUBBLE_DISABLE_TLS",
        value_name = "BOOL",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new(),
        num_args = 0..=1,
        default_missing_value = "true",
        default_value = "false"
    )]
    is_disabled: bool,
}

impl TlsArgs {
    /// Where the certificate is, if one is shown at this address. Beyond this machine nothing is served in the
    /// clear unless that is asked for.
    pub(in super::super) fn files(&self, at: SocketAddr, flag: &str) -> Result<Option<Files>, Failure> {
        let disabled = self.is_disabled;
        match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) if !disabled => Ok(Some(Files {
                certificate: certificate.clone(),
                key: key.clone(),
                client_authorities: self.client_authorities.clone(),
            })),
            (Some(_), None) | (None, Some(_)) if !disabled => {
                Err(usage("--hubble-tls-cert-file and --hubble-tls-key-file: name both"))
            }
            _ if !self.client_authorities.is_empty() && !disabled => {
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
