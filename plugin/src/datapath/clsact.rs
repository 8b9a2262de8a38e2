//! Attaches programs at clsact by netlink: traffic control on kernels without tcx.
//!
//! A filter belongs to the device, not to a descriptor. It is removed through the socket that made it, because that
//! socket stays in its network namespace. The clsact qdisc is shared with other programs and stays.

use super::sys::Side;
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
    },
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{
    io,
    ops::RangeInclusive,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The first priorities, before filters of other programs whose verdict may end the chain; the next free one if a
/// filter of another kind has the first.
const PRIORITIES: RangeInclusive<u32> = 1..=8;
/// Identifies our filter among filters of the same priority, so that a new program replaces an old one.
const HANDLE: u32 = 0x6d65;

/// Our filter on a device, removed when it is dropped unless it is to stay.
pub(super) struct Filter {
    socket: Socket,
    ifindex: u32,
    side: Side,
    priority: u32,
    stays: bool,
}

impl Filter {
    /// Attaches to a device of the calling thread's network namespace, and replaces a filter that an earlier run left.
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

        let mut refused = io::Error::from_raw_os_error(libc::EBUSY);
        // An existing filter of ours is replaced in place: two would count every packet twice.
        let there = filters(ifindex, side)?.into_iter().find(InstalledFilter::is_ours).map(|filter| filter.priority);
        for priority in there.map_or(PRIORITIES, |priority| priority..=priority) {
            match attach(&socket, program, ifindex, side, priority) {
                Ok(()) => return Ok(Self { socket, ifindex, side, priority, stays }),
                // A filter of another kind or for other packets uses the priority.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EEXIST | libc::EBUSY)) => {
                    refused = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// The side of the device.
    pub(super) const fn side(&self) -> Side {
        self.side
    }

    /// Whether the filter is still on its device. Must be called in the device's network namespace.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        Ok(filters(self.ifindex, self.side)?.iter().any(InstalledFilter::is_ours))
    }

    /// Forgets the filter: another program has replaced it.
    pub(super) fn replaced(mut self) {
        self.stays = true;
    }
}

fn attach(socket: &Socket, program: BorrowedFd<'_>, ifindex: u32, side: Side, priority: u32) -> io::Result<()> {
    let mut filter = filter(ifindex, side, priority);
    filter.attributes.push(TcAttribute::Options(
        [
            TcFilterBpfOption::ProgFd(program.as_raw_fd().unsigned_abs()),
            TcFilterBpfOption::ProgName("meridian".into()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ]
        .map(TcOption::Bpf)
        .into(),
    ));
    ask(socket, RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE | NLM_F_REPLACE)
}

impl Drop for Filter {
    fn drop(&mut self) {
        if !self.stays
            && let Err(error) = delete(&self.socket, self.ifindex, self.side, self.priority)
        {
            tracing::warn!(self.ifindex, side = ?self.side, %error, "the kernel refused to remove the clsact filter");
        }
    }
}

/// Removes our filters from a device of the calling thread's namespace.
pub(super) fn remove(ifindex: u32, side: Side) -> io::Result<()> {
    let socket = connect()?;
    for filter in filters(ifindex, side)?.iter().filter(|filter| filter.is_ours()) {
        delete(&socket, ifindex, side, filter.priority)?;
    }
    Ok(())
}

/// A filter on a device.
pub(super) struct InstalledFilter {
    handle: u32,
    priority: u32,
    /// The name of its program, or its kind.
    name: String,
}

impl InstalledFilter {
    fn is_ours(&self) -> bool {
        self.handle == HANDLE && PRIORITIES.contains(&self.priority)
    }
}

/// The filters of other programs that run before ours and may end the chain, for people.
pub(super) fn before_ours(ifindex: u32, side: Side) -> io::Result<Vec<String>> {
    let filters = filters(ifindex, side)?;
    let ours = filters.iter().position(InstalledFilter::is_ours);
    let before = filters.iter().take(ours.unwrap_or_default());
    Ok(before.map(|InstalledFilter { name, priority, .. }| format!("{name} (priority {priority})")).collect())
}

/// The filters of a device in the order in which they run; empty for a device without clsact.
pub(super) fn filters(ifindex: u32, side: Side) -> io::Result<Vec<InstalledFilter>> {
    let socket = connect()?;
    let mut request = message(ifindex);
    request.header.parent = parent(side);
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetTrafficFilter(request));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    send(&socket, request)?;
    let mut filters = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message: NetlinkMessage<RouteNetlinkMessage> = parse(rest)?;
            // Messages are padded to four bytes.
            rest = rest.get((message.header.length as usize).next_multiple_of(4).max(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(filters),
                NetlinkPayload::Error(error) => match error.code {
                    Some(_) => return Err(error.to_io()),
                    None => return Ok(filters),
                },
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
                    // A message without a handle is the head of a list.
                    filters.extend(installed(&filter).filter(|filter| filter.handle != 0));
                }
                _ => {}
            }
        }
    }
}

fn installed(filter: &TcMessage) -> Option<InstalledFilter> {
    let mut name = None;
    for attribute in &filter.attributes {
        match attribute {
            TcAttribute::Kind(kind) if name.is_none() => name = Some(kind.clone()),
            TcAttribute::Options(options) => {
                name = options.iter().find_map(program_name).or(name);
            }
            _ => {}
        }
    }
    Some(InstalledFilter { handle: filter.header.handle.into(), priority: filter.header.info >> 16, name: name? })
}

fn program_name(option: &TcOption) -> Option<String> {
    match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    }
}

/// Deletes our filter of a priority. It is no error if the filter has gone already, with its device for example.
fn delete(socket: &Socket, ifindex: u32, side: Side, priority: u32) -> io::Result<()> {
    let deletion = RouteNetlinkMessage::DelTrafficFilter(filter(ifindex, side, priority));
    ask(socket, deletion, 0).or_else(|error| if is_there(ifindex, side, priority) { Err(error) } else { Ok(()) })
}

fn is_there(ifindex: u32, side: Side, priority: u32) -> bool {
    let is_it = |filter: &InstalledFilter| filter.is_ours() && filter.priority == priority;
    filters(ifindex, side).is_ok_and(|filters| filters.iter().any(is_it))
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

fn parent(side: Side) -> TcHandle {
    let minor = match side {
        Side::Ingress => TcHandle::MIN_INGRESS,
        Side::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

fn filter(ifindex: u32, side: Side, priority: u32) -> TcMessage {
    let mut filter = message(ifindex);
    let every_protocol = (libc::ETH_P_ALL as u16).to_be();
    filter.header.handle = TcHandle::from(HANDLE);
    filter.header.parent = parent(side);
    filter.header.info = priority << 16 | u32::from(every_protocol);
    filter.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.into()));
    filter
}

/// Sends a request and waits for the kernel's answer.
fn ask(socket: &Socket, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    send(socket, message)?;
    let (answer, _) = socket.recv_from_full()?;
    match parse(&answer)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

fn send(socket: &Socket, mut message: NetlinkMessage<RouteNetlinkMessage>) -> io::Result<()> {
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

fn parse(bytes: &[u8]) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    NetlinkMessage::deserialize(bytes).map_err(|error| io::Error::other(error.to_string()))
}
