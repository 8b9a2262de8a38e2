//! The screen: a head, the view, and a foot with the keys. Colours are those of the terminal's own palette, and no
//! difference is shown by colour alone, so that it reads on a dark and on a light ground and without colours.

mod cover;
mod lines;
mod matrix;
mod text;

use super::{
    amount::Unit,
    pair_filter::PairFilter,
    state::{Cover, State},
    table::{Table, View},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};
use text::fit;
use unicode_width::UnicodeWidthStr;

/// Lines of a list that stay below the matrix.
const LIST: u16 = 6;

/// Draws the state, and notes the lines of a page in it.
pub(super) fn screen(frame: &mut Frame<'_>, state: &mut State) {
    let rows = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ];
    let [head, tabs, note, body, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(head_line(state, head.width), head);
    frame.render_widget(tab_line(state), tabs);
    frame.render_widget(note_line(state), note);
    view(frame, state, body);
    frame.render_widget(foot_line(state), foot);
    match state.cover {
        Cover::Help => cover::help(frame, body),
        Cover::Detail => cover::detail(frame, state, body),
        Cover::None | Cover::Filter => {}
    }
    if state.cover == Cover::Filter {
        let at = u16::try_from(FILTER.width() + state.place().filter.width()).unwrap_or(u16::MAX);
        frame.set_cursor_position((at.min(foot.width.saturating_sub(1)), foot.y));
    }
}

fn head_line(state: &State, width: u16) -> Line<'static> {
    let readings = &state.shown;
    let nodes = match readings.nodes.as_slice() {
        [] => String::new(),
        nodes if nodes.len() <= 4 => format!("  {}", nodes.join(", ")),
        nodes => format!("  {} nodes", nodes.len()),
    };
    let status = match (&state.away, state.is_paused, readings.time.is_empty()) {
        (Some(_), _, _) => " AWAY ".to_owned(),
        (None, true, _) => format!(" PAUSED at {} UTC ", readings.time),
        (None, false, true) => " connecting ".to_owned(),
        (None, false, false) => format!(" live {} UTC ", readings.time),
    };
    let left = format!(" Meridian  {}{nodes}", state.server);
    let room = usize::from(width).saturating_sub(status.width());
    let status = Span::from(status).bold();
    let status = if state.away.is_some() { status.fg(Color::Red) } else { status };
    Line::from(vec![Span::from(fit(&left, room, false)), status]).style(Style::new().reversed())
}

fn tab_line(state: &State) -> Line<'static> {
    let mut spans = vec![Span::from(" ")];
    for (at, view) in View::ALL.iter().enumerate() {
        let name = format!(" {} {} ", at + 1, view.name());
        spans.push(if *view == state.view { Span::from(name).reversed().bold() } else { Span::from(name) });
        spans.push(Span::from(" "));
    }
    if state.view != View::Findings {
        spans.push(Span::from(format!("  {}", state.unit.name())).italic());
    }
    Line::from(spans)
}

/// What is wrong, or how much crosses.
fn note_line(state: &State) -> Line<'static> {
    if let Some(reason) = &state.away {
        let text = if state.shown.time.is_empty() {
            String::new()
        } else {
            format!("the numbers are of {}; ", state.shown.time)
        };
        return Line::from(format!("  {text}trying again: {reason}")).fg(Color::Red).bold();
    }
    if matches!(state.unit, Unit::Cost | Unit::Month) && state.view != View::Findings {
        match &state.prices {
            None => return Line::from("  asking for prices"),
            Some(Err(reason)) => return Line::from(format!("  no prices: {reason}")).fg(Color::Red),
            Some(Ok(_)) => {}
        }
    }
    let (crossing, all) = state.shown.sums();
    if all.bytes == 0 {
        return Line::default();
    }
    let unit = if state.view == View::Findings { Unit::Month } else { state.unit };
    let mut text = format!("  across zones and regions: {}", crossing.text(unit));
    if matches!(unit, Unit::Rate | Unit::Total) {
        let (part, whole) = (crossing.value(unit), all.value(unit));
        text.push_str(&format!(" of {}", all.text(unit)));
        if whole > 0.0 && part >= 0.0 {
            text.push_str(&format!(" ({:.0} %)", 100.0 * part / whole));
        }
    } else if unit == Unit::Month {
        text.push_str(" a month at this rate");
    }
    for (reason, bytes) in state.shown.caveats.iter().take(3) {
        text.push_str(&format!(" · {reason} {}", crate::units::human(*bytes)));
    }
    Line::from(text)
}

