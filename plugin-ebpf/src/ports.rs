//! The service's end of a packet, by its ports.

use meridian_abi::{flow::ServiceSide, service::FIRST_EPHEMERAL};

/// The number of TCP.
pub const TCP: u8 = 6;
/// The number of UDP.
pub const UDP: u8 = 17;

/// Which of two ports is the service's, and whether it may be the other one as well.
///
/// A port below the ephemeral ones is the service's if the other one is not below them; otherwise one that is `known`
/// to be a service's, if the other one is not. Otherwise both are possible, and the lower one is likelier.
#[inline(always)]
pub fn sides(source: u16, destination: u16, known: impl Fn(u16) -> bool) -> (ServiceSide, bool) {
    let lower = if source < destination { ServiceSide::Source } else { ServiceSide::Destination };
    if (source < FIRST_EPHEMERAL) != (destination < FIRST_EPHEMERAL) {
        return (lower, false);
    }
    match (known(source), known(destination)) {
        (true, false) => (ServiceSide::Source, false),
        (false, true) => (ServiceSide::Destination, false),
        _ => (lower, true),
    }
}
