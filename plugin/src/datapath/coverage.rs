//! Compares the bytes that the hook saw with the bytes that the devices sent, by the devices' own counters. Without
//! it, a data path that bypasses the hook would look like a quiet node.
//!
//! Overlays and uplinks are compared separately, and the outer packets of overlays are left out: a hook that sees only
//! outer packets sees no pod traffic. All counters are IP bytes and only grow.

use super::{Datapath, Error, devices};
use meridian_abi::{matrix::Direction, stats::Stat};

/// The tolerated share of missing bytes. A device that segments packets itself may count fewer headers than the wire
/// has, and no device counts the wire's checksums.
const TOLERATED_PERCENT: u64 = 10;
/// The least bytes that devices must have sent for a comparison: link protocols and packets under way stay below it.
const MIN_COMPARED_BYTES: u64 = 256 << 10;
/// The hook counts outer packets of super-packets before segmentation, so the headers of the segments are missing: up
/// to this part of the bytes.
const OUTER_HEADERS_PART: u64 = 5;

/// Bytes sent by the devices and bytes seen by the hook, up to one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Sent through uplinks.
    pub uplinks_sent: u64,
    /// Sent through overlays' devices: inner packets.
    pub overlays_sent: u64,
    /// Counted on uplinks.
    pub uplinks_seen: u64,
    /// Counted on overlays' devices.
    pub overlays_seen: u64,
    /// Seen on uplinks, left out: outer packets, whose contents were counted before.
    pub outer: u64,
    /// Seen, left out: ARP, multicast and similar, partly on other devices.
    pub link_scoped: u64,
}

/// The comparison of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Bytes sent, without outer packets.
    pub sent: u64,
    /// The bytes of these that the hook saw.
    pub seen: u64,
    /// Whether the hook saw too few.
    pub is_blind: bool,
}

impl Compared {
    /// The percentage that the hook saw.
    pub fn percent(&self) -> u64 {
        (self.seen.saturating_mul(100)).checked_div(self.sent).unwrap_or(100)
    }
}

impl Coverage {
    /// The growth since `before`; `None` if a counter fell because a device is gone.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            uplinks_sent: self.uplinks_sent.checked_sub(before.uplinks_sent)?,
            overlays_sent: self.overlays_sent.checked_sub(before.overlays_sent)?,
            uplinks_seen: self.uplinks_seen.checked_sub(before.uplinks_seen)?,
            overlays_seen: self.overlays_seen.checked_sub(before.overlays_seen)?,
            outer: self.outer.checked_sub(before.outer)?,
            link_scoped: self.link_scoped.checked_sub(before.link_scoped)?,
        })
    }

    /// Whether the devices sent enough for a comparison.
    pub const fn is_enough(&self) -> bool {
        self.uplinks_sent + self.overlays_sent >= MIN_COMPARED_BYTES
    }

    /// Compares sent and seen bytes of an interval.
    pub fn compare(&self) -> Compared {
        let left_out = self.outer + self.outer / OUTER_HEADERS_PART + self.link_scoped;
        let uplinks_missed = self.uplinks_sent.saturating_sub(self.uplinks_seen + left_out);
        let overlays_missed = self.overlays_sent.saturating_sub(self.overlays_seen);
        let is_blind = |missed: u64, seen: u64| {
            missed >= MIN_COMPARED_BYTES / 4 && missed * 100 > (seen + missed) * TOLERATED_PERCENT
        };
        let seen = self.uplinks_seen + self.overlays_seen;
        Compared {
            sent: seen + uplinks_missed + overlays_missed,
            seen,
            is_blind: is_blind(uplinks_missed, self.uplinks_seen) || is_blind(overlays_missed, self.overlays_seen),
        }
    }
}

impl Datapath {
    /// Bytes sent by the devices and bytes seen by the hook, up to now.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn coverage(&self) -> Result<Coverage, Error> {
        // Read before the hook's counters, so that bytes sent in between do not count as missed.
        let (uplinks_sent, overlays_sent) = devices::sent(self.devices())?;
        let cells = self.matrix()?.into_iter();
        let counted: u64 =
            cells.filter(|cell| cell.direction == Direction::Egress).map(|cell| cell.counter.bytes).sum();
        let stats = self.stats()?;
        let encapsulated = stats.get(Stat::Encapsulated);
        let overlay_headers = encapsulated.packets * u64::from(self.options.overlay_header_len);
        Ok(Coverage {
            uplinks_sent,
            overlays_sent,
            uplinks_seen: counted.saturating_sub(encapsulated.bytes + overlay_headers),
            overlays_seen: encapsulated.bytes,
            outer: stats.get(Stat::Overlay).bytes,
            link_scoped: stats.get(Stat::LinkScoped).bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn says(coverage: Coverage) -> (u64, bool) {
        let compared = coverage.compare();
        (compared.percent(), compared.is_blind)
    }

    #[test]
    fn a_hook_that_sees_an_overlays_outer_packets_only_is_blind() {
        // VXLAN that bypasses the host's stack: 25 MB of pods' packets, each with 50 bytes of headers around it.
        let tunnel = Coverage { overlays_sent: 25 * MB, uplinks_sent: 26 * MB, outer: 26 * MB, ..Coverage::default() };
        assert_eq!(says(tunnel), (0, true));
        assert_eq!(says(Coverage { overlays_seen: 25 * MB, ..tunnel }), (100, false));
        // The hook counts outer packets of super-packets before they are cut.
        let cut = Coverage { overlays_seen: 26 * MB, outer: 24 * MB, ..tunnel };
        assert_eq!(says(cut), (100, false));
    }

    #[test]
    fn an_overlays_traffic_hides_no_blindness_on_an_uplink_nor_the_other_way_round() {
        let overlay =
            Coverage { overlays_sent: 10 * MB, overlays_seen: 10 * MB, outer: 11 * MB, ..Coverage::default() };
        assert_eq!(says(Coverage { uplinks_sent: 41 * MB, uplinks_seen: 30 * MB, ..overlay }), (100, false));
        let (percent, is_blind) = says(Coverage { uplinks_sent: 41 * MB, uplinks_seen: 2 * MB, ..overlay });
        assert!(is_blind && percent < 35, "{percent}");
        let native = Coverage { uplinks_sent: 90 * MB, uplinks_seen: 90 * MB, ..Coverage::default() };
        assert_eq!(says(Coverage { overlays_sent: 9 * MB, ..native }), (90, true));
    }

    #[test]
    fn the_share_is_that_of_all_bytes() {
        let native = |seen| Coverage { uplinks_sent: 100 * MB, uplinks_seen: seen, ..Coverage::default() };
        assert_eq!(says(native(3 * MB)), (3, true));
        assert_eq!(says(native(89 * MB)), (89, true));
        assert_eq!(says(native(91 * MB)), (91, false));
        // Segments have headers that a device without a wire does not count.
        assert_eq!(says(native(104 * MB)), (100, false));
        assert_eq!(says(Coverage { link_scoped: 60 * MB, ..native(40 * MB) }), (100, false));
    }

    #[test]
    fn little_traffic_and_removed_devices_are_no_evidence() {
        let little = Coverage { uplinks_sent: 40_000, ..Coverage::default() };
        assert!(!little.is_enough() && !little.compare().is_blind);
        assert!(Coverage { uplinks_sent: MIN_COMPARED_BYTES, ..Coverage::default() }.is_enough());
        assert_eq!(Coverage::default().since(&little), None);
        assert_eq!(little.since(&Coverage::default()), Some(little));
        assert_eq!(Coverage::default().compare().percent(), 100);
    }
}
