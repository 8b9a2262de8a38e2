//! Runs a command as the chart runs the agent: three capabilities, a read-only root file system, no new privileges,
//! and the system calls that container runtimes allow.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The capabilities in the chart.
pub(crate) const CAPABILITIES: [(&str, u32); 3] = [("BPF", 39), ("NET_ADMIN", 12), ("PERFMON", 38)];

/// System calls that the default profiles of container runtimes refuse to processes with only these capabilities, as
/// far as a process could want them.
const REFUSED: [libc::c_long; 34] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_chroot,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mbind,
    libc::SYS_mount,
    libc::SYS_move_pages,
    libc::SYS_open_by_handle_at,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Confines the command to these capabilities and writable folders.
pub(crate) fn confine(command: &mut Command, capabilities: &[u32], writable: &[&Path]) {
    confine_further(command, capabilities, writable, &[]);
}

/// The same, with further system calls refused.
pub(crate) fn confine_further(
    command: &mut Command,
    capabilities: &[u32],
    writable: &[&Path],
    refused: &[libc::c_long],
) {
    let (capabilities, filter) = (capabilities.to_vec(), filter(refused));
    let writable: Vec<PathBuf> = writable.iter().map(|path| path.to_path_buf()).collect();
    // SAFETY: only system calls, without locks that another thread could hold.
    unsafe {
        command.pre_exec(move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            for path in &writable {
                mount(Some(path), path, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
            }
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(None::<&str>, "/", None::<&str>, read_only, None::<&str>)?;
            for capability in (0..=63u32).filter(|capability| !capabilities.contains(capability)) {
                // Capabilities that the kernel does not have fail, which is fine.
                libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
            }
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
            if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// The filter refuses with EPERM, as the runtimes do.
fn filter(further: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let answer = |k| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    // The number of the system call is the first word.
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in REFUSED.iter().chain(further).copied() {
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        program.push(answer(refused));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}
