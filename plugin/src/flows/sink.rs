//! The destination of flow events: the ring, and listeners that look at each flow.

use super::{
    encoded::Encoded,
    events::EventLog,
    namespaces::Namespaces,
    ring::{Lost, Record, Ring},
};
use crate::proto::{
    number,
    observer::{GetAgentEventsResponse, GetDebugEventsResponse},
};
use std::{fmt, sync::Arc, time::Instant};

/// Looks at every flow on its way into the ring, for example to count it.
pub trait Listener: fmt::Debug + Send + Sync {
    /// Handles a flow.
    fn flow(&self, flow: &Encoded);
    /// Handles a loss of flows on their way to the ring.
    fn lost(&self, lost: &Lost);
}

/// The destination of an agent's flow events; several agents may share it.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The flow events.
    pub ring: Arc<Ring>,
    /// The namespaces in the flow events.
    pub namespaces: Arc<Namespaces>,
    /// The listener for each flow and loss.
    pub listener: Option<Arc<dyn Listener>>,
    /// Agent events of a recorded node.
    pub agent_events: Arc<EventLog<GetAgentEventsResponse>>,
    /// Debug events of a recorded node.
    pub debug_events: Arc<EventLog<GetDebugEventsResponse>>,
}

impl Sink {
    /// Writes to this ring, without a listener.
    pub fn new(ring: Arc<Ring>) -> Self {
        let (agent_events, debug_events) = (Arc::default(), Arc::default());
        Self { ring, namespaces: Arc::default(), listener: None, agent_events, debug_events }
    }

    /// Adds flow events, sorted by time: they come from several CPUs or nodes.
    pub fn take_all(&self, mut flows: Vec<Encoded>, now: Instant) {
        flows.sort_by_key(|flow| flow.time().map(|time| (time.seconds, time.nanos)));
        flows.into_iter().for_each(|flow| self.take(flow, now));
    }

    /// Adds a flow event.
    pub fn take(&self, flow: Encoded, now: Instant) {
        self.observe(&flow, now);
        self.ring.push(flow);
    }

    /// Adds a recorded flow or loss unchanged.
    pub fn take_recorded(&self, record: Record, now: Instant) {
        match (&record, &self.listener) {
            (Record::Flow(flow), _) => self.observe(flow, now),
            (Record::Lost(lost), Some(listener)) => listener.lost(lost),
            (Record::Lost(_), None) => {}
        }
        self.ring.push_record(record);
    }

    /// Counts a recorded flow that is too old for the ring.
    pub fn pass_recorded(&self, flow: &Encoded) {
        if let Some(listener) = &self.listener {
            listener.flow(flow);
        }
        self.ring.pass(flow);
    }

    fn observe(&self, flow: &Encoded, now: Instant) {
        if let Some(listener) = &self.listener {
            listener.flow(flow);
        }
        for end in [flow.source(), flow.destination()].into_iter().flatten() {
            self.namespaces.record(end.message().string(number::endpoint::NAMESPACE), now);
        }
    }
}
