//! Attaches a program at clsact, by netlink: the way to traffic control on kernels without
//! tcx.
//!
//! A filter belongs to the device, not to a descriptor. It is taken away through the socket that
//! made it, which stays in its network namespace whoever holds it. The clsact qdisc is shared with
//! others and stays.

use super::sys::Side;
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Before the filters of others, whose verdict may end the chain.
const PRIORITY: u32 = 1;
/// Ours among filters of the same priority, so that a new program takes the place of an old one.
const HANDLE: u32 = 0x6d65;

/// A filter of ours on a device, taken away when dropped, unless it is to stay.
pub(super) struct Filter {
    socket: Socket,
    ifindex: u32,
    side: Side,
    stays: bool,
}

impl Filter {
    /// Attaches to a device of the calling thread's network namespace; a filter that an earlier
    /// run left there is replaced.
    pub(super) fn new(program: BorrowedFd<'_>, ifindex: u32, side: Side, stays: bool) -> io::Result<Self> {
        let socket = connect()?;
        let mut qdisc = message(ifindex);
        qdisc.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        qdisc.header.parent = TcHandle::CLSACT;
        qdisc.attributes.push(TcAttribute::Kind("clsact".into()));
        match ask(&socket, RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }

        let mut filter = filter(ifindex, side);
        filter.attributes.push(TcAttribute::Options(
            [
                TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs()),
                TcFilterBpfOption::ProgName("meridian".into()),
                TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
            ]
            .map(TcOption::Bpf)
            .into(),
        ));
        ask(&socket, RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_REPLACE)?;
        Ok(Self { socket, ifindex, side, stays })
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if !self.stays {
            delete(&self.socket, self.ifindex, self.side);
        }
    }
}

/// Takes filters of ours away from a device of the calling thread's namespace, if there are any.
pub(super) fn remove(ifindex: u32, side: Side) -> io::Result<()> {
    delete(&connect()?, ifindex, side);
    Ok(())
}

fn delete(socket: &Socket, ifindex: u32, side: Side) {
    if let Err(error) = ask(socket, RouteNetlinkMessage::DelTrafficFilter(filter(ifindex, side)), 0) {
        // The device may have gone before us, and the filter with it.
        tracing::debug!(ifindex, ?side, %error, "the clsact filter is not there");
    }
}

fn connect() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

fn message(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = ifindex.cast_signed();
    message
}

fn filter(ifindex: u32, side: Side) -> TcMessage {
    let mut filter = message(ifindex);
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    filter.header.handle = TcHandle::from(HANDLE);
    filter.header.parent = TcHandle {
        major: u16::MAX,
        minor: match side {
            Side::Ingress => TcHandle::MIN_INGRESS,
            Side::Egress => TcHandle::MIN_EGRESS,
        },
    };
    filter.header.info = PRIORITY << 16 | u32::from(every_protocol);
    filter.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
    filter
}

/// Sends a request and waits for the kernel's answer.
fn ask(socket: &Socket, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer: NetlinkMessage<RouteNetlinkMessage> =
        NetlinkMessage::deserialize(&answer).map_err(|error| io::Error::other(error.to_string()))?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
