//! The growth of counters, from their values at the edges of the hours.

use ahash::AHashMap;
use std::collections::BTreeMap;

/// The values of a counter's labels.
pub(super) type Labels = Vec<String>;

/// The limit of series.
const MAX_SERIES: usize = 200_000;

/// There are too many series.
#[derive(Debug)]
pub(super) struct TooMany;

/// The growth so far. A series belongs to a group whose counters begin together: a node, or the cluster (an empty name).
#[derive(Debug, Default)]
pub(super) struct Edges {
    series: AHashMap<Labels, Counter>,
    groups: BTreeMap<String, Group>,
    first_edge: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    value: u64,
    growth: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// The last edge at which it had a series, or 0.
    seen: u64,
    recorded: u64,
}

/// The values at one edge.
#[derive(Debug, Default)]
pub(super) struct Edge {
    /// With the group of each.
    pub(super) values: Vec<(String, Labels, u64)>,
    /// When the counters of a group began, where that is known.
    pub(super) began: BTreeMap<String, f64>,
}

impl Edges {
    /// Adds the values at an edge; edges come in the order of time.
    pub(super) fn add(&mut self, time: u64, edge: &Edge) -> Result<(), TooMany> {
        let restarted = self.restarted(edge);
        let mut room = MAX_SERIES.saturating_sub(self.series.len());
        let mut seen: BTreeMap<&str, bool> = BTreeMap::new();
        for (group, labels, value) in &edge.values {
            let is_cluster = group.is_empty();
            let is_from_zero = self.is_from_zero(group, edge) && !(is_cluster && restarted);
            seen.entry(group).or_insert(is_from_zero);
            match self.series.get_mut(labels) {
                Some(counter) => {
                    let fell = *value < counter.value;
                    // The cluster's totals begin again with what its nodes have counted so far.
                    let growth = if !fell {
                        *value - counter.value
                    } else if is_cluster {
                        0
                    } else {
                        *value
                    };
                    counter.growth = counter.growth.saturating_add(growth);
                    counter.value = *value;
                }
                None => {
                    room = room.checked_sub(1).ok_or(TooMany)?;
                    let growth = if is_from_zero { *value } else { 0 };
                    self.series.insert(labels.clone(), Counter { value: *value, growth });
                }
            }
        }
        for (name, is_from_zero) in seen {
            let began = edge.began.get(name).map_or(time, |began| *began as u64);
            let group = self.groups.entry(name.to_owned()).or_default();
            let since = match group.seen {
                0 if is_from_zero => began.min(time),
                0 => time,
                seen => seen,
            };
            group.recorded += time.saturating_sub(since);
            group.seen = time;
        }
        self.first_edge.get_or_insert(time);
        Ok(())
    }

    /// Whether a total of the cluster fell: its process began again.
    fn restarted(&self, edge: &Edge) -> bool {
        let of_cluster = edge.values.iter().filter(|(group, ..)| group.is_empty());
        of_cluster.into_iter().any(|(_, labels, value)| self.series.get(labels).is_some_and(|it| *value < it.value))
    }

    /// Whether a new series of a group began at zero: its counters are known from before, or began within the range.
    fn is_from_zero(&self, group: &str, edge: &Edge) -> bool {
        let began_within =
            edge.began.get(group).zip(self.first_edge).is_some_and(|(began, first)| *began >= first as f64);
        self.groups.contains_key(group) || began_within
    }

    /// The growth of each series.
    pub(super) fn growth(&self) -> impl Iterator<Item = (&Labels, u64)> {
        self.series.iter().map(|(labels, counter)| (labels, counter.growth))
    }

    /// The growth of a series.
    pub(super) fn of(&self, labels: &Labels) -> u64 {
        self.series.get(labels).map_or(0, |counter| counter.growth)
    }

    /// The groups with the seconds for which their growth is known.
    pub(super) fn recorded(&self) -> impl Iterator<Item = (&str, u64)> {
        self.groups.iter().map(|(name, group)| (name.as_str(), group.recorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(values: &[(&str, &str, u64)], began: &[(&str, f64)]) -> Edge {
        let values = values.iter().map(|(group, name, value)| ((*group).to_owned(), vec![(*name).to_owned()], *value));
        Edge { values: values.collect(), began: began.iter().map(|(name, time)| ((*name).to_owned(), *time)).collect() }
    }

    fn growth(edges: &[(u64, Edge)]) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
        let mut sum = Edges::default();
        for (time, edge) in edges {
            sum.add(*time, edge).unwrap();
        }
        let growth = sum.growth().map(|(labels, growth)| (labels[0].clone(), growth)).collect();
        (growth, sum.recorded().map(|(name, seconds)| (name.to_owned(), seconds)).collect())
    }

    #[test]
    fn a_counter_grows_from_its_first_edge_and_from_zero_after_a_restart() {
        let edges = [
            (3600, edge(&[("n", "a", 100)], &[])),
            (7200, edge(&[("n", "a", 150), ("n", "new", 7)], &[])),
            // Nobody scraped at 10800; the node began again meanwhile.
            (10_800, edge(&[], &[])),
            (14_400, edge(&[("n", "a", 30), ("n", "new", 9)], &[])),
        ];
        let (sums, recorded) = growth(&edges);
        assert_eq!(sums, BTreeMap::from([("a".to_owned(), 80), ("new".to_owned(), 9)]));
        assert_eq!(recorded["n"], 10_800);
    }

    #[test]
    fn a_node_that_began_within_the_range_counts_from_zero_and_another_from_its_first_value() {
        let edges = [
            (3600, edge(&[], &[])),
            (7200, edge(&[("new", "a", 5), ("old", "b", 1_000_000)], &[("new", 4000.5), ("old", 17.0)])),
            (7300, edge(&[("new", "a", 6), ("old", "b", 1_000_001)], &[("new", 4000.5), ("old", 17.0)])),
        ];
        let (sums, recorded) = growth(&edges);
        assert_eq!(sums, BTreeMap::from([("a".to_owned(), 6), ("b".to_owned(), 1)]));
        assert_eq!((recorded["new"], recorded["old"]), (3300, 100));
    }

    #[test]
    fn totals_of_a_cluster_that_fell_are_those_of_another_process_and_count_from_there() {
        let edges = [
            (3600, edge(&[("", "a", 100), ("", "b", 10)], &[])),
            (7200, edge(&[("", "a", 60), ("", "b", 12), ("", "c", 500)], &[])),
            (10_800, edge(&[("", "a", 61), ("", "b", 13), ("", "c", 501), ("", "d", 3)], &[])),
        ];
        let sums = growth(&edges).0;
        let expected = [("a", 1), ("b", 3), ("c", 1), ("d", 3)].map(|(name, sum)| (name.to_owned(), sum));
        assert_eq!(sums, BTreeMap::from(expected));
    }

    #[test]
    fn more_series_than_there_is_room_for_are_refused() {
        let names: Vec<String> = (0..=MAX_SERIES).map(|n| n.to_string()).collect();
        let values: Vec<(&str, &str, u64)> = names.iter().map(|name| ("n", name.as_str(), 1)).collect();
        let mut edges = Edges::default();
        assert!(edges.add(0, &edge(&values[1..], &[])).is_ok());
        assert!(edges.add(1, &edge(&values[..1], &[])).is_err());
    }
}
