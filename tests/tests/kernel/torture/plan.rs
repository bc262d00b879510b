//! What one connection does: decided by a seed alone, so that a failure can be had again.

use std::fmt::Write as _;
use std::time::Duration;

use testbed::stream::Dice;

/// How the client addresses the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    /// An IPv6 socket, and a v4-mapped address.
    Mapped,
}

/// `graft` of the service.
pub const POLICIES: [&str; 3] = ["always", "never", "auto"];

/// What must be true afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Both ends got all bytes and the end of the stream.
    Whole,
    /// One end closed right after its last write; the other, which had nothing to say, got all of it.
    Delivered,
    /// One end closed while the other was sending: the other got a true beginning, or all of it and the end.
    Cut,
    /// One end reset: the other got a true beginning, and was told.
    Reset,
}

/// One end's part.
#[derive(Clone, Debug)]
pub struct End {
    pub send: u64,
    pub mode: &'static str,
    pub finish: &'static str,
    max_write: usize,
    max_read: usize,
    write_pause_us: u64,
    read_pause_us: u64,
    stall_ms: u64,
    rcvbuf: usize,
    seed: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub family: Family,
    /// Index into [`POLICIES`].
    pub policy: usize,
    pub wanted: Wanted,
    /// Whether it is the client that closes or resets before its time, where one does.
    pub by_client: bool,
    pub client: End,
    pub server: End,
}

const MODES: [&str; 3] = ["blocking", "level", "edge"];
/// What all pauses of one direction may add up to, in microseconds.
const PAUSES_US: u64 = 400_000;
/// Most bytes of a direction, and those of one that is to overflow what the kernel holds.
const LARGE: usize = 4_000_000;
const HEAVY: u64 = 12_000_000;

