//! Which blocks are kept, which become days, and which show a range. Pure.

use crate::history::{Builder, Span};
use std::collections::{BTreeMap, BTreeSet};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Seconds for which hours are kept.
    pub hours: u64,
    /// Seconds for which days are kept.
    pub days: u64,
    /// Bytes of all blocks.
    pub bytes: u64,
    /// The limit of rows of a day that have their own pair.
    pub rows: usize,
}

impl Default for Limits {
    /// Hours for 31 days, days for 13 months, in 512 MiB.
    fn default() -> Self {
        let day = u64::from(Span::DAY);
        Self { hours: 31 * day, days: 396 * day, bytes: 512 << 20, rows: Builder::MAX_ROOM }
    }
}

/// How long after its end a day is made of its hours: the last one may be written late.
const LATE: u64 = 2 * Span::HOUR as u64;

/// The hours of a day.
pub(super) fn hours(day: Span) -> impl Iterator<Item = Span> {
    (0..24).map(move |hour| Span { start: day.start + hour * u64::from(Span::HOUR), seconds: Span::HOUR })
}

/// Days that are over, and have hours but no block of their own.
pub(super) fn days_to_make(spans: impl Iterator<Item = Span>, now: u64) -> Vec<Span> {
    let (mut days, mut of_hours) = (BTreeSet::new(), BTreeSet::new());
    for span in spans {
        let day = Span::day_of(span.start);
        if span.seconds == Span::DAY {
            days.insert(day)
        } else {
            of_hours.insert(day)
        };
    }
    of_hours.into_iter().filter(|day| !days.contains(day) && day.end().saturating_add(LATE) <= now).collect()
}

/// The spans that show a range best: a day's block where all of the day is in the range, its hours otherwise, or where
/// there is no block of the day.
pub(super) fn best(spans: impl Iterator<Item = Span>, from: u64, to: u64) -> Vec<Span> {
    let spans: BTreeSet<Span> = spans.filter(|span| span.start >= from && span.end() <= to).collect();
    let has_day = |span: &Span| spans.contains(&Span::day_of(span.start));
    spans.iter().copied().filter(|span| span.seconds == Span::DAY || !has_day(span)).collect()
}

impl Limits {
    /// Whether the time for which a block is kept is over.
    pub(super) const fn is_too_old(&self, span: Span, now: u64) -> bool {
        let kept = if span.seconds == Span::DAY { self.days } else { self.hours };
        span.end().saturating_add(kept) <= now
    }

    /// Blocks to remove, because of their age or the limit: the oldest hours that are part of a day, then the oldest.
    pub(super) fn surplus(&self, blocks: &BTreeMap<Span, u64>, now: u64) -> Vec<Span> {
        let is_old = |span: &Span| {
            // An hour that is in no day yet is kept.
            let is_in_day = span.seconds == Span::DAY || blocks.contains_key(&Span::day_of(span.start));
            is_in_day && self.is_too_old(*span, now)
        };
        let mut surplus: Vec<Span> = blocks.keys().copied().filter(is_old).collect();
        let gone: BTreeSet<Span> = surplus.iter().copied().collect();
        let mut bytes: u64 = blocks.iter().filter(|(span, _)| !gone.contains(span)).map(|(_, bytes)| bytes).sum();
        let mut order: Vec<Span> = blocks.keys().copied().filter(|span| !gone.contains(span)).collect();
        order.sort_by_key(|span| {
            let is_in_day = span.seconds == Span::HOUR && blocks.contains_key(&Span::day_of(span.start));
            (!is_in_day, *span)
        });
        for span in order {
            if bytes <= self.bytes {
                break;
            }
            bytes -= blocks[&span];
            surplus.push(span);
        }
        surplus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = Span::DAY as u64;

    fn all(days: u64, with_days: bool) -> BTreeMap<Span, u64> {
        let mut blocks = BTreeMap::new();
        for day in (0..days).map(|day| Span::day_of(day * DAY)) {
            blocks.extend(hours(day).map(|hour| (hour, 10)));
            if with_days {
                blocks.insert(day, 20);
            }
        }
        blocks
    }

    #[test]
    fn a_day_is_made_when_its_last_hour_can_be_there() {
        let blocks = all(3, false);
        assert!(days_to_make(blocks.keys().copied(), DAY + LATE - 1).is_empty());
        assert_eq!(days_to_make(blocks.keys().copied(), 2 * DAY + LATE), [Span::day_of(0), Span::day_of(DAY)]);
        assert!(days_to_make(all(3, true).keys().copied(), 9 * DAY).is_empty());
    }

    #[test]
    fn a_range_is_shown_once_by_days_and_hours() {
        let blocks = all(3, true);
        let spans = best(blocks.keys().copied(), 22 * 3600, 2 * DAY + 3600);
        let seconds: u64 = spans.iter().map(|span| u64::from(span.seconds)).sum();
        assert_eq!((spans.len(), seconds), (4, 2 * DAY + 3600 - 22 * 3600));
        assert_eq!(best(all(2, false).keys().copied(), 0, 2 * DAY).len(), 48);
    }

    #[test]
    fn old_hours_go_once_they_are_in_a_day_and_the_oldest_go_first_where_there_is_no_room() {
        let limits = Limits { hours: 2 * DAY, days: 5 * DAY, bytes: 1 << 30, rows: 1 };
        let now = 7 * DAY;
        let surplus = limits.surplus(&all(7, true), now);
        assert_eq!(surplus.iter().filter(|span| span.seconds == Span::HOUR).count(), 5 * 24);
        assert_eq!(surplus.iter().filter(|span| span.seconds == Span::DAY).count(), 2);
        assert!(limits.surplus(&all(7, false), now).is_empty(), "an hour that is in no day yet is kept");
        let small = Limits { bytes: 3 * 260 - 35, days: 99 * DAY, hours: 99 * DAY, ..limits };
        let surplus = small.surplus(&all(3, true), now);
        assert_eq!(surplus, (0..4).map(|hour| Span::hour_of(hour * 3600)).collect::<Vec<_>>());
        let tiny = Limits { bytes: 20, ..small };
        assert_eq!(all(3, true).len() - tiny.surplus(&all(3, true), now).len(), 1);
    }
}
