//! The page for people and the JSON API below it: paths to answers. Read-only, and without sockets: `metrics`
//! serves it.
//!
//! Every list in an answer has a bound; rows beyond it are a sum or a number, never silently left out. A bad question
//! gets one line of text that names the mistake.

mod advice;
mod api;
mod files;
mod html;
mod overview;
mod source;

pub use source::{AgentsHealth, Counts, Health, NodeHealth, Source};

use crate::{
    advice::{self as rules, BadChange, NoAnswer, NoFinding},
    archive,
    bill::Measured,
    catalogue::{Catalogue, CatalogueSource},
    focus::Charges,
    historian::Historian,
    history::Span,
    statement::{InvalidStatementRequest, OutputFormat, StatementRequest, Step},
};
use files::{ICON, LICENSES, OPENAPI, SCRIPT, STYLE};
use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::SystemTime};

/// Everything that a browser may load: files of this server alone, and no inline script or style.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The longest range of charges in one answer: a day, with the parts of two hours.
const FOCUS_SECONDS: u64 = 25 * 3600;
/// Where a range of charges begins by default.
const FOCUS_FROM: &str = "24h";

/// The longest range of an answer with each node on each day.
const MAX_NODE_SECONDS: u64 = 8 * Span::DAY as u64;

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A process to look at.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Its history, if it keeps one.
    pub history: Option<Arc<Historian>>,
    /// Its counters and state, if it measures or sums up.
    pub source: Option<Arc<dyn Source>>,
    /// The services and workloads that advice is about. Without them, advice is about the traffic alone.
    pub catalogue: Option<Arc<dyn CatalogueSource>>,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The path.
    pub path: String,
    /// The parameters of the query.
    pub query: BTreeMap<String, String>,
    /// Now.
    pub now: SystemTime,
    /// Whether the process is fully started.
    pub is_ready: bool,
    /// The services and workloads of now, for an answer that [needs them](Site::needs_catalogue); `None` while they are
    /// not known.
    pub catalogue: Option<Catalogue>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// Whether the body never changes under its address.
    pub is_fixed: bool,
    /// The body.
    pub body: Cow<'static, str>,
}

impl Answer {
    fn new(content_type: &'static str, body: String) -> Self {
        Self { status: 200, content_type, is_fixed: false, body: body.into() }
    }

    fn file(content_type: &'static str, body: &'static str) -> Self {
        Self { status: 200, content_type, is_fixed: true, body: body.into() }
    }

