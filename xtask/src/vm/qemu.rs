//! Booting a kernel in an emulator and listening to it.

use super::packages;
use crate::{exec, workspace};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Begins the line in which the machine says how the tests ended: the emulator's own exit status is 0 whatever
/// happened inside.
pub const VERDICT: &str = "PICOP-TESTS-EXITED";

/// Begins the line in which the machine says that it has booted, and what.
pub const BOOTED: &str = "kernel";

/// How often a machine is booted that ends before it has.
///
/// The emulator translates code once and runs it on two threads; while Linux patches its own (jump labels), one may run the
/// breakpoint of a patch that is done already: `Oops: int3`. Seen at boot.
const BOOTS: u32 = 3;

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The tests' exit status.
    Tests(i32),
    /// It said nothing of the tests, but had booted: they, or the kernel under them, may have done that.
    Silent,
    /// It did not boot.
    NotBooted,
}

/// Boot to power-off takes seconds; the tests run ten to thirty times slower than outside: a quarter of an hour for all of
/// them on two busy CPUs.
const TIME_LIMIT: Duration = Duration::from_secs(3600);

const PROGRAM: &str = "qemu-system-x86_64";

/// An emulator: the machine's own, or one unpacked for us.
pub struct Emulator {
    program: PathBuf,
    /// The directory it was unpacked in.
    unpacked: Option<PathBuf>,
}

impl Emulator {
    pub fn find() -> Result<Self> {
        if let Some(program) = workspace::program(PROGRAM) {
            return Ok(Self { program, unpacked: None });
        }
        let directory = workspace::target().join("vm/qemu");
        let program = directory.join("usr/bin").join(PROGRAM);
        if !workspace::is_executable(&program) {
            let names = packages::with_dependencies("qemu-system-x86")?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            packages::unpacked("qemu", &names)?;
        }
        Ok(Self { program, unpacked: Some(directory) })
    }

    /// Boots the machine and passes on what it writes; the exit status that it reports for the tests.
    pub fn boot(&self, kernel: &Path, initramfs: &Path, on_line: &mut impl FnMut(&str)) -> Result<i32> {
        for left in (0..BOOTS).rev() {
            match self.boot_once(kernel, initramfs, on_line)? {
                End::Tests(status) => return Ok(status),
                End::Silent => {
                    bail!("the machine ended without saying how the tests did; did its kernel crash?")
                }
                End::NotBooted if left > 0 => {
                    exec::announce(
                        "the machine ended before it had booted, as happens under emulation; once more",
                    );
                }
                End::NotBooted => {}
            }
        }
        bail!("the machine did not boot, {BOOTS} times")
    }

    fn boot_once(&self, kernel: &Path, initramfs: &Path, on_line: &mut impl FnMut(&str)) -> Result<End> {
        exec::announce(&format!("booting {} under emulation", kernel.display()));
        let mut child =
            Running(self.command(kernel, initramfs).spawn().context("cannot start the emulator")?);
        let output = child.0.stdout.take().context("the emulator's output is piped")?;
        let (sender, lines) = channel();
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
            // Stops when nobody listens any more.
            lines.all(|line| sender.send(plain(&String::from_utf8_lossy(&line))).is_ok())
        });
        let end = listen(&lines, Instant::now() + TIME_LIMIT, on_line);
        // Ends the emulator, and with it the reader's input.
        drop(child);
        drop(lines);
        if reader.join().is_err() {
            bail!("the thread that reads the emulator's output panicked");
        }
        end
    }

    fn command(&self, kernel: &Path, initramfs: &Path) -> Command {
        let mut command = Command::new(&self.program);
        if let Some(directory) = &self.unpacked {
            let library = directory.join("usr/lib/x86_64-linux-gnu");
            command
                .env(
                    "LD_LIBRARY_PATH",
                    format!("{}:{}", library.display(), directory.join("lib/x86_64-linux-gnu").display()),
                )
                .env("QEMU_MODULE_DIR", library.join("qemu"));
            for data in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(directory.join(data));
            }
        }
        command
            // The memory is fixed, since the kernel sizes TCP's buffers by it.
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", "4096", "-smp", "2"])
            .args(["-nographic", "-no-reboot", "-nic", "none"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            // The timer's check panics on a machine so busy that ten ticks do not come in time.
            .args(["-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}

/// Killed when it goes out of scope: an emulator whose kernel hangs does not end by itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for.
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("cannot end the emulator: {error}");
        }
    }
}

/// The text without the firmware's control sequences: they would clear the user's terminal.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            text.extend((!character.is_control() || character == '\t').then_some(character));
        } else if characters.next() == Some('[') {
            // Parameters, then a letter that says what to do with them.
            characters.by_ref().find(char::is_ascii_alphabetic);
        }
    }
    text.trim_end().to_owned()
}

/// Reads until the machine is silent for good.
fn listen(lines: &Receiver<String>, deadline: Instant, on_line: &mut impl FnMut(&str)) -> Result<End> {
    let mut end = End::NotBooted;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(status) = line.strip_prefix(VERDICT) {
                    end = End::Tests(status.trim().parse().context("the verdict is a number")?);
                    continue;
                }
                if end == End::NotBooted && line.strip_prefix(BOOTED).is_some_and(|it| it.starts_with(' ')) {
                    end = End::Silent;
                }
                on_line(&line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(end),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the machine was still running after {} s", TIME_LIMIT.as_secs());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BOOTED, End, VERDICT, listen, plain};
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    fn heard(lines: &[&str]) -> anyhow::Result<(End, Vec<String>)> {
        let (sender, receiver) = channel();
        for line in lines {
            sender.send((*line).to_owned()).expect("a listener");
        }
        drop(sender);
        let mut seen = Vec::new();
        let end = listen(&receiver, Instant::now() + Duration::from_secs(60), &mut |line: &str| {
            seen.push(line.to_owned());
        })?;
        Ok((end, seen))
    }

    #[test]
    fn verdict_is_what_the_machine_says() {
        let (end, seen) =
            heard(&["booting", &format!("{VERDICT} 101"), "reboot: Power down"]).expect("a verdict");
        assert_eq!(
            (end, seen),
            (End::Tests(101), vec!["booting".to_owned(), "reboot: Power down".to_owned()])
        );
    }

    #[test]
    fn control_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("\u{1b}c\u{1b}[?7l\u{1b}[2J\u{1b}[0mSeaBIOS\r"), "SeaBIOS");
        assert_eq!(plain("test a ... \tok"), "test a ... \tok");
        assert_eq!(plain("\u{1b}["), "");
    }

    #[test]
    fn silence_is_no_success() {
        let end = |lines: &[&str]| heard(lines).expect("an end").0;
        assert_eq!(end(&["kernelspace", "Kernel panic - not syncing"]), End::NotBooted);
        // What was running by then is not run again.
        assert_eq!(
            end(&[&format!("{BOOTED} 6.12"), "test a ...", "Kernel panic - not syncing"]),
            End::Silent
        );
        assert!(heard(&[&format!("{VERDICT} ok")]).is_err());
    }

    #[test]
    fn waiting_ends() {
        let (_sender, receiver) = channel();
        assert!(listen(&receiver, Instant::now(), &mut |_: &str| {}).is_err());
    }
}
