//! The agent's only unsafe code: system calls that no library of ours wraps, and where memory comes from.
#![expect(unsafe_code, reason = "raw getsockopt and bpf(2), and the allocator, each call argued for")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

mod alloc;
mod memory;
pub mod tcp;
mod watched;

pub use alloc::Allocator;
pub use memory::SharedWords;
pub use watched::Watched;

/// `SO_NETNS_COOKIE` (kernel 5.14): identifies a socket's network namespace for as long as the machine runs.
pub fn netns_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    cookie(socket, libc::SO_NETNS_COOKIE)
}

/// Has a listener take no data in a SYN, whatever the namespace's `net.ipv4.tcp_fastopen` says.
pub fn no_fast_open(listener: BorrowedFd<'_>) -> io::Result<()> {
    let queue: libc::c_int = 0;
    let len = libc::socklen_t::try_from(size_of_val(&queue)).expect("4 fits");
    // SAFETY: the kernel reads `len` bytes of `queue`, which outlives the call.
    let rc = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN,
            (&raw const queue).cast(),
            len,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn cookie(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).expect("8 fits");
    // SAFETY: the kernel writes at most `len` bytes to `cookie` and the length to `len`; both outlive the call.
    let rc = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut cookie).cast(), &raw mut len)
    };
    if rc == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// `SO_COOKIE`: identifies a socket for as long as the machine runs.
pub fn socket_cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    cookie(socket, libc::SO_COOKIE)
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

/// `BPF_MAP_CREATE`: an empty map of the type, sizes, flags and BTF of another one, for another number of entries.
///
/// With the BTF, as up to 6.1 a map of maps takes only inner maps that agree with its template in that too
/// (`bpf_map_meta_equal` compares offsets that are "not looked for" without BTF and "not there" with it).
#[cfg(feature = "ebpf")]
pub fn map_like(template: BorrowedFd<'_>, max_entries: u32) -> io::Result<OwnedFd> {
    use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_info};

    // SAFETY: all-zero is a valid bpf_map_info.
    let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
    // SAFETY: all-zero is a valid bpf_attr.
    let mut ask: bpf_attr = unsafe { std::mem::zeroed() };
    ask.info.bpf_fd = u32::try_from(template.as_raw_fd()).expect("an open descriptor");
    ask.info.info_len = u32::try_from(size_of::<bpf_map_info>()).expect("a small struct");
    ask.info.info = (&raw mut info) as u64;
    // SAFETY: the kernel writes at most `info_len` bytes to `info`, which outlives the call.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut ask) }?;

    // SAFETY: as above.
    let mut open: bpf_attr = unsafe { std::mem::zeroed() };
    open.__bindgen_anon_6.__bindgen_anon_1.btf_id = info.btf_id;
    // SAFETY: the command reads an id and returns a descriptor that nobody else has.
    let btf = unsafe { OwnedFd::from_raw_fd(bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut open)?) };

    // SAFETY: as above.
    let mut create: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: only this member of the union is used.
    let map = unsafe { &mut create.__bindgen_anon_1 };
    map.map_type = info.type_;
    map.key_size = info.key_size;
    map.value_size = info.value_size;
    map.map_flags = info.map_flags;
    map.max_entries = max_entries;
    map.map_name = info.name;
    map.btf_fd = u32::try_from(btf.as_raw_fd()).expect("an open descriptor");
    map.btf_key_type_id = info.btf_key_type_id;
    map.btf_value_type_id = info.btf_value_type_id;
    // SAFETY: the command reads `create` and returns a descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(bpf(bpf_cmd::BPF_MAP_CREATE, &mut create)?) })
}

/// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`: takes a value out of a hash map, LRU or not (kernel 5.14). None if the key is not there.
#[cfg(feature = "ebpf")]
pub fn take_out<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    use aya_obj::generated::{bpf_attr, bpf_cmd};

    let mut value = std::mem::MaybeUninit::<V>::uninit();
    // SAFETY: all-zero is a valid bpf_attr.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: only this member of the union is used.
    let element = unsafe { &mut attr.__bindgen_anon_2 };
    element.map_fd = u32::try_from(map.as_raw_fd()).expect("an open descriptor");
    element.key = std::ptr::from_ref(key) as u64;
    element.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    // SAFETY: the kernel reads the map's key size from `key` and writes its value size to `value`; that these are the sizes
    // of K and V was checked when the map was opened with these types.
    match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) } {
        // SAFETY: the kernel wrote all of it, and any bytes make a V.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `bpf(2)`.
///
/// # Safety
/// `attr` must be what the command takes, and what it points to must be valid for as long as the call lasts.
#[cfg(feature = "ebpf")]
unsafe fn bpf(
    command: aya_obj::generated::bpf_cmd,
    attr: &mut aya_obj::generated::bpf_attr,
) -> io::Result<std::os::fd::RawFd> {
    // SAFETY: the caller's promise; the kernel reads and writes no more of `attr` than its size.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of_val(attr)) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(rc).expect("a descriptor or 0")) }
}
