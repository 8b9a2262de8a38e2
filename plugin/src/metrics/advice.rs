//! Advice over HTTP: `/api/v1/advice`.

use super::parts::Page;
use crate::{
    advice::{Advice, Form, Question, Snapshot},
    archive,
    catalogue::Catalogue,
    historian::{Historian, second},
};
use axum::{
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// Answers that are made at once: each holds the sums of a range of the history.
static ANSWERING: Semaphore = Semaphore::const_new(1);

/// What to change, from the history and the catalogue of now.
pub(super) async fn advice(State(page): State<Page>, Query(texts): Query<BTreeMap<String, String>>) -> Response {
    let Some(historian) = page.history else {
        return (StatusCode::NOT_FOUND, "no history is kept here: start with --history-dir\n").into_response();
    };
    let question = match Question::parse(&texts, second()) {
        Ok(question) => question,
        Err(bad) => return (StatusCode::BAD_REQUEST, format!("{bad}\n")).into_response(),
    };
    // The semaphore is never closed.
    let _permit = ANSWERING.acquire().await;
    let catalogue = match &page.catalogue {
        Some(source) => source.catalogue().await,
        None => Some(Catalogue::default()),
    };
    let Some(catalogue) = catalogue else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the cluster is not known yet: try again\n").into_response();
    };
    let (form, explain) = (question.form, question.explain.clone());
    let advice = match spawn_blocking(move || advise(&historian, &question, &catalogue)).await {
        Ok(Ok(advice)) => advice,
        Ok(Err(error)) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    };
    let text = match explain {
        Some(id) => advice.explained(&id, form),
        None => Ok(advice.form(form)),
    };
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, content_type(form))], text).into_response(),
        Err(none) => (StatusCode::BAD_REQUEST, format!("{none}\n")).into_response(),
    }
}

fn advise(historian: &Arc<Historian>, question: &Question, catalogue: &Catalogue) -> Result<Advice, archive::Error> {
    let mut traffic = question.traffic(second());
    historian.read(question.from, question.to, |block| traffic.add(block))?;
    let snapshot = Snapshot { traffic: &traffic, catalogue, prices: historian.prices() };
    Ok(Advice::new(&snapshot, &question.options))
}

const fn content_type(form: Form) -> &'static str {
    match form {
        Form::Json => "application/json",
        Form::Markdown => "text/markdown; charset=utf-8",
        Form::Table | Form::Patch => "text/plain; charset=utf-8",
    }
}
