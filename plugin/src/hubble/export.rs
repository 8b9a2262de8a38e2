//! Flows as Hubble's exporter writes them: which ones, with which fields, as a line of JSON.

use super::{Filters, get_flows::loss, mask::Mask, reply::Reply};
use crate::{
    flows::{Held, Lost, Record},
    proto::{
        flow::FlowFilter,
        json::{self, Unwritable},
        wire::Message,
    },
};
use prost::Message as _;
use prost_types::FieldMask;

/// Makes lines.
#[derive(Debug)]
pub struct Exported {
    filters: Filters,
    mask: Option<Mask>,
    encoded: Vec<u8>,
}

impl Exported {
    /// Of the flows that the filters let through, with the fields of these paths; with all if there is none.
    ///
    /// # Errors
    /// A filter can't be, or a path is no field of a flow.
    pub fn new(allow: &[FlowFilter], deny: &[FlowFilter], fields: &[String]) -> Result<Self, String> {
        let mask = Mask::new(Some(&FieldMask { paths: fields.to_vec() }));
        Ok(Self {
            filters: Filters::new(allow, deny)?,
            mask: mask.map_err(|error| format!("{error}: {}", fields.join(", ")))?,
            encoded: Vec::new(),
        })
    }

    /// Whether the flow is exported.
    pub fn wants(&mut self, flow: &crate::flows::Encoded) -> bool {
        self.filters.match_flow(flow)
    }

    /// Appends the line of a record of the ring.
    ///
    /// # Errors
    /// Something in it has no JSON.
    pub fn write(&mut self, record: Held, to: &mut String) -> Result<(), Unwritable> {
        let reply = match (&*record, &mut self.mask) {
            (Record::Flow(flow), Some(mask)) => Reply::masked(flow, mask),
            (Record::Flow(_), None) => Reply::Flow(record),
            (Record::Lost(lost), _) => return self.write_lost(&lost.clone(), to),
        };
        self.write_reply(&reply, to)
    }

    /// Appends the line that says that flows are missing.
    ///
    /// # Errors
    /// A time is in no calendar.
    pub fn write_lost(&mut self, lost: &Lost, to: &mut String) -> Result<(), Unwritable> {
        self.write_reply(&loss(lost.source, lost.count, &lost.node, (lost.first, lost.last)), to)
    }

    fn write_reply(&mut self, reply: &Reply, to: &mut String) -> Result<(), Unwritable> {
        self.encoded.clear();
        reply.encode_raw(&mut self.encoded);
        json::write("observer.ExportEvent", Message(&self.encoded), to)?;
        to.push('\n');
        Ok(())
    }
}
