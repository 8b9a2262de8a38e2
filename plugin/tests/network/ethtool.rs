//! Offloads of a device, by the ioctl that ethtool uses.

use std::{ffi::CString, io, net::UdpSocket, os::fd::AsRawFd};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Commands that set one feature: TSO, GSO, GRO.
const TSO: u32 = 0x1f;
const GSO: u32 = 0x24;
const GRO: u32 = 0x2c;
const STRINGS: u32 = 0x1b;
const STRINGS_INFO: u32 = 0x37;
const SET_FEATURES: u32 = 0x3b;
/// `ETH_SS_FEATURES`.
const FEATURES: u32 = 4;
const STRING_LEN: usize = 32;

/// Makes the kernel segment packets, datagrams included, before they leave through the device.
pub fn without_segmentation(device: &str) {
    for feature in [TSO, GSO] {
        value(device, feature, 0).unwrap();
    }
    clear(device, "tx-udp-segmentation").unwrap();
}

/// Makes the kernel write a VLAN's tag into the packet before it leaves.
pub fn without_vlan_offload(device: &str) {
    clear(device, "tx-vlan-hw-insert").unwrap();
}

/// Keeps the kernel from merging packets that arrive.
pub fn without_gro(device: &str) {
    value(device, GRO, 0).unwrap();
}

fn value(device: &str, command: u32, value: u32) -> io::Result<()> {
    call(device, &mut [command, value])
}

/// Turns off the feature of this name.
fn clear(device: &str, name: &str) -> io::Result<()> {
    // struct ethtool_sset_info: command, reserved, a mask of 64 bits, then the lengths.
    let mut info = [STRINGS_INFO, 0, 1 << FEATURES, 0, 0];
    call(device, &mut info)?;
    let count = info[4] as usize;
    // struct ethtool_gstrings: command, set, length, then the strings.
    let mut strings = vec![0u32; 3 + count * STRING_LEN / 4];
    strings[..3].copy_from_slice(&[STRINGS, FEATURES, count as u32]);
    call(device, &mut strings)?;
    let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let is_named = |string: &[u8]| string.split(|byte| *byte == 0).next() == Some(name.as_bytes());
    let Some(bit) = bytes.chunks(STRING_LEN).position(is_named) else { return Ok(()) };
    // struct ethtool_sfeatures: command, blocks, then for each 32 features which to set, and how.
    let blocks = count.div_ceil(32);
    let mut features = vec![0u32; 2 + 2 * blocks];
    features[..2].copy_from_slice(&[SET_FEATURES, blocks as u32]);
    features[2 + 2 * (bit / 32)] = 1 << (bit % 32);
    call(device, &mut features)
}

fn call(device: &str, words: &mut [u32]) -> io::Result<()> {
    // struct ifreq: a name, and a pointer to the command.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        data: *mut u32,
        rest: [u64; 2],
    }
    let mut request = Request { name: [0; libc::IFNAMSIZ], data: words.as_mut_ptr(), rest: [0; 2] };
    let name = CString::new(device)?;
    request.name[..name.as_bytes().len()].copy_from_slice(name.as_bytes());
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: a request whose pointer is to as many words as the command states.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
