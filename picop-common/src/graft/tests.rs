//! The rules, and a model of a whole direction: an application that sends, an agent that relays, a peer that acknowledges,
//! in any order that they may come in.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const FACTS: Facts =
    Facts { state: ON, has_ulp: false, passed: 100, relayed: 100, outstanding: 0, size: 1000 };

#[test]
fn a_message_is_redirected_only_if_every_rule_lets_it() {
    assert_eq!(decide(&FACTS), None);
    for state in [WAITING, OFF] {
        assert_eq!(decide(&Facts { state, ..FACTS }), Some(Why::NotOn));
    }
    assert_eq!(decide(&Facts { has_ulp: true, ..FACTS }), Some(Why::KernelTls));
    assert_eq!(decide(&Facts { relayed: 99, ..FACTS }), Some(Why::Unsettled));
    assert_eq!(decide(&Facts { passed: 99, ..FACTS }), Some(Why::Unsettled));
    assert_eq!(decide(&Facts { outstanding: BUDGET, ..FACTS }), Some(Why::OverBudget));
    let left = BUDGET - overhead(1000) - 1000;
    assert_eq!(decide(&Facts { outstanding: left, ..FACTS }), None);
    assert_eq!(decide(&Facts { outstanding: left + 1, ..FACTS }), Some(Why::OverBudget));
}

#[test]
fn counters_wrap_as_sequence_numbers_do() {
    let relayed = (7 << 32) + 100;
    assert_eq!(decide(&Facts { relayed, ..FACTS }), None);
    assert_eq!(decide(&Facts { relayed: relayed + 1, ..FACTS }), Some(Why::Unsettled));
}

#[test]
fn the_largest_message_of_one_send_fits_into_an_empty_target() {
    // 17 pages of order 3.
    assert_eq!(decide(&Facts { size: 17 * 32 * 1024, ..FACTS }), None);
}

#[test]
fn sizes_leave_room() {
    // A target at its budget, all of whose segments are split in two, is still writable; and the relay's room lies below.
    const { assert!(2 * BUDGET < SNDBUF) };
    const { assert!(RELAY_SNDBUF * 2 / 3 <= RELAY_HIGH && RELAY_HIGH < RELAY_SNDBUF && RELAY_SNDBUF < BUDGET) };
}

#[test]
fn overhead_is_freed_in_lots_and_never_early() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.outstanding(0, 0, 0), 0);
    ledger.add(10);
    assert_eq!(ledger.outstanding(10, 0, 0), 10 + overhead(10));
    ledger.add(10);
    assert_eq!(ledger.outstanding(20, 5, 0), 15 + 2 * overhead(10));
    // Everything is acknowledged: nothing is left.
    assert_eq!(ledger.outstanding(20, 20, 0), 0);
    // Relayed bytes count as well.
    assert_eq!(ledger.outstanding(25, 20, overhead(5)), 5 + overhead(5));
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Step {
    /// The application sends so many bytes.
    Send(usize),
    /// A send that was passed is cut short by so many bytes: the socket had no more room.
    SendCut(usize, usize),
    /// The agent reads up to so many bytes.
    Read(usize),
    /// The agent writes out what it has read.
    Write,
    /// The agent says so.
    Publish,
    /// The peer acknowledges up to so many bytes.
    Acknowledge(usize),
    /// `sock_ops` sees the acknowledgements.
    Follow,
    /// The agent begins to graft.
    Begin,
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![1_usize..100, 1_usize..300_000];
    prop_oneof![
        6 => size().prop_map(Step::Send),
        1 => (size(), size()).prop_map(|(size, cut)| Step::SendCut(size, cut)),
        4 => size().prop_map(Step::Read),
        4 => Just(Step::Write),
        4 => Just(Step::Publish),
        4 => size().prop_map(Step::Acknowledge),
        4 => Just(Step::Follow),
        1 => Just(Step::Begin),
    ]
}

/// One direction. Bytes are told apart by their number in the source's stream.
#[derive(Default)]
struct Model {
    sent: u64,
    /// Ranges in the socket between source and agent, and in the agent's hands.
    passed: VecDeque<(u64, u64)>,
    read: VecDeque<(u64, u64)>,
    /// Bytes that went that way.
    passed_bytes: u64,
    written_bytes: u64,
    written_overhead: u64,
    /// What the two sides share.
    state: u64,
    relayed: u64,
    relay_overhead: u64,
    acked: u64,
    ledger: Ledger,
    /// The target's stream must be the source's: the next byte's number is its length. And what is in its queue: the end of
    /// each piece, and its overhead.
    stream: u64,
    truly_acked: u64,
    queue: VecDeque<(u64, u64)>,
    redirected: u64,
    /// Sequence numbers start anywhere.
    isn: u32,
}

