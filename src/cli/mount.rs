//! `mount MOUNTPOINT`: serve the tree in the foreground until it is unmounted.

use std::path::PathBuf;

use super::{Context, Exit};
use crate::config::MountArgs;
use crate::error::Result;
use crate::mount;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An empty directory
    mountpoint: PathBuf,
    #[command(flatten)]
    settings: MountArgs,
}

pub(super) fn run(context: &Context, args: Args) -> Result<Exit> {
    let config = context.config(&args.settings)?;
    mount::run(&config, &args.mountpoint)?;
    Ok(Exit::Done)
}
