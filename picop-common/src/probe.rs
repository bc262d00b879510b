//! What `picop doctor` and the `probe` program say to each other.

/// First byte of a message: push [`MARK`] in front of it.
pub const PUSH: u8 = b'P';
/// First byte of a message: push in front of it, and take it back.
pub const PUSH_POP: u8 = b'B';
/// First byte of a message: redirect it into the send queue of the socket at [`TARGET`].
pub const REDIRECT: u8 = b'R';
/// Key of that socket in the map.
pub const TARGET: u32 = 1;
/// What is pushed.
pub const MARK: [u8; 8] = *b"<picop!>";
