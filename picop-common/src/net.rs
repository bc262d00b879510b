//! Accepting connections with a context, and dialling with one.
//!
//! ```no_run
//! use picop_common::net::{self, Listener, Rules};
//! # async fn answer(_: net::Stream<tokio::net::TcpStream>) {}
//! # async fn service() -> std::io::Result<()> {
//! let mut listener = Listener::bind("0.0.0.0:8080", Rules::default()).await?;
//! loop {
//!     let (accepted, _client) = listener.accept().await?;
//!     // What runs in the scope dials with the context of the connection it serves.
//!     tokio::spawn(net::scope(accepted.context, async move {
//!         let _cart = net::connect("cart:80").await;
//!         answer(accepted.stream).await;
//!     }));
//! }
//! # }
//! ```
//!
//! - [`accept`] reads exactly the header off a stream of any kind; [`Listener`] does so for a TCP listener, for many
//!   connections at once, so that a silent client is in nobody's way.
//! - [`scope`] makes a context that of a task; [`current`] tells it, and [`connect`] sends it.
//! - [`connect_with`] and [`Stream::dialled`] take one explicitly.
mod accept;
mod current;
mod dial;
mod listener;
mod source;
mod stream;

pub use accept::{Accepted, Rules, accept};
pub use current::{current, scope, spawn};
pub use dial::{connect, connect_with};
pub use listener::Listener;
pub use source::Source;
pub use stream::{LateHeader, Stream};
