//! Keys and their effects.

use super::{
    pair_filter::PairFilter,
    state::{Cover, State},
    table::View,
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What the session does after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    /// Show the state.
    Show,
    /// Ask the HTTP port again.
    Ask,
    /// End.
    End,
}

/// The lines that a page key moves a detail by.
const SCROLL: u16 = 5;

/// The keys, for the help.
pub(super) const HELP: [(&str, &str); 14] = [
    ("1 2 3 4, Tab", "zones, pairs of pods, workloads, findings"),
    ("↑ ↓ j k", "choose a line; PgUp, PgDn, Home, End"),
    ("Enter", "detail of a pair or finding; pairs of a zone pair or workload"),
    ("Esc", "close; clear the filter; all pairs again"),
    ("/", "filter: lines that hold every word"),
    ("s, r", "sort by the next column; reverse"),
    ("u", "bytes a second, bytes, cost, dollars a month"),
    ("p, Space", "pause, and go on"),
    ("a", "findings from however little is recorded"),
    ("?", "this help"),
    ("q, Ctrl-C", "quit"),
    ("", ""),
    ("unpriced", "traffic without a price; +: a part has none"),
    ("unknown", "a place without a known zone; never counted as crossing"),
];

/// Changes the state as a key means.
pub(super) fn press(state: &mut State, key: KeyEvent) -> KeyAction {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return if matches!(key.code, KeyCode::Char('c' | 'd')) { KeyAction::End } else { KeyAction::Show };
    }
    match state.cover {
        Cover::Filter => typed(state, key.code),
        Cover::Help => {
            state.cover = Cover::None;
            if key.code == KeyCode::Char('q') { KeyAction::End } else { KeyAction::Show }
        }
        Cover::Detail | Cover::None => command(state, key.code),
    }
}

fn typed(state: &mut State, code: KeyCode) -> KeyAction {
    match code {
        KeyCode::Char(character) => state.type_filter(character),
        KeyCode::Backspace => drop(state.place_mut().filter.pop()),
        KeyCode::Esc => {
            state.place_mut().filter.clear();
            state.cover = Cover::None;
        }
        KeyCode::Enter => state.cover = Cover::None,
        _ => {}
    }
    KeyAction::Show
}

fn command(state: &mut State, code: KeyCode) -> KeyAction {
    let page = state.page.max(1);
    match code {
        KeyCode::Char('q') => return KeyAction::End,
        KeyCode::Char('?') | KeyCode::F(1) => state.cover = Cover::Help,
        KeyCode::Char('/') => state.cover = Cover::Filter,
        KeyCode::Char(digit @ '1'..='4') => state.show(View::ALL[digit as usize - '1' as usize]),
        KeyCode::Tab => state.show(View::ALL[(state.view as usize + 1) % View::ALL.len()]),
        KeyCode::BackTab => state.show(View::ALL[(state.view as usize + View::ALL.len() - 1) % View::ALL.len()]),
        KeyCode::Up | KeyCode::Char('k') => state.choose(|at, _| at.saturating_sub(1)),
        KeyCode::Down | KeyCode::Char('j') => state.choose(|at, _| at + 1),
        KeyCode::PageUp if state.cover == Cover::Detail => state.scroll = state.scroll.saturating_sub(SCROLL),
        KeyCode::PageDown if state.cover == Cover::Detail => state.scroll = state.scroll.saturating_add(SCROLL),
        KeyCode::PageUp => state.choose(|at, _| at.saturating_sub(page)),
        KeyCode::PageDown => state.choose(|at, _| at + page),
        KeyCode::Home | KeyCode::Char('g') => state.choose(|_, _| 0),
        KeyCode::End | KeyCode::Char('G') => state.choose(|_, last| last),
        KeyCode::Char('s') => state.sort_next(),
        KeyCode::Char('r') => {
            let sort = &mut state.place_mut().sort;
            sort.is_reversed = !sort.is_reversed;
        }
        KeyCode::Char('u') => state.unit = state.unit.next(),
        KeyCode::Char('p' | ' ') => state.pause(),
        KeyCode::Char('a') => {
            state.is_early = !state.is_early;
            state.advice = None;
            return KeyAction::Ask;
        }
        KeyCode::Enter => enter(state),
        KeyCode::Esc if state.cover == Cover::Detail => state.cover = Cover::None,
        KeyCode::Esc => state.show_all(),
        _ => {}
    }
    KeyAction::Show
}

/// A pair or a finding in full; of anything else, its pairs.
fn enter(state: &mut State) {
    // The line stays chosen while others overtake it.
    state.choose(|at, _| at);
    let table = state.table();
    let Some(line) = table.lines.get(state.chosen(&table)) else { return };
    match state.view {
        View::Pairs | View::Findings => {
            state.cover = if state.cover == Cover::Detail { Cover::None } else { Cover::Detail };
        }
        View::Zones | View::Workloads => {
            let only = PairFilter::of(state.view, line);
            state.show(View::Pairs);
            state.show_all();
            state.only = only;
        }
    }
}
