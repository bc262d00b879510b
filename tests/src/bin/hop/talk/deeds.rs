//! [`Deed`]s, done.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg, sendmsg};
use rustix::pipe::{SpliceFlags, pipe, splice};
use socket2::Socket;
use testbed::talk::{Deed, Form, Said};
use testbed::{blob, hex};

use super::sockopt;

/// Bounds each wait that no test bounds.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a pipe holds at least.
const PIPE: usize = 64 * 1024;

pub fn act(deed: &Deed, socket: &Socket, said: &mut Said) -> io::Result<()> {
    said.value = match deed {
        Deed::SendBlob(form, size) => send(*form, *size, socket)?,
        Deed::SendWhileReading(size) => Some(send_while_reading(*size, socket)?),
        Deed::Waiting => Some(ioctl_fionread(socket)?),
        Deed::Peek(count) => {
            let mut bytes = vec![0; *count];
            let (got, _) = recv(socket, &mut bytes[..], RecvFlags::PEEK)?;
            said.hex = hex::encode(&bytes[..got]);
            None
        }
        Deed::Poll(ms) => Some(polled(socket, PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP, *ms)?),
        Deed::PollIn(ms) => Some(polled(socket, PollFlags::IN | PollFlags::RDHUP, *ms)?),
        Deed::Epoll(edge, ms) => Some(woken(socket, *edge, *ms)?),
        Deed::Edges(ms) => Some(edges(socket, *ms)?),
        Deed::ReadTimeout(ms) => {
            socket.set_read_timeout(Some(Duration::from_millis(*ms)))?;
            None
        }
        Deed::ShutdownRead => {
            socket.shutdown(Shutdown::Read)?;
            None
        }
        Deed::TcpState => Some(sockopt::tcp_state(socket)?.into()),
        Deed::SoError => match socket.take_error()? {
            Some(error) => return Err(error),
            None => None,
        },
        Deed::Blocking(blocking) => {
            socket.set_nonblocking(!blocking)?;
            None
        }
        Deed::Bind(at) => {
            socket.bind(&(*at).into())?;
            None
        }
        Deed::Connect(to) => {
            socket.connect(&(*to).into())?;
            None
        }
        Deed::SynRetries(count) => {
            sockopt::syn_retries(socket, *count)?;
            None
        }
        Deed::FastOpenConnect => {
            sockopt::fast_open_connect(socket)?;
            None
        }
        Deed::FastOpenSend(to, digits) => {
            let bytes = hex::decode(digits).map_err(|_| io::ErrorKind::InvalidInput)?;
            let taken = socket.send_to_with_flags(&bytes, &(*to).into(), libc::MSG_FASTOPEN)?;
            u64::try_from(taken).ok()
        }
    };
    Ok(())
}

fn stream(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blob::fill(0, &mut bytes);
    bytes
}

fn send(form: Form, size: usize, mut socket: &Socket) -> io::Result<Option<u64>> {
    let bytes = stream(size);
    match form {
        Form::Write => socket.write_all(&bytes)?,
        Form::Writev(pieces) => {
            in_pieces(&bytes, pieces, |slices| (&mut &*socket).write_vectored(slices))?;
        }
        Form::Sendmsg(pieces) => in_pieces(&bytes, pieces, |slices| {
            Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
        })?,
        Form::Sendfile => {
            let file = memfd_create("blob", MemfdFlags::CLOEXEC)?;
            let mut file = File::from(file);
            file.write_all(&bytes)?;
            let mut offset = 0;
            while offset < size as u64 {
                let left = size - usize::try_from(offset).unwrap_or(size);
                sendfile(socket, &file, Some(&mut offset), left)?;
            }
        }
        Form::Splice => by_pipe(&bytes, socket)?,
        Form::Zerocopy => return Ok(Some(zerocopy(&bytes, socket)?)),
        Form::More => {
            let half = size / 2;
            let mut sent = 0;
            while sent < half {
                sent += socket.send_with_flags(&bytes[sent..half], libc::MSG_MORE)?;
            }
            socket.write_all(&bytes[half..])?;
        }
        Form::Nonblocking(room) => {
            socket.set_send_buffer_size(room)?;
            socket.set_nonblocking(true)?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match socket.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        wait_for(socket, PollFlags::OUT)?;
                    }
                    Err(error) => return Err(error),
                }
            }
            socket.set_nonblocking(false)?;
        }
    }
    Ok(None)
}

