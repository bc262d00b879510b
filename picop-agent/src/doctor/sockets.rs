//! What this kernel does to sockets in a sockmap: real connections on loopback, enrolled by their descriptor.

mod connection;

use std::{io, os::fd::AsRawFd as _};

use aya::maps::{MapData, SockHash};
use picop_common::probe::{MARK, PUSH, PUSH_POP, REDIRECT, TARGET};

use super::check::{Check, Feature, Finding, Spec};
use crate::{
    intercept::{btf, graft_probe},
    telemetry::chain,
};
use connection::Connection;

const PUSH_DATA: Spec = Spec {
    id: "push",
    what: "sk_msg push",
    features: &[Feature::DirectPath],
    required: false,
    consequence: "the kernel cannot put a header in front of a client's first bytes: connections are relayed instead",
};
const POP_DATA: Spec = Spec {
    id: "push_pop",
    what: "sk_msg push and pop",
    features: &[Feature::DirectPath],
    required: false,
    consequence: "a push that fails half-way cannot be taken back: connections are relayed instead",
};
const FIONREAD: Spec = Spec {
    id: "fionread",
    what: "FIONREAD while enrolled",
    features: &[Feature::Graft],
    required: false,
    consequence: "applications that ask how much waits (nginx, Java, .NET) would stall: `graft: auto` will not graft; \
                  the direct path is not concerned, its sockets leave the map before a reply arrives",
};
const UNENROL: Spec = Spec {
    id: "unenrol",
    what: "leaving the sockmap",
    features: &[Feature::DirectPath, Feature::Graft],
    required: false,
    consequence: "a socket that was enrolled once would never be a plain one again: connections are relayed instead",
};

const REDIRECT_DATA: Spec = Spec {
    id: "redirect",
    what: "sk_msg egress redirection",
    features: &[Feature::Graft],
    required: false,
    consequence: "the kernel cannot carry relayed payload past the agent: all of it is relayed, whatever `graft` says",
};
const PLACES: Spec = Spec {
    id: "graft_places",
    what: "write_seq in the kernel's BTF",
    features: &[Feature::Graft],
    required: false,
    consequence: "the programs cannot know how much a socket has sent: nothing is grafted, whatever `graft` says",
};
const BLOCKING_READ: Spec = Spec {
    id: "blocking_read",
    what: "blocking read while enrolled",
    features: &[Feature::Graft],
    required: false,
    consequence: "applications that block in read on one thread and write on another would meet an error they do not \
                  expect: `graft: auto` will not graft",
};

const KEY: u32 = 0;
/// What waits when FIONREAD is asked.
const WAITING: &[u8; 6] = b"picop!";

/// What was read at the other end, or why it could not be.
type Read = Result<Vec<u8>, String>;
/// What FIONREAD answered with [`WAITING`] in the queue, or why it could not be asked.
type Waits = Result<u64, String>;

/// The checks. Without a map, `why` says what is missing.
pub fn checks(map: Result<SockHash<MapData, u32>, &str>) -> [Check; 7] {
    let [push, pop, unenrol, redirect, fionread, blocking] = match map {
        Err(why) => [(); 6].map(|()| Finding::unknown(format!("not tried: {why}"))),
        Ok(mut map) => {
            let pushed = transformed(&mut map, PUSH);
            let popped = transformed(&mut map, PUSH_POP);
            let queue = queue(&mut map);
            [
                push_verdict(&pushed),
                pop_verdict(&pushed, &popped),
                unenrol_verdict(&queue),
                redirect_verdict(&redirected(&mut map)),
                fionread_verdict(&queue),
                blocking_verdict(graft_probe::blocking_reads(|socket| {
                    map.insert(KEY, socket.as_raw_fd(), 0).map_err(io::Error::other)
                })),
            ]
        }
    };
    let places = match btf::graft() {
        Ok(_) => Finding::ok("found, and icsk_ulp_ops"),
        Err(error) => Finding::missing(chain(&error)),
    };
    [
        PUSH_DATA.found(push),
        POP_DATA.found(pop),
        UNENROL.found(unenrol),
        REDIRECT_DATA.found(redirect),
        PLACES.found(places),
        FIONREAD.found(fionread),
        BLOCKING_READ.found(blocking),
    ]
}

fn message(ask: u8) -> Vec<u8> {
    [&[ask], b" message".as_slice()].concat()
}

/// What arrives of a message sent on an enrolled socket.
fn transformed(map: &mut SockHash<MapData, u32>, ask: u8) -> Read {
    let connection = Connection::open()?;
    connection.enrol(map, KEY)?;
    let arrived = connection.send(&message(ask)).and_then(|()| connection.finish());
    // The socket leaves the map with its last descriptor; the key must be free for the next probe at once.
    Connection::leave(map, KEY)?;
    arrived
}

fn is_pushed(read: &Read) -> bool {
    read.as_ref().is_ok_and(|bytes| *bytes == [MARK.as_slice(), &message(PUSH)].concat())
}

