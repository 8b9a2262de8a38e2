//! The fields of a flow that handlers need, read once.

use crate::{
    flows::Encoded,
    proto::{
        flow::Verdict,
        number::{self, flow as field, layer4},
        wire::{Message, Value},
    },
};

/// The fields of a flow that matter for counting.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowView<'f> {
    pub(super) own: Message<'f>,
    /// Empty if the flow has none.
    pub(super) source: Message<'f>,
    pub(super) destination: Message<'f>,
    pub(super) has_destination: bool,
    pub(super) verdict: i32,
    pub(super) event_type: Option<(i32, i32)>,
    pub(super) has_l4: bool,
    /// The protocol of `flow.Layer4` and its message.
    pub(super) l4: Option<(u64, Message<'f>)>,
    pub(super) ip: Option<Message<'f>>,
    pub(super) is_reply: Option<bool>,
    pub(super) direction: i32,
    pub(super) drop_reason: i32,
}

impl<'f> FlowView<'f> {
    pub(super) fn new(flow: &'f Encoded) -> Self {
        let end = |end: Option<&'f crate::flows::Part>| end.map(|end| end.message());
        let mut view = Self {
            own: flow.own(),
            source: end(flow.source()).unwrap_or_default(),
            destination: end(flow.destination()).unwrap_or_default(),
            has_destination: flow.destination().is_some(),
            ..Self::default()
        };
        for of in view.own.fields() {
            let number = match of.value {
                Value::Varint(number) => number as i32,
                _ => 0,
            };
            match of.number {
                field::VERDICT => view.verdict = number,
                field::TRAFFIC_DIRECTION => view.direction = number,
                field::DROP_REASON_DESC => view.drop_reason = number,
                field::IP => view.ip = Some(of.value.message()),
                field::L4 => {
                    view.has_l4 = true;
                    let chosen = of.value.message().fields().last();
                    view.l4 = chosen.map(|chosen| (chosen.number, chosen.value.message()));
                }
                field::IS_REPLY => view.is_reply = Some(of.value.message().bool(1)),
                field::EVENT_TYPE => {
                    let of = of.value.message();
                    let numbers = [number::ciliumeventtype::TYPE, number::ciliumeventtype::SUB_TYPE];
                    let [kind, sub_type] = numbers.map(|number| of.varint(number) as i32);
                    view.event_type = Some((kind, sub_type));
                }
                _ => {}
            }
        }
        view
    }

    pub(super) const fn is_forwarded(&self) -> bool {
        self.verdict == Verdict::Forwarded as i32 || self.verdict == Verdict::Redirected as i32
    }

    /// The message of this protocol, if the flow has it.
    pub(super) fn protocol(&self, number: u64) -> Option<Message<'f>> {
        self.l4.filter(|(chosen, _)| *chosen == number).map(|(_, message)| message)
    }

    /// The protocol in `l7`: DNS, HTTP or Kafka.
    pub(super) fn l7(&self) -> Option<&'static str> {
        let l7 = self.own.message(field::L7)?;
        let names = [(number::layer7::DNS, "DNS"), (number::layer7::HTTP, "HTTP"), (number::layer7::KAFKA, "Kafka")];
        names.into_iter().find(|(number, _)| l7.value(*number).is_some()).map(|(_, name)| name)
    }

    /// The name of the protocol, of the layer that the event belongs to.
    pub(super) fn protocol_name(&self) -> &'static str {
        match self.event_type.map(|(kind, _)| kind) {
            Some(129) => self.l7().unwrap_or("Unknown L7"),
            Some(1 | 3 | 4 | 5) => self.l4.and_then(|(number, _)| l4_name(number)).unwrap_or("Unknown L4"),
            _ => "Unknown flow",
        }
    }
}

/// The name of a protocol of `flow.Layer4`.
pub(super) const fn l4_name(number: u64) -> Option<&'static str> {
    Some(match number {
        layer4::TCP => "TCP",
        layer4::UDP => "UDP",
        layer4::ICMPV4 => "ICMPv4",
        layer4::ICMPV6 => "ICMPv6",
        layer4::SCTP => "SCTP",
        layer4::VRRP => "VRRP",
        layer4::IGMP => "IGMP",
        _ => return None,
    })
}
