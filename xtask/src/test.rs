//! `cargo xtask test`: every layer of the tests, cheapest first.

mod libtest;
mod privilege;
mod report;

use crate::build::{self, Executable, Programs};
use crate::setup::{self, Purpose};
use crate::{build_ebpf, exec, lint, manifests, vm, workspace};
use anyhow::{Context, Result, bail};
use libtest::Tally;
use privilege::Privilege;
use report::{Done, Report};
use std::path::PathBuf;
use std::process::Command;

/// Set for test programs that need privilege: missing privilege is then a failure instead of a printed skip.
const REQUIRE_PRIVILEGE: &str = "PICOP_REQUIRE_PRIVILEGE";

/// Names MySQL's server for the tests that run on it too.
const MYSQLD: &str = "PICOP_TEST_MYSQLD";

/// Run every layer of the tests: formatting, lints, host tests, end-to-end tests as root, and with --vm the
/// kernel matrix.
///
/// What is missing is installed and built first. All layers run even if one fails; the last line sums them up.
#[derive(clap::Args)]
pub struct Args {
    /// Boot the kernels of the matrix under emulation and run the eBPF tests there: all of them if this is given, in CI
    /// without it a part that takes a few minutes.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    vm: Option<bool>,

    /// Nothing may be skipped for lack of privilege, and a part of the kernel matrix is included; implied by CI=true.
    #[arg(long)]
    ci: bool,

    /// Run the tests of databases on MySQL's own server too, not only on MariaDB's. It is fetched and unpacked below target/, and
    /// not installed.
    #[arg(long)]
    mysql: bool,

    /// Only tests whose name contains this, and neither formatting nor lints.
    filter: Option<String>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let mut run = Run::new(args);
    let mut purposes = vec![Purpose::Test];
    if run.vm {
        purposes.push(Purpose::Vm);
    }
    build_ebpf::ensure()?;
    setup::ensure(&purposes)?;
    if args.mysql {
        run.mysqld = Some(setup::ensure_mysql()?);
    }

    let mut report = Report::default();
    if run.filter.is_none() {
        report.layer("formatting", || lint::format().map(|()| Done::Checked));
        report.layer("lints, user space", || lint::clippy().map(|()| Done::Checked));
        report.layer("lints, eBPF", || {
            lint::clippy_ebpf().map(|skipped| skipped.map_or(Done::Checked, Done::Skipped))
        });
    }
    if run.filter.is_none() {
        report.layer("manifests", || manifests::check().map(|()| Done::Checked));
    }
    report.layer("host tests", || run.host());
    run.end_to_end(&mut report);
    if run.vm {
        run.kernels(&mut report);
    }
    report.finish()
}

/// What CI runs of the kernel tests on the matrix: each decision on each path (`direct::routing` is among them). Emulated,
/// all of them take ten minutes and more.
const SAMPLE: [&str; 2] = ["routing::", "late::"];

struct Run {
    ci: bool,
    vm: bool,
    /// Of the kernel matrix, only [`SAMPLE`].
    sample: bool,
    /// MySQL's server, for tests that would do without.
    mysqld: Option<PathBuf>,
    filter: Option<String>,
}

impl Run {
    fn new(args: &Args) -> Self {
        let Args { vm, ci, mysql: _, filter } = args;
        let ci = *ci || std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        Self { ci, vm: vm.unwrap_or(ci), sample: vm.is_none(), mysqld: None, filter: filter.clone() }
    }

    /// What needs neither root nor a particular kernel.
    fn host(&self) -> Result<Done> {
        let mut tally = Tally::default();
        let library = format!("--features={}", lint::LIBRARY_FEATURES);
        for selection in [
            ["--package=picop-common", "--package=picop-agent", "--package=xtask", &library].as_slice(),
            ["--package=picop-tests", "--lib", "--bins"].as_slice(),
        ] {
            let mut cargo = Command::new(workspace::cargo());
            cargo.current_dir(workspace::root()).args(["test", "--no-fail-fast"]).args(selection).arg("--");
            cargo.args(self.filter());
            tally += libtest::run(&mut cargo)?;
        }
        self.tested(tally)
    }

