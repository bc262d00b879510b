//! How this user may run tests that make namespaces and load eBPF programs.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// What it takes.
pub enum Privilege {
    /// Nothing: this is root.
    Root,
    /// sudo, which asks for no password.
    Sudo,
    /// Not possible without asking.
    Missing,
}

impl Privilege {
    /// That of the user who runs xtask.
    pub fn here() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::Root;
        }
        let asked = Command::new("sudo")
            .args(["--non-interactive", "true"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if asked.is_ok_and(|status| status.success()) { Self::Sudo } else { Self::Missing }
    }

    /// A command with these variables; without privilege it runs too, and its tests say what they lack.
    pub fn command(&self, program: &Path, variables: &[(&str, OsString)]) -> Command {
        match self {
            Self::Root | Self::Missing => {
                let mut command = Command::new(program);
                command.envs(variables.iter().map(|(name, value)| (name, value)));
                command
            }
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["--non-interactive", "--preserve-env", "env"]);
                // sudo may keep the environment except for these.
                let path = std::env::var_os("PATH").map(|path| ("PATH", path));
                for (name, value) in path.iter().chain(variables) {
                    let mut assignment = OsString::from(name);
                    assignment.push("=");
                    assignment.push(value);
                    command.arg(assignment);
                }
                command.arg(program);
                command
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Privilege;
    use std::path::Path;

    #[test]
    fn variables_survive_sudo() {
        let command = Privilege::Sudo.command(Path::new("/t"), &[("PICOP_BIN", "/p".into())]);
        let arguments: Vec<_> =
            command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        assert!(arguments.ends_with(&["PICOP_BIN=/p".to_owned(), "/t".to_owned()]), "{arguments:?}");
    }
}
