//! Reads the UDP port of a WireGuard device, by generic netlink.

use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// The controller of generic netlink families (`GENL_ID_CTRL`), its request for a family, and the attributes of
/// request and answer.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// The request for a device (`WG_CMD_GET_DEVICE`), and the attributes of request and answer.
const GET_DEVICE: u8 = 0;
const IFINDEX: u16 = 1;
const LISTEN_PORT: u16 = 6;

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
/// Bytes of the headers of netlink and of generic netlink.
const NETLINK_HEADER: usize = 16;
const HEADERS: usize = NETLINK_HEADER + 4;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The port of a device in the calling thread's network namespace.
pub(super) fn port(ifindex: u32) -> io::Result<Option<u16>> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = ask(&socket, CONTROL, REQUEST, GET_FAMILY, (FAMILY_NAME, b"wireguard\0"), FAMILY_ID)?;
    let Some(family) = family else { return Ok(None) };
    ask(&socket, family, REQUEST | DUMP, GET_DEVICE, (IFINDEX, &ifindex.to_ne_bytes()), LISTEN_PORT)
}

/// Sends a request with one attribute, and returns a 16-bit attribute of the answer.
fn ask(
    socket: &Socket,
    family: u16,
    flags: u16,
    command: u8,
    (attribute, value): (u16, &[u8]),
    wanted: u16,
) -> io::Result<Option<u16>> {
    let mut message = vec![0; NETLINK_HEADER];
    message[4..6].copy_from_slice(&family.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message.extend([command, 1, 0, 0]);
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    read(&answer, wanted)
}

fn read(mut answer: &[u8], wanted: u16) -> io::Result<Option<u16>> {
    while let Some((len, kind)) = word(answer, 0).zip(half(answer, 4)) {
        let message = answer.get(..len as usize).unwrap_or_default();
        match kind {
            DONE => break,
            ERROR => {
                let code = word(message, NETLINK_HEADER).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(-code));
            }
            _ => {}
        }
        let mut attributes = message.get(HEADERS..).unwrap_or_default();
        while let Some((len, kind)) = half(attributes, 0).zip(half(attributes, 2)) {
            if kind == wanted {
                return Ok(half(attributes, 4));
            }
            attributes = attributes.get(usize::from(len).next_multiple_of(4).max(4)..).unwrap_or_default();
        }
        answer = answer.get((len as usize).next_multiple_of(4).max(NETLINK_HEADER)..).unwrap_or_default();
    }
    Ok(None)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, attributes: &[(u16, u16)]) -> Vec<u8> {
        let mut message = vec![0; HEADERS];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        for (kind, value) in attributes {
            message.extend([6u16.to_ne_bytes(), kind.to_ne_bytes(), value.to_ne_bytes(), [0, 0]].concat());
        }
        let len = message.len() as u32;
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message
    }

    #[test]
    fn the_port_is_found_and_no_cut_answer_panics() {
        let answer = [message(30, &[(1, 7), (LISTEN_PORT, 51_871)]), message(DONE, &[])].concat();
        assert_eq!(read(&answer, LISTEN_PORT).unwrap(), Some(51_871));
        assert_eq!(read(&answer, 9).unwrap(), None);
        for len in 0..answer.len() {
            let _ = read(&answer[..len], LISTEN_PORT);
        }
        let mut refused = message(ERROR, &[]);
        refused[NETLINK_HEADER..].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(read(&refused, LISTEN_PORT).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }
}
