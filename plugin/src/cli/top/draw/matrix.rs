//! Zones of senders against zones of receivers.

use super::text::{cut, fit, style_of};
use crate::cli::top::{
    amount::{Amount, Unit},
    readings::Readings,
};
use ratatui::{
    Frame,
    layout::Rect,
    style::{Style, Stylize},
    text::{Line, Span},
    widgets::Paragraph,
};
use std::{cmp::Reverse, collections::BTreeMap};
use unicode_width::UnicodeWidthStr;

/// Columns of a cell, and of a zone's name at most.
const CELL: usize = 11;
const NAME: usize = 20;
/// What zones beyond the screen are called.
const OTHERS: &str = "(others)";

/// Draws as many zones as there is room for, those with the most traffic first; the rest is summed. Returns the rows.
pub(super) fn draw(frame: &mut Frame<'_>, readings: &Readings, unit: Unit, area: Rect) -> u16 {
    let zones = zones(readings);
    let name = zones.iter().map(|zone| zone.width()).max().unwrap_or_default().clamp("FROM \\ TO".len(), NAME);
    let cell = zones.iter().map(|zone| zone.width()).max().unwrap_or_default().clamp(CELL, NAME);
    let columns = usize::from(area.width).saturating_sub(name + 2) / (cell + 1);
    // A head, and a line below.
    let fitting = columns.min(usize::from(area.height.saturating_sub(2)));
    if fitting < 2 {
        return 0;
    }
    let shown: Vec<&str> = match zones.len() <= fitting {
        true => zones.iter().map(String::as_str).collect(),
        false => zones.iter().take(fitting - 1).map(String::as_str).chain([OTHERS]).collect(),
    };
    let cells = cells(readings, &shown);
    let mut lines = vec![head(&shown, name, cell)];
    for source in &shown {
        let mut spans = vec![Span::from(format!("  {}", fit(source, name, false))).bold()];
        for destination in &shown {
            let (text, style) = match cells.get(&(*source, *destination)) {
                Some((amount, locality)) => (amount.text(unit), style_of(locality)),
                None => ("·".to_owned(), Style::new().dim()),
            };
            spans.push(Span::styled(format!(" {}", fit(&text, cell, true)), style));
        }
        lines.push(Line::from(spans));
    }
    lines.push(Line::default());
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height);
    frame.render_widget(Paragraph::new(lines), Rect { height, ..area });
    height
}

fn head(zones: &[&str], name: usize, cell: usize) -> Line<'static> {
    let mut spans = vec![Span::from(format!("  {}", fit("FROM \\ TO", name, false))).bold()];
    spans.extend(zones.iter().map(|zone| Span::from(format!(" {}", fit(&cut(zone, cell), cell, true))).bold()));
    Line::from(spans)
}

/// The zones in the order of their traffic, places without a zone last.
fn zones(readings: &Readings) -> Vec<String> {
    let mut sums = BTreeMap::<&str, u64>::new();
    for (route, amount) in &readings.zones {
        for zone in [&route.source, &route.destination] {
            let sum = sums.entry(zone).or_default();
            *sum = sum.saturating_add(amount.bytes);
        }
    }
    let mut zones: Vec<(&str, u64)> = sums.into_iter().collect();
    zones.sort_by_key(|(zone, sum)| (matches!(*zone, "unknown" | "internet"), Reverse(*sum)));
    zones.into_iter().map(|(zone, _)| zone.to_owned()).collect()
}

/// Traffic by shown zone, with its locality; sums of others have none.
fn cells<'a>(readings: &Readings, shown: &[&'a str]) -> BTreeMap<(&'a str, &'a str), (Amount, String)> {
    let place = |zone: &str| shown.iter().copied().find(|known| *known == zone).unwrap_or(OTHERS);
    let mut cells = BTreeMap::<_, (Amount, String)>::new();
    for (route, amount) in &readings.zones {
        let key = (place(&route.source), place(&route.destination));
        let (sum, locality) = cells.entry(key).or_insert_with(|| (Amount::default(), route.locality.clone()));
        *sum += *amount;
        if *locality != route.locality {
            locality.clear();
        }
    }
    cells
}
