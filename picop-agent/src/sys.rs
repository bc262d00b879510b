//! The agent's only unsafe code: system calls that no library of ours wraps.
#![expect(unsafe_code, reason = "raw getsockopt and bpf(2), each call argued for")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// `SO_NETNS_COOKIE` (kernel 5.14): identifies a socket's network namespace for as long as the machine runs.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).expect("8 fits");
    // SAFETY: the kernel writes at most `len` bytes to `cookie` and the length to `len`; both outlive the call.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if rc == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// `BPF_PROG_QUERY`: ids of the programs attached to a cgroup itself, for one attach type.
#[cfg(feature = "ebpf")]
pub fn attached_programs(
    cgroup: BorrowedFd<'_>,
    attach_type: aya_obj::generated::bpf_attach_type,
) -> io::Result<Vec<u32>> {
    use aya_obj::generated::{bpf_attr, bpf_cmd};

    let mut ids = [0_u32; 64];
    // SAFETY: all-zero is a valid bpf_attr.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: only the `query` member of the union is used from here on.
    let query = unsafe { &mut attr.query };
    query.__bindgen_anon_1.target_fd = u32::try_from(cgroup.as_raw_fd()).expect("an open descriptor");
    query.attach_type = attach_type as u32;
    query.prog_ids = ids.as_mut_ptr() as u64;
    query.__bindgen_anon_2.prog_cnt = u32::try_from(ids.len()).expect("64 fits");
    // SAFETY: the kernel reads `attr`, writes at most `prog_cnt` ids to `ids` and the count to `attr`; both outlive
    // the call.
    let rc = unsafe {
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_PROG_QUERY, &raw mut attr, size_of::<bpf_attr>())
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel set `prog_cnt` in the same member.
    let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt };
    Ok(ids[..(count as usize).min(ids.len())].to_vec())
}

/// `BPF_PROG_QUERY` without a list: how many programs are attached to a cgroup itself for one attach type, and with
/// which `BPF_F_ALLOW_*` flags the first of them was.
#[cfg(feature = "ebpf")]
pub fn attachment(
    cgroup: BorrowedFd<'_>,
    attach_type: aya_obj::generated::bpf_attach_type,
) -> io::Result<(u32, u32)> {
    use aya_obj::generated::{bpf_attr, bpf_cmd};

    // SAFETY: all-zero is a valid bpf_attr.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: only the `query` member of the union is used from here on.
    let query = unsafe { &mut attr.query };
    query.__bindgen_anon_1.target_fd = u32::try_from(cgroup.as_raw_fd()).expect("an open descriptor");
    query.attach_type = attach_type as u32;
    // SAFETY: the kernel reads `attr` and writes flags and count to it; with room for no ids it writes nothing else.
    let rc = unsafe {
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_PROG_QUERY, &raw mut attr, size_of::<bpf_attr>())
    };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel set both in the same member.
    Ok(unsafe { (attr.query.__bindgen_anon_2.prog_cnt, attr.query.attach_flags) })
}

/// Moves the calling thread, and no other, into a network namespace of its own.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: the flag concerns the thread's network namespace only; descriptors, memory and all else of the process
    // stay shared.
    let rc = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