fn push_verdict(pushed: &Read) -> Finding {
    match pushed {
        Err(why) => Finding::unknown(why),
        Ok(_) if is_pushed(pushed) => {
            Finding::ok(format!("{} bytes arrived in front of a message", MARK.len()))
        }
        Ok(bytes) if *bytes == message(PUSH) => {
            Finding::missing("the message arrived, nothing in front of it")
        }
        Ok(bytes) => Finding::missing(format!("arrived instead: \"{}\"", bytes.escape_ascii())),
    }
}

/// An untouched message proves a push taken back only where pushing works.
fn pop_verdict(pushed: &Read, popped: &Read) -> Finding {
    match popped {
        _ if !is_pushed(pushed) => Finding::unknown("not to be told where push does not work"),
        Err(why) => Finding::unknown(why),
        Ok(bytes) if *bytes == message(PUSH_POP) => Finding::ok("a message arrived as it was sent"),
        Ok(bytes) => Finding::missing(format!("arrived instead: \"{}\"", bytes.escape_ascii())),
    }
}

/// What arrives of a message that is redirected: behind its own connection, and behind the target's.
fn redirected(map: &mut SockHash<MapData, u32>) -> Result<[Vec<u8>; 2], String> {
    let (source, target) = (Connection::open()?, Connection::open()?);
    source.enrol(map, KEY)?;
    target.enrol(map, TARGET)?;
    let sent = source.send(&message(REDIRECT));
    let arrived = sent.and_then(|()| Ok([source.finish()?, target.finish()?]));
    Connection::leave(map, KEY)?;
    Connection::leave(map, TARGET)?;
    arrived
}

fn redirect_verdict(arrived: &Result<[Vec<u8>; 2], String>) -> Finding {
    match arrived {
        Err(why) => Finding::unknown(why),
        Ok([own, other]) if own.is_empty() && *other == message(REDIRECT) => {
            Finding::ok("a message arrived at the other connection, whole, and there only")
        }
        Ok([own, other]) => Finding::missing(format!(
            "arrived at the other connection: \"{}\"; at its own: \"{}\"",
            other.escape_ascii(),
            own.escape_ascii()
        )),
    }
}

/// Whatever does not prove that it is right counts as wrong.
fn blocking_verdict(goes_on: io::Result<bool>) -> Finding {
    match goes_on {
        Ok(true) => Finding::ok("goes on when it is woken without data"),
        Ok(false) => Finding::degraded("EAGAIN when it is woken without data, for a write of another thread"),
        Err(why) => Finding::degraded(format!("inconclusive, which counts as wrong: {why}")),
    }
}

/// The life of one socket: plain, enrolled, plain again.
struct Queue {
    before: Waits,
    enrolled: Waits,
    after: Waits,
    /// What arrives of a message that asks for a push once the socket has left the map.
    sent_after: Read,
}

fn queue(map: &mut SockHash<MapData, u32>) -> Queue {
    let connection = match Connection::open() {
        Ok(connection) => connection,
        Err(why) => {
            let why = || why.clone();
            return Queue {
                before: Err(why()),
                enrolled: Err(why()),
                after: Err(why()),
                sent_after: Err(why()),
            };
        }
    };
    let before = connection.waiting(WAITING);
    let enrolled = connection.enrol(map, KEY).and_then(|()| connection.waiting(WAITING));
    let after = Connection::leave(map, KEY).and_then(|()| connection.waiting(WAITING));
    let sent_after = connection.send(&message(PUSH)).and_then(|()| connection.finish());
    Queue { before, enrolled, after, sent_after }
}

const TRUTH: u64 = WAITING.len() as u64;

/// Whatever does not prove that it is right counts as wrong.
fn fionread_verdict(queue: &Queue) -> Finding {
    let inconclusive = |why: &str| Finding::degraded(format!("inconclusive, which counts as wrong: {why}"));
    match (&queue.before, &queue.enrolled) {
        (Ok(TRUTH), Ok(TRUTH)) => Finding::ok(format!("{TRUTH} with {TRUTH} bytes waiting")),
        (Ok(TRUTH), Ok(wrong)) => Finding::degraded(format!("{wrong} with {TRUTH} bytes waiting")),
        (Err(why), _) | (Ok(TRUTH), Err(why)) => inconclusive(why),
        (Ok(wrong), _) => inconclusive(&format!("{wrong} with {TRUTH} bytes waiting on a plain socket")),
    }
}

fn unenrol_verdict(queue: &Queue) -> Finding {
    match (&queue.enrolled, &queue.after, &queue.sent_after) {
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => Finding::unknown(why),
        (_, Ok(TRUTH), Ok(bytes)) if *bytes == message(PUSH) => {
            Finding::ok("at once: FIONREAD right, messages left alone")
        }
        (_, Ok(TRUTH), Ok(bytes)) => {
            Finding::missing(format!("a message sent afterwards arrived as \"{}\"", bytes.escape_ascii()))
        }
        (_, Ok(wrong), _) => {
            Finding::missing(format!("FIONREAD afterwards: {wrong} with {TRUTH} bytes waiting"))
        }
    }
}

#[cfg(test)]
mod tests;
