//! Counts the frames that concern one link only: ARP, neighbour discovery, MLD.

use meridian_abi::Counter;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use std::sync::Mutex;

pub(super) struct LinkScoped {
    socket: Socket,
    seen: Mutex<Counter>,
}

impl LinkScoped {
    /// Counts on a device of the calling thread's namespace, from now on.
    pub(super) fn new(device: &str) -> Self {
        let every_protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every_protocol))).unwrap();
        // The filter passes only multicast, ARP and neighbour discovery, so that a flood can't push these frames out
        // of the buffer. Classic BPF: code, jump if true, jump if false, value.
        let code = |code, jt, jf, k| SockFilter::new(code, jt, jf, k);
        let filter = [
            code(0x30, 0, 0, 0),      // ldb [0]
            code(0x45, 7, 0, 1),      // a multicast address: take it
            code(0x28, 0, 0, 12),     // ldh [12]
            code(0x15, 5, 0, 0x0806), // ARP: take it
            code(0x15, 0, 5, 0x86dd), // IPv6, or leave it
            code(0x30, 0, 0, 20),     // ldb [20]: the next header
            code(0x15, 0, 3, 58),     // ICMPv6, or leave it
            code(0x30, 0, 0, 54),     // ldb [54]: its type
            code(0x35, 0, 1, 133),    // 133 and above: take it
            code(0x06, 0, 0, 0x4_0000),
            code(0x06, 0, 0, 0),
        ];
        socket.attach_filter(&filter).unwrap();
        // SAFETY: plain data, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        let name = std::ffi::CString::new(device).unwrap();
        // SAFETY: a C string.
        address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
        // SAFETY: the address with its size.
        let bound = unsafe {
            let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            libc::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), (&raw const address).cast(), size)
        };
        assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
        // The socket also sees packets that this end sends.
        socket.set_nonblocking(true).unwrap();
        Self { socket, seen: Mutex::default() }
    }

    /// The frames that have arrived, with their link headers.
    pub(super) fn seen(&self) -> Counter {
        let mut seen = self.seen.lock().unwrap();
        let mut frame = vec![0; 1 << 16];
        // SAFETY: plain data, for which all zeros is a value.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        loop {
            let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: the buffer and the address with their sizes.
            let read = unsafe {
                libc::recvfrom(
                    std::os::fd::AsRawFd::as_raw_fd(&self.socket),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut size,
                )
            };
            let Ok(read) = u64::try_from(read) else {
                // The device was down at first, which the socket reports once.
                if std::io::Error::last_os_error().raw_os_error() == Some(libc::ENETDOWN) {
                    continue;
                }
                return *seen;
            };
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                *seen += Counter { bytes: read, packets: 1 };
            }
        }
    }
}