fn pick<T: Copy>(dice: &mut Dice, of: &[T]) -> T {
    of[usize::try_from(dice.roll(of.len() as u64)).unwrap_or(0)]
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let dice = &mut Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ seed);
        let family = pick(dice, &[Family::V4, Family::V4, Family::V6, Family::Mapped]);
        let policy = pick(dice, &[0, 0, 0, 0, 0, 0, 0, 1, 1, 2]);
        let by_client = dice.roll(2) == 0;
        let wanted = match dice.roll(100) {
            0..60 => Wanted::Whole,
            60..78 => Wanted::Delivered,
            78..86 => Wanted::Cut,
            _ => Wanted::Reset,
        };
        let (mut client, mut server) = (End::of(dice), End::of(dice));
        // A deliberately slow reader with little room, and more for it than the kernel holds.
        if dice.roll(6) == 0 {
            let (writer, reader) =
                if dice.roll(2) == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            writer.send = 4_000_000 + dice.roll(HEAVY - 4_000_000);
            writer.max_write = pick(dice, &[16_384, 65_536, 1_000_000]);
            writer.write_pause_us = 0;
            reader.max_read = 200_000;
            reader.stall_ms = dice.roll(300);
            reader.rcvbuf = pick(dice, &[0, 40_000, 200_000]);
        }
        // Two that say everything first would wait for each other: so would two bare applications.
        if dice.roll(6) == 0 {
            pick_end(&mut client, &mut server, dice).mode = "sequential";
        }
        let (leaver, stayer) =
            if by_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
        match wanted {
            Wanted::Whole => (leaver.finish, stayer.finish) = ("fin", pick(dice, &["fin", "late"])),
            Wanted::Delivered => {
                (leaver.finish, stayer.finish) = ("close", "late");
                stayer.send = 0;
            }
            Wanted::Cut => (leaver.finish, stayer.finish) = ("close", "fin"),
            Wanted::Reset => (leaver.finish, stayer.finish) = ("reset", "fin"),
        }
        // The one that leaves may never read.
        if matches!(wanted, Wanted::Cut | Wanted::Reset) && stayer.mode == "sequential" {
            stayer.mode = "blocking";
        }
        for end in [&mut client, &mut server] {
            end.pace();
            // Where the buffer of one that does not read overflows, TCP itself (6.18) drops the acknowledgements of what it
            // writes, and it waits for ever.
            if end.mode == "sequential" || matches!(end.finish, "close" | "reset") {
                end.rcvbuf = 0;
            }
        }
        Self { seed, family, policy, wanted, by_client, client, server }
    }

    /// The same, with a client that blocks, says everything, half-closes, and reads only then.
    pub fn half_closing(seed: u64) -> Self {
        let mut plan = Self::of(seed);
        (plan.wanted, plan.policy) = (Wanted::Whole, 0);
        (plan.client.mode, plan.client.finish, plan.client.rcvbuf) = ("sequential", "fin", 0);
        if plan.server.mode == "sequential" {
            plan.server.mode = "blocking";
        }
        plan.server.finish = "late";
        plan
    }

    /// How long the run may take beyond what others may: TCP's own slowness. Over loopback, where segments are as long as half
    /// the largest window seen, a receive buffer of some thousand bytes may end with a window a few bytes shorter than that; the
    /// sender then waits for its persist timer (6.18: 200 ms) each time, for one window of bytes.
    pub fn slowness(&self) -> Duration {
        let of = |sender: &End, receiver: &End| {
            let window = u64::try_from(receiver.rcvbuf / 2).unwrap_or(u64::MAX);
            let windows = sender.send.checked_div(window).unwrap_or(0);
            Duration::from_millis(windows * 250)
        };
        of(&self.client, &self.server) + of(&self.server, &self.client)
    }

    /// Arguments of `hop stream`, of the client or of the server.
    pub fn args(&self, client: bool, watchdog_ms: u64) -> String {
        let (own, peer) = if client { (&self.client, &self.server) } else { (&self.server, &self.client) };
        let End { send, mode, finish: end, max_write, max_read, .. } = own;
        let mut text = format!(
            "--send {send} --expect {} --mode {mode} --end {end} --max-write {max_write} --max-read {max_read} \
             --watchdog-ms {watchdog_ms} --seed {}",
            peer.send, own.seed
        );
        for (name, value) in [
            ("write-pause-us", own.write_pause_us),
            ("read-pause-us", own.read_pause_us),
            ("stall-ms", own.stall_ms),
            ("rcvbuf", own.rcvbuf as u64),
        ] {
            if value > 0 {
                write!(text, " --{name} {value}").expect("a string takes all");
            }
        }
        text
    }
}

fn pick_end<'a>(client: &'a mut End, server: &'a mut End, dice: &mut Dice) -> &'a mut End {
    if dice.roll(2) == 0 { client } else { server }
}

impl End {
    fn of(dice: &mut Dice) -> Self {
        let send = if dice.roll(8) == 0 { 0 } else { dice.size(LARGE) as u64 };
        let pause = |dice: &mut Dice| if dice.roll(2) == 0 { 0 } else { 1 + dice.roll(20_000) };
        Self {
            send,
            mode: pick(dice, &MODES),
            finish: "fin",
            max_write: dice.size(1_000_000),
            max_read: dice.size(1_000_000),
            write_pause_us: pause(dice),
            read_pause_us: pause(dice),
            stall_ms: if dice.roll(4) == 0 { dice.roll(200) } else { 0 },
            rcvbuf: if dice.roll(4) == 0 { 4096 + dice.size(200_000) } else { 0 },
            seed: dice.roll(u64::MAX),
        }
    }

    /// Keeps a run short: neither too many writes and reads, nor too many pauses.
    fn pace(&mut self) {
        let least = usize::try_from(self.send / 2000).unwrap_or(usize::MAX).max(1);
        self.max_write = self.max_write.max(least);
        self.max_read = self.max_read.max(2000);
        // A size is an eighth of the largest on average, and one in four has a pause.
        let pauses = self.send / (self.max_write as u64 / 8 + 1) / 8 + 1;
        self.write_pause_us = self.write_pause_us.min(PAUSES_US / pauses);
        self.read_pause_us =
            self.read_pause_us.min(PAUSES_US / (HEAVY / (self.max_read as u64 / 8 + 1) / 8 + 1));
    }
}
