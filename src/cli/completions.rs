//! `completions SHELL` and `man DIR`: made from the command line itself, so that they cannot lag
//! behind it.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit, print};
use crate::error::{Error, Kind, Result};

/// Prints what a shell needs to complete this program's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// For which shell
    shell: Shell,
}

/// Writes the manual pages, one for each command.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// An existing directory, such as /usr/local/share/man/man1
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "mongo-backupfs",
        &mut script,
    );
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub(super) fn man(args: &ManArgs) -> Result<Exit> {
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(|error| {
        let place = args.directory.display();
        Error::new(
            Kind::Environment,
            format!("cannot write the manual pages to {place}"),
        )
        .with_source(error)
    })?;
    Ok(Exit::Done)
}
