//! Answers, as they go over the wire: what the agent fills in, and the command line reads back.

pub mod connections;
pub mod matrix;
pub mod routes;
pub mod things;
