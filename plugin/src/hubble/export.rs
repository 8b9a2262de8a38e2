//! Flows as lines of JSON, as Hubble's exporter writes them: selected by filters, reduced to chosen fields.

use super::{
    Filters,
    filter::InvalidFilter,
    get_flows::loss,
    mask::{Mask, NoSuchField},
    reply::Reply,
};
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

/// Flows that can't be exported as they are asked for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidExport {
    /// A filter can't be.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// A path is no field of a flow.
    #[error(transparent)]
    Mask(#[from] NoSuchField),
}

/// Writes the lines.
#[derive(Debug)]
pub struct Exported {
    filters: Filters,
    mask: Option<Mask>,
    encoded: Vec<u8>,
}

impl Exported {
    /// Exports flows that pass the filters, with the fields of these paths; an empty list means all fields.
    ///
    /// # Errors
    /// A filter is invalid, or a path is not a field of a flow.
    pub fn new(allow: &[FlowFilter], deny: &[FlowFilter], fields: &[String]) -> Result<Self, InvalidExport> {
        // Cilium's ConfigMap has spaces between the paths, its flag has commas; an empty text is no path.
        let paths = fields.iter().flat_map(|paths| paths.split([',', ' ', '\t', '\n'])).filter(|path| !path.is_empty());
        let filters = Filters::new(allow, deny)?;
        let mask = Mask::new(Some(&FieldMask { paths: paths.map(str::to_owned).collect() }))?;
        Ok(Self { filters, mask, encoded: Vec::new() })
    }

    /// Whether the flow is exported.
    pub fn wants(&mut self, flow: &crate::flows::Encoded) -> bool {
        self.filters.match_flow(flow)
    }

    /// Appends the line of a record of the ring.
    ///
    /// # Errors
    /// Something in the record has no JSON form.
    pub fn write(&mut self, record: Held, to: &mut String) -> Result<(), Unwritable> {
        let reply = match (&*record, &mut self.mask) {
            (Record::Flow(flow), Some(mask)) => Reply::masked(flow, mask),
            (Record::Flow(_), None) => Reply::Flow(record),
            (Record::Lost(lost), _) => return self.write_lost(&lost.clone(), to),
        };
        self.write_reply(&reply, to)
    }

    /// Appends the line for a loss of flows.
    ///
    /// # Errors
    /// A time is out of the calendar's range.
    pub fn write_lost(&mut self, lost: &Lost, to: &mut String) -> Result<(), Unwritable> {
        self.write_reply(&loss(lost), to)
    }

    fn write_reply(&mut self, reply: &Reply, to: &mut String) -> Result<(), Unwritable> {
        self.encoded.clear();
        reply.encode_raw(&mut self.encoded);
        json::write("observer.ExportEvent", Message(&self.encoded), to)?;
        to.push('\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flows::Ring, proto::flow::Flow};

    fn line(fields: &[&str]) -> Result<String, InvalidExport> {
        let fields: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
        let mut exported = Exported::new(&[], &[], &fields)?;
        let ring = Ring::new(1);
        ring.push(Flow { uuid: "u".into(), verdict: 1, socket_cookie: 7, ..Flow::default() }.into());
        let mut line = String::new();
        exported.write(ring.read(0, 1).take(|_| true).unwrap(), &mut line).unwrap();
        Ok(line)
    }

    #[test]
    fn a_mask_has_commas_or_spaces_and_an_empty_one_is_none() {
        let masked = "{\"flow\":{\"uuid\":\"u\",\"verdict\":\"FORWARDED\"}}\n";
        for fields in [&["uuid verdict"][..], &["uuid, verdict"], &["uuid", " verdict "], &["uuid,,verdict\n", ""]] {
            assert_eq!(line(fields).unwrap(), masked, "{fields:?}");
        }
        for none in [&[][..], &[""], &[" , "], &["", ""]] {
            assert!(line(none).unwrap().contains("socket_cookie"), "{none:?}");
        }
    }

    #[test]
    fn a_path_that_is_no_field_is_named() {
        let error = "invalid fieldmask: `source.pod` is no field of a flow";
        assert_eq!(line(&["uuid source.pod verdict"]).unwrap_err().to_string(), error);
        let error = "invalid fieldmask: `uuid;verdict` is no field of a flow";
        assert_eq!(line(&["uuid;verdict"]).unwrap_err().to_string(), error);
    }
}
