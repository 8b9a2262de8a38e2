//! The settings of the export to an OpenTelemetry collector.

use super::{Failure, named_file::NamedFile, usage, values::Seconds};
use crate::otlp::Settings;
use clap::ValueHint;

/// The OpenTelemetry collector.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OtlpArgs {
    /// OTLP/gRPC port of an OpenTelemetry collector that gets the sums by zone, namespace and workload, as
    /// http://HOST:PORT or https://HOST:PORT. Not for an agent with a controller: set it at the controller.
    #[arg(id = "otlp.endpoint", long = "otlp-endpoint", env = "MERIDIAN_OTLP_ENDPOINT", value_name = "URL")]
    endpoint: Option<String>,
    /// PEM file with the authority of the collector's certificate; required with https, read again after a failure.
    #[arg(
        id = "otlp.ca_file",
        long = "otlp-ca",
        env = "MERIDIAN_OTLP_CA",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    ca: Option<NamedFile>,
    /// File with headers for the collector, a line `NAME: VALUE` each, read again for every export. Headers
    /// that may be secret, such as `authorization`, need https, or a collector on this machine.
    #[arg(
        id = "otlp.headers_file",
        long = "otlp-headers-file",
        env = "MERIDIAN_OTLP_HEADERS_FILE",
        value_name = "FILE",
        value_hint = ValueHint::FilePath
    )]
    headers: Option<NamedFile>,
    /// Interval of exports, at least 1s.
    #[arg(
        id = "otlp.interval",
        long = "otlp-interval",
        env = "MERIDIAN_OTLP_INTERVAL",
        value_name = "TIME",
        default_value = "60s"
    )]
    interval: Seconds,
}

impl OtlpArgs {
    /// The settings, if there is a collector.
    pub(super) fn settings(self) -> Result<Option<Settings>, Failure> {
        let [authority, headers] = [self.ca, self.headers].map(|file| file.map(|NamedFile(path)| path));
        let Some(endpoint) = self.endpoint.filter(|endpoint| !endpoint.is_empty()) else {
            return match (authority, headers) {
                (None, None) => Ok(None),
                _ => Err(usage("--otlp-ca and --otlp-headers-file: name the collector with --otlp-endpoint")),
            };
        };
        let settings = Settings { endpoint, authority, headers, every: self.interval.0 };
        settings.checked().map(Some).map_err(usage)
    }
}
