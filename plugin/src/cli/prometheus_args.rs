//! The arguments for a server with Prometheus's query API.

use super::{Failure, prices::provider_of_zone, usage};
use crate::{
    cost::PriceTable,
    prometheus::{NOTE, Reader, Server, Settings},
    statement::{Statement, StatementRequest, Summary},
};
use std::path::PathBuf;

/// The server, and the series to read.
#[derive(Debug, clap::Args)]
pub(super) struct PrometheusArgs {
    /// Query API of Prometheus, Thanos, Mimir or VictoriaMetrics to read instead of a history, as http://HOST:PORT with
    /// the path before /api/v1. The result is approximate.
    #[arg(long, value_name = "URL", conflicts_with_all = ["server", "history"], value_hint = clap::ValueHint::Url)]
    prometheus: Option<String>,
    /// With --prometheus: PEM file with the authority of the server's certificate; required with https.
    #[arg(long, value_name = "FILE", requires = "prometheus", value_hint = clap::ValueHint::FilePath)]
    prometheus_ca: Option<PathBuf>,
    /// With --prometheus: file with headers, a line `NAME: VALUE` each, such as `authorization: Bearer TOKEN` or
    /// `X-Scope-OrgID: TENANT`.
    #[arg(long, value_name = "FILE", requires = "prometheus", value_hint = clap::ValueHint::FilePath)]
    prometheus_headers_file: Option<PathBuf>,
    /// With --prometheus: matchers of labels that select one cluster's series, such as cluster="production".
    #[arg(long, value_name = "MATCHERS", requires = "prometheus", default_value = "", hide_default_value = true)]
    selector: String,
}

impl PrometheusArgs {
    /// Whether a server is named.
    pub(super) const fn is_given(&self) -> bool {
        self.prometheus.is_some()
    }

    /// The answer to a question at this second.
    pub(super) fn answer(&self, question: StatementRequest, prices: &PriceTable, now: u64) -> Result<String, Failure> {
        let StatementRequest { query, from, to, compare, form } = question;
        Reader::check(&query, (from, to), compare.is_some()).map_err(usage)?;
        let settings = Settings {
            url: self.prometheus.clone().unwrap_or_default(),
            authority: self.prometheus_ca.clone(),
            headers: self.prometheus_headers_file.clone(),
        };
        let server = Server::new(settings).map_err(usage)?;
        let reader = Reader { server: &server, selector: &self.selector, prices, provider: provider_of_zone };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::failed)?;
        let block = runtime.block_on(reader.read(&query.by, (from, to), now)).map_err(Failure::failed)?;
        let mut summary = Summary::new(query, prices);
        summary.add(&block);
        summary.ask(from, to);
        let approximate = Some(NOTE.to_owned());
        Ok(Statement { approximate, ..summary.finish() }.form(form))
    }
}
