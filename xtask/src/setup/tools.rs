//! Programs that the demo and the tests start.

use super::{Apt, Purpose};
use crate::toolchain::compiler;
use crate::{exec, workspace};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// A program, why it is needed, and which packages have it (the first that the system offers).
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    pub program: &'static str,
    pub why: &'static str,
    packages: &'static [&'static str],
    /// Belongs to the user's Rust toolchain, and comes from where that came from.
    component: Option<&'static str>,
}

const fn tool(program: &'static str, why: &'static str, packages: &'static [&'static str]) -> Tool {
    Tool { program, why, packages, component: None }
}

const CLUSTER: [Tool; 3] = [
    tool("ip", "pods are network namespaces on a bridge", &["iproute2"]),
    tool("redis-server", "a real server that knows nothing of picop", &["redis-server"]),
    tool("redis-cli", "a real client that knows nothing of picop", &["redis-tools"]),
];

const TESTS: [Tool; 13] = [
    tool("nginx", "a real web server for the end-to-end tests", &["nginx-light", "nginx"]),
    tool("curl", "a real web client for the end-to-end tests", &["curl"]),
    tool("memcached", "a real cache server for the end-to-end tests", &["memcached"]),
    // What compiles brings what runs.
    tool("javac", "a client in Java for the end-to-end tests", &["default-jdk-headless"]),
    // The programs without what would set up and start a database of the machine's own.
    tool("mariadbd", "a real server that speaks first", &["mariadb-server-core", "mariadb-server"]),
    tool(
        "mariadb",
        "a real client that waits for its server to speak",
        &["mariadb-client-core", "mariadb-client"],
    ),
    tool("promtool", "Prometheus' own parser, for the end-to-end tests", &["prometheus"]),
    tool("chromium", "a real browser for the end-to-end tests", &["chromium"]),
    tool("chromedriver", "has it do what the end-to-end tests say", &["chromium-driver"]),
    // The servers themselves, and psql, are in directories of each version's own.
    tool("pg_ctlcluster", "PostgreSQL, for the end-to-end tests", &["postgresql"]),
    tool("setpriv", "runs PostgreSQL, which refuses to be root", &["util-linux"]),
    Tool {
        program: "cargo-fmt",
        why: "the first layer of the tests",
        packages: &["rustfmt-web", "rustfmt"],
        component: Some("rustfmt"),
    },
    Tool {
        program: "cargo-clippy",
        why: "the second layer of the tests",
        packages: &["rust-web-clippy", "rust-clippy"],
        component: Some("clippy"),
    },
];

/// Of the packaged compiler, if that one is here: a user's own clippy does not know its BPF target. A path rather
/// than a name, since the user's toolchain usually comes first on `PATH`.
const EBPF_LINTS: Tool = tool("/usr/bin/cargo-clippy", "lints for the eBPF programs", &["rust-web-clippy"]);

/// What the benchmarks run beside picop: proxies that it is measured against. (Envoy is no Debian package: see `envoy`.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Haproxy,
    NginxStream,
    /// No proxy: it counts a program's instructions.
    Valgrind,
}

const HAPROXY: [Tool; 1] = [tool("haproxy", "a proxy the relay is measured against", &["haproxy"])];

/// nginx's module for TCP, where Debian puts it.
pub const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

const VALGRIND: [Tool; 1] = [tool("valgrind", "counts instructions", &["valgrind"])];

const NGINX: [Tool; 2] = [
    tool("nginx", "a proxy the relay is measured against", &["nginx-light", "nginx"]),
    tool(NGINX_STREAM, "its module for TCP", &["libnginx-mod-stream"]),
];

impl Peer {
    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Haproxy => &HAPROXY,
            Self::NginxStream => &NGINX,
            Self::Valgrind => &VALGRIND,
        }
    }
}

/// A peer's programs; installs those that are missing.
pub fn ensure_peer(peer: Peer) -> Result<()> {
    Group(peer.tools().to_vec()).install_missing()
}

/// The kernels and their emulator are unpacked, not installed: see `vm`.
const EMULATOR: [Tool; 2] = [
    tool("ip", "goes into the emulated machine", &["iproute2"]),
    tool("xz", "unpacks the modules of the kernels of the matrix", &["xz-utils"]),
];

/// The programs some purposes need together.
pub struct Group(Vec<Tool>);

impl Group {
    pub fn of(purposes: &[Purpose]) -> Self {
        let has = |purpose| purposes.contains(&purpose);
        let mut tools = Vec::new();
        if has(Purpose::Demo) || has(Purpose::Test) {
            tools.extend(CLUSTER);
        }
        if has(Purpose::Test) {
            tools.extend(TESTS);
            tools.extend(compiler::packaged_is_installed().then_some(EBPF_LINTS));
        }
        if has(Purpose::Vm) {
            tools.extend(EMULATOR);
        }
        if has(Purpose::Peers) {
            tools.extend(HAPROXY);
            tools.extend(NGINX);
            tools.extend(VALGRIND);
        }
        tools.sort_by_key(|tool| tool.program);
        tools.dedup_by_key(|tool| tool.program);
        Self(tools)
    }

    /// Those that this machine lacks.
    pub fn missing(&self) -> Vec<Tool> {
        self.0.iter().filter(|tool| !tool.is_installed()).copied().collect()
    }

    /// Installs those that this machine lacks.
    pub fn install_missing(&self) -> Result<()> {
        let (components, programs): (Vec<Tool>, Vec<Tool>) =
            self.missing().into_iter().partition(|tool| tool.component.is_some() && rust_is_from_rustup());
        install_components(&components)?;
        if programs.is_empty() {
            return Ok(());
        }
        if !Apt::exists() {
            let needed: Vec<String> =
                programs.iter().map(|tool| format!("{} ({})", tool.program, tool.why)).collect();
            bail!("this system has no apt; install these by its own means: {}", needed.join(", "));
        }
        let mut packages = Vec::new();
        for tool in &programs {
            packages.push((Apt::first_offered(tool.packages)?, tool.why));
        }
        Apt::install(&packages)?;
        match self.missing().first() {
            None => Ok(()),
            Some(Tool { program, .. }) => bail!("the packages are installed, but there is no {program}"),
        }
    }
}

impl Tool {
    fn is_installed(&self) -> bool {
        match self.component {
            // Beside the cargo in use: another toolchain's would not fit it.
            Some(_) => workspace::is_executable(&workspace::cargo().with_file_name(self.program)),
            // A module is no program.
            None if self.program == NGINX_STREAM => Path::new(self.program).is_file(),
            None => workspace::program(self.program).is_some(),
        }
    }
}

fn rust_is_from_rustup() -> bool {
    std::env::var_os("RUSTUP_TOOLCHAIN").is_some()
}

fn install_components(tools: &[Tool]) -> Result<()> {
    let components: Vec<&str> = tools.iter().filter_map(|tool| tool.component).collect();
    if components.is_empty() {
        return Ok(());
    }
    exec::run(
        &format!("adding {} to your Rust toolchain, for the tests", components.join(" and ")),
        Command::new("rustup").args(["component", "add"]).args(components),
    )
}
