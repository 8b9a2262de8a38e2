//! Advice and what-if: answers from the history and the cluster's services.

use super::{Answer, JSON, Refusal, Request, Site, TEXT};
use crate::advice::{Advice, AdviceRequest, Change, OutputFormat, Snapshot, Traffic, WhatIf};

impl Site {
    /// The changes that pay, from the history and the services of now.
    pub(super) fn advice(&self, request: &Request) -> Result<Answer, Refusal> {
        let now = request.second();
        let question = AdviceRequest::parse(&request.query, now)?;
        let traffic = question.traffic(now);
        let advice = self.ask(request, &question, traffic, |snapshot| Advice::new(snapshot, &question.options))?;
        let text = match &question.explain {
            Some(id) => advice.explained(id, question.form)?,
            None => advice.form(question.form),
        };
        Ok(Answer::new(content_type(question.form), text))
    }

    /// The traffic of a service, if it were changed.
    pub(super) fn whatif(&self, request: &Request) -> Result<Answer, Refusal> {
        let mut texts = request.query.clone();
        let mut take = |key: &str| texts.remove(key).unwrap_or_default();
        let change = Change::parse(&take("change"), &take("endpoints"))?;
        // The others are those of advice: the range and the form.
        let question = AdviceRequest::parse(&texts, request.second())?;
        let answer = self.ask(request, &question, Traffic::default(), |snapshot| WhatIf::new(snapshot, change))??;
        Ok(match question.form {
            OutputFormat::Table => Answer::new(TEXT, answer.table()),
            OutputFormat::Json | OutputFormat::Patch | OutputFormat::Markdown => {
                Answer::new(JSON, answer.json().to_string() + "\n")
            }
        })
    }

    /// Asks about the traffic of a range.
    fn ask<T>(
        &self,
        request: &Request,
        question: &AdviceRequest,
        mut traffic: Traffic,
        answer: impl FnOnce(&Snapshot<'_>) -> T,
    ) -> Result<T, Refusal> {
        let history = self.history()?;
        let catalogue = request.catalogue.as_ref().ok_or(Refusal::NoCatalogue)?;
        history.read(question.from, question.to, |block| traffic.add(block))?;
        Ok(answer(&Snapshot { traffic: &traffic, catalogue, prices: &history.prices() }))
    }
}

const fn content_type(form: OutputFormat) -> &'static str {
    match form {
        OutputFormat::Json => JSON,
        OutputFormat::Markdown => "text/markdown; charset=utf-8",
        OutputFormat::Table | OutputFormat::Patch => TEXT,
    }
}
