//! Which of two blocks of one time is kept.

use super::*;
use crate::{
    archive::Limits,
    historian::sample::{Sample, block},
    history::Builder,
};

const HOUR: u32 = Span::HOUR;
const DAY: u64 = Span::DAY as u64;
/// The open hour: the fourth of the second day.
const NOW: u64 = DAY + 3 * HOUR as u64;

fn hour(number: u64) -> Span {
    Span::hour_of(number * u64::from(HOUR))
}

fn adopt(sample: &Sample, block: &Block) -> CopyOutcome {
    sample.historian.adopt(block, block.encode().len() as u64).unwrap()
}

#[test]
fn of_two_blocks_the_one_with_the_better_coverage_is_kept_and_they_are_never_added() {
    let own = [block(hour(1), 10, 1800), block(hour(2), 20, HOUR - 5)];
    let sample = Sample::new("better", &own, (Limits::default(), NOW));
    assert_eq!([0, 1, 2].map(|at| sample.historian.lacks(hour(at))), [true, true, false]);
    assert_eq!(adopt(&sample, &block(hour(0), 1, HOUR)), CopyOutcome::Unchanged);
    assert_eq!(adopt(&sample, &block(hour(1), 7, 1799)), CopyOutcome::NoBetter);
    assert_eq!(adopt(&sample, &block(hour(1), 15, 1801)), CopyOutcome::Unchanged);
    assert_eq!(adopt(&sample, &block(hour(1), 16, 1801)), CopyOutcome::NoBetter, "equal coverage");
    assert_eq!([0, 1, 2].map(|at| sample.seen(hour(at)).unwrap().0), [1, 15, 20]);
    assert_eq!(sample.historian.sealed().len(), 3);
    assert_eq!(sample.historian.tally().copied.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[test]
fn seconds_beyond_the_hour_are_no_better_coverage() {
    let sample = Sample::new("beyond", &[block(hour(1), 10, HOUR)], (Limits::default(), NOW));
    assert_eq!(adopt(&sample, &block(hour(1), 99, u32::MAX)), CopyOutcome::NoBetter);
}

#[test]
fn the_open_hour_and_hours_to_come_are_never_copied_or_sent() {
    let sample = Sample::new("open", &[block(hour(27), 1, 10)], (Limits::default(), NOW));
    for span in [hour(27), hour(28), Span::day_of(DAY), Span { start: u64::MAX, seconds: HOUR }] {
        assert!(!sample.historian.lacks(span), "{span:?}");
        assert_eq!(sample.historian.encoded(span).unwrap(), None);
    }
    assert_eq!(adopt(&sample, &block(hour(27), 2, HOUR)), CopyOutcome::NoBetter);
    assert_eq!(adopt(&sample, &block(hour(90), 2, HOUR)), CopyOutcome::NoBetter);
    assert!(sample.historian.sealed().is_empty());
}

#[test]
fn blocks_too_old_to_be_kept_or_beyond_the_limit_are_not_copied() {
    let limits = Limits { hours: 3600, bytes: 700, ..Limits::default() };
    let sample = Sample::new("limits", &[], (limits, NOW));
    assert!(!sample.historian.lacks(hour(0)) && sample.historian.lacks(hour(26)));
    assert_eq!(adopt(&sample, &block(hour(26), 1, HOUR)), CopyOutcome::Unchanged);
    let results: Vec<CopyOutcome> = (10..20).map(|at| adopt(&sample, &block(hour(at), 1, HOUR))).collect();
    assert_eq!(results.last(), Some(&CopyOutcome::NoRoom));
    assert!(sample.historian.size().1 <= 700, "{:?}", sample.historian.size());
}

#[test]
fn a_damaged_block_is_replaced_by_that_of_another_replica() {
    let sample = Sample::new("damaged", &[block(hour(1), 10, HOUR)], (Limits::default(), NOW));
    std::fs::write(sample.folder.join("1970-01-01T01.block"), "nonsense").unwrap();
    assert!(sample.historian.lacks(hour(1)));
    assert_eq!(adopt(&sample, &block(hour(1), 11, HOUR)), CopyOutcome::Unchanged);
    assert_eq!(sample.seen(hour(1)), Some((11, HOUR)));
}

#[test]
fn a_day_is_made_anew_when_its_hours_became_better() {
    let day = Span::day_of(0);
    let sample = Sample::new("day", &[block(hour(0), 1, HOUR), block(day, 1, HOUR)], (Limits::default(), NOW));
    for at in 1..24 {
        assert_eq!(adopt(&sample, &block(hour(at), 1, HOUR)), CopyOutcome::Unchanged);
    }
    sample.historian.renew_days(&BTreeSet::from([day, Span::day_of(DAY)])).unwrap();
    assert_eq!(sample.seen(day), Some((24, 24 * HOUR)));
    assert_eq!(sample.seen(Span::day_of(DAY)), None, "a day that is not over");
    // A better day of another replica stays.
    let mut better = Builder::new(day, 100);
    better.absorb(&block(day, 30, 24 * HOUR));
    better.cover("n2", "", 1);
    assert_eq!(adopt(&sample, &better.block()), CopyOutcome::Unchanged);
    sample.historian.renew_days(&BTreeSet::from([day])).unwrap();
    assert_eq!(sample.seen(day), Some((30, 24 * HOUR)));
}
