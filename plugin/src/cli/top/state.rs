//! What the screen shows: the view, its order and filter, and what has arrived so far. Pure: keys and updates change it,
//! `draw` shows it.

use super::{
    amount::{Prices, Unit},
    pair_filter::PairFilter,
    readings::{PodRoute, Readings},
    table::{Sort, Table, View},
    update::{Advice, Answer, Update},
};
use crate::proto::v1::WatchResponse;

/// The longest filter.
const FILTER: usize = 200;

/// The order of a view's lines, the filter, and the chosen line.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) sort: Sort,
    pub(super) filter: String,
    /// The key of the chosen line, and where it was last: the line may go.
    pub(super) chosen: Option<String>,
    pub(super) at: usize,
}

/// What covers a part of the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cover {
    #[default]
    None,
    Help,
    Detail,
    /// The filter is being typed.
    Filter,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    /// The server whose counters are shown.
    pub(super) server: String,
    pub(super) view: View,
    pub(super) places: [Place; 4],
    /// The limit of the pairs, after Enter on a line of another view.
    pub(super) only: Option<PairFilter>,
    pub(super) unit: Unit,
    pub(super) cover: Cover,
    /// The first line of a detail that is longer than the screen; `draw` bounds it.
    pub(super) scroll: u16,
    /// The rows that a page key moves by; `draw` sets it.
    pub(super) page: usize,
    pub(super) is_paused: bool,
    /// Whether findings from little recorded time are asked for.
    pub(super) is_early: bool,
    /// Why there are no newer counters.
    pub(super) away: Option<String>,
    pub(super) shown: Readings,
    latest: Readings,
    pub(super) prices: Option<Answer<Prices>>,
    pub(super) advice: Option<Answer<Advice>>,
}

impl State {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            view: View::default(),
            places: Default::default(),
            only: None,
            unit: Unit::default(),
            cover: Cover::default(),
            scroll: 0,
            page: 10,
            is_paused: false,
            is_early: false,
            away: None,
            shown: Readings::default(),
            latest: Readings::default(),
            prices: None,
            advice: None,
        }
    }

    /// Takes what has arrived.
    pub(super) fn update(&mut self, update: Update) {
        match update {
            Update::Counters(answer) => self.count(&answer),
            Update::Away(reason) => self.away = Some(reason),
            Update::Advice(advice) => self.advice = Some(advice),
            Update::Prices(prices) => {
                // The last prices stay while their server is away.
                if prices.is_ok() || !matches!(self.prices, Some(Ok(_))) {
                    self.prices = Some(prices);
                }
                if let Some(Ok(prices)) = &self.prices {
                    self.latest.price(prices);
                    self.shown.price(prices);
                }
            }
        }
    }

    fn count(&mut self, answer: &WatchResponse) {
        self.away = None;
        let none = Prices::new();
        let prices = self.prices.as_ref().and_then(|prices| prices.as_ref().ok()).unwrap_or(&none);
        self.latest = self.latest.after(answer, prices);
        if !self.is_paused {
            self.shown = self.latest.clone();
        }
    }

    /// Stops the numbers, or shows the latest.
    pub(super) fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if !self.is_paused {
            self.shown = self.latest.clone();
        }
    }

    pub(super) fn place(&self) -> &Place {
        &self.places[self.view as usize]
    }

    pub(super) fn place_mut(&mut self) -> &mut Place {
        &mut self.places[self.view as usize]
    }

    /// The lines of the view, filtered and in their order.
    pub(super) fn table(&self) -> Table {
        let none = Advice::default();
        let advice = self.advice.as_ref().and_then(|advice| advice.as_ref().ok()).unwrap_or(&none);
        let mut table = match self.view {
            View::Zones => Table::zones(&self.shown, self.unit),
            View::Pairs => {
                let is_shown = |pair: &PodRoute| self.only.as_ref().is_none_or(|only| only.holds(pair));
                Table::pairs(&self.shown, is_shown, self.unit)
            }
            View::Workloads => Table::workloads(&self.shown, self.unit),
            View::Findings => Table::findings(advice),
        };
        table.filter(&self.place().filter);
        table.sort(self.place().sort, self.unit);
        table
    }

    /// The place of the chosen line: where its key is now, or as near as the list allows.
    pub(super) fn chosen(&self, table: &Table) -> usize {
        let place = self.place();
        let known = |key: &String| table.lines.iter().position(|line| line.key == *key);
        let at = place.chosen.as_ref().and_then(known).unwrap_or(place.at);
        at.min(table.lines.len().saturating_sub(1))
    }

    /// Moves the choice.
    pub(super) fn choose(&mut self, step: impl FnOnce(usize, usize) -> usize) {
        let table = self.table();
        let last = table.lines.len().saturating_sub(1);
        let at = step(self.chosen(&table), last).min(last);
        let key = table.lines.get(at).map(|line| line.key.clone());
        let place = self.place_mut();
        (place.at, place.chosen) = (at, key);
        self.scroll = 0;
    }

    /// The next column to sort by; after the last one, the number that is shown.
    pub(super) fn sort_next(&mut self) {
        let table = self.table();
        let at = table.sorted_column(self.place().sort, self.unit);
        let next = table.columns.get((at + 1) % table.columns.len().max(1)).map(|column| column.title);
        self.place_mut().sort = Sort { title: next, is_reversed: false };
    }

    pub(super) fn show(&mut self, view: View) {
        self.view = view;
        self.cover = Cover::None;
        self.only = None;
    }

    /// Shows all lines again.
    pub(super) fn show_all(&mut self) {
        self.place_mut().filter.clear();
        self.only = None;
    }

    pub(super) fn type_filter(&mut self, character: char) {
        let filter = &mut self.place_mut().filter;
        if !character.is_control() && filter.chars().count() < FILTER {
            filter.push(character);
        }
    }
}