impl Model {
    fn put(&mut self, from: u64, to: u64) {
        assert_eq!(from, self.stream, "out of order");
        self.stream = to;
        self.queue.push_back((to, overhead(to - from)));
    }

    /// What the target really holds, which is what its kernel compares with its send buffer.
    fn held(&self) -> u64 {
        self.stream - self.truly_acked + self.queue.iter().map(|(_, overhead)| overhead).sum::<u64>()
    }

    #[expect(clippy::cast_possible_truncation, reason = "a sequence number")]
    fn send(&mut self, size: u64, cut: u64) {
        let write_seq = self.isn.wrapping_add(self.passed_bytes as u32);
        let outstanding =
            self.ledger.outstanding(self.relayed + self.ledger.redirected, self.acked, self.relay_overhead);
        let facts = Facts {
            state: self.state,
            has_ulp: false,
            passed: write_seq.wrapping_sub(self.isn),
            relayed: self.relayed,
            outstanding,
            size,
        };
        if decide(&facts).is_none() {
            self.put(self.sent, self.sent + size);
            self.ledger.add(size);
            self.redirected += size;
            self.sent += size;
            assert!(self.held() <= BUDGET, "{} held", self.held());
        } else {
            let taken = size.saturating_sub(cut);
            if taken == 0 {
                return;
            }
            self.passed.push_back((self.sent, self.sent + taken));
            self.passed_bytes += taken;
            self.sent += taken;
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Send(size) => self.send(size as u64, 0),
            Step::SendCut(size, cut) => self.send(size as u64, cut as u64),
            Step::Read(most) => {
                if let Some((from, to)) = self.passed.pop_front() {
                    let cut = to.min(from + most as u64);
                    self.read.push_back((from, cut));
                    if cut < to {
                        self.passed.push_front((cut, to));
                    }
                }
            }
            Step::Write => {
                // As `room` and TCP have it: a relayed piece goes in where there is room.
                if self.held() < RELAY_HIGH
                    && let Some((from, to)) = self.read.pop_front()
                {
                    self.put(from, to);
                    self.written_bytes += to - from;
                    self.written_overhead += overhead(to - from);
                }
            }
            Step::Publish => {
                self.relay_overhead = self.written_overhead;
                self.relayed = self.written_bytes;
            }
            Step::Acknowledge(most) => {
                self.truly_acked = self.stream.min(self.truly_acked + most as u64);
                while self.queue.front().is_some_and(|(end, _)| *end <= self.truly_acked) {
                    self.queue.pop_front();
                }
            }
            Step::Follow => self.acked = self.truly_acked,
            Step::Begin => self.state = ON,
        }
    }
}

proptest! {
    #[test]
    fn nothing_overtakes_and_nothing_overflows(
        steps in prop::collection::vec(step(), 0..400),
        isn in any::<u32>(),
    ) {
        let mut model = Model { isn, ..Model::default() };
        for step in &steps {
            model.take(step);
        }
        // Left alone, the agent relays what is left and the target drains: all that was sent arrives, and the next message is
        // redirected again.
        for _ in 0..10_000 {
            if model.passed.is_empty() && model.read.is_empty() {
                break;
            }
            for step in [Step::Read(1 << 20), Step::Acknowledge(1 << 20), Step::Write] {
                model.take(&step);
            }
        }
        prop_assert_eq!(model.stream, model.sent);
        for step in [Step::Publish, Step::Acknowledge(usize::MAX >> 1), Step::Follow, Step::Begin] {
            model.take(&step);
        }
        let redirected = model.redirected;
        model.take(&Step::Send(1));
        prop_assert_eq!(model.redirected, redirected + 1);
    }
}

/// The model finds what it is there to find: without one of the rules it fails.
#[test]
fn without_the_order_rule_the_model_fails() {
    let mut model = Model { state: ON, ..Model::default() };
    model.send(10, 0);
    assert_eq!(model.redirected, 10);
    // A passed message that the agent holds, and a lie about what was relayed.
    model.state = WAITING;
    model.send(10, 0);
    model.state = ON;
    model.relayed = 10;
    let overtakes = std::panic::catch_unwind(move || model.send(10, 0));
    assert!(overtakes.is_err());
}
