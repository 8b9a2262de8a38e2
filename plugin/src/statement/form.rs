//! The forms of a statement.

use super::rows::Statement;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// A table for people.
    Table,
    /// JSON.
    #[default]
    Json,
    /// Comma-separated values.
    Csv,
    /// A table of Markdown.
    Markdown,
}

impl Statement {
    /// The statement in a form.
    pub fn form(&self, form: OutputFormat) -> String {
        match form {
            OutputFormat::Table => self.table(),
            OutputFormat::Json => self.json().to_string() + "\n",
            OutputFormat::Csv => self.csv(),
            OutputFormat::Markdown => self.markdown(),
        }
    }
}