const FILTER: &str = " filter: ";

fn foot_line(state: &State) -> Line<'static> {
    if state.cover == Cover::Filter {
        return Line::from(format!("{FILTER}{}", state.place().filter)).bold();
    }
    let mut spans = Vec::new();
    // Before the keys: the end of a narrow line is cut.
    let only = state.only.as_ref().map(PairFilter::name);
    for text in only.iter().chain([&state.place().filter]).filter(|text| !text.is_empty()) {
        spans.extend([Span::from(" "), Span::from(format!(" {text} ")).reversed()]);
    }
    spans.push(Span::from(" "));
    let pause = if state.is_paused { "go on" } else { "pause" };
    let mut keys = vec![
        ("q", "quit"),
        ("?", "help"),
        ("/", "filter"),
        ("s", "sort"),
        ("r", "reverse"),
        ("u", "unit"),
        ("p", pause),
    ];
    keys.push(match state.view {
        View::Pairs | View::Findings => ("Enter", "detail"),
        View::Zones | View::Workloads => ("Enter", "pairs"),
    });
    for (key, meaning) in keys {
        spans.extend([Span::from(key).bold(), Span::from(format!(" {meaning}  "))]);
    }
    Line::from(spans)
}

fn view(frame: &mut Frame<'_>, state: &mut State, body: Rect) {
    let table = state.table();
    if let Some(text) = nothing(state, &table) {
        let area = Rect {
            x: body.x + 2,
            y: body.y + 1,
            width: body.width.saturating_sub(4),
            height: body.height.saturating_sub(1),
        };
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area.intersection(frame.area()));
        return;
    }
    let mut list = body;
    if state.view == View::Zones {
        let room = body.height.saturating_sub(LIST);
        let height = matrix::draw(frame, &state.shown, state.unit, Rect { height: room, ..body });
        list.y += height;
        list.height -= height;
    }
    state.page = usize::from(list.height.saturating_sub(2));
    lines::draw(frame, state, &table, list);
}

/// Why a view is empty, in words.
fn nothing(state: &State, table: &Table) -> Option<String> {
    if !table.lines.is_empty() {
        return None;
    }
    let is_counted = !state.shown.time.is_empty();
    let text = match (state.view, &state.advice) {
        (View::Findings, None) => "asking for advice".to_owned(),
        (View::Findings, Some(Err(reason))) => {
            format!(
                "No advice: {reason}\n\n--http names the HTTP port of a controller, or of an agent without one. It is asked every 30 s."
            )
        }
        (View::Findings, Some(Ok(advice))) if !advice.findings.is_empty() => filtered(state),
        (View::Findings, Some(Ok(advice))) if advice.recorded < advice.needed => {
            let (needed, recorded) = (time(advice.needed), time(advice.recorded));
            format!("Advice needs {needed} of recorded time; {recorded} are recorded. Press a for findings from these.")
        }
        (View::Findings, Some(Ok(_))) => "Nothing to change saves a dollar a month or more.".to_owned(),
        _ if !is_counted && state.away.is_some() => {
            format!("No counters: {} is away. It is tried again every 2 s.", state.server)
        }
        _ if !is_counted => format!("Connecting to {}", state.server),
        _ if !state.place().filter.is_empty() => filtered(state),
        (View::Pairs, _) if let Some(only) = &state.only => {
            format!("No listed pair of pods belongs to `{}`. Esc shows all pairs.", only.name())
        }
        (View::Zones, _) => "No traffic was counted since the programs were loaded.".to_owned(),
        (View::Workloads, _) => "No listed pair of pods has traffic across zones.".to_owned(),
        (View::Pairs, _) => "No traffic has a pair of pods.".to_owned(),
    };
    Some(text)
}

fn filtered(state: &State) -> String {
    format!("No line holds `{}`. Esc clears the filter.", state.place().filter)
}

fn time(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests;
