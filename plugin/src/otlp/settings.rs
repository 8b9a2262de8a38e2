//! The collector's address, its authority and the headers of requests.

use crate::{
    bounded_file,
    link::{InvalidHeaders, PEM_BYTES, is_local, read_headers},
};
use std::{io, path::PathBuf, time::Duration};
use tonic::{
    metadata::MetadataMap,
    transport::{Certificate, ClientTlsConfig, Endpoint, Uri},
};

/// The time limit for a connection and for an answer.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where and how often to export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoint: String,
    /// The authority that signed the collector's certificate, as PEM.
    pub authority: Option<PathBuf>,
    /// The file with headers for every request; read for each export, because tokens are renewed.
    pub headers: Option<PathBuf>,
    /// The interval of exports.
    pub every: Duration,
}

/// Invalid settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint is no URL of a gRPC server.
    #[error("--otlp-endpoint: `{0}` is not the address of a collector's OTLP/gRPC port like http://collector:4317")]
    Endpoint(String),
    /// TLS without an authority.
    #[error(
        "--otlp-endpoint {0}: https needs the authority of the collector's certificate: --otlp-ca names its PEM file, \
         mostly /etc/ssl/certs/ca-certificates.crt for public ones"
    )]
    NoAuthority(String),
    /// An authority without TLS.
    #[error("--otlp-ca: the endpoint {0} has no TLS: it begins with http://")]
    NoTls(String),
}

/// A file that can't be used, or an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Headers(#[from] InvalidHeaders),
    #[error(transparent)]
    Endpoint(#[from] tonic::transport::Error),
}

impl Settings {
    /// Checks the endpoint and its authority.
    ///
    /// # Errors
    /// A setting is invalid.
    pub fn checked(self) -> Result<Self, SettingsError> {
        let shown: String = self.endpoint.chars().filter(|c| !c.is_control()).take(100).collect();
        let uri = self.endpoint.parse::<Uri>().ok().filter(|uri| {
            let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
            let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
            is_bare && !has_user && uri.port_u16().is_some() && uri.host().is_some_and(|host| !host.is_empty())
        });
        let uri = uri.ok_or_else(|| SettingsError::Endpoint(shown.clone()))?;
        match uri.scheme_str() {
            Some("https") if self.authority.is_none() => Err(SettingsError::NoAuthority(shown)),
            Some("http") if self.authority.is_some() => Err(SettingsError::NoTls(shown)),
            Some("http" | "https") => Ok(self),
            _ => Err(SettingsError::Endpoint(shown)),
        }
    }

    /// The endpoint, with the authority as its file is now.
    pub(super) fn connector(&self) -> Result<Endpoint, Unusable> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone())?;
        let endpoint = endpoint.connect_timeout(RESPONSE_TIMEOUT).timeout(RESPONSE_TIMEOUT).tcp_nodelay(true);
        let Some(path) = &self.authority else { return Ok(endpoint) };
        let authority = bounded_file::read(path, PEM_BYTES);
        let authority = authority.map_err(|error| Unusable::File { path: path.clone(), error })?;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        Ok(endpoint.tls_config(tls)?)
    }

    /// The headers, as their file is now.
    pub(super) fn headers(&self) -> Result<MetadataMap, Unusable> {
        let Some(path) = &self.headers else { return Ok(MetadataMap::new()) };
        let is_local = self.endpoint.parse::<Uri>().is_ok_and(|uri| is_local(&uri));
        Ok(MetadataMap::from_headers(read_headers(path, self.authority.is_some() || is_local)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(endpoint: &str, authority: Option<&str>, headers: Option<&str>) -> Result<Settings, String> {
        let [authority, headers] = [authority, headers].map(|path| path.map(Into::into));
        let settings = Settings { endpoint: endpoint.to_owned(), authority, headers, every: RESPONSE_TIMEOUT };
        settings.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn an_endpoint_is_a_port_with_or_without_tls() {
        for good in ["http://collector:4317", "http://[::1]:4317/", "http://10.0.0.1:4317"] {
            assert!(checked(good, None, None).is_ok(), "{good}");
        }
        assert!(checked("https://collector:4317", Some("ca.pem"), Some("headers")).is_ok());
        assert!(checked("http://127.0.0.1:4317", None, Some("headers")).is_ok());
        for bad in [
            "",
            "collector:4317",
            "http://collector",
            "ftp://collector:21",
            "http://:4317",
            "http://c:4317/v1/metrics",
            "http://user:secret@c:4317",
            "http://c:4317?x=y",
            "http://c:99999",
            "http://c\n:4317",
        ] {
            let error = checked(bad, None, None).unwrap_err();
            assert!(error.starts_with("--otlp-endpoint: `") && !error.contains('\n'), "{bad}: {error}");
        }
        let starts = |error: Result<_, String>, start: &str| assert!(error.unwrap_err().starts_with(start), "{start}");
        starts(checked("https://c:4317", None, None), "--otlp-endpoint https://c:4317: https needs the authority");
        starts(checked("http://c:4317", Some("ca"), None), "--otlp-ca: the endpoint http://c:4317 has no TLS");
    }
}