    fn refusal(status: u16, reason: &str) -> Self {
        Self { status, content_type: TEXT, is_fixed: false, body: format!("{reason}\n").into() }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("there is no {0} here")]
    NoSuchPath(String),
    #[error("no history is kept here: start with --history-dir")]
    NoHistory,
    #[error("nothing is measured here")]
    NoSource,
    #[error("the cluster is not known yet: try again")]
    NoCatalogue,
    #[error(transparent)]
    InvalidStatementRequest(#[from] InvalidStatementRequest),
    #[error(transparent)]
    BadAdviceQuestion(#[from] rules::InvalidAdviceRequest),
    #[error(transparent)]
    BadChange(#[from] BadChange),
    #[error(transparent)]
    NoFinding(#[from] NoFinding),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
    #[error("`{0}` is no parameter of this path")]
    Parameter(String),
    #[error("charges are of at most 24 hours: ask for each day")]
    LongRange,
    #[error("step: `{0}` is neither hour nor day")]
    Step(String),
    #[error("the range has more than {0} days: ask for one part after the other")]
    ManyDays(u64),
    #[error(transparent)]
    Archive(#[from] archive::Error),
}

impl Refusal {
    fn answer(&self) -> Answer {
        let status = match self {
            Self::NoSuchPath(_) | Self::NoHistory | Self::NoSource => 404,
            Self::NoCatalogue => 503,
            Self::InvalidStatementRequest(_)
            | Self::BadAdviceQuestion(_)
            | Self::BadChange(_)
            | Self::NoFinding(_)
            | Self::NoAnswer(_)
            | Self::Parameter(_)
            | Self::LongRange
            | Self::ManyDays(_)
            | Self::Step(_) => 400,
            Self::Archive(_) => 500,
        };
        Answer::refusal(status, &self.to_string())
    }
}

/// Text from outside as part of an error: short, and on one line.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

impl Site {
    /// Whether the answer reads the history, so that only few may be made at once.
    pub fn is_costly(path: &str) -> bool {
        matches!(path, "/" | "/api/v1/focus" | "/api/v1/nodes" | "/api/v1/report" | "/api/v1/series")
            || Self::needs_catalogue(path)
    }

    /// Whether the answer is about the services and workloads of now.
    pub fn needs_catalogue(path: &str) -> bool {
        matches!(path, "/api/v1/advice" | "/api/v1/whatif")
    }

    /// The services and workloads of now; `None` while they are not known.
    pub async fn catalogue(&self) -> Option<Catalogue> {
        match &self.catalogue {
            Some(source) => source.catalogue().await,
            None => Some(Catalogue::default()),
        }
    }

    /// The answers of the API that this process has, by the last part of their paths: the page asks for no others.
    fn offers(&self) -> Vec<&'static str> {
        let of_history = self.history.iter().flat_map(|_| ["advice", "focus", "nodes", "prices", "report", "series"]);
        let of_source = self.source.iter().map(|_| "zones");
        std::iter::once("health").chain(of_history).chain(of_source).collect()
    }

    /// The answer to a request.
    pub fn answer(&self, request: &Request) -> Answer {
        self.find(request).unwrap_or_else(|refusal| refusal.answer())
    }

    fn find(&self, request: &Request) -> Result<Answer, Refusal> {
        let json = |value: serde_json::Value| Answer::new(JSON, value.to_string());
        let path = request.path.as_str();
        if matches!(path, "/api/v1/openapi.json" | "/api/v1/zones" | "/api/v1/health" | "/api/v1/prices")
            && let Some(key) = request.query.keys().next()
        {
            return Err(Refusal::Parameter(quoted(key)));
        }
        Ok(match path {
            "/" => self.page(request),
            "/page.js" => Answer::file("text/javascript; charset=utf-8", SCRIPT),
            "/page.css" => Answer::file("text/css; charset=utf-8", STYLE),
            "/icon.svg" => Answer::file("image/svg+xml", ICON),
            "/licenses.txt" => Answer { is_fixed: false, ..Answer::file(TEXT, LICENSES) },
            "/api/v1/openapi.json" => Answer { is_fixed: false, ..Answer::file(JSON, OPENAPI) },
            "/api/v1/zones" => json(api::zones(self.source()?.counts())),
            "/api/v1/health" => json(self.health(request)),
            "/api/v1/prices" => json(api::prices(&self.history()?.prices())),
            "/api/v1/nodes" => json(self.nodes(request)?),
            "/api/v1/advice" => self.advice(request)?,
            "/api/v1/focus" => self.focus(request)?,
            "/api/v1/report" => self.report(request)?,
            "/api/v1/series" => json(self.series(request)?),
            "/api/v1/whatif" => self.whatif(request)?,
            _ => return Err(Refusal::NoSuchPath(quoted(path))),
        })
    }

    fn health(&self, request: &Request) -> serde_json::Value {
        let health = self.source.as_ref().map(|source| source.health()).unwrap_or_default();
        let mut value = api::health(&health, self.history.as_deref());
        value["time"] = api::time(request.now).into();
        value["ready"] = request.is_ready.into();
        value["offers"] = self.offers().into();
        value
    }

    fn history(&self) -> Result<&Historian, Refusal> {
        self.history.as_deref().ok_or(Refusal::NoHistory)
    }

    fn source(&self) -> Result<&dyn Source, Refusal> {
        self.source.as_deref().ok_or(Refusal::NoSource)
    }

    fn report(&self, request: &Request) -> Result<Answer, Refusal> {
        let history = self.history()?;
        let question = StatementRequest::parse(&request.query, request.second())?;
        let form = question.form;
        let content_type = match form {
            OutputFormat::Json => JSON,
            OutputFormat::Csv => "text/csv; charset=utf-8",
            OutputFormat::Markdown => "text/markdown; charset=utf-8",
            OutputFormat::Table => TEXT,
        };
        Ok(Answer::new(content_type, history.answer(question)?.form(form)))
    }

    /// Charges of a day at most, which bounds the answer.
    fn focus(&self, request: &Request) -> Result<Answer, Refusal> {
        let history = self.history()?;
        let is_known = |key: &str| matches!(key, "from" | "to" | "locality");
        if let Some(key) = request.query.keys().find(|key| !is_known(key)) {
            return Err(Refusal::Parameter(quoted(key)));
        }
        let mut texts = request.query.clone();
        texts.entry("from".to_owned()).or_insert_with(|| FOCUS_FROM.to_owned());
        let StatementRequest { query, from, to, .. } = StatementRequest::parse(&texts, request.second())?;
        if to - from > FOCUS_SECONDS {
            return Err(Refusal::LongRange);
        }
        let prices = history.prices();
        let (mut text, charges) = (Charges::header(), Charges::new(&prices, query.localities));
        history.read(from, to, |block| charges.write(block, &mut text))?;
        Ok(Answer::new("text/csv; charset=utf-8", text))
    }

    fn series(&self, request: &Request) -> Result<serde_json::Value, Refusal> {
        let history = self.history()?;
        let mut texts = request.query.clone();
        let step = match texts.remove("step").as_deref() {
            None | Some("hour") => Step::Hour,
            Some("day") => Step::Day,
            Some(other) => return Err(Refusal::Step(quoted(other))),
        };
        let of_report = ["compare", "explain", "output"];
        if let Some(key) = of_report.into_iter().find(|key| texts.contains_key(*key)) {
            return Err(Refusal::Parameter(key.to_owned()));
        }
        Ok(history.series(StatementRequest::parse(&texts, request.second())?, step)?)
    }

    fn nodes(&self, request: &Request) -> Result<serde_json::Value, Refusal> {
        let history = self.history()?;
        if let Some(key) = request.query.keys().find(|key| !matches!(key.as_str(), "from" | "to")) {
            return Err(Refusal::Parameter(quoted(key)));
        }
        let StatementRequest { from, to, .. } = StatementRequest::parse(&request.query, request.second())?;
        if to.saturating_sub(from) > MAX_NODE_SECONDS {
            return Err(Refusal::ManyDays(MAX_NODE_SECONDS / u64::from(Span::DAY)));
        }
        let mut measured = Measured::default();
        history.read(from, to, |block| measured.add(block))?;
        Ok(measured.json())
    }

    fn page(&self, request: &Request) -> Answer {
        let texts = request.query.iter().filter(|(key, _)| matches!(key.as_str(), "from" | "to"));
        let mut texts: BTreeMap<String, String> = texts.map(|(key, text)| (key.clone(), text.clone())).collect();
        texts.insert("locality".to_owned(), "all".to_owned());
        let statement = self.history().and_then(|history| {
            let StatementRequest { query, from, to, .. } = StatementRequest::parse(&texts, request.second())?;
            Ok(history.statement(query, from, to)?)
        });
        let status = match &statement {
            Err(refusal @ (Refusal::InvalidStatementRequest(_) | Refusal::Archive(_))) => refusal.answer().status,
            _ => 200,
        };
        let body = overview::html(statement.map_err(|refusal| refusal.to_string()));
        Answer { status, ..Answer::new(HTML, body) }
    }
}

impl Request {
    fn second(&self) -> u64 {
        self.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

#[cfg(test)]
mod tests;
