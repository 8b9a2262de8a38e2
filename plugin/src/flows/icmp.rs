//! Names of ICMP messages, as Hubble writes them.

/// The name of a type, and the names of its codes.
type Type = (u8, &'static str, &'static [(u8, &'static str)]);

const V4: [Type; 15] = [
    (0, "EchoReply", &[]),
    (
        3,
        "DestinationUnreachable",
        &[
            (0, "Net"),
            (1, "Host"),
            (2, "Protocol"),
            (3, "Port"),
            (4, "FragmentationNeeded"),
            (5, "SourceRoutingFailed"),
            (6, "NetUnknown"),
            (7, "HostUnknown"),
            (8, "SourceIsolated"),
            (9, "NetAdminProhibited"),
            (10, "HostAdminProhibited"),
            (11, "NetTOS"),
            (12, "HostTOS"),
            (13, "CommAdminProhibited"),
            (14, "HostPrecedence"),
            (15, "PrecedenceCutoff"),
        ],
    ),
    (4, "SourceQuench", &[]),
    (5, "Redirect", &[(0, "Net"), (1, "Host"), (2, "TOS+Net"), (3, "TOS+Host")]),
    (8, "EchoRequest", &[]),
    (9, "RouterAdvertisement", &[]),
    (10, "RouterSolicitation", &[]),
    (11, "TimeExceeded", &[(0, "TTLExceeded"), (1, "FragmentReassemblyTimeExceeded")]),
    (12, "ParameterProblem", &[(0, "PointerIndicatesError"), (1, "MissingOption"), (2, "BadLength")]),
    (13, "TimestampRequest", &[]),
    (14, "TimestampReply", &[]),
    (15, "InfoRequest", &[]),
    (16, "InfoReply", &[]),
    (17, "AddressMaskRequest", &[]),
    (18, "AddressMaskReply", &[]),
];

const V6: [Type; 11] = [
    (
        1,
        "DestinationUnreachable",
        &[
            (0, "NoRouteToDst"),
            (1, "AdminProhibited"),
            (2, "BeyondScopeOfSrc"),
            (3, "AddressUnreachable"),
            (4, "PortUnreachable"),
            (5, "SrcAddressFailedPolicy"),
            (6, "RejectRouteToDst"),
        ],
    ),
    (2, "PacketTooBig", &[]),
    (3, "TimeExceeded", &[(0, "HopLimitExceeded"), (1, "FragmentReassemblyTimeExceeded")]),
    (
        4,
        "ParameterProblem",
        &[(0, "ErroneousHeaderField"), (1, "UnrecognizedNextHeader"), (2, "UnrecognizedIPv6Option")],
    ),
    (128, "EchoRequest", &[]),
    (129, "EchoReply", &[]),
    (133, "RouterSolicitation", &[]),
    (134, "RouterAdvertisement", &[]),
    (135, "NeighborSolicitation", &[]),
    (136, "NeighborAdvertisement", &[]),
    (137, "Redirect", &[]),
];

/// The name of an ICMP message.
pub fn v4(kind: u32, code: u32) -> String {
    name(&V4, kind, code)
}

/// The name of an ICMPv6 message.
pub fn v6(kind: u32, code: u32) -> String {
    name(&V6, kind, code)
}

fn name(types: &[Type], kind: u32, code: u32) -> String {
    // Type and code are one byte each on the wire.
    let (kind, code) = (kind as u8, code as u8);
    let Some((_, name, codes)) = types.iter().find(|(number, ..)| *number == kind) else {
        return format!("{kind}({code})");
    };
    match codes.iter().find(|(number, _)| *number == code) {
        Some((_, of_code)) => format!("{name}({of_code})"),
        None if codes.is_empty() && code == 0 => (*name).to_owned(),
        None => format!("{name}(Code: {code})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_name_of_its_type_and_code() {
        assert_eq!(v4(8, 0), "EchoRequest");
        assert_eq!(v4(8, 3), "EchoRequest(Code: 3)");
        assert_eq!(v4(3, 4), "DestinationUnreachable(FragmentationNeeded)");
        assert_eq!(v4(3, 99), "DestinationUnreachable(Code: 99)");
        assert_eq!(v4(77, 1), "77(1)");
        assert_eq!(v6(1, 4), "DestinationUnreachable(PortUnreachable)");
    }
}
