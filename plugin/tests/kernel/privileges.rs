//! Rights that a thread gives up.

use std::io;

const VERSION_3: u32 = 0x2008_0522;
const NET_ADMIN: u32 = 12;

#[repr(C)]
struct Header {
    version: u32,
    thread: i32,
}

/// Effective, permitted and inheritable rights.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Rights([u32; 3]);

/// Takes CAP_NET_ADMIN from the calling thread, for good.
pub fn drop_net_admin() -> io::Result<()> {
    let header = Header { version: VERSION_3, thread: 0 };
    let mut rights = [Rights::default(); 2];
    // SAFETY: version 3 has two elements, of the size of `Rights` each.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, rights.as_mut_ptr()) })?;
    for set in &mut rights[0].0 {
        *set &= !(1 << NET_ADMIN);
    }
    // SAFETY: as above; the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, rights.as_ptr()) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
