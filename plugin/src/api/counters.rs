//! `meridian.v1.Counters`.

use super::services::counters_server::Counters;
use crate::{
    accounting::{Directed, LocatedPod},
    counters::CounterSnapshot,
    proto::v1::{PodPair, Reason, WatchRequest, WatchResponse, ZonePair},
    wire::{placed_endpoint, reason, zone_pair},
    zones::{Locality, Matrix},
};
use futures_util::stream::{self, BoxStream, StreamExt};
use meridian_abi as abi;
use prost_types::Timestamp;
use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The shortest interval: the counters are read this often.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest interval: a client that wants less than one response a day needs no stream.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Intervals without a response because a client was too slow, over all clients.
#[derive(Debug, Default)]
pub struct SkippedIntervals(pub AtomicU64);

/// Streams the counters of one or more nodes, or of a cluster.
#[derive(Debug)]
pub struct CountersService<S> {
    samples: watch::Receiver<Arc<[S]>>,
    missed_by_all: Arc<SkippedIntervals>,
    shutdown: CancellationToken,
}

impl<S> CountersService<S> {
    /// Streams `samples` until `shutdown`.
    pub fn new(samples: watch::Receiver<Arc<[S]>>, shutdown: CancellationToken) -> Self {
        Self { samples, missed_by_all: Arc::default(), shutdown }
    }

    /// The intervals that slow clients missed.
    pub fn missed(&self) -> Arc<SkippedIntervals> {
        Arc::clone(&self.missed_by_all)
    }
}

#[tonic::async_trait]
impl<S: AsRef<CounterSnapshot> + Send + Sync + 'static> Counters for CountersService<S> {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { interval, pairs } = request.into_inner();
        let refused = || {
            let (shortest, longest) = (SHORTEST.as_secs(), LONGEST.as_secs());
            Status::invalid_argument(format!("interval: it can be from {shortest} to {longest} seconds"))
        };
        let period = match interval {
            None => SHORTEST,
            Some(interval) => Duration::try_from(interval).map_err(|_| refused())?,
        };
        if !(SHORTEST..=LONGEST).contains(&period) {
            return Err(refused());
        }
        let watcher = Watcher {
            samples: self.samples.clone(),
            missed_by_all: Arc::clone(&self.missed_by_all),
            shutdown: self.shutdown.clone(),
            pairs: usize::try_from(pairs).unwrap_or(usize::MAX),
            period,
            ticks: None,
            due: Instant::now(),
            missed: 0,
            before: HashMap::new(),
        };
        let answers = stream::unfold(watcher, |mut watcher| async move { Some((Ok(watcher.next().await?), watcher)) });
        Ok(Response::new(answers.boxed()))
    }
}

type Pair = (Directed<LocatedPod>, Locality);

/// A stream in progress.
struct Watcher<S> {
    samples: watch::Receiver<Arc<[S]>>,
    missed_by_all: Arc<SkippedIntervals>,
    shutdown: CancellationToken,
    pairs: usize,
    period: Duration,
    /// `None` before the first response.
    ticks: Option<Interval>,
    /// The time of the next response.
    due: Instant,
    missed: u64,
    /// The bytes of each pair in the last response.
    before: HashMap<Pair, u64>,
}

impl<S: AsRef<CounterSnapshot>> Watcher<S> {
    async fn next(&mut self) -> Option<WatchResponse> {
        match &mut self.ticks {
            None => {
                tokio::select! {
                    () = self.shutdown.cancelled() => return None,
                    // Right after the start there may be no sample yet.
                    ready = self.samples.wait_for(|samples| !samples.is_empty()) => ready.ok().map(drop)?,
                }
                self.due = Instant::now() + self.period;
                let mut ticks = interval_at(self.due, self.period);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
                self.ticks = Some(ticks);
            }
            Some(ticks) => {
                // A response is requested while the one before it is being sent.
                let at = tokio::select! {
                    () = self.shutdown.cancelled() => return None,
                    _ = ticks.tick() => Instant::now(),
                };
                let missed = at.saturating_duration_since(self.due).as_nanos() / self.period.as_nanos();
                let missed = u64::try_from(missed).unwrap_or(u64::MAX);
                self.missed += missed;
                self.missed_by_all.0.fetch_add(missed, Ordering::Relaxed);
                self.due = at + self.period;
            }
        }
        let samples = Arc::clone(&self.samples.borrow_and_update());
        Some(self.answer(&samples))
    }

