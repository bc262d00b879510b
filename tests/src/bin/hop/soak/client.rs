//! The soak's client.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};
use testbed::hex;
use testbed::soak::{End, Plan, Progress, Target};

use super::{ANSWER, request, step_back};

/// Bounds each wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the client says how far it is.
const TICK: Duration = Duration::from_millis(500);
/// So many failures, and it gives up: the rest would say the same.
const ENOUGH: u64 = 20;

#[derive(clap::Args)]
pub struct Args {
    /// What to do, as JSON; see `testbed::soak`
    #[arg(long, value_parser = plan)]
    plan: Plan,
}

fn plan(text: &str) -> Result<Plan, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    next: AtomicU64,
    done: AtomicU64,
    with_header: AtomicU64,
    silent: AtomicU64,
    failed: AtomicU64,
    errors: Mutex<Vec<String>>,
    ended: AtomicBool,
}

impl Shared {
    fn progress(&self) -> Progress {
        let count = |n: &AtomicU64| n.load(Ordering::SeqCst);
        Progress {
            ended: self.ended.load(Ordering::SeqCst),
            done: count(&self.done),
            with_header: count(&self.with_header),
            silent: count(&self.silent),
            failed: count(&self.failed),
            errors: self.lock().clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

pub fn run(args: &Args) -> Result<()> {
    step_back()?;
    let plan = &args.plan;
    let targets = plan.targets.iter().map(Goal::new).collect::<Result<Vec<_>>>()?;
    ensure!(!targets.is_empty(), "nowhere to connect to");
    let shared = Shared::default();
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..plan.threads).map(|_| scope.spawn(|| work(plan.count, &targets, &shared))).collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            println!("{}", serde_json::to_string(&shared.progress())?);
            thread::park_timeout(TICK);
        }
        // A panic is told by the scope.
        shared.ended.store(true, Ordering::SeqCst);
        println!("{}", serde_json::to_string(&shared.progress())?);
        Ok(())
    })
}

fn work(count: u64, targets: &[Goal], shared: &Shared) {
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= count || shared.failed.load(Ordering::Relaxed) >= ENOUGH {
            return;
        }
        let goal = &targets[usize::try_from(number).unwrap_or(0) % targets.len()];
        match goal.connection(number) {
            Ok(()) => {
                shared.done.fetch_add(1, Ordering::Relaxed);
                let of = if End::of(number) == End::Silent { &shared.silent } else { &shared.with_header };
                of.fetch_add(u64::from(!goal.header.is_empty()), Ordering::Relaxed);
            }
            Err(error) => {
                shared.failed.fetch_add(1, Ordering::Relaxed);
                shared.lock().push(format!("connection {number} to {}: {error:#}", goal.to));
            }
        }
    }
}

/// A target, as it is used.
#[derive(Debug)]
struct Goal {
    to: SocketAddr,
    server: u16,
    header: Vec<u8>,
}

impl Goal {
    fn new(target: &Target) -> Result<Self> {
        let to = match target.to.ip() {
            IpAddr::V4(v4) if target.mapped => SocketAddr::new(v4.to_ipv6_mapped().into(), target.to.port()),
            _ => target.to,
        };
        Ok(Self { to, server: target.server, header: hex::decode(&target.header)? })
    }

    /// One connection; an error if anything is not as it should be.
    fn connection(&self, number: u64) -> Result<()> {
        let socket =
            Socket::new(Domain::for_address(self.to), Type::STREAM, None).context("making a socket")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(&self.to.into()).context("connecting")?;
        let mut stream = TcpStream::from(socket);
        if End::of(number) == End::Silent {
            return Ok(());
        }
        stream.write_all(&request(number)).context("sending")?;
        let mut answer = [0; ANSWER + super::BEFORE_MAX];
        let mut filled = 0;
        let (mut wanted, end) = (ANSWER, End::of(number));
        while filled < wanted {
            let count = stream.read(&mut answer[filled..]).context("reading the answer")?;
            ensure!(count > 0, "the answer ended after {filled} bytes");
            filled += count;
            if filled >= ANSWER {
                wanted = ANSWER + usize::from(u16::from_be_bytes([answer[2], answer[3]]));
            }
        }
        let server = u16::from_be_bytes([answer[0], answer[1]]);
        ensure!(server == self.server, "server {server} answered, not {}", self.server);
        ensure!(answer[4..ANSWER] == number.to_be_bytes(), "the answer to another request");
        let seen = &answer[ANSWER..filled];
        ensure!(seen == self.header, "before the request the server saw {:?}", String::from_utf8_lossy(seen));
        match end {
            End::Client | End::Silent => {}
            End::Server => {
                ensure!(stream.read(&mut [0; 1]).context("waiting for the server's end")? == 0, "more came");
            }
            End::Reset => crate::server::reset(stream)?,
        }
        Ok(())
    }
}
