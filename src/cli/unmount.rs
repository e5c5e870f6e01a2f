//! `unmount MOUNTPOINT`: end a mount and wait for the process that serves it.

use std::path::PathBuf;

use super::Exit;
use crate::error::Result;
use crate::mount;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it is mounted
    mountpoint: PathBuf,
}

pub(super) fn run(args: Args) -> Result<Exit> {
    mount::unmount(&args.mountpoint)?;
    Ok(Exit::Done)
}