    fn answer(&mut self, samples: &[S]) -> WatchResponse {
        let (pairs, other_pairs) = self.pairs(samples);
        WatchResponse {
            time: samples.iter().map(|sample| sample.as_ref().time).min().map(Timestamp::from),
            nodes: samples.iter().flat_map(|sample| sample.as_ref().whose.nodes()).cloned().collect(),
            zones: zone_pairs(samples),
            pairs,
            other_pairs: Some(other_pairs.into()),
            reasons: reasons(samples),
            missed: self.missed,
        }
    }

    /// The pairs that grew most, and the sum of all others.
    fn pairs(&mut self, samples: &[S]) -> (Vec<PodPair>, abi::Counter) {
        let (mut pairs, mut rest) = (HashMap::<Pair, abi::Counter>::new(), abi::Counter::default());
        for totals in samples.iter().map(|sample| &sample.as_ref().totals.pods) {
            for (key, total) in totals.series() {
                for (locality, counter) in total.iter().filter(|(_, counter)| counter.packets > 0) {
                    *pairs.entry((key.clone(), locality)).or_default() += counter;
                }
            }
            let others = [totals.other(), totals.ended()];
            rest += others.iter().flat_map(|sum| sum.iter().map(|(_, counter)| counter)).sum();
        }
        let grown = |pair: &Pair, counter: &abi::Counter| {
            counter.bytes.saturating_sub(self.before.get(pair).copied().unwrap_or_default())
        };
        let mut sorted: Vec<(u64, Pair, abi::Counter)> =
            pairs.into_iter().map(|(pair, counter)| (grown(&pair, &counter), pair, counter)).collect();
        sorted.sort_by_key(|(grown, _, counter)| Reverse((*grown, counter.bytes)));
        self.before = sorted.iter().map(|(_, pair, counter)| (pair.clone(), counter.bytes)).collect();
        let listed = sorted.len().min(self.pairs);
        rest += sorted[listed..].iter().map(|(_, _, counter)| *counter).sum();
        let pair = |(_, (Directed { source, destination }, locality), sum): (u64, Pair, abi::Counter)| PodPair {
            source: Some(placed_endpoint(&source)),
            destination: Some(placed_endpoint(&destination)),
            locality: locality.to_string(),
            counter: Some(sum.into()),
        };
        sorted.truncate(listed);
        (sorted.into_iter().map(pair).collect(), rest)
    }
}

fn zone_pairs<S: AsRef<CounterSnapshot>>(samples: &[S]) -> Vec<ZonePair> {
    let mut sum = Matrix::default();
    samples.iter().for_each(|sample| sum.merge(&sample.as_ref().matrix));
    sum.cells().map(|(pair, sum)| zone_pair(pair, sum)).collect()
}

