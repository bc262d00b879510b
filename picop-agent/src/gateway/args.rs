//! The command line of the gateway and of the programs for a terminal.
//!
//! `gateway tcp`, `gateway proxy` and `curl` take the flags of PiCoP's reference programs, by the same names and with the same
//! defaults, so that they can stand in for those. Only `curl` posts a body where no method is named, as curl does.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Subcommand};
use hyper::{Method, Uri, header::HeaderName, http::uri::InvalidUri};

use super::{http::hosts::HostPattern, pump::DEFAULT_BUFFER};
use crate::{
    duration::duration,
    listen::address,
    protocol::{EnvId, ExpectHeader},
    telemetry::logs::LogFormat,
};

mod go_style;

pub use go_style::go_style;

/// `picop gateway`.
#[derive(Clone, Debug, Subcommand)]
pub enum GatewayCommand {
    /// Add an environment to every connection that names none, and pass it on to one destination.
    Tcp(TcpArgs),
    /// Route each connection by its PiCoP header, to destinations that an admin API is told, like PiCoP's reference proxy.
    Proxy(ProxyArgs),
    /// Route each HTTP request by its host, a header or a cookie, over connections that begin with a PiCoP header.
    Http(Box<HttpArgs>),
}

/// What every kind of gateway takes.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Connections of clients at once. Those after them wait to be accepted.
    #[arg(long, env = "PICOP_MAX_CONNECTIONS", value_name = "N", default_value_t = 10_000)]
    pub max_connections: u32,

    /// Threads that serve connections. [default: one for each CPU]
    #[arg(long, env = "PICOP_WORKERS", value_name = "N")]
    pub workers: Option<NonZeroUsize>,

    /// Serve numbers for Prometheus at this address (/metrics), and that it runs (/healthz).
    #[arg(long, env = "PICOP_METRICS", value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,

    /// How long the server may take to accept a connection.
    #[arg(long, env = "PICOP_CONNECT_TIMEOUT", value_name = "TIME", default_value = "3s", value_parser = duration)]
    pub connect_timeout: Duration,

    /// How long a client may take to send what a connection begins with, once it has begun or must.
    #[arg(long, env = "PICOP_HEADER_TIMEOUT", value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub header_timeout: Duration,

    /// At SIGTERM or SIGINT, how long running connections may take to end before they are reset. A second signal ends that.
    #[arg(long, env = "PICOP_DRAIN_TIMEOUT", value_name = "TIME", default_value = "20s", value_parser = duration)]
    pub drain_timeout: Duration,

    /// How log lines look.
    #[arg(long, env = "PICOP_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// What to log, in tracing's filter syntax, such as `info` or `info,access=off`.
    #[arg(long, env = "PICOP_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// `picop gateway tcp`.
#[derive(Clone, Debug, Args)]
pub struct TcpArgs {
    /// The port to accept connections at, on all addresses.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    pub port: u16,

    /// The environment of connections that name none themselves.
    #[arg(long, value_name = "ENV")]
    pub env_id: EnvId,

    /// Where connections go.
    #[arg(long, value_name = "HOST:PORT", value_parser = destination)]
    pub destination: String,

    /// Whether clients send a header of their own: always, never, or sniff(50ms) to wait that long for a first byte.
    #[arg(long, value_name = "WHEN", default_value_t)]
    pub expect_header: ExpectHeader,

    /// The rest.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `picop gateway proxy`.
#[derive(Clone, Debug, Args)]
pub struct ProxyArgs {
    /// The port to accept connections at, on all addresses.
    #[arg(long, value_name = "PORT", default_value_t = 9000)]
    pub proxy_port: u16,

    /// The port of the admin API, on all addresses. Whoever reaches it can redirect connections.
    #[arg(long, value_name = "PORT", default_value_t = 9001)]
    pub admin_port: u16,

    /// Where connections go that name no environment, or one with no destination. Without it they are reset.
    #[arg(long, value_name = "HOST:PORT", value_parser = maybe_destination)]
    pub default_addr: Option<MaybeDestination>,

    /// Whether destinations are sent the header too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub propagate: bool,

    /// The controller to take destinations from. [default: http://localhost:8080, with --id; without it, none]
    #[arg(long, value_name = "URL", requires = "id")]
    pub controller_url: Option<Uri>,

    /// This proxy's name at the controller, which it asks to be told of all destinations.
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,

    /// Register at the controller, too, which then finds the admin API at this URL; `auto` is the address that this proxy has
    /// towards the controller, and the port of the admin API. Without it, somebody else registers the proxy (PUT
    /// /proxy/ID/register).
    #[arg(long, value_name = "URL", requires = "id")]
    pub endpoint: Option<Place>,

    /// Bytes carried at a time.
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_BUFFER, value_parser = buffer)]
    pub buf: usize,

    /// Whether clients send a header: always, never, or sniff(50ms) to wait that long for a first byte.
    #[arg(long, value_name = "WHEN", default_value_t)]
    pub expect_header: ExpectHeader,

    /// The rest.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Where a controller finds a proxy's admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the address that the proxy has towards the controller.
    Own,
    /// There.
    At(Uri),
}

impl FromStr for Place {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        if text == "auto" { Ok(Self::Own) } else { text.parse().map(Self::At) }
    }
}

/// A destination, or the empty text: the reference takes it for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaybeDestination(pub Option<String>);

