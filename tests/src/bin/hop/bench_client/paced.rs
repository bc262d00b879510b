//! HTTP requests at a rate that does not depend on the answers: each has a moment at which it is meant to be sent, and its
//! time counts from then, also while it waits for its client to be free. What is slow is therefore not asked less often,
//! and what waits behind it shows (no coordinated omission).

pub mod http;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::thread::set_current_timer_slack;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use serde::{Deserialize, Serialize};

use super::{PATIENCE, long_nanos, nanos};
use http::Response;

/// What epoll says of the timer. Other events are numbers of clients.
const TIMER: u64 = u64::MAX;
/// Room for a response.
const ROOM: usize = 4096;
/// How much longer than planned it may go on to serve what has piled up.
const GRACE: Duration = Duration::from_secs(1);

/// What to ask, and how often.
#[derive(Debug, Deserialize)]
pub struct Plan {
    /// Where to: client number n asks target n, modulo their number.
    targets: Vec<Target>,
    /// Requests a second, of all clients together.
    rate: f64,
    /// Requests in all.
    requests: u64,
    /// How many may be under way at a time. Number n has every n-th request.
    clients: u64,
    /// Whether a client keeps its connection, rather than opening one for each request.
    keep_alive: bool,
    /// Whether all clients send at the same moment, rather than one after the other at even distances.
    at_once: bool,
    /// The HTTP request, in full.
    request: String,
}

/// A server.
#[derive(Debug, Deserialize)]
struct Target {
    to: SocketAddr,
    /// The whole body that it must answer with.
    body: String,
}

/// Nanoseconds, a value for each request.
#[derive(Debug, Default, Serialize)]
pub struct Paced {
    /// From the moment it was meant to be sent to the whole response.
    whole: Vec<u32>,
    /// From when it was meant to be sent to when it was, where its client was free: how late this program itself was.
    late: Vec<u32>,
    /// Requests without an answer when the time was up.
    missed: u64,
    /// From the first one's moment to the last one's answer.
    elapsed: u64,
}

/// Makes the requests.
pub fn run(plan: &Plan, header: &[u8]) -> Result<Paced> {
    ensure!(plan.rate > 0.0 && plan.requests > 0 && plan.clients > 0, "nothing to do: {plan:?}");
    ensure!(!plan.targets.is_empty(), "nobody to ask");
    // The kernel may else wake this thread 50 us late, so that it can wake others with it.
    set_current_timer_slack(NonZeroU64::new(1)).context("asking for exact timers")?;
    let mut run = Run::new(plan, header)?;
    run.warm_up()?;
    run.go()?;
    set_current_timer_slack(None).context("asking for usual timers")?;
    Ok(run.paced)
}

struct Run<'a> {
    plan: &'a Plan,
    request: Vec<u8>,
    /// On a connection that has had its header.
    again: &'a [u8],
    epoll: OwnedFd,
    /// `epoll_wait` itself counts in milliseconds.
    timer: OwnedFd,
    /// What it is set to.
    wakes: Option<Instant>,
    clients: Vec<Client>,
    paced: Paced,
    /// The first request's moment.
    began: Instant,
    /// The next request whose moment is to come.
    next: u64,
    buffer: Box<[u8; ROOM]>,
}

