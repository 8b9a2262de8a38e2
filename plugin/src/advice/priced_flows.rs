//! The flows of a snapshot with their prices, and which of them a finding is about: each flow is in one finding at most,
//! so that no byte is saved twice.

use super::{
    finding::Monthly,
    snapshot::Snapshot,
    traffic::{Flow, Traffic},
};
use crate::{
    cost::Money,
    zones::{Locality, Location},
};
use ahash::AHashMap;

/// A month of 730 hours, in milliseconds.
const MONTH_MS: u64 = 730 * 3600 * 1000;

/// The directions of a flow that are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    /// Both.
    All,
    /// The traffic to the client.
    Answers,
    /// None: the flow is explained.
    Nothing,
}

/// A sum in the range that was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) cost: Money,
    pub(super) unpriced_bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.cost += other.cost;
        self.unpriced_bytes = self.unpriced_bytes.saturating_add(other.unpriced_bytes);
    }
}

/// A flow with what its directions cost.
#[derive(Debug)]
pub(super) struct PricedFlow<'a> {
    pub(super) flow: Flow<'a>,
    pub(super) locality: Locality,
    amounts: [Amount; 2],
    is_assigned: bool,
}

impl<'a> PricedFlow<'a> {
    /// Whether it goes from one zone to another.
    pub(super) const fn crosses(&self) -> bool {
        matches!(self.locality, Locality::CrossZone | Locality::CrossRegion)
    }

    /// The names of the client's and of the server's place.
    pub(super) fn zones(&self) -> [&'a str; 2] {
        self.flow.sites.map(|site| site.place.name())
    }

    /// The sum of both directions.
    pub(super) fn amount(&self, saved: Saved) -> Amount {
        let [mut requests, answers] = self.amounts;
        match saved {
            Saved::All => {
                requests.add(answers);
                requests
            }
            Saved::Answers => answers,
            Saved::Nothing => Amount::default(),
        }
    }
}

/// All flows of a snapshot.
#[derive(Debug)]
pub(super) struct PricedFlows<'a> {
    pub(super) flows: Vec<PricedFlow<'a>>,
    recorded_ms: u64,
}

impl<'a> PricedFlows<'a> {
    pub(super) fn new(snapshot: &Snapshot<'a>) -> Self {
        let traffic: &'a Traffic = snapshot.traffic;
        let mut prices = AHashMap::new();
        let mut amount = |from: &'a Location, to: &'a Location, bytes: u64| {
            let sites = [from, to].map(|site| std::ptr::from_ref(site) as usize);
            let quote = prices.entry(sites).or_insert_with(|| snapshot.prices.quote(from, to));
            match quote.cost(bytes) {
                Some(charge) => Amount { bytes, cost: charge.total(), unpriced_bytes: 0 },
                None => Amount { bytes, cost: Money::ZERO, unpriced_bytes: bytes },
            }
        };
        let entry = |flow: Flow<'a>| {
            let [client, server] = flow.sites;
            let locality = Locality::between(&client.place, &server.place);
            let amounts = [amount(client, server, flow.bytes[0]), amount(server, client, flow.bytes[1])];
            PricedFlow { flow, locality, amounts, is_assigned: false }
        };
        Self { flows: traffic.flows().into_iter().map(entry).collect(), recorded_ms: traffic.recorded_ms() }
    }

    /// The numbers of the flows between zones that no finding is about yet.
    pub(super) fn unassigned(&self) -> impl Iterator<Item = (usize, &PricedFlow<'a>)> {
        self.flows.iter().enumerate().filter(|(_, entry)| entry.crosses() && !entry.is_assigned)
    }

    /// The sum of flows without a finding.
    pub(super) fn sum(&self, numbers: &[usize], saved: Saved) -> Amount {
        let mut sum = Amount::default();
        let flows = numbers.iter().map(|number| &self.flows[*number]);
        flows.filter(|entry| entry.crosses() && !entry.is_assigned).for_each(|entry| sum.add(entry.amount(saved)));
        sum
    }

    /// Claims flows for a finding: the bytes it saves, and all bytes.
    pub(super) fn assign(&mut self, numbers: &[usize], saved: Saved) -> [Amount; 2] {
        let mut sums = [Amount::default(); 2];
        for number in numbers {
            let entry = &mut self.flows[*number];
            if entry.crosses() && !std::mem::replace(&mut entry.is_assigned, true) {
                sums[0].add(entry.amount(saved));
                sums[1].add(entry.amount(Saved::All));
            }
        }
        sums
    }

    /// An amount in a month.
    pub(super) fn monthly(&self, amount: Amount) -> Monthly {
        Monthly {
            bytes: self.bytes_per_month(amount.bytes),
            cost: amount.cost.scaled(MONTH_MS, self.recorded_ms).estimated(),
            unpriced_bytes: self.bytes_per_month(amount.unpriced_bytes),
        }
    }

    pub(super) fn bytes_per_month(&self, bytes: u64) -> u64 {
        let scaled = u128::from(bytes) * u128::from(MONTH_MS) / u128::from(self.recorded_ms.max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }

    /// Everything between zones, in a month.
    pub(super) fn crossing(&self) -> Monthly {
        let mut sum = Amount::default();
        self.flows.iter().filter(|entry| entry.crosses()).for_each(|entry| sum.add(entry.amount(Saved::All)));
        self.monthly(sum)
    }
}
