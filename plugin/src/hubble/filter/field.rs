//! Fields of a flow that several checks look at, and what a check is.

use crate::{
    flows::Encoded,
    proto::{
        number::{self, flow},
        wire::{Field, Message},
    },
};

/// Whether a flow is as a filter wants it.
pub(super) type FlowCheck = Box<dyn Fn(&Encoded) -> bool + Send + Sync>;
/// Whether an end of a flow is as a filter wants it.
pub(super) type EndCheck = Box<dyn Fn(Option<Message<'_>>) -> bool + Send + Sync>;

pub(super) fn verdict_of(flow: &Encoded) -> i32 {
    flow.own().varint(flow::VERDICT) as i32
}

pub(super) fn ip(flow: &Encoded) -> Option<Message<'_>> {
    flow.own().message(flow::IP)
}

/// The protocol of layer 4: the number of its field, and the message.
pub(super) fn l4(flow: &Encoded) -> Option<(u64, Message<'_>)> {
    flow.own().message(flow::L4)?.fields().last().map(numbered)
}

/// The record of layer 7: the number of its field, and the message.
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
