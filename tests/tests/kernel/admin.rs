//! What a running agent answers, and that it is true.

mod explain;
mod verbs;
