//! What this kernel does to sockets in a sockmap: real connections on loopback, enrolled by their descriptor.

mod connection;

use aya::maps::{MapData, SockHash};
use picop_common::probe::{MARK, PUSH, PUSH_POP};

use super::check::{Check, Feature, Finding, Spec};
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

const KEY: u32 = 0;
/// What waits when FIONREAD is asked.
const WAITING: &[u8; 6] = b"picop!";

/// What was read at the other end, or why it could not be.
type Read = Result<Vec<u8>, String>;
/// What FIONREAD answered with [`WAITING`] in the queue, or why it could not be asked.
type Waits = Result<u64, String>;

/// The four checks. Without a map, `why` says what is missing.
pub fn checks(map: Result<SockHash<MapData, u32>, &str>) -> [Check; 4] {
    let [push, pop, fionread, unenrol] = match map {
        Err(why) => [(); 4].map(|()| Finding::unknown(format!("not tried: {why}"))),
        Ok(mut map) => {
            let pushed = transformed(&mut map, PUSH);
            let popped = transformed(&mut map, PUSH_POP);
            let queue = queue(&mut map);
            [
                push_verdict(&pushed),
                pop_verdict(&pushed, &popped),
                fionread_verdict(&queue),
                unenrol_verdict(&queue),
            ]
        }
    };
    [PUSH_DATA.found(push), POP_DATA.found(pop), FIONREAD.found(fionread), UNENROL.found(unenrol)]
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
