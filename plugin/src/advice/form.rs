//! The forms in which advice is written.

use super::{Advice, finding::Finding};

/// A form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// Columns for people.
    Table,
    /// JSON in one line.
    #[default]
    Json,
    /// Commands, with comments.
    Patch,
    /// A list for an issue or a chat.
    Markdown,
}

impl OutputFormat {
    /// The form of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "table" => Self::Table,
            "json" => Self::Json,
            "patch" => Self::Patch,
            "markdown" => Self::Markdown,
            _ => return None,
        })
    }
}

/// There is no finding of this id.
#[derive(Debug, thiserror::Error)]
#[error("explain: there is no finding `{0}`: the list has their ids")]
pub struct NoFinding(String);

impl Advice {
    /// The advice in a form.
    pub fn form(&self, form: OutputFormat) -> String {
        match form {
            OutputFormat::Table => self.table(),
            OutputFormat::Json => self.json().to_string() + "\n",
            OutputFormat::Patch => self.patches(),
            OutputFormat::Markdown => self.markdown(),
        }
    }

    /// The same with the finding of this id alone, written in full.
    ///
    /// # Errors
    /// There is none.
    pub fn explained(&self, id: &str, form: OutputFormat) -> Result<String, NoFinding> {
        let quoted = || NoFinding(id.chars().filter(|c| !c.is_control()).take(60).collect());
        let finding = self.findings.iter().find(|finding| finding.id == id).ok_or_else(quoted)?;
        Ok(match form {
            OutputFormat::Table => finding.explanation(),
            OutputFormat::Json | OutputFormat::Patch | OutputFormat::Markdown => {
                Self { findings: vec![finding.clone()], ..self.clone() }.form(form)
            }
        })
    }

    /// Commands that make the changes, with comments.
    fn patches(&self) -> String {
        let mut text = String::from("# Nothing is applied by this list. Read each line before you run it.\n");
        for finding in &self.findings {
            let Finding { id, subject, action, saving, .. } = finding;
            text.push_str(&format!(
                "\n# {id}: {} USD a month, {}\n# {}\n",
                saving.cost.rounded(2),
                line(subject),
                line(action)
            ));
            finding.risk.iter().for_each(|risk| text.push_str(&format!("# risk: {}\n", line(risk))));
            match &finding.patch {
                Some(patch) => text.push_str(&patch.shell()),
                None => text.push_str("# no change of an object does this\n"),
            }
        }
        text
    }
}

/// A text that may hold names from outside, in one line: a comment ends with its line.
pub(super) fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c }).collect()
}
