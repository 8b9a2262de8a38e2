//! The ground truth: every frame that a node put on the wire, seen by a packet socket on the other
//! end of its uplink, after segmentation.
//!
//! This code parses headers itself and shares nothing with the kernel programs. It is complete when its frames and
//! bytes equal the device's own counters.

use super::{
    Error,
    topology::{self, NODES, OUTSIDER},
};
use crate::{
    netlab::{links::configure, namespace::Namespace},
    zones::{Matrix, Pair, Place},
};
use meridian_abi::{Counter, IpVersion, matrix::Direction};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const ETHERNET: usize = 14;
const MTU: usize = 1500;
/// Room for bursts that arrive faster than they are read.
const RECEIVE_BUFFER: libc::c_int = 64 << 20;

/// The traffic that one node put on the wire.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// Traffic between nodes.
    pub matrix: Matrix,
    /// Packets that concern the link only: neighbour discovery, MLD, ARP.
    pub link_scoped: Counter,
    /// All frames, with their Ethernet headers.
    pub frames: Counter,
    /// Frames longer than the wire's MTU: there can't be any, and one makes the comparison void.
    pub oversize: u64,
}

/// Watches the uplink of one node.
pub struct Tap {
    node: usize,
    carried: Arc<Mutex<Carried>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<io::Result<()>>>>,
}

impl Tap {
    /// Starts watching, before anything is sent.
    ///
    /// # Errors
    /// A packet socket is not permitted.
    pub fn new(wire: &Namespace, node: usize) -> Result<Self, Error> {
        let port = topology::port(node);
        let index = configure(wire, "finding a port", async |links| links.index(&port).await)?;
        let socket =
            wire.run(|| open(index))?.map_err(|source| wire.failed("watching a port with a packet socket", source))?;
        let (carried, stop) = (Arc::new(Mutex::new(Carried::default())), Arc::new(AtomicBool::new(false)));
        let mut reader = Reader { source: topology::place(node), places: places() };
        let (carried_by_thread, stop_thread) = (Arc::clone(&carried), Arc::clone(&stop));
        let thread = wire.spawn(move || reader.read(&socket, &carried_by_thread, &stop_thread))?;
        Ok(Self { node, carried, stop, thread: Some(thread) })
    }

    /// The frames seen so far.
    pub fn carried(&self) -> Carried {
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the tap has seen everything that the device has received.
    ///
    /// # Errors
    /// The device's counters can't be read.
    pub fn is_complete(&self, wire: &Namespace) -> Result<bool, Error> {
        let port = topology::port(self.node);
        let device = configure(wire, "reading a port's counters", async |links| links.counters(&port).await)?;
        let Carried { frames, oversize, .. } = self.carried();
        Ok(oversize == 0 && (frames.bytes, frames.packets) == (device.rx_bytes, device.rx_packets))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet socket for everything that arrives at a device.
fn open(index: u32) -> io::Result<Socket> {
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    // Without a protocol it receives nothing until it is bound to the device.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    // SAFETY: plain data, for which all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every_protocol;
    address.sll_ifindex = index as i32;
    // SAFETY: the address is a sockaddr_ll and its size is given.
    let bound = unsafe {
        let address = (&raw const address).cast();
        libc::bind(socket.as_raw_fd(), address, size_of::<libc::sockaddr_ll>() as libc::socklen_t)
    };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

pub(super) fn set_option(socket: &Socket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is an int and its size is given.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The place of every address of the cluster, from its specification.
fn places() -> HashMap<IpAddr, Place> {
    let mut places = HashMap::from(OUTSIDER.map(|address| (address, Place::Unknown)));
    for (node, spec) in NODES.iter().enumerate() {
        let pods = (0..spec.pods.len()).flat_map(|pod| topology::pod_addresses(node, pod));
        places.extend(pods.chain(topology::node_addresses(node)).map(|address| (address, topology::place(node))));
    }
    places
}

struct Reader {
    source: Place,
    places: HashMap<IpAddr, Place>,
}

impl Reader {
    fn read(&mut self, socket: &Socket, carried: &Mutex<Carried>, stop: &AtomicBool) -> io::Result<()> {
        let mut head = [0u8; 128];
        loop {
            // With MSG_TRUNC the result is the frame's length, even if the buffer is shorter.
            // SAFETY: the buffer and its size.
            let len = unsafe { libc::recv(socket.as_raw_fd(), head.as_mut_ptr().cast(), head.len(), libc::MSG_TRUNC) };
            if let Ok(len) = usize::try_from(len) {
                let mut carried = carried.lock().unwrap_or_else(PoisonError::into_inner);
                self.frame(&mut carried, &head[..len.min(head.len())], len);
                continue;
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock if stop.load(Ordering::Relaxed) => return Ok(()),
                // The device was down when the socket was bound to it.
                io::ErrorKind::WouldBlock | io::ErrorKind::NetworkDown | io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
    }

    fn frame(&self, carried: &mut Carried, head: &[u8], len: usize) {
        add(&mut carried.frames, len);
        if len > ETHERNET + MTU {
            carried.oversize += 1;
        }
        match self.pair(head) {
            Some(pair) => {
                let counter = Counter { bytes: (len - ETHERNET) as u64, packets: 1 };
                carried.matrix.add(pair, counter);
            }
            None => add(&mut carried.link_scoped, len.saturating_sub(ETHERNET)),
        }
    }

    /// The ends of a frame; `None` if the frame concerns only the link.
    fn pair(&self, frame: &[u8]) -> Option<Pair> {
        let ip = frame.get(ETHERNET..)?;
        let (version, destination) = match u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]) {
            0x0800 => (IpVersion::V4, IpAddr::from(Ipv4Addr::from(*ip.get(16..)?.first_chunk::<4>()?))),
            0x86dd => (IpVersion::V6, IpAddr::from(Ipv6Addr::from(*ip.get(24..)?.first_chunk::<16>()?))),
            _ => return None,
        };
        let link_local = matches!(destination, IpAddr::V6(v6) if v6.is_unicast_link_local());
        // ICMPv6 133 to 137: neighbour discovery, also between global addresses.
        let discovery = version == IpVersion::V6 && ip.get(6) == Some(&58) && matches!(ip.get(40), Some(133..=137));
        if destination.is_multicast() || link_local || discovery {
            return None;
        }
        let destination = self.places.get(&destination).cloned().unwrap_or(Place::Unknown);
        Some(Pair { source: self.source.clone(), destination, version, direction: Direction::Egress })
    }
}

fn add(counter: &mut Counter, bytes: usize) {
    counter.bytes += bytes as u64;
    counter.packets += 1;
}
