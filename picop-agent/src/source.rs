//! Where routes come from.
pub mod file;
