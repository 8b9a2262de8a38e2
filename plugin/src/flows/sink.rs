//! Where flow events go: into the ring, and past those who look at each one.

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

/// Looks at every flow on its way into the ring, such as one who counts them.
pub trait Listener: fmt::Debug + Send + Sync {
    /// Looks at a flow.
    fn flow(&self, flow: &Encoded);
    /// Hears of flows that were lost before they came here.
    fn lost(&self, lost: &Lost);
}

/// Where an agent's flow events go; several agents may share it.
#[derive(Clone, Debug)]
pub struct Sink {
    /// The flow events.
    pub ring: Arc<Ring>,
    /// The namespaces that they named.
    pub namespaces: Arc<Namespaces>,
    /// Who else looks at each of them.
    pub listener: Option<Arc<dyn Listener>>,
    /// What happened in the agent of a recorded node.
    pub agent_events: Arc<EventLog<GetAgentEventsResponse>>,
    /// Its debug events.
    pub debug_events: Arc<EventLog<GetDebugEventsResponse>>,
}

impl Sink {
    /// To this ring, and looked at by nobody.
    pub fn new(ring: Arc<Ring>) -> Self {
        let (agent_events, debug_events) = (Arc::default(), Arc::default());
        Self { ring, namespaces: Arc::default(), listener: None, agent_events, debug_events }
    }

    /// Takes flow events in the order of their time; they come from several CPUs or nodes.
    pub fn take_all(&self, mut flows: Vec<Encoded>, now: Instant) {
        flows.sort_by_key(|flow| flow.time().map(|time| (time.seconds, time.nanos)));
        flows.into_iter().for_each(|flow| self.take(flow, now));
    }

    /// Takes a flow event.
    pub fn take(&self, flow: Encoded, now: Instant) {
        self.see(&flow, now);
        self.ring.push(flow);
    }

    /// Takes what was recorded earlier, as it is.
    pub fn take_recorded(&self, record: Record, now: Instant) {
        match (&record, &self.listener) {
            (Record::Flow(flow), _) => self.see(flow, now),
            (Record::Lost(lost), Some(listener)) => listener.lost(lost),
            (Record::Lost(_), None) => {}
        }
        self.ring.push_record(record);
    }

    /// Counts a recorded flow that is older than all that is kept.
    pub fn pass_recorded(&self, flow: &Encoded) {
        if let Some(listener) = &self.listener {
            listener.flow(flow);
        }
        self.ring.pass(flow);
    }

    fn see(&self, flow: &Encoded, now: Instant) {
        if let Some(listener) = &self.listener {
            listener.flow(flow);
        }
        for end in [flow.source(), flow.destination()].into_iter().flatten() {
            self.namespaces.see(end.message().string(number::endpoint::NAMESPACE), now);
        }
    }
}
