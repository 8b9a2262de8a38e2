//! The map SERVICE_PORTS: ports that the user has named as services', a byte for each port of TCP, UDP and SCTP.
//!
//! Only userspace writes it: a port that packets could add would let a scan by one pod change how the traffic of others
//! is attributed.

/// The ports in an element of the map.
pub const CHUNK: u32 = 64;
/// The elements of the map.
pub const CHUNKS: u32 = 3 * 65_536 / CHUNK;

/// The first ephemeral port in Linux' default range.
pub const FIRST_EPHEMERAL: u16 = 32_768;

/// The element of a port, and its byte there. `protocol` is TCP (6), UDP (17) or SCTP (132).
#[inline(always)]
pub const fn place(protocol: u8, port: u16) -> (u32, usize) {
    let plane = match protocol {
        6 => 0,
        17 => 1,
        _ => 2,
    };
    (plane * (65_536 / CHUNK) + port as u32 / CHUNK, (port as u32 % CHUNK) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_of_every_protocol_has_a_byte_of_its_own() {
        assert_eq!(place(6, 0), (0, 0));
        assert_eq!(place(6, 65_535), (1023, 63));
        assert_eq!(place(17, 0), (1024, 0));
        assert_eq!(place(132, 65_535), (CHUNKS - 1, 63));
    }
}
