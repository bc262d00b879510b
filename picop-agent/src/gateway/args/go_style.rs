//! Flags as Go's `flag` package takes them: `-env-id` is `--env-id`.

use std::ffi::{OsStr, OsString};

/// The flags of the reference's programs.
const FLAGS: [&str; 16] = [
    "admin-port",
    "buf",
    "controller-url",
    "data",
    "default-addr",
    "destination",
    "env-id",
    "id",
    "interval",
    "method",
    "mysql",
    "port",
    "propagate",
    "proxy-port",
    "url",
    "help",
];

/// Gives the reference's flags their second dash where there is one only, in command lines of `gateway tcp`, `gateway proxy`,
/// `controller` and `curl`. Everything else stays as it is.
pub fn go_style(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<_> = args.into_iter().collect();
    let word = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or_default();
    let from = match (word(1), word(2)) {
        ("gateway", "tcp" | "proxy") => 3,
        ("curl" | "controller", _) => 2,
        _ => return args,
    };
    for arg in &mut args[from..] {
        if is_go_flag(arg) {
            let mut two = OsString::from("-");
            two.push(&*arg);
            *arg = two;
        }
    }
    args
}

fn is_go_flag(arg: &OsStr) -> bool {
    let name = arg.to_str().and_then(|arg| arg.strip_prefix('-'));
    let name = name.map(|name| name.split_once('=').map_or(name, |(name, _)| name));
    name.is_some_and(|name| FLAGS.contains(&name))
}
