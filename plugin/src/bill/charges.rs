//! The transfer between zones that a bill charges for, by day and resource, in bounded memory.

use super::{amount::Amount, day::Day, invalid::InvalidLine};
use crate::history::Names;
use ahash::AHashMap;

/// Sums by day and resource, and instances. Beyond a limit they are [`Resource::Further`].
const MAX_SUMS: usize = 900_000;
const MAX_INSTANCES: usize = 200_000;
/// Bytes of an instance's key.
const MAX_KEY: usize = 200;

/// The resource that a bill charges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// A machine: its instance ID on AWS, `PROJECT/NAME` on Google Cloud.
    Instance(String),
    /// Load balancers.
    LoadBalancer,
    /// NAT gateways.
    NatGateway,
    /// Managed databases and caches.
    Database,
    /// Traffic by way of public addresses.
    PublicAddress,
    /// Any other resource.
    Other,
    /// A line that names none.
    None,
    /// Instances beyond the limit.
    Further,
}

/// The resources that are no instances, by their number.
const CLASSES: [Resource; 7] = [
    Resource::LoadBalancer,
    Resource::NatGateway,
    Resource::Database,
    Resource::PublicAddress,
    Resource::Other,
    Resource::None,
    Resource::Further,
];

/// Sums by day and resource.
#[derive(Debug, Default)]
pub struct Charges {
    instances: Names<String>,
    sums: AHashMap<(Day, u32), Amount>,
    lines: u64,
}

impl Charges {
    /// Adds a line.
    pub(super) fn add(&mut self, day: Day, resource: &Resource, amount: Amount) -> Result<(), InvalidLine> {
        self.lines += 1;
        let number = match resource {
            Resource::Instance(key) if key.len() > MAX_KEY => class(&Resource::Other),
            Resource::Instance(key) => match self.instances.find(key.as_str()) {
                Some(number) => CLASSES.len() as u32 + number,
                None if self.instances.len() < MAX_INSTANCES => CLASSES.len() as u32 + self.instances.number(key),
                None => class(&Resource::Further),
            },
            other => class(other),
        };
        let is_known = self.sums.len() < MAX_SUMS || self.sums.contains_key(&(day, number));
        let number = if is_known { number } else { class(&Resource::Further) };
        let sum = self.sums.entry((day, number)).or_default();
        *sum = sum.plus(amount).ok_or(InvalidLine::TooMuch)?;
        Ok(())
    }

    /// The lines that were added.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// The first day and the last one.
    pub fn days(&self) -> Option<(Day, Day)> {
        let days = self.sums.keys().map(|(day, _)| *day);
        days.clone().min().zip(days.max())
    }

    /// The bytes of each day and resource, by day.
    pub(super) fn sorted(&self) -> Vec<(Day, Resource, u64)> {
        let names: Vec<&String> = self.instances.iter().collect();
        let resource = |number: u32| {
            let instance = (number as usize).checked_sub(CLASSES.len()).map(|at| names[at]);
            instance.map_or_else(|| CLASSES[number as usize].clone(), |key| Resource::Instance(key.clone()))
        };
        let mut sums: Vec<(Day, u32, u64)> =
            self.sums.iter().map(|((day, number), sum)| (*day, *number, sum.bytes())).collect();
        sums.sort_unstable();
        sums.into_iter().map(|(day, number, bytes)| (day, resource(number), bytes)).collect()
    }
}

fn class(resource: &Resource) -> u32 {
    // The last class is the one of what has no other.
    CLASSES.iter().position(|class| class == resource).unwrap_or(CLASSES.len() - 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::BillUnit;

    #[test]
    fn a_bill_of_any_number_of_instances_has_bounded_sums_and_loses_nothing() {
        let mut charges = Charges::default();
        let byte = Amount::parse("1", BillUnit::Byte).unwrap();
        for number in 0..MAX_INSTANCES + 10 {
            charges.add(Day::of(0), &Resource::Instance(format!("i-{number:x}")), byte).unwrap();
        }
        charges.add(Day::of(0), &Resource::Instance("i".repeat(MAX_KEY + 1)), byte).unwrap();
        assert_eq!(charges.instances.len(), MAX_INSTANCES);
        let sums = charges.sorted();
        assert_eq!(sums.iter().map(|(_, _, bytes)| bytes).sum::<u64>(), MAX_INSTANCES as u64 + 11);
        assert!(
            sums.contains(&(Day::of(0), Resource::Further, 10)) && sums.contains(&(Day::of(0), Resource::Other, 1))
        );
    }
}
