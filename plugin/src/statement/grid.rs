//! Tables of text: aligned for a terminal, or as Markdown. The first row has the names.

use std::{borrow::Cow, fmt::Write};

/// A name in one line: one with a line break would forge a line of the table. Written as JSON does.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r', '\t']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t"))
}

/// Rows with their columns aligned: the first `left` ones to the left, the others to the right.
pub fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a string can't fail.
            let _ = if at < left { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A text in a cell of Markdown, where it is text: no other column, tag, link or picture, whatever is in it.
pub fn markdown_cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in one_line(text).chars() {
        if matches!(character, '|' | '`' | '<' | '[' | ']' | '\\') {
            cell.push('\\');
        }
        cell.push(character);
    }
    cell
}

/// The same as a table of Markdown.
pub fn markdown(rows: &[Vec<String>], left: usize) -> String {
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let escaped: Vec<String> = row.iter().map(|cell| markdown_cell(cell)).collect();
        // Writing to a string can't fail.
        let _ = writeln!(text, "| {} |", escaped.join(" | "));
        if at == 0 {
            let rule: Vec<&str> = (0..row.len()).map(|at| if at < left { "---" } else { "---:" }).collect();
            let _ = writeln!(text, "| {} |", rule.join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_line_breaks_forges_no_line() {
        let rows = ["a\nb\r\n\tc", "d"].map(|name| vec![name.to_owned(), "1".to_owned()]);
        assert_eq!(aligned(&rows, 1), "a\\nb\\r\\n\\tc  1\nd            1\n");
        assert_eq!(markdown(&rows, 1), "| a\\\\nb\\\\r\\\\n\\\\tc | 1 |\n| --- | ---: |\n| d | 1 |\n");
    }

    #[test]
    fn a_name_is_text_in_markdown_too() {
        assert_eq!(markdown_cell("shop/web-1_a (vm) *"), "shop/web-1_a (vm) *");
        assert_eq!(markdown_cell("a|b"), "a\\|b");
        // An escaped backslash does not escape the bar after it.
        assert_eq!(markdown_cell("a\\|b"), "a\\\\\\|b");
        let picture = "![x](http://elsewhere) <img src=x> `";
        assert_eq!(markdown_cell(picture), "!\\[x\\](http://elsewhere) \\<img src=x> \\`");
    }
}
