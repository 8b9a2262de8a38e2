//! Fields of a flow that several checks use, and the types of checks.

use crate::{
    flows::Encoded,
    proto::{
        number::{self, flow},
        wire::{Field, Message},
    },
};

/// A check of a flow.
pub(super) type FlowCheck = Box<dyn Fn(&Encoded) -> bool + Send + Sync>;
/// A check of a flow that takes this many bytes, its values apart.
pub(super) struct SizedCheck {
    pub(super) check: FlowCheck,
    pub(super) bytes: usize,
}

/// A check of one end of a flow.
pub(super) type EndCheck = Box<dyn Fn(Option<Message<'_>>) -> bool + Send + Sync>;

pub(super) fn verdict_of(flow: &Encoded) -> i32 {
    flow.own().varint(flow::VERDICT) as i32
}

pub(super) fn ip(flow: &Encoded) -> Option<Message<'_>> {
    flow.own().message(flow::IP)
}

/// The layer 4 protocol: its field number and message.
pub(super) fn l4(flow: &Encoded) -> Option<(u64, Message<'_>)> {
    flow.own().message(flow::L4)?.fields().last().map(numbered)
}

/// The layer 7 record: its field number and message.
pub(super) fn l7(flow: &Encoded) -> Option<(u64, Message<'_>)> {
    use number::layer7::{DNS, HTTP, KAFKA};
    let l7 = flow.own().message(flow::L7)?;
    l7.fields().filter(|field| [DNS, HTTP, KAFKA].contains(&field.number)).last().map(numbered)
}

pub(super) fn record(flow: &Encoded, number: u64) -> Option<Message<'_>> {
    l7(flow).filter(|(has, _)| *has == number).map(|(_, record)| record)
}

const fn numbered(field: Field<'_>) -> (u64, Message<'_>) {
    (field.number, field.value.message())
}