    /// Real programs in real namespaces on this machine's kernel.
    fn end_to_end(&self, report: &mut Report) {
        let privilege = Privilege::here();
        if let (Privilege::Missing, false) = (&privilege, self.ci) {
            let reason = "needs root, or sudo without a password";
            report.layer("end to end", || Ok(Done::Skipped(reason.to_owned())));
            return;
        }
        let built = build::agent(build::PROFILE).and_then(|programs| Ok((programs, test_programs("*")?)));
        let (programs, tests) = match built {
            Ok(built) => built,
            Err(error) => return report.layer("end to end", || Err(error)),
        };
        if tests.is_empty() {
            report.layer("end to end", || bail!("there are no end-to-end tests"));
        }
        for test in tests {
            report.layer(&format!("end to end: {}", test.name), || {
                self.privileged(&privilege, &programs, &test)
            });
        }
    }

    fn privileged(&self, privilege: &Privilege, programs: &Programs, test: &Executable) -> Result<Done> {
        let mut variables = vec![
            ("PICOP_BIN", programs.picop.clone().into_os_string()),
            ("PICOP_HOP_BIN", programs.hop.clone().into_os_string()),
            ("CARGO_MANIFEST_DIR", test.package.clone().into_os_string()),
        ];
        if self.ci {
            variables.push((REQUIRE_PRIVILEGE, "1".into()));
        }
        if let Some(mysqld) = &self.mysqld {
            variables.push((MYSQLD, mysqld.clone().into_os_string()));
        }
        let mut command = privilege.command(&test.path, &variables);
        command.current_dir(&test.package).args(self.filter());
        self.tested(libtest::run(&mut command)?)
    }

    fn kernels(&self, report: &mut Report) {
        if let Some(reason) = vm::unsupported() {
            return report.layer("kernels", || Ok(Done::Skipped(reason)));
        }
        let built =
            build::agent(build::PROFILE).and_then(|programs| Ok((programs, test_programs("kernel")?)));
        let (programs, tests) = match built {
            Ok(built) => built,
            Err(error) => return report.layer("kernels", || Err(error)),
        };
        for series in vm::SERIES {
            report.layer(&format!("kernel {series}"), || {
                let test = tests.first().context("the package picop-tests has no test program `kernel`")?;
                let sample = SAMPLE.into_iter().filter(|_| self.sample && self.filter.is_none());
                let arguments: Vec<String> = self.filter().chain(sample).map(str::to_owned).collect();
                let mut tally = Tally::default();
                let payload = vm::Payload { programs: &programs, test, arguments: &arguments };
                let (version, status) = vm::run(series, &payload, |line| {
                    println!("    {line}");
                    tally.read(line);
                })?;
                exec::announce(&format!("kernel {version}: tests exited with {status}"));
                if status != 0 {
                    tally.program_failed();
                }
                self.tested(tally)
            });
        }
    }

    /// Without a filter, a layer in which nothing ran proves nothing.
    fn tested(&self, tally: Tally) -> Result<Done> {
        if tally.total() == 0 && self.filter.is_none() {
            bail!("no test ran");
        }
        Ok(Done::Tested(tally))
    }

    fn filter(&self) -> impl Iterator<Item = &str> {
        self.filter.as_deref().into_iter()
    }
}

/// Builds test programs of the package of end-to-end tests.
fn test_programs(pattern: &str) -> Result<Vec<Executable>> {
    let mut cargo = Command::new(workspace::cargo());
    cargo.current_dir(workspace::root()).args([
        "test",
        "--package",
        "picop-tests",
        "--test",
        pattern,
        "--no-run",
    ]);
    let mut tests = build::executables("building the end-to-end tests", &mut cargo)?;
    tests.retain(|executable| executable.is_test);
    tests.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tests)
}