#[derive(Default)]
struct Client {
    stream: Option<TcpStream>,
    /// Whether the connection has carried its header.
    greeted: bool,
    /// How much of the request is sent, while one is under way.
    sent: Option<usize>,
    /// When it was meant to be sent.
    due: Option<Instant>,
    /// Requests, by number, whose moment has passed while this client was busy.
    waiting: std::collections::VecDeque<u64>,
    response: Response,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, header: &[u8]) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).context("making a timer")?;
        let interest = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), interest)?;
        Ok(Self {
            plan,
            request: [header, plan.request.as_bytes()].concat(),
            again: plan.request.as_bytes(),
            epoll,
            timer,
            wakes: None,
            clients: (0..plan.clients).map(|_| Client::default()).collect(),
            paced: Paced::default(),
            began: Instant::now(),
            next: 0,
            buffer: Box::new([0; ROOM]),
        })
    }

    /// The moment of a request.
    fn due(&self, number: u64) -> Instant {
        let clients = self.plan.clients;
        let place = if self.plan.at_once { number / clients * clients } else { number };
        #[expect(clippy::cast_precision_loss, reason = "requests are counted in thousands")]
        let seconds = place as f64 / self.plan.rate;
        self.began + Duration::from_secs_f64(seconds)
    }

    /// A request of each client that does not count: of what is kept between requests, all is there afterwards.
    fn warm_up(&mut self) -> Result<()> {
        self.began = Instant::now();
        for place in 0..self.clients.len() {
            self.begin(place, 0)?;
        }
        let mut events = Vec::with_capacity(256);
        let patience = Timespec::try_from(PATIENCE).context("a time")?;
        while self.paced.whole.len() < self.clients.len() {
            let count = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience))?;
            ensure!(count > 0, "no answer within {PATIENCE:?}");
            for event in events.drain(..) {
                self.ready(usize::try_from(event.data.u64())?)?;
            }
        }
        self.paced = Paced::default();
        Ok(())
    }

    fn go(&mut self) -> Result<()> {
        self.began = Instant::now();
        let end = self.due(self.plan.requests) + GRACE;
        let mut events = Vec::with_capacity(256);
        let done = |run: &Self| run.paced.whole.len() as u64 == run.plan.requests;
        while !done(self) {
            let now = self.send_due()?;
            if now >= end {
                break;
            }
            let until = if self.next < self.plan.requests { self.due(self.next) } else { end };
            self.wake_at(until, now)?;
            epoll::wait(&self.epoll, spare_capacity(&mut events), None)?;
            for event in events.drain(..) {
                if event.data.u64() != TIMER {
                    self.ready(usize::try_from(event.data.u64())?)?;
                }
            }
        }
        self.paced.elapsed = long_nanos(self.began.elapsed());
        self.paced.missed = self.plan.requests - self.paced.whole.len() as u64;
        Ok(())
    }

    /// Has the timer end the wait at a moment, if it is not set to it.
    fn wake_at(&mut self, moment: Instant, now: Instant) -> Result<()> {
        if self.wakes == Some(moment) {
            return Ok(());
        }
        self.wakes = Some(moment);
        // None at all would switch it off.
        let wait = moment.saturating_duration_since(now).max(Duration::from_nanos(1));
        let it_value = Timespec::try_from(wait).context("a time")?;
        let it_interval = Timespec::default();
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })
            .context("setting the timer")?;
        Ok(())
    }

    /// Sends what is to be sent by now.
    fn send_due(&mut self) -> Result<Instant> {
        let mut now = Instant::now();
        while self.next < self.plan.requests && self.due(self.next) <= now {
            let number = self.next;
            self.next += 1;
            let place = usize::try_from(number % self.plan.clients)?;
            if self.clients[place].due.is_some() {
                self.clients[place].waiting.push_back(number);
            } else {
                self.paced.late.push(nanos(self.due(number).elapsed()));
                self.begin(place, number)?;
            }
            now = Instant::now();
        }
        Ok(now)
    }

    fn begin(&mut self, place: usize, number: u64) -> Result<()> {
        if self.clients[place].stream.is_none() {
            self.connect(place)?;
        }
        let due = self.due(number);
        let client = &mut self.clients[place];
        client.due = Some(due);
        client.sent = Some(0);
        client.response = Response::default();
        self.send(place)
    }

    fn connect(&mut self, place: usize) -> Result<()> {
        let to = self.target(place).to;
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error).with_context(|| format!("connecting to {to}"));
            }
            _ => {}
        }
        let stream = TcpStream::from(socket);
        let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(place as u64), interest)?;
        self.clients[place].stream = Some(stream);
        self.clients[place].greeted = false;
        Ok(())
    }

    fn target(&self, place: usize) -> &Target {
        &self.plan.targets[place % self.plan.targets.len()]
    }

    /// Sends on. Within one machine, the handshake is over when `connect` returns, and the request is taken whole.
    fn send(&mut self, place: usize) -> Result<()> {
        let client = &mut self.clients[place];
        let (Some(sent), Some(stream)) = (client.sent, &mut client.stream) else { return Ok(()) };
        let request = if client.greeted { self.again } else { &self.request };
        match stream.write(&request[sent..]) {
            Ok(more) if sent + more == request.len() => {
                client.greeted = true;
                client.sent = None;
            }
            Ok(more) => client.sent = Some(sent + more),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Err(error) => {
                let to = self.target(place).to;
                return Err(error).with_context(|| format!("sending to {to}"));
            }
        }
        Ok(())
    }

    fn ready(&mut self, place: usize) -> Result<()> {
        self.send(place)?;
        loop {
            let Some(stream) = &mut self.clients[place].stream else { return Ok(()) };
            let count = match stream.read(&mut self.buffer[..]) {
                Ok(0) => bail!("{} ended a connection before its response", self.target(place).to),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("reading from {}", self.target(place).to));
                }
            };
            ensure!(self.clients[place].due.is_some(), "{} said something unasked", self.target(place).to);
            let whole = self.clients[place].response.take(&self.buffer[..count])?;
            if whole {
                return self.finish(place);
            }
        }
    }

    fn finish(&mut self, place: usize) -> Result<()> {
        let now = Instant::now();
        let body = &self.target(place).body;
        let client = &self.clients[place];
        client.response.check(body).with_context(|| format!("from {}", self.target(place).to))?;
        let client = &mut self.clients[place];
        let due = client.due.take().context("an answer to nothing")?;
        self.paced.whole.push(nanos(now.saturating_duration_since(due)));
        if !self.plan.keep_alive {
            client.stream = None;
        }
        match client.waiting.pop_front() {
            Some(number) => self.begin(place, number),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
