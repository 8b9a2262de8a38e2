//! The forms of a statement.

use super::rows::Statement;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
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
    pub fn form(&self, form: Form) -> String {
        match form {
            Form::Table => self.table(),
            Form::Json => self.json().to_string() + "\n",
            Form::Csv => self.csv(),
            Form::Markdown => self.markdown(),
        }
    }
}
