//! `hop`: what runs inside the testbed's pods. A launcher that puts a program into a pod, test servers, a test client, and
//! the demo's service, which speaks PiCoP as an instrumented application does.

mod asks;
mod bench_client;
mod bench_codec;
mod bench_gateway;
mod bench_relay;
mod bench_server;
mod bench_wire;
mod blob;
mod carry;
mod client;
mod conn;
mod echo;
mod enter;
mod hold;
mod load;
mod payload;
mod prefix;
mod recorder;
mod serve;
mod server;
mod soak;
mod stream;
mod streams;
mod talk;
mod tell;
mod train;
mod unwrap;

use clap::Parser;

#[derive(Parser)]
#[command(about, long_about = None)]
enum Hop {
    /// Runs a program inside a pod: joins its cgroup and its network namespace, then becomes the program
    Enter(enter::Args),
    /// Sends back what it gets, and its end of stream after the client's
    Echo(echo::Args),
    /// Answers a line, or the client's end of stream, with a computable stream of bytes
    Blob(blob::Args),
    /// Writes down every byte it gets
    Recorder(recorder::Args),
    /// Connects programs on to a server, with a PiCoP header ahead of what they send
    Prefix(prefix::Args),
    /// Plays a server that reads PiCoP headers, in front of one that does not; reports what each connection began with
    Unwrap(unwrap::Args),
    /// Opens connections and reports what they met, as one line of JSON
    Client(client::Args),
    /// Makes a cluster of one pod, prints its name, and keeps it until standard input ends
    Hold,
    /// Sends requests without a pause and reports each, until its standard input ends
    Load(load::Args),
    /// Makes the benchmarks' connections, as the benchmark says
    BenchClient(bench_client::Args),
    /// Reads and writes headers, again and again
    BenchCodec(bench_codec::Args),
    /// Passes the benchmarks' requests on, as simply as it can be done with hyper
    BenchGateway(bench_gateway::Args),
    /// Passes the benchmarks' connections on, as cheaply as it can be done
    BenchRelay(bench_relay::Args),
    /// Serves the benchmarks' connections
    BenchServer(bench_server::Args),
    /// Makes the soak's connections, each of which it checks
    SoakClient(soak::client::Args),
    /// Serves the soak's connections, and says what it saw
    SoakServer(soak::server::Args),
    /// One end of a connection on which both sides stream and check what comes
    Stream(stream::Args),
    /// Ends of connections as `stream` makes them, one for each line of standard input, all at once
    Streams(streams::Args),
    /// Tells whoever connects at which address it was met
    Tell(tell::Args),
    /// Starts a gateway for HTTP and asks it what gateways are asked
    Train(train::Args),
    /// Makes a connection for each line of standard input, and says what became of it
    Asks(asks::Args),
    /// Does with sockets what standard input says, step by step
    Talk,
    /// The demo's service: says which instances served a request
    Serve(serve::Args),
}

fn main() -> anyhow::Result<()> {
    match Hop::parse() {
        Hop::Enter(args) => enter::run(args),
        Hop::Echo(args) => echo::run(&args),
        Hop::Blob(args) => blob::run(&args),
        Hop::Recorder(args) => recorder::run(&args),
        Hop::Prefix(args) => prefix::run(&args),
        Hop::Unwrap(args) => unwrap::run(&args),
        Hop::Client(args) => client::run(&args),
        Hop::Hold => hold::run(),
        Hop::Load(args) => load::run(&args),
        Hop::BenchClient(args) => bench_client::run(&args),
        Hop::BenchCodec(args) => bench_codec::run(&args),
        Hop::BenchGateway(args) => bench_gateway::run(&args),
        Hop::BenchRelay(args) => bench_relay::run(&args),
        Hop::BenchServer(args) => bench_server::run(&args),
        Hop::SoakClient(args) => soak::client::run(&args),
        Hop::SoakServer(args) => soak::server::run(&args),
        Hop::Stream(args) => stream::run(&args),
        Hop::Streams(args) => streams::run(&args),
        Hop::Tell(args) => tell::run(&args),
        Hop::Train(args) => train::run(&args),
        Hop::Asks(args) => asks::run(&args),
        Hop::Talk => talk::run(),
        Hop::Serve(args) => serve::run(args),
    }
}
