//! PiCoP on a stream: reading the header at a connection's start, and the context it carries.
//!
//! The bytes themselves are [`crate::header`]'s.
pub mod baggage;
mod context;
mod env_id;
mod expect;
mod reader;

pub use context::{Context, Dropped, EnvSource, OwnContextError};
pub use env_id::{EnvId, EnvIdError};
pub use expect::{ExpectHeader, ParseExpectError};
#[cfg(feature = "tokio")]
pub(crate) use reader::AMBIGUOUS;
pub use reader::{Head, HeadError, HeadKind, HeadSource, READ_SIZE, read_head};