fn reasons<S: AsRef<CounterSnapshot>>(samples: &[S]) -> Vec<Reason> {
    let sum_of = |stat: abi::stats::Stat| {
        let of_sample =
            |sample: &S| sample.as_ref().stats.iter().find(|(of, _)| *of == stat).map(|(_, counter)| *counter);
        reason(stat, samples.iter().filter_map(of_sample).sum())
    };
    abi::stats::Stat::ALL.into_iter().map(sum_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        accounting::{Accounting, Service, Transfer, TransferEnd},
        counters::{CounterScope, Sample, TableState},
        demo::topology::place,
        identity::Endpoint,
    };
    use std::time::SystemTime;

    fn end(n: u8, zone: usize) -> TransferEnd {
        let (namespace, pod) = ("shop".into(), format!("cart-{n}").into());
        let endpoint = Endpoint { namespace, pod, workload: None, ..Endpoint::default() };
        TransferEnd {
            address: Some([10, 0, 0, n].into()),
            endpoint: Some(Arc::new(endpoint)),
            place: place(zone),
            external: None,
        }
    }

    fn sample(accounting: &Accounting) -> Arc<[Sample]> {
        let now = SystemTime::now();
        let (prefixes, zones, reloads) = ((0, 0), (0, 0), (0, 0));
        let table = TableState { prefixes, zones, loaded: now, confirmed: now, reloads, addresses: 0, feed: None };
        Arc::from([Sample {
            counted: CounterSnapshot {
                whose: CounterScope::Node("node-1".into()),
                time: now,
                began: None,
                epoch: 0,
                matrix: Matrix::default(),
                stats: Vec::new(),
                totals: accounting.totals().clone(),
            },
            boot_id: [0; 16],
            hook: "netfilter",
            hook_reason: "test".into(),
            hook_changes: 0,
            refused_hook_steps: 0,
            device_bytes: None,
            foreign_filters: 0,
            restored_filters: 0,
            flow_entries: (0, 0),
            table,
            drain_seconds: 0.0,
        }])
    }

    fn shown(answer: &WatchResponse) -> (Vec<(&str, u64)>, u64, u64) {
        let pair = |pair: &'_ PodPair| pair.counter.unwrap().bytes;
        let name = |pair: &PodPair| pair.destination.as_ref().unwrap().pod.len();
        assert!(answer.pairs.iter().all(|pair| name(pair) > 0));
        let pairs = answer.pairs.iter().map(|it| (it.destination.as_ref().unwrap().pod.as_str(), pair(it))).collect();
        (pairs, answer.other_pairs.unwrap().bytes, answer.missed)
    }

    /// The test clock stands still until every task waits, then jumps to the next deadline.
    #[tokio::test(start_paused = true)]
    async fn pairs_are_those_that_grew_and_a_slow_client_gets_the_number_of_missed_responses() {
        let mut accounting = Accounting::new(10, false);
        let now = std::time::Instant::now();
        let add = |accounting: &mut Accounting, to: u8, bytes| {
            let transfer = Transfer { source: &end(1, 0), destination: &end(to, 2), service: Service::default() };
            accounting.add(&transfer, abi::Counter { bytes, packets: 1 }, now);
        };
        let samples = watch::Sender::new(Arc::from([]));
        let service = CountersService::new(samples.subscribe(), CancellationToken::new());
        let missed = service.missed();
        let request = WatchRequest { interval: None, pairs: 1 };
        let mut stream = service.watch(Request::new(request)).await.unwrap().into_inner();

        add(&mut accounting, 2, 1000);
        add(&mut accounting, 3, 600);
        samples.send_replace(sample(&accounting));
        let first = stream.next().await.unwrap().unwrap();
        assert_eq!(shown(&first), (vec![("cart-2", 1000)], 600, 0));
        add(&mut accounting, 3, 100);
        samples.send_replace(sample(&accounting));
        let second = stream.next().await.unwrap().unwrap();
        assert_eq!(shown(&second), (vec![("cart-3", 700)], 1000, 0), "it grew");

        tokio::time::sleep(Duration::from_millis(4500)).await;
        let third = stream.next().await.unwrap().unwrap();
        assert_eq!(shown(&third).2, 3, "of the answers after 1, 2, 3 and 4 seconds it gets one");
        assert_eq!(missed.0.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn an_interval_that_can_not_be_is_refused() {
        let samples = watch::Sender::<Arc<[Sample]>>::new(Arc::from([])).subscribe();
        let service = CountersService::new(samples, CancellationToken::new());
        for seconds in [0, -1, 100_000] {
            let interval = Some(prost_types::Duration { seconds, nanos: 0 });
            let refused = service.watch(Request::new(WatchRequest { interval, pairs: 0 })).await;
            let status = refused.map(drop).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert_eq!(status.message(), "interval: it can be from 1 to 86400 seconds");
        }
    }
}
