//! What covers the view: the keys, and a pair or a finding in full.

use super::text::fit;
use crate::{
    cli::top::{
        amount::{Unit, dollars},
        keys::HELP,
        readings::{PodEnd, PodRoute, Readings},
        state::State,
        table::View,
        update::Finding,
    },
    units::{grouped, human},
};
use ratatui::{
    Frame,
    layout::Rect,
    style::Stylize,
    text::{Line, Span},
    widgets::{Block, Clear, Padding, Paragraph},
};
use unicode_width::UnicodeWidthStr;

/// The widest cover, and the width of its names.
const WIDTH: u16 = 100;
const NAMES: usize = 14;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The keys.
pub(super) fn help(frame: &mut Frame<'_>, body: Rect) {
    let lines = HELP.iter().map(|(key, meaning)| named(key, *meaning)).collect();
    cover(frame, body, &Sheet { title: " Keys ".to_owned(), lines }, 0);
}

/// The chosen line in full, from the scrolled line on.
pub(super) fn detail(frame: &mut Frame<'_>, state: &mut State, body: Rect) {
    if let Some(sheet) = chosen(state) {
        state.scroll = cover(frame, body, &sheet, state.scroll);
    }
}

/// Texts below a title.
struct Sheet {
    title: String,
    /// Names with their texts.
    lines: Vec<(String, String)>,
}

fn chosen(state: &State) -> Option<Sheet> {
    let table = state.table();
    let line = table.lines.get(state.chosen(&table))?;
    match state.view {
        View::Pairs => {
            let names: Vec<&str> = line.cells.iter().take(5).map(|cell| cell.text.as_str()).collect();
            let is_it = |route: &&PodRoute| {
                let (from, to) = (&route.source, &route.destination);
                [from.name().as_str(), &from.zone, to.name().as_str(), &to.zone, &route.locality][..] == names[..]
            };
            let route = state.shown.pairs.keys().find(is_it)?;
            Some(Sheet { title: " Pair of pods ".to_owned(), lines: pair(&state.shown, route) })
        }
        View::Findings => {
            let advice = state.advice.as_ref()?.as_ref().ok()?;
            let finding = advice.findings.iter().find(|one| one.id == line.key)?;
            Some(Sheet { title: format!(" {} ", finding.id), lines: self::finding(finding) })
        }
        View::Zones | View::Workloads => None,
    }
}

/// A line of a cover: its name, and its text.
fn named(name: &str, text: impl Into<String>) -> (String, String) {
    (name.to_owned(), text.into())
}

fn pair(readings: &Readings, route: &PodRoute) -> Vec<(String, String)> {
    let amount = readings.pairs.get(route).copied().unwrap_or_default();
    let end = |title: &str, end: &PodEnd| {
        let workload =
            if end.workload.is_empty() { "no workload".to_owned() } else { format!("{} {}", end.kind, end.workload) };
        let region = if end.region.is_empty() { String::new() } else { format!(", region {}", end.region) };
        [named(title, end.name()), named("", format!("{workload}, zone {}{region}", end.zone))]
    };
    let mean = amount.bytes.checked_div(amount.packets).unwrap_or_default();
    let mut lines = Vec::from(end("from", &route.source));
    lines.extend(end("to", &route.destination));
    lines.push(named("locality", route.locality.clone()));
    lines.push(named("", ""));
    lines.push(named("bytes", format!("{} ({} B)", human(amount.bytes), grouped(amount.bytes))));
    lines.push(named("packets", format!("{}, {} bytes each on average", grouped(amount.packets), grouped(mean))));
    lines.push(named("cost", amount.text(Unit::Cost)));
    lines.push(named("a month", format!("{} at this rate", amount.text(Unit::Month))));
    lines.push(named("rate", amount.text(Unit::Rate)));
    lines.push(named("course", course(&readings.course(route))));
    lines
}

/// Rates as bars, the newest last.
fn course(rates: &[u64]) -> String {
    let largest = rates.iter().copied().max().unwrap_or_default();
    let rates = &rates[rates.len().saturating_sub(60)..];
    let bar = |rate: &u64| match largest {
        0 => BARS[0],
        _ => BARS[(u128::from(*rate) * 7 / u128::from(largest)) as usize],
    };
    rates.iter().map(bar).collect()
}

fn finding(finding: &Finding) -> Vec<(String, String)> {
    let mut lines = vec![
        named(&finding.rule, finding.subject.clone()),
        named("change", finding.action.clone()),
        named("saving", format!("{} a month", dollars(finding.usd_per_month))),
        named("bytes", format!("{} a month", human(finding.bytes_per_month))),
        named("confidence", finding.confidence.clone()),
    ];
    for (title, texts) in [("evidence", &finding.evidence), ("risk", &finding.risk)] {
        lines.extend(texts.iter().enumerate().map(|(at, text)| named(if at == 0 { title } else { "" }, text.clone())));
    }
    if !finding.patch.is_empty() {
        lines.push(named("patch", finding.patch.clone()));
    }
    lines.push(named("as text", format!("meridian advise --explain {}", finding.id)));
    lines
}

/// Draws a sheet from a line on; returns that line, which is never so far that room stays empty.
fn cover(frame: &mut Frame<'_>, body: Rect, sheet: &Sheet, first: u16) -> u16 {
    let width = WIDTH.min(body.width.saturating_sub(4)).max(body.width.min(20));
    let room = usize::from(width).saturating_sub(4 + NAMES).max(10);
    let rows: Vec<Line<'static>> = sheet.lines.iter().flat_map(|(name, text)| row(name, text, room)).collect();
    let height = u16::try_from(rows.len() + 2).unwrap_or(u16::MAX).min(body.height);
    let area = Rect { x: body.x + (body.width - width) / 2, y: body.y + (body.height - height) / 2, width, height };
    let hidden = (rows.len() + 2).saturating_sub(usize::from(height));
    let first = first.min(u16::try_from(hidden).unwrap_or(u16::MAX));
    let keys = if hidden > 0 { " Esc closes · PgUp, PgDn: the rest " } else { " Esc closes " };
    let block = Block::bordered().title(sheet.title.as_str()).title_bottom(keys).padding(Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(rows).block(block).scroll((first, 0)), area);
    first
}

/// A name with its text beside it, wrapped.
fn row(name: &str, text: &str, room: usize) -> Vec<Line<'static>> {
    let named = |(at, line): (usize, String)| {
        let name = fit(if at == 0 { name } else { "" }, NAMES, false);
        Line::from(vec![Span::from(name).bold(), Span::from(line)])
    };
    wrapped(text, room).into_iter().enumerate().map(named).collect()
}

/// A text in lines of this many columns, at words where that goes.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let mut word = word;
        loop {
            let line = lines.last_mut().expect("there is a line from the start on");
            let space = usize::from(!line.is_empty());
            if line.width() + space + word.width() <= room {
                line.push_str(&" "[..space]);
                line.push_str(word);
                break;
            }
            if !line.is_empty() {
                lines.push(String::new());
                continue;
            }
            // A word that no line holds is cut where the line ends.
            let end = word.char_indices().map(|(at, _)| at).take_while(|at| word[..*at].width() <= room).last();
            let (head, rest) = word.split_at(end.filter(|end| *end > 0).unwrap_or(word.len()));
            line.push_str(head);
            if rest.is_empty() {
                break;
            }
            lines.push(String::new());
            word = rest;
        }
    }
    lines
}
