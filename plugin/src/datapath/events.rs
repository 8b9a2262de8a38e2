//! Reads the ring buffer EVENTS.

use super::{Error, Readable, maps};
use crate::flows::Event;
use aya::maps::{Map, MapData, RingBuf};
use meridian_abi::{IpVersion, event, flow::Verdict};
use nix::time::{ClockId, clock_gettime};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd,
    time::{Duration, SystemTime},
};
use zerocopy::{FromBytes, IntoBytes};

/// The reading end of the ring buffer.
pub(super) struct Events(RingBuf<MapData>);

impl Events {
    pub(super) fn new(map: &maps::Map<(), ()>) -> Result<Self, Error> {
        let fd = map.as_fd().try_clone_to_owned().map_err(|source| map.failed(source))?;
        let failed = |error| map.failed(io::Error::other(error));
        let data = MapData::from_fd(fd).map_err(failed)?;
        RingBuf::try_from(Map::RingBuf(data)).map(Self).map_err(failed)
    }

    /// A handle that waits for events. Must be called inside a runtime.
    ///
    /// The kernel wakes the reader for an event only if the reader has read all events before it.
    pub(super) fn readable(&self) -> io::Result<Readable> {
        Readable::new(self.0.as_fd())
    }

    /// Calls `visit` with every event in the ring.
    pub(super) fn read(&mut self, mut visit: impl FnMut(Event)) {
        let boot = boot_time();
        while let Some(item) = self.0.next() {
            // An event of another length can't be ours; there are none.
            if let Ok(event) = event::Event::read_from_bytes(&item) {
                visit(domain(&event, boot));
            }
        }
    }
}

/// The wall clock's time at which the monotonic clock was zero.
fn boot_time() -> SystemTime {
    let now = SystemTime::now();
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(now, |monotonic| now - Duration::from(monotonic))
}

fn domain(event: &event::Event, boot: SystemTime) -> Event {
    let address = |words: [u32; 4]| {
        if event.version == IpVersion::V4 as u8 {
            IpAddr::V4(Ipv4Addr::from(words[0].to_ne_bytes()))
        } else {
            let mut octets = [0; 16];
            octets.copy_from_slice(words.as_bytes());
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    };
    Event {
        time: boot + Duration::from_nanos(event.time_ns),
        source: address(event.source),
        destination: address(event.destination),
        ports: (event.source_port, event.destination_port),
        protocol: event.protocol,
        tcp_flags: event.tcp_flags,
        side: event.side_and_path.side(),
        path: event.side_and_path.path(),
        verdict: Verdict::unpack(event.verdict),
    }
}
