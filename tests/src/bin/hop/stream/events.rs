//! Non-blocking, with epoll.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use testbed::stream::StreamReport;

use super::{Args, Failure, Mode, Sink, Source, finish};

/// How often one side may go on before the other has its turn.
const TURNS: usize = 16;

pub fn run(stream: &TcpStream, args: &Args, seed: u64, report: &mut StreamReport) -> Result<(), Failure> {
    stream.set_nonblocking(true)?;
    let mut end = Loop {
        stream,
        args,
        source: Source::new(args, seed),
        sink: Sink::new(args, seed),
        report,
        finished: false,
        readable: true,
        writable: true,
    };
    if args.stall_ms > 0 {
        std::thread::sleep(Duration::from_millis(args.stall_ms));
    }
    end.run()
}

struct Loop<'a> {
    stream: &'a TcpStream,
    args: &'a Args,
    source: Source<'a>,
    sink: Sink<'a>,
    report: &'a mut StreamReport,
    finished: bool,
    readable: bool,
    writable: bool,
}

impl Loop<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let edge =
            if self.args.mode == Mode::Edge { epoll::EventFlags::ET } else { epoll::EventFlags::empty() };
        let mut interest = epoll::EventFlags::IN | epoll::EventFlags::OUT | edge;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&poll, self.stream, data, interest).map_err(std::io::Error::from)?;
        loop {
            while self.readable || (self.writable && !self.finished) {
                if self.writable && !self.finished {
                    self.write()?;
                }
                if self.finished && !self.args.end.reads() {
                    return Ok(());
                }
                if self.readable {
                    self.read()?;
                }
                if self.finished && self.report.eof {
                    return Ok(());
                }
                if self.report.eof {
                    self.readable = false;
                }
            }
            if self.args.mode == Mode::Level {
                let mut wanted = epoll::EventFlags::empty();
                if !self.report.eof {
                    wanted |= epoll::EventFlags::IN;
                }
                if !self.finished {
                    wanted |= epoll::EventFlags::OUT;
                }
                if wanted != interest {
                    interest = wanted;
                    epoll::modify(&poll, self.stream, data, interest).map_err(std::io::Error::from)?;
                }
            }
            self.wait(&poll)?;
        }
    }

    fn wait(&mut self, poll: &std::os::fd::OwnedFd) -> Result<(), Failure> {
        let patience = Timespec::try_from(Duration::from_millis(self.args.watchdog_ms))
            .map_err(|_| ErrorKind::InvalidInput)
            .map_err(std::io::Error::from)?;
        let mut events = Vec::with_capacity(4);
        epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), Some(&patience))
            .map_err(std::io::Error::from)?;
        let Some(event) = events.first() else {
            return Err(Failure::Stalled { sent: self.report.sent, received: self.report.received });
        };
        let flags = event.flags;
        let gone = flags.intersects(epoll::EventFlags::ERR | epoll::EventFlags::HUP);
        self.readable |= !self.report.eof && (gone || flags.contains(epoll::EventFlags::IN));
        self.writable |= gone || flags.contains(epoll::EventFlags::OUT);
        Ok(())
    }

    fn write(&mut self) -> Result<(), Failure> {
        for _ in 0..TURNS {
            if self.report.sent == self.args.send {
                self.finished = true;
                return finish(self.stream, self.args.end);
            }
            match (&mut &*self.stream).write(self.source.next(self.report.sent)) {
                Ok(count) => self.report.sent += count as u64,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.report.would_block += 1;
                    self.writable = false;
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        for _ in 0..TURNS {
            match (&mut &*self.stream).read(self.sink.room()) {
                Ok(0) => {
                    self.report.eof = true;
                    return Ok(());
                }
                Ok(count) => self.sink.take(count, &mut self.report.received)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}