/// `picop gateway http`.
#[derive(Clone, Debug, Args)]
pub struct HttpArgs {
    /// The address to accept connections at: HTTP/1.1 and HTTP/2, with TLS if a certificate is given.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub listen: SocketAddr,

    /// Where requests go: a service that picop routes, or a gateway proxy.
    #[arg(long, value_name = "HOST:PORT", value_parser = destination)]
    pub upstream: String,

    /// Hosts that name an environment, such as `{env}.preview.example.com`. May be given more than once; the first that fits
    /// counts.
    #[arg(long, value_name = "PATTERN")]
    pub host_pattern: Vec<HostPattern>,

    /// The header that names it, if the host does not: `baggage` has it as its member `env-id`, any other as its value.
    #[arg(long, value_name = "NAME", default_value = "baggage")]
    pub header: HeaderName,

    /// The cookie that names it, if neither does.
    #[arg(long, value_name = "NAME", value_parser = cookie)]
    pub cookie: Option<String>,

    /// The environment of requests that name none. Without it, their connections have no header.
    #[arg(long, value_name = "ENV")]
    pub env_id: Option<EnvId>,

    /// Certificates (PEM), the server's first. Read again when they change.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Requests at once. Those after them are answered with 503.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub max_requests: usize,

    /// Speak HTTP/2 to the server, which must speak it without TLS: for gRPC.
    #[arg(long)]
    pub upstream_http2: bool,

    /// Connections to the server that are kept while they are idle, in total: each worker has its part of them.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    pub pool_size: usize,

    /// How long they are kept.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub pool_idle: Duration,

    /// How old they may become: when a route has changed, this is how long requests may still go where it led before.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub pool_age: Duration,

    /// How long the server may take to begin an answer.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub answer_timeout: Duration,

    /// How long a client's connection may be idle between requests (HTTP/1.1).
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = duration)]
    pub client_idle: Duration,

    /// The rest.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `picop curl`.
#[derive(Clone, Debug, Args)]
pub struct CurlArgs {
    /// The environment.
    #[arg(long, value_name = "ENV")]
    pub env_id: Option<EnvId>,

    /// What to ask for: `http://HOST[:PORT]/PATH`, or `https://`, where the environment goes in front of the TLS handshake.
    #[arg(long)]
    pub url: Uri,

    /// With https, whom to trust instead of the authorities that this host trusts: certificates (PEM).
    #[arg(long, value_name = "FILE")]
    pub cacert: Option<PathBuf>,

    /// With https, take any certificate.
    #[arg(short = 'k', long, conflicts_with = "cacert")]
    pub insecure: bool,

    /// The method. [default: GET, with --data POST]
    #[arg(short = 'X', long)]
    pub method: Option<Method>,

    /// The body.
    #[arg(short, long)]
    pub data: Option<String>,

    /// A header, `Name: value`. May be given more than once.
    #[arg(short = 'H', long = "header", value_name = "HEADER", value_parser = header)]
    pub headers: Vec<(HeaderName, String)>,

    /// Print the answer's status and headers too.
    #[arg(short, long)]
    pub include: bool,

    /// Exit with 1 if the status is 400 or above.
    #[arg(short, long)]
    pub fail: bool,

    /// How long the server may take to accept the connection.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
}

/// `picop connect`.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// The environment.
    #[arg(value_name = "ENV")]
    pub env: EnvId,

    /// The server.
    #[arg(value_name = "HOST:PORT", value_parser = destination)]
    pub destination: String,

    /// How long the server may take to accept the connection.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub connect_timeout: Duration,
}

/// `picop decode`.
#[derive(Clone, Debug, Args)]
pub struct DecodeArgs {
    /// A capture (pcap or pcapng), or text of hexadecimal digits; `-` is standard input.
    #[arg(value_name = "FILE", required_unless_present = "hex")]
    pub file: Option<PathBuf>,

    /// The bytes in hexadecimal. Spaces, colons and `0x` are ignored.
    #[arg(long, value_name = "STRING", conflicts_with = "file")]
    pub hex: Option<String>,
}

/// A `host:port` to connect to, such as `cart:80`, `10.0.0.7:80` or `[fd00::7]:80`.
///
/// # Errors
/// In words, when it is none.
pub fn destination(text: &str) -> Result<String, String> {
    let problem = || format!("{text:?} is no destination: write HOST:PORT, such as cart:80 or [fd00::7]:80");
    let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let bad_host =
        host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/');
    if bad_host || host.contains(':') != is_bracketed || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(problem());
    }
    Ok(text.to_owned())
}

fn maybe_destination(text: &str) -> Result<MaybeDestination, String> {
    if text.is_empty() {
        Ok(MaybeDestination(None))
    } else {
        destination(text).map(Some).map(MaybeDestination)
    }
}

fn buffer(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ 1..=1_048_576) => Ok(bytes),
        _ => Err("a number of bytes from 1 to 1048576, please".to_owned()),
    }
}

/// A cookie's name has the characters that a header's has (RFC 6265, 4.1.1), and its case matters.
fn cookie(text: &str) -> Result<String, String> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("a cookie's name has no spaces, and none of ()<>@,;:\\\"/[]?={}".to_owned()),
    }
}

fn header(text: &str) -> Result<(HeaderName, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is `Name: value`")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    Ok((name, value.trim().to_owned()))
}

#[cfg(test)]
mod tests;
