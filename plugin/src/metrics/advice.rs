//! Advice over HTTP: `/api/v1/advice` and `/api/v1/whatif`.

use super::parts::Page;
use crate::{
    advice::{Advice, Change, Form, Question, Snapshot, Traffic, WhatIf},
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

/// What an answer is made of.
struct Sources {
    historian: Arc<Historian>,
    catalogue: Catalogue,
}

impl Sources {
    async fn of(page: &Page) -> Result<Self, (StatusCode, &'static str)> {
        let historian = page.history.clone();
        let none = (StatusCode::NOT_FOUND, "no history is kept here: start with --history-dir\n");
        let historian = historian.ok_or(none)?;
        let catalogue = match &page.catalogue {
            Some(source) => source.catalogue().await,
            None => Some(Catalogue::default()),
        };
        let unknown = (StatusCode::SERVICE_UNAVAILABLE, "the cluster is not known yet: try again\n");
        Ok(Self { historian, catalogue: catalogue.ok_or(unknown)? })
    }

    /// Answers from the traffic of a range, on a thread that may wait for the disk.
    async fn answer<T: Send + 'static>(
        self,
        (mut traffic, from, to): (Traffic, u64, u64),
        make: impl FnOnce(&Snapshot<'_>) -> T + Send + 'static,
    ) -> Result<T, String> {
        let work = move || -> Result<T, archive::Error> {
            self.historian.read(from, to, |block| traffic.add(block))?;
            let (catalogue, prices) = (&self.catalogue, self.historian.prices());
            Ok(make(&Snapshot { traffic: &traffic, catalogue, prices }))
        };
        match spawn_blocking(work).await {
            Ok(Ok(made)) => Ok(made),
            Ok(Err(error)) => Err(format!("{error}\n")),
            Err(error) => Err(format!("{error}\n")),
        }
    }
}

/// What to change, from the history and the catalogue of now.
pub(super) async fn advice(State(page): State<Page>, Query(texts): Query<BTreeMap<String, String>>) -> Response {
    let now = second();
    let question = match Question::parse(&texts, now) {
        Ok(question) => question,
        Err(bad) => return refused(&bad),
    };
    // The semaphore is never closed.
    let _permit = ANSWERING.acquire().await;
    let sources = match Sources::of(&page).await {
        Ok(sources) => sources,
        Err(none) => return none.into_response(),
    };
    let range = (question.traffic(now), question.from, question.to);
    let options = question.options;
    let advice = match sources.answer(range, move |snapshot| Advice::new(snapshot, &options)).await {
        Ok(advice) => advice,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    };
    let text = match &question.explain {
        Some(id) => advice.explained(id, question.form),
        None => Ok(advice.form(question.form)),
    };
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, content_type(question.form))], text).into_response(),
        Err(none) => refused(&none),
    }
}

/// The traffic of a service, if it were changed.
pub(super) async fn whatif(State(page): State<Page>, Query(texts): Query<BTreeMap<String, String>>) -> Response {
    let mut texts = texts;
    let mut take = |key: &str| texts.remove(key).unwrap_or_default();
    let change = match Change::parse(&take("change"), &take("endpoints")) {
        Ok(change) => change,
        Err(bad) => return refused(&bad),
    };
    // The others are those of advice: the range and the form.
    let question = match Question::parse(&texts, second()) {
        Ok(question) => question,
        Err(bad) => return refused(&bad),
    };
    // The semaphore is never closed.
    let _permit = ANSWERING.acquire().await;
    let sources = match Sources::of(&page).await {
        Ok(sources) => sources,
        Err(none) => return none.into_response(),
    };
    let range = (Traffic::default(), question.from, question.to);
    match sources.answer(range, move |snapshot| WhatIf::new(snapshot, change)).await {
        Ok(Ok(answer)) => {
            let is_table = question.form == Form::Table;
            let text = if is_table { answer.table() } else { answer.json().to_string() + "\n" };
            let form = if is_table { Form::Table } else { Form::Json };
            ([(header::CONTENT_TYPE, content_type(form))], text).into_response()
        }
        Ok(Err(none)) => refused(&none),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

/// A question that makes no sense.
fn refused(reason: &dyn std::error::Error) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

const fn content_type(form: Form) -> &'static str {
    match form {
        Form::Json => "application/json",
        Form::Markdown => "text/markdown; charset=utf-8",
        Form::Table | Form::Patch => "text/plain; charset=utf-8",
    }
}
