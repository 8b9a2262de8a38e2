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

/// Whether `port` is one of four that a word has, without a branch for each: the verifier would walk all that follows along
/// each of them.
#[inline(always)]
pub const fn is_among(four: u64, port: u16) -> bool {
    const ONES: u64 = 0x0001_0001_0001_0001;
    let differences = four ^ (ONES * port as u64);
    // A lane that is zero borrows.
    differences.wrapping_sub(ONES) & !differences & (ONES << 15) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_in_each_place_and_no_other_one_is() {
        let word = |ports: [u16; 4]| ports.iter().fold(0, |word, port| word << 16 | u64::from(*port));
        let all = [0, 1, 2, 0x7fff, 0x8000, 0x8001, 0xfffe, 0xffff];
        for a in all {
            for b in all {
                for ports in [[a, b, b, b], [b, a, b, b], [b, b, a, b], [b, b, b, a]] {
                    for port in all {
                        assert_eq!(is_among(word(ports), port), ports.contains(&port), "{port} in {ports:?}");
                    }
                }
            }
        }
    }
}