/// All of `bytes` by calls that take `pieces` pieces each.
fn in_pieces(
    bytes: &[u8],
    pieces: usize,
    mut call: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = &bytes[sent..];
        let slices: Vec<_> = rest.chunks(rest.len().div_ceil(pieces)).map(IoSlice::new).collect();
        sent += call(&slices)?;
    }
    Ok(())
}

fn by_pipe(bytes: &[u8], socket: &Socket) -> io::Result<()> {
    let (out, into) = pipe()?;
    let mut into = File::from(into);
    for chunk in bytes.chunks(PIPE) {
        into.write_all(chunk)?;
        let mut left = chunk.len();
        while left > 0 {
            left -= splice(&out, None, socket, None, left, SpliceFlags::empty())?;
        }
    }
    Ok(())
}

/// Each call that sends is told of once its bytes are no longer needed: one range of calls per message in the error queue.
fn zerocopy(bytes: &[u8], socket: &Socket) -> io::Result<u64> {
    sockopt::zerocopy(socket)?;
    let mut sent = 0;
    while sent < bytes.len() {
        sent += socket.send_with_flags(&bytes[sent..], libc::MSG_ZEROCOPY)?;
    }
    wait_for(socket, PollFlags::ERR)?;
    let mut completions = 0;
    loop {
        let mut space = [MaybeUninit::uninit(); 256];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        match recvmsg(socket, &mut [], &mut control, RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT) {
            Ok(_) => completions += 1,
            Err(Errno::AGAIN) => return Ok(completions),
            Err(error) => return Err(error.into()),
        }
    }
}

fn send_while_reading(size: usize, mut socket: &Socket) -> io::Result<u64> {
    let bytes = stream(size);
    let other = socket.try_clone()?;
    // Blocked in the read before the write begins, as far as that can be had.
    let reader = thread::spawn(move || (&other).read(&mut [0; 64]));
    thread::yield_now();
    socket.write_all(&bytes)?;
    let got = reader.join().map_err(|_| io::Error::other("the reader panicked"))??;
    Ok(got as u64)
}

fn wait_for(socket: &Socket, what: PollFlags) -> io::Result<()> {
    let timeout = timespec(PATIENCE)?;
    match poll(&mut [PollFd::new(socket, what)], Some(&timeout))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn polled(socket: &Socket, what: PollFlags, ms: u64) -> io::Result<u64> {
    let mut fds = [PollFd::new(socket, what)];
    poll(&mut fds, Some(&timespec(Duration::from_millis(ms))?))?;
    Ok(fds[0].revents().bits().into())
}

fn woken(socket: &Socket, edge: bool, ms: u64) -> io::Result<u64> {
    let watch = watch(socket, edge)?;
    let mut woken = 0;
    for _ in 0..2 {
        woken += u64::from(wakes(&watch, ms)?);
    }
    Ok(woken)
}

fn edges(mut socket: &Socket, ms: u64) -> io::Result<u64> {
    let watch = watch(socket, true)?;
    socket.set_nonblocking(true)?;
    let mut count = 0;
    while wakes(&watch, ms)? {
        count += 1;
        let mut buf = [0; 4096];
        loop {
            match socket.read(&mut buf) {
                Ok(0) => return Ok(count),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
    socket.set_nonblocking(false)?;
    Ok(count)
}

fn watch(socket: &Socket, edge: bool) -> io::Result<rustix::fd::OwnedFd> {
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let edge = if edge { epoll::EventFlags::ET } else { epoll::EventFlags::empty() };
    epoll::add(&watch, socket, epoll::EventData::new_u64(0), epoll::EventFlags::IN | edge)?;
    Ok(watch)
}

fn wakes(watch: &rustix::fd::OwnedFd, ms: u64) -> io::Result<bool> {
    let mut events = [MaybeUninit::<epoll::Event>::uninit(); 4];
    let (came, _) = epoll::wait(watch, &mut events, Some(&timespec(Duration::from_millis(ms))?))?;
    Ok(!came.is_empty())
}

fn timespec(time: Duration) -> io::Result<Timespec> {
    Timespec::try_from(time).map_err(|_| io::ErrorKind::InvalidInput.into())
}
