//! A table of lines: columns as wide as their contents, as far as the screen is.

use super::text::{fit, style_of};
use crate::cli::top::{
    state::State,
    table::{self, Column, Table, View},
};
use ratatui::{
    Frame,
    layout::Rect,
    style::Stylize,
    text::{Line, Span},
    widgets::Paragraph,
};
use unicode_width::UnicodeWidthStr;

/// The space between columns, and the least width of a column that is cut.
const GAP: usize = 2;
const LEAST: usize = 8;
/// The width of the bars, where there is room.
const BAR: usize = 20;
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Draws the head and the lines around the chosen one.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, table: &Table, area: Rect) {
    let sorted = table.sorted_column(state.place().sort, state.unit);
    let width = usize::from(area.width).saturating_sub(2);
    let titles = titles(table, sorted, state.place().sort.is_reversed);
    let columns = Columns::of(table, &titles, width);
    let mut lines = vec![columns.line(titles.iter().map(String::as_str), "").bold().underlined()];
    let page = usize::from(area.height.saturating_sub(2)).max(1);
    let chosen = state.chosen(table);
    let first = chosen.saturating_sub(page - 1);
    let value = |line: &table::Line| line.cells.get(sorted).map_or(0.0, |cell| cell.value);
    let largest = table.lines.iter().map(value).fold(0.0, f64::max);
    for (at, line) in table.lines.iter().enumerate().skip(first).take(page) {
        let bar = bar(value(line), largest);
        let shown =
            columns.line(line.cells.iter().map(|cell| cell.text.as_str()), &bar).style(style_of(&line.locality));
        lines.push(if at == chosen { shown.reversed() } else { shown });
    }
    lines.push(foot(state, table, chosen));
    frame.render_widget(Paragraph::new(lines), area);
}

/// The place in the list, and what is not in it.
fn foot(state: &State, table: &Table, chosen: usize) -> Line<'static> {
    let mut text = format!("  {} of {}", chosen + 1, table.lines.len());
    if state.view == View::Pairs && state.shown.other_pairs > 0 {
        text.push_str(&format!(" · pairs that are not listed: {}", crate::units::human(state.shown.other_pairs)));
    }
    Line::from(text).dim()
}

/// The titles, with an arrow at the one that is sorted by.
fn titles(table: &Table, sorted: usize, is_reversed: bool) -> Vec<String> {
    let arrow = |column: &Column| if column.is_number == is_reversed { "↑" } else { "↓" };
    let title = |(at, column): (usize, &Column)| match at == sorted {
        true => format!("{}{}", column.title, arrow(column)),
        false => column.title.to_owned(),
    };
    table.columns.iter().enumerate().map(title).collect()
}

/// The columns that are shown, and their widths.
struct Columns {
    shown: Vec<(usize, usize, bool)>,
    has_bar: bool,
}

impl Columns {
    fn of(table: &Table, titles: &[String], room: usize) -> Self {
        let natural = |at: usize| {
            let cells = table.lines.iter().filter_map(|line| line.cells.get(at)).map(|cell| cell.text.width());
            cells.chain([titles[at].width()]).max().unwrap_or_default()
        };
        let mut shown: Vec<_> =
            table.columns.iter().enumerate().map(|(at, column)| (at, natural(at), column.is_number)).collect();
        let sum = |shown: &[(usize, usize, bool)]| shown.iter().map(|(_, width, _)| width + GAP).sum::<usize>();
        while sum(&shown) > room {
            let Some(at) = shown.iter().rposition(|(at, ..)| table.columns[*at].is_wide) else { break };
            shown.remove(at);
        }
        while sum(&shown) > room {
            let widest = shown
                .iter_mut()
                .filter(|(_, width, is_number)| !is_number && *width > LEAST)
                .max_by_key(|(_, width, _)| *width);
            let Some((_, width, _)) = widest else { break };
            *width -= 1;
        }
        let has_bar = sum(&shown) + BAR <= room;
        Self { shown, has_bar }
    }

    fn line<'a>(&self, texts: impl Iterator<Item = &'a str>, bar: &str) -> Line<'static> {
        let texts: Vec<_> = texts.collect();
        let mut line = String::from("  ");
        for (at, width, is_number) in &self.shown {
            line.push_str(&fit(texts.get(*at).copied().unwrap_or_default(), *width, *is_number));
            line.push_str(&" ".repeat(GAP));
        }
        if self.has_bar {
            line.push_str(&fit(bar, BAR, false));
        }
        Line::from(Span::from(line))
    }
}

/// A bar for a part of the largest value.
fn bar(value: f64, largest: f64) -> String {
    if value <= 0.0 || largest <= 0.0 {
        return String::new();
    }
    let eighths = (value / largest * (BAR * 8) as f64).round().max(1.0) as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}
