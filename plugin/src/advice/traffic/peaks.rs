//! The 95th percentile of hourly sums, in bounded memory: the highest ones are kept.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Hours that are kept: the upper twentieth of 31 days.
const HOURS_AT_THE_TOP: usize = 38;

/// The highest of hourly sums.
#[derive(Clone, Debug, Default)]
pub(super) struct Peaks {
    /// The lowest of them is on top.
    highest: BinaryHeap<Reverse<u64>>,
}

impl Peaks {
    /// Adds some hours of this load.
    pub(super) fn add(&mut self, load: u64, hours: u64) {
        for _ in 0..hours.min(HOURS_AT_THE_TOP as u64) {
            if self.highest.len() < HOURS_AT_THE_TOP {
                self.highest.push(Reverse(load));
                continue;
            }
            let Some(mut lowest) = self.highest.peek_mut().filter(|lowest| lowest.0 < load) else { return };
            *lowest = Reverse(load);
        }
    }

    /// The load that at most a twentieth of `hours` exceed; hours that were not added have none. Of a longer time than
    /// 31 days the load is that of fewer hours, so never too low.
    pub(super) fn percentile_95(&self, hours: u64) -> u64 {
        let above = usize::try_from(hours / 20).unwrap_or(usize::MAX).min(HOURS_AT_THE_TOP - 1);
        let mut highest: Vec<u64> = self.highest.iter().map(|Reverse(load)| *load).collect();
        highest.sort_unstable_by_key(|load| Reverse(*load));
        highest.get(above).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

    #[test]
    fn the_percentile_is_that_of_all_hours_in_any_order() {
        let mut random = StdRng::seed_from_u64(3);
        for hours in [1, 2, 19, 20, 21, 168, 744] {
            let mut loads: Vec<u64> = (0..hours).map(|_| random.random_range(0..1000)).collect();
            loads.shuffle(&mut random);
            let mut peaks = Peaks::default();
            loads.iter().for_each(|load| peaks.add(*load, 1));
            loads.sort_unstable();
            let rank = (hours as usize * 95).div_ceil(100);
            assert_eq!(peaks.percentile_95(hours), loads[rank - 1], "{hours}");
            assert!(peaks.highest.len() <= HOURS_AT_THE_TOP);
        }
    }

    #[test]
    fn hours_without_load_count() {
        let mut peaks = Peaks::default();
        peaks.add(100, 3);
        assert_eq!([1, 59, 60, 1000].map(|hours| peaks.percentile_95(hours)), [100, 100, 0, 0]);
    }
}
