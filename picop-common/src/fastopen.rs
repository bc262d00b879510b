//! TCP Fast Open, as far as the programs must know of it: where the kernel keeps that a socket is about to use it.
//!
//! The agent reads the places out of the running kernel's own description of its types (BTF), and the programs are loaded
//! with them. They differ between kernels, and neither a helper nor `bpf_getsockopt` tells the same.

/// Places in the kernel's `struct tcp_sock`. All zero: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FastOpenLayout {
    /// Offset of the pointer `fastopen_req`: set while a send connects (`MSG_FASTOPEN`).
    pub request: u32,
    /// Offset of the byte that has the bit `fastopen_connect`: set by `TCP_FASTOPEN_CONNECT`.
    pub connect: u32,
    /// That bit, in its byte.
    pub connect_mask: u32,
}

impl FastOpenLayout {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { request: 0, connect: 0, connect_mask: 0 };

    /// Whether there is anything to go by. A `tcp_sock` begins with its `sock`, so neither place is at 0.
    pub const fn is_known(&self) -> bool {
        self.request != 0 && self.connect != 0 && self.connect_mask != 0
    }
}

const _: () = assert!(size_of::<FastOpenLayout>() == 12);
