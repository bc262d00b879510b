//! Completions and manual pages, made from the command line's own description.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::print;
use crate::cli::Cli;

/// Prints completions for a shell.
pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "picop", &mut text);
    print(&String::from_utf8(text)?)
}

/// Writes a manual page for each command into a directory, or prints picop's own.
pub fn man(dir: Option<&Path>) -> Result<()> {
    let Some(dir) = dir else {
        let mut text = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut text)?;
        return print(&String::from_utf8(text)?);
    };
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        clap_mangen::generate_to(Cli::command(), dir)
    };
    write().with_context(|| format!("cannot write manual pages to {}", dir.display()))
}
